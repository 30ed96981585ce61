//! The parameter sets: two, of 100 and of 128 provable bits, without grinding and without conjectures.
//!
//! Everything that a proof's shape depends on besides the program is here and is absorbed by the transcript. [`crate::soundness`] computes
//! the error terms that the numbers lead to.
//!
//! Why these numbers:
//! - *Queries.* In the unique decoding regime a word at distance more than `(1 - rate)/2` from the code passes `q` queries with probability
//!   at most `((1 + rate)/2)^q`. A proof opens four or five code words; each is given 104 bits (132 in the larger set), so that all of them
//!   together leave three quarters of the budget of `2^-100` (`2^-128`) to the terms that grow with the program and are divided by `|K|`.
//! - *Columns.* A row of `C` columns costs `8 C` bytes in each of 251 queries; a doubling of the rows costs 32 bytes of Merkle path in each,
//!   one more layer of transform for every cell, twice the nodes of the tree and a column combination of twice the length. A witness is made
//!   for every proof, so that the prover's time decides: 112 columns, 14 blocks of leaf, which leave room within BLAKE3's chunk of 1024 bytes
//!   for a salt and nine more columns. A model is committed once: 64. An input is small, so that its rows are few whatever the width: 32.
//! - *Rows.* Below 2^8 rows nearly all rows would be opened.
//! - *Clear polynomial.* Up to 2^12 coefficients the column combination is sent in the clear: 64 KB, about what WHIR would take, and the
//!   verifier's work is two small transforms.

/// Log of the leaf width of WHIR's oracles: four variables are folded per round.
pub const FOLD_LOG: usize = 4;
/// Log of the inverse rate of the first WHIR oracle.
pub const WHIR_LOG_BLOWUP: usize = 3;
/// Log of the inverse rate of committed oracles.
pub const ORACLE_LOG_BLOWUP: usize = 1;
/// The longest domain has `2^MAX_LOG_DOMAIN` points: the two-adicity of Goldilocks.
pub const MAX_LOG_DOMAIN: usize = 32;
/// Roles of oracles.
pub(crate) const ROLES: usize = 4;

/// A parameter set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    security: u32,
    degree: usize,
    columns: [usize; ROLES],
    min_log_rows: [usize; ROLES],
    queries: [usize; 10],
    clear_log: usize,
    final_log: usize,
}

impl Parameters {
    /// The set for 100 or 128 bits; there is no other.
    pub fn new(security: u32) -> Option<Parameters> {
        // queries[k] is ceil(target / -log2((1 + 2^-k) / 2)) for 104 and for 132 bits; rate 1 has no code.
        let (degree, queries) = match security {
            100 => (2, [0, 251, 154, 126, 114, 109, 107, 106, 105, 105]),
            128 => (3, [0, 319, 195, 160, 145, 139, 136, 134, 133, 133]),
            _ => return None,
        };
        Some(Parameters { security, degree, columns: [112, 32, 64, 64], min_log_rows: [8; ROLES], queries, clear_log: 12, final_log: 9 })
    }

    /// A set for tests whose thresholds are so small that every path runs within milliseconds. It proves nothing.
    #[cfg(test)]
    pub(crate) fn tiny(degree: usize, columns: usize, min_log_rows: usize, clear_log: usize, final_log: usize) -> Parameters {
        assert!(clear_log >= FOLD_LOG, "a WHIR oracle has at least one coefficient a column");
        Parameters {
            security: 0,
            degree,
            columns: [columns, columns.div_ceil(2), columns, columns],
            min_log_rows: [min_log_rows; ROLES],
            queries: [0, 9, 8, 7, 6, 5, 5, 5, 5, 5],
            clear_log,
            final_log,
        }
    }

    /// The set as absorbed: little-endian 32-bit integers in the order security, degree, column limits by role, least log rows by role,
    /// queries by log of the inverse rate from 1/2 on, clear threshold, final threshold, and the constants [`FOLD_LOG`] and
    /// [`WHIR_LOG_BLOWUP`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = vec![self.security as usize, self.degree];
        words.extend(self.columns);
        words.extend(self.min_log_rows);
        words.extend(&self.queries[1..]);
        words.extend([self.clear_log, self.final_log, FOLD_LOG, WHIR_LOG_BLOWUP]);
        words.into_iter().flat_map(|w| (w as u32).to_le_bytes()).collect()
    }

    /// Bits that the sum of all error terms of a proof stays below.
    pub fn security(&self) -> u32 {
        self.security
    }

    /// Degree of `K` over `F`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Columns of an oracle at most.
    pub(crate) fn columns(&self, role: usize) -> usize {
        self.columns[role]
    }

    /// `log2` of the rows of an oracle's message at least.
    pub(crate) fn min_log_rows(&self, role: usize) -> usize {
        self.min_log_rows[role]
    }

    /// Queries to a code word of rate `2^-log_blowup`; past the table a lower rate only makes the same number stronger.
    pub(crate) fn queries(&self, log_blowup: usize) -> usize {
        self.queries[log_blowup.min(self.queries.len() - 1)]
    }

    /// Whether a column combination of `2^log` coefficients is sent in the clear.
    pub(crate) fn is_clear(&self, log: usize) -> bool {
        log <= self.clear_log
    }

    /// Whether WHIR stops at `2^log` coefficients. One fewer than a leaf cannot be folded.
    pub(crate) fn is_final(&self, log: usize) -> bool {
        log <= self.final_log || log < FOLD_LOG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_counts_are_the_least_that_reach_their_target() {
        for (security, target) in [(100, 104.0), (128, 132.0)] {
            let p = Parameters::new(security).expect("a set");
            for log in 1..10 {
                let bits = -((1.0 + 0.5f64.powi(log)) / 2.0).log2();
                assert_eq!(p.queries(log as usize), (target / bits).ceil() as usize, "rate 2^-{log}");
            }
        }
    }

    #[test]
    fn the_two_sets_differ_and_no_other_exists() {
        let [a, b] = [100, 128].map(|s| Parameters::new(s).expect("a set"));
        assert_ne!(a.to_bytes(), b.to_bytes());
        assert_eq!((a.degree(), b.degree()), (2, 3));
        assert!([0, 80, 99, 101, 127, 256].iter().all(|&s| Parameters::new(s).is_none()));
    }
}
