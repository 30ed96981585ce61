//! What a program is compiled to: storages, views, lookups, tables and accumulators as data, no code per operator.

use std::sync::Arc;

use crate::program::{AccId, Contract, TensorId};

/// Index into [`super::Layout::storages`].
pub type StorageId = usize;
/// Index into [`super::Layout::tables`].
pub type TableRef = usize;

/// Which oracle holds a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Made anew for each proof.
    Witness,
    /// A committed statement tensor: the port's number, inputs before outputs.
    Port(usize),
    /// Weights and biases.
    Model,
    /// The same in another commitment, counted from 1: a link shows that both hold the same.
    Fresh(u32),
}

/// A committed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Rows.
    pub positions: usize,
    /// Columns.
    pub channels: usize,
    /// Where it is committed.
    pub home: Home,
}

/// An increasing or arbitrary list of indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Index {
    /// `start .. start + len`
    Range(usize, usize),
    /// Any list.
    List(Arc<[u32]>),
}

impl Index {
    /// All of `0..n`.
    pub fn all(n: usize) -> Self {
        Index::Range(0, n)
    }

    /// The shortest form of a list.
    pub fn from_list(list: Vec<u32>) -> Self {
        let consecutive = list.windows(2).all(|w| w[1] == w[0] + 1);
        match list.first() {
            Some(&first) if consecutive => Index::Range(first as usize, list.len()),
            _ => Index::List(list.into()),
        }
    }

    /// Number of indices.
    pub fn len(&self) -> usize {
        match self {
            Index::Range(_, n) => *n,
            Index::List(l) => l.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th index.
    pub fn get(&self, i: usize) -> usize {
        match self {
            Index::Range(start, _) => start + i,
            Index::List(l) => l[i] as usize,
        }
    }

    /// All indices in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// `tensor[tensor_positions[i], tensor_channels[j]] = storage[storage_positions[i], storage_channels[j]]`.
#[derive(Clone, Debug)]
pub struct ViewPiece {
    /// Storage.
    pub storage: StorageId,
    /// Positions of the tensor.
    pub tensor_positions: Index,
    /// Positions of the storage, which may repeat (broadcast).
    pub storage_positions: Index,
    /// Channels of the tensor.
    pub tensor_channels: Index,
    /// Channels of the storage.
    pub storage_channels: Index,
}

/// A tensor as a view of storages plus public rank-one terms.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Rows.
    pub positions: usize,
    /// Columns.
    pub channels: usize,
    /// Disjoint pieces.
    pub pieces: Vec<ViewPiece>,
    /// `(u, v)` adds `u[p] v[c]`: constant channels and fills.
    pub constants: Vec<(Vec<i64>, Vec<i64>)>,
}

/// What a term multiplies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// 1.
    One,
    /// A storage of the lookup's own channels.
    Local(StorageId),
    /// A storage with one channel, broadcast over the lookup's channels.
    Broadcast(StorageId),
    /// The sum of a storage's channels, for lookups with one channel.
    RowSum(StorageId),
    /// The sum of the storage's row whose number is the lookup's channel, for lookups with one position over all channels.
    RowSums(StorageId),
    /// The sum of the storage's column, for lookups with one position over all channels.
    ColumnSums(StorageId),
    /// A tensor at the lookup's channels.
    Tensor(TensorId),
    /// An accumulator at the lookup's channels.
    Accumulator(usize),
}

/// How the lookup's positions meet the source's.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Position `i` reads position `i`.
    Same,
    /// Position `i` reads position `index[i]`.
    Gather(Index),
    /// Position `index[j]` reads position `j`; other positions read 0.
    Scatter(Index),
}

/// `scale * by_position[p] * by_channel[c] * source[p, c]`, vectors over the lookup's own shape.
#[derive(Clone, Debug)]
pub struct Term {
    /// Factor.
    pub scale: i64,
    /// What.
    pub source: Source,
    /// Which of its rows.
    pub rows: Rows,
    /// Factor for each position.
    pub by_position: Option<Vector>,
    /// Factor for each channel.
    pub by_channel: Option<Vector>,
}

/// A public vector with its number in the layout: terms with the same vector share one functional.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Number.
    pub id: usize,
    /// Values.
    pub values: Arc<[i64]>,
}

impl Term {
    /// `scale * source`.
    pub fn new(scale: i64, source: Source) -> Self {
        Term { scale, source, rows: Rows::Same, by_position: None, by_channel: None }
    }

    /// With a factor for each channel, or each position.
    pub fn weighted(mut self, vector: &Vector, by_position: bool) -> Self {
        if by_position {
            self.by_position = Some(vector.clone());
        } else {
            self.by_channel = Some(vector.clone());
        }
        self
    }

