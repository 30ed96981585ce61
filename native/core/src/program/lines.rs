//! Exact digital lines: `floor((acc a + b) / d)` that equals a requantisation wherever an input can reach.
//!
//! A requantisation clamped to at most 256 values is a staircase with thresholds `t_v`: the smallest accumulator whose output is at
//! least `v`. A line is exact when `a (t_v - 1) < d v - b <= a t_v` for every reachable threshold, and one beyond each reachable end
//! unless the clamp is there. A slope `d/a` admits an offset iff `(t_u - t_v) - 1 < (d/a)(u - v) < (t_u - t_v) + 1` for every pair
//! `u > v`: the open interval of slopes is found from the pairs, its simplest fraction by Stern and Brocot.
//!
//! Ties and the first rounding shift negative outputs, so some channels need two offsets of one slope: `b_pos` for `v >= 1`, `b_neg`
//! for `v <= 0`, where `v` does not include the zero point.

use super::quantize::{Addition, Staircase};
use super::{DType, Line, Rule};

/// A set of accumulators, both ends included.
pub type Interval = (i64, i64);

/// A requantisation of one channel: formula, reachable accumulators, zero point and clamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The runtime's formula.
    pub staircase: Staircase,
    /// Reachable accumulators.
    pub reach: Interval,
    /// Output zero point.
    pub zero: i64,
    /// Clamp of the output.
    pub clamp: (i64, i64),
}

/// No line, or a line that differs from the formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A reachable accumulator overflows the runtime's own arithmetic.
    #[error("accumulators in [{}, {}] overflow 32 bits in the kernel", .0.0, .0.1)]
    Overflow(Interval),
    /// Not even two offsets fit.
    #[error("no digital line with one or two offsets")]
    NoLine,
    /// The rule disagrees with the formula.
    #[error("the line misses the threshold of value {0}")]
    Threshold(i64),
    /// A line where one output is reachable, a constant where several are, another constant, or two offsets without both thresholds.
    #[error("the rule is not the one of the formula: {0}")]
    Rule(&'static str),
    /// Slope, denominator or interval is degenerate.
    #[error("malformed line")]
    Malformed,
}

impl Channel {
    /// The output at an accumulator.
    pub fn output(&self, acc: i64) -> i64 {
        (self.staircase.value(acc) + self.zero).clamp(self.clamp.0, self.clamp.1)
    }

    /// Values `v` (without zero point) whose thresholds must be exact, first and last; `None` if one output is reachable.
    pub fn span(&self) -> Result<Option<(i64, i64)>, LineError> {
        let (low, high) = self.reach;
        let domain = self.staircase.domain();
        if low > high || low <= -domain || high >= domain {
            return Err(LineError::Overflow(self.reach));
        }
        if self.staircase.is_constant() {
            return Ok(None);
        }
        let (bottom, top) = (self.clamp.0 - self.zero, self.clamp.1 - self.zero);
        let first = (bottom + 1).max(self.staircase.value(low) + 1);
        let last = top.min(self.staircase.value(high));
        if first > last {
            return Ok(None);
        }
        Ok(Some((first - i64::from(first > bottom + 1), last + i64::from(last < top))))
    }

    /// The simplest rule that is exact on all reachable accumulators.
    pub fn find(&self) -> Result<Rule, LineError> {
        let Some((v0, v1)) = self.span()? else {
            return Ok(Rule::Constant(self.output(self.reach.0) as i32));
        };
        // One threshold alone leaves the slope free; a neighbour on its side of zero, exact although nobody needs it, keeps v' near the
        // formula's.
        let (v0, v1) = if v0 < v1 { (v0, v1) } else { (v0 - i64::from(v0 <= 0), v1 + i64::from(v1 >= 1)) };
        let thresholds: Vec<i64> = (v0..=v1).map(|v| self.staircase.threshold(v)).collect();
        let line = self.fit(v0, &thresholds).ok_or(LineError::NoLine)?;
        Ok(Rule::Line { low: self.reach.0, high: self.reach.1, line })
    }

    fn fit(&self, v0: i64, thresholds: &[i64]) -> Option<Line> {
        let whole = slopes(thresholds);
        if let Some((a, d)) = simplest_between(whole) {
            let b = offset(a, d, v0, thresholds)? + d * self.zero;
            return Some(Line { a, b_pos: b, b_neg: b, d });
        }
        let below = (1 - v0).clamp(0, thresholds.len() as i64) as usize;
        let (negative, positive) = thresholds.split_at(below);
        if negative.is_empty() || positive.is_empty() {
            return None;
        }
        let (a, d) = simplest_between(slopes(negative).meet(slopes(positive)))?;
        let b_pos = offset(a, d, 1, positive)? + d * self.zero;
        let b_neg = offset(a, d, v0, negative)? + d * self.zero;
        Some(Line { a, b_pos, b_neg, d })
    }

