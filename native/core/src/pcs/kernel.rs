//! The three passes over all cells: contraction with a vector over positions, over channels, and over columns.

use p3_field::PackedValue;
use rayon::prelude::*;

use crate::field::{F, K, LANES, PackedF, PackedK};

/// Cells that one task handles.
const TASK: usize = 1 << 15;

/// `out[c] = sum_p u[p] cells[p, c]` over rows of `channels` cells.
pub(crate) fn over_positions<const D: usize>(cells: &[F], channels: usize, u: &[K<D>]) -> Vec<K<D>> {
    let rows = (TASK / channels).max(1);
    let add = |mut a: Vec<K<D>>, b: Vec<K<D>>| {
        for (x, y) in a.iter_mut().zip(b) {
            *x += y;
        }
        a
    };
    cells
        .par_chunks(rows * channels)
        .zip(u.par_chunks(rows))
        .map(|(cells, u)| over_few_positions(cells, channels, u))
        .reduce(|| vec![K::ZERO; channels], add)
}

fn over_few_positions<const D: usize>(cells: &[F], channels: usize, u: &[K<D>]) -> Vec<K<D>> {
    if channels < LANES {
        let mut out = vec![K::ZERO; channels];
        for (row, &x) in cells.chunks_exact(channels).zip(u) {
            for (o, &c) in out.iter_mut().zip(row) {
                *o += x.scale(c);
            }
        }
        return out;
    }
    let mut sums = vec![PackedK::<D>::ZERO; channels / LANES];
    for (row, &x) in cells.chunks_exact(channels).zip(u) {
        let x = x.broadcast();
        for (s, &c) in sums.iter_mut().zip(PackedF::pack_slice(row)) {
            *s += x.scale(c);
        }
    }
    sums.iter().flat_map(|s| (0..LANES).map(|i| s.lane(i))).collect()
}

/// `out[p] = sum_c t[c] cells[p, c]` over rows of `t.len()` cells.
pub(crate) fn over_channels<const D: usize>(cells: &[F], t: &[K<D>]) -> Vec<K<D>> {
    let channels = t.len();
    let packed: Vec<PackedK<D>> = t.chunks_exact(LANES).map(|c| PackedK::from_lanes(|i| c[i])).collect();
    let mut out = vec![K::ZERO; cells.len() / channels];
    let rows = (TASK / channels).max(1);
    out.par_chunks_mut(rows).zip(cells.par_chunks(rows * channels)).for_each(|(out, cells)| {
        for (o, row) in out.iter_mut().zip(cells.chunks_exact(channels)) {
            *o = if channels < LANES {
                row.iter().zip(t).map(|(&c, x)| x.scale(c)).sum()
            } else {
                PackedF::pack_slice(row).iter().zip(&packed).fold(PackedK::ZERO, |s, (&c, x)| s + x.scale(c)).sum_lanes()
            };
        }
    });
    out
}

/// `out[i stride] += sum_l weights[l] columns[l][i]`, the columns of `rows` cells one after another.
pub(crate) fn over_columns<const D: usize>(cells: &[F], rows: usize, weights: &[K<D>], stride: usize, out: &mut [K<D>]) {
    const RUN: usize = 512;
    out.par_chunks_mut(RUN * stride).enumerate().for_each(|(k, out)| {
        let n = out.len() / stride;
        if n.is_multiple_of(LANES) {
            let mut sums = [PackedK::<D>::ZERO; RUN / LANES];
            for (column, w) in cells.chunks_exact(rows).zip(weights) {
                let w = w.broadcast();
                for (s, &c) in sums.iter_mut().zip(PackedF::pack_slice(&column[k * RUN..][..n])) {
                    *s += w.scale(c);
                }
            }
            let sums = sums.iter().flat_map(|s| (0..LANES).map(|i| s.lane(i)));
            for (x, y) in out.iter_mut().step_by(stride).zip(sums) {
                *x += y;
            }
        } else {
            for (column, w) in cells.chunks_exact(rows).zip(weights) {
                for (x, &c) in out.iter_mut().step_by(stride).zip(&column[k * RUN..]) {
                    *x += w.scale(c);
                }
            }
        }
    });
}
