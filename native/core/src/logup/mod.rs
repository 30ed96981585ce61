//! One LogUp-GKR for the whole program (design section 4, step 2).
//!
//! Leaves are fractions `1 / (alpha - tuple)` for lookups and `-m / (alpha - row)` for table rows; beyond the last block they are `0 / 1`
//! and never materialised. The tree adds fractions: `p/q + p'/q' = (p q' + p' q) / (q q')`, and its root has numerator 0.
//!
//! *Order of variables.* With `x_0, x_1, ...` the bits of the leaf index, the tree and its sumchecks bind `x_3, x_4, ..., x_(n-1)` and then
//! `x_0, x_1, x_2`: the eight leaves that share the high bits stay side by side in registers until the last three layers. `y_i` below is
//! the `i`-th variable in that order.

mod columns;
mod form;
mod layer;
mod leaves;
mod register;
mod runs;
mod split;
mod tree;

pub use form::{LinearForm, Slot};
pub use leaves::{LeafBlocks, Leaves};
pub use split::{AccumulatorWeight, split};

use std::ops::ControlFlow;

use crate::channel::{Prover, Reader};
use crate::control::Control;
use crate::field::K;
use crate::layout::Layout;
use crate::prover::values::Witness;
use crate::reject::{Reject, Verdict};

/// Variables that a group of leaves holds.
pub(crate) const LANE_BITS: usize = 3;

/// A point in the order in which variables are bound -> in the order of index bits.
pub(crate) fn by_index<const D: usize>(y: &[K<D>]) -> Vec<K<D>> {
    let (high, lanes) = y.split_at(y.len() - LANE_BITS);
    [lanes, high].concat()
}

/// The inverses of all elements with one inversion; `None` if one is 0.
fn inverses<const D: usize>(x: &[K<D>]) -> Option<Vec<K<D>>> {
    let mut product = K::ONE;
    let mut out = Vec::with_capacity(x.len());
    for &x in x {
        // So far the product of those before.
        out.push(product);
        product *= x;
    }
    let mut inverse = product.try_inverse()?;
    for (out, &x) in out.iter_mut().zip(x).rev() {
        *out *= inverse;
        inverse *= x;
    }
    Some(out)
}

/// Proves all lookups. -> the point, by index bit. Breaks when `control` does.
pub fn prove<const D: usize>(
    prover: &mut Prover,
    layout: &Layout,
    witness: &Witness,
    blocks: &LeafBlocks,
    alpha: K<D>,
    betas: &[K<D>],
    control: Control<'_>,
) -> ControlFlow<(), Vec<K<D>>> {
    // What part of the work the leaves are.
    const LEAVES: f64 = 0.4;
    let leaves = Leaves::new(layout, witness, blocks, alpha, betas, &mut |done| control(LEAVES * done))?;
    tree::prove(prover, leaves, &mut |done| control(LEAVES + (1.0 - LEAVES) * done))
}

/// Reads the tree of `2^n` leaves. -> the point (by index bit) and the claims `p~`, `q~` on the leaves.
pub fn verify<const D: usize, R: Reader<D>>(reader: &mut R, n: usize) -> Verdict<(Vec<K<D>>, R::Value, R::Value)> {
    let mut p = reader.constant(K::ZERO);
    let mut q = reader.receive("root", 1)?.swap_remove(0);
    let mut r: Vec<K<D>> = Vec::new();
    for k in 0..n {
        let lambda = reader.challenge("lambda");
        let mut claim = reader.add_scaled(&p, &q, lambda);
        let mut point = Vec::with_capacity(k + 1);
        let inverted = inverses(&r).ok_or(Reject::Degenerate("gkr round"))?;
        for (rj, &inverse) in r.iter().zip(&inverted) {
            // claim = (1 - r_j) t(0) + r_j t(1), t(X) = t(0) + X (t(1) - t(0) - t2) + X^2 t2.
            let t = reader.receive("gkr round", 2)?;
            let x: K<D> = reader.challenge("gkr round");
            // t(1) / t(0): coefficients of the new claim in (claim, t0, t2).
            let of_claim = x * inverse;
            let of_t0 = K::ONE - x - of_claim * (K::ONE - *rj);
            let of_t2 = x * (x - K::ONE);
            claim = reader.scale(&claim, of_claim);
            claim = reader.add_scaled(&claim, &t[0], of_t0);
            claim = reader.add_scaled(&claim, &t[1], of_t2);
            point.push(x);
        }
        let m = reader.receive("gkr layer", 4)?;
        let (p0, p1, q0, q1) = (&m[0], &m[1], &m[2], &m[3]);
        let cross = reader.add(&reader.product(p0, q1), &reader.product(p1, q0));
        let sum = reader.add_scaled(&cross, &reader.product(q0, q1), lambda);
        let difference = reader.sub(&sum, &claim);
        reader.assert_zero(&difference, "GKR layer")?;
        let t = reader.challenge("gkr layer");
        p = reader.add_scaled(p0, &reader.sub(p1, p0), t);
        q = reader.add_scaled(q0, &reader.sub(q1, q0), t);
        point.insert(0, t);
        r = point;
    }
    Ok((by_index(&r), p, q))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;

    #[test]
    fn inverses_at_once() {
        for n in 0..20 {
            let x: Vec<K<3>> = (0..n).map(element).collect();
            let one_by_one: Vec<_> = x.iter().map(|x| x.try_inverse().expect("not 0")).collect();
            assert_eq!(inverses(&x), Some(one_by_one));
            let mut with_zero = x;
            with_zero.insert(n as usize / 2, K::ZERO);
            assert_eq!(inverses(&with_zero), None);
        }
    }
}
