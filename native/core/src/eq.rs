//! Multilinear `eq`: tables, single values, and prefix sums in logarithmic time.

use p3_field::PrimeCharacteristicRing;

use crate::field::{F, K};

/// `prod over bits of pairs[i].(0 or 1)` for every index: the tensor product, bit 0 lowest.
pub fn tensor<const D: usize>(pairs: &[(K<D>, K<D>)]) -> Vec<K<D>> {
    let mut t = Vec::with_capacity(1 << pairs.len());
    t.push(K::ONE);
    for &(zero, one) in pairs {
        let n = t.len();
        for i in 0..n {
            let x = t[i];
            t.push(x * one);
            t[i] = x * zero;
        }
    }
    t
}

/// `eq(r, i)` for every `i < 2^len(r)`.
pub fn eq<const D: usize>(r: &[K<D>]) -> Vec<K<D>> {
    let mut t = Vec::with_capacity(1 << r.len());
    t.push(K::ONE);
    for &x in r {
        let n = t.len();
        for i in 0..n {
            let high = t[i] * x;
            t.push(high);
            t[i] -= high;
        }
    }
    t
}

/// `eq(r, index)` for one index.
pub fn eq_at<const D: usize>(r: &[K<D>], index: usize) -> K<D> {
    r.iter().enumerate().fold(K::ONE, |t, (i, &x)| t * if index >> i & 1 == 1 { x } else { K::ONE - x })
}

/// `(sum of eq(r, i), sum of i eq(r, i))` over `i < k`, for `0 <= k <= 2^len(r)`.
pub fn below<const D: usize>(r: &[K<D>], k: usize) -> (K<D>, K<D>) {
    let weighted = |n: usize| (0..n).fold(K::ZERO, |t, i| t + r[i].scale(F::from_u64(1 << i)));
    if k >> r.len() == 1 {
        return (K::ONE, weighted(r.len()));
    }
    let (mut mass, mut first, mut prefix, mut high) = (K::ZERO, K::ZERO, K::ONE, 0usize);
    for j in (0..r.len()).rev() {
        if k >> j & 1 == 1 {
            // The indices with bit j = 0 under the higher bits of k.
            let m = prefix * (K::ONE - r[j]);
            mass += m;
            first += m * (weighted(j) + K::from_base(F::from_u64(high as u64)));
            prefix *= r[j];
            high |= 1 << j;
        } else {
            prefix *= K::ONE - r[j];
        }
    }
    (mass, first)
}

/// `ceil(log2 n)` for `n >= 1`.
pub fn log2_ceil(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Ext;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn closed_forms_equal_the_table(c in prop::collection::vec((0..1u64 << 63, 0..1u64 << 63), 0..7)) {
            let r: Vec<K<2>> = c.iter().map(|&(a, b)| Ext([F::from_u64(a), F::from_u64(b)])).collect();
            let t = eq(&r);
            prop_assert_eq!(&t, &tensor(&r.iter().map(|&x| (K::ONE - x, x)).collect::<Vec<_>>()));
            let (mut mass, mut first) = (K::ZERO, K::ZERO);
            for k in 0..=t.len() {
                prop_assert_eq!(below(&r, k), (mass, first));
                if k < t.len() {
                    prop_assert_eq!(eq_at(&r, k), t[k]);
                    mass += t[k];
                    first += t[k].scale(F::from_u64(k as u64));
                }
            }
        }
    }
}
