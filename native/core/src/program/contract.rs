//! Contractions: from tensors and weights to accumulators.

use super::{ConstId, TensorId};

/// An accumulator: `positions x channels` integers that are never committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulator {
    /// Rows.
    pub positions: u32,
    /// Columns.
    pub channels: u32,
}

/// A constant array of a contraction: weights (zero point already subtracted) or biases.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Dimensions; conv `[O, KH, KW, C]`, depthwise `[KH, KW, C * multiplier]`, bias `[O]`.
    pub dims: Vec<u32>,
    /// Smallest and largest value that is allowed (weights `[-128, 127]`, `[-255, 255]`; bias `int32`).
    pub range: (i32, i32),
}

/// Index map of a contraction: output `(oy, ox)`, tap `(ky, kx)` reads input `(oy*sy + ky*dy - py, ox*sx + kx*dx - px)`;
/// taps outside the input contribute nothing. The images of a batch lie one after another, and a window stays in its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Images; positions of the input tensor are `batch * input.0 * input.1`.
    pub batch: u32,
    /// Height and width of an input.
    pub input: (u32, u32),
    /// Height and width of an output.
    pub output: (u32, u32),
    /// Taps.
    pub kernel: (u32, u32),
    /// Strides.
    pub stride: (u32, u32),
    /// Padding at the top and at the left.
    pub pad: (u32, u32),
    /// Dilation.
    pub dilation: (u32, u32),
}

/// `acc[p, o] = bias[o] + sum over (ky, kx, c) of (x[pos(p, ky, kx), c] - x_zero) * w`.
#[derive(Clone, Debug, PartialEq)]
pub enum Contract {
    /// Weights `[O, KH, KW, C]`; fully connected layers are windows over the whole input.
    Conv {
        /// Input.
        x: TensorId,
        /// Index map.
        window: Window,
        /// Weights.
        weights: ConstId,
        /// Biases `[O]`.
        bias: Option<ConstId>,
        /// Input zero point.
        x_zero: i32,
    },
    /// Weights `[KH, KW, C * m]`: output channel `c * m + j` reads input channel `c`.
    Depthwise {
        /// Input.
        x: TensorId,
        /// Index map.
        window: Window,
        /// Weights.
        weights: ConstId,
        /// Biases `[C * m]`.
        bias: Option<ConstId>,
        /// Input zero point.
        x_zero: i32,
    },
    /// All weights 1, channel by channel: average pool and mean.
    Sum {
        /// Input.
        x: TensorId,
        /// Index map.
        window: Window,
        /// Input zero point (average pool: 0).
        x_zero: i32,
    },
    /// `sum_i coefficient_i * x_i`, elementwise: an ADD or SUB whose plane is exact.
    Mix {
        /// Coefficients and tensors of one shape.
        terms: Vec<(i64, TensorId)>,
    },
}

impl Contract {
    /// The index map, if there is one.
    pub fn window(&self) -> Option<&Window> {
        match self {
            Contract::Conv { window, .. } | Contract::Depthwise { window, .. } | Contract::Sum { window, .. } => Some(window),
            Contract::Mix { .. } => None,
        }
    }

    /// Whether weights take part.
    pub fn has_weights(&self) -> bool {
        matches!(self, Contract::Conv { .. } | Contract::Depthwise { .. })
    }
}

impl Window {
    /// Row of the input that tap `ky` of row `oy` of the output reads, or `None` in the padding. Rows go over all images.
    pub fn row(&self, oy: usize, ky: usize) -> Option<usize> {
        let rows = self.output.0 as usize;
        let (image, oy) = if oy < rows { (0, oy) } else { (oy / rows, oy % rows) };
        let iy = tap(oy, ky, self.stride.0, self.dilation.0, self.pad.0, self.input.0)?;
        Some(image * self.input.0 as usize + iy)
    }

    /// Column of the input that tap `kx` of column `ox` of the output reads, or `None` in the padding.
    pub fn column(&self, ox: usize, kx: usize) -> Option<usize> {
        tap(ox, kx, self.stride.1, self.dilation.1, self.pad.1, self.input.1)
    }

    /// Rows of all inputs.
    pub fn input_rows(&self) -> usize {
        self.batch as usize * self.input.0 as usize
    }

    /// Rows of all outputs.
    pub fn output_rows(&self) -> usize {
        self.batch as usize * self.output.0 as usize
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.output_rows() * self.output.1 as usize
    }

    /// Number of valid taps at output `(oy, ox)`.
    pub fn valid(&self, oy: usize, ox: usize) -> usize {
        let rows = (0..self.kernel.0 as usize).filter(|&k| self.row(oy, k).is_some()).count();
        let columns = (0..self.kernel.1 as usize).filter(|&k| self.column(ox, k).is_some()).count();
        rows * columns
    }
}

fn tap(o: usize, k: usize, stride: u32, dilation: u32, pad: u32, size: u32) -> Option<usize> {
    (o * stride as usize + k * dilation as usize).checked_sub(pad as usize).filter(|&i| i < size as usize)
}
