//! Requantisation: the integer formulas by which the named runtimes take an accumulator to a value.
//!
//! A *multiplier* is `(M, e)` with `M` in `[2^30, 2^31)` (or `(0, 0)` after underflow) and stands for the real number `M 2^-(31+e)`;
//! a negative `e` is a left shift of the accumulator. A mean folds `1/N` into `M`, which may then be smaller. All functions are exact; none rounds through a float.

use super::{DType, Formula};

/// `(M, e)`: the real multiplier `M 2^-(31+e)`.
pub type Multiplier = (i32, i8);

/// Smallest and largest supported exponent: the runtimes shift an `int32` by at most this much.
pub const EXPONENTS: (i8, i8) = (-30, 31);

/// Whether `(m, e)` is the multiplier of a mean: `1/N` is folded into a normalised one.
pub fn is_mean_multiplier((m, e): Multiplier) -> bool {
    is_multiplier((m, e)) || (m >= 1 && e >= EXPONENTS.0 && e <= EXPONENTS.1)
}

/// Inputs of ADD and SUB are shifted left by this before they are rescaled.
pub const ADD_SHIFT: u32 = 20;

/// Whether `(m, e)` is a normalised multiplier with a supported exponent, or zero.
pub fn is_multiplier((m, e): Multiplier) -> bool {
    (m, e) == (0, 0) || (m >= 1 << 30 && e >= EXPONENTS.0 && e <= EXPONENTS.1)
}

/// `n / 2^k`, to the nearest, halves away from zero.
pub fn round_half_away(n: i64, k: u32) -> i64 {
    if k == 0 {
        return n;
    }
    // Below zero the half rounds down: ceil((n - half) / 2^k) = floor((n + half - 1) / 2^k).
    (n + (1 << (k - 1)) - i64::from(n < 0)) >> k
}

/// Rounding doubling high multiplication: `floor((n + 2^30) / 2^31)` of a product `n`.
pub fn high_half(n: i64) -> i64 {
    (n + (1 << 30)) >> 31
}

/// `round_half_away(floor((acc 2^max(-e,0) M + 2^30) / 2^31) / 2^max(e,0))`; needs `|acc| 2^max(-e,0) <= 2^31`.
pub fn requant(acc: i64, (m, e): Multiplier) -> i64 {
    round_half_away(high_half((acc << (-e).max(0)) * i64::from(m)), e.max(0) as u32)
}

/// `floor((acc M + 2^(30+e)) / 2^(31+e))`; needs `|acc| <= 2^31`.
pub fn requant_once(acc: i64, (m, e): Multiplier) -> i64 {
    ((i128::from(acc) * i128::from(m) + (1 << (30 + e))) >> (31 + e)) as i64
}

/// `(s + n/2) / n` for positive `s`, else `(s - n/2) / n`, truncating.
pub fn average(s: i64, n: i64) -> i64 {
    if s > 0 { (s + n / 2) / n } else { (s - n / 2) / n }
}

/// One channel's formula: a non-decreasing staircase from accumulators to values, before zero point and clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staircase {
    /// [`requant`]
    Double(Multiplier),
    /// [`requant_once`]
    Single(Multiplier),
    /// [`average`] over this many cells.
    Average(i64),
}

impl Staircase {
    /// The value at an accumulator inside [`Staircase::domain`].
    pub fn value(self, acc: i64) -> i64 {
        match self {
            Staircase::Double(m) => requant(acc, m),
            Staircase::Single(m) => requant_once(acc, m),
            Staircase::Average(n) => average(acc, n),
        }
    }

    /// Exclusive bound on `|acc|`: beyond it the runtime's own `int32` arithmetic overflows.
    pub fn domain(self) -> i64 {
        match self {
            Staircase::Double((_, e)) | Staircase::Single((_, e)) => 1 << (31 - i32::from((-e).max(0))),
            Staircase::Average(_) => 1 << 31,
        }
    }

    /// All accumulators that overflow nothing.
    pub fn whole_domain(self) -> (i64, i64) {
        (1 - self.domain(), self.domain() - 1)
    }

