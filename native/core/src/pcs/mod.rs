//! The multi-oracle polynomial commitment: several Reed-Solomon oracles of different sizes, opened together at one batch of separable
//! functionals (design section 3).
//!
//! A message is the data, as coefficients. Global index of a cell: `column * L_max + row * stride`, where its oracle has
//! `L = L_max / stride` rows. The bits below `log2 L_max` are folded in the coefficient basis (`f' = f_e + r f_o`, `w' = w_o + r w_e`: the
//! FRI fold), the column bits in the evaluation basis.
//!
//! Order of an opening: batching challenge; one round for each bit; `s`; `g = sum_l eq(rho, l) f_l` in the clear, or its root; *then* the
//! row indices; rows and siblings of every oracle; then WHIR on `g` (see `whir`).

mod committed;
mod open;
mod oracle;
mod sumcheck;
mod verify;
mod whir;

pub use committed::{Committed, commit};
pub use open::open;
pub use oracle::{OracleLayout, Role, Stack};
pub use verify::verify_opening;
pub use whir::sizes as whir_sizes;

use crate::field::K;
use crate::hash::Digest;
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};

/// `<storage, u (x) v>`.
#[derive(Clone, Debug)]
pub struct Functional<const D: usize> {
    /// Number of the oracle in the stack.
    pub oracle: usize,
    /// Number of the storage in the oracle.
    pub storage: usize,
    /// Weight of each position.
    pub u: Vec<K<D>>,
    /// Weight of each channel.
    pub v: Vec<K<D>>,
}

/// The sum of some functionals has this value.
#[derive(Clone, Debug)]
pub struct Claim<V, const D: usize> {
    /// Summands.
    pub functionals: Vec<Functional<D>>,
    /// Their sum.
    pub value: V,
}

/// Bytes of an opening at most: no two queries meet, no two paths merge but at the top.
pub fn opening_bytes(parameters: &Parameters, stack: &Stack) -> usize {
    let element = 8 * parameters.degree();
    let paths = |queries: usize, height: usize| {
        let merged = queries.ilog2() as usize;
        queries * (height.saturating_sub(merged)) + (1 << merged.min(height))
    };
    let queries = parameters.queries(ORACLE_LOG_BLOWUP);
    let rounds = 2 * element * (stack.log_rows + stack.column_bits);
    let rows: usize = stack
        .layouts
        .iter()
        .map(|o| {
            let rows = queries.min(2 << o.log_rows);
            rows * 8 * o.columns + size_of::<Digest>() * paths(rows, o.log_rows + 1)
        })
        .sum();
    let inner = if parameters.is_clear(stack.log_rows) {
        element << stack.log_rows
    } else {
        let leaf = element << crate::parameters::FOLD_LOG;
        let steps = whir_sizes(parameters, stack.log_rows);
        let round = |log_blowup: usize, leaves: usize| {
            let q = parameters.queries(log_blowup);
            q * leaf + size_of::<Digest>() * (1 + paths(q, leaves)) + 2 * element * crate::parameters::FOLD_LOG
        };
        let last = steps.last().map_or(0, |s| element << (s.log_size - crate::parameters::FOLD_LOG));
        steps.iter().map(|s| round(s.log_blowup, s.log_size + s.log_blowup - crate::parameters::FOLD_LOG)).sum::<usize>() + last
    };
    rounds + element + rows + inner
}
