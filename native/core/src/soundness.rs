//! Error terms of a proof, each in bits, and the bits of their sum (design section 3).

use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};
use crate::pcs::{Stack, whir_sizes};

/// An upper bound `2^-bits` on one way to cheat.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which.
    pub name: String,
    /// `-log2` of the bound.
    pub bits: f64,
}

/// All terms and the bits of their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Soundness {
    /// The summands.
    pub terms: Vec<Term>,
    /// `-log2` of the sum.
    pub bits: f64,
}

impl Soundness {
    /// Sums.
    pub fn new(terms: Vec<Term>) -> Self {
        let bits = -terms.iter().map(|t| (-t.bits).exp2()).sum::<f64>().log2();
        Soundness { terms, bits }
    }
}

/// `count / |K|`, with `|K|` rounded down so that the term stays an upper bound.
pub fn field_term(parameters: &Parameters, name: &str, count: f64) -> Term {
    Term { name: name.into(), bits: 63.999 * parameters.degree() as f64 - count.max(1.0).log2() }
}

/// `((1 + rate) / 2)^queries`: a word farther than `(1 - rate) / 2` from the code passes.
fn query_term(parameters: &Parameters, name: String, log_blowup: usize) -> Term {
    let rate = (-(log_blowup as f64)).exp2();
    Term { name, bits: -(parameters.queries(log_blowup) as f64) * f64::midpoint(1.0, rate).log2() }
}

/// Terms of one opening of `claims` claims.
pub fn opening_terms(parameters: &Parameters, stack: &Stack, claims: usize) -> Vec<Term> {
    let domain = ((stack.log_rows + ORACLE_LOG_BLOWUP) as f64).exp2();
    let bits = (stack.log_rows + stack.column_bits) as f64;
    let mut out = vec![
        field_term(parameters, "claim batch", claims as f64),
        field_term(parameters, "opening rounds", 2.0 * bits),
        // Columns are combined by eq(rho): one fold of a pair of words for each bit, proximity loss n/|K| each.
        field_term(parameters, "column fold", stack.column_bits.max(1) as f64 * domain),
        query_term(parameters, "row queries".into(), ORACLE_LOG_BLOWUP),
    ];
    if parameters.is_clear(stack.log_rows) {
        return out;
    }
    let mut claims = parameters.queries(ORACLE_LOG_BLOWUP) as f64 + 1.0;
    for (i, size) in whir_sizes(parameters, stack.log_rows).into_iter().enumerate() {
        let points = ((size.log_size + size.log_blowup) as f64).exp2();
        let folds = crate::parameters::FOLD_LOG as f64;
        out.push(field_term(parameters, &format!("WHIR {i} batch"), claims));
        out.push(field_term(parameters, &format!("WHIR {i} rounds"), 2.0 * folds));
        out.push(field_term(parameters, &format!("WHIR {i} folds"), folds * points));
        out.push(query_term(parameters, format!("WHIR {i} queries"), size.log_blowup));
        claims = parameters.queries(size.log_blowup) as f64 + 1.0;
    }
    out
}

