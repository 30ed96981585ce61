//! The committed proofs of this format version: still accepted, still made byte for byte, and the forged ones still refused.
//!
//! A failure here means that a format or the protocol changed. If that was meant: a new version, and `--example make_golden`.

mod support;

#[path = "support/golden.rs"]
mod golden;

use std::path::PathBuf;

use nexus_edge_core::masking::EQUATIONS;
use nexus_edge_core::proof::{Statement, VerifyingKey, verify, verify_link, verify_registration};
use nexus_edge_core::reject::Reject;

/// A committed file is at most this large.
const LIMIT: usize = 400 << 10;
const NAMES: [&str; 4] = ["dense", "everything", "dense-zk", "everything-zk"];

fn read(golden: &str, file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(bytes.len() <= LIMIT, "{} has {} bytes", path.display(), bytes.len());
    bytes
}

fn key(name: &str) -> VerifyingKey {
    VerifyingKey::from_bytes(&read(name, "key.bin")).expect("a key of this version")
}

#[test]
fn golden_proofs_are_accepted() {
    for name in NAMES {
        let statement = Statement::from_bytes(&read(name, "statement.bin")).expect("a statement of this version");
        assert_eq!(statement.to_bytes(), read(name, "statement.bin"));
        assert_eq!(key(name).to_bytes(), read(name, "key.bin"));
        assert_eq!(verify(&key(name), &statement, &read(name, "proof.bin")), Ok(()), "{name}");
    }
}

#[test]
fn keys_of_other_versions_are_refused() {
    for version in *b"012346789" {
        let mut bytes = read("dense", "key.bin");
        assert_eq!(std::mem::replace(&mut bytes[7], version), b'5');
        let refused = VerifyingKey::from_bytes(&bytes).err().map(|e| e.to_string());
        assert!(refused.as_deref().is_some_and(|why| why.contains("not a key of this version")), "{refused:?}");
    }
}

#[test]
fn forged_proofs_stay_refused() {
    for name in NAMES {
        let (forged, honest) = (read(name, "forged-statement.bin"), read(name, "statement.bin"));
        let different = forged.iter().zip(&honest).filter(|(a, b)| a != b).count();
        assert_eq!((forged.len(), different), (honest.len(), 1), "one output byte");
        let statement = Statement::from_bytes(&forged).expect("a statement of this version");
        let reason = if name.ends_with("-zk") { EQUATIONS } else { "GKR layer" };
        assert_eq!(verify(&key(name), &statement, &read(name, "forged-proof.bin")), Err(Reject::Equation(reason)), "{name}");
        assert!(verify(&key(name), &statement, &read(name, "proof.bin")).is_err());
    }
}

#[test]
fn a_golden_registration_and_a_golden_link_are_accepted() {
    let linked = || VerifyingKey::from_bytes(&read("private", "linked-key.bin")).expect("a key of this version");
    let (owner, other) = (key("private"), linked());
    assert_eq!((owner.to_bytes(), other.to_bytes()), (read("private", "key.bin"), read("private", "linked-key.bin")));
    assert_eq!(owner.digest(), other.digest(), "one model");
    let (registration, link) = (read("private", "registration.bin"), read("private", "link.bin"));
    assert!(!other.is_registered() && !other.is_linked());
    other.admit(&verify_registration(&owner, &registration).expect("a registration of this version"));
    other.admit_link(&verify_link(&owner, &[&other], &link).expect("a link of this version"));
    assert!(other.is_registered() && other.is_linked());
    assert!(verify_registration(&owner, &link).is_err() && verify_link(&owner, &[&other], &registration).is_err());
    assert!(verify_registration(&other, &registration).is_err(), "of the registered commitment only");
    for (proof, is_link) in [(&registration, false), (&link, true)] {
        for at in [0, 40, proof.len() / 2, proof.len() - 1] {
            let mut changed = proof.clone();
            changed[at] ^= 1;
            let refused =
                if is_link { verify_link(&owner, &[&linked()], &changed).err() } else { verify_registration(&owner, &changed).err() };
            assert!(refused.is_some(), "bit {at}");
        }
    }
}

#[test]
fn the_prover_still_makes_them() {
    for (file, bytes) in golden::private() {
        assert!(bytes == read("private", file), "private/{file} is another one");
    }

    for g in golden::all() {
        for (file, bytes) in g.files() {
            assert!(bytes == read(g.name, file), "{}/{file} is another one", g.name);
        }
    }
}
