//! Products in `K`, a register of lanes at a time, with fewer reductions than one for each base product.

use p3_field::PrimeCharacteristicRing;

use crate::field::{F, K, LANES, PackedF, PackedK};

use super::LANE_BITS;

/// Elements that stay side by side until the last three layers: at least the lanes of every supported register.
pub(super) const GROUP: usize = 1 << LANE_BITS;
/// Packed registers in a group.
pub(super) const PER_GROUP: usize = GROUP / LANES;

/// A multiplier of many registers: row `k` holds what coordinate `k` of a product takes of each coordinate of the other factor.
#[derive(Clone, Copy)]
pub(super) struct Factor<const D: usize> {
    rows: [[PackedF; D]; D],
}

impl<const D: usize> Factor<D> {
    /// `x` in every lane. `X^D = 7`, so what wraps around is multiplied by 7 once, here.
    #[inline(always)]
    pub fn new(x: K<D>) -> Self {
        let plain = x.0.map(PackedF::from);
        let wrapped = x.0.map(|c| PackedF::from(c * F::from_u8(7)));
        let of = |k: usize, i: usize| if i <= k { plain[k - i] } else { wrapped[k + D - i] };
        Factor { rows: core::array::from_fn(|k| core::array::from_fn(|i| of(k, i))) }
    }

    /// The product.
    #[inline(always)]
    pub fn times(&self, a: PackedK<D>) -> PackedK<D> {
        let mut out = PackedK::ZERO;
        for (o, row) in out.0.iter_mut().zip(&self.rows) {
            *o = PackedF::dot_product::<D>(&a.0, row);
        }
        out
    }
}

/// `a b + c d`.
#[inline(always)]
pub(super) fn two_products<const D: usize>(a: PackedK<D>, b: PackedK<D>, c: PackedK<D>, d: PackedK<D>) -> PackedK<D> {
    if D != 2 {
        return a * b + c * d;
    }
    let high = PackedF::dot_product::<2>(&[a.0[1], c.0[1]], &[b.0[1], d.0[1]]);
    let low = PackedF::dot_product::<2>(&[a.0[0], c.0[0]], &[b.0[0], d.0[0]]);
    let mut out = PackedK::ZERO;
    out.0[0] = low + (high.double().double().double() - high);
    out.0[1] = PackedF::dot_product::<4>(&[a.0[0], a.0[1], c.0[0], c.0[1]], &[b.0[1], b.0[0], d.0[1], d.0[0]]);
    out
}

/// Packed indices of the two children of packed node `i`.
#[inline(always)]
pub(super) fn children(i: usize) -> (usize, usize) {
    let (group, w) = (i / PER_GROUP, i % PER_GROUP);
    (2 * group * PER_GROUP + w, (2 * group + 1) * PER_GROUP + w)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Ext, P};
    use proptest::prelude::*;

    fn check<const D: usize>(v: &[u64]) {
        let element = |i: usize, l: usize| -> K<D> { Ext(core::array::from_fn(|j| F::from_u64(v[(7 * i + 3 * l + j) % v.len()]))) };
        let packed = |i: usize| PackedK::from_lanes(|l| element(i, l));
        let (a, b, c, d) = (packed(0), packed(1), packed(2), packed(3));
        let sum = two_products(a, b, c, d);
        let product = Factor::new(element(4, 0)).times(a);
        for l in 0..LANES {
            assert_eq!(sum.lane(l), element(0, l) * element(1, l) + element(2, l) * element(3, l));
            assert_eq!(product.lane(l), element(4, 0) * element(0, l));
        }
    }

    proptest! {
        #[test]
        fn products_equal_the_plain_ones(v in prop::collection::vec(prop_oneof![0..P, P - 2..=u64::MAX], 61)) {
            check::<2>(&v);
            check::<3>(&v);
        }
    }
}
