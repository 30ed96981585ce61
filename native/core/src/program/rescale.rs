//! Rescales: from accumulators to tensors.

use super::{AccId, TensorId};

/// The runtime's formula from accumulator to value, before zero point and clamp. One `(multiplier, exponent)` for each channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    /// `round_half_away(floor((acc 2^max(-e,0) M + 2^30) / 2^31) / 2^max(e,0))`.
    DoubleRounding(Vec<(i32, i8)>),
    /// `floor((acc M + 2^(30+e)) / 2^(31+e))`.
    SingleRounding(Vec<(i32, i8)>),
    /// `(s + n/2) / n` for positive `s`, else `(s - n/2) / n`, truncating; `n` is the number of valid cells at the position.
    AveragePool,
    /// TFLite ADD / SUB of two int8 tensors: both shifted left by 20, rescaled, added, rescaled. Multipliers of input 1, input 2 (negated
    /// for SUB by `subtract`) and output; zero points of the inputs.
    Add {
        /// `(M, e)` of the first input.
        first: (i32, i8),
        /// `(M, e)` of the second input.
        second: (i32, i8),
        /// `(M, e)` of the sum.
        output: (i32, i8),
        /// Zero points of the inputs.
        zeros: (i32, i32),
        /// SUB instead of ADD.
        subtract: bool,
    },
}

/// `v' = floor((acc a + b) / d)` with `b = b_pos` where `v' - zero >= 1` and `b_neg` where `v' - zero <= 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Slope numerator, positive.
    pub a: i64,
    /// Offset for values above the zero point.
    pub b_pos: i64,
    /// Offset for values at or below the zero point.
    pub b_neg: i64,
    /// Slope denominator, positive.
    pub d: i64,
}

impl Line {
    /// Whether the two offsets differ.
    pub fn two_offsets(&self) -> bool {
        self.b_pos != self.b_neg
    }

    /// The value before the clamp.
    pub fn value(&self, acc: i64, zero: i64) -> i64 {
        let v = (acc * self.a + self.b_pos).div_euclid(self.d);
        if !self.two_offsets() || v > zero { v } else { (acc * self.a + self.b_neg).div_euclid(self.d).min(zero) }
    }
}

/// What one channel (or one position, for average pools with ragged borders) of a rescale does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Only one output is reachable.
    Constant(i32),
    /// An exact digital line for every accumulator in `[low, high]`.
    Line {
        /// Smallest reachable accumulator.
        low: i64,
        /// Largest reachable accumulator.
        high: i64,
        /// The line.
        line: Line,
    },
}

/// `y = clamp(value(acc) + zero, low, high)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescale {
    /// Input.
    pub acc: AccId,
    /// Output tensor.
    pub out: TensorId,
    /// Output zero point; 0 for an average pool, which averages raw values.
    pub zero: i32,
    /// Clamp.
    pub clamp: (i32, i32),
    /// The runtime's formula.
    pub formula: Formula,
    /// Whether `rules` goes over positions instead of channels.
    pub by_position: bool,
    /// One rule for each channel (or position).
    pub rules: Vec<Rule>,
}
