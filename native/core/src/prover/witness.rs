//! The executor's trace -> values of all committed cells.

use std::ops::ControlFlow;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::control::{Control, Gauge};
use crate::exec::Trace;
use crate::field::{F, centred, from_i64};
use crate::layout::{AccumulatorKind, Layout, LimbRecipe, Recipe, RescaleCells, SoftmaxCells, StorageId, Table};
use crate::program::quantize::high_half;
use crate::program::softmax::{Exponentials, Reciprocal};
use crate::program::{Contract, Line, Weights, Window};

use super::values::{Entry, Witness, factors};
use crate::layout::Index;

/// Rows handled by one task.
const ROWS: usize = 64;
/// Values from which on filling is worth a report.
const REPORTED: usize = 1 << 18;
/// Values of a softmax for each element of its row.
const SOFTMAX_VALUES: usize = 6;

fn lift<T: Copy + Into<i64> + Sync>(values: &[T]) -> Vec<F> {
    values.par_iter().with_min_len(1 << 14).map(|&v| from_i64(v.into())).collect()
}

/// Values of every storage and accumulator, multiplicities included.
pub fn fill(layout: &Layout, weights: &Weights, trace: &Trace) -> Witness {
    let ControlFlow::Continue(witness) = fill_heard(layout, weights, trace, &mut |_| ControlFlow::Continue(())) else {
        unreachable!("nobody stops it")
    };
    witness
}

/// [`fill`], of which `control` hears.
pub fn fill_heard(layout: &Layout, weights: &Weights, trace: &Trace, control: Control<'_>) -> ControlFlow<(), Witness> {
    let mut witness =
        Witness { storages: vec![Vec::new(); layout.storages.len()], accumulators: vec![Vec::new(); layout.accumulators.len()] };
    let written: usize = layout.recipes.iter().map(|recipe| values_of(layout, recipe)).sum();
    let gauge = Gauge::new(control, written + layout.lookup_count(), REPORTED);
    for recipe in &layout.recipes {
        step(layout, weights, trace, recipe, &mut witness);
        if !gauge.did(values_of(layout, recipe)) {
            break;
        }
    }
    let multiplicities = multiplicities(layout, &witness, &gauge);
    gauge.end()?;
    put(layout, multiplicities, &mut witness);
    ControlFlow::Continue(witness)
}

/// How many values a recipe writes.
fn values_of(layout: &Layout, recipe: &Recipe) -> usize {
    let size = |s: StorageId| layout.storages[s].positions * layout.storages[s].channels;
    match recipe {
        Recipe::Tensor { storage, .. }
        | Recipe::Constant { storage, .. }
        | Recipe::Relu { storage, .. }
        | Recipe::Pooled { storage, .. }
        | Recipe::PoolTap { storage, .. } => size(*storage),
        Recipe::Accumulator(at) => layout.accumulators[*at].positions * layout.accumulators[*at].channels,
        Recipe::Rescale { cells, .. } => cells.all().count() * size(cells.y),
        Recipe::Softmax { cells, .. } => SOFTMAX_VALUES * size(cells.y),
        Recipe::Limbs(recipe) => recipe.limbs.iter().map(|&s| size(s)).sum(),
    }
}

fn step(layout: &Layout, weights: &Weights, trace: &Trace, recipe: &Recipe, witness: &mut Witness) {
    match recipe {
        Recipe::Tensor { storage, tensor } => witness.storages[*storage] = lift(&trace.tensors[*tensor as usize]),
        Recipe::Constant { storage, constant } => witness.storages[*storage] = lift(&weights.values[*constant as usize]),
        Recipe::Relu { storage, of } => {
            let positive = |&x: &F| from_i64(centred(x).max(0));
            witness.storages[*storage] = witness.storages[*of].par_iter().with_min_len(1 << 14).map(positive).collect();
        }
        Recipe::Accumulator(at) => {
            witness.accumulators[*at] = match &layout.accumulators[*at].kind {
                AccumulatorKind::Contract { contract: Contract::Mix { terms }, .. } => mix(terms, trace),
                AccumulatorKind::Contract { acc, .. } => lift(&trace.accumulators[*acc as usize]),
                AccumulatorKind::Product { .. } => {
                    let [mut a, b] = factors(layout, witness, *at).expect("a product has factors");
                    a.iter_mut().zip(b).for_each(|(x, y)| *x *= y);
                    a
                }
            }
        }
        Recipe::Rescale { accumulator, channels, lines, by_position, zero, clamp, cells } => {
            let acc = &witness.accumulators[*accumulator];
            let width = layout.accumulators[*accumulator].channels;
            let columns = rescale(acc, width, channels, lines, *by_position, *zero, *clamp, cells, layout.range_bits);
            for (storage, values) in columns {
                witness.storages[storage] = values;
            }
        }
        Recipe::Pooled { storage, x, window } => {
            let channels = layout.views[*x as usize].channels;
            witness.storages[*storage] = lift(&pooled(&trace.tensors[*x as usize], channels, window));
        }
        Recipe::PoolTap { storage, x, pooled, outputs, inputs } => {
            let c = layout.storages[*storage].channels;
            let x = &trace.tensors[*x as usize];
            let y = &witness.storages[*pooled];
            let hit = |(o, i): (usize, usize)| (0..c).map(move |j| (o * c + j, i * c + j));
            witness.storages[*storage] = outputs
                .iter()
                .zip(inputs.iter())
                .flat_map(hit)
                .map(|(o, i)| if y[o] == from_i64(x[i].into()) { F::ONE } else { F::ZERO })
                .collect();
        }
        Recipe::Softmax { x, scale, low, cells } => {
            let width = layout.storages[cells.y].channels;
            softmax(&trace.tensors[*x as usize], width, *scale, *low, cells, witness);
        }
        Recipe::Limbs(recipe) => limbs(layout, recipe, witness),
    }
}

