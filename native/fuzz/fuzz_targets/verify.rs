//! Bytes as a statement and its proof, against a fixed key: only the honest pair may be accepted.
#![no_main]

#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::verify_pair(data));
