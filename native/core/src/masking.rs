//! Masked messages, and one proof for all equations between them (design section 8; executable in the reference).
//!
//! The witness oracle holds two vectors over `K`, `r` and `b`, committed before the first challenge. A message `t_i` is sent as
//! `t'_i = t_i + r_i`. After the last message, `gamma` batches all equations of the verifier, the prover sends `D0, D1`, is challenged by `e`
//! and sends the line's point `v = b + e r`. The verifier knows `w = e t' - v = e t - b`: a line through `e` whose slope is `t`. An equation
//! `Q(t) + l(t) + c = 0` of degree 2 becomes
//!
//! ```text
//! Q(w) + e l(w) + e^2 c  =  e^2 (Q(t) + l(t) + c) + e (...) + (...)
//! ```
//!
//! and the batch's last two coefficients are what the prover sent, blinded by one more entry of the line, `r*` and `b*`:
//! `D0 + e D1 = E(w, e) + v*`, `D0 = E_0 + b*`, `D1 = E_1 + r*`. If an equation is false on `t`, then `gamma` keeps it false in the batch and at
//! most two `e` pass. The rows of the witness oracle that are opened later show that `v` encodes `b + e r`.
//!
//! The verifier records what it computes from messages as a list of operations on nodes, and evaluates it when `w` is known.

#[cfg(feature = "attacks")]
mod forged;

use std::cell::RefCell;

use p3_field::PackedValue;
use rayon::prelude::*;

use crate::channel::{Prover, Reader, Source, Transcript};
use crate::field::{F, K, LANES, PackedF, PackedK};
use crate::reject::{Reject, Verdict};
#[cfg(feature = "attacks")]
pub use forged::{Defect, Trick};

/// The equations' reason of refusal: which of them is false does not show.
pub const EQUATIONS: &str = "an equation between masked messages";

/// A value of a masked reader: the index of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Node(u32);

#[derive(Clone, Copy)]
enum Operation<const D: usize> {
    Constant(K<D>),
    Message(u32),
    Add(Node, Node),
    Scale(Node, K<D>),
    Product(Node, Node),
}

/// What a verifier computes from messages that it does not know, and which of the results must be 0.
#[derive(Default)]
struct Record<const D: usize> {
    operations: Vec<Operation<D>>,
    /// Degree of each node in the messages.
    degrees: Vec<u8>,
    zeros: Vec<Node>,
    messages: u32,
}

impl<const D: usize> Record<D> {
    fn push(&mut self, operation: Operation<D>, degree: u8) -> Node {
        self.operations.push(operation);
        self.degrees.push(degree);
        Node(self.operations.len() as u32 - 1)
    }

    fn degree(&self, node: Node) -> u8 {
        self.degrees[node.0 as usize]
    }

    fn messages(&mut self, n: usize) -> Vec<Node> {
        (0..n)
            .map(|_| {
                self.messages += 1;
                self.push(Operation::Message(self.messages - 1), 1)
            })
            .collect()
    }

    fn combine(&mut self, a: Node, b: Node, product: bool) -> Node {
        let (x, y) = (self.degree(a), self.degree(b));
        if product {
            assert!(x + y <= 2, "equations have degree at most 2 in messages");
            self.push(Operation::Product(a, b), x + y)
        } else {
            self.push(Operation::Add(a, b), x.max(y))
        }
    }

    /// Coefficients of `sum_k gamma^k E_k` as a polynomial in `e`, constant first, where message `i` is the line `line(i)` and everything is
    /// homogenised by `e` to degree 2.
    fn on_lines(&self, gamma: K<D>, line: impl Fn(usize) -> [K<D>; 2]) -> [K<D>; 3] {
        // A node of degree d is a polynomial of degree at most d: homogenised to d, that is.
        let mut values: Vec<[K<D>; 3]> = Vec::with_capacity(self.operations.len());
        let zero = K::ZERO;
        let raised = |x: [K<D>; 3], from: u8, to: u8| match to - from {
            0 => x,
            1 => [zero, x[0], x[1]],
            _ => [zero, zero, x[0]],
        };
        for (k, operation) in self.operations.iter().enumerate() {
            let at = |n: Node| values[n.0 as usize];
            let value = match *operation {
                Operation::Constant(c) => [c, zero, zero],
                Operation::Message(i) => {
                    let [b, a] = line(i as usize);
                    [b, a, zero]
                }
                Operation::Add(a, b) => {
                    let (x, y) = (raised(at(a), self.degree(a), self.degrees[k]), raised(at(b), self.degree(b), self.degrees[k]));
                    core::array::from_fn(|i| x[i] + y[i])
                }
                Operation::Scale(a, c) => at(a).map(|x| x * c),
                Operation::Product(a, b) => {
                    let (x, y) = (at(a), at(b));
                    [x[0] * y[0], x[0] * y[1] + x[1] * y[0], x[0] * y[2] + x[1] * y[1] + x[2] * y[0]]
                }
            };
            values.push(value);
        }
        self.zeros.iter().rev().fold([zero; 3], |sum, &n| {
            let own = raised(values[n.0 as usize], self.degree(n), 2);
            core::array::from_fn(|i| sum[i] * gamma + own[i])
        })
    }

