//! Bytes as changes of golden files, zero-knowledge proofs, registrations and links among them: only what is not changed may be accepted.
#![no_main]

#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::changed(data));
