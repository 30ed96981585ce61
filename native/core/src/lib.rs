//! Proofs that an exact integer program was run: `docs/protocol.md` is the specification of the bytes.

pub mod blocks;
pub mod channel;
pub mod contraction;
pub mod control;
pub mod eq;
pub mod exec;
pub mod field;
mod halves;
pub mod hash;
pub mod layout;
pub mod logup;
pub mod masking;
pub mod merkle;
pub mod ntt;
pub mod parameters;
pub mod pcs;
pub mod program;
pub mod proof;
pub mod prover;
pub mod random;
pub mod reject;
mod run;
pub mod side;
pub mod soundness;
#[cfg(test)]
mod zk;

/// The tests' networks name the crate.
#[cfg(test)]
extern crate self as nexus_edge_core;
