//! Malicious provers of the test suite. Never in a product.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::instance::Compiled;
use super::key::ProvingKey;
use super::prove::{Attempt, Figures, ProveError, Secrets, Shown, elements};
use super::statement::Statement;
use super::verify::{Lapse, conversation};
use crate::channel::{ProofBytes, Prover, Tamper, Transcript};
use crate::field::K;
use crate::masking::{Defect, MaskedReader, Trick};
use crate::parameters::Mode;
use crate::pcs::{Committed, Fresh};
use crate::prover::values::Witness;

/// How a malicious prover differs.
#[derive(Clone, Default)]
pub struct Cheat {
    /// Changes messages as they are sent.
    pub tamper: Option<Tamper>,
    /// `committed` goes into the trees but the opening's sumcheck runs on `witness`: every equation holds, and only the opened rows can tell.
    pub two_faced: bool,
    /// How false equations are proved in zero-knowledge mode.
    pub trick: Option<Trick>,
    /// What the verifier is known to do otherwise.
    pub lapse: Lapse,
}

/// As [`super::prove_witness`], for provers who do not mind that their equations are false.
pub fn prove_forged(
    key: &ProvingKey,
    compiled: &Compiled,
    witness: &Witness,
    committed: &Witness,
    ports: &[Vec<i16>],
    context: [u8; 32],
    secrets: Secrets,
    cheat: Cheat,
) -> Shown {
    let attempt = Attempt { key, compiled, witness, committed, ports, cheat: Some(cheat) };
    attempt.prove(context, secrets, &mut |_, _| true, &mut Figures::default()).expect("nobody stops it")
}

impl Attempt<'_> {
    pub(super) fn lapse(&self) -> Lapse {
        self.cheat.as_ref().map_or(Lapse::default(), |c| c.lapse)
    }

    /// Draws what a defect puts before the first message.
    pub(super) fn draw_first<const D: usize>(&self, prover: &mut Prover) {
        if self.key.verifying.parameters().mode() == Mode::Zk && self.lapse().defect == Some(Defect::BatchFirst) {
            let _: K<D> = prover.challenge("equations");
        }
    }

    /// Reads the proof so far, whether or not its equations hold or are all there, and proves them.
    pub(super) fn forge<const D: usize>(
        &self,
        prover: &mut Prover,
        transcript: Transcript,
        statement: &Statement,
        fresh: &Fresh,
        roots: &[[u8; 32]],
        start: usize,
    ) -> Result<(), ProveError> {
        let so_far = prover.so_far()[start..].to_vec();
        let mut reader: MaskedReader<_, D> = self.lapse().reader(ProofBytes::new(transcript, &so_far));
        let _ = conversation(&mut reader, &self.key.verifying, self.compiled, statement, roots);
        reader.forge(prover, &elements(&fresh.r), &elements(&fresh.b), self.cheat.as_ref().and_then(|c| c.trick));
        Ok(())
    }

    /// Before the opening, the last equation: a prover who wants it to be false by a constant `X`, whatever the challenges, so that it cancels
    /// the others in the batch. A round in the evaluation basis has `h(0) + h(1) = claim`: `h + X` needs a claim that is off by `2 X`. The
    /// last round in the coefficient basis has only its linear coefficient in the claim: there any constant enters.
    pub(super) fn compensated<const D: usize>(
        &self,
        prover: Prover,
        transcript: &Transcript,
        statement: &Statement,
        oracles: &[&Committed],
        roots: &[[u8; 32]],
        start: usize,
    ) -> Prover {
        let fresh = oracles.iter().find_map(|o| o.fresh.as_ref());
        let Some(fresh) = fresh.filter(|_| self.cheat.as_ref().is_some_and(|c| c.trick == Some(Trick::Compensation))) else {
            return prover;
        };
        let so_far = prover.so_far()[start..].to_vec();
        let mut reader: MaskedReader<_, D> = self.lapse().reader(ProofBytes::new(transcript.clone(), &so_far));
        // It ends where the opening is missing.
        let _ = conversation(&mut reader, &self.key.verifying, self.compiled, statement, roots);
        let (falsehood, weight) = reader.falsehood(&elements(&fresh.r));
        let constant = -falsehood * weight.try_inverse().expect("a challenge that is not 0");
        let (first, last) = (self.compiled.stack.log_rows - 1, self.compiled.stack.variables() - 1);
        let round = AtomicUsize::new(0);
        prover.tampered(Arc::new(move |label, _, bytes| {
            if label == "opening round" {
                let round = round.fetch_add(1, Ordering::Relaxed);
                if round >= first {
                    let sent = K::<D>::from_bytes(&bytes[..8 * D]).expect("canonical");
                    let mut forged = Vec::new();
                    (sent + constant * K::from_i64(1 << (last - round))).to_bytes(&mut forged);
                    bytes[..8 * D].copy_from_slice(&forged);
                }
            }
        }))
    }
}
