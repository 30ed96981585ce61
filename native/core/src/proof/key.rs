//! Keys. A verifying key is all that a verifier needs: the checked program, and either the commitment of the weights or the weights.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use thiserror::Error;

use super::VERSION;
use super::instance::Compiled;
use super::prove::Opened;
use super::registration::{Linked, Registered};
use super::terms::soundness;
use crate::field::{F, from_i64};
use crate::layout::{Form, LayoutError};
use crate::parameters::{Mode, Parameters};
use crate::pcs::{Committed, Hiding, OracleLayout, Role};
use crate::program::check::{CheckedProgram, load};
use crate::program::error::ProgramError;
use crate::program::{Program, Weights};
use crate::random::Seed;
use crate::reject::{Reject, Verdict};

const MAGIC: &[u8; 8] = b"NXEvkey5";
const MODEL: &str = "nexus-edge v1 model";
/// Compiled forms kept; a model with `k` ports has `2^k`.
const KEPT: usize = 8;

/// Why a key cannot be made or read.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not a key of this version.
    #[error("malformed verifying key: {0}")]
    Malformed(String),
    /// The program in it is not acceptable.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The program has no proof.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Entropy(String),
    /// A seed belongs to commitments of private weights in zero-knowledge mode, and to no other.
    #[error("only a private model's own commitment in zero-knowledge mode has a seed")]
    Seed,
    /// There is no such parameter set.
    #[error("no parameter set of {0} bits: use 100 or 128")]
    Security(u32),
    /// The errors of a proof sum up to more than the parameter set promises.
    #[error("a proof of this model would have {bits:.1} bits of soundness, {wanted} are required; use the 128-bit set")]
    Unsound {
        /// What it would have.
        bits: f64,
        /// What is required.
        wanted: u32,
    },
}

impl From<std::io::Error> for KeyError {
    fn from(e: std::io::Error) -> Self {
        KeyError::Entropy(e.to_string())
    }
}

/// How weights enter.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyWeights {
    /// Root of the model oracle.
    Committed([u8; 32]),
    /// Another commitment of a private model, which the digest does not name.
    Linked {
        /// Root of the registered oracle, which the digest names.
        registered: [u8; 32],
        /// Root of the model oracle of proofs.
        root: [u8; 32],
    },
    /// The weights themselves.
    Inside(Arc<Weights>),
}

impl KeyWeights {
    /// Another commitment than the registered one: as a commitment of its own it has a budget of its own, which one linked to itself must not
    /// have a second time.
    fn linked(registered: [u8; 32], root: [u8; 32]) -> Result<Self, KeyError> {
        if registered == root {
            return Err(KeyError::Malformed("a commitment linked to itself".into()));
        }
        Ok(KeyWeights::Linked { registered, root })
    }

    /// Root of the model oracle of proofs.
    pub fn root(&self) -> Option<[u8; 32]> {
        match self {
            KeyWeights::Committed(root) | KeyWeights::Linked { root, .. } => Some(*root),
            KeyWeights::Inside(_) => None,
        }
    }

    /// Flag and bytes of what the digest names.
    fn named(&self) -> (u8, Vec<u8>) {
        match self {
            KeyWeights::Committed(root) | KeyWeights::Linked { registered: root, .. } => (1, root.to_vec()),
            KeyWeights::Inside(w) => (0, w.to_bytes()),
        }
    }
}

/// What a verifier holds.
pub struct VerifyingKey {
    pub(super) parameters: Parameters,
    pub(super) program: Arc<CheckedProgram>,
    pub(super) weights: KeyWeights,
    /// Weights as field elements, for keys that carry them.
    pub(super) public: Vec<Vec<F>>,
    digest: [u8; 32],
    compiled: Mutex<HashMap<Vec<bool>, Arc<Compiled>>>,
    /// Evidence that a private model is registered, and that a linked commitment is linked.
    registered: OnceLock<()>,
    linked: OnceLock<()>,
}

/// What a prover holds: the key, the weights and the model oracle.
pub struct ProvingKey {
    /// The verifier's part.
    pub verifying: Arc<VerifyingKey>,
    /// Values of all constants.
    pub weights: Arc<Weights>,
    pub(crate) model: Option<Committed>,
    /// Of the model oracle, if it hides the weights.
    seed: Option<Seed>,
}

fn lift(weights: &Weights) -> Vec<Vec<F>> {
    weights.values.iter().map(|v| v.iter().map(|&x| from_i64(i64::from(x))).collect()).collect()
}

