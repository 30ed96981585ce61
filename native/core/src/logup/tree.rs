//! The prover's fractional-sum tree.

use std::ops::ControlFlow;

use p3_field::PackedValue;
use rayon::prelude::*;

use super::layer::{Nodes, Quad, REPORTED, Rounds, SPARE, Space, TASK, Unit};
use super::leaves::Leaves;
use super::register::{Factor, GROUP, PER_GROUP, children, two_products};
use super::runs::{Run, count, find, halved, runs};
use super::{LANE_BITS, by_index};
use crate::channel::Prover;
use crate::control::Control;
use crate::eq::log2_ceil;
use crate::field::{Ext, K, LANES, PackedF, PackedK};

/// Fractions by packed index; `0 / 1` beyond the end.
trait Fractions<const D: usize>: Sync {
    /// Packed fractions.
    fn len(&self) -> usize;
    /// One packed fraction.
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>);
    /// The sum of fractions `a` and `b`, which are neighbouring groups.
    fn sum(&self, a: usize, b: usize) -> (PackedK<D>, PackedK<D>) {
        let ((p0, q0), (p1, q1)) = (self.get(a), self.get(b));
        (two_products(p0, q1, p1, q0), q0 * q1)
    }
}

struct LeafFractions<'a, const D: usize> {
    runs: &'a [Run],
    p: &'a [PackedF],
    q: [&'a [PackedF]; D],
}

impl<'a, const D: usize> LeafFractions<'a, D> {
    fn new(leaves: &'a Leaves<D>) -> Self {
        let q = core::array::from_fn(|j| PackedF::pack_slice(&leaves.q[j]));
        LeafFractions { runs: &leaves.runs, p: PackedF::pack_slice(&leaves.p), q }
    }

    #[inline(always)]
    fn denominator(&self, i: usize) -> PackedK<D> {
        Ext(core::array::from_fn(|j| self.q[j][i]))
    }
}

impl<const D: usize> Fractions<D> for LeafFractions<'_, D> {
    fn len(&self) -> usize {
        self.q[0].len()
    }

    #[inline(always)]
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>) {
        let Some(run) = find(self.runs, i / PER_GROUP) else { return (PackedK::ZERO, PackedK::ONE) };
        let p = if run.unit { PackedK::ONE } else { PackedK::from_base(self.p[i - (run.groups.start - run.at) * PER_GROUP]) };
        (p, self.denominator(i))
    }

    #[inline(always)]
    fn sum(&self, a: usize, b: usize) -> (PackedK<D>, PackedK<D>) {
        // Units are whole pairs of groups.
        if find(self.runs, a / PER_GROUP).is_some_and(|run| run.unit) {
            let (q0, q1) = (self.denominator(a), self.denominator(b));
            return (q0 + q1, q0 * q1);
        }
        let ((p0, q0), (p1, q1)) = (self.get(a), self.get(b));
        (q1.scale(p0.0[0]) + q0.scale(p1.0[0]), q0 * q1)
    }
}

/// The layer above the leaves. Where both numerators under a node are 1 its own is the sum of the two denominators, which is not kept: a sixth of
/// all layers' memory.
struct First<'a, const D: usize> {
    leaves: LeafFractions<'a, D>,
    runs: Vec<Run>,
    /// Numerators of the runs that are not units.
    p: Vec<PackedK<D>>,
    q: Vec<PackedK<D>>,
}

impl<'a, const D: usize> First<'a, D> {
    fn new(leaves: &'a Leaves<D>, control: Control<'_>) -> ControlFlow<(), Self> {
        let (groups, leaves) = (leaves.groups().div_ceil(2), LeafFractions::new(leaves));
        let runs = halved(leaves.runs, groups);
        let sum = |i: usize| {
            let (a, b) = children(i);
            leaves.sum(a, b)
        };
        let mut p = Vec::with_capacity(count(&runs, false) * PER_GROUP);
        for run in runs.iter().filter(|r| !r.unit) {
            let nodes = run.groups.start * PER_GROUP..run.groups.end * PER_GROUP;
            p.par_extend(nodes.into_par_iter().with_min_len(TASK).map(|i| sum(i).0));
        }
        // Room for what is folded of the leaves: pages that nobody touches until then.
        let q = Vec::with_capacity(groups * PER_GROUP + p.len() + SPARE);
        let q = extended(q, groups * PER_GROUP, |i| sum(i).1, control)?;
        ControlFlow::Continue(First { leaves, runs, p, q })
    }
}