    /// Whether every accumulator has the same value.
    pub fn is_constant(self) -> bool {
        matches!(self, Staircase::Double((0, _)) | Staircase::Single((0, _)))
    }

    /// The smallest integer `acc`, of any size, whose value is at least `v`. Needs a staircase that is not constant and `|v| < 2^30`.
    pub fn threshold(self, v: i64) -> i64 {
        match self {
            Staircase::Double((m, e)) => {
                // round_half_away(h / 2^e) >= v  <=>  h >= rise
                let rise = if e <= 0 { v } else { (v << e) - (1 << (e - 1)) + i64::from(v <= 0) };
                let step = i64::from(m) << (-e).max(0);
                ceil_shifted(rise, -(1 << 30), step)
            }
            Staircase::Single((m, e)) if e >= 0 => ceil_shifted(v << e, -(1 << (30 + e)), i64::from(m)),
            Staircase::Single((m, e)) => {
                let (unit, half) = (1i64 << (31 + e), 1i64 << (30 + e));
                -(-(v * unit - half)).div_euclid(i64::from(m))
            }
            Staircase::Average(n) if v > 0 => v * n - n / 2,
            Staircase::Average(n) => (v - 1) * n + n / 2 + 1,
        }
    }
}

/// `ceil((rise 2^31 + offset) / step)`, in 64 bits where that fits.
fn ceil_shifted(rise: i64, offset: i64, step: i64) -> i64 {
    if rise.unsigned_abs() < 1 << 31 {
        -(-((rise << 31) + offset)).div_euclid(step)
    } else {
        -(-((i128::from(rise) << 31) + i128::from(offset))).div_euclid(i128::from(step)) as i64
    }
}

/// ADD or SUB of two tensors: both inputs shifted left, rescaled, added, rescaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Multiplier of the first input.
    pub first: Multiplier,
    /// Multiplier of the second input.
    pub second: Multiplier,
    /// Multiplier of the sum.
    pub output: Multiplier,
    /// Zero points of the inputs.
    pub zeros: (i32, i32),
    /// SUB instead of ADD.
    pub subtract: bool,
}

impl Addition {
    /// The [`Formula::Add`] as a value, if it is one.
    pub fn of(formula: &Formula) -> Option<Self> {
        match *formula {
            Formula::Add { first, second, output, zeros, subtract } => Some(Addition { first, second, output, zeros, subtract }),
            _ => None,
        }
    }

    /// As data of a program.
    pub fn formula(self) -> Formula {
        Formula::Add { first: self.first, second: self.second, output: self.output, zeros: self.zeros, subtract: self.subtract }
    }

    /// The runtimes rescale by multipliers below 1: no left shift anywhere.
    pub fn is_valid(&self) -> bool {
        [self.first, self.second, self.output].into_iter().all(|m| is_multiplier(m) && m.1 >= 0)
    }

    /// Both inputs' rescaled values for all 256 elements from `dtype`'s smallest, the second negated for SUB.
    pub fn sides(&self, dtypes: (DType, DType)) -> (Vec<i64>, Vec<i64>) {
        let side = |dtype: DType, zero: i32, m: Multiplier, sign: i64| {
            let (low, high) = dtype.range();
            (low..=high).map(|x| sign * requant(i64::from(x - zero) << ADD_SHIFT, m)).collect()
        };
        let sign = if self.subtract { -1 } else { 1 };
        (side(dtypes.0, self.zeros.0, self.first, 1), side(dtypes.1, self.zeros.1, self.second, sign))
    }

