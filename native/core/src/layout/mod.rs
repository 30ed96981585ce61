//! Program -> everything public about its proofs: what is committed, which lookups hold, which tables exist. No witness here.

mod arithmetic;
mod pool;
mod recipe;
mod registration;
mod softmax;
mod tables;
mod types;
mod views;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use pool::taps;
pub use recipe::{LimbRecipe, Recipe, RescaleCells, SoftmaxCells};
pub use types::{
    Accumulator, AccumulatorKind, Column, Copy, Home, Index, Lookup, Order, Rows, Source, Storage, StorageId, Table, TableKind, TableRef,
    Term, Vector, View, ViewPiece,
};

use crate::program::{AccId, ConstId, Contract, Op, Program, TensorId};

/// A program that cannot be proved as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operator {operator}: {why}")]
pub struct LayoutError {
    /// Name of the operator's output tensor.
    pub operator: String,
    /// Reason.
    pub why: String,
}

/// How the ports and weights of a statement enter the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// For each input, then each output: committed (else clear).
    pub committed: Vec<bool>,
    /// Whether weights and biases are in the model oracle (else public).
    pub committed_weights: bool,
}

/// The public structure of a proof.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How ports and weights enter.
    pub form: Form,
    /// Whether committed weights are their owner's secret.
    pub private: bool,
    /// Committed matrices.
    pub storages: Vec<Storage>,
    /// One view for each tensor.
    pub views: Vec<View>,
    /// Accumulators; the program's own come first, by [`AccId`].
    pub accumulators: Vec<Accumulator>,
    /// Lookups in program order.
    pub lookups: Vec<Lookup>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Copies to prove at a random point.
    pub copies: Vec<Copy>,
    /// Input tensors, then output tensors.
    pub ports: Vec<TensorId>,
    /// Storage of each committed port.
    pub port_storages: Vec<Option<StorageId>>,
    /// How the prover fills the storages.
    pub recipes: Vec<Recipe>,
    /// `w`.
    pub range_bits: usize,
}

impl Layout {
    /// Compiles a checked program. The result is a function of `program` and `form` only.
    pub fn new(program: &Program, form: Form) -> Result<Layout, LayoutError> {
        let ports = program.inputs.iter().chain(&program.outputs).map(|p| p.tensor).collect();
        let mut b = Builder::new(program, form, ports, program.range_bits as usize);
        b.inputs()?;
        for op in &program.ops {
            b.op(op)?;
        }
        b.outputs();
        Ok(b.out)
    }

    /// Committed cells of the witness oracle.
    pub fn cells(&self) -> usize {
        self.storages.iter().filter(|s| s.home == Home::Witness).map(|s| s.positions * s.channels).sum()
    }

    /// Number of lookups, table rows not counted.
    pub fn lookup_count(&self) -> usize {
        self.lookups.iter().map(|l| l.positions * l.channels.len()).sum()
    }

    /// Width of the widest tuple, the table id included.
    pub fn tuple_width(&self) -> usize {
        1 + self.tables.iter().map(|t| t.columns.len()).max().unwrap_or(0)
    }
}

/// Pieces, and public rank-one terms, of one tensor's view at most.
const VIEW_TERMS: usize = 1 << 12;
/// Index-list steps that all views and max pools of a program may take together: a small key must not cost much.
const STEPS: usize = 1 << 28;

struct Builder<'a> {
    program: &'a Program,
    out: Layout,
    tables: HashMap<TableKind, TableRef>,
    constants: HashMap<ConstId, StorageId>,
    contracts: HashMap<AccId, usize>,
    vectors: usize,
    groups: usize,
    steps: usize,
}

