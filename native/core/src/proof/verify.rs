//! The verifier, start to end. Generic over its reading context from the first message to the opening.

use super::conversation::{begin, copies, copy_variables, ties};
use super::exchange::{Exchange, Form};
use super::instance::Compiled;
use super::key::VerifyingKey;
use super::statement::{Content, Statement, tensor_commitment};
use super::terms::masked_messages;
use crate::channel::{Reader, Source, Transcript};
use crate::contraction;
use crate::field::K;
use crate::logup;
#[cfg(feature = "attacks")]
use crate::masking::Defect;
use crate::masking::MaskedReader;
use crate::parameters::Parameters;
#[cfg(any(test, feature = "attacks"))]
use crate::pcs::Combined;
use crate::reject::{Reject, Verdict};

/// Accepts only if `proof` shows `statement` for the model of `key`. A private model's key must have been shown evidence of its registration
/// ([`VerifyingKey::admit`]), and of the link of its commitment if that is another than the registered one.
pub fn verify(key: &VerifyingKey, statement: &Statement, proof: &[u8]) -> Verdict<()> {
    // On a worker from start to end, as the prover.
    rayon::scope(|_| verify_here(key, statement, proof))
}

fn verify_here(key: &VerifyingKey, statement: &Statement, proof: &[u8]) -> Verdict<()> {
    if statement.digest != key.digest() {
        return Err(Reject::Statement("it names another model than the key".into()));
    }
    key.require_evidence()?;
    let form = statement.form(&key.program)?;
    let compiled = key.compiled(&form).map_err(|e| Reject::Statement(e.to_string()))?;
    check(key, &compiled, statement, proof, Lapse::default())
}

/// What provers and verifiers of the test suite do otherwise; without the feature `attacks` it is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lapse {
    /// Challenges that are programmed: functions of this seed.
    #[cfg(feature = "attacks")]
    pub tape: Option<[u8; 32]>,
    /// A safeguard that is missing.
    #[cfg(feature = "attacks")]
    pub defect: Option<Defect>,
}

impl Lapse {
    pub(super) fn transcript(self, transcript: Transcript) -> Transcript {
        #[cfg(feature = "attacks")]
        let transcript = transcript.taped(self.tape);
        transcript
    }

    pub(super) fn reader<S: Source, const D: usize>(self, source: S) -> MaskedReader<S, D> {
        let reader = MaskedReader::new(source);
        #[cfg(feature = "attacks")]
        let reader = reader.with_defect(self.defect);
        reader
    }
}

/// A verifier with a lapse.
#[cfg(feature = "attacks")]
pub fn verify_lapsed(key: &VerifyingKey, statement: &Statement, proof: &[u8], lapse: Lapse) -> Verdict<()> {
    let form = statement.form(&key.program)?;
    let compiled = key.compiled(&form).map_err(|e| Reject::Statement(e.to_string()))?;
    check(key, &compiled, statement, proof, lapse)
}

/// The verifier of another public structure than the key's: what a proof would show if a constraint were missing on both sides.
#[cfg(feature = "attacks")]
pub fn verify_compiled(key: &VerifyingKey, compiled: &Compiled, statement: &Statement, proof: &[u8]) -> Verdict<()> {
    statement.form(&key.program)?;
    check(key, compiled, statement, proof, Lapse::default())
}

/// Checks the proof of a statement that fits the key.
fn check(key: &VerifyingKey, compiled: &Compiled, statement: &Statement, proof: &[u8], lapse: Lapse) -> Verdict<()> {
    let (roots, rest) = roots(key, compiled, statement, proof)?;
    let transcript = lapse.transcript(begin(statement, &key.program, key.parameters(), compiled, &roots));
    Inference { key, compiled, statement, roots: &roots }.check(transcript, rest, lapse)
}

/// A proof that a model gives these outputs on these inputs.
pub(super) struct Inference<'a> {
    pub key: &'a VerifyingKey,
    pub compiled: &'a Compiled,
    pub statement: &'a Statement,
    pub roots: &'a [[u8; 32]],
}

impl Exchange for Inference<'_> {
    fn parameters(&self) -> &Parameters {
        self.key.parameters()
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

    fn hear<const D: usize, R: Reader<D>>(&self, reader: &mut R) -> Verdict<Vec<Form<D, R>>> {
        let (key, c, layout) = (self.key, self.compiled, &self.compiled.layout);
        let tau: Vec<K<D>> = reader.challenges("tie", c.tie_variables);
        let copy_point: Vec<K<D>> = reader.challenges("copy", copy_variables(c));
        let alpha: K<D> = reader.challenge("alpha");
        let betas: Vec<K<D>> = reader.challenges("betas", layout.tuple_width());
        // The reader goes through the tree alone; what depends on earlier challenges only is made beside it.
        let (mut tied, mut copied) = (Vec::new(), Vec::new());
        let (r, p, q) = rayon::in_place_scope(|s| {
            s.spawn(|_| tied = ties(c, &key.program, self.statement, &tau));
            s.spawn(|_| copied = copies(c, &copy_point));
            logup::verify(reader, c.blocks.variables)
        })?;
        let gamma: K<D> = reader.challenge("gamma");
        let (mut form, weights) = logup::split(layout, &c.blocks, &r, gamma, alpha, &betas);
        let instances = contraction::linear_part(layout, weights, &key.public, &mut form);
        let (total, batch) = contraction::verify(reader, layout, &key.public, &instances, &mut form)?;

        // <form> = p~ + gamma q~ - contractions + the batch of folded factors.
        let mut value = reader.add_scaled(&p, &q, gamma);
        value = reader.add(&reader.sub(&value, &total), &batch);
        let mut forms = vec![(form, value)];
        forms.extend(tied.into_iter().map(|(f, v)| (f, reader.constant(v))));
        forms.extend(copied.into_iter().map(|f| (f, reader.constant(K::ZERO))));
        Ok(forms)
    }
}

/// Roots of all oracles: those of the witness and of committed tensors start the proof, the model's is in the key.
fn roots<'a>(key: &VerifyingKey, compiled: &Compiled, statement: &Statement, proof: &'a [u8]) -> Verdict<(Vec<[u8; 32]>, &'a [u8])> {
    let mut rest = proof;
    let mut out = Vec::with_capacity(compiled.oracles.len());
    for (k, port) in compiled.ports.iter().enumerate() {
        let own = k == 0 || port.is_some();
        if !own {
            let model = key.weights.root();
            out.push(model.ok_or_else(|| Reject::Statement("a key with its weights inside has no model oracle".into()))?);
            continue;
        }
        let (head, tail) = rest.split_at_checked(32).ok_or(Reject::Truncated { at: "root" })?;
        rest = tail;
        let root: [u8; 32] = head.try_into().expect("32 bytes");
        if let Some(port) = *port {
            let tensor = &key.program.tensors[compiled.layout.ports[port] as usize];
            if statement.tensors[port].content != Content::Committed(tensor_commitment(&root, tensor, key.parameters())) {
                return Err(Reject::Statement(format!("the proof is about another {} than the statement commits to", tensor.name)));
            }
        }
        out.push(root);
    }
    Ok((out, rest))
}

/// All messages and the equations between them, as far as the combination of the oracles' columns: for forgers and for the tests of what is hidden.
#[cfg(any(test, feature = "attacks"))]
pub(crate) fn conversation<const D: usize, R: Reader<D>>(
    reader: &mut R,
    key: &VerifyingKey,
    c: &Compiled,
    statement: &Statement,
    roots: &[[u8; 32]],
) -> Verdict<Combined<D>> {
    Inference { key, compiled: c, statement, roots }.read(reader)
}
