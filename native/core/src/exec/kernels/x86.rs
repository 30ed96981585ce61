//! AVX2 and AVX-512 kernels, chosen at run time.
//!
//! # Safety
//!
//! Two kinds of unsafe code, and no other:
//! - a call of a function compiled for CPU features, right after these features were detected;
//! - loads and stores through pointers, in ranges that the callers in `super` have asserted; each block says which.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{DoubleRounding, LANES, Level, Panels, Taps, WIDE, portable};

/// Whether this machine has the instructions.
pub(super) fn is_available(level: Level) -> bool {
    match level {
        Level::Portable => true,
        Level::Avx2 => is_x86_feature_detected!("avx2"),
        Level::Avx512 => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
    }
}

/// See [`Panels::multiply`], whose assertion it relies on. `false`: not on this machine.
pub(super) fn multiply(level: Level, p: &Panels, rows: &[i16], acc: &mut [i32]) -> bool {
    match level {
        // SAFETY: the features were detected.
        Level::Avx512 if is_available(level) => unsafe { multiply_avx512(p, rows, acc) },
        // SAFETY: as above.
        Level::Avx2 if is_available(level) => unsafe { multiply_avx2(p, rows, acc) },
        _ => return false,
    }
    true
}

/// See [`Taps::accumulate`], whose assertion it relies on. `false`: not on this machine.
pub(super) fn accumulate(level: Level, t: &Taps, rows: &[&[i16]], acc: &mut [i32]) -> bool {
    match level {
        // SAFETY: the features were detected.
        Level::Avx512 if is_available(level) => unsafe { accumulate_avx512(t, rows, acc) },
        // SAFETY: as above.
        Level::Avx2 if is_available(level) => unsafe { accumulate_avx2(t, rows, acc) },
        _ => return false,
    }
    true
}

/// See [`DoubleRounding::rows`]. `false`: not on this machine.
pub(super) fn double_rounding(level: Level, d: &DoubleRounding, acc: &[i32], out: &mut [i16]) -> bool {
    match level {
        // SAFETY: the features were detected.
        Level::Avx512 if is_available(level) => unsafe { double_rounding_avx512(d, acc, out) },
        // SAFETY: as above.
        Level::Avx2 if is_available(level) => unsafe { double_rounding_avx2(d, acc, out) },
        _ => return false,
    }
    true
}

#[target_feature(enable = "avx2")]
fn accumulate_avx2(t: &Taps, rows: &[&[i16]], acc: &mut [i32]) {
    portable::accumulate(t, rows, acc);
}

#[target_feature(enable = "avx2")]
fn double_rounding_avx2(d: &DoubleRounding, acc: &[i32], out: &mut [i16]) {
    portable::double_rounding(d, acc, out);
}

/// Where a block of a matrix product reads and writes.
#[derive(Clone, Copy)]
struct Block<'a> {
    p: &'a Panels,
    /// First row of the block in `rows`.
    rows: *const i16,
    /// First row of the block in `acc`.
    acc: *mut i32,
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn multiply_avx512(p: &Panels, rows: &[i16], acc: &mut [i32]) {
    let (n, panels) = (acc.len() / p.channels, p.channels.div_ceil(LANES));
    let block = Block { p, rows: rows.as_ptr(), acc: acc.as_mut_ptr() };
    for panel in (0..panels).step_by(4) {
        // 32 registers: accumulators, one weight vector for each panel, one broadcast.
        // SAFETY: rows and panels are below `n` and `panels`; `super` asserted the sizes of `rows` and `acc`.
        unsafe {
            match panels - panel {
                1 => strip::<16, 1>(block, n, panel),
                2 => strip::<12, 2>(block, n, panel),
                3 => strip::<8, 3>(block, n, panel),
                _ => strip::<6, 4>(block, n, panel),
            }
        }
    }
}

