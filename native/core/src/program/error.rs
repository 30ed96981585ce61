//! Why a program is refused.

use thiserror::Error;

/// The kind of fault: a stable word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are not the canonical encoding of a program or of weights.
    Encoding,
    /// A count or size is beyond what this build accepts.
    Limit,
    /// A name is too long or not unique.
    Name,
    /// An id is out of range, used before its definition, defined twice or never.
    Reference,
    /// Shapes of an operator do not fit.
    Shape,
    /// A scale, zero point, clamp or multiplier is out of range or differs where it must be equal.
    Quantization,
    /// A table or fill has values outside its dtype.
    Table,
    /// A rescale has no exact digital line, or a rule that differs from its formula.
    Line,
    /// An equation of the proof could wrap modulo the field's characteristic.
    Wrap,
    /// Weights do not fit their declaration.
    Weights,
    /// A combination that is not supported.
    Unsupported,
}

impl Fault {
    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Encoding => "encoding",
            Fault::Limit => "limit",
            Fault::Name => "name",
            Fault::Reference => "reference",
            Fault::Shape => "shape",
            Fault::Quantization => "quantization",
            Fault::Table => "table",
            Fault::Line => "line",
            Fault::Wrap => "wrap",
            Fault::Weights => "weights",
            Fault::Unsupported => "unsupported",
        }
    }
}

/// A program that cannot be decoded, built, checked or run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {detail}")]
pub struct ProgramError {
    /// Kind of fault.
    pub fault: Fault,
    /// Operator (index, kind, output) or tensor.
    pub place: String,
    /// What is wrong.
    pub detail: String,
    /// Index of the operator, if one is at fault.
    pub op: Option<usize>,
}

impl ProgramError {
    /// A fault at a place.
    pub fn new(fault: Fault, place: impl Into<String>, detail: impl Into<String>) -> Self {
        ProgramError { fault, place: place.into(), detail: detail.into(), op: None }
    }
}

/// Result of everything that takes an unchecked program.
pub type Checked<T> = Result<T, ProgramError>;