    /// Checks a rule against the formula on the reachable accumulators.
    pub fn check(&self, rule: &Rule) -> Result<(), LineError> {
        match (rule, self.span()?) {
            (Rule::Constant(c), None) if i64::from(*c) == self.output(self.reach.0) => Ok(()),
            (Rule::Constant(_), None) => Err(LineError::Rule("another constant")),
            (Rule::Constant(_), Some(_)) => Err(LineError::Rule("a constant, but several outputs are reachable")),
            (Rule::Line { .. }, None) => Err(LineError::Rule("a line, but one output is reachable")),
            (Rule::Line { low, high, .. }, Some(_)) if (*low, *high) != self.reach => Err(LineError::Rule("another interval")),
            (Rule::Line { line, .. }, Some((v0, v1))) => self.check_line(line, v0, v1),
        }
    }

    fn check_line(&self, line: &Line, v0: i64, v1: i64) -> Result<(), LineError> {
        if !is_bounded(line) {
            return Err(LineError::Malformed);
        }
        // Between the groups the accepted accumulators of consecutive values must meet: both thresholds are among the checked.
        if line.two_offsets() && !(v0 <= 0 && v1 >= 1) {
            return Err(LineError::Rule("two offsets without thresholds on both sides of the zero point"));
        }
        for v in v0..=v1 {
            let t = self.staircase.threshold(v);
            let b = if v >= 1 { line.b_pos } else { line.b_neg };
            let rise = i128::from(line.d) * i128::from(v + self.zero) - i128::from(b);
            let run = i128::from(line.a) * i128::from(t);
            if rise > run || rise <= run - i128::from(line.a) {
                return Err(LineError::Threshold(v));
            }
        }
        Ok(())
    }
}

/// Positive slope and numbers small enough that `acc a + b` fits 64 bits for every `|acc| < 2^32`.
pub fn is_bounded(line: &Line) -> bool {
    (1..1 << 30).contains(&line.a)
        && (1..1 << 44).contains(&line.d)
        && line.b_pos.unsigned_abs() < 1 << 61
        && line.b_neg.unsigned_abs() < 1 << 61
}

/// An open interval of slopes `d/a`; the ends are fractions `(numerator, denominator)`.
#[derive(Clone, Copy, Debug)]
struct Slopes {
    low: (i64, i64),
    high: (i64, i64),
}

impl Slopes {
    fn meet(self, other: Slopes) -> Slopes {
        Slopes {
            low: if less(self.low, other.low) { other.low } else { self.low },
            high: if less(other.high, self.high) { other.high } else { self.high },
        }
    }
}

fn less(x: (i64, i64), y: (i64, i64)) -> bool {
    i128::from(x.0) * i128::from(y.1) < i128::from(y.0) * i128::from(x.1)
}

/// Slopes that have an offset for consecutive thresholds, from all pairs.
fn slopes(thresholds: &[i64]) -> Slopes {
    let n = thresholds.len();
    let mut out = Slopes { low: (0, 1), high: (1 << 40, 1) };
    let base = thresholds[0];
    // 32-bit differences, the common case, compare eight or sixteen at a time.
    if thresholds[n - 1] - base <= i64::from(i32::MAX) {
        let t: Vec<i32> = thresholds.iter().map(|&t| (t - base) as i32).collect();
        for k in 1..n {
            let (mut least, mut most) = (i32::MAX, i32::MIN);
            for (&u, &v) in t[k..].iter().zip(&t[..n - k]) {
                let rise = u - v;
                (least, most) = (least.min(rise), most.max(rise));
            }
            out = out.meet(Slopes { low: (i64::from(most) - 1, k as i64), high: (i64::from(least) + 1, k as i64) });
        }
    } else {
        for k in 1..n {
            let rises = || thresholds[k..].iter().zip(thresholds).map(|(&u, &v)| u - v);
            let (least, most) = (rises().min().unwrap_or(0), rises().max().unwrap_or(0));
            out = out.meet(Slopes { low: (most - 1, k as i64), high: (least + 1, k as i64) });
        }
    }
    out
}

/// `(a, d)` with `d/a` the fraction of smallest numerator and denominator strictly inside; `None` if the interval is empty.
fn simplest_between(slopes: Slopes) -> Option<(i64, i64)> {
    less(slopes.low, slopes.high).then(|| {
        let (n, d) = simplest(slopes.low, slopes.high);
        (d, n)
    })
}

/// Stern-Brocot by continued fractions: `0 <= low < high`.
fn simplest(low: (i64, i64), high: (i64, i64)) -> (i64, i64) {
    let whole = low.0.div_euclid(low.1);
    if less((whole + 1, 1), high) {
        return (whole + 1, 1);
    }
    let (x, y) = ((low.0 - whole * low.1, low.1), (high.0 - whole * high.1, high.1));
    let (n, d) = if x.0 == 0 { (y.1 / y.0 + 1, 1) } else { simplest((y.1, y.0), (x.1, x.0)) };
    (whole * n + d, n)
}

