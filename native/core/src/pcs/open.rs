//! The prover's side of an opening.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::functional::{Functional, batch};
use super::kernel::over_columns;
use super::oracle::Committed;
use super::stack::Stack;
use super::sumcheck;
use super::whir::{self, Word, distinct};
use crate::channel::Prover;
use crate::control::Control;
use crate::eq::eq;
use crate::field::K;
use crate::parameters::Parameters;

/// The column combination as sent, before any index is drawn.
pub struct Combination<const D: usize> {
    g: Vec<K<D>>,
    /// The point below `log2(L_max)`.
    z: Vec<K<D>>,
    word: Option<Word<D>>,
}

/// Why an opening was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The caller asked for it.
    Stopped,
    /// The mask's weight is 0, one challenge in `|K|`: it would hide nothing. Another attempt draws other challenges.
    Uncovered,
}

/// The rows of each oracle that a proof opens, in the order of the stack.
pub type OpenedRows = Vec<Vec<usize>>;

/// Proves one value for each claim, a sum of functionals on the committed storages, as far as the combination of all columns: the sumcheck,
/// its value, and the combined polynomial or its root. [`query`] comes next. Breaks when `control` does.
///
/// # Panics
/// If `oracles` are not the stack's, or a functional does not fit its storage.
pub fn combine<const D: usize>(
    params: &Parameters,
    prover: &mut Prover,
    stack: &Stack,
    oracles: &[&Committed],
    claims: &[Vec<Functional<D>>],
    control: Control,
) -> ControlFlow<Halt, Combination<D>> {
    assert_eq!(oracles.len(), stack.layouts.len(), "one committed oracle for each of the stack");
    let roots: Vec<_> = oracles.iter().map(|o| o.root).collect();
    prover.transcript.absorb("opening oracles", &stack.to_bytes(&roots));
    let eta = prover.challenge("opening batch");
    let functionals = batch(stack, claims.iter().map(Vec::as_slice), eta).expect("functionals fit their storages");
    let (mut z, s) = sumcheck::prove(prover, stack, oracles, &functionals, control).map_break(|()| Halt::Stopped)?;
    let weights = eq(&z.split_off(stack.log_rows));
    let mut g = vec![K::ZERO; 1 << stack.log_rows];
    for (o, (oracle, &base)) in oracles.iter().zip(&stack.bases).enumerate() {
        let weights = &weights[base..][..oracle.layout.columns];
        over_columns(&oracle.cells, oracle.layout.log_rows, weights, 1 << stack.log_stride(o), &mut g);
    }
    let mut pads = Vec::new();
    for (oracle, &base) in oracles.iter().zip(&stack.bases) {
        if let Some(fresh) = &oracle.fresh {
            let weights = &weights[base..][..oracle.layout.stack_columns()];
            let of_mask = weights[oracle.layout.columns];
            if of_mask == K::ZERO {
                return ControlFlow::Break(Halt::Uncovered);
            }
            g.par_iter_mut().step_by(1 << stack.log_mask_stride()).zip(fresh.mask::<D>()).for_each(|(x, m)| *x += of_mask * m);
            pads = fresh.combined_pads(weights);
        }
    }
    prover.send_clear("opening value", &[s]);
    prover.send_clear("combined pads", &pads);
    let word = if params.is_clear(stack.log_rows) {
        prover.send_clear("combined polynomial", &g);
        None
    } else {
        let word = Word::new(&g);
        prover.send_bytes("combined root", &word.root());
        Some(word)
    };
    control(0.9).map_break(|()| Halt::Stopped)?;
    ControlFlow::Continue(Combination { g, z, word })
}

/// The rows, and WHIR where the combined polynomial is committed. Nothing may be sent after [`combine`] that the rows depend on, but what a
/// proof of equations needs. -> the rows that were opened.
pub fn query<const D: usize>(
    params: &Parameters,
    prover: &mut Prover,
    stack: &Stack,
    oracles: &[&Committed],
    combined: Combination<D>,
) -> OpenedRows {
    let indices = distinct(prover.transcript.indices("row indices", params.row_queries(), stack.log_domain()));
    let opened: OpenedRows = oracles.iter().map(|o| reduced(&indices, o.layout.log_domain())).collect();
    let openings: Vec<Vec<u8>> = oracles.par_iter().zip(&opened).with_max_len(1).map(|(o, rows)| o.code.open(rows)).collect();
    openings.iter().for_each(|opening| prover.append(opening));
    if let Some(word) = combined.word {
        whir::prove(params, prover, &combined.g, word, &combined.z, indices);
    }
    opened
}

/// Indices modulo `2^log_domain`, sorted and distinct.
pub(crate) fn reduced(indices: &[usize], log_domain: usize) -> Vec<usize> {
    distinct(indices.iter().map(|i| i & ((1 << log_domain) - 1)).collect())
}
