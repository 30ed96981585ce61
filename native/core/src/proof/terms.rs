//! The error terms of one proof, summed (design section 3: the *sum* is below `2^-100`).

use super::conversation::copy_variables;
use super::instance::Compiled;
use crate::layout::AccumulatorKind;
use crate::parameters::Parameters;
use crate::program::Contract;
use crate::soundness::{Soundness, Term, opening_terms};

/// All terms. Bounds are on what a prover without hash collisions wins with one attempt.
pub fn soundness(parameters: &Parameters, compiled: &Compiled) -> Soundness {
    let layout = &compiled.layout;
    // |K| is at least 2^(63.999 D); rounding it down to whole bits keeps every term an upper bound.
    let field = 63.999 * parameters.degree() as f64;
    let algebra = |name: &'static str, count: f64| Term { name: name.into(), bits: field - count.max(1.0).log2() };
    let n = compiled.blocks.variables as f64;
    let lookups = compiled.layout.lookup_count() as f64;
    let rows: f64 = layout.tables.iter().map(|t| (1u64 << t.log_rows) as f64).sum();

    // At most three channel pieces of every bilinear accumulator's groups take part; each contributes two factors.
    let instances: f64 = 2.0 * 3.0 * layout.lookups.len() as f64;
    let variables = layout
        .accumulators
        .iter()
        .map(|a| {
            let log = |n: usize| n.next_power_of_two().trailing_zeros() as f64;
            match &a.kind {
                AccumulatorKind::Product { .. } => log(a.positions) + log(a.channels),
                AccumulatorKind::Contract { contract: Contract::Conv { x, window, .. } | Contract::Depthwise { x, window, .. }, .. } => {
                    let channels = layout.views[*x as usize].channels;
                    log(channels) + log(window.kernel.0 as usize) + log(window.kernel.1 as usize)
                }
                AccumulatorKind::Contract { .. } => 0.0,
            }
        })
        .fold(0.0, f64::max);

    let mut terms = vec![
        // The numerator of sum 1/(alpha - f) - sum m/(alpha - t) as a polynomial in alpha and the betas.
        algebra("lookup fractions", lookups + 2.0 * rows),
        // n layers: one lambda, up to n cubic rounds, one linear combination of two claims.
        algebra("lookup tree", n * (1.0 + 3.0 * n + 2.0)),
        algebra("numerator and denominator", 1.0),
        algebra("contraction rounds", 3.0 * variables),
        algebra("folded factors", instances),
        algebra("statement tensors", (compiled.tie_variables * layout.ports.len()) as f64),
        algebra("copies", copy_variables(compiled) as f64),
    ];
    let claims = 1 + layout.ports.len() + layout.copies.len();
    terms.extend(opening_terms(parameters, &compiled.stack, claims));
    Soundness::new(terms)
}
