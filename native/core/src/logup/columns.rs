//! Columns of tables at a point: their multilinear extensions.

use p3_field::PrimeCharacteristicRing;

use crate::eq::{below, eq};
use crate::field::{Ext, F, K, canonical, from_i64};
use crate::layout::{Column, Table};
use crate::side::times;

/// `sum of u[i] a[i]` over the shorter length.
pub(super) fn weighted<const D: usize>(u: &[K<D>], a: &[i64]) -> K<D> {
    u.iter().zip(a).filter(|(_, a)| **a != 0).map(|(&x, &a)| times(x, a)).sum()
}

/// Bits of a row number that [`listed`] takes at once.
const LISTED: usize = 8;

/// `sum of eq(r, i) values[i]`. Runs of small values are summed as integers: both halves of the canonical coordinates, which have 32 bits.
fn listed<const D: usize>(values: &[i64], r: &[K<D>]) -> K<D> {
    let (low, high) = r.split_at(r.len().min(LISTED));
    let low = eq(low);
    let half = |d: usize, shift: u32| low.iter().map(|x| (canonical(x.0[d]) >> shift & 0xffff_ffff) as i64).collect();
    let halves: [[Vec<i64>; 2]; D] = core::array::from_fn(|d| [half(d, 0), half(d, 32)]);
    let run = |values: &[i64]| -> K<D> {
        // 20 bits of values, 32 of halves and 8 of indices stay below 63.
        if values.iter().fold(0, |bits, &v| bits | (v ^ v >> 63)) >> 20 != 0 {
            return weighted(&low, values);
        }
        let sum = |half: &[i64]| from_i64(half.iter().zip(values).map(|(&x, &v)| x * v).sum());
        Ext(core::array::from_fn(|d| sum(&halves[d][0]) + sum(&halves[d][1]) * F::from_u64(1 << 32)))
    };
    values.chunks(low.len()).zip(eq(high)).map(|(values, x)| x * run(values)).sum()
}

/// Value of a table column's multilinear extension: in closed form for steps, row by row for listed values.
pub(super) fn column_at<const D: usize>(table: &Table, j: usize, r: &[K<D>]) -> K<D> {
    match &table.columns[j] {
        Column::Values(v) => listed(v, r),
        Column::Steps(steps) => {
            let ends = steps.iter().skip(1).map(|s| s.0).chain([1 << table.log_rows]);
            let mut total = K::ZERO;
            for (&(start, c0, c1), end) in steps.iter().zip(ends) {
                let (m0, f0) = below(r, start);
                let (m1, f1) = below(r, end);
                total += (m1 - m0).scale(from_i64(c0)) + (f1 - f0).scale(from_i64(c1));
            }
            total
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn listed_columns_equal_their_sum(log in 0usize..11, seed: u64, large in prop::option::of(any::<prop::sample::Index>())) {
            let r: Vec<K<3>> = (0..log as u64).map(|i| element(seed ^ i)).collect();
            let mut values: Vec<i64> = (0..1i64 << log).map(|i| ((i * 7919) ^ seed as i64) % (1 << 20)).collect();
            if let Some(at) = large {
                let n = values.len();
                values[at.index(n)] = -(1 << 40);
            }
            prop_assert_eq!(listed(&values, &r), weighted(&eq(&r), &values));
        }
    }
}
