//! Proofs about the committed weights of a private model, without any run of it (design section 7).
//!
//! A *registration* shows once that weights and biases are what the public program assumes of them; a proof of inference under a private
//! model is worth nothing without it. A *link* shows that other commitments hold the same weights and biases as the registered one:
//! `<W - W', eq(tau)> = 0` for every constant, with `tau` drawn after all roots.
//!
//! Both are statements of a kind of their own, absorbed before the model digest: no such proof is accepted as one of inference, nor the
//! reverse. They have no tensors and no context.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use thiserror::Error;

use super::VERSION;
use super::conversation::{copies, copy_variables};
#[cfg(feature = "attacks")]
use super::exchange::elements;
use super::exchange::{Begun, Combine, Exchange, Form};
use super::instance::Compiled;
use super::key::{KeyWeights, ProvingKey, VerifyingKey};
use super::prove::{Opened, Progress, ProveError};
use super::terms::{masked_messages, soundness};
use super::verify::Lapse;
#[cfg(feature = "attacks")]
use crate::channel::ProofBytes;
use crate::channel::{Prover, Reader, Transcript};
use crate::exec::Trace;
use crate::field::{F, K};
use crate::layout::{Layout, LayoutError};
use crate::logup;
#[cfg(feature = "attacks")]
use crate::masking::MaskedReader;
use crate::parameters::Parameters;
use crate::pcs::{self, Combination, Committed, Drawn, Hiding, OpenedRows, Secret};
use crate::prover::values::Witness;
use crate::prover::witness;
use crate::random::Randomness;
use crate::reject::{Reject, Verdict};

/// Commitments that one link may cover.
const FRESH: usize = 64;

/// Why there is no registration or link.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// Weights are public or inside the key.
    #[error("only models whose program is private and whose weights are committed are registered or linked")]
    NotPrivate,
    /// The commitment is not the registered one itself.
    #[error("a registration, and a link's first commitment, is of the commitment that the model digest names")]
    NotRegistered,
    /// The commitments cannot be linked.
    #[error("a link joins 1 to {FRESH} other commitments of one model")]
    Different,
    /// The program has no such proof.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The errors of the proof sum up to more than the parameter set promises.
    #[error("the proof would have {bits:.1} bits of soundness, {wanted} are required; use the 128-bit set")]
    Unsound {
        /// What it would have.
        bits: f64,
        /// What is required.
        wanted: u32,
    },
    /// No proof came of it.
    #[error(transparent)]
    Proof(#[from] ProveError),
}

/// A registration or a link, and what it opens of the commitments that it is about.
pub struct WeightProof {
    /// The proof.
    pub proof: Vec<u8>,
    /// For each commitment, the registered one first; `None` where commitments hide nothing.
    pub opened: Vec<Option<Opened>>,
}

/// Evidence that the registration of a model was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    digest: [u8; 32],
}

impl Registered {
    /// From the caller's own record that [`verify_registration`] accepted this digest's registration before.
    pub fn recorded(digest: [u8; 32]) -> Self {
        Registered { digest }
    }

    /// The model digest.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Evidence that some commitments hold the weights of a registered model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    registered: [u8; 32],
    fresh: BTreeSet<[u8; 32]>,
}

impl Linked {
    /// From the caller's own record that [`verify_link`] accepted this commitment's link to the registered model before.
    pub fn recorded(registered: [u8; 32], root: [u8; 32]) -> Self {
        Linked { registered, fresh: BTreeSet::from([root]) }
    }

    /// The model digest.
    pub fn digest(&self) -> [u8; 32] {
        self.registered
    }

    /// Whether the commitment with this root was linked.
    pub fn covers(&self, root: &[u8; 32]) -> bool {
        self.fresh.contains(root)
    }
}

