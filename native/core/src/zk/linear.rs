//! Gaussian elimination over `F`.

use p3_field::{Field, PrimeCharacteristicRing};

use crate::field::F;

/// Brings rows into echelon form on their first `columns` entries. -> the rank there.
fn eliminate(rows: &mut [Vec<F>], columns: usize) -> usize {
    let mut rank = 0;
    for column in 0..columns {
        let Some(pivot) = (rank..rows.len()).find(|&i| rows[i][column] != F::ZERO) else { continue };
        rows.swap(rank, pivot);
        let inverse = rows[rank][column].inverse();
        rows[rank].iter_mut().for_each(|x| *x *= inverse);
        let (done, rest) = rows.split_at_mut(rank + 1);
        for row in rest {
            let factor = row[column];
            if factor != F::ZERO {
                row.iter_mut().zip(&done[rank]).for_each(|(x, &y)| *x -= factor * y);
            }
        }
        rank += 1;
    }
    rank
}

/// The rank of a matrix given by rows.
pub fn rank(mut rows: Vec<Vec<F>>) -> usize {
    let columns = rows.first().map_or(0, Vec::len);
    eliminate(&mut rows, columns)
}

/// The coefficients of `X^from, X^(from + 1), ...`, as many as points, of the polynomial with the given values.
pub fn interpolate(points: &[F], values: &[F], from: usize) -> Vec<F> {
    let n = points.len();
    let row = |(&x, &y): (&F, &F)| (0..n).map(|j| x.exp_u64((from + j) as u64)).chain([y]).collect();
    let mut rows: Vec<Vec<F>> = points.iter().zip(values).map(row).collect();
    assert_eq!(eliminate(&mut rows, n), n, "distinct points");
    let mut out = vec![F::ZERO; n];
    for i in (0..n).rev() {
        out[i] = rows[i][n] - (i + 1..n).map(|j| rows[i][j] * out[j]).sum::<F>();
    }
    out
}

#[test]
fn elimination_finds_rank_and_coefficients() {
    let f = |x: &[u64]| x.iter().map(|&x| F::from_u64(x)).collect::<Vec<F>>();
    assert_eq!(rank(vec![f(&[1, 2, 3]), f(&[2, 4, 6]), f(&[0, 1, 1])]), 2);
    assert_eq!(rank(vec![f(&[0, 0, 3]), f(&[0, 4, 6]), f(&[5, 1, 1])]), 3);
    let (points, c) = (f(&[3, 5, 11]), f(&[8, 1, 7]));
    let at = |x: F| c.iter().rev().fold(F::ZERO, |y, &c| y * x + c) * x.square();
    assert_eq!(interpolate(&points, &points.iter().map(|&x| at(x)).collect::<Vec<_>>(), 2), c);
}