/// The smallest offset for thresholds of `v0, v0 + 1, ...`, zero point excluded.
fn offset(a: i64, d: i64, v0: i64, thresholds: &[i64]) -> Option<i64> {
    let gaps = || thresholds.iter().zip(v0..).map(|(&t, v)| d * v - a * t);
    let (least, most) = (gaps().min()?, gaps().max()?);
    (most - least < a).then_some(most)
}

/// The line of an average over `n` cells of an int8 tensor: exact after the clamp to int8. Over uint8 sums are not negative and
/// `floor((s + n/2) / n)` is the formula itself.
pub fn average_line(n: i64, dtype: DType) -> Line {
    let (a, b, d) = if n % 2 == 1 || dtype == DType::UInt8 { (1, n / 2, n) } else { (128, 64 * n - 1, 128 * n - 1) };
    Line { a, b_pos: b, b_neg: b, d }
}

/// `clamp(floor((A x1 + B x2 + C) / D))`: an addition as a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Coefficients of the inputs.
    pub slopes: (i64, i64),
    /// Offset, output zero point included.
    pub offset: i64,
    /// Denominator.
    pub d: i64,
}

/// Denominators `2^k` that [`find_plane`] tries.
const PLANE_BITS: std::ops::Range<u32> = 10..24;

/// A plane that equals `table` (65,536 outputs of `addition`) on all pairs, or `None`.
pub fn find_plane(addition: &Addition, dtypes: (DType, DType), clamp: (i32, i32), table: &[i16]) -> Option<Plane> {
    let starts = (i64::from(dtypes.0.range().0), i64::from(dtypes.1.range().0));
    for bits in PLANE_BITS {
        let d = 1i64 << bits;
        let near = |m: (i32, i8)| slope(m, addition.output, bits);
        let sign = if addition.subtract { -1 } else { 1 };
        let (a0, b0) = (near(addition.first), sign * near(addition.second));
        for a in [a0, a0 - 1, a0 + 1] {
            for b in [b0, b0 - 1, b0 + 1] {
                if let Some(offset) = plane_offset((a, b), d, starts, clamp, table) {
                    return Some(Plane { slopes: (a, b), offset, d });
                }
            }
        }
    }
    None
}

/// The real slope of one input, `M 2^-(31+e) 2^20 M_out 2^-(31+e_out)`, times `2^bits`, rounded.
fn slope((m, e): (i32, i8), (m_out, e_out): (i32, i8), bits: u32) -> i64 {
    let shift = 62 + i32::from(e) + i32::from(e_out) - 20 - bits as i32;
    let product = i64::from(m) * i64::from(m_out);
    if shift <= 0 { product << -shift } else { ((i128::from(product) + (1i128 << (shift - 1))) >> shift) as i64 }
}

/// The smallest offset with which the plane is exact: `want d <= a x1 + b x2 + c` where `want` is above the clamp's low end, and
/// `a x1 + b x2 + c < (want + 1) d` where it is below the high end.
fn plane_offset((a, b): (i64, i64), d: i64, starts: (i64, i64), clamp: (i32, i32), table: &[i16]) -> Option<i64> {
    let (low, high) = (clamp.0 as i16, clamp.1 as i16);
    let (mut most, mut least) = (i64::MIN, i64::MAX);
    for (x1, row) in (starts.0..).zip(table.chunks_exact(256)) {
        for (x2, &want) in (starts.1..).zip(row) {
            let gap = i64::from(want) * d - a * x1 - b * x2;
            most = if want > low { most.max(gap) } else { most };
            least = if want < high { least.min(gap) } else { least };
        }
        if most > i64::MIN && least < i64::MAX && most - least > d - 1 {
            return None;
        }
    }
    (most > i64::MIN && least < i64::MAX).then_some(most)
}

/// Whether `floor((a (A x1 + B x2) + b) / d)`, clamped, equals the table on all pairs.
pub fn plane_is_exact(slopes: (i64, i64), line: &Line, dtypes: (DType, DType), clamp: (i32, i32), table: &[i16]) -> bool {
    let (first, second) = (dtypes.0.range().0, dtypes.1.range().0);
    let (low, high) = (i64::from(clamp.0), i64::from(clamp.1));
    (i64::from(first)..).zip(table.chunks_exact(256)).all(|(x1, row)| {
        (i64::from(second)..).zip(row).all(|(x2, &want)| {
            let acc = slopes.0 * x1 + slopes.1 * x2;
            (line.a * acc + line.b_pos).div_euclid(line.d).clamp(low, high) == i64::from(want)
        })
    })
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