impl<const D: usize> Fractions<D> for First<'_, D> {
    fn len(&self) -> usize {
        self.q.len()
    }

    #[inline(always)]
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>) {
        let Some(run) = find(&self.runs, i / PER_GROUP) else { return (PackedK::ZERO, PackedK::ONE) };
        if run.unit {
            let (a, b) = children(i);
            return (self.leaves.denominator(a) + self.leaves.denominator(b), self.q[i]);
        }
        (self.p[i - (run.groups.start - run.at) * PER_GROUP], self.q[i])
    }
}

/// A layer further up: numerators beside denominators.
type Layer<const D: usize> = Vec<[PackedK<D>; 2]>;

impl<const D: usize> Fractions<D> for Layer<D> {
    fn len(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>) {
        <[_]>::get(self, i).map_or((PackedK::ZERO, PackedK::ONE), |&[p, q]| (p, q))
    }
}

/// The layer above: sums of neighbouring groups.
fn parent<const D: usize>(child: &impl Fractions<D>, control: Control<'_>) -> ControlFlow<(), Layer<D>> {
    let nodes = child.len().div_ceil(2 * PER_GROUP) * PER_GROUP;
    let sum = |i| -> [PackedK<D>; 2] {
        let (a, b) = children(i);
        child.sum(a, b).into()
    };
    extended(Vec::with_capacity(nodes + SPARE.div_ceil(2)), nodes, sum, control)
}

/// `out`, which has room and nothing else, with `nodes` packed nodes. `control` hears how much of them there is, if they are many.
fn extended<T: Send>(
    mut out: Vec<T>,
    nodes: usize,
    node: impl Fn(usize) -> T + Sync + Send,
    control: Control<'_>,
) -> ControlFlow<(), Vec<T>> {
    if nodes <= 2 * TASK {
        out.extend((0..nodes).map(node));
    } else {
        // Fresh memory makes this slow where there is little of it: reports come between parts.
        let part = (nodes / 4).max(REPORTED * PER_GROUP);
        while out.len() < nodes {
            out.par_extend((out.len()..nodes.min(out.len() + part)).into_par_iter().with_min_len(TASK).map(&node));
            if nodes >= REPORTED * PER_GROUP {
                control(out.len() as f64 / nodes as f64)?;
            }
        }
    }
    ControlFlow::Continue(out)
}

/// Nodes over fractions in memory.
struct Over<'a, T, const D: usize> {
    fractions: &'a T,
    lambda: Factor<D>,
}

impl<T: Fractions<D>, const D: usize> Nodes<D> for Over<'_, T, D> {
    #[inline(always)]
    fn unit(&self, i: usize, _before: usize) -> Unit<D> {
        let (a, b) = children(i);
        [self.fractions.get(a).1, self.fractions.get(b).1]
    }

    #[inline(always)]
    fn quad(&self, i: usize) -> Quad<D> {
        let (a, b) = children(i);
        let ((p0, q0), (p1, q1)) = (self.fractions.get(a), self.fractions.get(b));
        [p0 + self.lambda.times(q0), q1, p1, q0]
    }
}

/// What part of the work the sums are; the rest is sumchecks.
const SUMS: f64 = 0.25;