impl VerifyingKey {
    pub(crate) fn new(parameters: Parameters, program: Arc<CheckedProgram>, weights: KeyWeights) -> Result<Self, KeyError> {
        let public = match &weights {
            KeyWeights::Inside(w) => lift(w),
            KeyWeights::Committed(_) | KeyWeights::Linked { .. } => Vec::new(),
        };
        let digest = digest(&parameters, &program, &weights);
        let key = VerifyingKey {
            parameters,
            program,
            weights,
            public,
            digest,
            compiled: Mutex::new(HashMap::new()),
            registered: OnceLock::new(),
            linked: OnceLock::new(),
        };
        // The usual form: inputs committed, outputs clear. Any other differs by a few tensors; each proof's own sum is checked too.
        key.compiled(&key.usual_form())?;
        Ok(key)
    }

    /// Inputs committed, outputs clear.
    pub fn usual_form(&self) -> Vec<bool> {
        let (inputs, outputs) = (self.program.inputs.len(), self.program.outputs.len());
        [vec![true; inputs], vec![false; outputs]].concat()
    }

    /// The model digest: program, parameter set, and the commitment of the weights or the weights.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The program.
    pub fn program(&self) -> &Arc<CheckedProgram> {
        &self.program
    }

    /// The parameter set.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Whether the weights are committed.
    pub fn committed_weights(&self) -> bool {
        self.weights.root().is_some()
    }

    /// How weights enter.
    pub fn weights(&self) -> &KeyWeights {
        &self.weights
    }

    /// The key of the registered commitment, for a key under another commitment of the same model.
    pub fn registered_key(&self) -> Result<Self, KeyError> {
        match self.weights {
            KeyWeights::Committed(root) | KeyWeights::Linked { registered: root, .. } => {
                Self::new(self.parameters.clone(), self.program.clone(), KeyWeights::Committed(root))
            }
            KeyWeights::Inside(_) => Err(KeyError::Malformed("a key with its weights inside has no commitment".into())),
        }
    }

    /// The key of another commitment of the same private model.
    pub fn linked_key(&self, root: [u8; 32]) -> Result<Self, KeyError> {
        match self.weights {
            KeyWeights::Committed(registered) | KeyWeights::Linked { registered, .. } if self.program.private.is_some() => {
                self.linked(registered, root)
            }
            _ => Err(KeyError::Malformed("a linked commitment of public weights".into())),
        }
    }

    fn linked(&self, registered: [u8; 32], root: [u8; 32]) -> Result<Self, KeyError> {
        Self::new(self.parameters.clone(), self.program.clone(), KeyWeights::linked(registered, root)?)
    }

    /// The layout of a model oracle that hides the weights.
    pub fn hiding_layout(&self) -> Result<Option<Arc<OracleLayout>>, KeyError> {
        let compiled = self.compiled(&self.usual_form())?;
        Ok(compiled.oracles.iter().find(|o| o.role == Role::Model && o.hiding == Hiding::Kept).cloned())
    }

    /// Whether no registration is missing: it is known, or nothing depends on one.
    pub fn is_registered(&self) -> bool {
        self.program.private.is_none() || !self.committed_weights() || self.registered.get().is_some()
    }

    /// Whether no link is missing: it is known, or the commitment is the registered one.
    pub fn is_linked(&self) -> bool {
        !matches!(self.weights, KeyWeights::Linked { .. }) || self.linked.get().is_some()
    }

    /// Takes notice of a verified registration; one of another model changes nothing.
    pub fn admit(&self, registered: &Registered) {
        if registered.digest() == self.digest {
            self.registered.get_or_init(|| ());
        }
    }

    /// Takes notice of a verified link; one that does not cover this key's commitment changes nothing.
    pub fn admit_link(&self, linked: &Linked) {
        if linked.digest() == self.digest && self.weights.root().is_some_and(|root| linked.covers(&root)) {
            self.linked.get_or_init(|| ());
        }
    }

    /// A proof under committed weights that nobody but their owner has seen is worth nothing unless they are what the program assumes of
    /// them. (A key with the weights inside was checked with them when it was read.)
    pub(super) fn require_evidence(&self) -> Verdict<()> {
        let refused = |why: &str| Err(Reject::Statement(why.into()));
        if !self.is_registered() {
            return refused("the model's weights are private, and no verified registration of them is known");
        }
        if !self.is_linked() {
            return refused("the key's commitment is not the registered one, and no verified link between them is known");
        }
        Ok(())
    }