/// What a proof about weights is about.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// A model's registration.
    Registration(&'a VerifyingKey),
    /// A registered model, and keys under other commitments of it.
    Link(&'a VerifyingKey, &'a [&'a VerifyingKey]),
}

impl<'a> Subject<'a> {
    fn key(self) -> &'a VerifyingKey {
        match self {
            Subject::Registration(key) | Subject::Link(key, _) => key,
        }
    }

    fn fresh(self) -> &'a [&'a VerifyingKey] {
        match self {
            Subject::Registration(_) => &[],
            Subject::Link(_, fresh) => fresh,
        }
    }

    /// The commitments, the registered one first. Refuses keys without one, and keys of different programs or parameter sets.
    fn roots(self) -> Result<Vec<[u8; 32]>, RegistrationError> {
        let key = self.key();
        if key.program().private.is_none() {
            return Err(RegistrationError::NotPrivate);
        }
        let KeyWeights::Committed(registered) = key.weights else { return Err(RegistrationError::NotRegistered) };
        let mut roots = vec![registered];
        if let Subject::Link(_, fresh) = self {
            let again = |other: &VerifyingKey| match other.weights {
                KeyWeights::Linked { registered: of, root } if of == registered => Some(root),
                _ => None,
            };
            let same = |other: &&VerifyingKey| {
                other.program().unnamed_bytes() == key.program().unnamed_bytes() && other.parameters() == key.parameters()
            };
            if fresh.is_empty() || fresh.len() > FRESH || !fresh.iter().all(same) {
                return Err(RegistrationError::Different);
            }
            for other in fresh {
                roots.push(again(other).ok_or(RegistrationError::Different)?);
            }
        }
        Ok(roots)
    }

    fn compile(self) -> Result<Compiled, RegistrationError> {
        let key = self.key();
        let layout = match self {
            Subject::Registration(_) => Layout::registration(key.program())?,
            Subject::Link(_, fresh) => Layout::link(key.program(), fresh.len()),
        };
        let compiled = Compiled::from_layout(key.parameters(), layout)?;
        let (bits, wanted) = (soundness(key.parameters(), &compiled).bits, key.parameters().security());
        if bits <= f64::from(wanted) {
            return Err(RegistrationError::Unsound { bits, wanted });
        }
        Ok(compiled)
    }

    /// Absorbs everything public: the statement, then every oracle.
    fn begin(self, compiled: &Compiled, roots: &[[u8; 32]]) -> Transcript {
        let key = self.key();
        let mut t = Transcript::new();
        t.absorb("version", VERSION);
        t.absorb("parameter set", &key.parameters().to_bytes());
        t.absorb("mode", &[key.parameters().mode() as u8]);
        t.absorb("kind", if matches!(self, Subject::Registration(_)) { b"registration" } else { b"link" });
        t.absorb("semantics", &[key.program().semantics as u8]);
        t.absorb("model", &key.digest());
        t.absorb("fresh commitments", &(self.fresh().len() as u64).to_le_bytes());
        self.fresh().iter().for_each(|fresh| t.absorb("model", &fresh.digest()));
        t.absorb("oracles", &(roots.len() as u64).to_le_bytes());
        for (layout, root) in compiled.oracles.iter().zip(roots) {
            t.absorb("oracle", &layout.to_bytes());
            t.absorb("root", root);
        }
        t
    }
}

/// Proves that the weights of a private model are what its program assumes of them: once for each model.
pub fn register(key: &ProvingKey, progress: Progress<'_>) -> Result<WeightProof, RegistrationError> {
    register_from(key, Randomness::fresh().map_err(ProveError::from)?, progress)
}

/// [`register`] with secrets from `random`, which is drawn from in zero-knowledge mode only.
pub fn register_from(key: &ProvingKey, random: Randomness, progress: Progress<'_>) -> Result<WeightProof, RegistrationError> {
    let subject = Subject::Registration(&key.verifying);
    subject.roots()?;
    let model = key.model.as_ref().ok_or(RegistrationError::NotPrivate)?;
    rayon::scope(|_| {
        report(progress, "witness", 0.0)?;
        let compiled = subject.compile()?;
        let filled = witness::fill_heard(&compiled.layout, &key.weights, &Trace::default(), &mut control(progress, "witness"));
        let ControlFlow::Continue(witness) = filled else { return Err(ProveError::Stopped.into()) };
        let (proof, rows) = Attempt::new(subject, &compiled, &witness, &[model]).prove(random, progress)?;
        Ok(WeightProof { proof, opened: opened(&[key], rows) })
    })
}

/// Accepts only if `proof` shows that the committed weights of the key's model are what its program assumes of them.
pub fn verify_registration(key: &VerifyingKey, proof: &[u8]) -> Verdict<Registered> {
    verify(Subject::Registration(key), proof)?;
    Ok(Registered { digest: key.digest() })
}

