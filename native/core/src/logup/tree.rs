//! The prover's fractional-sum tree.

use p3_field::PackedValue;
use rayon::prelude::*;

use super::leaves::Leaves;
use super::{LANE_BITS, by_index};
use crate::channel::Prover;
use crate::eq::{below, eq, log2_ceil};
use crate::field::{Ext, K, LANES, PackedF, PackedK};

/// Elements that stay side by side until the last three layers: at least the lanes of every supported register.
pub(super) const GROUP: usize = 1 << LANE_BITS;
/// Packed registers in a group.
const PER_GROUP: usize = GROUP / LANES;
/// Packed elements that one task handles.
const TASK: usize = 1 << 10;

/// Fractions by packed index; `0 / 1` beyond the end.
trait Fractions<const D: usize>: Sync {
    fn len(&self) -> usize;
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>);
}

struct LeafFractions<'a, const D: usize> {
    p: &'a [PackedF],
    q: [&'a [PackedF]; D],
}

impl<'a, const D: usize> LeafFractions<'a, D> {
    fn new(leaves: &'a Leaves<D>) -> Self {
        LeafFractions { p: PackedF::pack_slice(&leaves.p), q: core::array::from_fn(|j| PackedF::pack_slice(&leaves.q[j])) }
    }
}

impl<const D: usize> Fractions<D> for LeafFractions<'_, D> {
    fn len(&self) -> usize {
        self.p.len()
    }

    #[inline(always)]
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>) {
        if i < self.p.len() {
            (PackedK::from_base(self.p[i]), Ext(core::array::from_fn(|j| self.q[j][i])))
        } else {
            (PackedK::ZERO, PackedK::ONE)
        }
    }
}

/// A layer above the leaves.
struct Layer<const D: usize> {
    p: Vec<PackedK<D>>,
    q: Vec<PackedK<D>>,
}

impl<const D: usize> Fractions<D> for Layer<D> {
    fn len(&self) -> usize {
        self.p.len()
    }

    #[inline(always)]
    fn get(&self, i: usize) -> (PackedK<D>, PackedK<D>) {
        if i < self.p.len() { (self.p[i], self.q[i]) } else { (PackedK::ZERO, PackedK::ONE) }
    }
}

/// Packed indices of the two children of packed node `i`.
#[inline(always)]
fn children(i: usize) -> (usize, usize) {
    let (group, w) = (i / PER_GROUP, i % PER_GROUP);
    (2 * group * PER_GROUP + w, (2 * group + 1) * PER_GROUP + w)
}

/// The layer above: sums of neighbouring groups.
fn parent<const D: usize>(child: &impl Fractions<D>) -> Layer<D> {
    let nodes = child.len().div_ceil(2 * PER_GROUP) * PER_GROUP;
    let (mut p, mut q) = (Vec::new(), Vec::new());
    (0..nodes)
        .into_par_iter()
        .with_min_len(TASK)
        .map(|i| {
            let (a, b) = children(i);
            let ((p0, q0), (p1, q1)) = (child.get(a), child.get(b));
            (p0 * q1 + p1 * q0, q0 * q1)
        })
        .unzip_into_vecs(&mut p, &mut q);
    Layer { p, q }
}

/// The factors `[P0, q1, p1, q0]` of a layer's summand `P0 q1 + p1 q0`, with `P0 = p0 + lambda q0`.
type Quad<const D: usize> = [PackedK<D>; 4];

/// Quads by packed index, and what stands beyond the end: the leaves `0 / 1`.
trait Quads<const D: usize>: Sync {
    fn get(&self, i: usize) -> Quad<D>;
}

struct FromFractions<'a, T, const D: usize> {
    fractions: &'a T,
    lambda: PackedK<D>,
}

