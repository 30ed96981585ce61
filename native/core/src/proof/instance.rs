//! A program compiled for one form of statement: layout, leaf blocks and oracles.

use std::sync::Arc;

use crate::eq::log2_ceil;
use crate::field::{F, from_i64};
use crate::layout::{Form, Home, Layout, LayoutError, Recipe, StorageId};
use crate::logup::{LeafBlocks, LinearForm};
use crate::parameters::{MAX_LOG_DOMAIN, Mode, Parameters, WHIR_LOG_BLOWUP};
use crate::pcs::{Committed, Functional, Hiding, OracleLayout, Role, Secret, Stack, commit};
use crate::program::check::CheckedProgram;
use crate::program::{Program, Tensor, Weights};
use crate::random::Seed;

use super::statement::tensor_seed;
use super::terms::masked_messages;

/// The public structure of a proof: a function of program, form and parameters.
pub struct Compiled {
    /// Storages, views, lookups, tables.
    pub layout: Layout,
    /// Leaves of the lookup tree.
    pub blocks: LeafBlocks,
    /// Oracles in the order of their roots in the proof.
    pub oracles: Vec<Arc<OracleLayout>>,
    /// All oracles as one long vector.
    pub stack: Stack,
    /// Storages of each oracle.
    pub members: Vec<Vec<StorageId>>,
    /// For each storage `(oracle, place in it)`.
    place: Vec<(usize, usize)>,
    /// Port of each tensor oracle.
    pub ports: Vec<Option<usize>>,
    /// Variables of the challenge that ties statement tensors, and of each copy's.
    pub tie_variables: usize,
}

impl Compiled {
    /// Compiles.
    pub fn new(parameters: &Parameters, program: &CheckedProgram, form: Form) -> Result<Self, LayoutError> {
        Self::from_layout(parameters, Layout::new(program, form)?)
    }