/// Proves that fresh commitments hold the weights of the registered model.
pub fn link(registered: &ProvingKey, fresh: &[&ProvingKey], progress: Progress<'_>) -> Result<WeightProof, RegistrationError> {
    link_from(registered, fresh, Randomness::fresh().map_err(ProveError::from)?, progress)
}

/// [`link`] with secrets from `random`, which is drawn from in zero-knowledge mode only.
pub fn link_from(
    registered: &ProvingKey,
    fresh: &[&ProvingKey],
    random: Randomness,
    progress: Progress<'_>,
) -> Result<WeightProof, RegistrationError> {
    let keys: Vec<&VerifyingKey> = fresh.iter().map(|key| &*key.verifying).collect();
    let subject = Subject::Link(&registered.verifying, &keys);
    subject.roots()?;
    if fresh.iter().any(|key| key.weights != registered.weights) {
        return Err(RegistrationError::Different);
    }
    let models: Option<Vec<&Committed>> = std::iter::once(&registered).chain(fresh).map(|key| key.model.as_ref()).collect();
    let models = models.ok_or(RegistrationError::NotPrivate)?;
    rayon::scope(|_| {
        let compiled = subject.compile()?;
        let (proof, rows) = Attempt::new(subject, &compiled, &Witness::default(), &models).prove(random, progress)?;
        let keys: Vec<&ProvingKey> = std::iter::once(&registered).chain(fresh).copied().collect();
        Ok(WeightProof { proof, opened: opened(&keys, rows) })
    })
}

/// The rows of the models' oracles, which follow the witness's.
fn opened(keys: &[&ProvingKey], rows: OpenedRows) -> Vec<Option<Opened>> {
    keys.iter().zip(rows.into_iter().skip(1)).map(|(key, rows)| key.opened(rows)).collect()
}

/// Accepts only if `proof` shows that all keys commit to the same weights and biases.
pub fn verify_link(registered: &VerifyingKey, fresh: &[&VerifyingKey], proof: &[u8]) -> Verdict<Linked> {
    verify(Subject::Link(registered, fresh), proof)?;
    Ok(Linked { registered: registered.digest(), fresh: fresh.iter().filter_map(|key| key.weights.root()).collect() })
}

fn verify(subject: Subject<'_>, proof: &[u8]) -> Verdict<()> {
    judge(subject, proof, Lapse::default())
}

/// A verifier of registrations and links, with a lapse in tests.
pub(crate) fn judge(subject: Subject<'_>, proof: &[u8], lapse: Lapse) -> Verdict<()> {
    rayon::scope(|_| {
        let models = subject.roots().map_err(|e| Reject::Statement(e.to_string()))?;
        let compiled = subject.compile().map_err(|e| Reject::Statement(e.to_string()))?;
        check(subject, &compiled, &models, proof, lapse)
    })
}

/// The prover of a changed structure or witness: what a malicious one does.
#[cfg(feature = "attacks")]
pub fn prove_cells(subject: Subject<'_>, compiled: &Compiled, witness: &Witness, models: &[&Committed]) -> Vec<u8> {
    let attempt = Attempt { forged: true, ..Attempt::new(subject, compiled, witness, models) };
    attempt.prove(Randomness::fresh().expect("entropy"), &mut |_, _| true).expect("nobody stops it").0
}

/// The honest prover under programmed challenges, of whoever owns all keys.
#[cfg(test)]
pub(crate) fn prove_taped(keys: &[&ProvingKey], random: Randomness, lapse: Lapse) -> (Compiled, Vec<u8>) {
    let fresh: Vec<&VerifyingKey> = keys[1..].iter().map(|key| &*key.verifying).collect();
    let own = &keys[0].verifying;
    let subject = if fresh.is_empty() { Subject::Registration(own) } else { Subject::Link(own, &fresh) };
    let compiled = subject.compile().expect("provable");
    let witness = witness::fill(&compiled.layout, &keys[0].weights, &Trace::default());
    let models: Vec<&Committed> = keys.iter().map(|key| key.model.as_ref().expect("committed")).collect();
    let attempt = Attempt { lapse, ..Attempt::new(subject, &compiled, &witness, &models) };
    let (proof, _) = attempt.prove(random, &mut |_, _| true).expect("nobody stops it");
    (compiled, proof)
}

