//! Every byte region of a real proof, statement and key flipped, truncated, extended: a typed refusal, never a panic, in bounded time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nexus_edge_core::parameters::Mode;
use nexus_edge_core::proof::{Statement, VerifyingKey, verify};
use nexus_edge_core::reject::Reject;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::forge::Victim;
use crate::support::{self, Random};

/// One refusal may take this long on a busy machine; an honest verification takes a few milliseconds.
const BOUND: Duration = Duration::from_secs(5);

/// Runs on threads of its own: those that all tests share may be busy with another test for longer.
pub fn timed<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    static POOL: LazyLock<ThreadPool> = LazyLock::new(|| ThreadPoolBuilder::new().num_threads(1).build().expect("a thread"));
    let started = Instant::now();
    let out = POOL.install(f);
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    out
}

/// Changes of `bytes`: each of some 600 places flipped in a bit, zeroed and set; pieces cut out, doubled and moved; every length.
pub fn mutations(bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let n = bytes.len();
    let mut out = Vec::new();
    for at in (0..n).step_by((n / 600).max(1)) {
        let at = (at + (random.next() % (n / 600).max(1) as u64) as usize).min(n - 1);
        let changes: [fn(u8, u64) -> u8; 4] = [|b, r| b ^ (1 << (r % 8)), |_, _| 0, |_, _| 255, |b, _| b.wrapping_add(1)];
        for f in changes {
            let mut m = bytes.to_vec();
            m[at] = f(m[at], random.next());
            out.push(m);
        }
    }
    for _ in 0..100 {
        let (a, b) = ((random.next() % n as u64) as usize, (random.next() % n as u64) as usize);
        let (a, b) = (a.min(b), a.max(b));
        out.push([&bytes[..a], &bytes[b..]].concat());
        out.push([&bytes[..b], &bytes[a..]].concat());
        let mut m = bytes.to_vec();
        m[a..b].rotate_left((b - a) / 2);
        out.push(m);
        out.push(bytes[..a].to_vec());
    }
    for extra in [1, 2, 8, 100] {
        out.push([bytes, &vec![0; extra]].concat());
        out.push([bytes, &vec![255; extra]].concat());
    }
    out.retain(|m| m != bytes);
    out
}

#[test]
fn proofs() {
    for mode in [Mode::Plain, Mode::Zk] {
        for (victim, size, form) in [
            (Victim::new(support::dense(1, 20, 7), false), 20, [true, false]),
            (Victim::private(support::dense(1, 20, 7)), 20, [true, false]),
            (Victim::new(support::everything(3, 10), true), 126, [false, true]),
            (Victim::private(support::everything(3, 10)), 126, [false, true]),
        ] {
            let (statement, proof) = victim.forge_form(&form, &[&Random(3).int8(size)]).proof(mode);
            for bad in mutations(&proof, &mut Random(41)).iter().step_by(size / 60 + 1) {
                timed(|| verify(&victim.in_mode(mode).verifying, &statement, bad)).expect_err("a changed proof");
            }
        }
    }
}

/// A proof that goes through the inner argument.
#[test]
fn large_proofs() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in Victim::each(support::dense_with(5, 700, 400, 11), false) {
            let (statement, proof) = victim.forge(&[&Random(3).int8(700)]).proof(mode);
            for bad in mutations(&proof, &mut Random(42)).iter().step_by(4) {
                timed(|| verify(&victim.in_mode(mode).verifying, &statement, bad)).expect_err("a changed proof");
            }
        }
    }
}

#[test]
fn statements() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in Victim::each(support::dense(1, 20, 7), false) {
            for form in [[true, false], [false, true]] {
                let (statement, proof) = victim.forge_form(&form, &[&Random(3).int8(20)]).proof(mode);
                let bytes = statement.to_bytes();
                assert_eq!(Statement::from_bytes(&bytes).as_ref(), Ok(&statement));
                for bad in mutations(&bytes, &mut Random(43)) {
                    match timed(|| Statement::from_bytes(&bad)) {
                        Err(e) => assert!(matches!(e, Reject::Malformed { what: "statement", .. }), "{e}"),
                        Ok(s) => {
                            assert_eq!(s.to_bytes(), bad, "a statement has one encoding");
                            timed(|| verify(&victim.in_mode(mode).verifying, &s, &proof)).expect_err("another statement");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn keys() {
    for mode in [Mode::Plain, Mode::Zk] {
        for (victim, size) in [
            (Victim::new(support::dense(1, 20, 7), false), 20),
            (Victim::new(support::dense(1, 20, 7), true), 20),
            (Victim::new(support::everything(3, 10), true), 126),
            (Victim::private(support::everything(3, 10)), 126),
        ] {
            let (statement, proof) = victim.forge(&[&Random(3).int8(size)]).proof(mode);
            let bytes = victim.in_mode(mode).verifying.to_bytes();
            let mut read = 0;
            for bad in mutations(&bytes, &mut Random(44)) {
                let Ok(key) = timed(|| VerifyingKey::from_bytes(&bad)) else { continue };
                read += 1;
                assert_eq!(key.to_bytes(), bad, "a key has one encoding");
                assert!(matches!(timed(|| verify(&key, &statement, &proof)), Err(Reject::Statement(_))), "it is another key");
            }
            assert!(read > 0, "some changes leave a key: names, roots, scales");
        }
    }
}
