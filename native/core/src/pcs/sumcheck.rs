//! The structured sumcheck of an opening: the weight vector is never materialised.
//!
//! A block keeps its few functionals `u_j (x) v_j`. It idles for `log2(stride)` rounds, is then folded along channels, where its rounds are
//! those of `A_j(c) = sum_p u_j(p) F(p, c)` against `v_j`, then along positions, where all its functionals are one vector, and ends as one
//! pair of scalars, which takes part at its index from then on. A block without any functional is folded all the same: its cells meet its
//! neighbours' weights.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::oracle::Stack;
use super::{Committed, Functional};
use crate::blocks::Block;
use crate::channel::Prover;
use crate::eq::tensor;
use crate::field::{Ext, F, K};
use crate::prover::values::add_scaled;

/// One block on its way from cells to a scalar.
struct Live<'a, const D: usize> {
    /// First round in which it is folded.
    start: usize,
    channel_bits: usize,
    /// Round after its last.
    end: usize,
    index: usize,
    cells: &'a [F],
    width: usize,
    /// Product of the challenges while idle.
    scale: K<D>,
    u: Vec<Vec<K<D>>>,
    v: Vec<Vec<K<D>>>,
    a: Vec<Vec<K<D>>>,
    challenges: Vec<(K<D>, bool)>,
    /// Cells and weights by position, once channels are folded.
    folded: Option<(Vec<K<D>>, Vec<K<D>>)>,
}

/// `(h0, h2)` of `<f_e + X f_o, w_o + X w_e>` in the coefficient basis, of `<f_0 + X (f_1 - f_0), w_0 + X (w_1 - w_0)>` in the other.
fn round<const D: usize>(f: &[K<D>], w: &[K<D>], coefficient: bool) -> (K<D>, K<D>) {
    let one = |i: usize| {
        let (f0, f1, w0, w1) = (f[2 * i], f[2 * i + 1], w[2 * i], w[2 * i + 1]);
        if coefficient { (f0 * w1, f1 * w0) } else { (f0 * w0, (f1 - f0) * (w1 - w0)) }
    };
    let add = |a: (K<D>, K<D>), b: (K<D>, K<D>)| (a.0 + b.0, a.1 + b.1);
    (0..f.len() / 2).into_par_iter().with_min_len(1 << 10).map(one).reduce(|| (K::ZERO, K::ZERO), add)
}

fn bind<const D: usize>(x: &mut Vec<K<D>>, z: K<D>, low_plus_high: bool) {
    let n = x.len() / 2;
    for i in 0..n {
        let (low, high) = (x[2 * i], x[2 * i + 1]);
        x[i] = if low_plus_high { low + z * high } else { low + z * (high - low) };
    }
    x.truncate(n);
}

/// Binds a pair of vectors: `f' = f_e + z f_o`, `w' = w_o + z w_e` in the coefficient basis.
fn bind_both<const D: usize>(f: &mut Vec<K<D>>, w: &mut Vec<K<D>>, z: K<D>, coefficient: bool) {
    bind(f, z, coefficient);
    if coefficient {
        let n = w.len() / 2;
        for i in 0..n {
            w[i] = w[2 * i + 1] + z * w[2 * i];
        }
        w.truncate(n);
    } else {
        bind(w, z, false);
    }
}

impl<'a, const D: usize> Live<'a, D> {
    fn new(stack: &Stack, oracle: usize, block: &Block, cells: &'a [F], functionals: &[&(Vec<K<D>>, Vec<K<D>>)]) -> Self {
        let start = stack.log_stride(oracle);
        let (mut u, mut v) = (Vec::new(), Vec::new());
        let cut = |x: &[K<D>], range: std::ops::Range<usize>, size: usize| {
            let part = &x[range];
            part.iter().any(|k| *k != K::ZERO).then(|| {
                let mut out = part.to_vec();
                out.resize(size, K::ZERO);
                out
            })
        };
        for (fu, fv) in functionals {
            if let Some(part) = cut(fv, block.channels.range(), block.channels.size)
                && let Some(weights) = cut(fu, block.positions.range(), block.positions.size)
            {
                u.push(weights);
                v.push(part);
            }
        }
        Live {
            start,
            channel_bits: block.channels.log(),
            end: start + block.log(),
            index: stack.index(oracle, block),
            cells: &cells[block.offset..block.offset + block.size()],
            width: block.channels.size,
            scale: K::ONE,
            u,
            v,
            a: Vec::new(),
            challenges: Vec::new(),
            folded: None,
        }
    }

