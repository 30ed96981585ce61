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

/// `sum over i < k of eq(r, i) * (prod over bits of pairs[j].(0 or 1))`, for `0 <= k <= 2^len(r)`: both sides are products over bits.
pub fn inner<const D: usize>(r: &[K<D>], pairs: &[(K<D>, K<D>)], k: usize) -> K<D> {
    if k >> r.len() == 1 {
        // zero (1 - r) + one r = zero + (one - zero) r.
        return (0..r.len()).fold(K::ONE, |t, j| t * (pairs[j].0 + (pairs[j].1 - pairs[j].0) * r[j]));
    }
    // From the lowest bit on: the sums over the indices below the low bits of k, and over all of so many bits.
    let (mut under, mut all) = (K::ZERO, K::ONE);
    for j in 0..r.len() {
        let one = pairs[j].1 * r[j];
        let zero = pairs[j].0 - pairs[j].0 * r[j];
        if k >> j & 1 == 1 {
            under = zero * all + one * under;
        } else {
            under *= zero;
        }
        all *= zero + one;
    }
    under
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
            let (mut mass, mut first, mut sum) = (K::ZERO, K::ZERO, K::ZERO);
            let pairs: Vec<_> = r.iter().map(|&x| (x.square() + K::ONE, x + K::ONE.double())).collect();
            let table = tensor(&pairs);
            for k in 0..=t.len() {
                prop_assert_eq!(below(&r, k), (mass, first));
                prop_assert_eq!(inner(&r, &pairs, k), sum);
                if k < t.len() {
                    prop_assert_eq!(eq_at(&r, k), t[k]);
                    mass += t[k];
                    sum += t[k] * table[k];
                    first += t[k].scale(F::from_u64(k as u64));
                }
            }
        }
    }
}