impl<'a> Builder<'a> {
    fn new(program: &'a Program, form: Form, ports: Vec<TensorId>, range_bits: usize) -> Self {
        Builder {
            program,
            out: Layout {
                storages: Vec::new(),
                views: vec![View::default(); program.tensors.len()],
                accumulators: Vec::new(),
                lookups: Vec::new(),
                tables: Vec::new(),
                copies: Vec::new(),
                ports,
                port_storages: Vec::new(),
                recipes: Vec::new(),
                range_bits,
                form,
                private: program.private.is_some(),
            },
            tables: HashMap::new(),
            constants: HashMap::new(),
            contracts: HashMap::new(),
            vectors: 0,
            groups: 0,
            steps: STEPS,
        }
    }
}

impl Builder<'_> {
    fn op(&mut self, op: &Op) -> Result<(), LayoutError> {
        match op {
            Op::Contract { acc, contract } => {
                self.contract(*acc, contract);
                Ok(())
            }
            Op::Rescale(r) => self.rescale(r),
            Op::Lookup { inputs, out, table } => self.map(inputs, *out, *table),
            Op::Softmax { x, out, multiplier, shift } => self.softmax(*x, *out, *multiplier, *shift),
            Op::MaxPool { x, out, window, clamp } => self.max_pool(*x, *out, window, *clamp),
            Op::View { out, pieces, fill } => self.view(*out, pieces, *fill),
            Op::Permute { x, out, dims, perm } => self.permute(*x, *out, dims, perm),
        }
    }

    fn fail(&self, out: TensorId, why: impl Into<String>) -> LayoutError {
        LayoutError { operator: self.program.tensors[out as usize].name.clone(), why: why.into() }
    }

    /// Draws down the budget of index-list steps.
    fn spend(&mut self, out: TensorId, steps: usize) -> Result<(), LayoutError> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(self.fail(out, "the program's views and max pools are too large")),
        }
    }

    /// A sum of `n` bits, less 1, is looked up in the range table: it must fit there.
    fn counts(&self, out: TensorId, n: usize) -> Result<(), LayoutError> {
        if n <= 1 << self.out.range_bits {
            return Ok(());
        }
        Err(self.fail(out, format!("the range table of 2^{} rows cannot count {n} cells", self.out.range_bits)))
    }

    fn storage(&mut self, positions: usize, channels: usize, home: Home) -> StorageId {
        self.out.storages.push(Storage { positions, channels, home });
        self.out.storages.len() - 1
    }

    fn witness(&mut self, positions: usize, channels: usize) -> StorageId {
        self.storage(positions, channels, Home::Witness)
    }

    fn shape(&self, tensor: TensorId) -> (usize, usize) {
        let t = &self.program.tensors[tensor as usize];
        (t.positions(), t.channels())
    }

    /// A tensor that is one storage of its own.
    fn whole(&mut self, tensor: TensorId, storage: StorageId) {
        let (p, c) = self.shape(tensor);
        self.out.views[tensor as usize] = View {
            positions: p,
            channels: c,
            pieces: vec![ViewPiece {
                storage,
                tensor_positions: Index::all(p),
                storage_positions: Index::all(p),
                tensor_channels: Index::all(c),
                storage_channels: Index::all(c),
            }],
            constants: Vec::new(),
        };
    }

    fn vector(&mut self, values: Vec<i64>) -> Vector {
        self.vectors += 1;
        Vector { id: self.vectors, values: Arc::from(values) }
    }

    fn group(&mut self) -> usize {
        self.groups += 1;
        self.groups
    }

    fn lookup(&mut self, table: TableRef, positions: usize, channels: &Index, group: usize, entries: Vec<Vec<Term>>) {
        self.out.lookups.push(Lookup { table, positions, channels: channels.clone(), group, entries });
    }

    fn inputs(&mut self) -> Result<(), LayoutError> {
        for (i, port) in self.program.inputs.iter().enumerate() {
            let (p, c) = self.shape(port.tensor);
            let committed = self.out.form.committed[i];
            let storage = self.storage(p, c, if committed { Home::Port(i) } else { Home::Witness });
            self.out.port_storages.push(committed.then_some(storage));
            self.out.recipes.push(Recipe::Tensor { storage, tensor: port.tensor });
            self.whole(port.tensor, storage);
            let dtype = self.program.tensors[port.tensor as usize].dtype;
            let table = self.table(TableKind::DType(dtype))?;
            let group = self.group();
            self.lookup(table, p, &Index::all(c), group, vec![vec![Term::new(1, Source::Tensor(port.tensor))]]);
        }
        Ok(())
    }

    fn outputs(&mut self) {
        for (j, port) in self.program.outputs.iter().enumerate() {
            let i = self.program.inputs.len() + j;
            if !self.out.form.committed[i] {
                self.out.port_storages.push(None);
                continue;
            }
            let (p, c) = self.shape(port.tensor);
            let storage = self.storage(p, c, Home::Port(i));
            self.out.port_storages.push(Some(storage));
            self.out.recipes.push(Recipe::Tensor { storage, tensor: port.tensor });
        }
    }

    /// The model-oracle storage of a constant, or `None` when weights are public.
    fn constant(&mut self, id: ConstId) -> Option<StorageId> {
        if !self.out.form.committed_weights {
            return None;
        }
        if let Some(&s) = self.constants.get(&id) {
            return Some(s);
        }
        let (p, c) = constant_shape(&self.program.constants[id as usize].dims);
        let storage = self.storage(p, c, Home::Model);
        self.constants.insert(id, storage);
        self.out.recipes.push(Recipe::Constant { storage, constant: id });
        Some(storage)
    }

    fn contract(&mut self, acc: AccId, contract: &Contract) {
        let shape = self.program.accumulators[acc as usize];
        let (weights, bias) = match contract {
            Contract::Conv { weights, bias, .. } | Contract::Depthwise { weights, bias, .. } => {
                (self.constant(*weights), bias.and_then(|b| self.constant(b)))
            }
            Contract::Sum { .. } | Contract::Mix { .. } => (None, None),
        };
        self.contracts.insert(acc, self.out.accumulators.len());
        self.out.accumulators.push(Accumulator {
            positions: shape.positions as usize,
            channels: shape.channels as usize,
            kind: AccumulatorKind::Contract { acc, contract: contract.clone(), weights, bias },
        });
        self.out.recipes.push(Recipe::Accumulator(self.out.accumulators.len() - 1));
    }

    /// `y = T[x]` or `T[x1, x2]`: the row number is an affine form in the inputs.
    fn map(&mut self, inputs: &[TensorId], out: TensorId, table: u32) -> Result<(), LayoutError> {
        let (p, c) = self.shape(out);
        let y = self.witness(p, c);
        self.out.recipes.push(Recipe::Tensor { storage: y, tensor: out });
        self.whole(out, y);
        let low = |t: &TensorId| i64::from(self.program.tensors[*t as usize].dtype.range().0);
        let mut row = Vec::new();
        let mut factor = 1i64 << (8 * (inputs.len() - 1));
        for x in inputs {
            row.push(Term::new(factor, Source::Tensor(*x)));
            row.push(Term::new(-low(x) * factor, Source::One));
            factor >>= 8;
        }
        let table = self.table(TableKind::Program(table))?;
        let group = self.group();
        self.lookup(table, p, &Index::all(c), group, vec![row, vec![Term::new(1, Source::Local(y))]]);
        Ok(())
    }
}

/// Constants as matrices: conv `[O, KH, KW, C]` by output channel, depthwise `[KH, KW, C m]` by tap, bias as one row.
pub fn constant_shape(dims: &[u32]) -> (usize, usize) {
    let d: Vec<usize> = dims.iter().map(|&x| x as usize).collect();
    match d.len() {
        0 => (1, 1),
        1 => (1, d[0]),
        3 => (d[0] * d[1], d[2]),
        _ => (d[0], d[1..].iter().product()),
    }
}