    /// `A_j(c) = sum_p u_j(p) F(p, c)`.
    fn contract(&mut self) {
        let n = self.u.len();
        let width = self.width;
        let rows = (1usize << 14).div_ceil(width);
        let blank = || -> Vec<[Vec<F>; D]> { (0..n).map(|_| core::array::from_fn(|_| vec![F::ZERO; width])).collect() };
        let sums = self
            .cells
            .par_chunks(rows * width)
            .enumerate()
            .map(|(chunk, cells)| {
                let mut sums = blank();
                for (i, row) in cells.chunks_exact(width).enumerate() {
                    for (sum, u) in sums.iter_mut().zip(&self.u) {
                        let weight = u[chunk * rows + i];
                        sum.iter_mut().zip(weight.0).for_each(|(s, w)| add_scaled(s, w, row));
                    }
                }
                sums
            })
            .reduce(blank, |mut a, b| {
                for (x, y) in a.iter_mut().flatten().zip(b.iter().flatten()) {
                    x.iter_mut().zip(y).for_each(|(x, &y)| *x += y);
                }
                a
            });
        self.a = sums.into_iter().map(|s| (0..width).map(|c| Ext(core::array::from_fn(|d| s[d][c]))).collect()).collect();
    }

    /// After the channel rounds: cells folded by their challenges, functionals summed by position.
    fn merge(&mut self) {
        let t = tensor(&self.challenges.iter().map(|&(z, coefficient)| (if coefficient { K::ONE } else { K::ONE - z }, z)).collect::<Vec<_>>());
        let weights: [Vec<F>; D] = core::array::from_fn(|d| t.iter().map(|x| x.0[d]).collect());
        let f = self.cells.par_chunks_exact(self.width).with_min_len((1 << 12) / self.width.min(1 << 12)).map(|row| {
            Ext(core::array::from_fn(|d| dot(row, &weights[d])))
        });
        let f: Vec<K<D>> = f.collect();
        let mut w = vec![K::ZERO; f.len()];
        for (u, v) in self.u.iter().zip(&self.v) {
            let factor = v[0] * self.scale;
            w.par_iter_mut().with_min_len(1 << 12).zip(u).for_each(|(w, &x)| *w += x * factor);
        }
        self.folded = Some((f, w));
        self.u = Vec::new();
    }

    fn round(&self, j: usize, coefficient: bool) -> (K<D>, K<D>) {
        if j < self.start {
            // All cells at even indices: only the X^1 coefficient, which is the claim.
            return (K::ZERO, K::ZERO);
        }
        match &self.folded {
            Some((f, w)) => round(f, w, coefficient),
            None => {
                let (h0, h2) = self.a.iter().zip(&self.v).fold((K::ZERO, K::ZERO), |sum, (a, v)| {
                    let h = round(a, v, coefficient);
                    (sum.0 + h.0, sum.1 + h.1)
                });
                (h0 * self.scale, h2 * self.scale)
            }
        }
    }

    fn bind(&mut self, j: usize, z: K<D>, coefficient: bool) {
        if j < self.start {
            self.scale *= z;
            return;
        }
        match &mut self.folded {
            Some((f, w)) => bind_both(f, w, z, coefficient),
            None => {
                for (a, v) in self.a.iter_mut().zip(&mut self.v) {
                    bind_both(a, v, z, coefficient);
                }
                self.challenges.push((z, coefficient));
            }
        }
        if self.folded.is_none() && j + 1 == self.start + self.channel_bits {
            self.merge();
        }
    }
}

/// `sum row[i] weights[i]`.
fn dot(row: &[F], weights: &[F]) -> F {
    use crate::field::{LANES, PackedF};
    use p3_field::PackedValue;
    let n = row.len() / LANES * LANES;
    let packs = PackedF::pack_slice(&row[..n]).iter().zip(PackedF::pack_slice(&weights[..n]));
    let sum = packs.fold(PackedF::ZERO, |s, (&a, &b)| s + a * b);
    let tail: F = row[n..].iter().zip(&weights[n..]).map(|(&a, &b)| a * b).sum();
    sum.as_slice().iter().copied().sum::<F>() + tail
}

