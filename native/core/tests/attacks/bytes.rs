//! Every byte region of a real proof, statement and key flipped, truncated, extended: a typed refusal, never a panic, in bounded time
//! and memory.

use std::time::Duration;

use nexus_edge_core::parameters::Mode;
use nexus_edge_core::proof::{Statement, VerifyingKey, verify};
use nexus_edge_core::reject::Reject;

use crate::forge::Victim;
use crate::support::bounded::{bounded, peak_of};
use crate::support::{self, Random};

/// One refusal may take this long on a busy machine; an honest verification takes a few milliseconds.
const TIME: Duration = Duration::from_secs(5);
/// A changed key may well be one of a larger program; those of these tests, which are of some kilobytes, become no larger than this.
const MEMORY: usize = 64 << 20;

/// `f` in bounded time and memory.
pub fn timed<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    bounded(TIME, MEMORY, f)
}

/// `f`, which reads changed bytes instead of honest ones, in bounded time, and in no more memory than honest ones take: half as much again, and
/// twice what the bytes themselves take.
pub fn cheap<T: Send>(honest: usize, bytes: &[u8], f: impl FnOnce() -> T + Send) -> T {
    bounded(TIME, honest + honest / 2 + 2 * bytes.len(), f)
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

/// The most bytes that verification of an honest proof has at one time, once the key has what it keeps.
fn honest(victim: &Victim, mode: Mode, statement: &Statement, proof: &[u8]) -> usize {
    let verified = || peak_of(|| verify(&victim.in_mode(mode).verifying, statement, proof).expect("honest")).1;
    verified();
    verified()
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
            let honest = honest(&victim, mode, &statement, &proof);
            for bad in mutations(&proof, &mut Random(41)).iter().step_by(size / 60 + 1) {
                cheap(honest, bad, || verify(&victim.in_mode(mode).verifying, &statement, bad)).expect_err("a changed proof");
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
            let honest = honest(&victim, mode, &statement, &proof);
            for bad in mutations(&proof, &mut Random(42)).iter().step_by(4) {
                cheap(honest, bad, || verify(&victim.in_mode(mode).verifying, &statement, bad)).expect_err("a changed proof");
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
                let honest = honest(&victim, mode, &statement, &proof);
                assert_eq!(Statement::from_bytes(&bytes).as_ref(), Ok(&statement));
                for bad in mutations(&bytes, &mut Random(43)) {
                    match cheap(bytes.len(), &bad, || Statement::from_bytes(&bad)) {
                        Err(e) => assert!(matches!(e, Reject::Malformed { what: "statement", .. }), "{e}"),
                        Ok(s) => {
                            assert_eq!(s.to_bytes(), bad, "a statement has one encoding");
                            cheap(honest, &bad, || verify(&victim.in_mode(mode).verifying, &s, &proof)).expect_err("another statement");
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
            let honest = &victim.in_mode(mode).verifying;
            let bytes = honest.to_bytes();
            let mut read = 0;
            for bad in mutations(&bytes, &mut Random(44)) {
                let Ok(key) = timed(|| VerifyingKey::from_bytes(&bad)) else { continue };
                read += 1;
                assert_eq!(key.to_bytes(), bad, "a key has one encoding");
                let verdict = timed(|| verify(&key, &statement, &proof));
                match key.unnamed_bytes() == honest.unnamed_bytes() {
                    true => assert_eq!(verdict, Ok(()), "a name is for people"),
                    false => assert!(matches!(verdict, Err(Reject::Statement(_))), "it is another key"),
                }
            }
            assert!(read > 0, "some changes leave a key: names, roots, scales");
        }
    }
}
