//! Malicious provers (design sections 4 to 7). Each works from a changed witness, statement or message and runs the honest algorithm
//! otherwise; the verifier must refuse every one for the right reason. Where a constraint stops an attack, an *ablation* takes that constraint
//! away from both sides and the same forgery must be accepted: it shows that the attack tests that constraint.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod bytes;
mod determined;
mod forge;
mod gadgets;
mod ideal;
mod line;
mod links;
mod messages;
mod neighbours;
mod networks;
mod owners;
mod pools;
mod programs;
mod registrations;
mod rescales;
mod softmaxes;
mod statements;
mod wiring;