    /// `sum_k gamma^k E_k(w, e)`, homogenised to degree 2.
    fn at_point(&self, gamma: K<D>, e: K<D>, w: impl Fn(usize) -> K<D>) -> K<D> {
        let mut values: Vec<K<D>> = Vec::with_capacity(self.operations.len());
        let raised = |x: K<D>, from: u8, to: u8| (from..to).fold(x, |x, _| x * e);
        for (k, operation) in self.operations.iter().enumerate() {
            let at = |n: Node| values[n.0 as usize];
            let value = match *operation {
                Operation::Constant(c) => c,
                Operation::Message(i) => w(i as usize),
                Operation::Add(a, b) => raised(at(a), self.degree(a), self.degrees[k]) + raised(at(b), self.degree(b), self.degrees[k]),
                Operation::Scale(a, c) => at(a) * c,
                Operation::Product(a, b) => at(a) * at(b),
            };
            values.push(value);
        }
        self.zeros.iter().rev().fold(K::ZERO, |sum, &n| sum * gamma + raised(values[n.0 as usize], self.degree(n), 2))
    }
}

/// A point of the line, in the clear: `v = b + e r`.
#[derive(Clone, Debug)]
pub struct Line<const D: usize> {
    /// Where.
    pub e: K<D>,
    /// All coefficients.
    pub v: Vec<K<D>>,
    /// Of a verifier who does not compare it with the rows.
    #[cfg(feature = "attacks")]
    pub(crate) unchecked: bool,
}

impl<const D: usize> Line<D> {
    /// The polynomial `v` at points of the base field.
    pub(crate) fn values(&self, points: &[F]) -> Vec<K<D>> {
        evaluate(&self.v, points)
    }

    /// Whether `b + e r` are these [`Self::values`] for all opened `(r, b)`.
    pub(crate) fn check(&self, opened: impl ExactSizeIterator<Item = [K<D>; 2]>, values: &[K<D>]) -> Verdict<()> {
        #[cfg(feature = "attacks")]
        if self.unchecked {
            return Ok(());
        }
        match opened.len() == values.len() && opened.zip(values).all(|([r, b], &value)| b + self.e * r == value) {
            true => Ok(()),
            false => Err(Reject::Row { oracle: "line" }),
        }
    }
}

/// The polynomial with the given coefficients at many points.
pub(crate) fn evaluate<const D: usize>(coefficients: &[K<D>], points: &[F]) -> Vec<K<D>> {
    // Several registers of points side by side: one alone would wait for each product before the next.
    const SIDE: usize = 4;
    let block = |points: &[F]| -> Vec<K<D>> {
        let x: [PackedF; SIDE] = core::array::from_fn(|k| PackedF::from_fn(|i| points.get(k * LANES + i).copied().unwrap_or_default()));
        let mut y = [PackedK::<D>::ZERO; SIDE];
        for c in coefficients.iter().rev() {
            let c = c.broadcast();
            for (y, &x) in y.iter_mut().zip(&x) {
                *y = y.scale(x) + c;
            }
        }
        (0..points.len()).map(|i| y[i / LANES].lane(i % LANES)).collect()
    };
    points.par_chunks(SIDE * LANES).flat_map_iter(block).collect()
}

/// A reader for which messages are unknowns: it records what is computed from them and which results must be 0.
///
/// Over a proof it is the verifier's context of masked proofs; over [`Nothing`] it counts.
pub struct MaskedReader<S, const D: usize> {
    source: S,
    record: RefCell<Record<D>>,
    /// Messages as they were sent.
    sent: Vec<K<D>>,
    #[cfg(feature = "attacks")]
    lapse: forged::Lapse<D>,
}

impl<S: Source, const D: usize> MaskedReader<S, D> {
    /// Reads `source`.
    pub fn new(source: S) -> Self {
        MaskedReader {
            source,
            record: RefCell::default(),
            sent: Vec::new(),
            #[cfg(feature = "attacks")]
            lapse: forged::Lapse::default(),
        }
    }

    /// The source.
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// What is left of the source.
    pub fn into_source(self) -> S {
        self.source
    }

    /// Masked messages and equations so far.
    pub fn counts(&self) -> (usize, usize) {
        (self.sent.len(), self.record.borrow().zeros.len())
    }

