//! Fixed-point softmax: `exp` on Q5.26 and a three-step Newton reciprocal, as the runtimes execute it.
//!
//! The steps are visible because each is a committed value of the proof.

use super::quantize::{high_half, round_half_away};

/// 48/17 and -32/17 in Q2.29.
pub const NEWTON: (i64, i64) = (1515870810, -1010580540);

/// Exponentials of `d = max - x` for `d` in `[0, 255]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exponentials {
    /// `exp` in Q0.31.
    pub fine: Vec<i32>,
    /// The same rounded to Q12.19: the summands.
    pub coarse: Vec<i32>,
}

impl Exponentials {
    /// For the multiplier `M` in `[2^30, 2^31)` and the left shift, at most 31, of `beta * scale * 2^26`.
    pub fn new(multiplier: i32, shift: u8) -> Self {
        let cut = (31i64 << 26) >> shift;
        let scaled = |d: i64| high_half(-(d << shift) * i64::from(multiplier));
        let fine: Vec<i32> = (0..256).map(|d| if d > cut { 0 } else { exp(scaled(d)) as i32 }).collect();
        let coarse = fine.iter().map(|&e| round_half_away(e.into(), 12) as i32).collect();
        Exponentials { fine, coarse }
    }
}

/// `exp(a)` for `a <= 0` in Q5.26, as Q0.31.
fn exp(a: i64) -> i64 {
    const QUARTER: i64 = 1 << 24;
    const EIGHTH_EXP: i64 = 1895147668; // exp(-1/8)
    const THIRD: i64 = 715827883;
    const FACTORS: [i64; 7] = [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242]; // exp(-2^(k-2))
    if a == 0 {
        return i64::from(i32::MAX);
    }
    let part = (a & (QUARTER - 1)) - QUARTER;
    // Taylor around -1/8 on [-1/4, 0).
    let t = (part << 5) + (1 << 28);
    let t2 = high_half(t * t);
    let (t3, t4) = (high_half(t2 * t), high_half(t2 * t2));
    let tail = round_half_away(high_half((round_half_away(t4, 2) + t3) * THIRD) + t2, 1);
    let mut value = (EIGHTH_EXP + high_half((t + tail) * EIGHTH_EXP)).min(i64::from(i32::MAX));
    let rest = part - a;
    for (k, &factor) in FACTORS.iter().enumerate() {
        if rest >> (24 + k) & 1 == 1 {
            value = high_half(value * factor);
        }
    }
    value
}

/// The reciprocal of a row's sum, with every intermediate value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reciprocal {
    /// Leading zeros of the sum, 4 to 12.
    pub headroom: u32,
    /// `sum * 2^(headroom - 1)`, in `[2^30, 2^31)`.
    pub half: i64,
    /// `floor((half * NEWTON.1 + 2^30) / 2^31)`.
    pub q0: i64,
    /// Per Newton step `floor((half * x + 2^30) / 2^31)`.
    pub h: [i64; 3],
    /// Per Newton step `floor((x (2^29 - h) + 2^30) / 2^31)`; then `x += 4 k`.
    pub k: [i64; 3],
    /// Whether the last doubling saturates: `x = 2^30`.
    pub saturates: bool,
    /// `2 x`, saturated to `2^31 - 1`.
    pub scale: i64,
}

impl Reciprocal {
    /// `None` where the runtimes are undefined: a sum of 512 (`2^28`) or more, or below 1 (`2^19`), which no row has.
    pub fn new(sum: i64) -> Option<Self> {
        if !(1 << 19..1 << 28).contains(&sum) {
            return None;
        }
        let headroom = (sum as u32).leading_zeros();
        let half = sum << (headroom - 1);
        let q0 = high_half(half * NEWTON.1);
        let (mut x, mut h, mut k) = (NEWTON.0 + q0, [0; 3], [0; 3]);
        for i in 0..3 {
            h[i] = high_half(half * x);
            k[i] = high_half(x * ((1 << 29) - h[i]));
            x += 4 * k[i];
        }
        let saturates = x == 1 << 30;
        Some(Reciprocal { headroom, half, q0, h, k, saturates, scale: 2 * x - i64::from(saturates) })
    }

