//! The batched sumcheck. Round messages are the coefficients of the round polynomial without the linear one.

use std::ops::ControlFlow;

use p3_field::{Field, PrimeCharacteristicRing};
use rayon::prelude::*;

use super::forms::{Public, batched, public_factor};
use super::{Instance, fold, shape};
use crate::channel::{Prover, Reader};
use crate::control::{Control, Gauge, stretch};
use crate::field::{F, K};
use crate::layout::Layout;
use crate::logup::LinearForm;
use crate::prover::values::Witness;
use crate::reject::Verdict;

/// `2^-n`.
fn half<const D: usize>(n: usize) -> K<D> {
    K::from_base(F::from_u64(1 << 32).inverse().exp_u64(n as u64 / 32) * F::TWO.inverse().exp_u64(n as u64 % 32))
}

/// Coefficients of `h(X) = sum over pairs of the product of linear factors`, up to degree 3.
fn coefficients<const D: usize>(cubes: &[Vec<K<D>>]) -> [K<D>; 4] {
    let pairs = cubes[0].len() / 2;
    (0..pairs)
        .into_par_iter()
        .with_min_len(512)
        .map(|i| {
            let mut h = [K::ONE, K::ZERO, K::ZERO, K::ZERO];
            for (k, cube) in cubes.iter().enumerate() {
                let (low, slope) = (cube[2 * i], cube[2 * i + 1] - cube[2 * i]);
                for d in (0..=k + 1).rev() {
                    h[d] = h[d] * low + if d > 0 { h[d - 1] * slope } else { K::ZERO };
                }
            }
            h
        })
        .reduce(|| [K::ZERO; 4], |a, b| core::array::from_fn(|i| a[i] + b[i]))
}

fn bind<const D: usize>(cube: &mut Vec<K<D>>, x: K<D>) {
    let n = cube.len() / 2;
    for i in 0..n {
        cube[i] = cube[2 * i] + x * (cube[2 * i + 1] - cube[2 * i]);
    }
    cube.truncate(n);
}

/// Elements from which on folding them, or a round over them, is worth a report.
const REPORTED: usize = 1 << 18;
/// What of the time is folding: rounds are over much smaller cubes, but for products.
const FOLDING: f64 = 0.8;

/// Proves the sum of all instances. Adds to `form` the batch, by a challenge, of what remains to be opened. Breaks when `control` does.
pub fn prove<const D: usize>(
    prover: &mut Prover,
    layout: &Layout,
    witness: &Witness,
    public: Public<'_>,
    instances: &[Instance<'_, D>],
    form: &mut LinearForm<D>,
    control: Control<'_>,
) -> ControlFlow<()> {
    let (n, degree) = shape(instances);
    let mut folding = stretch(control, 0.0, FOLDING);
    let gauge = Gauge::new(&mut folding, instances.iter().map(fold::work).sum(), REPORTED);
    let mut cubes: Vec<Vec<Vec<K<D>>>> = instances.par_iter().map(|i| fold::cubes(i, layout, witness, public, &gauge)).collect();
    gauge.end()?;
    drop(folding);
    let sums: Vec<K<D>> = cubes
        .iter()
        .map(|c| {
            (0..c[0].len())
                .into_par_iter()
                .with_min_len(1024)
                .map(|i| c.iter().fold(K::ONE, |p, x| p * x[i]))
                .reduce(|| K::ZERO, |a, b| a + b)
        })
        .collect();
    prover.send("contraction total", &[sums.iter().copied().sum::<K<D>>()]);
    let mut point = Vec::with_capacity(n);
    for j in 0..n {
        let mut h = [K::ZERO; 4];
        for ((instance, cube), &sum) in instances.iter().zip(&cubes).zip(&sums) {
            let waiting = n - instance.variables();
            if j < waiting {
                h[0] += sum * half(j + 1);
            } else {
                let c = coefficients(cube);
                let scale = half(waiting);
                (0..4).for_each(|d| h[d] += c[d] * scale);
            }
        }
        let mut message = vec![h[0]];
        message.extend(&h[2..=degree]);
        prover.send("contraction round", &message);
        let x: K<D> = prover.challenge("contraction round");
        point.push(x);
        instances.iter().zip(&mut cubes).par_bridge().for_each(|(instance, cube)| {
            if j >= n - instance.variables() {
                cube.iter_mut().for_each(|c| bind(c, x));
            }
        });
        if cubes.iter().flatten().map(Vec::len).sum::<usize>() >= REPORTED {
            // Each round reads half as much as the one before.
            control(1.0 - (1.0 - FOLDING) * 0.5f64.powi(j as i32 + 1))?;
        }
    }
    let finals: Vec<K<D>> = instances.iter().zip(&cubes).flat_map(|(i, c)| c[..i.sent()].iter().map(|x| x[0])).collect();
    prover.send("folded factors", &finals);
    let zeta: K<D> = prover.challenge("factor batch");
    batched(layout, instances, &point, &powers(zeta, finals.len()), form);
    ControlFlow::Continue(())
}

/// `zeta, zeta^2, ...`: power 0 belongs to the form that the batch is added to.
fn powers<const D: usize>(zeta: K<D>, n: usize) -> Vec<K<D>> {
    core::iter::successors(Some(zeta), |&x| Some(x * zeta)).take(n).collect()
}

/// Checks the sumcheck. -> (the contraction total, the batched value of the factors' forms, which are added to `form`).
pub fn verify<const D: usize, R: Reader<D>>(
    reader: &mut R,
    layout: &Layout,
    public: Public<'_>,
    instances: &[Instance<'_, D>],
    form: &mut LinearForm<D>,
) -> Verdict<(R::Value, R::Value)> {
    let (n, degree) = shape(instances);
    let total = reader.receive("contraction total", 1)?.swap_remove(0);
    let mut claim = total.clone();
    let mut point = Vec::with_capacity(n);
    for _ in 0..n {
        // h(X) = h0 + h1 X + h2 X^2 (+ h3 X^3) with h(0) + h(1) = claim: h1 = claim - 2 h0 - h2 - h3.
        let h = reader.receive("contraction round", degree)?;
        let x = reader.challenge("contraction round");
        point.push(x);
        claim = reader.scale(&claim, x);
        claim = reader.add_scaled(&claim, &h[0], K::ONE - x.double());
        let mut power = x;
        for higher in &h[1..] {
            power *= x;
            claim = reader.add_scaled(&claim, higher, power - x);
        }
    }
    let sent: usize = instances.iter().map(Instance::sent).sum();
    let values = reader.receive("folded factors", sent)?;
    let mut last = reader.constant(K::ZERO);
    let mut rest = &values[..];
    for instance in instances {
        let (mine, others) = rest.split_at(instance.sent());
        rest = others;
        let scale = public_factor(instance, &point, public) * half(n - instance.variables());
        let product = if let [a, b] = mine { reader.product(a, b) } else { mine[0].clone() };
        last = reader.add_scaled(&last, &product, scale);
    }
    let difference = reader.sub(&last, &claim);
    reader.assert_zero(&difference, "contraction sumcheck")?;
    let zeta: K<D> = reader.challenge("factor batch");
    let weights = powers(zeta, sent);
    batched(layout, instances, &point, &weights, form);
    let batch = values.iter().zip(&weights).fold(reader.constant(K::ZERO), |sum, (v, &k)| reader.add_scaled(&sum, v, k));
    Ok((total, batch))
}