    /// With another row map.
    pub fn rows(mut self, rows: Rows) -> Self {
        self.rows = rows;
        self
    }

    /// The same term times `factor`.
    pub fn times(&self, factor: i64) -> Self {
        Term { scale: self.scale * factor, ..self.clone() }
    }
}

/// `(table id, entries...)` is a row of the table at every position and channel. Entries are virtual columns: sums of terms.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The table.
    pub table: TableRef,
    /// Rows.
    pub positions: usize,
    /// Channels of tensors and accumulators that the lookup's channels stand for.
    pub channels: Index,
    /// One sum of terms for each column of the table.
    pub entries: Vec<Vec<Term>>,
    /// Number of the channel set: lookups with the same number have the same `channels`.
    pub group: usize,
}

/// A table column as a function of the row.
#[derive(Clone, Debug)]
pub enum Column {
    /// `(from, c0, c1)`: rows from `from` on hold `c0 + c1 * row`.
    Steps(Vec<(usize, i64, i64)>),
    /// Value of each row.
    Values(Arc<[i64]>),
}

/// What a table holds: the key under which operators share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// `x` in `[0, 2^w)`.
    Range,
    /// `x` in a dtype.
    DType(crate::program::DType),
    /// `(v', clamp(v', lo, hi))`.
    Clamp(i32, i32),
    /// `(v', clamp(v', lo, hi))` for `v'` in `[-2^bits, 2^bits)`: lo, hi and bits of a private layer.
    Bounded(i32, i32, u8),
    /// `(v, max(v, 0))` for int8 `v`.
    Relu,
    /// `(v, [v <= 0], [v < 0])`.
    Sign,
    /// `(row, T[row])` of the program's table.
    Program(u32),
    /// `(d, [d = 0])` for `d` in 0..256.
    Difference,
    /// `(d, exp, rounded exp, [d = 0])` for a softmax multiplier and shift.
    Exp(i32, u8),
    /// `(hz - 4, 2^hz, 2^(34 - hz))` for `hz` in 4..=12.
    Powers,
    /// The single row 0.
    Zero,
}

/// A table of `2^log_rows` rows whose first column determines the row.
#[derive(Clone, Debug)]
pub struct Table {
    /// Kind; the table's number plus 1 is its id in tuples.
    pub kind: TableKind,
    /// `log2` of the number of rows.
    pub log_rows: usize,
    /// Value of the first column at row 0 (it rises by 1 a row).
    pub first: i64,
    /// Columns.
    pub columns: Vec<Column>,
    /// Multiplicities: `2^ceil(w/2) x 2^floor(w/2)`.
    pub multiplicities: StorageId,
}

impl Table {
    /// Value of column `j` at `row`.
    pub fn value(&self, j: usize, row: usize) -> i64 {
        match &self.columns[j] {
            Column::Values(v) => v[row],
            Column::Steps(steps) => {
                let at = steps.partition_point(|s| s.0 <= row) - 1;
                steps[at].1 + steps[at].2 * row as i64
            }
        }
    }
}

/// An accumulator: linear or bilinear in tensors and constants, or a product of two sums of terms.
#[derive(Clone, Debug)]
pub struct Accumulator {
    /// Rows.
    pub positions: usize,
    /// Columns.
    pub channels: usize,
    /// How it is made.
    pub kind: AccumulatorKind,
}

/// See [`Accumulator`].
#[derive(Clone, Debug)]
pub enum AccumulatorKind {
    /// A contraction of the program; weights and biases may be committed.
    Contract {
        /// Its number in the program (and in the executor's trace).
        acc: AccId,
        /// Definition.
        contract: Contract,
        /// Storage of the weights, where committed.
        weights: Option<StorageId>,
        /// Storage of the biases, where committed.
        bias: Option<StorageId>,
    },
    /// `a * b`, elementwise.
    Product {
        /// First factor.
        a: Vec<Term>,
        /// Second factor.
        b: Vec<Term>,
    },
}

/// Two tensors hold the same elements. Proved at a random point.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Source.
    pub source: TensorId,
    /// The tensor that is one storage, which holds the copy.
    pub copy: TensorId,
    /// Which element is which.
    pub order: Order,
}

/// How the elements of a copy lie, which decides the point at which it is compared with its source.
#[derive(Clone, Debug)]
pub enum Order {
    /// `source` read as `dims`, transposed by `perm`, is `copy`: every dimension has coordinates of its own.
    Refined {
        /// Common refinement of both shapes.
        dims: Vec<usize>,
        /// Output dimension `i` is source dimension `perm[i]`.
        perm: Vec<usize>,
    },
    /// Both are the same list, row-major, in shapes that have no common refinement: element `i` has the weight `tau^i`, which is
    /// `(tau^C)^p tau^c` for rows of any length `C`.
    RowMajor,
}
