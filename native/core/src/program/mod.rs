//! The integer program: a list of operators over integer tensors with static shapes.
//!
//! Importers lower to it, the executor runs it, the prover proves it. [`Program`] is plain data and may be wrong;
//! `check::load` is the only way to a [`CheckedProgram`], which everything else takes.
//!
//! A tensor's *positions* are all its dimensions but the last, flattened row-major; its *channels* are the last dimension.

pub mod builder;
pub mod check;
pub mod codec;
mod cost;
pub mod error;
pub mod interval;
pub mod limits;
pub mod lines;
mod permute;
pub mod private;
pub mod quantize;
pub mod softmax;

pub(crate) use permute::{Permutation, split};

/// Index into [`Program::tensors`].
pub type TensorId = u32;
/// Index into [`Program::accumulators`].
pub type AccId = u32;
/// Index into [`Program::constants`].
pub type ConstId = u32;
/// Index into [`Program::tables`].
pub type TableId = u32;

/// Whose integer arithmetic the program reproduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Semantics {
    /// TensorFlow Lite Micro reference kernels.
    Tflm = 0,
    /// tflite-runtime 2.14 reference kernels.
    Tflite214 = 1,
    /// LiteRT 2.3 reference kernels.
    Litert23Ref = 2,
}

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

/// A piece of a view: `out[dst_start + i] = source[src_start + step * i]` in every dimension, `0 <= i < len`; step 0 broadcasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Source tensor, of the same rank as the output.
    pub source: TensorId,
    /// For each dimension `(dst_start, len, src_start, step)`.
    pub dims: Vec<(u32, u32, u32, i32)>,
}

/// One operator. Each defines one accumulator or one tensor, in order, before it is used.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Defines accumulator `acc`.
    Contract {
        /// Output.
        acc: AccId,
        /// How.
        contract: Contract,
    },
    /// Defines a tensor from an accumulator.
    Rescale(Rescale),
    /// `out = T[x]` (256 rows) or `T[x1, x2]` (65,536 rows, `x1` major). Row `i` of the table belongs to `x = min(dtype) + i`.
    Lookup {
        /// One or two tensors of the output's shape.
        inputs: Vec<TensorId>,
        /// Output.
        out: TensorId,
        /// Table.
        table: TableId,
    },
    /// int8 softmax over the channels of each position: `M` and left shift of `beta * scale * 2^26`.
    Softmax {
        /// Input.
        x: TensorId,
        /// Output: scale 1/256, zero point -128.
        out: TensorId,
        /// Multiplier, `[2^30, 2^31)`.
        multiplier: i32,
        /// Left shift.
        shift: u8,
    },
    /// Largest valid cell of each window, then clamp.
    MaxPool {
        /// Input.
        x: TensorId,
        /// Output.
        out: TensorId,
        /// Index map.
        window: Window,
        /// Clamp (a fused activation).
        clamp: (i32, i32),
    },
    /// Slices, concatenation, padding, broadcast: index maps only, pieces disjoint; other cells are `fill`.
    View {
        /// Output.
        out: TensorId,
        /// Pieces.
        pieces: Vec<Piece>,
        /// Value of uncovered cells.
        fill: i32,
    },
    /// Reshape and transpose: the source read row-major as `dims`, transposed by `perm` (output dimension `i` is source dimension
    /// `perm[i]`), read row-major as the output's dimensions.
    Permute {
        /// Source.
        x: TensorId,
        /// Output.
        out: TensorId,
        /// Dimensions whose product is the size of both tensors.
        dims: Vec<u32>,
        /// Permutation of `dims`.
        perm: Vec<u8>,
    },
}

/// A lookup table: `values[i]` for row `i`.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// 256 or 65,536 values in the output's dtype.
    pub values: Vec<i16>,
}

