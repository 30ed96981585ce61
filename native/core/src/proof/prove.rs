//! The prover, start to end.

use std::ops::ControlFlow;
use std::time::Instant;

use thiserror::Error;

use super::conversation::{begin, copies, copy_variables, ties};
use super::instance::Compiled;
use super::key::{KeyError, ProvingKey};
use super::statement::{Content, Statement, StatementTensor, tensor_commitment};
use super::terms::soundness;
use crate::channel::{Prover, Transcript};
use crate::contraction;
use crate::exec::{ExecError, Executor};
use crate::field::{F, K};
use crate::logup::{self, Leaves};
use crate::pcs::{self, Committed};
use crate::prover::values::Witness;
use crate::prover::witness;

/// What is asked for.
pub struct Request<'a> {
    /// One array for each input, row-major.
    pub inputs: Vec<&'a [i16]>,
    /// Bound by the proof.
    pub context: [u8; 32],
    /// Inputs and outputs that are committed instead of clear.
    pub committed: Vec<bool>,
}

/// A proof and what it shows.
pub struct Made {
    /// Output arrays.
    pub outputs: Vec<Vec<i16>>,
    /// The statement.
    pub statement: Statement,
    /// The proof.
    pub proof: Vec<u8>,
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

/// The caller asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cancelled")]
pub struct Stop;

/// Why there is no proof.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The program cannot run on this input.
    #[error(transparent)]
    Execution(#[from] ExecError),
    /// The statement's form has no proof.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Cancelled.
    #[error(transparent)]
    Stopped(#[from] Stop),
}

struct Clock<'a, 'b> {
    progress: Progress<'b>,
    figures: &'a mut Figures,
    started: Instant,
    phase: &'static str,
}

impl Clock<'_, '_> {
    fn enter(&mut self, phase: &'static str) -> Result<(), Stop> {
        self.leave();
        self.phase = phase;
        self.report(0.0)
    }

    fn report(&mut self, fraction: f64) -> Result<(), Stop> {
        if (self.progress)(self.phase, fraction) { Ok(()) } else { Err(Stop) }
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
    let trace = executor.run(&request.inputs, 0, true)?;
    let outputs: Vec<Vec<i16>> = verifying.program.outputs.iter().map(|p| trace.tensors[p.tensor as usize].clone()).collect();
    let ports: Vec<Vec<i16>> = compiled.layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
    clock.enter("witness")?;
    let witness = witness::fill(&compiled.layout, &key.weights, &trace);
    drop(trace);
    clock.leave();
    let (statement, proof) = prove_witness(key, &compiled, &witness, &witness, &ports, request.context, progress, &mut figures)?;
    figures.cells = compiled.layout.cells();
    figures.lookups = compiled.layout.lookup_count();
    figures.bits = soundness(verifying.parameters(), &compiled).bits;
    Ok(Made { outputs, statement, proof, figures })
}

/// Proves from values of all storages. `committed` is what goes into the oracles: the same as `witness` for an honest prover.
pub fn prove_witness(
    key: &ProvingKey,
    compiled: &Compiled,
    witness: &Witness,
    committed: &Witness,
    ports: &[Vec<i16>],
    context: [u8; 32],
    progress: Progress<'_>,
    figures: &mut Figures,
) -> Result<(Statement, Vec<u8>), Stop> {
    let attempt = Attempt {
        key,
        compiled,
        witness,
        committed,
        ports,
        start: &Prover::new,
        #[cfg(feature = "attacks")]
        two_faced: false,
    };
    attempt.prove(context, progress, figures)
}

/// As [`prove_witness`], with messages changed as they are sent. With `two_faced`, `committed` goes into the trees but the openings' sumcheck
/// runs on `witness`: every equation holds, and only the opened rows can tell.
#[cfg(feature = "attacks")]
pub fn prove_tampered(
    key: &ProvingKey,
    compiled: &Compiled,
    witness: &Witness,
    committed: &Witness,
    ports: &[Vec<i16>],
    context: [u8; 32],
    tamper: crate::channel::Tamper,
    two_faced: bool,
) -> (Statement, Vec<u8>) {
    let start = |transcript| Prover::new(transcript).tampered(tamper.clone());
    let attempt = Attempt { key, compiled, witness, committed, ports, start: &start, two_faced };
    attempt.prove(context, &mut |_, _| true, &mut Figures::default()).expect("nobody stops it")
}

struct Attempt<'a> {
    key: &'a ProvingKey,
    compiled: &'a Compiled,
    witness: &'a Witness,
    committed: &'a Witness,
    ports: &'a [Vec<i16>],
    /// The prover's channel after what the transcript has absorbed.
    start: &'a dyn Fn(Transcript) -> Prover,
    #[cfg(feature = "attacks")]
    two_faced: bool,
}

impl Attempt<'_> {
    fn prove(&self, context: [u8; 32], progress: Progress<'_>, figures: &mut Figures) -> Result<(Statement, Vec<u8>), Stop> {
        if self.key.verifying.parameters().degree() == 2 {
            self.run::<2>(context, progress, figures)
        } else {
            self.run::<3>(context, progress, figures)
        }
    }

    /// All oracles but the model's, which belongs to the key.
    fn commit(&self) -> Vec<Option<Committed>> {
        let c = self.compiled;
        let own = |k: usize| c.ports[k].is_some() || k == 0;
        c.oracles
            .iter()
            .enumerate()
            .map(|(k, layout)| {
                let commit = |w: &Witness| {
                    let values: Vec<&[F]> = c.members[k].iter().map(|&s| &w.storages[s][..]).collect();
                    pcs::commit(self.key.verifying.parameters(), layout.clone(), &values)
                };
                #[cfg(feature = "attacks")]
                if self.two_faced && own(k) {
                    return Some(commit(self.committed).over_cells_of(commit(self.witness)));
                }
                own(k).then(|| commit(self.committed))
            })
            .collect()
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

    fn run<const D: usize>(&self, context: [u8; 32], progress: Progress<'_>, figures: &mut Figures) -> Result<(Statement, Vec<u8>), Stop> {
        let (key, c, layout) = (&self.key.verifying, self.compiled, &self.compiled.layout);
        let mut clock = Clock { progress, figures, started: Instant::now(), phase: "" };
        clock.enter("commit")?;
        let own = self.commit();
        let statement = self.statement(&own, context);
        let oracles: Vec<&Committed> = own
            .iter()
            .map(|o| o.as_ref().or(self.key.model.as_ref()).expect("the model oracle belongs to keys with committed weights"))
            .collect();
        let roots: Vec<[u8; 32]> = oracles.iter().map(|o| o.root).collect();
        let mut prover = (self.start)(begin(&statement, &key.program, key.parameters(), c, &roots));
        for o in own.iter().flatten() {
            prover.append(&o.root);
        }

        clock.enter("lookups")?;
        let tau: Vec<K<D>> = prover.challenges("tie", c.tie_variables);
        let copy_point: Vec<K<D>> = prover.challenges("copy", copy_variables(c));
        let alpha: K<D> = prover.challenge("alpha");
        let betas: Vec<K<D>> = prover.challenges("betas", layout.tuple_width());
        let leaves = Leaves::new(layout, self.witness, &c.blocks, alpha, &betas);
        clock.report(0.4)?;
        let r = logup::prove(&mut prover, leaves);
        let gamma: K<D> = prover.challenge("gamma");
        let (mut form, weights) = logup::split(layout, &c.blocks, &r, gamma, alpha, &betas);

        clock.enter("contractions")?;
        let instances = contraction::linear_part(layout, weights, &key.public, &mut form);
        contraction::prove(&mut prover, layout, self.witness, &key.public, &instances, &mut form);

        clock.enter("opening")?;
        let mut forms = vec![form];
        forms.extend(ties(c, &key.program, &statement, &tau).into_iter().map(|(f, _)| f));
        forms.extend(copies(c, &copy_point));
        let claims = forms.into_iter().map(|f| c.functionals(f)).collect();
        let mut control = |done| if clock.report(done).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        if pcs::open(key.parameters(), &mut prover, &c.stack, &oracles, claims, &mut control).is_break() {
            return Err(Stop);
        }
        clock.leave();
        Ok((statement, prover.finish()))
    }
}
