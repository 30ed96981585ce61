//! The parameter sets: two, of 100 and of 128 provable bits, without grinding and without conjectures.
//!
//! Everything that a proof's shape depends on besides the program is here and is absorbed by the transcript. [`crate::soundness`] computes
//! the error terms that the numbers lead to.
//!
//! Why these numbers:
//! - *Rate.* A code of rate 1/4 takes twice the transforms and hashes of rate 1/2, a seventh of the prover's time, and 154 queries instead of 251: proofs
//!   are a third smaller and verified in less time (docs/adr/0012-rate.md).
//! - *Queries.* In the unique decoding regime a word at distance more than `(1 - rate)/2` from the code passes `q` queries with probability
//!   at most `((1 + rate)/2)^q`. A proof opens four or five code words; each is given 104 bits (132 in the larger set), so that all of them
//!   together leave three quarters of the budget of `2^-100` (`2^-128`) to the terms that grow with the program and are divided by `|K|`.
//! - *Columns.* A row of `C` columns costs `8 C` bytes in each query; a doubling of the rows costs 32 bytes of Merkle path in each,
//!   one more layer of transform for every cell, twice the nodes of the tree and a column combination of twice the length. A witness is made
//!   for every proof, so that the prover's time decides: 112 columns, 14 blocks of leaf, which leave room within BLAKE3's chunk of 1024 bytes
//!   for a salt and nine more columns. A model is committed once: 64. An input is small, so that its rows are few whatever the width: 32.
//! - *Rows.* Below 2^8 rows nearly all rows would be opened.
//! - *Clear polynomial.* Up to 2^12 coefficients the column combination is sent in the clear: 64 KB, about what WHIR would take, and the
//!   verifier's work is two small transforms.
//! - *Zero-knowledge.* A column of the witness has as many random coefficients beyond its `2^l` rows as there are queries, which raises the
//!   rate and with it the queries. All proofs count at the largest rate that the set allows, that of 2^10 rows: a long-lived oracle is then
//!   decoded to one message by all proofs that open it. 162 (210) queries give 102 (130) bits there; that is the largest of the terms. Fewer
//!   rows would cost more queries than they save. Half of a kept oracle's rows may be opened: those of private weights, which many proofs open,
//!   have 2^12 rows at least.

/// Log of the leaf width of WHIR's oracles: four variables are folded per round.
pub const FOLD_LOG: usize = 4;
/// Log of the inverse rate of the first WHIR oracle.
pub const WHIR_LOG_BLOWUP: usize = 3;
/// Log of the inverse rate of committed oracles.
pub const ORACLE_LOG_BLOWUP: usize = 2;
/// The longest domain has `2^MAX_LOG_DOMAIN` points: the two-adicity of Goldilocks.
pub const MAX_LOG_DOMAIN: usize = 32;
/// Roles of oracles.
pub(crate) const ROLES: usize = 4;

/// What a proof shows beside its statement; part of the parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Messages, rows and commitments are functions of the data: for public inputs and for measurements.
    Plain = 0,
    /// Zero-knowledge: nothing but the statement, to one who has the proof (docs/protocol/zero-knowledge.md).
    Zk = 1,
}

/// A parameter set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    security: u32,
    mode: Mode,
    degree: usize,
    columns: [usize; ROLES],
    min_log_rows: [usize; ROLES],
    hiding_log_rows: [usize; ROLES],
    /// By log of the inverse rate, from [`ORACLE_LOG_BLOWUP`] on.
    queries: [usize; 8],
    clear_log: usize,
    final_log: usize,
}

impl Parameters {
    /// The set for 100 or 128 bits; there is no other.
    pub fn new(security: u32, mode: Mode) -> Option<Parameters> {
        // ceil(target / -log2((1 + 2^-k) / 2)) for 104 and for 132 bits.
        let (degree, mut queries) = match security {
            100 => (2, [154, 126, 114, 109, 107, 106, 105, 105]),
            128 => (3, [195, 160, 145, 139, 136, 134, 133, 133]),
            _ => return None,
        };
        if mode == Mode::Zk {
            queries[0] = if security == 100 { 162 } else { 210 };
        }
        Some(Parameters {
            security,
            mode,
            degree,
            columns: [112, 32, 64, 64],
            min_log_rows: [8; ROLES],
            hiding_log_rows: [10, 10, 12, 12],
            queries,
            clear_log: 12,
            final_log: 9,
        })
    }

    /// A set for tests whose thresholds are so small that every path runs within milliseconds. It proves nothing.
    #[cfg(test)]
    pub(crate) fn tiny(degree: usize, columns: usize, min_log_rows: usize, clear_log: usize, final_log: usize) -> Parameters {
        Self::tiny_in(Mode::Plain, degree, columns, min_log_rows, clear_log, final_log)
    }

