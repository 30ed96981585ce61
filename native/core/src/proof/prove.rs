//! The prover, start to end.

use std::ops::ControlFlow;
use std::time::Instant;

use thiserror::Error;

#[cfg(feature = "attacks")]
use super::cheat::Cheat;
use super::conversation::{begin, copies, copy_variables, ties};
use super::exchange::{Begun, Combine, Exchange};
use super::instance::Compiled;
use super::key::{KeyError, ProvingKey};
use super::statement::{Content, Statement, StatementTensor, tensor_commitment, tensor_seed};
use super::terms::{masked_messages, soundness};
use super::verify::Inference;
use crate::channel::{Prover, Transcript};
use crate::contraction;
use crate::control::Control;
use crate::exec::{ExecError, Executor};
use crate::field::{F, K};
use crate::logup;
use crate::pcs::{self, Combination, Committed, Drawn, Halt, Hiding, Secret};
use crate::prover::values::Witness;
use crate::prover::witness;
use crate::random::{Randomness, Seed};
use crate::reject::Reject;

/// What is asked for.
#[derive(Default)]
pub struct Request<'a> {
    /// One array for each input, row-major.
    pub inputs: Vec<&'a [i16]>,
    /// Bound by the proof.
    pub context: [u8; 32],
    /// Inputs and outputs that are committed instead of clear.
    pub committed: Vec<bool>,
    /// In zero-knowledge mode the seeds of commitments that were made before, by port; any that is missing is drawn.
    pub seeds: Vec<Option<Seed>>,
}

/// A commitment that a zero-knowledge proof has opened rows of.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its seed: with it the holder of the array can compute the commitment.
    pub seed: Seed,
    /// Rows, sorted.
    pub rows: Vec<usize>,
    /// How many distinct rows may be opened by all proofs together.
    pub budget: usize,
}

/// A proof and what it shows.
pub struct Made {
    /// Output arrays.
    pub outputs: Vec<Vec<i16>>,
    /// The statement.
    pub statement: Statement,
    /// The proof.
    pub proof: Vec<u8>,
    /// For each port, what the proof opens of its commitment; `None` for clear ones and in plain mode.
    pub opened: Vec<Option<Opened>>,
    /// What the proof opens of a commitment that hides the weights.
    pub model_opened: Option<Opened>,
    /// Sizes and times.
    pub figures: Figures,
}

/// Sizes and times of one proof.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Milliseconds of each phase, in order.
    pub phases: Vec<(&'static str, f64)>,
    /// Committed witness cells.
    pub cells: usize,
    /// Lookups.
    pub lookups: usize,
    /// Provable bits.
    pub bits: f64,
}

/// Called between steps with phase and fraction of it; `false` stops.
pub type Progress<'a> = &'a mut (dyn FnMut(&'static str, f64) -> bool + Send);

/// Why there is no proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The program cannot run on this input.
    #[error(transparent)]
    Execution(ExecError),
    /// The statement's form has no proof.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Cancelled.
    #[error("cancelled")]
    Stopped,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Entropy(#[from] std::io::Error),
    /// The prover's own reading of the proof failed; nothing of it was given away.
    #[error("the proof fails the prover's own check, and was dropped: {0}")]
    SelfCheck(#[from] Reject),
    /// A challenge gave the mask no weight, which happens once in `|K|` proofs.
    #[error("a challenge gave the mask no weight: prove again")]
    Uncovered,
}

impl From<ExecError> for ProveError {
    fn from(error: ExecError) -> Self {
        if error == ExecError::Stopped { ProveError::Stopped } else { ProveError::Execution(error) }
    }
}

impl From<Halt> for ProveError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Stopped => ProveError::Stopped,
            Halt::Uncovered => ProveError::Uncovered,
        }
    }
}

struct Clock<'a, 'b> {
    progress: Progress<'b>,
    figures: &'a mut Figures,
    started: Instant,
    phase: &'static str,
}

impl Clock<'_, '_> {
    fn enter(&mut self, phase: &'static str) -> Result<(), ProveError> {
        self.leave();
        self.phase = phase;
        self.report(0.0)
    }

    fn report(&mut self, fraction: f64) -> Result<(), ProveError> {
        if (self.progress)(self.phase, fraction) { Ok(()) } else { Err(ProveError::Stopped) }
    }

