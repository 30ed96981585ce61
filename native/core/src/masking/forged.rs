//! Malicious provers of the equations' proof, and verifiers without one of its safeguards. Never in a product.

use super::{EQUATIONS, Line, MaskedReader};
use crate::channel::{Prover, Reader, Source};
use crate::field::K;
use crate::reject::{Reject, Verdict};

/// A safeguard that a verifier leaves out, and the prover knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Opened rows are not compared with the line.
    RowsUnchecked,
    /// `e` is drawn before `D0` and `D1` are sent.
    PointFirst,
    /// `gamma` is drawn before the messages.
    BatchFirst,
}

/// How a prover whose equations are false deceives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// One message is claimed to have had another mask than the committed one: the one with which the batch is 0.
    OtherMasks,
    /// `D0` is what makes the batch pass at a guess of `e`, or at `e` itself where it is known.
    SolvedConstant,
    /// The last equation is made as false as the others need it, for a guess of `gamma`, or for `gamma` itself where it is known.
    Compensation,
}

/// What a reader leaves out.
#[derive(Default)]
pub(super) struct Lapse<const D: usize> {
    defect: Option<Defect>,
    /// `gamma`, where it was drawn first.
    batch: Option<K<D>>,
}

/// What a cheater takes for a challenge that is not drawn yet.
fn guess<const D: usize>() -> K<D> {
    K::from_i64(5)
}

impl<S: Source, const D: usize> MaskedReader<S, D> {
    /// A reader with a defect, before the first message.
    pub(crate) fn with_defect(mut self, defect: Option<Defect>) -> Self {
        self.lapse.batch = (defect == Some(Defect::BatchFirst)).then(|| self.challenge("equations"));
        self.lapse.defect = defect;
        self
    }

    pub(super) fn is_lapsed(&self) -> bool {
        self.lapse.defect.is_some()
    }

    pub(super) fn settle_lapsed(&mut self, pads: usize) -> Verdict<Option<Line<D>>> {
        let gamma = self.lapse.batch.unwrap_or_else(|| self.challenge("equations"));
        let early = (self.lapse.defect == Some(Defect::PointFirst)).then(|| self.challenge("line"));
        let constants = self.receive_clear("line constants", 2)?;
        let e = early.unwrap_or_else(|| self.challenge("line"));
        let v = self.receive_clear("line", self.sent.len() + 1 + pads)?;
        if self.on_line(gamma, e, &v) != constants[0] + e * constants[1] {
            return Err(Reject::Equation(EQUATIONS));
        }
        Ok(Some(Line { e, v, unchecked: self.lapse.defect == Some(Defect::RowsUnchecked) }))
    }

    /// What `D0 + e D1` must be.
    pub(crate) fn on_line(&self, gamma: K<D>, e: K<D>, v: &[K<D>]) -> K<D> {
        self.record.borrow().at_point(gamma, e, |i| e * self.sent[i] - v[i]) + v[self.sent.len()]
    }

    /// The batch of what the equations so far are on the messages behind the masks `r`, and the weight of the next equation.
    pub(crate) fn falsehood(&self, r: &[K<D>]) -> (K<D>, K<D>) {
        let gamma = self.lapse.batch.unwrap_or_else(guess);
        let record = self.record.borrow();
        (record.on_lines(gamma, |i| [K::ZERO, self.sent[i] - r[i]])[2], gamma.pow(record.zeros.len() as u64))
    }

    /// The transcript as it stands.
    #[cfg(test)]
    pub(crate) fn transcript(&mut self) -> crate::channel::Transcript {
        self.source.transcript().clone()
    }

    /// `D1` less the mask of it.
    #[cfg(test)]
    pub(crate) fn slope(&self, gamma: K<D>, t: &[K<D>], b: &[K<D>]) -> K<D> {
        self.record.borrow().on_lines(gamma, |i| [-b[i], t[i]])[1]
    }

    /// As [`MaskedReader::prove`], by a prover whose equations may be false. What was sent counts, whatever should have been sent.
    pub(crate) fn forge(&self, prover: &mut Prover, r: &[K<D>], b: &[K<D>], trick: Option<Trick>) {
        let n = self.sent.len();
        let mut r = r.to_vec();
        let gamma = self.lapse.batch.unwrap_or_else(|| prover.challenge("equations"));
        let early = (self.lapse.defect == Some(Defect::PointFirst)).then(|| prover.challenge("line"));
        let batch = |r: &[K<D>]| self.record.borrow().on_lines(gamma, |i| [-b[i], self.sent[i] - r[i]]);
        if trick == Some(Trick::OtherMasks) {
            // The last round's first message is in one equation alone, and linear there.
            let at = n - 2;
            let falsehood = batch(&r)[2];
            r[at] += K::ONE;
            let slope = batch(&r)[2] - falsehood;
            r[at] -= K::ONE + falsehood * slope.try_inverse().expect("the equation depends on it");
        }
        let [e0, e1, e2] = batch(&r);
        let mut constants = [e0 + b[n], e1 + r[n]];
        if trick == Some(Trick::SolvedConstant) {
            constants[0] += early.unwrap_or_else(guess).square() * e2;
        }
        prover.send_clear("line constants", &constants);
        let e = early.unwrap_or_else(|| prover.challenge("line"));
        let v: Vec<K<D>> = b.iter().zip(&r).map(|(&b, &r)| b + e * r).collect();
        prover.send_clear("line", &v);
    }
}
