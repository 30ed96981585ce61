//! Reachable accumulators: exact bounds over all inputs of the input's dtype.

use super::lines::Interval;
use super::{Constant, Contract, DType, Tensor, Weights, Window};

/// Bounds of `sum w_i x_i + bias` for `x_i` in `[low, high]`, `low <= 0 <= high`; a missing tap is `x_i = 0`.
///
/// Bounds of every partial sum as well, so that an `int32` accumulator never overflows on the way if the bounds fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WeightSum {
    positive: i64,
    negative: i64,
}

impl WeightSum {
    fn add(&mut self, w: i32) {
        self.positive += i64::from(w.max(0));
        self.negative += i64::from(w.min(0));
    }

    fn interval(self, (low, high): Interval, bias: i64) -> Interval {
        (self.positive * low + self.negative * high + bias, self.positive * high + self.negative * low + bias)
    }
}

/// `x - x_zero` over a dtype.
pub fn centred(dtype: DType, x_zero: i32) -> Interval {
    let (low, high) = dtype.range();
    (i64::from(low) - i64::from(x_zero), i64::from(high) - i64::from(x_zero))
}

/// Reachable accumulators of each channel of a convolution, from its weights; `None` for other contractions, whose bounds need no
/// weights, and where the arrays do not have the declared sizes.
pub fn of_weights(tensors: &[Tensor], constants: &[Constant], contract: &Contract, weights: &Weights) -> Option<Vec<Interval>> {
    let (x, constant, bias, x_zero, depthwise) = match *contract {
        Contract::Conv { x, weights, bias, x_zero, .. } => (x, weights, bias, x_zero, false),
        Contract::Depthwise { x, weights, bias, x_zero, .. } => (x, weights, bias, x_zero, true),
        _ => return None,
    };
    let dims = &constants.get(constant as usize)?.dims;
    let values = weights.values.get(constant as usize)?;
    let channels = if depthwise { *dims.last()? } else { *dims.first()? } as usize;
    if channels == 0 || values.is_empty() || !values.len().is_multiple_of(channels) {
        return None;
    }
    let mut sums = vec![WeightSum::default(); channels];
    if depthwise {
        for row in values.chunks_exact(channels) {
            sums.iter_mut().zip(row).for_each(|(s, &w)| s.add(w));
        }
    } else {
        for (s, row) in sums.iter_mut().zip(values.chunks_exact(values.len() / channels)) {
            row.iter().for_each(|&w| s.add(w));
        }
    }
    let range = centred(tensors.get(x as usize)?.dtype, x_zero);
    let bias = match bias {
        Some(id) => Some(weights.values.get(id as usize).filter(|b| b.len() == channels)?),
        None => None,
    };
    Some(sums.iter().enumerate().map(|(o, s)| s.interval(range, bias.map_or(0, |b| b[o].into()))).collect())
}

/// Number of valid taps at each output position, row-major.
pub fn valid_taps(window: &Window) -> Vec<u32> {
    // Taps k with 0 <= o stride + k dilation - pad < input.
    let axis = |outputs: u32, kernel: u32, stride: u32, dilation: u32, pad: u32, input: u32| -> Vec<u32> {
        let below = |bound: i64, o: i64| {
            let room = bound + i64::from(pad) - o * i64::from(stride);
            ((room + i64::from(dilation) - 1).div_euclid(dilation.into())).clamp(0, kernel.into())
        };
        (0..i64::from(outputs)).map(|o| (below(input.into(), o) - below(0, o)) as u32).collect()
    };
    let w = window;
    let rows = axis(w.output.0, w.kernel.0, w.stride.0, w.dilation.0, w.pad.0, w.input.0);
    let columns = axis(w.output.1, w.kernel.1, w.stride.1, w.dilation.1, w.pad.1, w.input.1);
    let image: Vec<u32> = rows.iter().flat_map(|r| columns.iter().map(move |c| r * c)).collect();
    image.repeat(w.batch as usize)
}

/// Reachable sums of `n` elements.
pub fn of_sum(x: &Tensor, x_zero: i32, n: u32) -> Interval {
    let (low, high) = centred(x.dtype, x_zero);
    (low * i64::from(n), high * i64::from(n))
}

/// Reachable values of `sum_i c_i x_i`; `None` if a coefficient is so large that 64 bits might not hold them.
pub fn of_mix(terms: &[(i64, DType)]) -> Option<Interval> {
    terms.iter().try_fold((0i64, 0i64), |(low, high), &(c, dtype)| {
        let (a, b) = dtype.range();
        let ends = [c.checked_mul(a.into())?, c.checked_mul(b.into())?];
        Some((low.checked_add(ends[0].min(ends[1]))?, high.checked_add(ends[0].max(ends[1]))?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn taps_are_counted(batch in 1u32..4, axes in prop::array::uniform2((1u32..9, 1u32..5, 1u32..5, 1u32..4, 1u32..4)), pads in (0u32..6, 0u32..6)) {
            let [r, c] = axes;
            let window = Window { batch, input: (r.0, c.0), output: (r.1, c.1), kernel: (r.2, c.2), stride: (r.3, c.3), dilation: (r.4, c.4), pad: pads };
            let slow: Vec<u32> = (0..batch * r.1).flat_map(|y| (0..c.1).map(move |x| (y, x))).map(|(y, x)| window.valid(y as usize, x as usize) as u32).collect();
            prop_assert_eq!(valid_taps(&window), slow);
        }
    }
}