    /// [`Self::report`] for steps that know nothing of phases.
    fn control(&mut self, fraction: f64) -> ControlFlow<()> {
        if self.report(fraction).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn leave(&mut self) {
        let now = Instant::now();
        if !self.phase.is_empty() {
            self.figures.phases.push((self.phase, (now - self.started).as_secs_f64() * 1e3));
        }
        self.started = now;
    }
}

/// Executes, fills the witness and proves, on the current thread pool.
pub fn prove(key: &ProvingKey, executor: &Executor, request: &Request<'_>, progress: Progress<'_>) -> Result<Made, ProveError> {
    // On a worker from start to end: hundreds of short parallel steps would otherwise each wake the pool and wait for it.
    rayon::scope(|_| prove_here(key, executor, request, progress))
}

fn prove_here(key: &ProvingKey, executor: &Executor, request: &Request<'_>, progress: Progress<'_>) -> Result<Made, ProveError> {
    let verifying = &key.verifying;
    let compiled = verifying.compiled(&request.committed)?;
    let mut figures = Figures::default();
    let mut clock = Clock { progress, figures: &mut figures, started: Instant::now(), phase: "" };
    clock.enter("execute")?;
    let trace = executor.trace(&request.inputs, &mut |done| clock.control(done))?;
    let outputs: Vec<Vec<i16>> = verifying.program.outputs.iter().map(|p| trace.tensors[p.tensor as usize].clone()).collect();
    let ports: Vec<Vec<i16>> = compiled.layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
    clock.enter("witness")?;
    let filled = witness::fill_heard(&compiled.layout, &key.weights, &trace, &mut |done| clock.control(done));
    let ControlFlow::Continue(witness) = filled else { return Err(ProveError::Stopped) };
    drop(trace);
    clock.leave();
    let secrets = Secrets { randomness: Randomness::fresh()?, seeds: request.seeds.clone() };
    let shown = prove_witness(key, &compiled, &witness, &witness, &ports, request.context, secrets, progress, &mut figures)?;
    figures.cells = compiled.layout.cells();
    figures.lookups = compiled.layout.lookup_count();
    figures.bits = soundness(verifying.parameters(), &compiled).bits;
    Ok(Made { outputs, statement: shown.statement, proof: shown.proof, opened: shown.opened, model_opened: shown.model_opened, figures })
}

/// Secrets of one attempt.
pub struct Secrets {
    /// Drawn from in zero-knowledge mode only.
    pub randomness: Randomness,
    /// As in [`Request`].
    pub seeds: Vec<Option<Seed>>,
}

impl Secrets {
    /// Fresh ones.
    pub fn fresh() -> std::io::Result<Secrets> {
        Ok(Secrets { randomness: Randomness::fresh()?, seeds: Vec::new() })
    }
}

/// What a prover gives away, and what it has to keep of it.
pub struct Shown {
    /// The statement.
    pub statement: Statement,
    /// The proof.
    pub proof: Vec<u8>,
    /// As in [`Made`].
    pub opened: Vec<Option<Opened>>,
    /// As in [`Made`].
    pub model_opened: Option<Opened>,
}

/// Proves from values of all storages. `committed` is what goes into the oracles: the same as `witness` for an honest prover.
pub fn prove_witness(
    key: &ProvingKey,
    compiled: &Compiled,
    witness: &Witness,
    committed: &Witness,
    ports: &[Vec<i16>],
    context: [u8; 32],
    secrets: Secrets,
    progress: Progress<'_>,
    figures: &mut Figures,
) -> Result<Shown, ProveError> {
    let attempt = Attempt {
        key,
        compiled,
        witness,
        committed,
        ports,
        #[cfg(feature = "attacks")]
        cheat: None,
    };
    attempt.prove(context, secrets, progress, figures)
}

pub(super) struct Attempt<'a> {
    pub key: &'a ProvingKey,
    pub compiled: &'a Compiled,
    pub witness: &'a Witness,
    pub committed: &'a Witness,
    pub ports: &'a [Vec<i16>],
    /// `None` for an honest prover.
    #[cfg(feature = "attacks")]
    pub cheat: Option<Cheat>,
}

/// The oracles that belong to one proof, and the seeds of the kept ones.
struct Own {
    oracles: Vec<Option<Committed>>,
    seeds: Vec<Option<Seed>>,
}

