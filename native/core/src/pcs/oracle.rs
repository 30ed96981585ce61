//! Oracles: storages of one role laid out as columns of message coefficients, encoded and committed.
//!
//! The blocks of the storages ([`crate::blocks`]) fill one long vector; cut into pieces of `L` cells it gives the columns. The message is the
//! data: cell `c L + i` of the long vector is the coefficient of `X^i` in column `c`. `L` is the smallest power of two, at least a minimum,
//! that needs at most the role's limit of columns. Cells that no value fills are 0 in an honest message and have no weight in any claim.

use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;

use super::cells::Cells;
use super::code::{Code, Leaf};
use crate::blocks::{Block, stack};
use crate::field::F;
use crate::hash::{Digest, MAX_LEAF_COLUMNS};
use crate::ntt::{self, PANEL};
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};

/// What an oracle holds; leaves are hashed under a key of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The cells of one proof.
    Witness = 0,
    /// A committed input or output: one role for both, so that the output of one proof can be the input of the next.
    Tensor = 1,
    /// Weights.
    Model = 2,
    /// Parameters of a training run.
    Parameters = 3,
}

impl Role {
    /// The name in keys and messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Witness => "witness",
            Role::Tensor => "tensor",
            Role::Model => "model",
            Role::Parameters => "parameters",
        }
    }
}

/// Where the storages of an oracle lie: a function of their shapes and the parameter set.
#[derive(Clone, Debug)]
pub struct OracleLayout {
    /// The role.
    pub role: Role,
    /// Which oracle of that role.
    pub index: u32,
    /// `(positions, channels)` of each storage, neither 0.
    pub shapes: Vec<(usize, usize)>,
    /// Blocks of all storages; the owner is an index into `shapes`.
    pub blocks: Vec<Block>,
    /// `log2(L)`.
    pub log_rows: usize,
    /// Columns, at least 1.
    pub columns: usize,
}

impl OracleLayout {
    /// Lays out storages of the given shapes; their total size is bounded by the program's checks.
    pub fn new(params: &Parameters, role: Role, index: u32, shapes: Vec<(usize, usize)>) -> OracleLayout {
        let (blocks, total) = stack(&shapes);
        let limit = params.columns(role as usize).min(MAX_LEAF_COLUMNS);
        let mut log_rows = params.min_log_rows(role as usize);
        while limit << log_rows < total {
            log_rows += 1;
        }
        let columns = total.div_ceil(1 << log_rows).max(1);
        OracleLayout { role, index, shapes, blocks, log_rows, columns }
    }

    /// `log2` of the code's length.
    pub fn log_domain(&self) -> usize {
        self.log_rows + ORACLE_LOG_BLOWUP
    }

    /// Cells of the long vector, unused ones included.
    pub fn cells(&self) -> usize {
        self.columns << self.log_rows
    }

    /// What the transcript absorbs beside the root: role, index, log of the domain, columns, pads, whether leaves are salted; each in 4
    /// little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.role as u32, self.index, self.log_domain() as u32, self.columns as u32, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    pub(crate) fn leaf(&self) -> Leaf {
        Leaf { role: self.role.name(), columns: self.columns }
    }
}

/// Rows of the message that are transposed together.
const STRIP: usize = 16;

/// A committed oracle as its committer keeps it.
pub struct Committed {
    /// Where everything lies.
    pub layout: Arc<OracleLayout>,
    /// The Merkle root.
    pub root: Digest,
    /// The long vector.
    pub(crate) cells: Cells,
    pub(crate) code: Code,
}

#[cfg(feature = "attacks")]
impl Committed {
    /// This code word and root over the cells of another oracle: what is opened is not what is committed.
    pub fn over_cells_of(self, other: Committed) -> Committed {
        Committed { cells: other.cells, ..self }
    }
}

/// Commits to the storages' values, row-major `positions x channels` each.
///
/// # Panics
/// If the values do not have the layout's shapes, or the layout is none of this parameter set.
pub fn commit(params: &Parameters, layout: Arc<OracleLayout>, values: &[&[F]]) -> Committed {
    assert!(layout.columns <= params.columns(layout.role as usize), "the layout is one of this parameter set");
    assert_eq!(values.len(), layout.shapes.len(), "one slice for each storage");
    for (v, (positions, channels)) in values.iter().zip(&layout.shapes) {
        assert_eq!(v.len(), positions * channels, "a storage's values have its shape");
    }
    let cells = Cells::new(&layout, values);
    let rows = 1usize << layout.log_rows;
    let words = ntt::encode(layout.columns, layout.log_rows, layout.log_domain(), |panel, row, out| {
        // A piece of each column, then transposed.
        let mut columns = [[F::ZERO; STRIP]; PANEL];
        for (row, out) in (row..).step_by(STRIP).zip(out.chunks_mut(STRIP)) {
            for (c, piece) in (panel * PANEL..layout.columns).zip(&mut columns) {
                let at = c * rows + row;
                cells.read(at..at + out.len(), piece);
            }
            for (i, to) in out.iter_mut().enumerate() {
                *to = core::array::from_fn(|c| columns[c][i]);
            }
        }
    });
    let code = Code::new(layout.leaf(), words);
    Committed { root: code.root(), layout, cells, code }
}
