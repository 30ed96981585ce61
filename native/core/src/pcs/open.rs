//! The prover of an opening.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::oracle::Stack;
use super::{Committed, Functional, sumcheck, whir};
use crate::channel::Prover;
use crate::eq::eq;
use crate::field::{Ext, F, K};
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};
use crate::prover::values::add_scaled;

/// Opens the batch of claims: each is a sum of functionals.
pub fn open<const D: usize>(parameters: &Parameters, prover: &mut Prover, stack: &Stack, oracles: &[&Committed], claims: Vec<Vec<Functional<D>>>) {
    let eta: K<D> = prover.challenge("batch");
    let functionals = sumcheck::batch(claims, eta);
    let point = sumcheck::prove(prover, stack, oracles, &functionals);
    drop(functionals);
    let (rows, columns) = point.split_at(stack.log_rows);
    let g = combine(stack, oracles, &eq(columns));

    let monomials = crate::eq::tensor(&rows.iter().map(|&z| (K::ONE, z)).collect::<Vec<_>>());
    let s: K<D> = g.par_iter().zip(&monomials).with_min_len(1 << 10).map(|(&a, &b)| a * b).reduce(|| K::ZERO, |a, b| a + b);
    drop(monomials);
    prover.send_clear("opening value", &[s]);
    let inner = if parameters.is_clear(stack.log_rows) {
        prover.send_clear("g", &g);
        None
    } else {
        let oracle = whir::Oracle::new(&g, stack.log_rows, whir::FIRST_LOG_BLOWUP);
        prover.send_bytes("g", &oracle.root());
        Some(oracle)
    };
    let log_domain = stack.log_rows + ORACLE_LOG_BLOWUP;
    let queries = prover.transcript.indices("rows", parameters.queries(ORACLE_LOG_BLOWUP), log_domain);
    for (layout, oracle) in stack.layouts.iter().zip(oracles) {
        let mine = distinct(&queries, layout.log_rows + ORACLE_LOG_BLOWUP);
        prover.append(&oracle.open_rows(&mine));
    }
    if let Some(oracle) = inner {
        whir::prove(parameters, prover, g, oracle, rows, &distinct(&queries, log_domain));
    }
}

/// Indices modulo `2^log`, sorted, distinct.
pub(super) fn distinct(indices: &[usize], log: usize) -> Vec<usize> {
    let mut out: Vec<usize> = indices.iter().map(|i| i & ((1 << log) - 1)).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// `g = sum_l weight_l f_l(X^stride)`.
fn combine<const D: usize>(stack: &Stack, oracles: &[&Committed], weights: &[K<D>]) -> Vec<K<D>> {
    const RUN: usize = 1 << 10;
    let mut g = vec![K::ZERO; 1 << stack.log_rows];
    for (k, oracle) in oracles.iter().enumerate() {
        let (log, stride) = (oracle.layout.log_rows, 1usize << stack.log_stride(k));
        let weights = &weights[stack.bases[k]..][..oracle.layout.columns];
        g.par_chunks_mut(RUN * stride).enumerate().for_each(|(run, out)| {
            let n = out.len().div_ceil(stride);
            let mut sums: [Vec<F>; D] = core::array::from_fn(|_| vec![F::ZERO; n]);
            for (column, w) in oracle.cells.chunks_exact(1 << log).zip(weights) {
                sums.iter_mut().zip(w.0).for_each(|(s, w)| add_scaled(s, w, &column[run * RUN..][..n]));
            }
            for (i, x) in out.iter_mut().step_by(stride).enumerate() {
                *x += Ext(core::array::from_fn(|d| sums[d][i]));
            }
        });
    }
    g
}
