//! A malicious prover: an honest run that is changed somewhere, and the honest algorithm otherwise.
//!
//! [`Forgery::outcome`] is the honest verifier's verdict. [`Forgery::without`] is the verdict of a world in which a constraint is missing on
//! both sides: the same forgery must be accepted there, which shows that the attack tests that constraint.
//!
//! Every verdict is that of both modes: each forgery is made and judged as a plain proof and as a zero-knowledge one. Every attack on
//! inference is made on both kinds of weights ([`Victim::each`]): public ones, and those of a private, registered program, whose lines and
//! tables are others.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nexus_edge_core::channel::Tamper;
use nexus_edge_core::exec::{Executor, Trace};
use nexus_edge_core::field::{F, centred, from_i64};
use nexus_edge_core::layout::{Home, Index, Layout, Lookup, Recipe, RescaleCells, SoftmaxCells, Source, StorageId, TableKind};
use nexus_edge_core::masking::EQUATIONS;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{Line, Op, Program, TensorId, Weights};
use nexus_edge_core::proof::{
    Cheat, Compiled, ProvingKey, Secrets, Shown, Statement, prove_forged, register, verify, verify_compiled, verify_lapsed,
    verify_registration,
};
use nexus_edge_core::prover::values::{Witness, accumulator, tensor};
use nexus_edge_core::prover::witness::{count, fill};
use nexus_edge_core::reject::{Reject, Verdict};

use crate::support::private::private_form;

/// The context of every forged statement.
pub const CONTEXT: [u8; 32] = [7; 32];

/// Where a false tuple is noticed: the fractions do not sum to 0, so that the tree's first layer does not close.
pub const LOOKUPS: Verdict<()> = Err(Reject::Equation("GKR layer"));
/// Where cells are noticed that do not satisfy the functionals: ties, copies, contractions of other values than committed ones.
pub const OPENING: Verdict<()> = Err(Reject::Equation("opening sumcheck"));

/// A model whose proofs are forged.
pub struct Victim {
    /// Of plain proofs.
    pub key: ProvingKey,
    /// Of zero-knowledge ones.
    pub zk: ProvingKey,
    pub executor: Executor,
}

/// Whose key proves.
enum Prover<'a> {
    Victim(&'a ProvingKey),
    Other(Box<ProvingKey>),
}

impl Deref for Prover<'_> {
    type Target = ProvingKey;

    fn deref(&self) -> &ProvingKey {
        match self {
            Prover::Victim(key) => key,
            Prover::Other(key) => key,
        }
    }
}

/// The two verdicts on one forgery as one: both accept or both refuse, for the same reason. Which of the equations between masked messages is
/// false does not show.
pub fn same_in_both_modes(judge: impl Fn(Mode) -> Verdict<()>) -> Verdict<()> {
    let (plain, zk) = (judge(Mode::Plain), judge(Mode::Zk));
    match (&plain, &zk) {
        (Err(Reject::Equation(_)), Err(Reject::Equation(EQUATIONS | "value of the combined polynomial"))) => {}
        _ => assert_eq!(plain, zk, "the verdict on a plain proof, and on a zero-knowledge one"),
    }
    plain
}

impl Victim {
    pub fn new((program, weights): (CheckedProgram, Weights), inside: bool) -> Self {
        Self::with_security((program, weights), inside, 100)
    }

    pub fn with_security((program, weights): (CheckedProgram, Weights), inside: bool, security: u32) -> Self {
        let key = |mode| ProvingKey::new(Program::clone(&program), weights.clone(), inside, security, mode).expect("provable");
        let (key, zk) = (key(Mode::Plain), key(Mode::Zk));
        let executor = Executor::new(key.verifying.program().clone(), &weights).expect("weights fit");
        Victim { key, zk, executor }
    }

    /// The model with public weights, inside the key or committed, and the same as a private model.
    pub fn each((program, weights): (CheckedProgram, Weights), inside: bool) -> [Victim; 2] {
        let private = Self::private((program.clone(), weights.clone()));
        [Self::new((program, weights), inside), private]
    }

    /// The model with its weights private, registered.
    pub fn private((program, weights): (CheckedProgram, Weights)) -> Self {
        let victim = Self::new(private_form(&program, &weights).expect("a private form"), false);
        victim.register();
        victim
    }