/// Functionals of all claims, scaled by powers of `eta`, by oracle and storage.
pub(super) type ByStorage<const D: usize> = BTreeMap<(usize, usize), Vec<(Vec<K<D>>, Vec<K<D>>)>>;

/// Batches claims: claim `k` with weight `eta^k`.
pub(super) fn batch<const D: usize>(claims: Vec<Vec<Functional<D>>>, eta: K<D>) -> ByStorage<D> {
    let mut out = ByStorage::new();
    let mut power = K::ONE;
    for (k, claim) in claims.into_iter().enumerate() {
        for mut f in claim {
            if k > 0 {
                f.u.iter_mut().for_each(|x| *x *= power);
            }
            out.entry((f.oracle, f.storage)).or_default().push((f.u, f.v));
        }
        power *= eta;
    }
    out
}

/// All rounds. -> the point: rows first, then columns.
pub(super) fn prove<const D: usize>(prover: &mut Prover, stack: &Stack, oracles: &[&Committed], functionals: &ByStorage<D>) -> Vec<K<D>> {
    let mut live: Vec<Live<'_, D>> = Vec::new();
    for (k, (layout, committed)) in stack.layouts.iter().zip(oracles).enumerate() {
        for block in &layout.blocks {
            let mine: Vec<_> = functionals.get(&(k, block.owner)).into_iter().flatten().collect();
            live.push(Live::new(stack, k, block, &committed.cells, &mine));
        }
    }
    live.par_iter_mut().filter(|b| b.channel_bits > 0).for_each(Live::contract);

    let mut tail: BTreeMap<usize, (K<D>, K<D>)> = BTreeMap::new();
    let mut point = Vec::with_capacity(stack.log_rows + stack.column_bits);
    for j in 0..stack.log_rows + stack.column_bits {
        let coefficient = j < stack.log_rows;
        // Blocks of one channel are folded by position from their first round on.
        live.par_iter_mut().filter(|b| b.folded.is_none() && b.start + b.channel_bits == j).for_each(Live::merge);
        let (done, rest): (Vec<_>, Vec<_>) = live.into_iter().partition(|b| b.end == j);
        live = rest;
        for b in done {
            let (f, w) = b.folded.expect("merged in this round at the latest");
            tail.insert(b.index >> j, (f[0], w[0]));
        }
        let (mut h0, mut h2) =
            live.par_iter().map(|b| b.round(j, coefficient)).reduce(|| (K::ZERO, K::ZERO), |a, b| (a.0 + b.0, a.1 + b.1));
        let pairs = pair_up(&tail);
        for &(_, f, w) in &pairs {
            let h = round(&f, &w, coefficient);
            h0 += h.0;
            h2 += h.1;
        }
        prover.send("opening round", &[h0, h2]);
        let z: K<D> = prover.challenge("opening round");
        point.push(z);
        live.par_iter_mut().for_each(|b| b.bind(j, z, coefficient));
        tail = pairs
            .into_iter()
            .map(|(i, f, w)| {
                let (mut f, mut w) = (f.to_vec(), w.to_vec());
                bind_both(&mut f, &mut w, z, coefficient);
                (i, (f[0], w[0]))
            })
            .collect();
    }
    point
}

/// Scalars by index -> pairs by parent, absent ones 0.
fn pair_up<const D: usize>(tail: &BTreeMap<usize, (K<D>, K<D>)>) -> Vec<(usize, [K<D>; 2], [K<D>; 2])> {
    let mut out: Vec<(usize, [K<D>; 2], [K<D>; 2])> = Vec::new();
    for (&i, &(f, w)) in tail {
        if out.last().is_none_or(|last| last.0 != i >> 1) {
            out.push((i >> 1, [K::ZERO; 2], [K::ZERO; 2]));
        }
        let last = out.last_mut().expect("just pushed");
        last.1[i & 1] = f;
        last.2[i & 1] = w;
    }
    out
}
