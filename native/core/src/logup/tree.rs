//! The prover's fractional-sum tree.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::leaves::Leaves;
use super::{LANE_BITS, by_index};
use crate::channel::Prover;
use crate::eq::{eq, log2_ceil};
use crate::extvec::{ExtVec, GROUP, PER_GROUP, Packs};
use crate::field::{F, K, LANES, PackedF, PackedK};
use p3_field::PackedValue;

/// Groups that one task handles.
const TASK: usize = 256;

/// Numerators and denominators of one layer.
struct Layer<const D: usize> {
    p: Numerators<D>,
    q: ExtVec<D>,
}

enum Numerators<const D: usize> {
    Base(Vec<F>),
    Ext(ExtVec<D>),
}

#[derive(Clone, Copy)]
enum NumeratorPacks<'a, const D: usize> {
    Base(&'a [PackedF]),
    Ext(Packs<'a, D>),
}

impl<const D: usize> NumeratorPacks<'_, D> {
    #[inline(always)]
    fn get(&self, i: usize) -> PackedK<D> {
        match self {
            NumeratorPacks::Base(p) => PackedK::from_base(p[i]),
            NumeratorPacks::Ext(p) => p.get(i),
        }
    }
}

impl<const D: usize> Layer<D> {
    fn groups(&self) -> usize {
        self.q.groups()
    }

    fn numerators(&self) -> NumeratorPacks<'_, D> {
        match &self.p {
            Numerators::Base(p) => NumeratorPacks::Base(PackedF::pack_slice(p)),
            Numerators::Ext(p) => NumeratorPacks::Ext(p.packs()),
        }
    }

    /// Appends groups `0 / 1` up to a multiple of `n`.
    fn pad(&mut self, n: usize) {
        while self.groups() % n != 0 {
            match &mut self.p {
                Numerators::Base(p) => p.extend([F::ZERO; GROUP]),
                Numerators::Ext(p) => p.push_group(K::ZERO),
            }
            self.q.push_group(K::ONE);
        }
    }

    /// The layer above: sums of neighbouring groups.
    fn parent(&mut self) -> Layer<D> {
        self.pad(2);
        let half = self.groups() / 2;
        let (mut p_up, mut q_up) = (ExtVec::zeros(half), ExtVec::zeros(half));
        let (p, q) = (self.numerators(), self.q.packs());
        let chunks = p_up.packs_mut().chunks(TASK * PER_GROUP).into_par_iter().zip(q_up.packs_mut().chunks(TASK * PER_GROUP));
        chunks.enumerate().for_each(|(task, (mut p_out, mut q_out))| {
            let first = task * TASK;
            for g in 0..TASK.min(half - first) {
                for w in 0..PER_GROUP {
                    let (i, j) = ((2 * (first + g)) * PER_GROUP + w, (2 * (first + g) + 1) * PER_GROUP + w);
                    let (q0, q1) = (q.get(i), q.get(j));
                    let sum = match p {
                        NumeratorPacks::Base(p) => q1.scale(p[i]) + q0.scale(p[j]),
                        NumeratorPacks::Ext(p) => p.get(i) * q1 + p.get(j) * q0,
                    };
                    p_out.set(g * PER_GROUP + w, sum);
                    q_out.set(g * PER_GROUP + w, q0 * q1);
                }
            }
        });
        Layer { p: Numerators::Ext(p_up), q: q_up }
    }
}

/// The four factors of a layer's summand `P0 q1 + p1 q0`, with `P0 = p0 + lambda q0`.
type Quad<const D: usize> = [PackedK<D>; 4];

/// Where a round reads its arrays: from the child layer (first round) or from what the last round folded.
trait Arrays<const D: usize>: Sync {
    /// `[P0, q1, p1, q0]` at a packed index.
    fn get(&self, group: usize, w: usize) -> Quad<D>;
}

