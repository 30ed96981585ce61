//! The sumcheck of one layer.
//!
//! A node's summand is `P0 q1 + p1 q0` with `P0 = p0 + lambda q0`: a *quad*. Where both numerators are 1 it is
//! `lambda (q0 + 1/lambda) (q1 + 1/lambda) - 1/lambda`: one product instead of two, of two arrays instead of four, and folding two
//! neighbours keeps the numerators 1. Such nodes are *units*.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::LANE_BITS;
use super::register::{Factor, GROUP, PER_GROUP, children, two_products};
use super::runs::{Run, count, find, halved};
use crate::channel::Prover;
use crate::control::Control;
use crate::eq::{below, eq};
use crate::field::{K, LANES, PackedK};

/// Packed elements that one task handles.
pub(super) const TASK: usize = 1 << 10;

/// The factors `[P0, q1, p1, q0]`.
pub(super) type Quad<const D: usize> = [PackedK<D>; 4];
/// The factors `[q0, q1]`.
pub(super) type Unit<const D: usize> = [PackedK<D>; 2];

/// The nodes of a layer, some variables bound.
pub(super) trait Nodes<const D: usize>: Sync {
    /// A node of a unit run; `before` packed nodes of other kinds come before it.
    fn unit(&self, i: usize, before: usize) -> Unit<D>;
    /// Any node; beyond the end the fractions are `0 / 1`.
    fn quad(&self, i: usize) -> Quad<D>;
}

/// Nodes in memory.
struct Folded<'a, const D: usize> {
    runs: &'a [Run],
    units: &'a [Unit<D>],
    quads: &'a [Quad<D>],
    lambda: PackedK<D>,
}

impl<const D: usize> Nodes<D> for Folded<'_, D> {
    #[inline(always)]
    fn unit(&self, i: usize, before: usize) -> Unit<D> {
        self.units[i - before]
    }

    #[inline(always)]
    fn quad(&self, i: usize) -> Quad<D> {
        let Some(run) = find(self.runs, i / PER_GROUP) else { return beyond(self.lambda) };
        let at = i - others_before(run);
        if run.unit {
            let [q0, q1] = self.units[at];
            [PackedK::ONE + self.lambda * q0, q1, PackedK::ONE, q0]
        } else {
            self.quads[at]
        }
    }
}

/// Packed nodes of the other kind before a run.
fn others_before(run: &Run) -> usize {
    (run.groups.start - run.at) * PER_GROUP
}

fn beyond<const D: usize>(lambda: PackedK<D>) -> Quad<D> {
    [lambda, PackedK::ONE, PackedK::ZERO, PackedK::ONE]
}

/// Sums of `t(0)` and `t2` by lane.
type Lanes<const D: usize> = [(PackedK<D>, PackedK<D>); PER_GROUP];

/// Of quads, and of units without their factor `lambda` and their constant.
#[derive(Clone, Copy)]
struct Sums<const D: usize> {
    quads: Lanes<D>,
    units: Lanes<D>,
}

impl<const D: usize> Sums<D> {
    const NONE: Self = Sums { quads: [(PackedK::ZERO, PackedK::ZERO); PER_GROUP], units: [(PackedK::ZERO, PackedK::ZERO); PER_GROUP] };

    fn add(a: Self, b: Self) -> Self {
        let add = |a: Lanes<D>, b: Lanes<D>| core::array::from_fn(|w| (a[w].0 + b[w].0, a[w].1 + b[w].1));
        Sums { quads: add(a.quads, b.quads), units: add(a.units, b.units) }
    }

    #[inline(always)]
    fn quad(&mut self, w: usize, low: &Quad<D>, high: &Quad<D>, weight: &Factor<D>) {
        let sum = &mut self.quads[w];
        sum.0 += weight.times(two_products(low[0], low[1], low[2], low[3]));
        let d: Quad<D> = core::array::from_fn(|k| high[k] - low[k]);
        sum.1 += weight.times(two_products(d[0], d[1], d[2], d[3]));
    }

    #[inline(always)]
    fn unit(&mut self, w: usize, low: &Unit<D>, high: &Unit<D>, shift: PackedK<D>, weight: &Factor<D>) {
        let sum = &mut self.units[w];
        sum.0 += weight.times((low[0] + shift) * (low[1] + shift));
        sum.1 += weight.times((high[0] - low[0]) * (high[1] - low[1]));
    }
}

/// Runs `f` on each task, on the pool if there are several.
fn each<T: Send, const D: usize>(tasks: Vec<T>, f: impl Fn(T) -> Sums<D> + Sync + Send) -> Sums<D> {
    if tasks.len() == 1 {
        return tasks.into_iter().map(f).fold(Sums::NONE, Sums::add);
    }
    tasks.into_par_iter().map(f).reduce(|| Sums::NONE, Sums::add)
}

/// `1 / lambda` in every lane, and the layer's weights by pair of groups.
struct Round<'a, const D: usize> {
    shift: PackedK<D>,
    weights: &'a [K<D>],
}

