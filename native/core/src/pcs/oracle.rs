//! Oracles: storages of one role laid out as columns of message coefficients, encoded and committed.
//!
//! The blocks of the storages ([`crate::blocks`]) fill one long vector; cut into pieces of `L` cells it gives the columns. The message is the
//! data: cell `c L + i` of the long vector is the coefficient of `X^i` in column `c`. `L` is the smallest power of two, at least a minimum,
//! that needs at most the role's limit of columns. Cells that no value fills are 0 in an honest message and have no weight in any claim.
//!
//! *Hiding.* Rows that are opened must show nothing of the data, so that a hiding oracle has random coefficients, as many for each column as
//! rows of it are ever opened, with consecutive exponents (any such rows are then independent of the data: the matrix between them is a
//! Vandermonde matrix with rows scaled). They are either beyond the message, for an oracle of one proof, or the second half of it, for a kept
//! one. Leaves have salts. An oracle of one proof carries the mask and the line's two columns too ([`crate::masking`]).

use std::ops::ControlFlow;
use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;

use super::cells::Cells;
use super::code::{Code, Leaf};
use super::fresh::Fresh;
use crate::blocks::{Block, stack_cut};
use crate::control::{Control, Gauge, stretch};
use crate::field::F;
use crate::hash::{Digest, MAX_LEAF_COLUMNS};
use crate::ntt::{self, PANEL, Row};
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};
use crate::random::{Randomness, Seed};

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

/// What opened rows show of an oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hiding {
    /// Data: for plain proofs, and for weights that are public.
    None,
    /// Nothing, for one proof. The oracle has as many rows as the longest of the proof that hides: what is secret of their combination its mask
    /// covers.
    Fresh {
        /// Random coefficients of each column beyond the message.
        pads: usize,
        /// Degree of `K`: base columns of the mask and of each of the line's two columns.
        degree: usize,
    },
    /// Nothing, as long as no more distinct rows are opened by all proofs together than half of the message has.
    Kept,
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
    /// Columns of data, at least 1.
    pub columns: usize,
    /// What opened rows show.
    pub hiding: Hiding,
}

impl OracleLayout {
    /// Lays out storages of the given shapes; their total size is bounded by the program's checks.
    pub fn new(params: &Parameters, role: Role, index: u32, shapes: Vec<(usize, usize)>, hiding: Hiding) -> OracleLayout {
        Self::with_rows(params, role, index, shapes, hiding, 0)
    }

    /// [`Self::new`] with at least `2^log_rows` rows.
    pub fn with_rows(
        params: &Parameters,
        role: Role,
        index: u32,
        shapes: Vec<(usize, usize)>,
        hiding: Hiding,
        log_rows: usize,
    ) -> OracleLayout {
        let halves = usize::from(hiding == Hiding::Kept);
        let total = stack_cut(&shapes, usize::MAX).1;
        let limit = params.columns(role as usize).min(MAX_LEAF_COLUMNS);
        let mut log_rows = log_rows.max(params.min_log_rows(role as usize, hiding != Hiding::None));
        while limit << (log_rows - halves) < total {
            log_rows += 1;
        }
        // Data in the first half of each column of a kept oracle.
        let used = log_rows - halves;
        let (mut blocks, total) = stack_cut(&shapes, if hiding == Hiding::Kept { 1 << used } else { usize::MAX });
        for b in &mut blocks {
            b.offset = (b.offset >> used << log_rows) + (b.offset & ((1 << used) - 1));
        }
        let columns = total.div_ceil(1 << used).max(1);
        OracleLayout { role, index, shapes, blocks, log_rows, columns, hiding }
    }

    /// The same storages in an oracle of at least `2^log_rows` rows.
    pub(crate) fn lengthened(&self, params: &Parameters, log_rows: usize) -> OracleLayout {
        Self::with_rows(params, self.role, self.index, self.shapes.clone(), self.hiding, log_rows)
    }

