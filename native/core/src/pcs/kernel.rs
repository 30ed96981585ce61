//! The three passes over all cells: contraction with vectors over positions, over channels, and over columns.
//!
//! A cell is mostly a small integer `|c| <= 2^24`. A weight is cut into two signed limbs of 32 bits for each coordinate; products are below
//! `2^55` and up to [`TERMS`] of them are summed in 64 bits before anything is reduced modulo `p`. That is two multiplications of 32 bits for
//! each coordinate instead of a whole one of 64 bits with its reduction; the compiler turns the loops over lanes into vector instructions.

use p3_field::{PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use super::cells::{BlockCells, Cells, SMALL};
use crate::field::{Ext, F, K, LANES, P, PackedF, PackedK, centred};

/// Cells that one task handles.
const TASK: usize = 1 << 15;
/// Products that fit one sum.
const TERMS: usize = 128;
const _: () = assert!(TERMS as i128 * SMALL as i128 * (1 << 31) < 1 << 63, "sums of products fit 64 bits");

/// The low and the high limb of each coordinate of a weight.
type Limbs<const D: usize> = [[i32; 2]; D];

/// `x = limbs[0] + 2^32 limbs[1]`.
fn limbs(x: F) -> [i32; 2] {
    let x = centred(x);
    if x == (P / 2) as i64 {
        // The one element whose high limb would be 2^31; this is the same minus p.
        return [i32::MAX, i32::MIN];
    }
    let low = x as i32;
    [low, ((x - i64::from(low)) >> 32) as i32]
}

fn weight<const D: usize>(x: &K<D>) -> Limbs<D> {
    x.0.map(limbs)
}

/// `low + 2^32 high` for sums below `2^62`.
#[inline(always)]
fn join(low: i64, high: i64) -> F {
    // A multiple of p makes the sum positive; 2^64 = 2^32 - 1 modulo p.
    let x = (i128::from(low) + (i128::from(high) << 32) + (i128::from(P) << 31)) as u128;
    F::from_u64(x as u64) + F::from_u64((x >> 64) as u64 * 0xffff_ffff)
}

/// `out[j][c] = sum_p u_j[p] cells[p, c]` over rows of `channels` cells, for each `(first position, u_j)`.
pub(crate) fn over_positions<const D: usize>(cells: BlockCells, channels: usize, terms: &[(usize, &[K<D>])]) -> Vec<Vec<K<D>>> {
    let len = match cells {
        BlockCells::Small(c) => c.len(),
        BlockCells::Wide(c) => c.len(),
    };
    let rows = (TASK / channels).max(TERMS);
    let zero = || vec![vec![K::ZERO; channels]; terms.len()];
    (0..(len / channels).div_ceil(rows))
        .into_par_iter()
        .fold(zero, |mut sums, task| {
            let range = task * rows..((task + 1) * rows).min(len / channels);
            for group in range.clone().step_by(TERMS) {
                let group = group..(group + TERMS).min(range.end);
                for (sum, &(first, u)) in sums.iter_mut().zip(terms) {
                    let (from, to) = (group.start.max(first), group.end.min(first + u.len()));
                    if from < to {
                        let u = &u[from - first..to - first];
                        match cells {
                            BlockCells::Small(c) => small_positions(&c[from * channels..to * channels], channels, u, sum),
                            BlockCells::Wide(c) => wide_positions(&c[from * channels..to * channels], channels, u, sum),
                        }
                    }
                }
            }
            sums
        })
        .reduce(zero, |mut a, b| {
            for (x, y) in a.iter_mut().flatten().zip(b.into_iter().flatten()) {
                *x += y;
            }
            a
        })
}

/// At most [`TERMS`] rows.
fn small_positions<const D: usize>(cells: &[i32], channels: usize, u: &[K<D>], out: &mut [K<D>]) {
    const RUN: usize = 256;
    let mut weights = [[[0i64; TERMS]; 2]; D];
    for (i, x) in u.iter().enumerate() {
        for (d, limbs) in weight(x).into_iter().enumerate() {
            for (l, limb) in limbs.into_iter().enumerate() {
                weights[d][l][i] = limb.into();
            }
        }
    }
    for (from, out) in (0..channels).step_by(RUN).zip(out.chunks_mut(RUN)) {
        let mut sums = [[[0i64; RUN]; 2]; D];
        let row = |i: usize| &cells[i * channels + from..][..out.len()];
        for first in (0..u.len()).step_by(4) {
            // Beyond the last row the weights are 0.
            let rows = core::array::from_fn(|k| row((first + k).min(u.len() - 1)));
            for (sums, weights) in sums.as_flattened_mut().iter_mut().zip(weights.as_flattened()) {
                add_products(&mut sums[..out.len()], rows, core::array::from_fn(|k| weights[first + k]));
            }
        }
        for (i, x) in out.iter_mut().enumerate() {
            *x += Ext(core::array::from_fn(|d| join(sums[d][0][i], sums[d][1][i])));
        }
    }
}

/// `sums += sum_k weights[k] rows[k]`: four rows at a time, so that sums are loaded and stored once for four products.
#[inline]
fn add_products(sums: &mut [i64], rows: [&[i32]; 4], weights: [i64; 4]) {
    let n = sums.len();
    let [a, b, c, d] = [&rows[0][..n], &rows[1][..n], &rows[2][..n], &rows[3][..n]];
    // The low half says that the product is one of 32 by 32 bits.
    let [w, x, y, z] = weights.map(|w| i64::from(w as i32));
    for i in 0..n {
        sums[i] += i64::from(a[i]) * w + i64::from(b[i]) * x + i64::from(c[i]) * y + i64::from(d[i]) * z;
    }
}

fn wide_positions<const D: usize>(cells: &[F], channels: usize, u: &[K<D>], out: &mut [K<D>]) {
    for (row, &x) in cells.chunks_exact(channels).zip(u) {
        for (o, &c) in out.iter_mut().zip(row) {
            *o += x.scale(c);
        }
    }
}

/// `out[p] = sum_c t[c] cells[p, c]` over rows of `t.len()` cells.
pub(crate) fn over_channels<const D: usize>(cells: BlockCells, t: &[K<D>]) -> Vec<K<D>> {
    let channels = t.len();
    let rows = (TASK / channels).max(1);
    match cells {
        BlockCells::Small(cells) => {
            let planes: [[Vec<i32>; 2]; D] =
                core::array::from_fn(|d| core::array::from_fn(|l| t.iter().map(|x| limbs(x.0[d])[l]).collect()));
            let mut out = vec![K::ZERO; cells.len() / channels];
            out.par_chunks_mut(rows).zip(cells.par_chunks(rows * channels)).for_each(|(out, cells)| {
                for (x, row) in out.iter_mut().zip(cells.chunks_exact(channels)) {
                    for (k, part) in row.chunks(TERMS).enumerate() {
                        let part: [F; D] = core::array::from_fn(|d| {
                            let [low, high] = planes[d].each_ref().map(|w| dot(part, &w[k * TERMS..]));
                            join(low, high)
                        });
                        *x += Ext(part);
                    }
                }
            });
            out
        }
        BlockCells::Wide(cells) => {
            cells.par_chunks_exact(channels).with_min_len(rows).map(|row| row.iter().zip(t).map(|(&c, x)| x.scale(c)).sum()).collect()
        }
    }
}

/// The sum of at most [`TERMS`] products.
#[inline(always)]
fn dot(a: &[i32], b: &[i32]) -> i64 {
    a.iter().zip(b).map(|(&x, &y)| i64::from(x) * i64::from(y)).sum()
}

/// `out[i stride] += sum_l weights[l] column_l[i]`, the columns of `2^log_rows` cells one after another.
pub(crate) fn over_columns<const D: usize>(cells: &Cells, log_rows: usize, weights: &[K<D>], stride: usize, out: &mut [K<D>]) {
    const RUN: usize = 512;
    let rows = 1 << log_rows;
    let split: Vec<Limbs<D>> = weights.iter().map(weight).collect();
    out.par_chunks_mut(RUN * stride).enumerate().for_each(|(k, out)| {
        let n = out.len() / stride;
        for (group, split) in split.chunks(TERMS).enumerate() {
            let mut sums = [[[0i64; RUN]; 2]; D];
            let column = |l: usize| &cells.small()[((group * TERMS + l) << log_rows) + k * RUN..][..n];
            for first in (0..split.len()).step_by(4) {
                let columns = core::array::from_fn(|k| column((first + k).min(split.len() - 1)));
                for d in 0..D {
                    for l in 0..2 {
                        let weights = core::array::from_fn(|k| split.get(first + k).map_or(0, |w| w[d][l].into()));
                        add_products(&mut sums[d][l][..n], columns, weights);
                    }
                }
            }
            for (i, x) in out.iter_mut().step_by(stride).enumerate() {
                *x += Ext(core::array::from_fn(|d| join(sums[d][0][i], sums[d][1][i])));
            }
        }
    });
    for (offset, cells) in cells.wide() {
        let (mut at, mut rest) = (*offset, cells.as_slice());
        while !rest.is_empty() {
            let row = at & (rows - 1);
            let (part, tail) = rest.split_at(rest.len().min(rows - row));
            scatter(part, weights[at >> log_rows], stride, &mut out[row * stride..]);
            (at, rest) = (at + part.len(), tail);
        }
    }
}

/// `out[i stride] += w cells[i]`.
fn scatter<const D: usize>(cells: &[F], w: K<D>, stride: usize, out: &mut [K<D>]) {
    const RUN: usize = 1 << 10;
    let whole = cells.len() - cells.len() % LANES;
    let w_packed: PackedK<D> = w.broadcast();
    out.par_chunks_mut(RUN * stride).zip(cells[..whole].par_chunks(RUN)).for_each(|(out, cells)| {
        let products = PackedF::pack_slice(cells).iter().flat_map(|&c| {
            let x = w_packed.scale(c);
            (0..LANES).map(move |i| x.lane(i))
        });
        for (x, y) in out.iter_mut().step_by(stride).zip(products) {
            *x += y;
        }
    });
    for (x, &c) in out.iter_mut().step_by(stride).zip(cells).skip(whole) {
        *x += w.scale(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::from_i64;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    #[test]
    fn limbs_and_join_are_inverse_at_the_edges() {
        for x in [0, 1, P / 2 - 1, P / 2, P / 2 + 1, P - 1, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63] {
            let x = F::from_u64(x);
            let [low, high] = limbs(x);
            assert_eq!(join(low.into(), high.into()), x);
        }
        for (low, high) in [(i64::MAX / 2, i64::MAX / 2), (i64::MIN / 2, i64::MIN / 2), (-1, 0), (0, -1)] {
            assert_eq!(join(low, high), from_i64(low) + from_i64(high) * F::from_u64(1 << 32));
        }
    }

    proptest! {
        /// The extreme cells and weights included, so that a sum that did not fit would show.
        #[test]
        fn small_and_wide_kernels_agree(log_channels in 0usize..9, log_positions in 0usize..9, first in 0usize..4, extreme: bool) {
            let (channels, positions) = (1usize << log_channels, 1usize << log_positions);
            let small: Vec<i32> = (0..positions * channels)
                .map(|i| if extreme { SMALL as i32 } else { (i as i32).wrapping_mul(0x9e37_79b1u32 as i32) >> 7 })
                .collect();
            let wide: Vec<F> = small.iter().map(|&c| from_i64(c.into())).collect();
            let w = |i: usize| if extreme { Ext([F::from_u64(P / 2); 3]) } else { element::<3>(i as u64) };
            let (first, u) = (first.min(positions - 1), (0..positions - first.min(positions - 1)).map(w).collect::<Vec<_>>());
            let t: Vec<K<3>> = (0..channels).map(w).collect();
            let terms = [(first, u.as_slice()), (0, &u[..1])];
            let a = over_positions(BlockCells::Small(&small), channels, &terms);
            prop_assert_eq!(&a, &over_positions(BlockCells::Wide(&wide), channels, &terms));
            let direct: K<3> = u.iter().enumerate().map(|(p, x)| x.scale(wide[(first + p) * channels + channels - 1])).sum();
            prop_assert_eq!(a[0][channels - 1], direct);
            let b = over_channels(BlockCells::Small(&small), &t);
            prop_assert_eq!(&b, &over_channels(BlockCells::Wide(&wide), &t));
            let direct: K<3> = t.iter().zip(&wide).map(|(x, &c)| x.scale(c)).sum();
            prop_assert_eq!(b[0], direct);
        }
    }
}
