//! The opening sumcheck, without ever writing down the vector of weights.
//!
//! The weights of a block are a few outer products `u (x) v`. While channel variables are bound, `<F, u (x) v> = <A, v>` with
//! `A(c) = sum_p u(p) F(p, c)`, a vector over channels alone; afterwards `F` is folded by the channel challenges at once, all `u` merge into
//! one vector over positions, and the position variables are bound. What then is left of a block is one cell and one weight; these scalars
//! are kept in a sparse vector, where they meet their neighbours. A block without a weight is folded all the same: its cells meet its
//! neighbours' weights there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rayon::prelude::*;

use super::cells::BlockCells;
use super::functional::{Term, Weighted, restrict};
use super::kernel::{over_channels, over_positions};
use super::oracle::{Committed, Hiding};
use super::planes::{Basis, Planes, round};
use super::stack::{Span, Stack};
use crate::channel::Prover;
use crate::control::Control;
use crate::field::K;
use crate::run::Run;

/// A block while its variables are bound.
struct Live<'a, const D: usize> {
    span: Span,
    cells: BlockCells<'a>,
    terms: Vec<Term<D>>,
    /// Product of the challenges of the idle variables, which every weight takes.
    idle: K<D>,
    /// `(A, v)` of each term.
    sides: Vec<(Planes<D>, Planes<D>)>,
    /// Data and weights over positions, once the channels are bound.
    over_positions: Option<(Planes<D>, Planes<D>)>,
}

impl<'a, const D: usize> Live<'a, D> {
    fn new(span: Span, cells: BlockCells<'a>, terms: Vec<Term<D>>) -> Self {
        let channels = 1 << span.channels;
        let sums = over_positions(cells, channels, &terms.iter().map(|t| (t.position, t.u.as_slice())).collect::<Vec<_>>());
        let side = |(t, a): (&Term<D>, Vec<K<D>>)| {
            let v = |c: usize| c.checked_sub(t.channel).and_then(|c| t.v.get(c)).copied().unwrap_or(K::ZERO);
            (Planes::new(span.channels, |c| a[c]), Planes::new(span.channels, v))
        };
        let sides = terms.iter().zip(sums).map(side).collect();
        Live { span, cells, terms, idle: K::ONE, sides, over_positions: None }
    }

    /// Folds the cells by the channel challenges among `zs` and merges the weights.
    fn enter_positions(&mut self, zs: &[(K<D>, Basis)]) {
        if self.over_positions.is_some() {
            return;
        }
        let t = data_tensor(&zs[self.span.start..][..self.span.channels]);
        let f = over_channels(self.cells, &t);
        let mut w = vec![K::ZERO; f.len()];
        for (term, (_, v)) in self.terms.iter().zip(&self.sides) {
            let q = v.get(0) * self.idle;
            for (x, &u) in w[term.position..].iter_mut().zip(term.u.iter()) {
                *x += q * u;
            }
        }
        self.sides = Vec::new();
        self.over_positions = Some((Planes::new(self.span.positions, |p| f[p]), Planes::new(self.span.positions, |p| w[p])));
    }

    fn round(&mut self, zs: &[(K<D>, Basis)], basis: Basis) -> (K<D>, K<D>) {
        let j = zs.len();
        if self.terms.is_empty() || j < self.span.start {
            // No weight; or all cells at even and all weights at even indices, so that only the coefficient of X is not 0.
            (K::ZERO, K::ZERO)
        } else if j < self.span.start + self.span.channels {
            let sum = self.sides.iter().map(|(a, v)| round(a, v, basis)).fold((K::ZERO, K::ZERO), plus);
            (sum.0 * self.idle, sum.1 * self.idle)
        } else {
            self.enter_positions(zs);
            self.over_positions.as_ref().map_or((K::ZERO, K::ZERO), |(f, w)| round(f, w, basis))
        }
    }

    fn bind(&mut self, j: usize, z: K<D>, basis: Basis) {
        if self.terms.is_empty() {
        } else if j < self.span.start {
            self.idle *= z;
        } else if let Some((f, w)) = &mut self.over_positions {
            f.fold_data(z, basis);
            w.fold_weight(z, basis);
        } else {
            for (a, v) in &mut self.sides {
                a.fold_data(z, basis);
                v.fold_weight(z, basis);
            }
        }
    }

    /// The cell and the weight that are left.
    fn scalar(&mut self, zs: &[(K<D>, Basis)]) -> (K<D>, K<D>) {
        if self.terms.is_empty() {
            let own = &zs[self.span.start..][..self.span.channels + self.span.positions];
            let (channels, positions) = own.split_at(self.span.channels);
            let f = over_channels(self.cells, &data_tensor(channels));
            return (f.iter().zip(data_tensor(positions)).map(|(&x, t)| x * t).sum(), K::ZERO);
        }
        self.enter_positions(zs);
        self.over_positions.as_ref().map_or((K::ZERO, K::ZERO), |(f, w)| (f.get(0), w.get(0)))
    }
}

fn plus<const D: usize>(a: (K<D>, K<D>), b: (K<D>, K<D>)) -> (K<D>, K<D>) {
    (a.0 + b.0, a.1 + b.1)
}

/// The vector that folds data by the given challenges.
fn data_tensor<const D: usize>(zs: &[(K<D>, Basis)]) -> Vec<K<D>> {
    let run = data_run(zs);
    run.iter(0..run.len()).collect()
}

/// [`data_tensor`] for sums of products.
fn data_run<const D: usize>(zs: &[(K<D>, Basis)]) -> Run<D> {
    let pair = |&(z, basis): &(K<D>, Basis)| match basis {
        Basis::Coefficient => (K::ONE, z),
        Basis::Evaluation => (K::ONE - z, z),
    };
    Run::tensor(K::ONE, zs.iter().map(pair))
}