    /// Random coefficients of each column beyond the message.
    pub(crate) fn pads(&self) -> usize {
        if let Hiding::Fresh { pads, .. } = self.hiding { pads } else { 0 }
    }

    /// Whether it carries the mask and the line.
    pub(crate) fn has_mask(&self) -> bool {
        matches!(self.hiding, Hiding::Fresh { .. })
    }

    /// Columns of the stack: those of data, and the mask.
    pub(crate) fn stack_columns(&self) -> usize {
        self.columns + usize::from(self.has_mask())
    }

    /// Offset and size of the random blocks of a kept oracle: the second half of each column.
    pub(crate) fn random_blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, kept) = (1 << self.log_rows, self.hiding == Hiding::Kept);
        (0..self.columns).filter(move |_| kept).map(move |c| (c * rows + rows / 2, rows / 2))
    }

    /// How many distinct rows of a kept oracle may ever be opened.
    pub fn budget(&self) -> usize {
        if self.hiding == Hiding::Kept { 1 << (self.log_rows - 1) } else { 0 }
    }

    /// `log2` of the code's length.
    pub fn log_domain(&self) -> usize {
        self.log_rows + ORACLE_LOG_BLOWUP
    }

    /// Cells of the long vector, unused ones included.
    pub fn cells(&self) -> usize {
        self.columns << self.log_rows
    }

    /// What the transcript absorbs beside the root: role, index, log of the domain, columns, pads, whether leaves are salted, whether half of
    /// the rows are random; each in 4 little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (pads, salted, kept) = match self.hiding {
            Hiding::None => (0, 0, 0),
            Hiding::Fresh { pads, .. } => (pads as u32, 1, 0),
            Hiding::Kept => (0, 1, 1),
        };
        [self.role as u32, self.index, self.log_domain() as u32, self.columns as u32, pads, salted, kept]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect()
    }

    /// What tells this commitment of some values from another: parameter set, role, size and shapes. Not the index: an output is the next
    /// proof's input.
    fn commitment(&self, params: &Parameters) -> Vec<u8> {
        let mut out = params.to_bytes();
        let numbers = [self.role as usize, self.log_rows, self.columns].into_iter().chain(self.shapes.iter().flat_map(|&(p, c)| [p, c]));
        out.extend(numbers.flat_map(|n| (n as u64).to_le_bytes()));
        out
    }

    pub(crate) fn leaf(&self) -> Leaf {
        let more = if let Hiding::Fresh { degree, .. } = self.hiding { 3 * degree } else { 0 };
        Leaf { role: self.role.name(), columns: self.columns + more, salted: self.hiding != Hiding::None }
    }
}

/// What of a commitment's time is encoding; the rest is hashing.
const ENCODING: f64 = 0.6;
/// Twice the rows of panels from which on encoding is worth a report.
const REPORTED: usize = 1 << 17;
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
    /// What an oracle of one proof has beside its cells.
    pub(crate) fresh: Option<Fresh>,
}

#[cfg(feature = "attacks")]
impl Committed {
    /// This code word and root over the cells of another oracle: what is opened is not what is committed.
    pub fn over_cells_of(self, other: Committed) -> Committed {
        Committed { cells: other.cells, ..self }
    }
}

/// Where the secrets of a hiding oracle come from.
pub enum Secret<'a> {
    /// Not hiding.
    None,
    /// One proof's.
    Fresh(Drawn),
    /// Random cells and salts are functions of the seed, of what is committed and how.
    Kept(&'a Seed),
}

/// Pads, mask, line and salts of one proof's oracle.
pub struct Drawn {
    fresh: Fresh,
    salts: Seed,
}

