//! The Fiat-Shamir transcript, the prover's channel, and the reading context that the verifier is written over.
//!
//! `state' = derive(state || len(label) || label || len(data) || data)`, lengths 8 bytes little endian; label and count are absorbed
//! before each challenge; challenges come from the XOF, 16 bytes for each base coordinate, reduced modulo `p`.
//!
//! The verifier is generic over [`Reader`], so that one code path serves plain proofs, masked ones (messages are affine forms and
//! equations are recorded) and counting (how many messages a key's proofs have).

use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use p3_field::PrimeCharacteristicRing;

use crate::field::{Ext, F, K, P};
use crate::masking::Line;
use crate::reject::{Reject, Verdict};

// `derive` hashes its context first: once, instead of for every message.
static TRANSCRIPT: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("nexus-edge v1 transcript"));
static CHALLENGE: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("nexus-edge v1 challenge"));

/// Programmed challenges of the test suite: functions of a seed and of their number, whatever was absorbed.
#[cfg(feature = "attacks")]
#[derive(Clone)]
struct Tape {
    seed: [u8; 32],
    /// Label and count of all draws.
    drawn: Vec<(String, usize)>,
}

#[cfg(feature = "attacks")]
impl Tape {
    fn stream(&self, draw: usize) -> blake3::OutputReader {
        Hasher::new_from_context_key(&CHALLENGE).update(&self.seed).update(&(draw as u64).to_le_bytes()).finalize_xof()
    }
}

/// The hash state shared by prover and verifier.
#[derive(Clone)]
pub struct Transcript {
    state: [u8; 32],
    #[cfg(feature = "attacks")]
    tape: Option<Tape>,
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new()
    }
}

impl Transcript {
    /// The empty transcript.
    pub fn new() -> Self {
        Transcript {
            state: [0; 32],
            #[cfg(feature = "attacks")]
            tape: None,
        }
    }

    /// Takes all challenges from a tape instead, if there is one.
    #[cfg(feature = "attacks")]
    pub fn taped(mut self, seed: Option<[u8; 32]>) -> Self {
        self.tape = seed.map(|seed| Tape { seed, drawn: Vec::new() });
        self
    }

    /// The challenges that were taken from the tape under a label.
    #[cfg(test)]
    pub(crate) fn drawn<const D: usize>(&self, label: &str) -> Vec<K<D>> {
        let tape = self.tape.as_ref().expect("a tape");
        let mine = tape.drawn.iter().enumerate().filter(|(_, (drawn, _))| drawn == label);
        mine.flat_map(|(k, &(_, n))| elements(&mut tape.stream(k), n)).collect()
    }

    /// Binds `data` under `label`.
    pub fn absorb(&mut self, label: &str, data: &[u8]) {
        let mut h = Hasher::new_from_context_key(&TRANSCRIPT);
        h.update(&self.state);
        h.update(&(label.len() as u64).to_le_bytes());
        h.update(label.as_bytes());
        h.update(&(data.len() as u64).to_le_bytes());
        h.update(data);
        self.state = *h.finalize().as_bytes();
    }

    fn stream(&mut self, label: &str, count: usize) -> blake3::OutputReader {
        #[cfg(feature = "attacks")]
        if let Some(tape) = &mut self.tape {
            tape.drawn.push((label.into(), count));
            return tape.stream(tape.drawn.len() - 1);
        }
        self.absorb("challenge", label.as_bytes());
        self.absorb("count", &(count as u64).to_le_bytes());
        Hasher::new_from_context_key(&CHALLENGE).update(&self.state).finalize_xof()
    }

    /// `n` uniform elements of `K` (bias below 2^-63 each coordinate).
    pub fn challenge<const D: usize>(&mut self, label: &str, n: usize) -> Vec<K<D>> {
        elements(&mut self.stream(label, n), n)
    }