fn mix(terms: &[(i64, u32)], trace: &Trace) -> Vec<F> {
    let n = trace.tensors[terms[0].1 as usize].len();
    (0..n)
        .into_par_iter()
        .with_min_len(1 << 14)
        .map(|i| from_i64(terms.iter().map(|(k, x)| k * i64::from(trace.tensors[*x as usize][i])).sum()))
        .collect()
}

/// `floor(n / d)` for `|n| < 2^62`: a double's quotient is off by at most one for `|n / d| < 2^50`.
#[inline]
fn floor_div(n: i64, d: i64, inverse: f64) -> i64 {
    let mut q = (n as f64 * inverse).floor() as i64;
    let mut r = n.wrapping_sub(q.wrapping_mul(d));
    if !(-d..2 * d).contains(&r) {
        return n.div_euclid(d);
    }
    if r < 0 {
        q -= 1;
        r += d;
    }
    if r >= d { q + 1 } else { q }
}

fn rescale(
    acc: &[F],
    width: usize,
    channels: &Index,
    lines: &[Line],
    by_position: bool,
    zero: i64,
    clamp: (i64, i64),
    cells: &RescaleCells,
    w: usize,
) -> Vec<(usize, Vec<F>)> {
    let n = channels.len();
    let positions = acc.len() / width;
    let ids: Vec<StorageId> = cells.all().collect();
    let mut columns: Vec<Vec<F>> = ids.iter().map(|_| vec![F::ZERO; positions * n]).collect();
    let inverse: Vec<f64> = lines.iter().map(|l| 1.0 / l.d as f64).collect();

    let mut tasks: Vec<Vec<&mut [F]>> = (0..positions.div_ceil(ROWS)).map(|_| Vec::with_capacity(ids.len())).collect();
    for column in &mut columns {
        column.chunks_mut(ROWS * n).zip(&mut tasks).for_each(|(c, t)| t.push(c));
    }
    let (signs, limbs) = (cells.signs.is_some(), cells.limbs.is_some());
    let at = |k: usize| if signs { 2 + k } else { k };
    tasks.into_par_iter().enumerate().for_each(|(task, mut out)| {
        for i in 0..out[0].len() {
            let (p, j) = (task * ROWS + i / n, i % n);
            let which = if by_position { p } else { j };
            let (l, inv) = (&lines[which], inverse[which]);
            let scaled = centred(acc[p * width + channels.get(j)]) * l.a;
            let mut v = floor_div(scaled + l.b_pos, l.d, inv);
            if l.two_offsets() && v <= zero {
                v = floor_div(scaled + l.b_neg, l.d, inv).min(zero);
            }
            out[0][i] = from_i64(v.clamp(clamp.0, clamp.1));
            out[1][i] = from_i64(v);
            if signs {
                out[2][i] = F::from_bool(v <= zero);
                out[3][i] = F::from_bool(v < zero);
            }
            if limbs {
                let low = scaled + if v <= zero { l.b_neg } else { l.b_pos } - l.d * v;
                let high = l.d - 1 - (scaled + if v < zero { l.b_neg } else { l.b_pos } - l.d * v);
                out[at(2)][i] = from_i64(low >> w);
                out[at(3)][i] = from_i64(high >> w);
            }
        }
    });
    ids.into_iter().zip(columns).collect()
}

fn pooled(x: &[i16], channels: usize, window: &Window) -> Vec<i16> {
    let mut out = vec![i16::MIN; window.outputs() * channels];
    for oy in 0..window.output_rows() {
        for ox in 0..window.output.1 as usize {
            let o = (oy * window.output.1 as usize + ox) * channels;
            for ky in 0..window.kernel.0 as usize {
                let Some(iy) = window.row(oy, ky) else { continue };
                for kx in 0..window.kernel.1 as usize {
                    let Some(ix) = window.column(ox, kx) else { continue };
                    let i = (iy * window.input.1 as usize + ix) * channels;
                    for c in 0..channels {
                        out[o + c] = out[o + c].max(x[i + c]);
                    }
                }
            }
        }
    }
    out
}

