//! The prover's cubes: inputs and weights folded by the position and channel weights.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::{Instance, Public, Shape};
use crate::control::Gauge;
use crate::field::{Ext, F, K, from_i64};
use crate::layout::{Index, Layout};
use crate::prover::values::{Witness, add_scaled, factors, tensor};

/// Elements that [`cubes`] reads, rows of the input once for each tap.
pub(super) fn work<const D: usize>(instance: &Instance<'_, D>) -> usize {
    let (outputs, channels) = (instance.u.size(), instance.v.size());
    match instance.shape() {
        Shape::Window { window, channels: width, depthwise, .. } => {
            let taps = (window.kernel.0 * window.kernel.1) as usize;
            taps * (outputs * width + if depthwise { channels } else { channels * width })
        }
        Shape::Product => outputs * channels,
    }
}

/// The arrays whose product is summed over the cube; `gauge` hears of the [`work`], and once it is stopped they are worth nothing.
pub(super) fn cubes<const D: usize>(
    instance: &Instance<'_, D>,
    layout: &Layout,
    witness: &Witness,
    public: Public<'_>,
    gauge: &Gauge<'_>,
) -> Vec<Vec<K<D>>> {
    if !gauge.goes_on() {
        return Vec::new();
    }
    let (u, v) = (instance.u.to_vec(), instance.v.to_vec());
    match instance.shape() {
        Shape::Window { window, x, channels, depthwise, weights, stored, x_zero } => {
            let width = channels;
            let (kh, kw) = (window.kernel.0 as usize, window.kernel.1 as usize);
            let zero = from_i64(i64::from(x_zero));
            let input = tensor(layout, witness, x);
            let side = 1usize << instance.bits[0];
            let row_side = 1usize << instance.bits[1];
            let mut a = vec![K::ZERO; 1 << instance.variables()];
            let taps: Vec<(usize, usize)> = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))).collect();
            let folded: Vec<Vec<K<D>>> = taps
                .par_iter()
                .map(|&(ky, kx)| {
                    if !gauge.goes_on() {
                        return Vec::new();
                    }
                    let (outputs, inputs) = crate::layout::taps(window, ky, kx);
                    let row = fold_rows(&input, width, &outputs, &inputs, &u, zero);
                    gauge.did(u.len() * width);
                    row
                })
                .collect();
            if !gauge.goes_on() {
                return Vec::new();
            }
            for (&(ky, kx), row) in taps.iter().zip(folded) {
                a[(ky * row_side + kx) * side..][..width].copy_from_slice(&row);
            }
            let w: &[F] = stored.map_or_else(|| &public[weights as usize], |s| &witness.storages[s]);
            let mut b = vec![K::ZERO; a.len()];
            let out_channels = v.len();
            for (t, &(ky, kx)) in taps.iter().enumerate() {
                let target = &mut b[(ky * row_side + kx) * side..][..width];
                if depthwise {
                    let m = out_channels / width;
                    for o in 0..out_channels {
                        target[o / m] += v[o].scale(w[t * out_channels + o]);
                    }
                } else {
                    let mut columns: [Vec<F>; D] = core::array::from_fn(|_| vec![F::ZERO; width]);
                    for (o, v) in v.iter().enumerate().filter(|(_, v)| **v != K::ZERO) {
                        let row = &w[(o * taps.len() + t) * width..][..width];
                        columns.iter_mut().zip(v.0).for_each(|(c, f)| add_scaled(c, f, row));
                    }
                    gather(&columns, target);
                }
                gauge.did(if depthwise { out_channels } else { out_channels * width });
            }
            vec![a, b]
        }
        Shape::Product => {
            let acc = &layout.accumulators[instance.accumulator];
            let (p, c) = (acc.positions, acc.channels);
            let side = 1usize << instance.bits[0];
            let [a, b] = factors(layout, witness, instance.accumulator).expect("the shape is a product");
            let place = |f: &dyn Fn(usize, usize) -> K<D>| {
                let mut out = vec![K::ZERO; 1 << instance.variables()];
                for i in 0..p {
                    for j in 0..c {
                        out[i * side + j] = f(i, j);
                    }
                }
                out
            };
            gauge.did(p * c);
            vec![place(&|i, j| K::from_base(a[i * c + j])), place(&|i, j| K::from_base(b[i * c + j])), place(&|i, j| u[i] * v[j])]
        }
    }
}

fn gather<const D: usize>(columns: &[Vec<F>; D], out: &mut [K<D>]) {
    for (c, x) in out.iter_mut().enumerate() {
        *x = Ext(core::array::from_fn(|j| columns[j][c]));
    }
}

/// `sum over i of u[outputs[i]] (x[inputs[i], c] - zero)` for every channel.
fn fold_rows<const D: usize>(x: &[F], width: usize, outputs: &Index, inputs: &Index, u: &[K<D>], zero: F) -> Vec<K<D>> {
    let mut columns: [Vec<F>; D] = core::array::from_fn(|_| vec![F::ZERO; width]);
    let mut mass = K::<D>::ZERO;
    for (o, i) in outputs.iter().zip(inputs.iter()) {
        let weight = u[o];
        mass += weight;
        columns.iter_mut().zip(weight.0).for_each(|(c, f)| add_scaled(c, f, &x[i * width..][..width]));
    }
    let mut out = vec![K::ZERO; width];
    gather(&columns, &mut out);
    let shift = mass.scale(zero);
    out.iter_mut().for_each(|v| *v -= shift);
    out
}