    /// `n` uniform indices below `2^bits`, with replacement, in the order drawn.
    pub fn indices(&mut self, label: &str, n: usize, bits: usize) -> Vec<usize> {
        let mut bytes = vec![0u8; 8 * n];
        self.stream(label, n).fill(&mut bytes);
        bytes.as_chunks().0.iter().map(|&b| (u64::from_le_bytes(b) & ((1u64 << bits) - 1)) as usize).collect()
    }
}

/// `n` elements, 16 bytes for each base coordinate.
fn elements<const D: usize>(xof: &mut blake3::OutputReader, n: usize) -> Vec<K<D>> {
    // Whole blocks at once: each call computes its block anew.
    let mut bytes = vec![0u8; 16 * D * n];
    xof.fill(&mut bytes);
    let mut coordinates = bytes.as_chunks().0.iter().map(|&b| F::from_u64((u128::from_le_bytes(b) % P as u128) as u64));
    (0..n).map(|_| Ext(core::array::from_fn(|_| coordinates.next().unwrap_or_default()))).collect()
}

/// A malicious prover of the test suite changes messages as they are sent: `(label, place in the proof, bytes)`.
#[cfg(feature = "attacks")]
pub type Tamper = std::sync::Arc<dyn Fn(&'static str, usize, &mut [u8]) + Send + Sync>;

/// The masks of a proof's messages, `D` base elements each, and how many elements are used.
struct Masks {
    masks: Vec<F>,
    used: usize,
}

/// The prover's side: appends each message to the proof and absorbs it.
pub struct Prover {
    /// The transcript; public so that the statement can be absorbed.
    pub transcript: Transcript,
    proof: Vec<u8>,
    masks: Option<Masks>,
    #[cfg(feature = "attacks")]
    tamper: Option<Tamper>,
}

impl Default for Prover {
    fn default() -> Self {
        Self::new(Transcript::new())
    }
}

impl Prover {
    /// Starts after what `transcript` has absorbed.
    pub fn new(transcript: Transcript) -> Self {
        Prover {
            transcript,
            proof: Vec::new(),
            masks: None,
            #[cfg(feature = "attacks")]
            tamper: None,
        }
    }

    /// Adds `masks`, in order, to the messages that depend on the witness.
    pub(crate) fn masked(mut self, masks: Vec<F>) -> Self {
        self.masks = Some(Masks { masks, used: 0 });
        self
    }

    /// Lets `tamper` change every message before it is absorbed.
    #[cfg(feature = "attacks")]
    pub fn tampered(mut self, tamper: Tamper) -> Self {
        self.tamper = Some(tamper);
        self
    }

    /// Absorbs what was appended from `start` on.
    fn bind(&mut self, label: &'static str, start: usize) {
        #[cfg(feature = "attacks")]
        if let Some(tamper) = &self.tamper {
            tamper(label, start, &mut self.proof[start..]);
        }
        self.transcript.absorb(label, &self.proof[start..]);
    }

    /// Sends elements that depend on the witness (masked in zero-knowledge mode).
    ///
    /// # Panics
    /// If a masked proof has more messages than masks: the key counted them.
    pub fn send<const D: usize>(&mut self, label: &'static str, values: &[K<D>]) {
        let Some(state) = &mut self.masks else { return self.send_clear(label, values) };
        let masks = &state.masks[state.used..][..D * values.len()];
        let masked: Vec<K<D>> = values.iter().zip(masks.as_chunks::<D>().0).map(|(&t, &r)| t + Ext(r)).collect();
        state.used += D * values.len();
        self.send_clear(label, &masked);
    }

    /// The proof so far.
    pub(crate) fn so_far(&self) -> &[u8] {
        &self.proof
    }

    /// Sends elements that stay clear in every mode.
    pub fn send_clear<const D: usize>(&mut self, label: &'static str, values: &[K<D>]) {
        let start = self.proof.len();
        for v in values {
            v.to_bytes(&mut self.proof);
        }
        self.bind(label, start);
    }

    /// Sends bytes (a root).
    pub fn send_bytes(&mut self, label: &'static str, bytes: &[u8]) {
        let start = self.proof.len();
        self.proof.extend_from_slice(bytes);
        self.bind(label, start);
    }

    /// Appends openings, which follow the last challenge that depends on them and need no absorption.
    pub fn append(&mut self, bytes: &[u8]) {
        self.proof.extend_from_slice(bytes);
    }

    /// One challenge.
    pub fn challenge<const D: usize>(&mut self, label: &'static str) -> K<D> {
        self.transcript.challenge(label, 1)[0]
    }

    /// `n` challenges.
    pub fn challenges<const D: usize>(&mut self, label: &'static str, n: usize) -> Vec<K<D>> {
        self.transcript.challenge(label, n)
    }

    /// The proof bytes.
    pub fn finish(self) -> Vec<u8> {
        self.proof
    }
}

/// What a verifier reads from: a value is whatever the context makes of a message.
///
/// Values add, subtract and scale; [`Reader::product`] of two values may be taken once (equations have degree at most 2 in messages).
/// They can be neither compared nor branched on: [`Reader::assert_zero`] is the only test.
pub trait Reader<const D: usize> {
    /// A message, or an affine form in messages, or a quadratic one after a product.
    type Value: Clone;

    /// Binds public data.
    fn absorb(&mut self, label: &str, data: &[u8]);
    /// Reads `n` elements that the prover sent with [`Prover::send`].
    fn receive(&mut self, label: &'static str, n: usize) -> Verdict<Vec<Self::Value>>;
    /// Reads `n` elements that are clear in every mode.
    fn receive_clear(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>>;
    /// Reads exactly `n` bytes and absorbs them.
    fn receive_bytes(&mut self, label: &'static str, n: usize) -> Verdict<Vec<u8>>;
    /// Takes exactly `n` bytes of openings without absorbing them.
    fn take(&mut self, label: &'static str, n: usize) -> Verdict<&[u8]>;
    /// `n` challenges.
    fn challenges(&mut self, label: &'static str, n: usize) -> Vec<K<D>>;
    /// `n` indices below `2^bits`.
    fn indices(&mut self, label: &'static str, n: usize, bits: usize) -> Vec<usize>;

    /// A public constant as a value.
    fn constant(&self, x: K<D>) -> Self::Value;
    /// Sum.
    fn add(&self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Product with a public element.
    fn scale(&self, a: &Self::Value, x: K<D>) -> Self::Value;
    /// Product of two values of degree at most 1.
    fn product(&self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Requires the value to be 0: now, or at the latest in [`Reader::settle`].
    fn assert_zero(&mut self, a: &Self::Value, what: &'static str) -> Verdict<()>;

    /// Checks what [`Reader::assert_zero`] has left open, after the last masked message and before the first query. The line that comes of it
    /// has `pads` coefficients more than it needs, and is to be compared with the rows that are opened.
    fn settle(&mut self, pads: usize) -> Verdict<Option<Line<D>>>;

    /// One challenge.
    fn challenge(&mut self, label: &'static str) -> K<D> {
        self.challenges(label, 1)[0]
    }
    /// Difference.
    fn sub(&self, a: &Self::Value, b: &Self::Value) -> Self::Value {
        self.add(a, &self.scale(b, -K::ONE))
    }
    /// `a + x b`.
    fn add_scaled(&self, a: &Self::Value, b: &Self::Value, x: K<D>) -> Self::Value {
        self.add(a, &self.scale(b, x))
    }
}

/// Where a reader's messages come from.
pub trait Source {
    /// The transcript.
    fn transcript(&mut self) -> &mut Transcript;
    /// `n` canonical elements, absorbed.
    fn elements<const D: usize>(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>>;
    /// `n` bytes, absorbed.
    fn bytes(&mut self, label: &'static str, n: usize) -> Verdict<Vec<u8>>;
    /// `n` bytes of openings, not absorbed.
    fn opening(&mut self, label: &'static str, n: usize) -> Verdict<&[u8]>;
}

/// Reads a proof's bytes from the first to the last.
pub struct ProofBytes<'a> {
    transcript: Transcript,
    rest: &'a [u8],
}

impl<'a> ProofBytes<'a> {
    /// Reads `proof` after what `transcript` has absorbed.
    pub fn new(transcript: Transcript, proof: &'a [u8]) -> Self {
        ProofBytes { transcript, rest: proof }
    }

    /// Refuses leftover bytes.
    pub fn finish(self) -> Verdict<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Reject::Trailing { extra: self.rest.len() }) }
    }

    /// Reads on in what a prover has sent meanwhile. Refuses bytes that are left of what it had sent before.
    pub(crate) fn go_on(&mut self, more: &'a [u8]) -> Verdict<()> {
        if !self.rest.is_empty() {
            return Err(Reject::Trailing { extra: self.rest.len() });
        }
        self.rest = more;
        Ok(())
    }

    fn split(&mut self, label: &'static str, n: usize) -> Verdict<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Reject::Truncated { at: label })?;
        self.rest = rest;
        Ok(head)
    }
}

impl Source for ProofBytes<'_> {
    fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    fn elements<const D: usize>(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>> {
        let bytes = n.checked_mul(8 * D).ok_or(Reject::Truncated { at: label })?;
        let data = self.split(label, bytes)?;
        self.transcript.absorb(label, data);
        data.chunks_exact(8 * D).map(|c| K::from_bytes(c).ok_or(Reject::NotCanonical { at: label })).collect()
    }

    fn bytes(&mut self, label: &'static str, n: usize) -> Verdict<Vec<u8>> {
        let data = self.split(label, n)?;
        self.transcript.absorb(label, data);
        Ok(data.to_vec())
    }

    fn opening(&mut self, label: &'static str, n: usize) -> Verdict<&[u8]> {
        self.split(label, n)
    }
}

/// Reads a plain proof: values are the elements themselves and equations are tested at once.
pub struct PlainReader<'a>(ProofBytes<'a>);

impl<'a> PlainReader<'a> {
    /// Reads `proof` after what `transcript` has absorbed.
    pub fn new(transcript: Transcript, proof: &'a [u8]) -> Self {
        PlainReader(ProofBytes::new(transcript, proof))
    }

    /// Refuses leftover bytes.
    pub fn finish(self) -> Verdict<()> {
        self.0.finish()
    }
}

impl<const D: usize> Reader<D> for PlainReader<'_> {
    type Value = K<D>;

    fn absorb(&mut self, label: &str, data: &[u8]) {
        self.0.transcript.absorb(label, data);
    }

    fn receive(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>> {
        self.0.elements(label, n)
    }

    fn receive_clear(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>> {
        self.0.elements(label, n)
    }

    fn receive_bytes(&mut self, label: &'static str, n: usize) -> Verdict<Vec<u8>> {
        self.0.bytes(label, n)
    }

    fn take(&mut self, label: &'static str, n: usize) -> Verdict<&[u8]> {
        self.0.opening(label, n)
    }

    fn challenges(&mut self, label: &'static str, n: usize) -> Vec<K<D>> {
        self.0.transcript.challenge(label, n)
    }

    fn indices(&mut self, label: &'static str, n: usize, bits: usize) -> Vec<usize> {
        self.0.transcript.indices(label, n, bits)
    }

    fn constant(&self, x: K<D>) -> K<D> {
        x
    }

    fn add(&self, a: &K<D>, b: &K<D>) -> K<D> {
        *a + *b
    }

    fn scale(&self, a: &K<D>, x: K<D>) -> K<D> {
        *a * x
    }

    fn product(&self, a: &K<D>, b: &K<D>) -> K<D> {
        *a * *b
    }

    fn assert_zero(&mut self, a: &K<D>, what: &'static str) -> Verdict<()> {
        if *a == K::ZERO { Ok(()) } else { Err(Reject::Equation(what)) }
    }

    fn settle(&mut self, _: usize) -> Verdict<Option<Line<D>>> {
        Ok(None)
    }
}
