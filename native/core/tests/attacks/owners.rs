//! Somebody who commits to any weights under an honest program of a private model, and the honest algorithm that does its best with them.

use std::sync::Arc;

use nexus_edge_core::exec::Trace;
use nexus_edge_core::field::{F, centred, from_i64};
use nexus_edge_core::layout::{Index, Layout, LimbRecipe, Lookup, Recipe, StorageId, TableKind};
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::pcs::{self, Committed, Secret};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{Line, Op, Program, Rule, Weights};
use nexus_edge_core::proof::{Compiled, ProvingKey, Subject, VerifyingKey, prove_cells, register, verify_cells, verify_registration};
use nexus_edge_core::prover::values::{Witness, entry};
use nexus_edge_core::prover::witness::{count, fill};
use nexus_edge_core::random::Seed;
use nexus_edge_core::reject::Verdict;

use crate::forge::{LOOKUPS, same_in_both_modes, uses};

/// The checks of one channel, in the order of their recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Bias,
    Top,
    Bottom,
    Above,
    Below,
    Int8,
}

/// Somebody who registers a program of one layer.
pub(crate) struct Owner {
    pub(crate) program: Arc<CheckedProgram>,
    pub(crate) layout: Layout,
    /// All cells but limbs and multiplicities, which [`Owner::witness`] adds.
    pub(crate) cells: Witness,
}

impl Owner {
    pub(crate) fn new((program, weights): (CheckedProgram, Weights)) -> Self {
        let layout = Layout::registration(&program).expect("private");
        let cells = fill(&layout, &weights, &Trace { tensors: vec![], accumulators: vec![] });
        Owner { program: Arc::new(program), layout, cells }
    }

    pub(crate) fn constant(&self, constant: u32) -> StorageId {
        let of = |r: &Recipe| matches!(r, Recipe::Constant { constant: c, .. } if *c == constant).then(|| storage_of(r));
        self.layout.recipes.iter().find_map(of).expect("a committed constant")
    }

    /// Positive parts of weights.
    pub(crate) fn positive_of(&self, weights: StorageId) -> Option<StorageId> {
        self.layout
            .recipes
            .iter()
            .find_map(|r| if let Recipe::Relu { storage, of } = r { (*of == weights).then_some(*storage) } else { None })
    }

    pub(crate) fn positive(&self) -> StorageId {
        self.positive_of(self.constant(0)).expect("weights")
    }

    /// Another value in any constant: positive parts follow.
    pub(crate) fn changed(mut self, constant: u32, at: usize, value: i64) -> Self {
        let s = self.constant(constant);
        self.cells.storages[s][at] = from_i64(value);
        if let Some(positive) = self.positive_of(s) {
            self.cells.storages[positive][at] = from_i64(value.max(0));
        }
        self
    }

    pub(crate) fn limbs(&self) -> Vec<LimbRecipe> {
        self.layout.recipes.iter().filter_map(|r| if let Recipe::Limbs(r) = r { Some(r.clone()) } else { None }).collect()
    }

    pub(crate) fn weight(self, at: usize, value: i64) -> Self {
        self.changed(0, at, value)
    }

    pub(crate) fn bias(self, channel: usize, value: i64) -> Self {
        self.changed(1, channel, value)
    }

    /// The best witness for the cells: limbs of whatever the sums are.
    pub(crate) fn witness(&self, layout: &Layout) -> Witness {
        let mut out = self.cells.clone();
        for recipe in self.limbs() {
            let all = Index::all(recipe.channels);
            let value = Lookup { table: 0, positions: 1, channels: all, group: 0, entries: vec![recipe.terms.clone()] };
            let values = entry(layout, &out, &value, 0);
            for (k, &s) in recipe.limbs.iter().enumerate() {
                let last = k + 1 == recipe.limbs.len();
                let limb = |v: &F| {
                    let high = centred(*v) >> (layout.range_bits * (k + 1));
                    from_i64(if last { high } else { high & ((1 << layout.range_bits) - 1) })
                };
                out.storages[s] = values.iter().map(limb).collect();
            }
        }
        count(layout, &mut out);
        out
    }

    pub(crate) fn compiled(&self, key: &VerifyingKey, layout: Layout) -> Compiled {
        Compiled::from_layout(key.parameters(), layout).expect("a domain")
    }