impl<T: Fractions<D>, const D: usize> Quads<D> for FromFractions<'_, T, D> {
    #[inline(always)]
    fn get(&self, i: usize) -> Quad<D> {
        let (a, b) = children(i);
        let ((p0, q0), (p1, q1)) = (self.fractions.get(a), self.fractions.get(b));
        [p0 + self.lambda * q0, q1, p1, q0]
    }
}

struct Folded<'a, const D: usize> {
    quads: &'a [Quad<D>],
    lambda: PackedK<D>,
}

impl<const D: usize> Quads<D> for Folded<'_, D> {
    #[inline(always)]
    fn get(&self, i: usize) -> Quad<D> {
        self.quads.get(i).copied().unwrap_or([self.lambda, PackedK::ONE, PackedK::ZERO, PackedK::ONE])
    }
}

/// Sums of `t(0)` and `t2` by lane.
type Sums<const D: usize> = (PackedK<D>, PackedK<D>);

#[inline(always)]
fn accumulate<const D: usize>(sums: &mut Sums<D>, low: &Quad<D>, high: &Quad<D>, weight: PackedK<D>) {
    sums.0 += weight * (low[0] * low[1] + low[2] * low[3]);
    let d: Quad<D> = core::array::from_fn(|k| high[k] - low[k]);
    sums.1 += weight * (d[0] * d[1] + d[2] * d[3]);
}

fn add<const D: usize>(a: [Sums<D>; PER_GROUP], b: [Sums<D>; PER_GROUP]) -> [Sums<D>; PER_GROUP] {
    core::array::from_fn(|w| (a[w].0 + b[w].0, a[w].1 + b[w].1))
}

fn no_sums<const D: usize>() -> [Sums<D>; PER_GROUP] {
    [(PackedK::ZERO, PackedK::ZERO); PER_GROUP]
}

/// The first round of a layer: nothing is folded yet. `weights` has one element for each pair of groups.
fn first_round<const D: usize>(quads: &impl Quads<D>, pairs: usize, weights: &[K<D>]) -> [Sums<D>; PER_GROUP] {
    weights[..pairs]
        .par_iter()
        .with_min_len(TASK / PER_GROUP)
        .enumerate()
        .fold(no_sums, |mut sums, (s, weight)| {
            let weight = weight.broadcast();
            for (w, sum) in sums.iter_mut().enumerate() {
                let (a, b) = children(s * PER_GROUP + w);
                accumulate(sum, &quads.get(a), &quads.get(b), weight);
            }
            sums
        })
        .reduce(no_sums, add)
}

#[inline(always)]
fn fold<const D: usize>(quads: &impl Quads<D>, i: usize, x: PackedK<D>) -> Quad<D> {
    let (a, b) = children(i);
    let (low, high) = (quads.get(a), quads.get(b));
    core::array::from_fn(|k| low[k] + x * (high[k] - low[k]))
}

/// Binds a variable to `x`, writes the folded quads to `out`, and sums the next round on the way. Beyond `out` stands `beyond`.
fn fold_and_sum<const D: usize>(
    quads: &impl Quads<D>,
    x: K<D>,
    out: &mut [Quad<D>],
    weights: &[K<D>],
    beyond: Quad<D>,
) -> [Sums<D>; PER_GROUP] {
    let x = x.broadcast();
    let chunk = 2 * TASK;
    out.par_chunks_mut(chunk)
        .enumerate()
        .map(|(task, out)| {
            let (first, mut sums) = (task * chunk, no_sums());
            for (pair, out) in out.chunks_mut(2 * PER_GROUP).enumerate() {
                let weight = weights[first / (2 * PER_GROUP) + pair].broadcast();
                for w in 0..PER_GROUP {
                    let at = first + pair * 2 * PER_GROUP + w;
                    let low = fold(quads, at, x);
                    out[w] = low;
                    let high = match out.get_mut(PER_GROUP + w) {
                        Some(slot) => {
                            *slot = fold(quads, at + PER_GROUP, x);
                            *slot
                        }
                        None => beyond,
                    };
                    accumulate(&mut sums[w], &low, &high, weight);
                }
            }
            sums
        })
        .reduce(no_sums, add)
}

