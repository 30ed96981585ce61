//! The linear forms that contractions leave on committed tensors, weights and biases.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::{Instance, Shape};
use crate::eq::eq;
use crate::field::{F, K, from_i64};
use crate::layout::{AccumulatorKind, Layout, Rows, Source, Term};
use crate::logup::{AccumulatorWeight, LinearForm};
use crate::program::{Contract, Window};
use crate::run::Run;
use crate::side::Side;

/// Public weights and biases by constant, for keys that carry them; empty where they are committed.
pub type Public<'a> = &'a [Vec<F>];

/// Whatever accumulators contribute without a sumcheck: sums, mixes and biases go to `form`; the bilinear rest is returned.
pub fn linear_part<'a, const D: usize>(
    layout: &'a Layout,
    weights: Vec<AccumulatorWeight<D>>,
    public: Public<'_>,
    form: &mut LinearForm<D>,
) -> Vec<Instance<'a, D>> {
    let mut instances = Vec::new();
    for weight in weights {
        if let AccumulatorKind::Contract { contract, bias: stored, .. } = &layout.accumulators[weight.accumulator].kind {
            let bias = match contract {
                Contract::Conv { bias, .. } | Contract::Depthwise { bias, .. } => *bias,
                Contract::Sum { .. } | Contract::Mix { .. } => None,
            };
            match (bias, stored) {
                (Some(_), Some(s)) => form.push(*s, vec![weight.u.sum()], weight.v.clone()),
                (Some(id), None) => {
                    let dot: K<D> = weight.v.to_vec().iter().zip(&public[id as usize]).map(|(&v, &b)| v.scale(b)).sum();
                    form.constant += weight.u.sum() * dot;
                }
                (None, _) => {}
            }
        }
        match Instance::new(layout, weight) {
            Ok(instance) => instances.push(instance),
            Err(weight) => {
                let AccumulatorKind::Contract { contract, .. } = &layout.accumulators[weight.accumulator].kind else { continue };
                match contract {
                    Contract::Mix { terms } => {
                        for (k, x) in terms {
                            let u = weight.u.clone().scaled(K::from_i64(*k));
                            form.tensor(layout, *x, u, weight.v.clone());
                        }
                    }
                    Contract::Sum { x, window, x_zero } => {
                        let (rows, columns) = (vec![K::ONE; window.kernel.0 as usize], vec![K::ONE; window.kernel.1 as usize]);
                        window_form(layout, *x, window, *x_zero, &weight.u, &weight.v, &rows, &columns, form);
                    }
                    Contract::Conv { .. } | Contract::Depthwise { .. } => unreachable!("bilinear accumulators are instances"),
                }
            }
        }
    }
    instances
}

/// Whether output `i` reads input `i` and nothing else.
fn is_pointwise(window: &Window) -> bool {
    window.kernel == (1, 1) && window.stride == (1, 1) && window.pad == (0, 0) && window.input == window.output
}

/// The outputs `o` with an input `i(o)` for one tap of one dimension, a range, and the input of the first.
fn reach(outputs: usize, at: impl Fn(usize) -> Option<usize>) -> Option<(Range<usize>, usize)> {
    let first = (0..outputs).find(|&o| at(o).is_some())?;
    let last = (first..outputs).rev().find(|&o| at(o).is_some())?;
    Some((first..last + 1, at(first)?))
}

/// A tap of one dimension that some output reads: its weight, these outputs, and the input of the first of them.
fn along<const D: usize>(weights: &[K<D>], outputs: usize, at: impl Fn(usize, usize) -> Option<usize>) -> Vec<(K<D>, Range<usize>, usize)> {
    let tap = |(k, &weight)| reach(outputs, |o| at(o, k)).map(|(outputs, input)| (weight, outputs, input));
    weights.iter().enumerate().filter_map(tap).collect()
}

