//! Proofs that an exact integer program was run: `docs/protocol.md` is the specification of the bytes.

pub mod blocks;
pub mod channel;
pub mod eq;
pub mod field;
pub mod hash;
pub mod merkle;
pub mod ntt;
pub mod parameters;
pub mod pcs;
pub mod program;
pub mod reject;
pub mod soundness;