/// The verifier of another public structure: what a proof would show if a constraint were missing on both sides.
#[cfg(feature = "attacks")]
pub fn verify_cells(subject: Subject<'_>, compiled: &Compiled, proof: &[u8]) -> Verdict<()> {
    check(subject, compiled, &subject.roots().map_err(|e| Reject::Statement(e.to_string()))?, proof, Lapse::default())
}

fn report(progress: &mut (dyn FnMut(&'static str, f64) -> bool + Send), phase: &'static str, fraction: f64) -> Result<(), ProveError> {
    if progress(phase, fraction) { Ok(()) } else { Err(ProveError::Stopped) }
}

/// [`report`] for steps that know nothing of phases.
fn control<'a>(progress: Progress<'a>, phase: &'static str) -> impl FnMut(f64) -> ControlFlow<()> + Send + 'a {
    move |done| if progress(phase, done) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// An attempt at a proof about weights.
struct Attempt<'a> {
    subject: Subject<'a>,
    compiled: &'a Compiled,
    witness: &'a Witness,
    /// The registered commitment, then the fresh ones.
    models: &'a [&'a Committed],
    /// Programmed challenges, in tests.
    lapse: Lapse,
    /// Of a malicious prover, who does not mind that equations are false.
    #[cfg(feature = "attacks")]
    forged: bool,
}

impl<'a> Attempt<'a> {
    fn new(subject: Subject<'a>, compiled: &'a Compiled, witness: &'a Witness, models: &'a [&'a Committed]) -> Self {
        Attempt {
            subject,
            compiled,
            witness,
            models,
            lapse: Lapse::default(),
            #[cfg(feature = "attacks")]
            forged: false,
        }
    }

    /// -> the proof and the rows of all oracles, the witness's first.
    fn prove(&self, mut random: Randomness, progress: Progress<'_>) -> Result<(Vec<u8>, OpenedRows), ProveError> {
        report(progress, "commit", 0.0)?;
        let (key, c) = (self.subject.key(), self.compiled);
        let own: Vec<&[F]> = c.members[0].iter().map(|&s| &self.witness.storages[s][..]).collect();
        let secret = match c.oracles[0].hiding {
            Hiding::Fresh { .. } => Secret::Fresh(Drawn::new(&mut random, &c.oracles[0], masked_messages(c))),
            Hiding::None | Hiding::Kept => Secret::None,
        };
        let own = pcs::commit_heard(key.parameters(), c.oracles[0].clone(), &own, secret, &mut control(progress, "commit"));
        let ControlFlow::Continue(own) = own else { return Err(ProveError::Stopped) };
        let oracles: Vec<&Committed> = std::iter::once(&own).chain(self.models.iter().copied()).collect();
        let roots: Vec<[u8; 32]> = oracles.iter().map(|o| o.root).collect();
        let transcript = self.lapse.transcript(self.subject.begin(c, &roots));
        let mut prover = Prover::new(transcript.clone());
        if let Some(fresh) = &own.fresh {
            prover = prover.masked(fresh.r.clone());
        }
        prover.append(&own.root);
        let rows = if key.parameters().degree() == 2 {
            self.converse::<2>(&mut prover, transcript, &oracles, &roots, progress)?
        } else {
            self.converse::<3>(&mut prover, transcript, &oracles, &roots, progress)?
        };
        Ok((prover.finish(), rows))
    }

    fn converse<const D: usize>(
        &self,
        prover: &mut Prover,
        transcript: Transcript,
        oracles: &[&Committed],
        roots: &[[u8; 32]],
        progress: Progress<'_>,
    ) -> Result<OpenedRows, ProveError> {
        let (parameters, c, layout) = (self.subject.key().parameters(), self.compiled, &self.compiled.layout);
        let start = prover.so_far().len();
        let copy_point: Vec<K<D>> = prover.challenges("copy", copy_variables(c));
        let mut forms = Vec::new();
        if !layout.lookups.is_empty() {
            let alpha: K<D> = prover.challenge("alpha");
            let betas: Vec<K<D>> = prover.challenges("betas", layout.tuple_width());
            report(progress, "lookups", 0.0)?;
            let mut control = control(progress, "lookups");
            let flow = logup::prove(prover, layout, self.witness, &c.blocks, alpha, &betas, &mut control);
            let ControlFlow::Continue(r) = flow else { return Err(ProveError::Stopped) };
            let gamma: K<D> = prover.challenge("gamma");
            forms.push(logup::split(layout, &c.blocks, &r, gamma, alpha, &betas).0);
        }
        forms.extend(copies(c, &copy_point));
        let claims: Vec<_> = forms.into_iter().map(|f| c.functionals(f)).collect();
        let fresh = oracles[0].fresh.as_ref();
        let mut control = control(progress, "opening");
        let combine = |prover: &mut Prover| pcs::combine(parameters, prover, &c.stack, oracles, &claims, &mut control);
        let about = AboutWeights { parameters, compiled: c, roots };
        let combination = self.concluded::<D>(&about, prover, Begun { transcript, start, fresh }, combine)?;
        Ok(pcs::query(parameters, prover, &c.stack, oracles, combination))
    }

    fn concluded<const D: usize>(
        &self,
        about: &AboutWeights<'_>,
        prover: &mut Prover,
        begun: Begun<'_>,
        combine: impl Combine<D>,
    ) -> Result<Combination<D>, ProveError> {
        #[cfg(feature = "attacks")]
        if self.forged {
            let combination = combine(prover).continue_value().expect("nobody stops it");
            if let Some(fresh) = begun.fresh {
                let so_far = prover.so_far()[begun.start..].to_vec();
                let mut reader = MaskedReader::<_, D>::new(ProofBytes::new(begun.transcript, &so_far));
                let _ = about.read(&mut reader);
                reader.forge(prover, &elements(&fresh.r), &elements(&fresh.b), None);
            }
            return Ok(combination);
        }
        about.conclude(prover, begun, combine)
    }
}

fn check(subject: Subject<'_>, compiled: &Compiled, models: &[[u8; 32]], proof: &[u8], lapse: Lapse) -> Verdict<()> {
    let (root, rest) = proof.split_first_chunk::<32>().ok_or(Reject::Truncated { at: "root" })?;
    let roots = [&[*root], models].concat();
    let about = AboutWeights { parameters: subject.key().parameters(), compiled, roots: &roots };
    about.check(lapse.transcript(subject.begin(compiled, &roots)), rest, lapse)
}

/// A registration or a link.
struct AboutWeights<'a> {
    parameters: &'a Parameters,
    compiled: &'a Compiled,
    roots: &'a [[u8; 32]],
}

impl Exchange for AboutWeights<'_> {
    fn parameters(&self) -> &Parameters {
        self.parameters
    }

    fn compiled(&self) -> &Compiled {
        self.compiled
    }

    fn roots(&self) -> &[[u8; 32]] {
        self.roots
    }

    fn messages(&self) -> usize {
        masked_messages(self.compiled)
    }

    /// As the conversation of a proof of inference, without contractions and ports; a link has no lookups either.
    fn hear<const D: usize, R: Reader<D>>(&self, reader: &mut R) -> Verdict<Vec<Form<D, R>>> {
        let (c, layout) = (self.compiled, &self.compiled.layout);
        let copy_point: Vec<K<D>> = reader.challenges("copy", copy_variables(c));
        let mut forms = Vec::new();
        if !layout.lookups.is_empty() {
            let alpha: K<D> = reader.challenge("alpha");
            let betas: Vec<K<D>> = reader.challenges("betas", layout.tuple_width());
            let (r, p, q) = logup::verify(reader, c.blocks.variables)?;
            let gamma: K<D> = reader.challenge("gamma");
            let form = logup::split(layout, &c.blocks, &r, gamma, alpha, &betas).0;
            forms.push((form, reader.add_scaled(&p, &q, gamma)));
        }
        forms.extend(copies(c, &copy_point).into_iter().map(|f| (f, reader.constant(K::ZERO))));
        Ok(forms)
    }
}

/// All messages of a registration or link, and the equations between them, for tests of what is counted and shown.
#[cfg(test)]
pub(crate) fn conversation<const D: usize, R: Reader<D>>(
    reader: &mut R,
    parameters: &Parameters,
    compiled: &Compiled,
    roots: &[[u8; 32]],
) -> Verdict<pcs::Combined<D>> {
    AboutWeights { parameters, compiled, roots }.read(reader)
}