impl Attempt<'_> {
    pub fn prove(&self, context: [u8; 32], secrets: Secrets, progress: Progress<'_>, figures: &mut Figures) -> Result<Shown, ProveError> {
        if self.key.verifying.parameters().degree() == 2 {
            self.run::<2>(context, secrets, progress, figures)
        } else {
            self.run::<3>(context, secrets, progress, figures)
        }
    }

    /// All oracles but the model's, which belongs to the key. Control hears of the witness's, which is nearly all of it.
    fn commit(&self, mut secrets: Secrets, control: Control<'_>) -> ControlFlow<(), Own> {
        let fresh = self.draw(&mut secrets);
        let c = self.compiled;
        let seeds: Vec<Option<Seed>> = (c.oracles.iter().zip(&c.ports))
            .map(|(layout, port)| {
                let port = port.filter(|_| layout.hiding == Hiding::Kept)?;
                let given = secrets.seeds.get_mut(port).and_then(Option::take);
                Some(given.unwrap_or_else(|| secrets.randomness.seed()))
            })
            .collect();
        let oracles = self.oracles(self.committed, fresh, &seeds, control)?;
        #[cfg(feature = "attacks")]
        if self.cheat.as_ref().is_some_and(|f| f.two_faced) {
            let cells = self.oracles(self.witness, self.draw(&mut secrets), &seeds, control)?;
            let faced = oracles.into_iter().zip(cells).map(|(oracle, cells)| Some(oracle?.over_cells_of(cells?))).collect();
            return ControlFlow::Continue(Own { oracles: faced, seeds });
        }
        ControlFlow::Continue(Own { oracles, seeds })
    }

    fn draw(&self, secrets: &mut Secrets) -> Secret<'static> {
        let layout = &self.compiled.oracles[0];
        match layout.hiding {
            Hiding::Fresh { .. } => Secret::Fresh(Drawn::new(&mut secrets.randomness, layout, masked_messages(self.compiled))),
            Hiding::None | Hiding::Kept => Secret::None,
        }
    }

    /// Commits to the witness and, meanwhile, to the tensors.
    fn oracles(
        &self,
        of: &Witness,
        fresh: Secret<'_>,
        seeds: &[Option<Seed>],
        control: Control<'_>,
    ) -> ControlFlow<(), Vec<Option<Committed>>> {
        let (c, parameters, key) = (self.compiled, self.key.verifying.parameters(), &self.key.verifying);
        let tensor = |k: usize| {
            let tensor = &key.program.tensors[c.layout.ports[c.ports[k]?] as usize];
            let bound = seeds[k].as_ref().map(|seed| tensor_seed(seed, tensor));
            let secret = bound.as_ref().map_or(Secret::None, Secret::Kept);
            Some(pcs::commit(parameters, c.oracles[k].clone(), &self.values(k, of), secret))
        };
        let (witness, tensors) = rayon::join(
            || pcs::commit_heard(parameters, c.oracles[0].clone(), &self.values(0, of), fresh, control),
            || (1..c.oracles.len()).map(tensor).collect::<Vec<_>>(),
        );
        ControlFlow::Continue(std::iter::once(Some(witness?)).chain(tensors).collect())
    }

    /// The values of an oracle's storages.
    fn values<'a>(&self, oracle: usize, of: &'a Witness) -> Vec<&'a [F]> {
        self.compiled.members[oracle].iter().map(|&s| &of.storages[s][..]).collect()
    }

    fn statement(&self, oracles: &[Option<Committed>], context: [u8; 32]) -> Statement {
        let key = &self.key.verifying;
        let tensors = self.compiled.layout.ports.iter().enumerate().map(|(i, &id)| {
            let oracle = self.compiled.ports.iter().position(|&p| p == Some(i)).and_then(|k| oracles[k].as_ref());
            let tensor = &key.program.tensors[id as usize];
            let content = match oracle {
                Some(o) => Content::Committed(tensor_commitment(&o.root, tensor, key.parameters())),
                None => Content::Clear(self.ports[i].iter().map(|&x| x as u8).collect()),
            };
            StatementTensor::new(tensor, content)
        });
        Statement { digest: key.digest(), context, inputs: key.program.inputs.len(), tensors: tensors.collect() }
    }

    /// A channel after `transcript`, with the masks of the witness's oracle.
    fn channel(&self, transcript: Transcript, oracles: &[&Committed]) -> Prover {
        let mut prover = Prover::new(transcript);
        if let Some(fresh) = oracles.iter().find_map(|o| o.fresh.as_ref()) {
            prover = prover.masked(fresh.r.clone());
        }
        #[cfg(feature = "attacks")]
        if let Some(tamper) = self.cheat.as_ref().and_then(|f| f.tamper.clone()) {
            prover = prover.tampered(tamper);
        }
        prover
    }

    fn concluded<const D: usize>(
        &self,
        inference: &Inference<'_>,
        prover: &mut Prover,
        begun: Begun<'_>,
        combine: impl Combine<D>,
    ) -> Result<Combination<D>, ProveError> {
        #[cfg(feature = "attacks")]
        if self.cheat.is_some() {
            let combination = combine(prover).continue_value().expect("nobody stops it");
            self.forge::<D>(prover, begun.transcript, inference, begun.fresh, begun.start);
            return Ok(combination);
        }
        inference.conclude(prover, begun, combine)
    }

    fn run<const D: usize>(
        &self,
        context: [u8; 32],
        secrets: Secrets,
        progress: Progress<'_>,
        figures: &mut Figures,
    ) -> Result<Shown, ProveError> {
        let (key, c, layout) = (&self.key.verifying, self.compiled, &self.compiled.layout);
        let mut clock = Clock { progress, figures, started: Instant::now(), phase: "" };
        clock.enter("commit")?;
        let ControlFlow::Continue(own) = self.commit(secrets, &mut |done| clock.control(done)) else { return Err(ProveError::Stopped) };
        let statement = self.statement(&own.oracles, context);
        let oracles: Vec<&Committed> = own
            .oracles
            .iter()
            .map(|o| o.as_ref().or(self.key.model.as_ref()).expect("the model oracle belongs to keys with committed weights"))
            .collect();
        let roots: Vec<[u8; 32]> = oracles.iter().map(|o| o.root).collect();
        let transcript = begin(&statement, &key.program, key.parameters(), c, &roots);
        #[cfg(feature = "attacks")]
        let transcript = self.lapse().transcript(transcript);
        let mut prover = self.channel(transcript.clone(), &oracles);
        for o in own.oracles.iter().flatten() {
            prover.append(&o.root);
        }
        let start = prover.so_far().len();
        #[cfg(feature = "attacks")]
        self.draw_first::<D>(&mut prover);

        clock.enter("lookups")?;
        let tau: Vec<K<D>> = prover.challenges("tie", c.tie_variables);
        let copy_point: Vec<K<D>> = prover.challenges("copy", copy_variables(c));
        let alpha: K<D> = prover.challenge("alpha");
        let betas: Vec<K<D>> = prover.challenges("betas", layout.tuple_width());
        let ControlFlow::Continue(r) =
            logup::prove(&mut prover, layout, self.witness, &c.blocks, alpha, &betas, &mut |done| clock.control(done))
        else {
            return Err(ProveError::Stopped);
        };
        let gamma: K<D> = prover.challenge("gamma");
        let (mut form, weights) = logup::split(layout, &c.blocks, &r, gamma, alpha, &betas);

        clock.enter("contractions")?;
        let instances = contraction::linear_part(layout, weights, &key.public, &mut form);
        let mut control = |done| clock.control(done);
        let flow = contraction::prove(&mut prover, layout, self.witness, &key.public, &instances, &mut form, &mut control);
        if flow.is_break() {
            return Err(ProveError::Stopped);
        }

        clock.enter("opening")?;
        let mut forms = vec![form];
        forms.extend(ties(c, &key.program, &statement, &tau).into_iter().map(|(f, _)| f));
        forms.extend(copies(c, &copy_point));
        let claims: Vec<_> = forms.into_iter().map(|f| c.functionals(f)).collect();
        #[cfg(feature = "attacks")]
        let mut prover = self.compensated::<D>(prover, &transcript, &statement, &oracles, &roots, start);
        let mut control = |done| clock.control(done);
        let combine = |prover: &mut Prover| pcs::combine(key.parameters(), prover, &c.stack, &oracles, &claims, &mut control);
        let fresh = oracles.iter().find_map(|o| o.fresh.as_ref());
        let inference = Inference { key, compiled: c, statement: &statement, roots: &roots };
        let combination = self.concluded::<D>(&inference, &mut prover, Begun { transcript, start, fresh }, combine)?;
        let rows = pcs::query(key.parameters(), &mut prover, &c.stack, &oracles, combination);
        clock.report(1.0)?;
        clock.leave();
        let (mut opened, mut model_opened) = (vec![None; layout.ports.len()], None);
        for (k, (seed, rows)) in own.seeds.iter().zip(rows).enumerate() {
            match (c.ports[k], seed) {
                (Some(port), Some(seed)) => opened[port] = Some(Opened { seed: seed.clone(), rows, budget: c.oracles[k].budget() }),
                (None, _) if own.oracles[k].is_none() => model_opened = self.key.opened(rows),
                _ => {}
            }
        }
        Ok(Shown { statement, proof: prover.finish(), opened, model_opened })
    }
}