    /// [`Self::tiny`] in a mode.
    #[cfg(test)]
    pub(crate) fn tiny_in(
        mode: Mode,
        degree: usize,
        columns: usize,
        min_log_rows: usize,
        clear_log: usize,
        final_log: usize,
    ) -> Parameters {
        assert!(clear_log >= FOLD_LOG, "a WHIR oracle has at least one coefficient a column");
        Parameters {
            security: 0,
            mode,
            degree,
            columns: [columns, columns.div_ceil(2), columns, columns],
            min_log_rows: [min_log_rows; ROLES],
            hiding_log_rows: [min_log_rows.max(4); ROLES],
            queries: [8, 7, 6, 5, 5, 5, 5, 5],
            clear_log,
            final_log,
        }
    }

    /// The set as absorbed: little-endian 32-bit integers in the order security, degree, mode, column limits by role, least log rows by role,
    /// least log rows of hiding oracles by role, queries by log of the inverse rate from 1/4 on, clear threshold, final threshold, and the
    /// constants [`ORACLE_LOG_BLOWUP`], [`FOLD_LOG`] and [`WHIR_LOG_BLOWUP`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = vec![self.security as usize, self.degree, self.mode as usize];
        words.extend(self.columns);
        words.extend(self.min_log_rows);
        words.extend(self.hiding_log_rows);
        words.extend(self.queries);
        words.extend([self.clear_log, self.final_log, ORACLE_LOG_BLOWUP, FOLD_LOG, WHIR_LOG_BLOWUP]);
        words.into_iter().flat_map(|w| (w as u32).to_le_bytes()).collect()
    }

    /// Bits that the sum of all error terms of a proof stays below.
    pub fn security(&self) -> u32 {
        self.security
    }

    /// Whether proofs are zero-knowledge.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Queries to committed oracles. In zero-knowledge mode also the random coefficients of each column of the witness.
    pub fn row_queries(&self) -> usize {
        self.queries(ORACLE_LOG_BLOWUP)
    }

    /// Random coefficients beyond the rows of a witness's message.
    pub(crate) fn pads(&self) -> usize {
        match self.mode {
            Mode::Plain => 0,
            Mode::Zk => self.row_queries(),
        }
    }

    /// The largest rate of a code whose words are opened by row queries: that of a witness of the fewest rows, pads included.
    pub(crate) fn row_rate(&self) -> f64 {
        let rows = (1usize << self.hiding_log_rows[0]) as f64;
        (rows + self.pads() as f64) / (rows * (1 << ORACLE_LOG_BLOWUP) as f64)
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
    pub(crate) fn min_log_rows(&self, role: usize, hiding: bool) -> usize {
        if hiding { self.min_log_rows[role].max(self.hiding_log_rows[role]) } else { self.min_log_rows[role] }
    }

    /// Queries to a code word of rate `2^-log_blowup`; past the table a lower rate only makes the same number stronger.
    pub(crate) fn queries(&self, log_blowup: usize) -> usize {
        self.queries[(log_blowup - ORACLE_LOG_BLOWUP).min(self.queries.len() - 1)]
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
            for mode in [Mode::Plain, Mode::Zk] {
                let p = Parameters::new(security, mode).expect("a set");
                let bits = |rate: f64| -((1.0 + rate) / 2.0).log2();
                let target_of_rows = if mode == Mode::Zk { target - 2.0 } else { target };
                assert_eq!(p.row_queries(), (target_of_rows / bits(p.row_rate())).ceil() as usize, "{mode:?}");
                for log in ORACLE_LOG_BLOWUP as i32 + 1..10 {
                    assert_eq!(p.queries(log as usize), (target / bits(0.5f64.powi(log))).ceil() as usize, "rate 2^-{log}");
                }
            }
        }
    }

    #[test]
    fn pads_are_the_fewest_that_cover_their_own_queries() {
        for (security, target) in [(100, 102.0), (128, 130.0)] {
            let fixed = Parameters::new(security, Mode::Zk).expect("a set").pads();
            let enough = |q: usize| {
                let rate = (1024 + q) as f64 / 4096.0;
                (q as f64) * -((1.0 + rate) / 2.0).log2() >= target
            };
            assert!(enough(fixed) && !enough(fixed - 1));
        }
    }

    #[test]
    fn the_sets_differ_and_no_other_exists() {
        let [a, b] = [100, 128].map(|s| Parameters::new(s, Mode::Zk).expect("a set"));
        assert_ne!(a.to_bytes(), b.to_bytes());
        assert_ne!(a.to_bytes(), Parameters::new(100, Mode::Plain).expect("a set").to_bytes());
        assert_eq!((a.degree(), b.degree()), (2, 3));
        assert!([0, 80, 99, 101, 127, 256].iter().all(|&s| Parameters::new(s, Mode::Zk).is_none()));
    }
}