    /// The key under the root of these very cells, and their oracle.
    pub(crate) fn commit(&self, mode: Mode) -> (VerifyingKey, Committed) {
        let honest = key_of(&self.program, &[0; 32], mode);
        let compiled = self.compiled(&honest, self.layout.clone());
        let values: Vec<&[F]> = compiled.members[1].iter().map(|&s| &self.cells.storages[s][..]).collect();
        let seed = Seed::fresh().expect("randomness");
        let secret = if mode == Mode::Zk { Secret::Kept(&seed) } else { Secret::None };
        let model = pcs::commit(honest.parameters(), compiled.oracles[1].clone(), &values, secret);
        (key_of(&self.program, &model.root, mode), model)
    }

    /// The honest verifier's verdict.
    pub(crate) fn outcome(&self) -> Verdict<()> {
        same_in_both_modes(|mode| {
            let (key, model) = self.commit(mode);
            let compiled = self.compiled(&key, self.layout.clone());
            let proof = prove_cells(Subject::Registration(&key), &compiled, &self.witness(&self.layout), &[&model]);
            verify_registration(&key, &proof).map(|registered| assert_eq!(registered.digest(), key.digest()))
        })
    }

    /// Whether a lookup is part of a check.
    pub(crate) fn belongs(&self, lookup: &Lookup, check: Check) -> bool {
        if check == Check::Int8 {
            return self.layout.tables[lookup.table].kind == TableKind::Relu;
        }
        let recipe = &self.limbs()[check as usize];
        assert!(!recipe.limbs.is_empty(), "found by its limbs");
        recipe.limbs.iter().any(|&s| uses(lookup, s))
    }

    /// The verdict without some checks, on both sides.
    pub(crate) fn without(&self, checks: &[Check]) -> Verdict<()> {
        let mut layout = self.layout.clone();
        layout.lookups.retain(|k| !checks.iter().any(|&c| self.belongs(k, c)));
        assert!(layout.lookups.len() < self.layout.lookups.len(), "nothing is taken away");
        let witness = self.witness(&layout);
        same_in_both_modes(|mode| {
            let (key, model) = self.commit(mode);
            let compiled = self.compiled(&key, layout.clone());
            let subject = Subject::Registration(&key);
            verify_cells(subject, &compiled, &prove_cells(subject, &compiled, &witness, &[&model]))
        })
    }

    /// Refused, and accepted without these checks but not with all but one of them.
    pub(crate) fn is_stopped_by(&self, checks: &[Check]) {
        assert_eq!(self.outcome(), LOOKUPS);
        assert_eq!(self.without(checks), Ok(()), "without {checks:?}");
        for kept in 0..checks.len() {
            let others: Vec<Check> = checks.iter().enumerate().filter(|(i, _)| *i != kept).map(|(_, &c)| c).collect();
            assert!(others.is_empty() || self.without(&others).is_err(), "{:?} alone does not stop it", checks[kept]);
        }
    }
}

pub(crate) fn storage_of(recipe: &Recipe) -> StorageId {
    let Recipe::Constant { storage, .. } = recipe else { unreachable!("matched by the caller") };
    *storage
}

/// The key of a program under any root, or under a registered one and another.
pub(crate) fn key_of(program: &CheckedProgram, roots: &[u8], mode: Mode) -> VerifyingKey {
    let program = program.to_bytes();
    let mut bytes = b"NXEvkey5".to_vec();
    bytes.extend(100u32.to_le_bytes());
    bytes.extend([mode as u8, (roots.len() / 32) as u8]);
    for part in [roots, &program] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    VerifyingKey::from_bytes(&bytes).expect("a key of any root")
}

pub(crate) fn line(program: &Program, channel: usize) -> Line {
    let rules = program.ops.iter().find_map(|op| if let Op::Rescale(r) = op { Some(&r.rules) } else { None }).expect("a rescale");
    let Rule::Line { line, .. } = rules[channel] else { panic!("channel {channel} is constant") };
    line
}

pub(crate) fn key(private: (CheckedProgram, Weights)) -> ProvingKey {
    ProvingKey::new(Program::clone(&private.0), private.1, false, 100, Mode::Zk).expect("provable")
}

pub(crate) fn again(key: &ProvingKey) -> ProvingKey {
    key.committed_again(Seed::fresh().expect("randomness")).expect("private")
}

pub(crate) fn registered(key: &ProvingKey) -> Vec<u8> {
    let made = register(key, &mut |_, _| true).expect("private");
    let opened = made.opened[0].as_ref().expect("rows of the hidden weights");
    assert!(made.opened.len() == 1 && opened.rows.is_sorted() && !opened.rows.is_empty() && opened.rows.len() < opened.budget);
    made.proof
}

pub(crate) fn executor(key: &ProvingKey) -> nexus_edge_core::exec::Executor {
    nexus_edge_core::exec::Executor::new(key.verifying.program().clone(), &key.weights).expect("weights fit")
}