struct FromLayer<'a, const D: usize> {
    p: NumeratorPacks<'a, D>,
    q: Packs<'a, D>,
    lambda: PackedK<D>,
}

impl<const D: usize> Arrays<D> for FromLayer<'_, D> {
    #[inline(always)]
    fn get(&self, group: usize, w: usize) -> Quad<D> {
        let (i, j) = (2 * group * PER_GROUP + w, (2 * group + 1) * PER_GROUP + w);
        let q0 = self.q.get(i);
        [self.p.get(i) + self.lambda * q0, self.q.get(j), self.p.get(j), q0]
    }
}

struct Folded<const D: usize> {
    arrays: [ExtVec<D>; 4],
}

struct FoldedPacks<'a, const D: usize>([Packs<'a, D>; 4]);

impl<const D: usize> Arrays<D> for FoldedPacks<'_, D> {
    #[inline(always)]
    fn get(&self, group: usize, w: usize) -> Quad<D> {
        let i = group * PER_GROUP + w;
        core::array::from_fn(|k| self.0[k].get(i))
    }
}

impl<const D: usize> Folded<D> {
    fn packs(&self) -> FoldedPacks<'_, D> {
        FoldedPacks(core::array::from_fn(|k| self.arrays[k].packs()))
    }

    /// To an even number of groups with what `0 / 1` leaves are.
    fn pad(&mut self, lambda: K<D>) {
        if self.arrays[0].groups() % 2 == 1 {
            for (array, x) in self.arrays.iter_mut().zip([lambda, K::ONE, K::ZERO, K::ONE]) {
                array.push_group(x);
            }
        }
    }
}

/// `(t(0), t2)` over `pairs` pairs of groups, with the weights of the remaining variables.
fn round<const D: usize, A: Arrays<D>>(arrays: &A, pairs: usize, weights: &ExtVec<D>) -> (K<D>, K<D>) {
    let weights = weights.packs();
    let (t0, t2) = (0..pairs.div_ceil(TASK))
        .into_par_iter()
        .map(|task| {
            let (mut t0, mut t2) = (PackedK::<D>::ZERO, PackedK::<D>::ZERO);
            for s in task * TASK..pairs.min((task + 1) * TASK) {
                for w in 0..PER_GROUP {
                    let (a, b) = (arrays.get(2 * s, w), arrays.get(2 * s + 1, w));
                    let e = weights.get(s * PER_GROUP + w);
                    t0 += e * (a[0] * a[1] + a[2] * a[3]);
                    let d: Quad<D> = core::array::from_fn(|k| b[k] - a[k]);
                    t2 += e * (d[0] * d[1] + d[2] * d[3]);
                }
            }
            (t0, t2)
        })
        .reduce(|| (PackedK::ZERO, PackedK::ZERO), |a, b| (a.0 + b.0, a.1 + b.1));
    (t0.sum_lanes(), t2.sum_lanes())
}

fn bind<const D: usize, A: Arrays<D>>(arrays: &A, pairs: usize, x: K<D>) -> Folded<D> {
    let mut out = Folded { arrays: core::array::from_fn(|_| ExtVec::zeros(pairs)) };
    let x = x.broadcast();
    let [a, b, c, d] = out.arrays.each_mut().map(|v| v.packs_mut().chunks(TASK * PER_GROUP));
    let tasks: Vec<_> = a.into_iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d]).collect();
    tasks.into_par_iter().enumerate().for_each(|(task, mut chunk)| {
        for (g, s) in (task * TASK..pairs.min((task + 1) * TASK)).enumerate() {
            for w in 0..PER_GROUP {
                let (low, high) = (arrays.get(2 * s, w), arrays.get(2 * s + 1, w));
                for k in 0..4 {
                    chunk[k].set(g * PER_GROUP + w, low[k] + x * (high[k] - low[k]));
                }
            }
        }
    });
    out
}