    /// Sends the equations' proof for messages that were masked by the first entries of `r`. `Err` if an equation does not hold on them.
    ///
    /// A prover calls it on a reader of its own proof; nothing is sent before the equations have been checked.
    pub(crate) fn prove(&self, prover: &mut Prover, r: &[K<D>], b: &[K<D>]) -> Verdict<()> {
        let n = self.sent.len();
        let gamma: K<D> = prover.challenge("equations");
        let [e0, e1, e2] = self.record.borrow().on_lines(gamma, |i| [-b[i], self.sent[i] - r[i]]);
        if e2 != K::ZERO {
            return Err(Reject::Equation(EQUATIONS));
        }
        prover.send_clear("line constants", &[e0 + b[n], e1 + r[n]]);
        let e: K<D> = prover.challenge("line");
        let v: Vec<K<D>> = b.iter().zip(r).map(|(&b, &r)| b + e * r).collect();
        prover.send_clear("line", &v);
        Ok(())
    }
}

impl<S: Source, const D: usize> Reader<D> for MaskedReader<S, D> {
    type Value = Node;

    fn absorb(&mut self, label: &str, data: &[u8]) {
        self.source.transcript().absorb(label, data);
    }

    fn receive(&mut self, label: &'static str, n: usize) -> Verdict<Vec<Node>> {
        self.sent.extend(self.source.elements::<D>(label, n)?);
        Ok(self.record.get_mut().messages(n))
    }

    fn receive_clear(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<D>>> {
        self.source.elements(label, n)
    }

    fn receive_bytes(&mut self, label: &'static str, n: usize) -> Verdict<Vec<u8>> {
        self.source.bytes(label, n)
    }

    fn take(&mut self, label: &'static str, n: usize) -> Verdict<&[u8]> {
        self.source.opening(label, n)
    }

    fn challenges(&mut self, label: &'static str, n: usize) -> Vec<K<D>> {
        self.source.transcript().challenge(label, n)
    }

    fn indices(&mut self, label: &'static str, n: usize, bits: usize) -> Vec<usize> {
        self.source.transcript().indices(label, n, bits)
    }

    fn constant(&self, x: K<D>) -> Node {
        self.record.borrow_mut().push(Operation::Constant(x), 0)
    }

    fn add(&self, a: &Node, b: &Node) -> Node {
        self.record.borrow_mut().combine(*a, *b, false)
    }

    fn scale(&self, a: &Node, x: K<D>) -> Node {
        let mut record = self.record.borrow_mut();
        let degree = record.degree(*a);
        record.push(Operation::Scale(*a, x), degree)
    }

    fn product(&self, a: &Node, b: &Node) -> Node {
        self.record.borrow_mut().combine(*a, *b, true)
    }

    fn assert_zero(&mut self, a: &Node, _: &'static str) -> Verdict<()> {
        self.record.get_mut().zeros.push(*a);
        Ok(())
    }

    fn settle(&mut self, pads: usize) -> Verdict<Option<Line<D>>> {
        #[cfg(feature = "attacks")]
        if self.is_lapsed() {
            return self.settle_lapsed(pads);
        }
        let gamma: K<D> = self.challenge("equations");
        let constants = self.receive_clear("line constants", 2)?;
        let e: K<D> = self.challenge("line");
        let n = self.sent.len();
        let v = self.receive_clear("line", n + 1 + pads)?;
        let value = self.record.get_mut().at_point(gamma, e, |i| e * self.sent[i] - v[i]);
        if value + v[n] != constants[0] + e * constants[1] {
            return Err(Reject::Equation(EQUATIONS));
        }
        Ok(Some(Line {
            e,
            v,
            #[cfg(feature = "attacks")]
            unchecked: false,
        }))
    }
}

/// A proof of nothing but zeros, as long as one likes: it serves to count what a verifier reads.
///
/// The zero polynomial has the value zero, so that equations between clear messages hold.
#[derive(Default)]
pub struct Nothing(Transcript);

impl Source for Nothing {
    fn transcript(&mut self) -> &mut Transcript {
        &mut self.0
    }

    fn elements<const D: usize>(&mut self, _: &'static str, n: usize) -> Verdict<Vec<K<D>>> {
        Ok(vec![K::ZERO; n])
    }

    fn bytes(&mut self, _: &'static str, n: usize) -> Verdict<Vec<u8>> {
        Ok(vec![0; n])
    }

    fn opening(&mut self, label: &'static str, _: usize) -> Verdict<&[u8]> {
        Err(Reject::Truncated { at: label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn polynomials_at_many_points(degree in 0usize..40, points in 0usize..80) {
            let c: Vec<K<3>> = (0..degree as u64).map(element).collect();
            let x: Vec<F> = (0..points as u64).map(|i| element::<2>(i + 1000).0[0]).collect();
            let y: Vec<K<3>> = x.iter().map(|&x| c.iter().rev().fold(K::ZERO, |y, &c| y.scale(x) + c)).collect();
            prop_assert_eq!(evaluate(&c, &x), y);
        }
    }
}