    /// Shows verifiers that the weights are what the private program assumes of them.
    pub fn register(&self) {
        for key in [&self.key, &self.zk] {
            let registration = register(key, &mut |_, _| true).expect("private").proof;
            key.verifying.admit(&verify_registration(&key.verifying, &registration).expect("honest"));
        }
    }

    pub fn in_mode(&self, mode: Mode) -> &ProvingKey {
        if mode == Mode::Zk { &self.zk } else { &self.key }
    }

    pub fn program(&self) -> &CheckedProgram {
        self.key.verifying.program()
    }

    pub fn tensor(&self, name: &str) -> TensorId {
        let at = self.program().tensors.iter().position(|t| t.name == name);
        at.unwrap_or_else(|| panic!("no tensor {name}")) as TensorId
    }

    /// Inputs committed, outputs clear.
    pub fn forge(&self, inputs: &[&[i16]]) -> Forgery<'_> {
        Forgery::new(self, &self.key, &self.key.verifying.usual_form(), inputs)
    }

    pub fn forge_form(&self, committed: &[bool], inputs: &[&[i16]]) -> Forgery<'_> {
        Forgery::new(self, &self.key, committed, inputs)
    }

    /// A prover with other weights under this model's name.
    pub fn with_weights(&self, change: impl FnOnce(&mut Weights)) -> ProvingKey {
        let mut weights = Weights::clone(&self.key.weights);
        change(&mut weights);
        self.key.forged(weights).expect("a layout")
    }
}

/// Channels of a rescale that commit the same cells.
#[derive(Clone, Debug)]
pub struct Group {
    pub accumulator: usize,
    pub channels: Index,
    pub lines: Vec<Line>,
    pub by_position: bool,
    pub zero: i64,
    pub clamp: (i64, i64),
    pub cells: RescaleCells,
}

impl Group {
    pub fn line(&self, position: usize, channel: usize) -> Line {
        self.lines[if self.by_position { position } else { channel }]
    }
}

/// All groups of the rescale that makes a tensor.
pub fn groups(layout: &Layout, tensor: TensorId) -> Vec<Group> {
    let made_of = |s: StorageId| layout.views[tensor as usize].pieces.iter().any(|p| p.storage == s);
    let group = |r: &Recipe| match r {
        Recipe::Rescale { accumulator, channels, lines, by_position, zero, clamp, cells } if made_of(cells.y) => Some(Group {
            accumulator: *accumulator,
            channels: channels.clone(),
            lines: lines.clone(),
            by_position: *by_position,
            zero: *zero,
            clamp: *clamp,
            cells: *cells,
        }),
        _ => None,
    };
    layout.recipes.iter().filter_map(group).collect()
}

/// The cells of the only softmax.
pub fn softmax_cells(layout: &Layout) -> SoftmaxCells {
    layout.recipes.iter().find_map(|r| if let Recipe::Softmax { cells, .. } = r { Some(*cells) } else { None }).expect("a softmax")
}

/// Whether an entry of the lookup reads the storage.
pub fn uses(lookup: &Lookup, storage: StorageId) -> bool {
    let reads = |s: &Source| matches!(s, Source::Local(x) | Source::Broadcast(x) | Source::RowSum(x) if *x == storage);
    lookup.entries.iter().flatten().any(|t| reads(&t.source))
}

/// Whether the lookup goes to a table of clamped values: one for each bound if weights are private.
pub fn is_clamp(layout: &Layout, lookup: &Lookup) -> bool {
    matches!(layout.tables[lookup.table].kind, TableKind::Clamp(..) | TableKind::Bounded(..))
}

/// Whether the lookup goes to a table of this kind.
pub fn goes_to(layout: &Layout, lookup: &Lookup, kind: &TableKind) -> bool {
    layout.tables[lookup.table].kind == *kind
}

/// See the module's documentation.
pub struct Forgery<'a> {
    victim: &'a Victim,
    prover: &'a ProvingKey,
    /// What the prover proves with.
    pub layout: Layout,
    pub trace: Trace,
    pub witness: Witness,
    /// What goes into the oracles, where it is not the witness.
    pub committed: Option<Witness>,
    /// Arrays of clear statement tensors.
    pub ports: Vec<Vec<i16>>,
    /// Tensors whose cells are kept at false values whatever is recomputed.
    forced: Vec<TensorId>,
    /// Changes of multiplicities after counting: table, row, by how much.
    counts: Vec<(TableKind, usize, i64)>,
    counted: bool,
}

