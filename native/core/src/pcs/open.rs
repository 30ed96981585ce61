//! The prover's side of an opening.

use std::ops::ControlFlow;

use super::Control;
use super::functional::{Functional, batch};
use super::kernel::over_columns;
use super::oracle::Committed;
use super::stack::Stack;
use super::sumcheck;
use super::whir::{self, Word, distinct};
use crate::channel::Prover;
use crate::eq::eq;
use crate::field::K;
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};

/// The column combination as sent, before any index is drawn.
struct Combined<const D: usize> {
    g: Vec<K<D>>,
    /// The point below `log2(L_max)`.
    z: Vec<K<D>>,
    word: Option<Word<D>>,
}

/// Proves one value for each claim, a sum of functionals on the committed storages. Breaks when `control` does.
///
/// # Panics
/// If `oracles` are not the stack's, or a functional does not fit its storage.
pub fn open<const D: usize>(
    params: &Parameters,
    prover: &mut Prover,
    stack: &Stack,
    oracles: &[&Committed],
    claims: Vec<Vec<Functional<D>>>,
    control: Control,
) -> ControlFlow<()> {
    let combined = combine(params, prover, stack, oracles, &claims, control)?;
    query(params, prover, stack, oracles, combined);
    control(1.0)
}

/// The sumcheck, `s`, and `g` or its root.
fn combine<const D: usize>(
    params: &Parameters,
    prover: &mut Prover,
    stack: &Stack,
    oracles: &[&Committed],
    claims: &[Vec<Functional<D>>],
    control: Control,
) -> ControlFlow<(), Combined<D>> {
    assert_eq!(oracles.len(), stack.layouts.len(), "one committed oracle for each of the stack");
    let roots: Vec<_> = oracles.iter().map(|o| o.root).collect();
    prover.transcript.absorb("opening oracles", &stack.to_bytes(&roots));
    let eta = prover.challenge("opening batch");
    let functionals = batch(stack, claims.iter().map(Vec::as_slice), eta).expect("functionals fit their storages");
    let (mut z, s) = sumcheck::prove(prover, stack, oracles, &functionals, control)?;
    let weights = eq(&z.split_off(stack.log_rows));
    let mut g = vec![K::ZERO; 1 << stack.log_rows];
    for (o, (oracle, &base)) in oracles.iter().zip(&stack.bases).enumerate() {
        let weights = &weights[base..][..oracle.layout.columns];
        over_columns(&oracle.cells, oracle.layout.log_rows, weights, 1 << stack.log_stride(o), &mut g);
    }
    prover.send_clear("opening value", &[s]);
    let word = if params.is_clear(stack.log_rows) {
        prover.send_clear("combined polynomial", &g);
        None
    } else {
        let word = Word::new(&g);
        prover.send_bytes("combined root", &word.root());
        Some(word)
    };
    control(0.9)?;
    ControlFlow::Continue(Combined { g, z, word })
}

/// The rows, and WHIR where `g` is committed.
fn query<const D: usize>(params: &Parameters, prover: &mut Prover, stack: &Stack, oracles: &[&Committed], combined: Combined<D>) {
    let indices = distinct(prover.transcript.indices("row indices", params.queries(ORACLE_LOG_BLOWUP), stack.log_rows + ORACLE_LOG_BLOWUP));
    for oracle in oracles {
        oracle.code.open(prover, &reduced(&indices, oracle.layout.log_domain()));
    }
    if let Some(word) = combined.word {
        whir::prove(params, prover, &combined.g, word, &combined.z, indices);
    }
}

/// Indices modulo `2^log_domain`, sorted and distinct.
pub(crate) fn reduced(indices: &[usize], log_domain: usize) -> Vec<usize> {
    distinct(indices.iter().map(|i| i & ((1 << log_domain) - 1)).collect())
}
