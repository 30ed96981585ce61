//! Where each storage of an oracle lies, and where each oracle lies in the stack: functions of shapes and parameters only.

use std::sync::Arc;

use crate::blocks::{Block, stack};
use crate::eq::log2_ceil;
use crate::parameters::Parameters;

/// Whose oracle it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Made for one proof.
    Witness = 0,
    /// A statement tensor: one kind for inputs and outputs.
    Tensor = 1,
    /// Weights and biases of a model.
    Model = 2,
}

impl Role {
    /// The name that leaves are hashed under.
    pub fn name(self) -> &'static str {
        match self {
            Role::Witness => "witness",
            Role::Tensor => "tensor",
            Role::Model => "model",
        }
    }
}

/// An oracle: `columns` messages of `2^log_rows` coefficients. Cell `i` of the concatenated blocks is coefficient `i mod 2^log_rows` of
/// column `i / 2^log_rows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleLayout {
    /// Role.
    pub role: Role,
    /// Number among the oracles of its role.
    pub index: u32,
    /// `(positions, channels)` of each storage.
    pub shapes: Vec<(usize, usize)>,
    /// Blocks of all storages.
    pub blocks: Vec<Block>,
    /// `log2` of the coefficients of a column.
    pub log_rows: usize,
    /// Number of columns.
    pub columns: usize,
}

impl OracleLayout {
    /// The fewest rows, a power of two and at least the role's minimum, that need at most the role's limit of columns.
    pub fn new(parameters: &Parameters, role: Role, index: u32, shapes: Vec<(usize, usize)>) -> Self {
        let (blocks, total) = stack(&shapes);
        let mut log_rows = parameters.min_log_rows(role as usize);
        while parameters.columns(role as usize) << log_rows < total {
            log_rows += 1;
        }
        OracleLayout { role, index, shapes, blocks, log_rows, columns: total.div_ceil(1 << log_rows).max(1) }
    }

    /// As absorbed: role, index, log of the rows, columns, pads and salt bytes (both 0 in plain mode), 4 bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.role as u32, self.index, self.log_rows as u32, self.columns as u32, 0, 0].iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

/// All oracles of a proof as one long vector.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Oracles in the order of their roots.
    pub layouts: Vec<Arc<OracleLayout>>,
    /// First global column of each.
    pub bases: Vec<usize>,
    /// `log2 L_max`.
    pub log_rows: usize,
    /// Bits of a global column.
    pub column_bits: usize,
}

impl Stack {
    /// Oracles take aligned column ranges of their rounded-up widths, widest first, ties in the given order.
    pub fn new(layouts: Vec<Arc<OracleLayout>>) -> Self {
        let width = |o: &OracleLayout| o.columns.next_power_of_two();
        let mut order: Vec<usize> = (0..layouts.len()).collect();
        order.sort_by_key(|&i| core::cmp::Reverse(width(&layouts[i])));
        let (mut bases, mut at) = (vec![0; layouts.len()], 0);
        for i in order {
            bases[i] = at;
            at += width(&layouts[i]);
        }
        let log_rows = layouts.iter().map(|o| o.log_rows).max().unwrap_or(0);
        Stack { bases, log_rows, column_bits: log2_ceil(at.max(1)), layouts }
    }

    /// `log2(L_max / L)` of an oracle: rounds in which its cells idle.
    pub fn log_stride(&self, oracle: usize) -> usize {
        self.log_rows - self.layouts[oracle].log_rows
    }

    /// Global index of a block's first cell.
    pub fn index(&self, oracle: usize, block: &Block) -> usize {
        (self.bases[oracle] << self.log_rows) + (block.offset << self.log_stride(oracle))
    }
}