/// A program as data. Weights are not part of it: they are [`Weights`], bound by a commitment or carried beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Model name for people, at most 256 bytes.
    pub name: String,
    /// Reference semantics.
    pub semantics: Semantics,
    /// Tensors.
    pub tensors: Vec<Tensor>,
    /// Accumulators.
    pub accumulators: Vec<Accumulator>,
    /// Shapes and ranges of constants.
    pub constants: Vec<Constant>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Model inputs.
    pub inputs: Vec<Port>,
    /// Model outputs.
    pub outputs: Vec<Port>,
    /// Operators in order.
    pub ops: Vec<Op>,
    /// `w`: the range table has `2^w` rows.
    pub range_bits: u8,
    /// Clamp tables cover `v'` in `[start, start + 2^bits)`.
    pub clamp_rows: (i64, u8),
    /// The sign table covers `v = v' - zero` in `[start, start + 2^bits)`; bits 0 if no line has two offsets.
    pub sign_rows: (i64, u8),
    /// Set where nobody but their owner sees weights and biases.
    pub private: Option<PrivateForm>,
}

/// The form of a program whose weights and biases are private: nothing in it is computed from them.
///
/// Its lines hold on every accumulator that overflows nothing, its constant channels are those of `M = 0` or of an empty clamp, and the
/// values before a clamp are bounded by what the owner chose. That the weights keep these bounds is proved once, by their registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateForm {
    /// For each accumulator that weights make `log2 V`: values before the clamp lie in `[-V, V)`. 0 for others.
    pub log_bounds: Vec<u8>,
}

/// Values of all constants, in the order of [`Program::constants`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Weights {
    /// One array for each constant.
    pub values: Vec<Vec<i32>>,
}

impl Program {
    /// `(start, bits)` of the clamp table behind an accumulator: `[-V, V)` for private weights, else the program's own rows.
    pub fn clamp_rows_of(&self, acc: AccId) -> (i64, u8) {
        match self.log_bound(acc) {
            Some(bits) => (-(1 << bits), bits + 1),
            None => self.clamp_rows,
        }
    }

    /// `log2 V` of an accumulator that private weights make.
    pub fn log_bound(&self, acc: AccId) -> Option<u8> {
        self.private.as_ref()?.log_bounds.get(acc as usize).copied().filter(|&bits| bits > 0)
    }

    /// Whether an operator has a form of the later encoding: a window over a batch, or a reshape whose rows are not, on both
    /// sides, products of whole dimensions.
    fn has_later_forms(&self) -> bool {
        self.ops.iter().any(|op| match op {
            Op::Contract { contract, .. } => contract.window().is_some_and(|w| w.batch != 1),
            Op::MaxPool { window, .. } => window.batch != 1,
            Op::Permute { x, out, dims, perm } => {
                let last = |id: &TensorId| Some(*self.tensors.get(*id as usize)?.dims.last()? as usize);
                let form = Permutation::new(dims, perm);
                form.is_identity() && last(x).zip(last(out)).is_some_and(|(from, to)| from != to && !form.splits(from, to))
            }
            _ => false,
        })
    }

    /// The tensor that an operator, or the rescale of its accumulator, defines.
    pub fn output_of(&self, op: &Op) -> Option<TensorId> {
        match op {
            Op::Contract { acc, .. } => self.ops.iter().find_map(|o| match o {
                Op::Rescale(r) if r.acc == *acc => Some(r.out),
                _ => None,
            }),
            Op::Rescale(r) => Some(r.out),
            Op::Lookup { out, .. } | Op::Softmax { out, .. } | Op::MaxPool { out, .. } | Op::View { out, .. } | Op::Permute { out, .. } => {
                Some(*out)
            }
        }
    }

    /// Multiply-accumulates of a contraction of a checked program, padding included; 0 for other operators.
    pub fn macs(&self, op: &Op) -> u64 {
        let Op::Contract { acc, contract } = op else { return 0 };
        let shape = self.accumulators[*acc as usize];
        let taps = |w: &Window| u64::from(w.kernel.0) * u64::from(w.kernel.1);
        let depth = match contract {
            Contract::Conv { x, window, .. } => taps(window) * self.tensors[*x as usize].channels() as u64,
            Contract::Depthwise { window, .. } | Contract::Sum { window, .. } => taps(window),
            Contract::Mix { terms } => terms.len() as u64,
        };
        u64::from(shape.positions) * u64::from(shape.channels) * depth
    }
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