/// `eq` of the remaining variables for the first round of a layer, by groups; and the tables of later rounds by adding neighbours.
fn weight_table<const D: usize>(r: &[K<D>], groups: usize) -> ExtVec<D> {
    let (high, lanes) = r.split_at(r.len() - LANE_BITS);
    let lanes = eq(lanes);
    let mut out = ExtVec::zeros(groups);
    let table = eq(high);
    for j in 0..D {
        out.c[j].par_chunks_mut(GROUP).enumerate().for_each(|(g, chunk)| {
            for (x, &l) in chunk.iter_mut().zip(&lanes) {
                *x = (table[g] * l).0[j];
            }
        });
    }
    out
}

fn halve<const D: usize>(weights: &ExtVec<D>, full: usize) -> ExtVec<D> {
    let groups = full / 2;
    let mut out = ExtVec::zeros(groups);
    for j in 0..D {
        let from = &weights.c[j];
        out.c[j].par_chunks_mut(GROUP).with_min_len(1024).enumerate().for_each(|(g, chunk)| {
            let (a, b) = (&from[2 * g * GROUP..][..GROUP], &from[(2 * g + 1) * GROUP..][..GROUP]);
            for l in 0..GROUP {
                chunk[l] = a[l] + b[l];
            }
        });
    }
    out
}

/// One scalar round over the lowest variable.
fn scalar_round<const D: usize>(arrays: &[Vec<K<D>>; 4], weights: &[K<D>]) -> (K<D>, K<D>) {
    let (mut t0, mut t2) = (K::ZERO, K::ZERO);
    for (i, &e) in weights.iter().enumerate() {
        let a: [K<D>; 4] = core::array::from_fn(|k| arrays[k][2 * i]);
        let d: [K<D>; 4] = core::array::from_fn(|k| arrays[k][2 * i + 1] - a[k]);
        t0 += e * (a[0] * a[1] + a[2] * a[3]);
        t2 += e * (d[0] * d[1] + d[2] * d[3]);
    }
    (t0, t2)
}

struct Rounds<'a, const D: usize> {
    prover: &'a mut Prover,
    point: Vec<K<D>>,
}

impl<const D: usize> Rounds<'_, D> {
    fn exchange(&mut self, t0: K<D>, t2: K<D>) -> K<D> {
        self.prover.send("gkr round", &[t0, t2]);
        let x = self.prover.challenge("gkr round");
        self.point.push(x);
        x
    }

    /// The rounds over the lanes, one group left.
    fn lanes(&mut self, mut arrays: [Vec<K<D>>; 4], r: &[K<D>]) -> [K<D>; 4] {
        for j in 0..r.len() {
            let (t0, t2) = scalar_round(&arrays, &eq(&r[j + 1..]));
            let x = self.exchange(t0, t2);
            arrays = arrays.map(|v| v.chunks_exact(2).map(|c| c[0] + x * (c[1] - c[0])).collect());
        }
        arrays.map(|v| v[0])
    }
}