    /// Oracles, leaf blocks and stack of a layout.
    pub fn from_layout(parameters: &Parameters, layout: Layout) -> Result<Self, LayoutError> {
        let mut homes = vec![(Home::Witness, Role::Witness, 0u32)];
        for (i, s) in layout.port_storages.iter().enumerate() {
            if s.is_some() {
                homes.push((Home::Port(i), Role::Tensor, i as u32));
            }
        }
        if layout.storages.iter().any(|s| s.home == Home::Model) {
            homes.push((Home::Model, Role::Model, 0));
        }
        let fresh = layout.storages.iter().filter_map(|s| if let Home::Fresh(i) = s.home { Some(i) } else { None }).max();
        homes.extend((1..=fresh.unwrap_or(0)).map(|i| (Home::Fresh(i), Role::Model, i)));
        let mut place = vec![(0, 0); layout.storages.len()];
        let (mut oracles, mut members, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for (k, (home, role, index)) in homes.into_iter().enumerate() {
            let mine: Vec<StorageId> = (0..layout.storages.len()).filter(|&s| layout.storages[s].home == home).collect();
            mine.iter().enumerate().for_each(|(at, &s)| place[s] = (k, at));
            oracles.push(OracleLayout::new(parameters, role, index, shapes(&layout, &mine), hiding(parameters, role, layout.private)));
            members.push(mine);
            ports.push(if let Home::Port(i) = home { Some(i) } else { None });
        }
        let blocks = LeafBlocks::new(&layout);
        let bits = |t: u32| {
            let view = &layout.views[t as usize];
            log2_ceil(view.channels) + log2_ceil(view.positions)
        };
        let tie_variables = layout.ports.iter().map(|&t| bits(t)).max().unwrap_or(0);
        let mut log_rows = oracles.iter().filter(|o| o.hiding != Hiding::None).map(|o| o.log_rows).max().unwrap_or(0);
        if let Some(witness) = oracles.iter_mut().find(|o| o.has_mask()) {
            // The mask covers the combination of all columns that are secret.
            *witness = witness.lengthened(parameters, log_rows);
        }
        let oracles: Vec<_> = oracles.into_iter().map(Arc::new).collect();
        let mut compiled = Compiled { layout, blocks, stack: Stack::new(oracles.clone()), oracles, members, place, ports, tie_variables };
        // The line's columns are of the witness's code: a word holds one entry for each masked message. Longer columns are fewer, so that the
        // number of messages stays about the same.
        while parameters.mode() == Mode::Zk && masked_messages(&compiled) + 1 > 1 << log_rows {
            log_rows += 1;
            for oracle in compiled.oracles.iter_mut().filter(|o| o.has_mask()) {
                *oracle = Arc::new(oracle.lengthened(parameters, log_rows));
            }
            compiled.stack = Stack::new(compiled.oracles.clone());
        }
        let log_rows = compiled.stack.log_rows;
        if log_rows + WHIR_LOG_BLOWUP > MAX_LOG_DOMAIN {
            return Err(LayoutError { operator: "the program".into(), why: format!("columns of 2^{log_rows} cells have no domain") });
        }
        Ok(compiled)
    }

    /// The opening's view of a linear form.
    pub fn functionals<const D: usize>(&self, form: LinearForm<D>) -> Vec<Functional<D>> {
        form.slots
            .into_iter()
            .map(|s| {
                let (oracle, storage) = self.place[s.storage];
                Functional { oracle, storage, u: s.u, v: s.v }
            })
            .collect()
    }

    /// Where a statement tensor lies when it is committed: it does not depend on the model.
    pub fn tensor_layout(parameters: &Parameters, tensor: &Tensor) -> OracleLayout {
        let shapes = vec![(tensor.positions(), tensor.channels())];
        OracleLayout::new(parameters, Role::Tensor, 0, shapes, hiding(parameters, Role::Tensor, false))
    }

    /// Commits a statement tensor by itself. In zero-knowledge mode the commitment is a function of the values and of the seed, in plain mode
    /// of the values alone.
    pub fn commit_tensor(parameters: &Parameters, tensor: &Tensor, values: &[F], seed: &Seed) -> Committed {
        let layout = Self::tensor_layout(parameters, tensor);
        let seed = tensor_seed(seed, tensor);
        let secret = if layout.hiding == Hiding::Kept { Secret::Kept(&seed) } else { Secret::None };
        commit(parameters, Arc::new(layout), &[values], secret)
    }

    /// Commits the weights: the model oracle of every proof of this model.
    pub fn commit_model(
        parameters: &Parameters,
        program: &Program,
        weights: &Weights,
        seed: Option<&Seed>,
    ) -> Result<Committed, LayoutError> {
        let ports = program.inputs.len() + program.outputs.len();
        let layout = Layout::new(program, Form { committed: vec![false; ports], committed_weights: true })?;
        let mine: Vec<StorageId> = (0..layout.storages.len()).filter(|&s| layout.storages[s].home == Home::Model).collect();
        let mut values: Vec<Vec<F>> = vec![Vec::new(); layout.storages.len()];
        for recipe in &layout.recipes {
            if let Recipe::Constant { storage, constant } = recipe {
                values[*storage] = weights.values[*constant as usize].iter().map(|&x| from_i64(i64::from(x))).collect();
            }
        }
        let columns: Vec<&[F]> = mine.iter().map(|&s| &values[s][..]).collect();
        let oracle = OracleLayout::new(parameters, Role::Model, 0, shapes(&layout, &mine), hiding(parameters, Role::Model, layout.private));
        let secret = seed.map_or(Secret::None, Secret::Kept);
        Ok(commit(parameters, Arc::new(oracle), &columns, secret))
    }
}

/// What an oracle's opened rows show. Committed weights that are public hide nothing in either mode.
fn hiding(parameters: &Parameters, role: Role, private: bool) -> Hiding {
    match (parameters.mode(), role) {
        (Mode::Plain, _) => Hiding::None,
        (Mode::Zk, Role::Model) => {
            if private {
                Hiding::Kept
            } else {
                Hiding::None
            }
        }
        (Mode::Zk, Role::Witness) => Hiding::Fresh { pads: parameters.pads(), degree: parameters.degree() },
        (Mode::Zk, Role::Tensor | Role::Parameters) => Hiding::Kept,
    }
}

/// Variables of a tensor's multilinear extension: channels low, then positions.
pub(super) fn variables(tensor: &Tensor) -> usize {
    log2_ceil(tensor.channels()) + log2_ceil(tensor.positions())
}

fn shapes(layout: &Layout, storages: &[StorageId]) -> Vec<(usize, usize)> {
    storages.iter().map(|&s| (layout.storages[s].positions, layout.storages[s].channels)).collect()
}