/// All rows against `P` panels, `R` rows at a time.
///
/// # Safety
/// `rows` holds `n` rows of the panels' depth, `acc` `n` rows of their channels, and the panels exist.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn strip<const R: usize, const P: usize>(block: Block, n: usize, panel: usize) {
    let mut row = 0;
    // SAFETY: each call covers rows below `n`.
    unsafe {
        while n - row >= R {
            dot::<R, P>(block, row, panel);
            row += R;
        }
        while n - row >= 4 {
            dot::<4, P>(block, row, panel);
            row += 4;
        }
        while row < n {
            dot::<1, P>(block, row, panel);
            row += 1;
        }
    }
}

/// `R` rows against `P` panels, accumulators in registers.
///
/// # Safety
/// As [`strip`], for rows `row..row + R` and panels `panel..panel + P`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn dot<const R: usize, const P: usize>(Block { p, rows, acc }: Block, row: usize, panel: usize) {
    let depth = p.depth();
    // SAFETY: the biases and weights of each panel are 16 and `depth * 16` values; `row + r` is a row of both arrays; the last panel is
    // stored under a mask of its channels.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); P]; R];
        for q in 0..P {
            let bias = _mm512_loadu_si512(p.bias.as_ptr().add((panel + q) * LANES).cast());
            for sum in &mut sums {
                sum[q] = bias;
            }
        }
        let x = rows.add(row * depth);
        let w = p.data.as_ptr().add(panel * depth * LANES);
        for pair in 0..p.pairs {
            let weights: [__m512i; P] = core::array::from_fn(|q| _mm512_loadu_si512(w.add((q * p.pairs + pair) * 2 * LANES).cast()));
            for r in 0..R {
                let both = _mm512_set1_epi32(x.add(r * depth + 2 * pair).cast::<i32>().read_unaligned());
                for q in 0..P {
                    sums[r][q] = _mm512_dpwssd_epi32(sums[r][q], both, weights[q]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (q, &sum) in sums.iter().enumerate() {
                let first = (panel + q) * LANES;
                let mask = ((1u32 << (p.channels - first).min(LANES)) - 1) as u16;
                _mm512_mask_storeu_epi32(acc.add((row + r) * p.channels + first), mask, sum);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn multiply_avx2(p: &Panels, rows: &[i16], acc: &mut [i32]) {
    let n = acc.len() / p.channels;
    let block = Block { p, rows: rows.as_ptr(), acc: acc.as_mut_ptr() };
    for panel in 0..p.channels.div_ceil(LANES) {
        let mut row = 0;
        // SAFETY: each call covers rows below `n`; `super` asserted the sizes of `rows` and `acc`.
        unsafe {
            while n - row >= 4 {
                dot_avx2::<4>(block, row, panel);
                row += 4;
            }
            while row < n {
                dot_avx2::<1>(block, row, panel);
                row += 1;
            }
        }
    }
}

/// `R` rows against one panel.
///
/// # Safety
/// As [`dot`].
#[target_feature(enable = "avx2")]
unsafe fn dot_avx2<const R: usize>(Block { p, rows, acc }: Block, row: usize, panel: usize) {
    let depth = p.depth();
    // SAFETY: as in `dot`; sums go through an array of 16 and only the panel's channels are copied.
    unsafe {
        let bias = p.bias.as_ptr().add(panel * LANES).cast::<__m256i>();
        let bias = [_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))];
        let mut sums = [bias; R];
        let x = rows.add(row * depth);
        let w = p.data.as_ptr().add(panel * depth * LANES).cast::<__m256i>();
        for pair in 0..p.pairs {
            let weights = [_mm256_loadu_si256(w.add(2 * pair)), _mm256_loadu_si256(w.add(2 * pair + 1))];
            for (r, sum) in sums.iter_mut().enumerate() {
                let both = _mm256_set1_epi32(x.add(r * depth + 2 * pair).cast::<i32>().read_unaligned());
                sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(both, weights[0]));
                sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(both, weights[1]));
            }
        }
        let first = panel * LANES;
        for (r, sum) in sums.iter().enumerate() {
            let mut lanes = [0i32; LANES];
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum[0]);
            _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), sum[1]);
            let count = (p.channels - first).min(LANES);
            acc.add((row + r) * p.channels + first).copy_from_nonoverlapping(lanes.as_ptr(), count);
        }
    }
}