/// Proves the tree over `leaves`. -> the point, by index bit.
pub fn prove<const D: usize>(prover: &mut Prover, leaves: Leaves<D>) -> Vec<K<D>> {
    let mut layers = vec![Layer { p: Numerators::Base(leaves.p), q: leaves.q }];
    let n = log2_ceil(layers[0].groups()) + LANE_BITS;
    for k in 0..n - LANE_BITS {
        let parent = layers[k].parent();
        layers.push(parent);
    }
    let top = layers.pop().expect("there is at least one layer");
    // The last three layers merge neighbouring lanes.
    let lift = |v: NumeratorPacks<'_, D>, q: bool| (0..GROUP).map(|i| if q { top.q.get(i) } else { v.get(i / LANES).lane(i % LANES) }).collect();
    let mut small: Vec<(Vec<K<D>>, Vec<K<D>>)> = vec![(lift(top.numerators(), false), lift(top.numerators(), true))];
    for _ in 0..LANE_BITS {
        let (p, q) = small.last().expect("not empty");
        let up = (0..p.len() / 2).map(|i| (p[2 * i] * q[2 * i + 1] + p[2 * i + 1] * q[2 * i], q[2 * i] * q[2 * i + 1])).unzip();
        small.push(up);
    }
    let (_, root) = small.pop().expect("not empty");
    prover.send("root", &root);

    let mut r: Vec<K<D>> = Vec::new();
    for _ in 0..n {
        let lambda: K<D> = prover.challenge("lambda");
        let mut rounds = Rounds { prover: &mut *prover, point: Vec::with_capacity(r.len() + 1) };
        let last = match small.pop() {
            Some((p, q)) => {
                let half = |f: &dyn Fn(usize) -> K<D>| (0..p.len() / 2).map(f).collect::<Vec<_>>();
                let arrays =
                    [half(&|i| p[2 * i] + lambda * q[2 * i]), half(&|i| q[2 * i + 1]), half(&|i| p[2 * i + 1]), half(&|i| q[2 * i])];
                rounds.lanes(arrays, &r)
            }
            None => {
                let layer = layers.pop().expect("a layer for each variable");
                large_layer(&mut rounds, layer, &r, lambda)
            }
        };
        let [big, q1, p1, q0] = last;
        let point = rounds.point;
        prover.send("gkr layer", &[big - lambda * q0, p1, q0, q1]);
        r = vec![prover.challenge("gkr layer")];
        r.extend(point);
    }
    by_index(&r)
}

/// The rounds of a layer whose parent has at least one whole group.
fn large_layer<const D: usize>(rounds: &mut Rounds<'_, D>, mut layer: Layer<D>, r: &[K<D>], lambda: K<D>) -> [K<D>; 4] {
    let high = r.len() - LANE_BITS;
    if high == 0 {
        let source = FromLayer { p: layer.numerators(), q: layer.q.packs(), lambda: lambda.broadcast() };
        return rounds.lanes(unpack(&source), &r[high..]);
    }
    layer.pad(4);
    let pairs = layer.groups() / 4;
    let mut weights = weight_table(&r[1..], 1 << (high - 1));
    let mut folded: Option<Folded<D>> = None;
    let mut count = pairs;
    for j in 0..high {
        let full = 1usize << (high - 1 - j);
        if j > 0 {
            weights = halve(&weights, 2 * full);
        }
        let (t0, t2) = match &folded {
            None => {
                let source = FromLayer { p: layer.numerators(), q: layer.q.packs(), lambda: lambda.broadcast() };
                round(&source, count, &weights)
            }
            Some(f) => round(&f.packs(), count, &weights),
        };
        let used: K<D> = (0..count * GROUP).into_par_iter().with_min_len(1 << 12).map(|i| weights.get(i)).reduce(|| K::ZERO, |a, b| a + b);
        let x = rounds.exchange(t0 + lambda * (K::ONE - used), t2);
        let mut next = match &folded {
            None => {
                let source = FromLayer { p: layer.numerators(), q: layer.q.packs(), lambda: lambda.broadcast() };
                bind(&source, count, x)
            }
            Some(f) => bind(&f.packs(), count, x),
        };
        if j + 1 < high {
            next.pad(lambda);
        }
        count = next.arrays[0].groups() / 2;
        folded = Some(next);
        if j == 0 {
            layer = Layer { p: Numerators::Base(Vec::new()), q: ExtVec::zeros(0) };
        }
    }
    let folded = folded.expect("at least one round");
    rounds.lanes(unpack(&folded.packs()), &r[high..])
}

