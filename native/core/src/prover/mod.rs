//! The prover's side: values of everything committed, and of everything looked up.

pub mod values;
pub mod witness;