impl<'a> Forgery<'a> {
    pub fn new(victim: &'a Victim, prover: &'a ProvingKey, committed: &[bool], inputs: &[&[i16]]) -> Self {
        let trace = victim.executor.run(inputs, 1, true).expect("defined");
        let layout = prover.verifying.compiled(committed).expect("a layout").layout.clone();
        let witness = fill(&layout, &prover.weights, &trace);
        let ports = layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
        Forgery { victim, prover, layout, trace, witness, committed: None, ports, forced: vec![], counts: vec![], counted: true }
    }

    /// Changes a tensor. All operators after it run honestly on the false values, and the claimed outputs follow.
    pub fn tensor(mut self, name: &str, change: impl FnOnce(&mut [i16])) -> Self {
        let id = self.victim.tensor(name);
        change(&mut self.trace.tensors[id as usize]);
        let program = self.victim.program();
        // A rescale is computed with its contraction; what follows starts after it.
        let defined = program.ops.iter().rposition(|op| program.output_of(op) == Some(id));
        let after = defined.map_or(0, |i| i + 1);
        debug_assert!(!matches!(program.ops.get(after), Some(Op::Rescale(_))));
        self.victim.executor.resume(after, &mut self.trace).expect("defined");
        self.forced.push(id);
        self.refill();
        self.ports = self.layout.ports.iter().map(|&t| self.trace.tensors[t as usize].clone()).collect();
        self
    }

    /// Fills all cells from the trace, and those of forced tensors with their false values.
    fn refill(&mut self) {
        self.witness = fill(&self.layout, &self.prover.weights, &self.trace);
        for &id in &self.forced {
            let view = &self.layout.views[id as usize];
            let channels = self.victim.program().tensors[id as usize].channels();
            for piece in &view.pieces {
                let width = self.layout.storages[piece.storage].channels;
                for (tp, sp) in piece.tensor_positions.iter().zip(piece.storage_positions.iter()) {
                    for (tc, sc) in piece.tensor_channels.iter().zip(piece.storage_channels.iter()) {
                        let value = self.trace.tensors[id as usize][tp * channels + tc];
                        self.witness.storages[piece.storage][sp * width + sc] = from_i64(value.into());
                    }
                }
            }
        }
    }

    /// Groups of the rescale that makes a tensor.
    pub fn groups(&self, name: &str) -> Vec<Group> {
        groups(&self.layout, self.victim.tensor(name))
    }

    /// The storage of a tensor that has one of its own.
    pub fn storage(&self, name: &str) -> StorageId {
        let pieces = &self.layout.views[self.victim.tensor(name) as usize].pieces;
        assert_eq!(pieces.len(), 1, "{name} has several storages");
        pieces[0].storage
    }

    /// A cell's value.
    pub fn get(&self, storage: StorageId, at: usize) -> i64 {
        centred(self.witness.storages[storage][at])
    }

    pub fn set(&mut self, storage: StorageId, at: usize, value: i64) {
        self.witness.storages[storage][at] = from_i64(value);
    }

    pub fn bump(&mut self, storage: StorageId, at: usize, by: i64) {
        self.witness.storages[storage][at] += from_i64(by);
    }

    /// For chains of changes.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Adds to a multiplicity after counting.
    pub fn miscount(&mut self, kind: TableKind, row: usize, by: i64) {
        self.counts.push((kind, row, by));
    }

    /// Leaves multiplicities as they are.
    pub fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Recomputes the accumulators from whatever the cells hold, with the prover's own weights.
    pub fn reaccumulate(&mut self) {
        let weights = &self.prover.weights;
        let constant = |id: u32| -> Vec<F> { weights.values[id as usize].iter().map(|&w| from_i64(w.into())).collect() };
        for at in 0..self.layout.accumulators.len() {
            self.witness.accumulators[at] = accumulator(&self.layout, &self.witness, &constant, at);
        }
    }

    /// Recomputes a rescaled tensor from its accumulators: value, pre-clamp value, signs, limbs.
    pub fn rescale(&mut self, name: &str) {
        for g in self.groups(name) {
            let n = g.channels.len();
            let width = self.layout.accumulators[g.accumulator].channels;
            for at in 0..self.witness.storages[g.cells.v].len() {
                let acc = centred(self.witness.accumulators[g.accumulator][at / n * width + g.channels.get(at % n)]);
                self.digitise(&g, at, acc, g.line(at / n, at % n).value(acc, g.zero));
            }
        }
    }

