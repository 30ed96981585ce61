//! Why a verifier refuses. Every refusal is one of these; nothing a peer sends can panic the verifier.

use thiserror::Error;

/// The reason a proof is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reject {
    /// The bytes are not a proof, key or statement of a version that this build reads.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which object.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The proof ends before the last message.
    #[error("proof too short at {at}")]
    Truncated {
        /// Label of the message that is missing.
        at: &'static str,
    },
    /// Bytes are left over after the last message.
    #[error("{extra} bytes after the end of the proof")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A field element is not smaller than the modulus.
    #[error("element of {at} is not canonical")]
    NotCanonical {
        /// Label of the message.
        at: &'static str,
    },
    /// The statement does not fit the key: another model, mode, parameter set, dtype, shape or number of tensors.
    #[error("statement: {0}")]
    Statement(String),
    /// An equation between messages does not hold.
    #[error("{0} does not hold")]
    Equation(&'static str),
    /// An opened row does not hash to the committed root.
    #[error("Merkle path of the {oracle} oracle")]
    Merkle {
        /// Role of the oracle.
        oracle: &'static str,
    },
    /// An opened row contradicts the folded polynomial.
    #[error("row of {oracle} is not on the folded code word")]
    Row {
        /// The oracle, or the WHIR round.
        oracle: &'static str,
    },
    /// A challenge hit one of the negligibly few values at which a formula divides by zero.
    #[error("degenerate challenge at {0}")]
    Degenerate(&'static str),
}

/// Result of everything a verifier does.
pub type Verdict<T> = Result<T, Reject>;