    /// The public structure of proofs in which these ports are committed.
    pub fn compiled(&self, committed: &[bool]) -> Result<Arc<Compiled>, KeyError> {
        let kept = || self.compiled.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(c) = kept().get(committed) {
            return Ok(c.clone());
        }
        let form = Form { committed: committed.to_vec(), committed_weights: self.committed_weights() };
        let compiled = Arc::new(Compiled::new(&self.parameters, &self.program, form)?);
        let sum = soundness(&self.parameters, &compiled);
        let wanted = self.parameters.security();
        if sum.bits <= f64::from(wanted) {
            return Err(KeyError::Unsound { bits: sum.bits, wanted });
        }
        let mut kept = kept();
        // The usual form stays: unusual statements must not evict what every verification needs.
        let usual = self.usual_form();
        if kept.len() >= KEPT {
            kept.retain(|form, _| *form == usual);
        }
        kept.insert(committed.to_vec(), compiled.clone());
        Ok(compiled)
    }

    /// Canonical bytes: magic, security, mode, kind of weights, root or weights with their length, program with its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encoded(self.program.to_bytes())
    }

    /// Its bytes without the program's name: keys that differ in it alone are of one model.
    pub fn unnamed_bytes(&self) -> Vec<u8> {
        self.encoded(self.program.unnamed_bytes())
    }

    fn encoded(&self, program: Vec<u8>) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.parameters.security().to_le_bytes());
        out.push(self.parameters.mode() as u8);
        let (flag, weights) = match &self.weights {
            KeyWeights::Linked { registered, root } => (2, [*registered, *root].concat()),
            other => other.named(),
        };
        out.push(flag);
        for part in [weights, program] {
            out.extend((part.len() as u64).to_le_bytes());
            out.extend(part);
        }
        out
    }

    /// Reads and checks a key. Costs time and memory in proportion to the bytes and to the program's declared, limited sizes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        // Whoever reads a key verifies next: the pool's threads start meanwhile.
        rayon::spawn(|| ());
        let malformed = |why: &str| KeyError::Malformed(why.into());
        let mut rest = bytes;
        let mut take = |n: usize| -> Result<&[u8], KeyError> {
            let (head, tail) = rest.split_at_checked(n).ok_or_else(|| malformed("too short"))?;
            rest = tail;
            Ok(head)
        };
        if take(8)? != MAGIC {
            return Err(malformed("not a key of this version"));
        }
        let security = u32::from_le_bytes(take(4)?.try_into().expect("4 bytes"));
        let mode = match take(1)? {
            [0] => Mode::Plain,
            [1] => Mode::Zk,
            _ => return Err(malformed("unknown mode")),
        };
        let parameters = Parameters::new(security, mode).ok_or(KeyError::Security(security))?;
        let flag = take(1)?[0];
        let mut part = || -> Result<&[u8], KeyError> {
            let n = u64::from_le_bytes(take(8)?.try_into().expect("8 bytes"));
            take(usize::try_from(n).map_err(|_| malformed("too short"))?)
        };
        let (weights, program) = (part()?, part()?);
        if !rest.is_empty() {
            return Err(malformed("bytes after the program"));
        }
        let program = Program::from_bytes(program)?;
        match flag {
            1 if program.constants.is_empty() => Err(malformed("a commitment of no weights")),
            1 => {
                let root = weights.try_into().map_err(|_| malformed("a root has 32 bytes"))?;
                Self::new(parameters, Arc::new(load(program, None)?), KeyWeights::Committed(root))
            }
            2 if program.private.is_none() => Err(malformed("a linked commitment of public weights")),
            2 => {
                let (registered, root) = weights.split_first_chunk::<32>().ok_or_else(|| malformed("two roots have 64 bytes"))?;
                let root = root.try_into().map_err(|_| malformed("two roots have 64 bytes"))?;
                let weights = KeyWeights::linked(*registered, root)?;
                Self::new(parameters, Arc::new(load(program, None)?), weights)
            }
            0 => {
                let weights = Weights::from_bytes(weights)?;
                let program = Arc::new(load(program, Some(&weights))?);
                Self::new(parameters, program, KeyWeights::Inside(Arc::new(weights)))
            }
            _ => Err(malformed("unknown kind of weights")),
        }
    }
}

fn digest(parameters: &Parameters, program: &Program, weights: &KeyWeights) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key(MODEL);
    let program = program.unnamed_bytes();
    let set = parameters.to_bytes();
    let (flag, weights) = weights.named();
    h.update(&[flag]);
    // Two versions have two models: a node of one does not take the proofs of the other for false ones.
    for part in [VERSION, &set, &weights, &program] {
        h.update(&(part.len() as u64).to_le_bytes());
        h.update(part);
    }
    *h.finalize().as_bytes()
}

