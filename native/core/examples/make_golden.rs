//! Makes the golden proofs and the fuzzer's seeds again: `cargo run -p nexus-edge-core --example make_golden`, from `native/`.
//!
//! Only for a change of a format or of the protocol, with its version. A diff of these files that nobody meant is a broken format.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../tests/support/golden.rs"]
mod golden;
#[path = "../tests/support/mod.rs"]
mod support;

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder).expect("the repository is writable");
    fs::write(folder.join(name), bytes).expect("the repository is writable");
    println!("{:>8} bytes  {}", bytes.len(), folder.join(name).display());
}

fn main() {
    let native = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for g in golden::all() {
        let folder = native.join("core/tests/golden").join(g.name);
        for (name, bytes) in g.files() {
            write(&folder, name, &bytes);
        }
    }
    let private = golden::private();
    for (name, bytes) in &private {
        write(&native.join("core/tests/golden/private"), name, bytes);
    }
    let dense = golden::dense();
    let pair = |statement: &[u8], proof: &[u8]| [&(statement.len() as u32).to_le_bytes(), statement, proof].concat();
    let corpus = native.join("fuzz/corpus");
    for (name, bytes) in [
        ("honest", pair(&dense.statement, &dense.proof)),
        ("forged", pair(&dense.forged.0, &dense.forged.1)),
        ("truncated", pair(&dense.statement, &dense.proof[..dense.proof.len() / 2])),
        ("no-proof", pair(&dense.statement, &[])),
        ("half-statement", pair(&dense.statement[..dense.statement.len() / 2], &dense.proof[..64])),
        ("empty", Vec::new()),
    ] {
        write(&corpus.join("verify"), name, &bytes);
    }
    let mut keys: Vec<(String, Vec<u8>)> = vec![("dense".into(), dense.key.clone()), ("truncated".into(), dense.key[..100].to_vec())];
    keys.extend(golden::small_keys().into_iter().map(|(name, bytes)| (name.into(), bytes)));
    keys.extend(
        private
            .into_iter()
            .filter(|(name, _)| name.ends_with("key.bin"))
            .map(|(name, bytes)| (format!("private-{}", &name[..name.len() - 4]), bytes)),
    );
    for (name, bytes) in keys {
        write(&corpus.join("key"), &name, &bytes);
    }
    // A golden file by number, then an offset and what is added to the byte there.
    for file in 0..5u8 {
        for (name, changes) in [("same", &[][..]), ("first", &[0, 0, 0, 0, 1]), ("inside", &[133, 0, 0, 0, 128])] {
            write(&corpus.join("changed"), &format!("{name}-{file}"), &[&[file], changes].concat());
        }
    }
}