/// `Psi[i] = sum over (o, ky, kx) that read input i of u[o] rows[ky] columns[kx]`, in two passes over a few input rows at a time: what the
/// first leaves to the second stays in the cache.
fn pull_back<const D: usize>(window: &Window, u: &Run<D>, rows: &[K<D>], columns: &[K<D>]) -> Run<D> {
    // Below this length the ends of registers cost more than single additions.
    const SHORT: usize = 16;
    // Elements between the passes.
    const BAND: usize = 1 << 10;
    let (ih, iw) = (window.input.0 as usize, window.input.1 as usize);
    let (oh, ow) = (window.output.0 as usize, window.output.1 as usize);
    let (sy, sx) = (window.stride.0 as usize, window.stride.1 as usize);
    let rows = along(&rows[..window.kernel.0 as usize], oh, |oy, ky| window.row(oy, ky));
    let columns = along(&columns[..window.kernel.1 as usize], ow, |ox, kx| window.column(ox, kx));
    let height = (BAND / ow).clamp(1, ih);
    let (mut out, mut down, mut scaled) = (Run::zeros(window.input_rows() * iw), Run::zeros(height * ow), Run::zeros(0));
    let bands = |n: usize| (0..ih).step_by(height).map(move |top| (n * ih, n * oh, top, (top + height).min(ih)));
    for (input, output, top, bottom) in (0..window.batch as usize).flat_map(bands) {
        down.clear();
        for (e, outputs, iy) in &rows {
            // Output `outputs.start + k` reads row `iy + k sy`.
            let before = |row: usize| row.saturating_sub(*iy).div_ceil(sy).min(outputs.len());
            let (from, to) = (before(top), before(bottom));
            let first = output + outputs.start;
            if sy == 1 && from < to {
                down.add_scaled((iy + from - top) * ow, u, (first + from) * ow, (to - from) * ow, *e);
            } else {
                for k in from..to {
                    down.add_scaled((iy + k * sy - top) * ow, u, (first + k) * ow, ow, *e);
                }
            }
        }
        for (e, outputs, ix) in &columns {
            if sx == 1 && outputs.len() >= SHORT {
                for iy in top..bottom {
                    out.add_scaled((input + iy) * iw + ix, &down, (iy - top) * ow + outputs.start, outputs.len(), *e);
                }
            } else {
                let in_row =
                    |iy: usize| outputs.clone().enumerate().map(move |(k, ox)| ((input + iy) * iw + ix + k * sx, (iy - top) * ow + ox));
                scaled.set_scaled(&down, *e);
                out.add_moved(&scaled, (top..bottom).flat_map(in_row));
            }
        }
    }
    out
}

fn window_form<const D: usize>(
    layout: &Layout,
    x: u32,
    window: &Window,
    x_zero: i32,
    u: &Side<D>,
    v: &Side<D>,
    rows: &[K<D>],
    columns: &[K<D>],
    form: &mut LinearForm<D>,
) {
    let psi =
        if is_pointwise(window) { u.clone().scaled(rows[0] * columns[0]) } else { pull_back(window, &u.to_run(), rows, columns).into() };
    form.constant -= (psi.sum() * v.sum()).scale(from_i64(i64::from(x_zero)));
    form.tensor(layout, x, psi, v.clone());
}

/// Last value of a public factor: `B~` at the point for weights that the verifier holds, or `(u (x) v)~` of a product.
pub(super) fn public_factor<const D: usize>(instance: &Instance<'_, D>, point: &[K<D>], public: Public<'_>) -> K<D> {
    match instance.shape() {
        Shape::Product => {
            let tables = instance.tables(point);
            let at = |x: &Side<D>, t: &[K<D>]| x.to_vec().iter().zip(t).map(|(&a, &b)| a * b).sum::<K<D>>();
            at(&instance.v, &tables[0]) * at(&instance.u, &tables[1])
        }
        Shape::Window { stored: Some(_), .. } => K::ONE,
        Shape::Window { window, channels, depthwise, weights, stored: None, .. } => {
            let (w, v, tables) = (&public[weights as usize], instance.v.to_vec(), instance.tables(point));
            let (kh, kw) = (window.kernel.0 as usize, window.kernel.1 as usize);
            let taps: Vec<K<D>> = (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))).map(|(y, x)| tables[2][y] * tables[1][x]).collect();
            let outputs = v.len();
            let mut total = K::ZERO;
            for (o, &v) in v.iter().enumerate().filter(|(_, v)| **v != K::ZERO) {
                let mut sum = K::ZERO;
                for (t, &tap) in taps.iter().enumerate() {
                    sum += if depthwise {
                        (tap * tables[0][o / (outputs / channels)]).scale(w[t * outputs + o])
                    } else {
                        let row = &w[(o * taps.len() + t) * channels..][..channels];
                        tap * row.iter().zip(&tables[0]).map(|(&a, &e)| e.scale(a)).sum::<K<D>>()
                    };
                }
                total += v * sum;
            }
            total
        }
    }
}