impl Drawn {
    /// For an oracle of [`Hiding::Fresh`], whose proof masks so many messages.
    ///
    /// # Panics
    /// If the layout is another.
    pub fn new(random: &mut Randomness, layout: &OracleLayout, messages: usize) -> Drawn {
        let Hiding::Fresh { pads, degree } = layout.hiding else { panic!("the oracle of one proof") };
        Drawn { fresh: Fresh::new(random, layout.columns, layout.log_rows, pads, degree, messages), salts: random.seed() }
    }
}

/// Commits to the storages' values, row-major `positions x channels` each.
///
/// # Panics
/// If the values do not have the layout's shapes, or layout and secret are none of this parameter set or do not belong together.
pub fn commit(params: &Parameters, layout: Arc<OracleLayout>, values: &[&[F]], secret: Secret<'_>) -> Committed {
    commit_heard(params, layout, values, secret, &mut |_| ControlFlow::Continue(())).continue_value().expect("nobody stops it")
}

/// [`commit`] of which `control` hears.
///
/// # Panics
/// As [`commit`].
pub fn commit_heard(
    params: &Parameters,
    layout: Arc<OracleLayout>,
    values: &[&[F]],
    secret: Secret<'_>,
    control: Control<'_>,
) -> ControlFlow<(), Committed> {
    assert!(layout.columns <= params.columns(layout.role as usize), "the layout is one of this parameter set");
    assert_eq!(values.len(), layout.shapes.len(), "one slice for each storage");
    for (v, (positions, channels)) in values.iter().zip(&layout.shapes) {
        assert_eq!(v.len(), positions * channels, "a storage's values have its shape");
    }
    let (fresh, salts, random) = match (secret, layout.hiding) {
        (Secret::None, Hiding::None) => (None, None, Vec::new()),
        (Secret::Kept(seed), Hiding::Kept) => {
            let seed = seed.bound_to(&layout.commitment(params), values);
            let random = seed.elements(0, layout.cells() / 2);
            (None, Some(seed), random)
        }
        (Secret::Fresh(Drawn { fresh, salts }), Hiding::Fresh { .. }) => (Some(fresh), Some(salts), Vec::new()),
        _ => panic!("the secret belongs to the layout"),
    };
    encoded(layout, values, fresh, salts, &random, control)
}

/// [`commit`] with all secrets given.
#[cfg(test)]
pub(crate) fn assemble(layout: Arc<OracleLayout>, values: &[&[F]], fresh: Option<Fresh>, salts: Option<Seed>, random: &[F]) -> Committed {
    encoded(layout, values, fresh, salts, random, &mut |_| ControlFlow::Continue(())).continue_value().expect("nobody stops it")
}

/// Encodes and hashes.
fn encoded(
    layout: Arc<OracleLayout>,
    values: &[&[F]],
    fresh: Option<Fresh>,
    salts: Option<Seed>,
    random: &[F],
    control: Control<'_>,
) -> ControlFlow<(), Committed> {
    let cells = Cells::new(&layout, values, random);
    let rows = 1usize << layout.log_rows;
    let leaf = layout.leaf();
    let load = |panel: usize, row: usize, out: &mut [Row]| {
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
            // Panels of data have nothing else.
            if let Some(fresh) = fresh.as_ref().filter(|_| (panel + 1) * PANEL > layout.columns) {
                out.iter_mut().enumerate().for_each(|(i, to)| fresh.add_columns(panel, row + i, to));
            }
        }
    };
    let tail = |panel: usize| fresh.as_ref().map_or(Vec::new(), |fresh| fresh.tail(panel));
    let mut encoding = stretch(control, 0.0, ENCODING);
    let gauge = Gauge::new(&mut encoding, ntt::encoding_work(leaf.columns, layout.log_domain()), REPORTED);
    let words = ntt::encode_heard(leaf.columns, layout.log_rows, layout.log_domain(), load, tail, &gauge);
    gauge.end()?;
    drop(encoding);
    let code = Code::heard(leaf, words, salts, &mut stretch(control, ENCODING, 1.0))?;
    ControlFlow::Continue(Committed { root: code.root(), layout, cells, code, fresh })
}