fn fold_only<const D: usize>(quads: &impl Quads<D>, x: K<D>, out: &mut [Quad<D>]) {
    let x = x.broadcast();
    out.par_iter_mut().with_min_len(TASK).enumerate().for_each(|(i, q)| *q = fold(quads, i, x));
}

/// Room for the folded quads of a layer and of its next round. Layers grow: what is too small is freed before its successor is taken.
fn reserve<const D: usize>(space: &mut [Vec<Quad<D>>; 2], largest: usize) {
    for (v, n) in space.iter_mut().zip([largest, largest.div_ceil(2 * PER_GROUP) * PER_GROUP]) {
        if v.len() < n {
            *v = Vec::new();
            *v = vec![[PackedK::ZERO; 4]; n];
        }
    }
}

/// Neighbours added: `eq` over one variable less.
fn halve<const D: usize>(weights: &mut Vec<K<D>>) {
    let n = weights.len() / 2;
    for i in 0..n {
        weights[i] = weights[2 * i] + weights[2 * i + 1];
    }
    weights.truncate(n);
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

    /// The rounds over the lanes, one group left. Arrays are `[P0, q1, p1, q0]`.
    fn lanes(&mut self, mut arrays: [Vec<K<D>>; 4], r: &[K<D>]) -> [K<D>; 4] {
        for j in 0..r.len() {
            let (mut t0, mut t2) = (K::ZERO, K::ZERO);
            for (i, e) in eq(&r[j + 1..]).into_iter().enumerate() {
                let a: [K<D>; 4] = core::array::from_fn(|k| arrays[k][2 * i]);
                let d: [K<D>; 4] = core::array::from_fn(|k| arrays[k][2 * i + 1] - a[k]);
                t0 += e * (a[0] * a[1] + a[2] * a[3]);
                t2 += e * (d[0] * d[1] + d[2] * d[3]);
            }
            let x = self.exchange(t0, t2);
            arrays = arrays.map(|v| v.chunks_exact(2).map(|c| c[0] + x * (c[1] - c[0])).collect());
        }
        arrays.map(|v| v[0])
    }

    /// Sums by lane -> a message: lanes weighted, and the leaves beyond the end, whose summand is `lambda`.
    fn exchange_sums(&mut self, sums: [Sums<D>; PER_GROUP], lanes: &[K<D>], beyond: K<D>) -> K<D> {
        let total = |f: &dyn Fn(&Sums<D>) -> PackedK<D>| (0..GROUP).map(|l| lanes[l] * f(&sums[l / LANES]).lane(l % LANES)).sum::<K<D>>();
        self.exchange(total(&|s| s.0) + beyond, total(&|s| s.1))
    }

    /// The rounds of a layer whose parent has at least one whole group. `space` holds folded quads.
    fn layer<T: Fractions<D>>(&mut self, fractions: &T, r: &[K<D>], lambda: K<D>, space: &mut [Vec<Quad<D>>; 2]) -> [K<D>; 4] {
        let high = r.len() - LANE_BITS;
        let source = FromFractions { fractions, lambda: lambda.broadcast() };
        if high == 0 {
            return self.lanes(unpack(&source), r);
        }
        let (outer, lane_point) = r.split_at(high);
        let lanes = eq(lane_point);
        let largest = fractions.len().div_ceil(4 * PER_GROUP) * PER_GROUP;
        reserve(space, largest);
        let [mut to, mut from] = space.each_mut().map(|v| &mut v[..]);
        let beyond: Quad<D> = [source.lambda, PackedK::ONE, PackedK::ZERO, PackedK::ONE];
        // Groups of quads that are not `beyond`, and packed quads in `from`.
        let (mut groups, mut folded) = (fractions.len().div_ceil(2 * PER_GROUP), 0);
        let mut weights = eq(&outer[1..]);
        let mut sums = first_round(&source, groups.div_ceil(2), &weights);
        for j in 0..high {
            groups = groups.div_ceil(2);
            let used = below(&outer[j + 1..], groups).0;
            let x = self.exchange_sums(sums, &lanes, lambda * (K::ONE - used));
            let out = &mut to[..groups * PER_GROUP];
            let previous = Folded { quads: &from[..folded], lambda: source.lambda };
            if j + 1 < high {
                halve(&mut weights);
                sums = match j {
                    0 => fold_and_sum(&source, x, out, &weights, beyond),
                    _ => fold_and_sum(&previous, x, out, &weights, beyond),
                };
            } else if j == 0 {
                fold_only(&source, x, out);
            } else {
                fold_only(&previous, x, out);
            }
            core::mem::swap(&mut to, &mut from);
            folded = groups * PER_GROUP;
        }
        self.lanes(unpack(&Folded { quads: &from[..folded], lambda: source.lambda }), lane_point)
    }
}

