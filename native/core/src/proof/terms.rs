//! The error terms of one proof, summed (design section 3: the *sum* is below `2^-100`).

use std::collections::BTreeSet;

use super::conversation::copy_roots;
use super::instance::Compiled;
use crate::eq::log2_ceil;
use crate::layout::{AccumulatorKind, Source};
use crate::parameters::{Mode, Parameters};
use crate::pcs::opening_bytes;
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

    let (variables, factors) = contraction_size(compiled);

    let mut terms = vec![
        // The numerator of sum 1/(alpha - f) - sum m/(alpha - t) as a polynomial in alpha and the betas.
        algebra("lookup fractions", lookups + 2.0 * rows),
        // n layers: one lambda, up to n cubic rounds, one linear combination of two claims.
        algebra("lookup tree", n * (1.0 + 3.0 * n + 2.0)),
        algebra("numerator and denominator", 1.0),
        algebra("contraction rounds", 3.0 * variables as f64),
        algebra("folded factors", factors as f64),
        algebra("statement tensors", (compiled.tie_variables * layout.ports.len()) as f64),
        algebra("copies", copy_roots(compiled) as f64),
    ];
    if parameters.mode() == Mode::Zk {
        let messages = masked_messages(compiled) as f64;
        // The line b + e r: closeness of two words to the code by a random combination of them, e.g. one bad e for each point of the domain.
        terms.push(algebra("line: closeness", (1u64 << compiled.stack.log_domain()) as f64));
        // A batch of the equations, at most one for each message, is 0 for as many gamma; a batch that is not 0 passes for two e.
        terms.push(algebra("line: equations", messages));
        terms.push(algebra("line: point", 2.0));
    }
    let claims = 1 + layout.ports.len() + layout.copies.len();
    terms.extend(opening_terms(parameters, &compiled.stack, claims));
    Soundness::new(terms)
}

/// Variables of the batched sumcheck over all accumulators, and the number of factors sent at its end: one instance for each accumulator,
/// coefficient vector and channel piece of the leaves.
fn contraction_size(compiled: &Compiled) -> (usize, usize) {
    let layout = &compiled.layout;
    let mut seen = BTreeSet::new();
    let (mut variables, mut factors) = (0, 0);
    for block in &compiled.blocks.blocks {
        let Some(lookup) = layout.lookups.get(block.owner) else { continue };
        for term in lookup.entries.iter().flatten() {
            let Source::Accumulator(at) = term.source else { continue };
            let acc = &layout.accumulators[at];
            let (bits, sent) = match &acc.kind {
                AccumulatorKind::Product { .. } => (log2_ceil(acc.positions) + log2_ceil(acc.channels), 2),
                AccumulatorKind::Contract {
                    contract: Contract::Conv { x, window, .. } | Contract::Depthwise { x, window, .. },
                    weights,
                    ..
                } => {
                    let taps = log2_ceil(window.kernel.0 as usize) + log2_ceil(window.kernel.1 as usize);
                    (log2_ceil(layout.views[*x as usize].channels) + taps, if weights.is_some() { 2 } else { 1 })
                }
                AccumulatorKind::Contract { .. } => continue,
            };
            if seen.insert((at, term.by_channel.as_ref().map_or(0, |v| v.id), lookup.group, block.channels.start)) {
                variables = variables.max(bits);
                factors += sent;
            }
        }
    }
    (variables, factors)
}

/// Elements of `K` that a proof sends and a zero-knowledge proof masks. A proof about weights alone contracts nothing, and looks nothing up if
/// it is a link.
pub fn masked_messages(compiled: &Compiled) -> usize {
    let layout = &compiled.layout;
    let contractions = if layout.ports.is_empty() {
        0
    } else {
        let products = layout.accumulators.iter().any(|a| matches!(a.kind, AccumulatorKind::Product { .. }));
        let (rounds, factors) = contraction_size(compiled);
        1 + rounds * if products { 3 } else { 2 } + factors
    };
    // The root, two elements a round, four a layer.
    let n = compiled.blocks.variables;
    let tree = if layout.lookups.is_empty() { 0 } else { 1 + n * (n - 1) + 4 * n };
    tree + contractions + 2 * compiled.stack.variables()
}

/// Bytes of a proof, at most: openings are counted as if no two queries met.
pub fn proof_bytes(parameters: &Parameters, compiled: &Compiled) -> usize {
    let element = 8 * parameters.degree();
    let own_roots = compiled.ports.iter().enumerate().filter(|(k, p)| *k == 0 || p.is_some()).count();
    let messages = masked_messages(compiled);
    let line = if parameters.mode() == Mode::Zk { messages + 1 + parameters.pads() + 2 } else { 0 };
    32 * own_roots + element * (messages + line) + opening_bytes(parameters, &compiled.stack)
}
