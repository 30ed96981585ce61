//! How the prover fills the storages from the executor's trace. The verifier ignores it.

use super::types::{Index, StorageId, Term};
use crate::program::{ConstId, Line, TensorId, Window};

/// One step of filling the witness.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// The values of a tensor.
    Tensor {
        /// Where.
        storage: StorageId,
        /// Which.
        tensor: TensorId,
    },
    /// The values of a constant.
    Constant {
        /// Where.
        storage: StorageId,
        /// Which.
        constant: ConstId,
    },
    /// The positive parts of another storage's values.
    Relu {
        /// Where.
        storage: StorageId,
        /// Of which.
        of: StorageId,
    },
    /// Values of the layout's accumulator of this number.
    Accumulator(usize),
    /// One channel group of a rescale.
    Rescale {
        /// The layout's accumulator.
        accumulator: usize,
        /// Channels of the group.
        channels: Index,
        /// Line of each channel of the group, or of each position.
        lines: Vec<Line>,
        /// Which of the two.
        by_position: bool,
        /// Output zero point.
        zero: i64,
        /// Clamp.
        clamp: (i64, i64),
        /// Cells.
        cells: RescaleCells,
    },
    /// `[y - x = 0]` of one tap of a max pool.
    PoolTap {
        /// Where: one row for each valid output.
        storage: StorageId,
        /// Input.
        x: TensorId,
        /// Pooled values, before a fused clamp.
        pooled: StorageId,
        /// Valid outputs.
        outputs: Index,
        /// Input position of each.
        inputs: Index,
    },
    /// Maximum of each window, before a fused clamp.
    Pooled {
        /// Where.
        storage: StorageId,
        /// Input.
        x: TensorId,
        /// Index map.
        window: Window,
    },
    /// A whole softmax.
    Softmax {
        /// Input.
        x: TensorId,
        /// Multiplier and shift.
        scale: (i32, u8),
        /// Least value of the output's dtype: its zero point.
        low: i64,
        /// Cells.
        cells: SoftmaxCells,
    },
    /// High limbs of a value in `[0, 2^bits)`.
    Limbs(LimbRecipe),
}

/// The value of `terms` split into limbs of `w` bits; the lowest limb is virtual.
#[derive(Clone, Debug)]
pub struct LimbRecipe {
    /// The value.
    pub terms: Vec<Term>,
    /// Rows.
    pub positions: usize,
    /// Columns.
    pub channels: usize,
    /// Limbs from the second on.
    pub limbs: Vec<StorageId>,
}

/// Cells of one channel group of a rescale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescaleCells {
    /// Output.
    pub y: StorageId,
    /// Value before the clamp.
    pub v: StorageId,
    /// `[v <= zero], [v < zero]` where lines have two offsets.
    pub signs: Option<(StorageId, StorageId)>,
    /// High limbs of the two checks where `d > 2^w`.
    pub limbs: Option<(StorageId, StorageId)>,
}

impl RescaleCells {
    /// All of them, in the order of the fields.
    pub fn all(&self) -> impl Iterator<Item = StorageId> + use<> {
        let pairs = [self.signs, self.limbs];
        [self.y, self.v].into_iter().chain(pairs.into_iter().flatten().flat_map(|(a, b)| [a, b]))
    }
}

/// Cells of a softmax: one for each row, or one for each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the fixed-point algorithm, explained in softmax.rs
pub struct SoftmaxCells {
    pub maximum: StorageId,
    pub headroom: StorageId,
    pub power: StorageId,
    pub half_power: StorageId,
    pub half: StorageId,
    pub q0: StorageId,
    pub h: [StorageId; 3],
    pub k: [StorageId; 3],
    pub saturated: StorageId,
    pub exp: StorageId,
    pub rounded: StorageId,
    pub is_max: StorageId,
    pub quotient: StorageId,
    pub v: StorageId,
    pub y: StorageId,
}