/// `sum_k coefficients[k] * (form of the k-th sent factor)`. All instances of an operator share the point, so their `Psi` and their
/// functional on the weights are computed once, from summed weights.
pub(super) fn batched<const D: usize>(
    layout: &Layout,
    instances: &[Instance<'_, D>],
    point: &[K<D>],
    coefficients: &[K<D>],
    form: &mut LinearForm<D>,
) {
    // For each accumulator: an instance, and the sums of its instances' u and v.
    let mut groups: BTreeMap<usize, (&Instance<'_, D>, Side<D>, Side<D>)> = BTreeMap::new();
    let mut at = 0;
    for instance in instances {
        let sent = &coefficients[at..at + instance.sent()];
        at += instance.sent();
        if instance.is_product() {
            product_forms(layout, instance, point, sent, form);
            continue;
        }
        let group =
            groups.entry(instance.accumulator).or_insert_with(|| (instance, Side::zero(instance.u.size()), Side::zero(instance.v.size())));
        group.1.add(&instance.u, sent[0]);
        if let Some(&k) = sent.get(1) {
            group.2.add(&instance.v, k);
        }
    }
    let groups: Vec<_> = groups.into_values().collect();
    let forms: Vec<LinearForm<D>> =
        groups.into_par_iter().with_max_len(1).map(|(instance, u, v)| operator_form(layout, instance, point, &u, v)).collect();
    forms.into_iter().for_each(|f| form.absorb(f));
}

/// The input and weights of one operator, for the sums `u`, `v` of its instances.
fn operator_form<const D: usize>(layout: &Layout, instance: &Instance<'_, D>, point: &[K<D>], u: &Side<D>, v: Side<D>) -> LinearForm<D> {
    let mut form = LinearForm::default();
    let Shape::Window { window, x, channels, depthwise, stored, x_zero, .. } = instance.shape() else { return form };
    let points = instance.points(point);
    let (columns, rows) = (eq(points[1]), eq(points[2]));
    let across = Side::eq(channels, points[0]);
    window_form(layout, x, window, x_zero, u, &across, &rows, &columns, &mut form);
    if let Some(storage) = stored {
        let (kh, kw) = (window.kernel.0 as usize, window.kernel.1 as usize);
        let taps: Vec<K<D>> = (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))).map(|(y, x)| rows[y] * columns[x]).collect();
        if depthwise {
            let (v, ec, m) = (v.to_vec(), across.to_vec(), v.size() / channels);
            form.push(storage, taps, v.iter().enumerate().map(|(o, &x)| x * ec[o / m]).collect::<Vec<_>>());
        } else if let [tap] = taps[..] {
            form.push(storage, v, across.scaled(tap));
        } else {
            let ec = across.to_vec();
            form.push(storage, v, taps.iter().flat_map(|&t| ec.iter().map(move |&e| t * e)).collect::<Vec<_>>());
        }
    }
    form
}