    /// Sets the cells of one activation to the value `v` before the clamp, limbs and signs to what fits it best.
    pub fn digitise(&mut self, g: &Group, at: usize, acc: i64, v: i64) {
        let line = g.line(at / g.channels.len(), at % g.channels.len());
        let b = |negative: bool| if negative { line.b_neg } else { line.b_pos };
        self.set(g.cells.v, at, v);
        self.set(g.cells.y, at, v.clamp(g.clamp.0, g.clamp.1));
        if let Some((n1, n2)) = g.cells.signs {
            self.set(n1, at, (v <= g.zero).into());
            self.set(n2, at, (v < g.zero).into());
        }
        if let Some((h1, h2)) = g.cells.limbs {
            let w = self.layout.range_bits;
            let (low, high) = (acc * line.a + b(v <= g.zero) - line.d * v, line.d - 1 - (acc * line.a + b(v < g.zero) - line.d * v));
            self.set(h1, at, low >> w);
            self.set(h2, at, high >> w);
        }
    }

    /// Committed and claimed tensors as their cells say, after the cells were changed directly.
    pub fn claim(&mut self) {
        let values = |f: &Self, id: TensorId| tensor(&f.layout, &f.witness, id).into_iter().map(|x| centred(x) as i16).collect::<Vec<_>>();
        for (i, id) in self.layout.ports.clone().into_iter().enumerate() {
            self.ports[i] = values(self, id);
            if let Some(s) = self.layout.port_storages[i].filter(|_| i >= self.victim.program().inputs.len()) {
                self.witness.storages[s] = tensor(&self.layout, &self.witness, id);
            }
        }
    }

    fn recounted(&self, layout: &Layout, witness: &Witness) -> Witness {
        let mut witness = witness.clone();
        if self.counted {
            count(layout, &mut witness);
        }
        for (kind, row, by) in &self.counts {
            if let Some(t) = layout.tables.iter().find(|t| t.kind == *kind) {
                witness.storages[t.multiplicities][*row] += from_i64(*by);
            }
        }
        witness
    }

    fn make(&self, mode: Mode, compiled: &Compiled, cheat: Cheat) -> Shown {
        let witness = self.recounted(&compiled.layout, &self.witness);
        let committed = self.committed.as_ref().map(|c| {
            let mut c = c.clone();
            // Multiplicities are those of what is computed with: otherwise the lookups alone would tell.
            compiled.layout.tables.iter().for_each(|t| c.storages[t.multiplicities] = witness.storages[t.multiplicities].clone());
            c
        });
        let committed = committed.as_ref().unwrap_or(&witness);
        let secrets = Secrets::fresh().expect("randomness");
        prove_forged(&self.prover_in(mode), compiled, &witness, committed, &self.ports, CONTEXT, secrets, cheat)
    }

    /// The prover's key in a mode: the victim's, or one with other weights under its name.
    fn prover_in(&self, mode: Mode) -> impl Deref<Target = ProvingKey> {
        if std::ptr::eq(self.prover, &self.victim.key) {
            Prover::Victim(self.victim.in_mode(mode))
        } else {
            Prover::Other(Box::new(self.victim.in_mode(mode).forged(Weights::clone(&self.prover.weights)).expect("a layout")))
        }
    }

    fn compiled(&self, mode: Mode, layout: Layout) -> Compiled {
        Compiled::from_layout(self.victim.in_mode(mode).verifying.parameters(), layout).expect("columns have a domain")
    }

    /// The forged statement and proof in one mode.
    pub fn proof(&self, mode: Mode) -> (Statement, Vec<u8>) {
        let shown = self.make(mode, &self.compiled(mode, self.layout.clone()), Cheat::default());
        (shown.statement, shown.proof)
    }

    fn judged(&self, mode: Mode, cheat: Cheat) -> Verdict<()> {
        let shown = self.make(mode, &self.compiled(mode, self.layout.clone()), cheat);
        verify(&self.victim.in_mode(mode).verifying, &shown.statement, &shown.proof)
    }

    /// The verdict on a zero-knowledge proof, of a verifier with the prover's lapse.
    pub fn masked(&self, cheat: Cheat) -> Verdict<()> {
        let lapse = cheat.lapse;
        let shown = self.make(Mode::Zk, &self.compiled(Mode::Zk, self.layout.clone()), cheat);
        verify_lapsed(&self.victim.zk.verifying, &shown.statement, &shown.proof, lapse)
    }