/// Pairs of taps, 32 channels at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn accumulate_avx512(t: &Taps, rows: &[&[i16]], acc: &mut [i32]) {
    // Undo the order of `Taps::wide`.
    let low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    let high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    let pairs = rows.len() / 2;
    for first in (0..t.channels).step_by(WIDE) {
        let mask = u32::MAX >> (WIDE - (t.channels - first).min(WIDE));
        // SAFETY: `super` asserted that rows and `acc` have all channels, and biases do; loads and stores are masked to the channels.
        // A block of `wide` is `pairs * 64` values.
        unsafe {
            let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            let mut w = t.wide.as_ptr().add(first * 2 * pairs);
            for pair in rows.chunks_exact(2) {
                let x0 = _mm512_maskz_loadu_epi16(mask, pair[0].as_ptr().add(first));
                let x1 = _mm512_maskz_loadu_epi16(mask, pair[1].as_ptr().add(first));
                even = _mm512_dpwssd_epi32(even, _mm512_unpacklo_epi16(x0, x1), _mm512_loadu_si512(w.cast()));
                odd = _mm512_dpwssd_epi32(odd, _mm512_unpackhi_epi16(x0, x1), _mm512_loadu_si512(w.add(WIDE).cast()));
                w = w.add(2 * WIDE);
            }
            let (bias, out) = (t.bias.as_ptr().add(first), acc.as_mut_ptr().add(first));
            let (m0, m1) = (mask as u16, (mask >> 16) as u16);
            let s0 = _mm512_add_epi32(_mm512_maskz_loadu_epi32(m0, bias), _mm512_permutex2var_epi32(even, low, odd));
            _mm512_mask_storeu_epi32(out, m0, s0);
            if m1 != 0 {
                let s1 = _mm512_add_epi32(_mm512_maskz_loadu_epi32(m1, bias.add(16)), _mm512_permutex2var_epi32(even, high, odd));
                _mm512_mask_storeu_epi32(out.add(16), m1, s1);
            }
        }
    }
}

/// 16 channels at a time, their parameters in registers for all rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn double_rounding_avx512(d: &DoubleRounding, acc: &[i32], out: &mut [i16]) {
    let channels = d.m.len();
    let rows = acc.len() / channels;
    let half = _mm512_set1_epi64(1 << 30);
    let (low, high, zero) = (_mm512_set1_epi32(d.low), _mm512_set1_epi32(d.high), _mm512_set1_epi32(d.zero));
    for first in (0..channels).step_by(LANES) {
        let mask = u16::MAX >> (LANES - (channels - first).min(LANES));
        // SAFETY: parameters are `channels` long and `super` asserted that `acc` and `out` are `rows * channels`; loads and stores are
        // masked to the channels.
        unsafe {
            let m = _mm512_maskz_loadu_epi32(mask, d.m.as_ptr().add(first));
            let m_odd = _mm512_srli_epi64(m, 32);
            let left = _mm512_maskz_loadu_epi32(mask, d.left.as_ptr().add(first).cast());
            let right = _mm512_maskz_loadu_epi32(mask, d.right.as_ptr().add(first).cast());
            let rounds = _mm512_movepi32_mask(_mm512_maskz_loadu_epi32(mask, d.rounds.as_ptr().add(first)));
            for row in 0..rows {
                let at = row * channels + first;
                let a = _mm512_sllv_epi32(_mm512_maskz_loadu_epi32(mask, acc.as_ptr().add(at)), left);
                let even = _mm512_add_epi64(_mm512_mul_epi32(a, m), half);
                let odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(a, 32), m_odd), half);
                let h = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 31), _mm512_slli_epi64(odd, 1));
                let shifted = _mm512_srav_epi32(_mm512_add_epi32(h, _mm512_srai_epi32(h, 31)), right);
                let rounded = _mm512_srai_epi32(_mm512_add_epi32(shifted, _mm512_set1_epi32(1)), 1);
                let v = _mm512_mask_blend_epi32(rounds, h, rounded);
                let y = _mm512_add_epi32(_mm512_min_epi32(_mm512_max_epi32(v, low), high), zero);
                _mm256_mask_storeu_epi16(out.as_mut_ptr().add(at), mask, _mm512_cvtepi32_epi16(y));
            }
        }
    }
}
