//! Error terms of a proof and their sum.
//!
//! A proof of a false statement is accepted with probability at most the *sum* of all terms (for each hash of a cheater, in the random oracle
//! model). Everything is proved in the unique decoding regime; no conjecture is used.

use std::fmt;

use crate::field::P;
use crate::parameters::{FOLD_LOG, Parameters};
use crate::pcs::{Stack, stages};

/// One source of error: probability `2^-bits`.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What can go wrong.
    pub name: String,
    /// `-log2` of its probability.
    pub bits: f64,
}

impl Term {
    /// A bad event of at most `count` challenges out of `|K|`.
    pub fn algebraic(name: impl Into<String>, count: f64, degree: usize) -> Term {
        Term { name: name.into(), bits: degree as f64 * (P as f64).log2() - count.log2() }
    }

    /// A word outside the unique decoding radius `(1 - rate)/2` passes `queries` independent queries: `((1 + rate)/2)^queries`.
    pub fn queries(name: impl Into<String>, queries: usize, rate: f64) -> Term {
        Term { name: name.into(), bits: -(queries as f64) * ((1.0 + rate) / 2.0).log2() }
    }
}

/// The terms of a proof and the bits of their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Soundness {
    /// All terms.
    pub terms: Vec<Term>,
    /// `-log2` of the sum of their probabilities.
    pub bits: f64,
}

impl Soundness {
    /// Adds up.
    pub fn new(terms: Vec<Term>) -> Soundness {
        let bits = -terms.iter().map(|t| (-t.bits).exp2()).sum::<f64>().log2();
        Soundness { terms, bits }
    }
}

impl fmt::Display for Soundness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for t in &self.terms {
            writeln!(f, "{:>8.2} bits  {}", t.bits, t.name)?;
        }
        write!(f, "{:>8.2} bits  sum", self.bits)
    }
}

/// The terms of an opening of at most `claims` claims.
///
/// - The claims are combined by powers of one challenge: a polynomial of degree `claims - 1`.
/// - Every round of the sumcheck sends a polynomial of degree 2.
/// - Column fold: if the columns, folded by a tensor of `c` challenges, are close to a code word of length `n`, they are so jointly, on one set
///   of rows, up to `c n / |K|` (proximity gaps of lines in the unique decoding radius, one variable after another).
/// - Row queries: `g` and the folded rows.
/// - In each round of WHIR: the batch of a claim and `q` values (degree `q`), four sumcheck rounds, the fold of leaves (four variables, code of
///   as many symbols as leaves), and the queries at the rate of the oracle that they open.
pub fn opening_terms(params: &Parameters, stack: &Stack, claims: usize) -> Vec<Term> {
    let degree = params.degree();
    let algebraic = |name: String, count: f64| Term::algebraic(name, count, degree);
    let domain = stack.log_domain();
    let mut queries = params.row_queries();
    let mut terms = vec![
        algebraic("opening: batch of claims".into(), claims.max(2) as f64 - 1.0),
        algebraic("opening: sumcheck".into(), 2.0 * stack.variables() as f64),
        Term::queries("opening: row queries", queries, params.row_rate()),
    ];
    if stack.column_bits > 0 {
        terms.push(algebraic("opening: column fold".into(), stack.column_bits as f64 * (1u64 << domain) as f64));
    }
    if params.is_clear(stack.log_rows) {
        return terms;
    }
    for (i, stage) in stages(params, stack.log_rows).into_iter().enumerate() {
        terms.push(algebraic(format!("folding {i}: batch of values"), queries as f64));
        terms.push(algebraic(format!("folding {i}: sumcheck"), 2.0 * FOLD_LOG as f64));
        terms.push(algebraic(format!("folding {i}: fold of leaves"), FOLD_LOG as f64 * (1u64 << stage.height()) as f64));
        queries = params.queries(stage.log_blowup);
        terms.push(Term::queries(format!("folding {i}: queries"), queries, 0.5f64.powi(stage.log_blowup as i32)));
    }
    terms
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parameters::Mode;
    use crate::pcs::{Hiding, OracleLayout, Role};

    fn sum(security: u32, witness: (usize, usize), model: (usize, usize), input: (usize, usize), claims: usize) -> Soundness {
        let params = Parameters::new(security, Mode::Plain).expect("a set");
        let layout = |role, shape| Arc::new(OracleLayout::new(&params, role, 0, vec![shape], Hiding::None));
        let stack = Stack::new(vec![layout(Role::Witness, witness), layout(Role::Tensor, input), layout(Role::Model, model)]);
        Soundness::new(opening_terms(&params, &stack, claims))
    }

    #[test]
    fn a_sum_is_less_than_its_least_term() {
        let terms = |bits: &[f64]| bits.iter().map(|&bits| Term { name: "x".into(), bits }).collect();
        assert!((Soundness::new(terms(&[101.0, 101.0])).bits - 100.0).abs() < 1e-9);
        assert!((Soundness::new(terms(&[100.0, 140.0])).bits - 100.0).abs() < 1e-9);
    }

    /// A third of a bit of the budget and more stays, even of the largest, for the terms outside the opening: of the order of lookups / |K|.
    #[test]
    fn openings_of_small_and_large_models_leave_room() {
        for security in [100, 128] {
            let resnet8 = sum(security, (1 << 10, 350), (1 << 8, 305), (1024, 3), 300);
            let mobilenet = sum(security, (1 << 15, 460), (1 << 12, 860), (50176, 3), 1000);
            let huge = sum(security, (1 << 20, 256), (1 << 17, 1024), (1 << 16, 64), 10_000);
            for s in [resnet8, mobilenet] {
                assert!(s.bits > security as f64 + 1.5, "{security}\n{s}");
            }
            assert!(huge.bits > security as f64 + 0.33, "{security}\n{huge}");
        }
    }

    #[test]
    fn unknown_terms_are_not_left_out() {
        let s = sum(100, (1 << 15, 460), (1 << 12, 860), (50176, 3), 1000);
        // 2^18 coefficients: three rounds of WHIR, four terms each, and the opening's four.
        assert_eq!(s.terms.len(), 16, "{s}");
        assert!(s.to_string().ends_with("sum"));
    }
}