impl<const D: usize> Round<'_, D> {
    /// The first round: nothing is folded yet.
    fn sum(&self, nodes: &impl Nodes<D>, runs: &[Run]) -> Sums<D> {
        let mut tasks = Vec::new();
        for run in runs {
            let chunk = 2 * TASK / PER_GROUP;
            tasks.extend(run.groups.clone().step_by(chunk).map(|from| (run, from / 2..(from + chunk).min(run.groups.end).div_ceil(2))));
        }
        each(tasks, |(run, pairs)| {
            let (mut sums, before) = (Sums::NONE, others_before(run));
            for pair in pairs {
                let weight = Factor::new(self.weights[pair]);
                for w in 0..PER_GROUP {
                    let (a, b) = children(pair * PER_GROUP + w);
                    if run.unit {
                        sums.unit(w, &nodes.unit(a, before), &nodes.unit(b, before), self.shift, &weight);
                    } else {
                        sums.quad(w, &nodes.quad(a), &nodes.quad(b), &weight);
                    }
                }
            }
            sums
        })
    }

    /// Binds a variable to `x`, writes the folded nodes to `out`, and sums the next round on the way, if there is one.
    fn fold(&self, nodes: &impl Nodes<D>, from: &[Run], x: K<D>, to: &[Run], out: &mut [PackedK<D>], lambda: PackedK<D>) -> Sums<D> {
        let (units, quads) = out.split_at_mut(2 * PER_GROUP * count(to, true));
        let (mut units, mut quads) = (units.as_chunks_mut::<2>().0, quads.as_chunks_mut::<4>().0);
        let mut tasks = Vec::new();
        for run in to {
            let n = run.groups.len() * PER_GROUP;
            if run.unit {
                let before = find(from, 2 * run.groups.start).map_or(0, others_before);
                let chunks = units.split_off_mut(..n).into_iter().flat_map(|all| all.chunks_mut(2 * TASK));
                tasks.extend(chunks.enumerate().map(|(i, out)| (run.groups.start * PER_GROUP + i * 2 * TASK, Out::Units(out, before))));
            } else {
                let chunks = quads.split_off_mut(..n).into_iter().flat_map(|all| all.chunks_mut(TASK));
                tasks.extend(chunks.enumerate().map(|(i, out)| (run.groups.start * PER_GROUP + i * TASK, Out::Quads(out))));
            }
        }
        let x = &Factor::new(x);
        each(tasks, |(first, out)| match out {
            Out::Units(out, before) => self.fold_units(nodes, x, first, out, before),
            Out::Quads(out) => self.fold_quads(nodes, x, first, out, lambda),
        })
    }

    fn weight(&self, node: usize) -> Option<Factor<D>> {
        self.weights.get(node / (2 * PER_GROUP)).map(|&w| Factor::new(w))
    }

    fn fold_units(&self, nodes: &impl Nodes<D>, x: &Factor<D>, first: usize, out: &mut [Unit<D>], before: usize) -> Sums<D> {
        let fold = |i: usize| {
            let (a, b) = children(i);
            let (low, high) = (nodes.unit(a, before), nodes.unit(b, before));
            core::array::from_fn(|k| low[k] + x.times(high[k] - low[k]))
        };
        let mut sums = Sums::NONE;
        for (pair, out) in out.chunks_exact_mut(2 * PER_GROUP).enumerate() {
            let at = first + pair * 2 * PER_GROUP;
            let weight = self.weight(at);
            for w in 0..PER_GROUP {
                let (low, high) = (fold(at + w), fold(at + PER_GROUP + w));
                (out[w], out[PER_GROUP + w]) = (low, high);
                if let Some(weight) = &weight {
                    sums.unit(w, &low, &high, self.shift, weight);
                }
            }
        }
        sums
    }

    fn fold_quads(&self, nodes: &impl Nodes<D>, x: &Factor<D>, first: usize, out: &mut [Quad<D>], lambda: PackedK<D>) -> Sums<D> {
        let fold = |i: usize| {
            let (a, b) = children(i);
            let (low, high) = (nodes.quad(a), nodes.quad(b));
            core::array::from_fn(|k| low[k] + x.times(high[k] - low[k]))
        };
        let mut sums = Sums::NONE;
        for (pair, out) in out.chunks_mut(2 * PER_GROUP).enumerate() {
            let at = first + pair * 2 * PER_GROUP;
            let weight = self.weight(at);
            for w in 0..PER_GROUP {
                let low = fold(at + w);
                out[w] = low;
                let mut high = beyond(lambda);
                if let Some(slot) = out.get_mut(PER_GROUP + w) {
                    high = fold(at + PER_GROUP + w);
                    *slot = high;
                }
                if let Some(weight) = &weight {
                    sums.quad(w, &low, &high, weight);
                }
            }
        }
        sums
    }
}

