//! What all kinds of proof share: a conversation is read in the context of the mode, the equations between masked messages are proved, and
//! then rows are opened.

use std::ops::ControlFlow;

use super::instance::Compiled;
use super::prove::ProveError;
use super::verify::Lapse;
use crate::channel::{PlainReader, ProofBytes, Prover, Reader, Transcript};
use crate::field::{Ext, F, K};
use crate::logup::LinearForm;
use crate::masking::MaskedReader;
use crate::parameters::{Mode, Parameters};
use crate::pcs::{self, Claim, Combination, Combined, Fresh, Halt};
use crate::reject::{Reject, Verdict};

/// A kind of proof, about something in particular.
pub(super) trait Exchange {
    /// The parameter set.
    fn parameters(&self) -> &Parameters;
    /// The public structure.
    fn compiled(&self) -> &Compiled;
    /// Roots of all oracles.
    fn roots(&self) -> &[[u8; 32]];
    /// Messages that are masked.
    fn messages(&self) -> usize;
    /// Reads the messages before the opening, and the equations between them. -> what the opening is to show.
    fn hear<const D: usize, R: Reader<D>>(&self, reader: &mut R) -> Verdict<Vec<Form<D, R>>>;

    /// Reads all messages, and the equations between them, as far as the combination of the oracles' columns.
    fn read<const D: usize, R: Reader<D>>(&self, reader: &mut R) -> Verdict<Combined<D>> {
        let forms = self.hear(reader)?;
        self.combine(reader, forms)
    }

    /// The end of every conversation: each form, its public part included, has its value.
    fn combine<const D: usize, R: Reader<D>>(&self, reader: &mut R, forms: Vec<Form<D, R>>) -> Verdict<Combined<D>> {
        let claims: Vec<_> = forms
            .into_iter()
            .map(|(form, value)| {
                let value = reader.sub(&value, &reader.constant(form.constant));
                Claim { functionals: self.compiled().functionals(form), value }
            })
            .collect();
        pcs::verify_combination(self.parameters(), reader, &self.compiled().stack, self.roots(), &claims)
    }

    /// Checks a whole proof after what `transcript` has absorbed.
    fn check(&self, transcript: Transcript, proof: &[u8], lapse: Lapse) -> Verdict<()> {
        if self.parameters().degree() == 2 {
            self.check_in::<2>(transcript, proof, lapse)
        } else {
            self.check_in::<3>(transcript, proof, lapse)
        }
    }

    /// [`Self::check`] in the context of the mode.
    fn check_in<const D: usize>(&self, transcript: Transcript, proof: &[u8], lapse: Lapse) -> Verdict<()> {
        match self.parameters().mode() {
            Mode::Plain => {
                let mut reader = PlainReader::new(transcript, proof);
                self.whole::<D, _>(&mut reader)?;
                reader.finish()
            }
            Mode::Zk => {
                let mut reader: MaskedReader<_, D> = lapse.reader(ProofBytes::new(transcript, proof));
                self.whole::<D, _>(&mut reader)?;
                reader.into_source().finish()
            }
        }
    }

    /// Everything that is read: messages and equations, the proof of equations between masked ones, rows.
    fn whole<const D: usize, R: Reader<D>>(&self, reader: &mut R) -> Verdict<()> {
        let combined = self.read(reader)?;
        let line = reader.settle(self.parameters().pads())?;
        pcs::verify_queries(self.parameters(), reader, &self.compiled().stack, self.roots(), combined, line.as_ref())
    }

    /// The honest prover's last step before rows are opened: `combine` sends the combination of the oracles' columns, and in zero-knowledge mode
    /// all messages are read as the verifier will. That yields the equations between masked messages, which
    /// are proved. Nothing leaves a prover for whom one of them is false.
    ///
    /// What was sent before is read while `combine` runs: it takes about as long, and few of its steps fill two cores.
    fn conclude<const D: usize>(
        &self,
        prover: &mut Prover,
        Begun { transcript, start, fresh }: Begun<'_>,
        combine: impl Combine<D>,
    ) -> Result<Combination<D>, ProveError>
    where
        Self: Sync,
    {
        let Some(fresh) = fresh else { return Ok(continued(combine(prover))?) };
        let before = prover.so_far()[start..].to_vec();
        let hear = || {
            let mut reader = MaskedReader::<_, D>::new(ProofBytes::new(transcript, &before));
            self.hear(&mut reader).map(|forms| (reader, forms))
        };
        let (combination, heard) = rayon::join(|| combine(prover), hear);
        let combination = continued(combination)?;
        let (mut reader, forms) = heard?;
        let after = prover.so_far()[start + before.len()..].to_vec();
        reader.source().go_on(&after)?;
        self.combine(&mut reader, forms)?;
        if reader.counts().0 != self.messages() {
            return Err(Reject::Equation("the number of masked messages").into());
        }
        reader.prove(prover, &elements(&fresh.r), &elements(&fresh.b))?;
        reader.into_source().finish()?;
        Ok(combination)
    }
}

/// A proof of which oracles are committed.
pub(super) struct Begun<'a> {
    /// What it begins with.
    pub transcript: Transcript,
    /// The byte of the proof where messages begin.
    pub start: usize,
    /// Masks of messages, in zero-knowledge mode.
    pub fresh: Option<&'a Fresh>,
}

/// Sends the combination of the oracles' columns.
pub(super) trait Combine<const D: usize>: FnOnce(&mut Prover) -> ControlFlow<Halt, Combination<D>> + Send {}
impl<const D: usize, T: FnOnce(&mut Prover) -> ControlFlow<Halt, Combination<D>> + Send> Combine<D> for T {}

/// What a reader makes of a form in the witness, and what the form's value is said to be.
pub(super) type Form<const D: usize, R> = (LinearForm<D>, <R as Reader<D>>::Value);

fn continued<T>(flow: ControlFlow<Halt, T>) -> Result<T, Halt> {
    match flow {
        ControlFlow::Continue(done) => Ok(done),
        ControlFlow::Break(halt) => Err(halt),
    }
}

/// A flat vector over `K`.
pub(super) fn elements<const D: usize>(flat: &[F]) -> Vec<K<D>> {
    flat.as_chunks::<D>().0.iter().map(|&c| Ext(c)).collect()
}