/// Proves the tree over `leaves`. -> the point, by index bit.
pub fn prove<const D: usize>(prover: &mut Prover, leaves: Leaves<D>) -> Vec<K<D>> {
    let n = log2_ceil(leaves.p.len().div_ceil(GROUP)) + LANE_BITS;
    let mut layers: Vec<Layer<D>> = Vec::with_capacity(n);
    for k in 0..n - LANE_BITS {
        let up = match k {
            0 => parent(&LeafFractions::new(&leaves)),
            _ => parent(&layers[k - 1]),
        };
        layers.push(up);
    }
    // The last three layers merge neighbouring lanes.
    let mut small = vec![match layers.pop() {
        Some(top) => lanes_of(&top),
        None => lanes_of(&LeafFractions::new(&leaves)),
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
        let mut rounds = Rounds { prover: &mut *prover, point: Vec::with_capacity(n) };
        let [big, q1, p1, q0] = if let Some((p, q)) = small.pop() {
            let half = |f: &dyn Fn(usize) -> K<D>| (0..p.len() / 2).map(f).collect::<Vec<_>>();
            let arrays = [half(&|i| p[2 * i] + lambda * q[2 * i]), half(&|i| q[2 * i + 1]), half(&|i| p[2 * i + 1]), half(&|i| q[2 * i])];
            rounds.lanes(arrays, &r)
        } else if k + 1 < n {
            let layer = layers.pop().expect("a layer for each variable but the lanes' and the leaves'");
            rounds.layer(&layer, &r, lambda, &mut space)
        } else {
            rounds.layer(&LeafFractions::new(&leaves), &r, lambda, &mut space)
        };
        let point = rounds.point;
        prover.send("gkr layer", &[big - lambda * q0, p1, q0, q1]);
        r = vec![prover.challenge("gkr layer")];
        r.extend(point);
    }
    by_index(&r)
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

/// The only group of quads.
fn unpack<const D: usize>(quads: &impl Quads<D>) -> [Vec<K<D>>; 4] {
    core::array::from_fn(|k| (0..GROUP).map(|l| quads.get(l / LANES)[k].lane(l % LANES)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{PlainReader, Transcript};
    use crate::field::F;
    use crate::logup::verify;
    use crate::reject::Reject;
    use p3_field::PrimeCharacteristicRing;
    use proptest::prelude::*;

    /// `total` leaves whose fractions sum to 0: lookups of 5 values, and their table.
    fn leaves<const D: usize>(total: usize, seed: u64) -> Leaves<D> {
        let alpha: K<D> = Ext(core::array::from_fn(|i| F::from_u64(seed + 77 + i as u64)));
        let groups = total.div_ceil(GROUP);
        let mut out = Leaves { p: vec![F::ZERO; groups * GROUP], q: core::array::from_fn(|j| vec![F::from_bool(j == 0); groups * GROUP]) };
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

    fn check<const D: usize>(total: usize, seed: u64) {
        let l = leaves::<D>(total, seed);
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
