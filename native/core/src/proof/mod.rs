//! One proof from statement to opening: keys, statements, `prove`, `verify`.

#[cfg(feature = "attacks")]
mod cheat;
mod conversation;
mod exchange;
mod instance;
mod key;
mod prove;
mod registration;
mod statement;
mod terms;
mod verify;

#[cfg(feature = "attacks")]
pub use cheat::{Cheat, prove_forged};
pub use instance::Compiled;
pub use key::{KeyError, KeyWeights, ProvingKey, VerifyingKey};
pub use prove::{Figures, Made, Opened, Progress, ProveError, Request, Secrets, Shown, prove, prove_witness};
pub use registration::{Linked, Registered, RegistrationError, WeightProof, link, register, verify_link, verify_registration};
#[cfg(feature = "attacks")]
pub use registration::{Subject, link_from, prove_cells, register_from, verify_cells};
pub use statement::{Content, Statement, StatementTensor, tensor_commitment};
pub use terms::{masked_messages, proof_bytes, soundness};
pub use verify::{Lapse, verify};
#[cfg(feature = "attacks")]
pub use verify::{verify_compiled, verify_lapsed};
#[cfg(test)]
pub(crate) use {registration::conversation as weight_conversation, registration::judge, registration::prove_taped, verify::conversation};

/// Protocol version, absorbed first.
pub const VERSION: &[u8] = b"nexus-edge proof v5";
