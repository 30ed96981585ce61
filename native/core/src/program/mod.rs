//! The integer program: a list of operators over integer tensors with static shapes.
//!
//! Importers lower to it, the executor runs it, the prover proves it. [`Program`] is plain data and may be wrong;
//! `check::load` is the only way to a [`CheckedProgram`], which everything else takes.
//!
//! A tensor's *positions* are all its dimensions but the last, flattened row-major; its *channels* are the last dimension.

pub mod builder;
pub mod check;
pub mod codec;
mod contract;
mod cost;
pub mod error;
pub mod interval;
pub mod limits;
pub mod lines;
mod permute;
pub mod private;
pub mod quantize;
mod rescale;
pub mod softmax;
mod tensor;

pub use contract::{Accumulator, Constant, Contract, Window};
pub(crate) use permute::{Permutation, split};
pub use rescale::{Formula, Line, Rescale, Rule};
pub use tensor::{DType, Edge, Port, Tensor};

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
    /// Model name for people, at most 256 bytes; no part of the model's digest.
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
