//! The linear forms that contractions leave on committed tensors, weights and biases.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Instance, Shape};
use crate::field::{F, K, from_i64};
use crate::layout::{AccumulatorKind, Layout, Rows, Source, Term};
use crate::logup::{AccumulatorWeight, LinearForm};
use crate::program::{Contract, Window};

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
            let mass: K<D> = weight.u.iter().copied().sum();
            match (bias, stored) {
                (Some(_), Some(s)) => form.push(*s, vec![mass], weight.v.clone()),
                (Some(id), None) => {
                    let dot: K<D> = weight.v.iter().zip(&public[id as usize]).map(|(&v, &b)| v.scale(b)).sum();
                    form.constant += mass * dot;
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
                            let u: Vec<K<D>> = weight.u.iter().map(|&x| x.scale(from_i64(*k))).collect();
                            form.tensor(layout, *x, &u, &weight.v);
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

/// `Psi[i] = sum over (o, ky, kx) that read input i of u[o] rows[ky] columns[kx]`, in two passes.
fn pull_back<const D: usize>(window: &Window, u: &[K<D>], rows: &[K<D>], columns: &[K<D>]) -> Vec<K<D>> {
    let (ih, iw) = (window.input.0 as usize, window.input.1 as usize);
    let (oh, ow) = (window.output.0 as usize, window.output.1 as usize);
    let mut across = vec![K::ZERO; oh * iw];
    for ox in 0..ow {
        for (kx, &e) in columns.iter().enumerate().take(window.kernel.1 as usize) {
            if let Some(ix) = window.column(ox, kx) {
                for oy in 0..oh {
                    across[oy * iw + ix] += u[oy * ow + ox] * e;
                }
            }
        }
    }
    let mut out = vec![K::ZERO; ih * iw];
    for oy in 0..oh {
        for (ky, &e) in rows.iter().enumerate().take(window.kernel.0 as usize) {
            if let Some(iy) = window.row(oy, ky) {
                for ix in 0..iw {
                    out[iy * iw + ix] += across[oy * iw + ix] * e;
                }
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
    u: &[K<D>],
    v: &[K<D>],
    rows: &[K<D>],
    columns: &[K<D>],
    form: &mut LinearForm<D>,
) {
    let psi = pull_back(window, u, rows, columns);
    form.tensor(layout, x, &psi, v);
    let (mass_p, mass_c): (K<D>, K<D>) = (psi.iter().copied().sum(), v.iter().copied().sum());
    form.constant -= (mass_p * mass_c).scale(from_i64(i64::from(x_zero)));
}

/// Last value of a public factor: `B~` at the point for weights that the verifier holds, or `(u (x) v)~` of a product.
pub(super) fn public_factor<const D: usize>(instance: &Instance<'_, D>, point: &[K<D>], public: Public<'_>) -> K<D> {
    let tables = instance.tables(point);
    match instance.shape() {
        Shape::Product => {
            let at = |x: &[K<D>], t: &[K<D>]| x.iter().zip(t).map(|(&a, &b)| a * b).sum::<K<D>>();
            at(&instance.v, &tables[0]) * at(&instance.u, &tables[1])
        }
        Shape::Window { stored: Some(_), .. } => K::ONE,
        Shape::Window { window, channels, depthwise, weights, stored: None, .. } => {
            let w = &public[weights as usize];
            let (kh, kw) = (window.kernel.0 as usize, window.kernel.1 as usize);
            let taps: Vec<K<D>> = (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))).map(|(y, x)| tables[2][y] * tables[1][x]).collect();
            let outputs = instance.v.len();
            let mut total = K::ZERO;
            for (o, &v) in instance.v.iter().enumerate().filter(|(_, v)| **v != K::ZERO) {
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
    let mut groups: BTreeMap<usize, (&Instance<'_, D>, Vec<K<D>>, Vec<K<D>>)> = BTreeMap::new();
    let mut at = 0;
    for instance in instances {
        let sent = &coefficients[at..at + instance.sent()];
        at += instance.sent();
        if instance.is_product() {
            product_forms(layout, instance, point, sent, form);
            continue;
        }
        let group = groups
            .entry(instance.accumulator)
            .or_insert_with(|| (instance, vec![K::ZERO; instance.u.len()], vec![K::ZERO; instance.v.len()]));
        group.1.iter_mut().zip(&instance.u).for_each(|(s, &x)| *s += sent[0] * x);
        if let Some(&k) = sent.get(1) {
            group.2.iter_mut().zip(&instance.v).for_each(|(s, &x)| *s += k * x);
        }
    }
    let groups: Vec<_> = groups.into_values().collect();
    let forms: Vec<LinearForm<D>> =
        groups.into_par_iter().with_min_len(4).map(|(instance, u, v)| operator_form(layout, instance, point, &u, v)).collect();
    forms.into_iter().for_each(|f| form.absorb(f));
}

/// The input and weights of one operator, for the sums `u`, `v` of its instances.
fn operator_form<const D: usize>(layout: &Layout, instance: &Instance<'_, D>, point: &[K<D>], u: &[K<D>], v: Vec<K<D>>) -> LinearForm<D> {
    let mut form = LinearForm::default();
    let Shape::Window { window, x, channels, depthwise, stored, x_zero, .. } = instance.shape() else { return form };
    let tables = instance.tables(point);
    let ec = &tables[0][..channels];
    window_form(layout, x, window, x_zero, u, ec, &tables[2], &tables[1], &mut form);
    if let Some(storage) = stored {
        let (kh, kw) = (window.kernel.0 as usize, window.kernel.1 as usize);
        let taps: Vec<K<D>> = (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))).map(|(y, x)| tables[2][y] * tables[1][x]).collect();
        if depthwise {
            let m = v.len() / channels;
            form.push(storage, taps, v.iter().enumerate().map(|(o, &x)| x * ec[o / m]).collect());
        } else {
            form.push(storage, v, taps.iter().flat_map(|&t| ec.iter().map(move |&e| t * e)).collect());
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
        Source::Broadcast(s) => form.push(s, u.into_iter().map(|x| x * sum_v).collect(), vec![K::ONE]),
        Source::RowSum(s) => form.push(s, u.into_iter().map(|x| x * sum_v).collect(), vec![K::ONE; layout.storages[s].channels]),
        Source::RowSums(s) => form.push(s, v.iter().map(|&x| x * u[0]).collect(), vec![K::ONE; layout.storages[s].channels]),
        Source::ColumnSums(s) => form.push(s, vec![u[0]; layout.storages[s].positions], v.to_vec()),
        Source::Tensor(x) => form.tensor(layout, x, &u, v),
        Source::Accumulator(_) => unreachable!("layouts multiply committed terms only"),
    }
}