impl ProvingKey {
    /// Checks program and weights together, and commits the weights unless they go inside the key.
    pub fn new(program: Program, weights: Weights, inside: bool, security: u32, mode: Mode) -> Result<Self, KeyError> {
        let seed = if Self::hides(&program, mode) && !inside { Some(Seed::fresh()?) } else { None };
        Self::with_seed(program, weights, inside, security, mode, seed)
    }

    /// Whether the model oracle hides the weights, so that it needs a seed.
    fn hides(program: &Program, mode: Mode) -> bool {
        program.private.is_some() && mode == Mode::Zk
    }

    /// [`Self::new`] with the seed of a commitment of private weights that was made before.
    pub fn with_seed(
        program: Program,
        weights: Weights,
        inside: bool,
        security: u32,
        mode: Mode,
        seed: Option<Seed>,
    ) -> Result<Self, KeyError> {
        let parameters = Parameters::new(security, mode).ok_or(KeyError::Security(security))?;
        Self::with_parameters(program, weights, inside, parameters, seed)
    }

    /// [`Self::with_seed`] with any parameter set.
    pub(crate) fn with_parameters(
        program: Program,
        weights: Weights,
        inside: bool,
        parameters: Parameters,
        seed: Option<Seed>,
    ) -> Result<Self, KeyError> {
        let program = Arc::new(load(program, Some(&weights))?);
        let weights = Arc::new(weights);
        if inside || weights.values.is_empty() {
            let key = VerifyingKey::new(parameters, program, KeyWeights::Inside(weights.clone()))?;
            return Ok(ProvingKey { verifying: Arc::new(key), weights, model: None, seed: None });
        }
        if seed.is_some() != Self::hides(&program, parameters.mode()) {
            return Err(KeyError::Seed);
        }
        let model = Compiled::commit_model(&parameters, &program, &weights, seed.as_ref())?;
        let key = VerifyingKey::new(parameters, program, KeyWeights::Committed(model.root))?;
        Ok(ProvingKey { verifying: Arc::new(key), weights, model: Some(model), seed })
    }

    /// The same private model under a commitment of its own: proofs name the registered one, and need a link ([`super::link`]).
    pub fn committed_again(&self, seed: Seed) -> Result<Self, KeyError> {
        let own = &self.verifying;
        let KeyWeights::Committed(registered) = own.weights else { return Err(KeyError::Seed) };
        if self.seed.is_none() {
            return Err(KeyError::Seed);
        }
        let model = Compiled::commit_model(&own.parameters, &own.program, &self.weights, Some(&seed))?;
        let key = own.linked(registered, model.root)?;
        Ok(ProvingKey { verifying: Arc::new(key), weights: self.weights.clone(), model: Some(model), seed: Some(seed) })
    }

    /// This commitment as another one of the private model that is registered under the root `registered`.
    pub fn linked_to(self, registered: [u8; 32]) -> Result<Self, KeyError> {
        let KeyWeights::Committed(root) = self.verifying.weights else { return Err(KeyError::Seed) };
        if self.seed.is_none() {
            return Err(KeyError::Seed);
        }
        Ok(ProvingKey { verifying: Arc::new(self.verifying.linked(registered, root)?), ..self })
    }

    /// The seed of a commitment that hides the weights.
    pub fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// What a proof opens of a commitment that hides the weights.
    pub(super) fn opened(&self, rows: Vec<usize>) -> Option<Opened> {
        let budget = self.model.as_ref()?.layout.budget();
        Some(Opened { seed: self.seed.clone()?, rows, budget })
    }
}

#[cfg(feature = "attacks")]
impl ProvingKey {
    /// Other weights, unchecked, under this key's program, digest and root.
    pub fn forged(&self, weights: Weights) -> Result<Self, LayoutError> {
        let own = &self.verifying;
        let verifying = VerifyingKey {
            parameters: own.parameters.clone(),
            program: own.program.clone(),
            weights: own.weights.clone(),
            public: if own.committed_weights() { Vec::new() } else { lift(&weights) },
            digest: own.digest,
            compiled: Mutex::default(),
            registered: own.registered.clone(),
            linked: own.linked.clone(),
        };
        let mut model = None;
        if let Some(root) = own.weights.root() {
            let mut other = Compiled::commit_model(&own.parameters, &own.program, &weights, self.seed.as_ref())?;
            other.root = root;
            model = Some(other);
        }
        Ok(ProvingKey { verifying: Arc::new(verifying), weights: Arc::new(weights), model, seed: self.seed.clone() })
    }
}