/// Proves the tree over `leaves`. -> the point, by index bit.
pub fn prove<const D: usize>(prover: &mut Prover, leaves: Leaves<D>, control: Control<'_>) -> ControlFlow<(), Vec<K<D>>> {
    let n = log2_ceil(leaves.groups()) + LANE_BITS;
    let mut first: Option<First<'_, D>> = None;
    let mut layers: Vec<Layer<D>> = Vec::with_capacity(n);
    for k in 0..n - LANE_BITS {
        // Half the work of the layer under it.
        let mut of_layer = |done: f64| control(SUMS * (1.0 - 0.5f64.powi(k as i32) * (1.0 - done / 2.0)));
        match (&first, layers.last()) {
            (None, _) => first = Some(First::new(&leaves, &mut of_layer)?),
            (Some(first), None) => layers.push(parent(first, &mut of_layer)?),
            (_, Some(under)) => layers.push(parent(under, &mut of_layer)?),
        }
    }
    // The last three layers merge neighbouring lanes.
    let mut small = vec![match (layers.pop(), &first) {
        (Some(top), _) => lanes_of(&top),
        (None, Some(_)) => first.take().map(|top| lanes_of(&top)).expect("there is one"),
        (None, None) => lanes_of(&LeafFractions::new(&leaves)),
    }];
    for k in 0..LANE_BITS {
        let (p, q): &(Vec<K<D>>, Vec<K<D>>) = &small[k];
        let up = (0..p.len() / 2).map(|i| (p[2 * i] * q[2 * i + 1] + p[2 * i + 1] * q[2 * i], q[2 * i] * q[2 * i + 1])).unzip();
        small.push(up);
    }
    let (_, root) = small.pop().expect("the loop pushed it");
    prover.send("root", &root);

    let mut space = [Vec::new(), Vec::new()];
    let mut r: Vec<K<D>> = Vec::new();
    for k in 0..n {
        let lambda: K<D> = prover.challenge("lambda");
        // A layer is twice the work of the one before.
        let before = 0.5f64.powi((n - k) as i32);
        let mut of_layer = |done: f64| control(SUMS + (1.0 - SUMS) * before * (1.0 + done));
        let mut rounds = Rounds { prover: &mut *prover, point: Vec::with_capacity(n), control: &mut of_layer };
        let [big, q1, p1, q0] = if let Some((p, q)) = small.pop() {
            let half = |f: &dyn Fn(usize) -> K<D>| (0..p.len() / 2).map(f).collect::<Vec<_>>();
            let arrays = [half(&|i| p[2 * i] + lambda * q[2 * i]), half(&|i| q[2 * i + 1]), half(&|i| p[2 * i + 1]), half(&|i| q[2 * i])];
            rounds.lanes(arrays, &r)
        } else if let Some(layer) = layers.pop() {
            let out = between(&mut rounds, &layer, &r, lambda, &mut space)?;
            // What is folded next fits where the last two layers were: no fresh pages.
            let [larger, _] = space;
            space = [layer.into_flattened(), larger];
            out
        } else if let Some(layer) = first.take() {
            let out = between(&mut rounds, &layer, &r, lambda, &mut space)?;
            let [larger, _] = space;
            space = [layer.q, larger];
            out
        } else {
            let nodes = Over { fractions: &LeafFractions::new(&leaves), lambda: Factor::new(lambda) };
            let pairs = leaves.groups().div_ceil(2);
            // Units divide by lambda.
            let pairs = if lambda == K::ZERO { runs([], 2, pairs) } else { halved(&leaves.runs, pairs) };
            rounds.layer(&nodes, pairs, &r, lambda, &mut space)?
        };
        let point = rounds.point;
        prover.send("gkr layer", &[big - lambda * q0, p1, q0, q1]);
        r = vec![prover.challenge("gkr layer")];
        r.extend(point);
    }
    ControlFlow::Continue(by_index(&r))
}

/// The rounds of a layer whose numerators may be anything.
fn between<const D: usize>(
    rounds: &mut Rounds<'_, D>,
    fractions: &impl Fractions<D>,
    r: &[K<D>],
    lambda: K<D>,
    space: &mut Space<D>,
) -> ControlFlow<(), [K<D>; 4]> {
    let pairs = runs([], 2, fractions.len().div_ceil(2 * PER_GROUP));
    rounds.layer(&Over { fractions, lambda: Factor::new(lambda) }, pairs, r, lambda, space)
}

