//! How long an opening is.

use super::stack::Stack;
use super::whir::stages;
use crate::hash::Digest;
use crate::parameters::{FOLD_LOG, Parameters};

/// Bytes of an opening at most, but for the sumcheck's rounds.
pub fn opening_bytes(params: &Parameters, stack: &Stack) -> usize {
    let element = 8 * params.degree();
    let rows: usize = stack.layouts.iter().map(|o| opened(params.row_queries(), o.log_domain(), o.leaf().opened())).sum();
    let combined = if params.is_clear(stack.log_rows) {
        element << stack.log_rows
    } else {
        let stages = stages(params, stack.log_rows);
        let last = stages.last().map_or(0, |s| element << s.folded());
        let rounds: usize = stages
            .iter()
            .map(|s| {
                let messages = size_of::<Digest>() + 2 * element * FOLD_LOG;
                messages + opened(params.queries(s.log_blowup), s.height(), element << FOLD_LOG)
            })
            .sum();
        rounds + last
    };
    element * (1 + stack.pads()) + rows + combined
}

/// Distinct rows and their siblings at most. With `n` of `2^height` leaves opened, height `h` has at most `n` lone nodes, and no more than
/// half of its nodes are.
fn opened(queries: usize, height: usize, row: usize) -> usize {
    let rows = queries.min(1 << height);
    let siblings: usize = (1..=height).map(|level| rows.min(1 << (level - 1))).sum();
    rows * row + siblings * size_of::<Digest>()
}
