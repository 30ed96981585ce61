//! Tensors, and those at the edges of a model.

use super::TensorId;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    /// `[-128, 127]`
    Int8 = 0,
    /// `[0, 255]`
    UInt8 = 1,
}

/// A tensor: what flows between operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Unique, at most 256 bytes.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, 1 to 6 of them, none 0.
    pub dims: Vec<u32>,
    /// `float32` bits of the quantisation scale; `None` if the tensor has none.
    pub scale: Option<u32>,
    /// Quantisation zero point.
    pub zero_point: i32,
}

/// A statement tensor may be float at the edge of the model: `x_int = clamp(round(x / scale) + zero_point)`, `y = scale (y_int - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Edge {
    /// The user's array has the tensor's own dtype.
    Integer = 0,
    /// The user's array is `float32`, converted outside the proof by the named runtime's QUANTIZE / DEQUANTIZE.
    Float = 1,
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The tensor.
    pub tensor: TensorId,
    /// Element type at the edge.
    pub edge: Edge,
}

impl DType {
    /// Smallest and largest value.
    pub fn range(self) -> (i32, i32) {
        match self {
            DType::Int8 => (-128, 127),
            DType::UInt8 => (0, 255),
        }
    }
}

impl Tensor {
    /// Product of all dimensions but the last.
    pub fn positions(&self) -> usize {
        self.dims[..self.dims.len() - 1].iter().map(|&d| d as usize).product()
    }

    /// The last dimension.
    pub fn channels(&self) -> usize {
        self.dims[self.dims.len() - 1] as usize
    }

    /// Number of elements.
    pub fn size(&self) -> usize {
        self.positions() * self.channels()
    }
}