    /// The honest verifier's verdict.
    pub fn outcome(&self) -> Verdict<()> {
        same_in_both_modes(|mode| self.judged(mode, Cheat::default()))
    }

    /// The verdict when messages under a label are changed as they are sent: `change(occurrence, bytes)`.
    pub fn tampered(&self, label: &'static str, change: impl Fn(usize, &mut [u8]) + Send + Sync + 'static) -> Verdict<()> {
        let change = Arc::new(change);
        same_in_both_modes(|mode| {
            let seen = Arc::new(AtomicUsize::new(0));
            let (counter, change) = (seen.clone(), change.clone());
            let tamper: Tamper = Arc::new(move |at, _, bytes| {
                if at == label {
                    change(counter.fetch_add(1, Ordering::Relaxed), bytes);
                }
            });
            let verdict = self.judged(mode, Cheat { tamper: Some(tamper), ..Cheat::default() });
            assert!(seen.load(Ordering::Relaxed) > 0, "no message is called {label}");
            verdict
        })
    }

    /// The verdict when every equation is about the witness but the trees hold what is committed.
    pub fn two_faced(&self) -> Verdict<()> {
        assert!(self.committed.is_some(), "both faces are the same");
        same_in_both_modes(|mode| self.judged(mode, Cheat { two_faced: true, ..Cheat::default() }))
    }

    /// The verdict where prover and verifier both use a weaker layout.
    pub fn against(&self, weaken: impl FnOnce(&mut Layout)) -> Verdict<()> {
        let mut layout = self.layout.clone();
        weaken(&mut layout);
        same_in_both_modes(|mode| {
            let compiled = self.compiled(mode, layout.clone());
            let shown = self.make(mode, &compiled, Cheat::default());
            verify_compiled(&self.prover_in(mode).verifying, &compiled, &shown.statement, &shown.proof)
        })
    }

    /// The verdict without some lookups, on both sides.
    pub fn without(&self, weak: impl Fn(&Layout, &Lookup) -> bool) -> Verdict<()> {
        self.against(|layout| {
            let (kept, removed): (Vec<_>, Vec<_>) = layout.lookups.clone().into_iter().partition(|k| !weak(&self.layout, k));
            assert!(!removed.is_empty(), "nothing is taken away");
            layout.lookups = kept;
        })
    }

    /// The verdict where nothing ties a clear output to what was computed: the tie is on cells that nothing else reads.
    pub fn without_tie(&self, name: &str) -> Verdict<()> {
        let id = self.victim.tensor(name) as usize;
        let mut free = Forgery { layout: self.layout.clone(), witness: self.witness.clone(), ..self.copy() };
        let (p, c) = (free.layout.views[id].positions, free.layout.views[id].channels);
        free.layout.storages.push(nexus_edge_core::layout::Storage { positions: p, channels: c, home: Home::Witness });
        let port = free.layout.ports.iter().position(|&t| t as usize == id).expect("a port");
        free.witness.storages.push(free.ports[port].iter().map(|&v| from_i64(v.into())).collect());
        let storage = free.layout.storages.len() - 1;
        free.layout.views[id].pieces = vec![nexus_edge_core::layout::ViewPiece {
            storage,
            tensor_positions: Index::all(p),
            storage_positions: Index::all(p),
            tensor_channels: Index::all(c),
            storage_channels: Index::all(c),
        }];
        free.layout.views[id].constants.clear();
        free.against(|_| ())
    }

    /// The same forgery once more.
    pub fn copy(&self) -> Forgery<'a> {
        Forgery {
            victim: self.victim,
            prover: self.prover,
            layout: self.layout.clone(),
            trace: self.trace.clone(),
            witness: self.witness.clone(),
            committed: self.committed.clone(),
            ports: self.ports.clone(),
            forced: self.forced.clone(),
            counts: self.counts.clone(),
            counted: self.counted,
        }
    }
}

/// Everything after the input recomputed from the cells, in the prover's own world.
pub fn recompute(f: &mut Forgery<'_>) {
    let before = f.ports[1].clone();
    f.reaccumulate();
    f.rescale("y");
    f.claim();
    assert_ne!(before, f.ports[1], "the forgery changes nothing");
}