/// One cell and one weight for each index, the absent ones 0.
type Tail<const D: usize> = BTreeMap<usize, (K<D>, K<D>)>;

/// The tail as dense vectors of pairs, and the parents' indices.
fn pair_up<const D: usize>(tail: &Tail<D>) -> (Vec<usize>, [Vec<(K<D>, K<D>)>; 2]) {
    let mut parents: Vec<usize> = tail.keys().map(|i| i >> 1).collect();
    parents.dedup();
    let at = |i| tail.get(&i).copied().unwrap_or((K::ZERO, K::ZERO));
    let sides = [0, 1].map(|b| parents.iter().map(|p| at(2 * p + b)).collect());
    (parents, sides)
}

/// The masks, each a column of the stack without a weight, when the bits of rows are bound.
fn masks<const D: usize>(stack: &Stack, oracles: &[&Committed], zs: &[(K<D>, Basis)]) -> Vec<(usize, (K<D>, K<D>))> {
    let with_mask = oracles.iter().zip(&stack.bases).filter_map(|(o, base)| Some((base + o.layout.columns, o.fresh.as_ref()?)));
    with_mask
        .map(|(column, fresh)| {
            let weights = data_run(&zs[stack.log_mask_stride()..]);
            let mask = Run::from(fresh.mask::<D>().take(weights.len()).collect::<Vec<_>>());
            (column, (mask.dot(0, &weights, 0, weights.len()), K::ZERO))
        })
        .collect()
}

/// The random halves of kept columns, cells without a weight, when all bits of rows but the highest are bound.
fn random_halves<const D: usize>(stack: &Stack, oracles: &[&Committed], zs: &[(K<D>, Basis)]) -> Vec<(usize, (K<D>, K<D>))> {
    let mut out = Vec::new();
    for (o, layout) in stack.layouts.iter().enumerate() {
        if layout.hiding != Hiding::Kept {
            continue;
        }
        let weights = data_run(&zs[stack.log_stride(o)..]);
        out.extend(layout.random_blocks().map(|(offset, size)| {
            let BlockCells::Wide(cells) = oracles[o].cells.block(offset, size) else { unreachable!("random cells are kept as elements") };
            (stack.span_of(o, offset, 0, size.trailing_zeros() as usize).index >> zs.len(), (weights.dot_base(cells), K::ZERO))
        }));
    }
    out
}

/// Runs all rounds and sends them. Returns the challenges and the cells' value at them, `s`.
pub(crate) fn prove<const D: usize>(
    prover: &mut Prover,
    stack: &Stack,
    oracles: &[&Committed],
    functionals: &[Vec<Vec<Weighted<'_, D>>>],
    control: Control,
) -> ControlFlow<(), (Vec<K<D>>, K<D>)> {
    let places: Vec<_> = stack.layouts.iter().enumerate().flat_map(|(o, layout)| layout.blocks.iter().map(move |b| (o, b))).collect();
    let mut live: Vec<Live<D>> = places
        .into_par_iter()
        .map(|(o, b)| Live::new(stack.span(o, b), oracles[o].cells.block(b.offset, b.size()), restrict(b, &functionals[o][b.owner])))
        .collect();
    control(0.3)?;
    let mut tail = Tail::new();
    let mut zs: Vec<(K<D>, Basis)> = Vec::with_capacity(stack.variables());
    for j in 0..stack.variables() {
        let basis = if j < stack.log_rows { Basis::Coefficient } else { Basis::Evaluation };
        let (mut done, rest): (Vec<_>, Vec<_>) = live.into_iter().partition(|x| x.span.end() == j);
        live = rest;
        tail.par_extend(done.par_iter_mut().map(|x| (x.span.index >> j, x.scalar(&zs))));
        if j == stack.log_rows {
            tail.extend(masks(stack, oracles, &zs));
        }
        if j + 1 == stack.log_rows {
            tail.extend(random_halves(stack, oracles, &zs));
        }
        let (parents, [even, odd]) = pair_up(&tail);
        let mut h = live.par_iter_mut().map(|x| x.round(&zs, basis)).reduce(|| (K::ZERO, K::ZERO), plus);
        for (&(fe, we), &(fo, wo)) in even.iter().zip(&odd) {
            h = plus(
                h,
                match basis {
                    Basis::Coefficient => (fe * wo, fo * we),
                    Basis::Evaluation => (fe * we, (fo - fe) * (wo - we)),
                },
            );
        }
        prover.send("opening round", &[h.0, h.1]);
        let z = prover.challenge("opening round");
        live.par_iter_mut().for_each(|x| x.bind(j, z, basis));
        tail = parents
            .into_iter()
            .zip(even.into_iter().zip(odd))
            .map(|(p, ((fe, we), (fo, wo)))| {
                let folded = match basis {
                    Basis::Coefficient => (fe + z * fo, wo + z * we),
                    Basis::Evaluation => (fe + z * (fo - fe), we + z * (wo - we)),
                };
                (p, folded)
            })
            .collect();
        zs.push((z, basis));
        control(0.3 + 0.4 * (j + 1) as f64 / stack.variables() as f64)?;
    }
    // All variables are bound: one cell is left, unless there were none to bind.
    tail.extend(live.iter_mut().map(|x| (0, x.scalar(&zs))));
    let s = tail.get(&0).map_or(K::ZERO, |t| t.0);
    ControlFlow::Continue((zs.into_iter().map(|(z, _)| z).collect(), s))
}
