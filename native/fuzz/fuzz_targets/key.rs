//! Bytes as a verifying key: refused, or a key with one encoding that refuses another model's proof.
#![no_main]

#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::read_key(data));