/// Where a task writes; units know how many packed nodes of other kinds come before their sources.
enum Out<'a, const D: usize> {
    Units(&'a mut [Unit<D>], usize),
    Quads(&'a mut [Quad<D>]),
}

/// Room for the folded nodes of a layer and of its next round.
pub(super) type Space<const D: usize> = [Vec<PackedK<D>>; 2];

/// A layer of `m` groups holds `2 m` elements for each register of a group. The folded nodes of the layer under it, of at most `2 m` groups,
/// are at most `m / 2` groups of four elements, rounded up: this many more.
pub(super) const SPARE: usize = 4 * PER_GROUP;

fn reserve<const D: usize>(space: &mut Vec<PackedK<D>>, runs: &[Run]) {
    let n = PER_GROUP * (2 * count(runs, true) + 4 * count(runs, false));
    if space.capacity() < n {
        *space = Vec::with_capacity(n);
    }
    if space.len() < n {
        space.resize(n, PackedK::ZERO);
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

/// Groups of folded nodes from which on a round is worth a report.
pub(super) const REPORTED: usize = 1 << 14;

/// The sumcheck of one layer: the challenges so far.
pub(super) struct Rounds<'a, const D: usize> {
    pub prover: &'a mut Prover,
    pub point: Vec<K<D>>,
    /// Told how much of the layer is done.
    pub control: Control<'a>,
}

impl<const D: usize> Rounds<'_, D> {
    fn exchange(&mut self, t0: K<D>, t2: K<D>) -> K<D> {
        self.prover.send("gkr round", &[t0, t2]);
        let x = self.prover.challenge("gkr round");
        self.point.push(x);
        x
    }

    /// The rounds over the lanes, one group left. Arrays are `[P0, q1, p1, q0]`.
    pub fn lanes(&mut self, mut arrays: [Vec<K<D>>; 4], r: &[K<D>]) -> [K<D>; 4] {
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

    /// The rounds of a layer whose parent has at least one whole group. `runs` are those of `nodes`; units need `lambda != 0`.
    pub fn layer(
        &mut self,
        nodes: &impl Nodes<D>,
        mut runs: Vec<Run>,
        r: &[K<D>],
        lambda: K<D>,
        space: &mut Space<D>,
    ) -> ControlFlow<(), [K<D>; 4]> {
        let inverse = lambda.try_inverse().unwrap_or(K::ZERO);
        let (shift, packed) = (inverse.broadcast(), lambda.broadcast());
        let (outer, lane_point) = r.split_at(r.len() - LANE_BITS);
        if outer.is_empty() {
            return ControlFlow::Continue(self.lanes(unpack(nodes), r));
        }
        let lanes = eq(lane_point);
        let total = |f: &dyn Fn(usize) -> PackedK<D>| (0..GROUP).map(|l| lanes[l] * f(l / LANES).lane(l % LANES)).sum::<K<D>>();
        let mut groups = runs.last().map_or(0, |r| r.groups.end);
        let [mut to, mut from] = space.each_mut();
        let mut weights = eq(&outer[1..]);
        let mut sums = Round { shift, weights: &weights }.sum(nodes, &runs);
        for j in 0..outer.len() {
            groups = groups.div_ceil(2);
            // What the sums leave out: leaves beyond the end, whose summand is `lambda`, and the units' constant.
            let rest = &outer[j + 1..];
            let outside = lambda * (K::ONE - below(rest, groups).0);
            let ends = runs.iter().filter(|r| r.unit).map(|r| below(rest, r.groups.end / 2).0 - below(rest, r.groups.start / 2).0);
            let t0 = total(&|w| sums.quads[w].0) + lambda * total(&|w| sums.units[w].0) + outside - inverse * ends.sum::<K<D>>();
            let t2 = total(&|w| sums.quads[w].1) + lambda * total(&|w| sums.units[w].1);
            let x = self.exchange(t0, t2);
            let next = halved(&runs, groups);
            if groups >= REPORTED {
                // Each pass reads half as much as the one before.
                (self.control)(1.0 - 0.5f64.powi(j as i32 + 1))?;
            }
            reserve(to, &next);
            if rest.is_empty() {
                weights.clear();
            } else {
                halve(&mut weights);
            }
            let round = Round { shift, weights: &weights };
            if j == 0 {
                sums = round.fold(nodes, &runs, x, &next, to, packed);
            } else {
                sums = round.fold(&folded(&runs, from, packed), &runs, x, &next, to, packed);
            }
            runs = next;
            core::mem::swap(&mut to, &mut from);
        }
        ControlFlow::Continue(self.lanes(unpack(&folded(&runs, from, packed)), lane_point))
    }
}

fn folded<'a, const D: usize>(runs: &'a [Run], space: &'a [PackedK<D>], lambda: PackedK<D>) -> Folded<'a, D> {
    let (units, quads) = space.split_at(2 * PER_GROUP * count(runs, true));
    Folded { runs, units: units.as_chunks().0, quads: quads.as_chunks().0, lambda }
}

/// The only group of quads.
fn unpack<const D: usize>(nodes: &impl Nodes<D>) -> [Vec<K<D>>; 4] {
    core::array::from_fn(|k| (0..GROUP).map(|l| nodes.quad(l / LANES)[k].lane(l % LANES)).collect())
}
