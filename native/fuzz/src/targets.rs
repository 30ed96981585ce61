//! What the fuzzer runs on any bytes; `core/tests/fuzz.rs` runs the same on the corpus and on its mutations, so that every build does.
//!
//! The fixed key and the honest pair are the golden proof `dense`.

use std::sync::OnceLock;

use nexus_edge_core::proof::{Statement, VerifyingKey, verify};

const KEY: &[u8] = include_bytes!("../../core/tests/golden/dense/key.bin");
const STATEMENT: &[u8] = include_bytes!("../../core/tests/golden/dense/statement.bin");
const PROOF: &[u8] = include_bytes!("../../core/tests/golden/dense/proof.bin");

/// The fixed key.
fn golden_key() -> &'static VerifyingKey {
    static READ: OnceLock<VerifyingKey> = OnceLock::new();
    READ.get_or_init(|| VerifyingKey::from_bytes(KEY).expect("the golden key is a key"))
}

/// The honest pair as the fuzzer's input: length of the statement (4 bytes), statement, proof.
#[allow(dead_code)] // used where the corpus is made
pub fn honest_pair() -> Vec<u8> {
    [&(STATEMENT.len() as u32).to_le_bytes(), STATEMENT, PROOF].concat()
}

/// Decodes and verifies a pair. Panics if anything but the honest pair is accepted, or if a statement has two encodings.
#[allow(dead_code)] // each target uses one
pub fn verify_pair(data: &[u8]) {
    let Some((length, rest)) = data.split_at_checked(4) else { return };
    let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
    let Some((statement, proof)) = rest.split_at_checked(length) else { return };
    let Ok(read) = Statement::from_bytes(statement) else { return };
    assert_eq!(read.to_bytes(), statement, "a statement has one encoding");
    if verify(golden_key(), &read, proof).is_ok() {
        assert!(statement == STATEMENT && proof == PROOF, "a forged pair is accepted");
    }
}

/// Decodes a key. Panics if it has two encodings, or accepts the golden proof although it is another key.
#[allow(dead_code)] // each target uses one
pub fn read_key(data: &[u8]) {
    let Ok(key) = VerifyingKey::from_bytes(data) else { return };
    assert_eq!(key.to_bytes(), data, "a key has one encoding");
    let Ok(mut statement) = Statement::from_bytes(STATEMENT) else { return };
    let same = key.digest() == golden_key().digest();
    assert_eq!(same, data == KEY, "a digest is of one key");
    statement.digest = key.digest();
    assert_eq!(verify(&key, &statement, PROOF).is_ok(), same, "a key accepts a proof of another model");
}
