//! Reed-Solomon encoding on shifted two-adic domains.
//!
//! The domain of size `2^s` is `h_s <omega_s>` with `omega_s = 7^((p-1)/2^s)` and `h_s = 7^(2^(32-s))`; point `i` is `h_s omega_s^i`. Squaring
//! maps it onto the domain of size `2^(s-1)`: point `i` to point `i mod 2^(s-1)`. No domain meets another one's: `h_s` is not in
//! `<omega_s>`.

use p3_dft::{Radix2DFTSmallBatch, TwoAdicSubgroupDft};
use p3_field::{PrimeCharacteristicRing, TwoAdicField};
use p3_matrix::dense::RowMajorMatrix;
use rayon::prelude::*;

use crate::field::F;

/// `omega_s`.
pub fn omega(log: usize) -> F {
    F::two_adic_generator(log)
}

/// `h_s`.
pub fn shift(log: usize) -> F {
    F::from_u8(7).exp_power_of_2(32 - log)
}

/// Point `i` of the domain of size `2^log`.
pub fn point(log: usize, i: usize) -> F {
    shift(log) * omega(log).exp_u64(i as u64)
}

/// The values of polynomials on the domain of size `2^log_domain`: `coefficients` and the result are row-major matrices, one polynomial in
/// each of `columns` columns, row `i` the coefficients of `X^i` and the values at point `i`.
pub fn encode(mut coefficients: Vec<F>, columns: usize, log_domain: usize) -> Vec<F> {
    let h = shift(log_domain);
    coefficients.par_chunks_mut(columns << 8).enumerate().for_each(|(k, rows)| {
        let mut power = h.exp_u64((k << 8) as u64);
        for row in rows.chunks_mut(columns) {
            for x in row {
                *x *= power;
            }
            power *= h;
        }
    });
    dft(coefficients, columns, log_domain)
}

/// [`encode`] of polynomials given one after another, `2^log_rows` coefficients each; the result is row-major again.
pub fn encode_columns(coefficients: &[F], log_rows: usize, log_domain: usize) -> Vec<F> {
    let columns = coefficients.len() >> log_rows;
    let mut rows = Vec::with_capacity(columns << log_domain);
    rows.resize(columns << log_rows, F::ZERO);
    // Tiles of rows, so that the lines of all columns stay in the cache while they are transposed.
    const TILE: usize = 64;
    rows.par_chunks_mut(columns * TILE).enumerate().for_each(|(k, tile)| {
        for c in 0..columns {
            let column = &coefficients[(c << log_rows) + k * TILE..];
            for (row, &x) in tile.chunks_exact_mut(columns).zip(column) {
                row[c] = x;
            }
        }
    });
    encode(rows, columns, log_domain)
}

/// [`encode`] on the group `<omega>` itself.
pub fn dft(mut coefficients: Vec<F>, columns: usize, log_domain: usize) -> Vec<F> {
    if log_domain == 0 {
        return coefficients;
    }
    coefficients.resize(columns << log_domain, F::ZERO);
    Radix2DFTSmallBatch::default().dft_batch(RowMajorMatrix::new(coefficients, columns)).values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::P;

    #[test]
    fn generators_and_shifts_are_the_powers_of_seven_of_the_specification() {
        for s in 0..=32 {
            assert_eq!(omega(s), F::from_u8(7).exp_u64((P - 1) >> s));
            assert_eq!(shift(s), F::from_u8(7).exp_u64(1 << (32 - s)));
        }
    }

    #[test]
    fn squares_of_points_are_points_of_the_half_domain() {
        for i in 0..32 {
            assert_eq!(point(5, i) * point(5, i), point(4, i % 16));
        }
    }

    #[test]
    fn values_are_those_of_horner() {
        for (log, log_domain, columns) in [(0, 1, 1), (0, 3, 2), (3, 4, 3), (5, 8, 9), (9, 10, 17)] {
            let c: Vec<F> = (0..(columns << log) as u64).map(|i| F::from_u64(i.wrapping_mul(0x9e3779b97f4a7c15) % P)).collect();
            let values = encode(c.clone(), columns, log_domain);
            assert_eq!(values.len(), columns << log_domain);
            for i in [0, 1, (1 << log_domain) / 2, (1 << log_domain) - 1] {
                let x = point(log_domain, i);
                for j in 0..columns {
                    let horner = (0..1 << log).rev().fold(F::ZERO, |t, k| t * x + c[k * columns + j]);
                    assert_eq!(values[i * columns + j], horner);
                }
            }
        }
    }

    /// `1 + 2 X + 3 X^2 + 5 X^3` on the domain of 8 points, computed from the definition with big integers, outside this crate.
    #[test]
    fn a_fixed_code_word() {
        let values = encode([1, 2, 3, 5].map(F::from_u8).to_vec(), 1, 3);
        assert_eq!(values, FIXED.map(F::from_u64));
    }

    const FIXED: [u64; 8] = [
        8687327415849047400,
        4325509296591973890,
        8959132369996354198,
        10759501819607896385,
        16035369774703451864,
        7084849012106280570,
        3211658578280315184,
        14723628010523017801,
    ];
}