/// The only group of a layer.
fn lanes_of<const D: usize>(top: &impl Fractions<D>) -> (Vec<K<D>>, Vec<K<D>>) {
    (0..GROUP)
        .map(|l| {
            let (p, q) = top.get(l / LANES);
            (p.lane(l % LANES), q.lane(l % LANES))
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{PlainReader, Transcript};
    use crate::eq::eq;
    use crate::field::F;
    use crate::logup::verify;
    use crate::reject::Reject;
    use p3_field::PrimeCharacteristicRing;
    use proptest::prelude::*;

    /// A prover whom nobody stops.
    fn prove<const D: usize>(prover: &mut Prover, leaves: Leaves<D>) -> Vec<K<D>> {
        let mut last = 0.0;
        let mut control = |done| {
            assert!((last..=1.0).contains(&done), "{done} after {last}");
            last = done;
            ControlFlow::Continue(())
        };
        let ControlFlow::Continue(point) = super::prove(prover, leaves, &mut control) else { panic!("nobody stops it") };
        point
    }

    #[test]
    fn long_layers_report_and_stop() {
        let dense = leaves::<2>(1 << 20, 5);
        let mut seen = Vec::new();
        let mut all = |done| {
            seen.push(done);
            ControlFlow::Continue(())
        };
        assert!(super::prove(&mut Prover::new(Transcript::new()), dense, &mut all).is_continue());
        // The sums, and several rounds of the largest layers.
        assert!(seen.iter().filter(|&&done| done > 0.6).count() >= 2, "{seen:?}");
        for stop in 0..seen.len() {
            let mut calls = 0;
            let mut control = |_| {
                calls += 1;
                if calls > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            if stop % 4 == 0 {
                assert!(super::prove(&mut Prover::new(Transcript::new()), leaves::<2>(1 << 20, 5), &mut control).is_break());
                assert_eq!(calls, stop + 1);
            }
        }
    }

    /// `total` leaves whose fractions sum to 0: lookups of 5 values, and their table.
    fn leaves<const D: usize>(total: usize, seed: u64) -> Leaves<D> {
        let alpha: K<D> = Ext(core::array::from_fn(|i| F::from_u64(seed + 77 + i as u64)));
        let groups = total.div_ceil(GROUP);
        let mut out = Leaves {
            runs: runs([], 4, groups),
            p: vec![F::ZERO; groups * GROUP],
            q: core::array::from_fn(|j| vec![F::from_bool(j == 0); groups * GROUP]),
        };
        let mut counts = [0u64; 5];
        for i in 0..total {
            let value = if i < total - 5 { (i as u64 * 7 + seed) % 5 } else { (i + 5 - total) as u64 };
            let q = alpha - K::from_i64(value as i64);
            (0..D).for_each(|j| out.q[j][i] = q.0[j]);
            if i < total - 5 {
                counts[value as usize] += 1;
                out.p[i] = F::ONE;
            } else {
                out.p[i] = -F::from_u64(counts[value as usize]);
            }
        }
        out
    }

    /// The same leaves without numerators where they are 1.
    fn with_units<const D: usize>(dense: &Leaves<D>) -> Leaves<D> {
        let ones: Vec<bool> = dense.p.chunks(GROUP).map(|group| group.iter().all(|&p| p == F::ONE)).collect();
        let mut units: Vec<core::ops::Range<usize>> = Vec::new();
        for (i, _) in ones.iter().enumerate().filter(|(_, one)| **one) {
            match units.last_mut() {
                Some(last) if last.end == i => last.end = i + 1,
                _ => units.push(i..i + 1),
            }
        }
        let runs = runs(units, 4, ones.len());
        let p = runs.iter().filter(|r| !r.unit).flat_map(|r| &dense.p[r.groups.start * GROUP..r.groups.end * GROUP]).copied().collect();
        Leaves { runs, p, q: dense.q.clone() }
    }

    /// Leaves of which several stretches are not lookups.
    fn patched<const D: usize>(total: usize, seed: u64) -> Leaves<D> {
        let mut l = leaves::<D>(total, seed);
        let zero = |l: &mut Leaves<D>, i: usize| {
            l.p[i] = F::ZERO;
            (0..D).for_each(|j| l.q[j][i] = F::from_bool(j == 0));
        };
        let hole = seed as usize % total;
        (hole..(hole + 70).min(total)).for_each(|i| zero(&mut l, i));
        l
    }

    fn units_change_nothing<const D: usize>(dense: Leaves<D>) {
        let units = with_units(&dense);
        let (mut slow, mut fast) = (Prover::new(Transcript::new()), Prover::new(Transcript::new()));
        assert_eq!(prove(&mut slow, dense), prove(&mut fast, units));
        assert!(slow.finish() == fast.finish());
    }

    fn check<const D: usize>(total: usize, seed: u64) {
        let l = leaves::<D>(total, seed);
        units_change_nothing(leaves::<D>(total, seed));
        units_change_nothing(patched::<D>(total, seed));
        let (p, q): (Vec<F>, Vec<K<D>>) = (l.p.clone(), (0..l.p.len()).map(|i| Ext(core::array::from_fn(|j| l.q[j][i]))).collect());
        let n = log2_ceil(l.p.len() / GROUP) + LANE_BITS;
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
    fn many_tasks() {
        check::<2>((1 << 17) + 12345, 5);
        units_change_nothing(patched::<2>((1 << 18) - 77, 100_000));
    }

    #[test]
    fn a_sum_that_is_not_zero_is_refused() {
        for at in [0, 100, 995] {
            let mut l = leaves::<2>(1000, 3);
            l.p[at] += F::ONE;
            let n = log2_ceil(l.p.len() / GROUP) + LANE_BITS;
            let mut prover = Prover::new(Transcript::new());
            prove(&mut prover, l);
            let proof = prover.finish();
            let mut reader = PlainReader::new(Transcript::new(), &proof);
            assert_eq!(verify::<2, _>(&mut reader, n).expect_err("not zero"), Reject::Equation("GKR layer"));
        }
    }
}
