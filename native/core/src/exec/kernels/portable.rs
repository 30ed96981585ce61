//! The kernels in plain Rust. `x86` inlines them into functions compiled for wider vectors.

use super::{DoubleRounding, LANES, Panels, Taps};

/// See [`Panels::multiply`].
#[inline(always)]
pub(super) fn multiply(p: &Panels, rows: &[i16], acc: &mut [i32]) {
    for (row, acc) in rows.chunks_exact(p.depth()).zip(acc.chunks_exact_mut(p.channels)) {
        let panels = p.data.chunks_exact(p.pairs * 2 * LANES).zip(p.bias.chunks_exact(LANES));
        for ((panel, bias), acc) in panels.zip(acc.chunks_mut(LANES)) {
            let mut sum = [0; LANES];
            sum.copy_from_slice(bias);
            for (x, w) in row.chunks_exact(2).zip(panel.chunks_exact(2 * LANES)) {
                let (x0, x1) = (i32::from(x[0]), i32::from(x[1]));
                for (sum, w) in sum.iter_mut().zip(w.chunks_exact(2)) {
                    *sum = sum.wrapping_add(x0 * i32::from(w[0]) + x1 * i32::from(w[1]));
                }
            }
            acc.copy_from_slice(&sum[..acc.len()]);
        }
    }
}

/// See [`Taps::accumulate`].
#[inline(always)]
pub(super) fn accumulate(t: &Taps, rows: &[&[i16]], acc: &mut [i32]) {
    acc.copy_from_slice(&t.bias);
    for (pair, weights) in rows.chunks_exact(2).zip(t.data.chunks_exact(2 * t.channels)) {
        for (((acc, x0), x1), w) in acc.iter_mut().zip(pair[0]).zip(pair[1]).zip(weights.chunks_exact(2)) {
            *acc = acc.wrapping_add(i32::from(*x0) * i32::from(w[0]) + i32::from(*x1) * i32::from(w[1]));
        }
    }
}

/// See [`DoubleRounding::rows`].
#[inline(always)]
pub(super) fn double_rounding(d: &DoubleRounding, acc: &[i32], out: &mut [i16]) {
    let channels = d.m.len();
    for (acc, out) in acc.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let parameters = d.m.iter().zip(&d.left).zip(d.right.iter().zip(&d.rounds));
        for ((y, &acc), ((&m, &left), (&right, &rounds))) in out.iter_mut().zip(acc).zip(parameters) {
            let h = ((i64::from(acc << left) * i64::from(m) + (1 << 30)) >> 31) as i32;
            // floor((floor(h' / 2^(e-1)) + 1) / 2) with h' = h - [h < 0]: half away from zero, without overflow. |h| < 2^31 - 1.
            let rounded = (((h + (h >> 31)) >> right) + 1) >> 1;
            let v = (rounded & rounds) | (h & !rounds);
            *y = (v.clamp(d.low, d.high) + d.zero) as i16;
        }
    }
}
