//! The polynomial commitment: several Reed-Solomon oracles of different sizes, opened together at separable functionals.

mod cells;
mod code;
mod fresh;
mod functional;
mod kernel;
mod open;
mod oracle;
mod planes;
mod points;
#[cfg(test)]
mod published;
mod size;
mod stack;
mod sumcheck;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod weight;
mod whir;

pub(crate) use fresh::Fresh;
pub use functional::{Claim, Functional};
pub use open::{Combination, Halt, OpenedRows, combine, query};
pub use oracle::{Committed, Drawn, Hiding, OracleLayout, Role, Secret, commit, commit_heard};
pub use size::opening_bytes;
pub use stack::Stack;
pub use verify::{Combined, verify_combination, verify_queries};
pub(crate) use whir::stages;
#[cfg(test)]
pub(crate) use {
    kernel::over_columns, open::reduced, oracle::assemble, whir::Word, whir::distinct, whir::monomials, whir::prove as prove_folding,
};