fn unpack<const D: usize, A: Arrays<D>>(arrays: &A) -> [Vec<K<D>>; 4] {
    let mut out: [Vec<K<D>>; 4] = core::array::from_fn(|_| Vec::with_capacity(GROUP));
    for w in 0..PER_GROUP {
        for (column, packed) in out.iter_mut().zip(arrays.get(0, w)) {
            column.extend((0..LANES).map(|l| packed.lane(l)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{PlainReader, Transcript};
    use crate::field::Ext;
    use crate::logup::verify;
    use crate::reject::Reject;
    use proptest::prelude::*;

    /// `total` leaves whose fractions sum to 0: lookups of 5 values, and their table.
    fn leaves<const D: usize>(total: usize, seed: u64) -> Leaves<D> {
        let alpha: K<D> = Ext(core::array::from_fn(|i| F::from_u64(seed + 77 + i as u64)));
        let groups = total.div_ceil(GROUP);
        let mut out = Leaves { p: vec![F::ZERO; groups * GROUP], q: ExtVec::zeros(groups) };
        out.q.c[0].fill(F::ONE);
        let mut counts = [0u64; 5];
        for i in 0..total {
            let value = if i < total - 5 { (i as u64 * 7 + seed) % 5 } else { (i + 5 - total) as u64 };
            let q = alpha - K::from_i64(value as i64);
            (0..D).for_each(|j| out.q.c[j][i] = q.0[j]);
            if i < total - 5 {
                counts[value as usize] += 1;
                out.p[i] = F::ONE;
            } else {
                out.p[i] = -F::from_u64(counts[value as usize]);
            }
        }
        out
    }

    fn check<const D: usize>(total: usize, seed: u64) {
        let l = leaves::<D>(total, seed);
        let (p, q): (Vec<F>, Vec<K<D>>) = (l.p.clone(), (0..l.p.len()).map(|i| l.q.get(i)).collect());
        let n = log2_ceil(l.q.groups()) + LANE_BITS;
        let mut prover = Prover::new(Transcript::new());
        let point = prove(&mut prover, l);
        let proof = prover.finish();
        let mut reader = PlainReader::new(Transcript::new(), &proof);
        let (r, cp, cq) = verify::<D, _>(&mut reader, n).expect("honest");
        reader.finish().expect("all read");
        assert_eq!(r, point);
        let weights = eq(&r);
        let inside: K<D> = weights[..q.len()].iter().copied().sum();
        assert_eq!(cp, p.iter().zip(&weights).map(|(&x, &w)| w.scale(x)).sum::<K<D>>());
        assert_eq!(cq, q.iter().zip(&weights).map(|(&x, &w)| w * x).sum::<K<D>>() + K::ONE - inside);

        // Any changed element is noticed, at the latest by the claims on the leaves.
        for at in (0..proof.len() / (8 * D)).step_by(7) {
            let mut bad = proof.clone();
            bad[at * 8 * D] ^= 1;
            let mut reader = PlainReader::new(Transcript::new(), &bad);
            let outcome = verify::<D, _>(&mut reader, n);
            assert!(!matches!(&outcome, Ok((r2, p2, q2)) if (r2, p2, q2) == (&r, &cp, &cq)), "element {at} is not bound");
        }
        let mut reader = PlainReader::new(Transcript::new(), &proof[..proof.len() - 1]);
        assert_eq!(verify::<D, _>(&mut reader, n).expect_err("too short"), Reject::Truncated { at: "gkr layer" });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn tree_closes(total in 6usize..3000, seed in 0u64..1000) {
            check::<2>(total, seed);
            check::<3>(total, seed);
        }
    }

    #[test]
    fn a_sum_that_is_not_zero_is_refused() {
        for at in [0, 100, 995] {
            let mut l = leaves::<2>(1000, 3);
            l.p[at] += F::ONE;
            let n = log2_ceil(l.q.groups()) + LANE_BITS;
            let mut prover = Prover::new(Transcript::new());
            prove(&mut prover, l);
            let proof = prover.finish();
            let mut reader = PlainReader::new(Transcript::new(), &proof);
            assert_eq!(verify::<2, _>(&mut reader, n).expect_err("not zero"), Reject::Equation("GKR layer"));
        }
    }
}