/// A product's factors are sums of terms: their values at the point are linear forms.
fn product_forms<const D: usize>(
    layout: &Layout,
    instance: &Instance<'_, D>,
    point: &[K<D>],
    coefficients: &[K<D>],
    form: &mut LinearForm<D>,
) {
    let acc = &layout.accumulators[instance.accumulator];
    let AccumulatorKind::Product { a, b } = &acc.kind else { return };
    let tables = instance.tables(point);
    let (v, u) = (&tables[0][..acc.channels], &tables[1][..acc.positions]);
    let sum_v: K<D> = v.iter().copied().sum();
    for (terms, &k) in [a, b].into_iter().zip(coefficients) {
        for t in terms {
            term_form(layout, t, k.scale(from_i64(t.scale)), u, v, sum_v, form);
        }
    }
}

fn term_form<const D: usize>(layout: &Layout, t: &Term, factor: K<D>, u: &[K<D>], v: &[K<D>], sum_v: K<D>, form: &mut LinearForm<D>) {
    // Factors of products are made of whole rows without weights; see layout/softmax.rs.
    assert!(matches!(t.rows, Rows::Same) && t.by_position.is_none() && t.by_channel.is_none(), "a product's factor with weights");
    let u: Vec<K<D>> = u.iter().map(|&x| x * factor).collect();
    match t.source {
        Source::One => form.constant += u.into_iter().sum::<K<D>>() * sum_v,
        Source::Local(s) => form.push(s, u, v.to_vec()),
        Source::Broadcast(s) => form.push(s, Side::from(u).scaled(sum_v), vec![K::ONE]),
        Source::RowSum(s) => form.push(s, Side::from(u).scaled(sum_v), vec![K::ONE; layout.storages[s].channels]),
        Source::RowSums(s) => form.push(s, v.iter().map(|&x| x * u[0]).collect::<Vec<_>>(), vec![K::ONE; layout.storages[s].channels]),
        Source::ColumnSums(s) => form.push(s, vec![u[0]; layout.storages[s].positions], v.to_vec()),
        Source::Tensor(x) => form.tensor(layout, x, u.into(), v.to_vec().into()),
        Source::Accumulator(_) => unreachable!("layouts multiply committed terms only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    /// Output length, kernel, stride, dilation, padding before, input length.
    fn axis() -> impl Strategy<Value = [u32; 6]> {
        (1u32..40, 1u32..4, 1u32..4, 1u32..3, 0u32..4, 0u32..4).prop_map(|(out, kernel, stride, dilation, pad, more)| {
            let reach = (out - 1) * stride + (kernel - 1) * dilation + 1;
            [out, kernel, stride, dilation, pad, (reach + more).saturating_sub(2 * pad).max(1)]
        })
    }

    proptest! {
        #[test]
        fn a_window_pulls_back_tap_by_tap(batch in 1u32..4, y in axis(), x in axis()) {
            let pair = |i: usize| (y[i], x[i]);
            let window = Window { batch, output: pair(0), kernel: pair(1), stride: pair(2), dilation: pair(3), pad: pair(4), input: pair(5) };
            let (oh, ow, iw) = ((batch * y[0]) as usize, x[0] as usize, x[5] as usize);
            let vector = |n: usize, seed: u64| -> Vec<K<2>> { (0..n as u64).map(|i| element(seed + i)).collect() };
            let (u, rows, columns) = (vector(oh * ow, 0), vector(4, 5000), vector(4, 6000));
            let mut slow = vec![K::ZERO; (batch * y[5] * x[5]) as usize];
            for o in 0..oh * ow {
                for ky in 0..y[1] as usize {
                    for kx in 0..x[1] as usize {
                        if let (Some(iy), Some(ix)) = (window.row(o / ow, ky), window.column(o % ow, kx)) {
                            slow[iy * iw + ix] += u[o] * rows[ky] * columns[kx];
                        }
                    }
                }
            }
            let fast = pull_back(&window, &u.clone().into(), &rows, &columns);
            prop_assert_eq!(fast.iter(0..slow.len()).collect::<Vec<_>>(), &slow[..]);
            if is_pointwise(&window) {
                prop_assert_eq!(slow, u.iter().map(|&u| u * rows[0] * columns[0]).collect::<Vec<_>>());
            }
        }
    }
}
