//! What the fuzzer runs on any bytes; `core/tests/fuzz.rs` runs the same on the corpus and on its mutations, so that every build does.
//!
//! The fixed key and the honest pair are the golden proof `dense`. What is larger, or hides something, is fuzzed as changes of golden files.

use std::sync::OnceLock;

use nexus_edge_core::proof::{Statement, VerifyingKey, verify, verify_link, verify_registration};

const KEY: &[u8] = include_bytes!("../../core/tests/golden/dense/key.bin");
const STATEMENT: &[u8] = include_bytes!("../../core/tests/golden/dense/statement.bin");
const PROOF: &[u8] = include_bytes!("../../core/tests/golden/dense/proof.bin");

const ZK_KEY: &[u8] = include_bytes!("../../core/tests/golden/dense-zk/key.bin");
const ZK_STATEMENT: &[u8] = include_bytes!("../../core/tests/golden/dense-zk/statement.bin");
const ZK_PROOF: &[u8] = include_bytes!("../../core/tests/golden/dense-zk/proof.bin");

const OWNER: &[u8] = include_bytes!("../../core/tests/golden/private/key.bin");
const LINKED: &[u8] = include_bytes!("../../core/tests/golden/private/linked-key.bin");
const REGISTRATION: &[u8] = include_bytes!("../../core/tests/golden/private/registration.bin");
const LINK: &[u8] = include_bytes!("../../core/tests/golden/private/link.bin");

/// Reads a fixed key once.
macro_rules! golden {
    ($name:ident, $bytes:expr) => {
        fn $name() -> &'static VerifyingKey {
            static READ: OnceLock<VerifyingKey> = OnceLock::new();
            READ.get_or_init(|| VerifyingKey::from_bytes($bytes).expect("a golden key is a key"))
        }
    };
}

golden!(golden_key, KEY);
golden!(zk_key, ZK_KEY);
golden!(owner, OWNER);
golden!(linked, LINKED);

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

/// Decodes a key. Panics if it has two encodings, or accepts a golden proof, registration or link although it is another key. One with another
/// name is the same key.
#[allow(dead_code)] // each target uses one
pub fn read_key(data: &[u8]) {
    let Ok(key) = VerifyingKey::from_bytes(data) else { return };
    assert_eq!(key.to_bytes(), data, "a key has one encoding");
    let renames = |golden: &VerifyingKey| key.unnamed_bytes() == golden.unnamed_bytes();
    if key.program().private.is_some() {
        assert_eq!(verify_registration(&key, REGISTRATION).is_ok(), renames(owner()), "a registration is of one key");
        assert_eq!(verify_link(&key, &[linked()], LINK).is_ok(), renames(owner()), "a link starts at one key");
        assert_eq!(verify_link(owner(), &[&key], LINK).is_ok(), renames(linked()), "a link ends at one key");
    }
    let Ok(mut statement) = Statement::from_bytes(STATEMENT) else { return };
    let same = key.digest() == golden_key().digest();
    assert_eq!(same, renames(golden_key()), "a digest is of one key");
    statement.digest = key.digest();
    assert_eq!(verify(&key, &statement, PROOF).is_ok(), same, "a key accepts a proof of another model");
}

/// Golden files that [`changed`] changes; the order is part of the corpus.
const CHANGED: [&[u8]; 5] = [ZK_STATEMENT, ZK_PROOF, REGISTRATION, LINK, LINKED];

/// A golden file, chosen by the first byte, with changes of 5 bytes each: an offset and what is added to the byte there. At the end of the
/// file a byte is appended instead, beyond it the file is cut.
#[allow(dead_code)] // each target uses one
pub fn changed(data: &[u8]) {
    let Some((&which, changes)) = data.split_first() else { return };
    let which = usize::from(which) % CHANGED.len();
    let mut file = CHANGED[which].to_vec();
    for change in changes.chunks_exact(5) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % (2 * file.len() + 1);
        match file.len() {
            n if at < n => file[at] = file[at].wrapping_add(change[4]),
            n if at == n => file.push(change[4]),
            n => file.truncate(at - n),
        }
    }
    let accepted = match which {
        0 => Statement::from_bytes(&file).is_ok_and(|read| {
            assert_eq!(read.to_bytes(), file, "a statement has one encoding");
            verify(zk_key(), &read, ZK_PROOF).is_ok()
        }),
        1 => verify(zk_key(), &Statement::from_bytes(ZK_STATEMENT).expect("golden"), &file).is_ok(),
        2 => verify_registration(owner(), &file).is_ok(),
        3 => verify_link(owner(), &[linked()], &file).is_ok(),
        _ => return read_key(&file),
    };
    assert_eq!(accepted, file == CHANGED[which], "only the golden file itself is accepted");
}
