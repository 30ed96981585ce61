//! The fuzz targets without a fuzzer: every corpus file, and some thousand mutations of them.

mod support;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use support::Random;
use support::bounded::bounded;

const TIME: Duration = Duration::from_secs(10);
/// A key of some hundred bytes may be that of a larger program; those of the corpus and its changes become no larger than this.
const MEMORY: usize = 64 << 20;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut out: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a readable folder"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("a readable file")))
        .collect();
    out.sort();
    out
}

/// Integers at which lengths and ranges turn.
const EDGES: [u64; 8] = [0, 1, 127, 255, 1 << 16, (1 << 32) - 1, (1 << 63) - 1, u64::MAX];

/// One to three changes: bits, bytes, integers at an edge, pieces moved within and between files.
fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..=random.next() % 3 {
        if out.is_empty() {
            return out;
        }
        // Half of all changes near the start, where the structure is.
        let reach = if random.next().is_multiple_of(2) { out.len() } else { out.len().min(300) };
        let at = (random.next() % reach as u64) as usize;
        match random.next() % 6 {
            0 => out[at] ^= 1 << (random.next() % 8),
            1 => out[at] = random.next() as u8,
            2 => {
                let width = [1, 2, 4, 8][(random.next() % 4) as usize].min(out.len() - at);
                let edge = EDGES[(random.next() % 8) as usize].wrapping_add(random.next() % 3).to_le_bytes();
                out[at..at + width].copy_from_slice(&edge[..width]);
            }
            3 => drop(out.drain(at..(at + 1 + (random.next() % 16) as usize).min(out.len()))),
            4 => {
                let piece: Vec<u8> = out[at..(at + 1 + (random.next() % 16) as usize).min(out.len())].to_vec();
                out.splice(at..at, piece);
            }
            _ => {
                let from = at.min(other.len());
                let to = (from + 1 + (random.next() % 64) as usize).min(other.len());
                let end = (at + to - from).min(out.len());
                out.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    out
}

fn run(target: &str, f: fn(&[u8]), rounds: usize) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 6, "{target} has seeds");
    let timed = |what: &str, bytes: &[u8]| {
        let outcome = catch_unwind(AssertUnwindSafe(|| bounded(TIME, MEMORY, || f(bytes))));
        assert!(outcome.is_ok(), "{what}");
    };
    corpus.iter().for_each(|(name, bytes)| timed(name, bytes));
    let mut random = Random(51);
    for round in 0..rounds {
        let pick = |random: &mut Random| (random.next() % corpus.len() as u64) as usize;
        let (a, b) = (pick(&mut random), pick(&mut random));
        timed(&format!("{} round {round}", corpus[a].0), &mutate(&corpus[a].1, &corpus[b].1, &mut random));
    }
}

#[test]
fn statements_and_proofs() {
    assert!(corpus("verify").iter().any(|(name, bytes)| name == "honest" && *bytes == targets::honest_pair()));
    run("verify", targets::verify_pair, 20_000);
}

#[test]
fn keys() {
    run("key", targets::read_key, 20_000);
}

#[test]
fn changes_of_golden_files() {
    run("changed", targets::changed, 5_000);
}