    /// `2^(E-1)` with `E = 35 - headroom`: the shift of the last rounding, halved.
    pub fn half_unit(&self) -> i64 {
        1 << (34 - self.headroom)
    }

    /// The output of an element whose exponential is `fine`: `[0, 256]`, above the output's zero point.
    pub fn output(&self, fine: i64) -> i64 {
        (high_half(fine * self.scale) + self.half_unit()) / (2 * self.half_unit())
    }
}

/// Softmax of one row. `low` is the smallest value of the dtype, and the output's zero point. `None` where it is undefined.
pub fn row(exp: &Exponentials, x: &[i16], low: i16, out: &mut [i16]) -> Option<()> {
    let max = *x.iter().max()?;
    let distance = |x: i16| (max - x) as usize;
    let sum: i64 = x.iter().map(|&x| i64::from(exp.coarse[distance(x)])).sum();
    let reciprocal = Reciprocal::new(sum)?;
    for (y, &x) in out.iter_mut().zip(x) {
        *y = (i64::from(low) + reciprocal.output(exp.fine[distance(x)].into())).min(i64::from(low) + 255) as i16;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `0.18 * 2^26` as a multiplier and left shift.
    const SCALE_018: (i32, u8) = (1546188227, 24);

    #[test]
    fn known_exponentials() {
        let e = Exponentials::new(SCALE_018.0, SCALE_018.1);
        for (d, fine, coarse) in
            [(0, 2147483647, 524288), (1, 1793729116, 437922), (10, 354976654, 86664), (50, 265021, 65), (100, 33, 0), (172, 0, 0)]
        {
            assert_eq!((e.fine[d], e.coarse[d]), (fine, coarse), "{d}");
        }
    }

    #[test]
    fn undefined_sums() {
        assert!(Reciprocal::new((1 << 28) - 1).is_some());
        assert!(Reciprocal::new(1 << 28).is_none());
        let e = Exponentials::new(1 << 30, 0);
        let mut out = vec![0; 512];
        assert!(row(&e, &[5; 511], -128, &mut out[..511]).is_some());
        assert_eq!(row(&e, &[5; 512], -128, &mut out), None);
    }

    #[test]
    fn only_a_sum_of_one_saturates() {
        let r = Reciprocal::new(1 << 19).unwrap();
        assert!(r.scale == i64::from(i32::MAX) || !r.saturates);
    }

    proptest! {
        #[test]
        fn close_to_the_real_function(x in prop::collection::vec(-128i16..128, 1..40)) {
            let e = Exponentials::new(SCALE_018.0, SCALE_018.1);
            let mut y = vec![0; x.len()];
            row(&e, &x, -128, &mut y).unwrap();
            let max = f64::from(*x.iter().max().unwrap());
            let exps: Vec<f64> = x.iter().map(|&x| ((f64::from(x) - max) * 0.18).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (y, e) in y.iter().zip(exps) {
                prop_assert!((f64::from(*y) - (e / sum * 256.0 - 128.0).min(127.0)).abs() < 1.01);
            }
        }

        #[test]
        fn ranges_of_the_steps(sum in 1i64 << 19..1 << 28) {
            let r = Reciprocal::new(sum).unwrap();
            prop_assert!((4..=12).contains(&r.headroom) && (1 << 30..1 << 31).contains(&r.half));
            prop_assert!(r.q0.abs() < 1 << 30 && r.h.iter().all(|h| (-(1 << 30)..1 << 30).contains(h)));
            prop_assert!(r.k.iter().all(|k| k.abs() < 1 << 24) && (0..1 << 31).contains(&r.scale));
            prop_assert!((0..=256).contains(&r.output(i32::MAX.into())));
        }
    }
}
