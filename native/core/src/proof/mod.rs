//! One proof from statement to opening: keys, statements, `prove`, `verify`.

mod conversation;
mod instance;
mod key;
mod prove;
mod registration;
mod statement;
mod terms;
mod verify;

pub use instance::Compiled;
pub use key::{KeyError, KeyWeights, ProvingKey, VerifyingKey};
#[cfg(feature = "attacks")]
pub use prove::prove_forged;
pub use prove::{Cheat, Figures, Made, Opened, Progress, ProveError, Request, Secrets, Shown, prove, prove_witness};
pub use registration::{Linked, Registered, RegistrationError, WeightProof, link, register, verify_link, verify_registration};
#[cfg(feature = "attacks")]
pub use registration::{Subject, prove_cells, verify_cells};
pub use statement::{Content, Statement, StatementTensor, tensor_commitment};
pub use terms::{masked_messages, proof_bytes, soundness};
pub use verify::verify;
#[cfg(feature = "attacks")]
pub use verify::verify_compiled;

/// Protocol version, absorbed first.
pub const VERSION: &[u8] = b"nexus-edge proof v2";