fn softmax(x: &[i16], width: usize, (multiplier, shift): (i32, u8), low: i64, cells: &SoftmaxCells, witness: &mut Witness) {
    let table = Exponentials::new(multiplier, shift);
    for row in x.chunks_exact(width) {
        let mut put = |s: usize, v: i64| witness.storages[s].push(from_i64(v));
        let maximum = *row.iter().max().expect("a row is not empty");
        let distance = |v: i16| (maximum - v) as usize;
        let sum = row.iter().map(|&v| i64::from(table.coarse[distance(v)])).sum();
        let r = Reciprocal::new(sum).expect("the executor refuses rows for which softmax is undefined");
        put(cells.maximum, i64::from(maximum));
        put(cells.headroom, i64::from(r.headroom) - 4);
        put(cells.power, 1 << r.headroom);
        put(cells.half_power, r.half_unit());
        put(cells.half, r.half);
        put(cells.q0, r.q0);
        for i in 0..3 {
            put(cells.h[i], r.h[i]);
            put(cells.k[i], r.k[i]);
        }
        put(cells.saturated, i64::from(r.saturates));
        for &v in row {
            let (fine, coarse) = (i64::from(table.fine[distance(v)]), i64::from(table.coarse[distance(v)]));
            let value = r.output(fine) + low;
            put(cells.exp, fine);
            put(cells.rounded, coarse);
            put(cells.is_max, i64::from(v == maximum));
            put(cells.quotient, high_half(fine * r.scale));
            put(cells.v, value);
            put(cells.y, value.min(low + 255));
        }
    }
}

/// Splits a value into its limbs above the lowest; the last limb takes whatever is left.
pub(crate) fn limbs(layout: &Layout, recipe: &LimbRecipe, witness: &mut Witness) {
    let channels = Index::all(recipe.channels);
    let values = Entry::new(layout, witness, &recipe.terms, recipe.positions, &channels).all(recipe.positions);
    let w = layout.range_bits;
    for (k, &s) in recipe.limbs.iter().enumerate() {
        let last = k + 1 == recipe.limbs.len();
        let limb = |v: &F| {
            let high = centred(*v) >> (w * (k + 1));
            from_i64(if last { high } else { high & ((1 << w) - 1) })
        };
        witness.storages[s] = values.iter().map(limb).collect();
    }
}

/// Fills the multiplicities. A tuple that is in no table is not counted: only a cheating prover has one.
pub fn count(layout: &Layout, witness: &mut Witness) {
    let multiplicities = multiplicities(layout, witness, &Gauge::new(&mut |_| ControlFlow::Continue(()), 1, usize::MAX));
    put(layout, multiplicities, witness);
}

fn put(layout: &Layout, multiplicities: Vec<Vec<u64>>, witness: &mut Witness) {
    for (table, rows) in layout.tables.iter().zip(multiplicities) {
        witness.storages[table.multiplicities] = rows.into_iter().map(F::from_u64).collect();
    }
}

/// How often each row of each table is looked up.
fn multiplicities(layout: &Layout, witness: &Witness, gauge: &Gauge<'_>) -> Vec<Vec<u64>> {
    // Each thread counts its share of every lookup.
    let shares = rayon::current_num_threads();
    let share = |n: usize, t: usize| n * t / shares..n * (t + 1) / shares;
    let blank = || -> Vec<Vec<u64>> { layout.tables.iter().map(|t| vec![0; 1 << t.log_rows]).collect() };
    let one = |t: usize| {
        let mut counts = blank();
        for lookup in layout.lookups.iter().take_while(|_| gauge.goes_on()) {
            let table: &Table = &layout.tables[lookup.table];
            let rows = &mut counts[lookup.table];
            let entry = Entry::new(layout, witness, &lookup.entries[0], lookup.positions, &lookup.channels);
            let n = lookup.channels.len();
            let (mut values, mut scratch) = (vec![F::ZERO; n], vec![F::ZERO; n]);
            let share = share(lookup.positions, t);
            for p in share.clone() {
                entry.row(p, 0, &mut values, &mut scratch);
                for &v in &values {
                    let row = centred(v).wrapping_sub(table.first);
                    if let Some(n) = usize::try_from(row).ok().and_then(|r| rows.get_mut(r)) {
                        *n += 1;
                    }
                }
            }
            gauge.did(share.len() * n);
        }
        counts
    };
    let add = |mut a: Vec<Vec<u64>>, b: Vec<Vec<u64>>| {
        a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(x, y)| *x += y);
        a
    };
    (0..shares).into_par_iter().map(one).reduce(blank, add)
}