    /// All 65,536 outputs, first input major, with zero point and clamp.
    pub fn table(&self, dtypes: (DType, DType), zero: i32, clamp: (i32, i32)) -> Vec<i16> {
        let (left, right) = self.sides(dtypes);
        let output = |s: i64| (requant(s, self.output) + i64::from(zero)).clamp(clamp.0.into(), clamp.1.into()) as i16;
        left.iter().flat_map(|&l| right.iter().map(move |&r| output(l + r))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The runtimes' own operations, written as they write them.
    mod runtime {
        pub fn doubling_high_mul(a: i32, b: i32) -> i32 {
            let ab = i64::from(a) * i64::from(b);
            let nudge = if ab >= 0 { 1 << 30 } else { 1 - (1 << 30) };
            ((ab + nudge) / (1i64 << 31)) as i32
        }

        pub fn divide_by_pot(x: i32, exponent: i32) -> i32 {
            let mask = ((1i64 << exponent) - 1) as i32;
            let remainder = x & mask;
            let threshold = (mask >> 1) + i32::from(x < 0);
            (x >> exponent) + i32::from(remainder > threshold)
        }

        pub fn multiply(acc: i32, m: i32, e: i8) -> i32 {
            divide_by_pot(doubling_high_mul(acc << (-e).max(0), m), i32::from(e.max(0)))
        }
    }

    #[test]
    fn known_values() {
        let values = |accs: &[i64], m| accs.iter().map(|&a| requant(a, m)).collect::<Vec<_>>();
        assert_eq!(values(&[-5000, -41, 0, 40, 41, 99999], (1690499128, 6)), [-62, -1, 0, 0, 1, 1230]);
        assert_eq!(values(&[-3, -1, 0, 1, 2], (1879048192, -1)), [-5, -2, 0, 2, 4]);
        assert_eq!(values(&[-768, -256, 256, 768], (1 << 30, 8)), [-2, -1, 1, 2]);
    }

    fn multiplier() -> impl Strategy<Value = Multiplier> {
        (prop_oneof![Just(1 << 30), Just(i32::MAX), (1 << 30)..=i32::MAX, (1 << 20)..1 << 30], EXPONENTS.0..=EXPONENTS.1)
    }

    fn normalised() -> impl Strategy<Value = Multiplier> {
        multiplier().prop_map(|(m, e)| (m | 1 << 30, e))
    }

    fn staircase() -> impl Strategy<Value = Staircase> {
        prop_oneof![
            multiplier().prop_map(Staircase::Double),
            multiplier().prop_map(Staircase::Single),
            (1i64..5000).prop_map(Staircase::Average)
        ]
    }

    proptest! {
        #[test]
        fn requant_is_the_runtimes((m, e) in multiplier(), acc: i32) {
            let acc = acc >> (-e).max(0);
            prop_assert_eq!(requant(acc.into(), (m, e)), i64::from(runtime::multiply(acc, m, e)));
        }

        #[test]
        fn thresholds_are_where_the_value_rises(s in staircase(), v in -300i64..300) {
            let t = s.threshold(v);
            if t.abs() < s.domain() - 1 {
                prop_assert!(s.value(t) >= v);
                prop_assert!(s.value(t - 1) < v);
            }
        }

        #[test]
        fn large_and_small_paths_agree(rise in -(1i64 << 31) + 1..1 << 31, step in 1i64 << 30..1 << 61) {
            let wide = -(-((i128::from(rise) << 31) - (1 << 30))).div_euclid(i128::from(step));
            prop_assert_eq!(i128::from(ceil_shifted(rise, -(1 << 30), step)), wide);
        }

        #[test]
        fn addition_table_is_the_runtimes(a in normalised(), b in normalised(), o in normalised(), zeros in (-128i32..128, -128i32..128),
                                          x1 in -128i32..128, x2 in -128i32..128, subtract: bool) {
            let add = Addition { first: (a.0, a.1.abs()), second: (b.0, b.1.abs()), output: (o.0, o.1.abs()), zeros, subtract };
            let table = add.table((DType::Int8, DType::Int8), 3, (-100, 120));
            let l = runtime::multiply((x1 - zeros.0) << 20, add.first.0, add.first.1);
            let r = runtime::multiply((x2 - zeros.1) << 20, add.second.0, add.second.1);
            let s = if subtract { l - r } else { l + r };
            let want = (runtime::multiply(s, add.output.0, add.output.1).saturating_add(3)).clamp(-100, 120);
            prop_assert_eq!(i32::from(table[((x1 + 128) * 256 + x2 + 128) as usize]), want);
        }
    }
}
