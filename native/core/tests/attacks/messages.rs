//! Attacks on multiplicities, on single messages, and on the order and length of the proof.

use nexus_edge_core::field::P;
use nexus_edge_core::layout::{Source, TableKind};
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::DType;
use nexus_edge_core::proof::verify;
use nexus_edge_core::prover::witness::count;
use nexus_edge_core::reject::{Reject, Verdict};

use crate::forge::{LOOKUPS, Victim, uses};
use crate::support::{self, Random};

fn victims() -> [Victim; 2] {
    Victim::each(support::dense(1, 20, 7), false)
}

fn input() -> Vec<i16> {
    Random(3).int8(20)
}

#[test]
fn forged_multiplicities() {
    for victim in victims() {
        let f = victim.forge(&[&input()]);
        let used = f.trace.tensors[0][0];
        for (row, by) in [(used + 128, 1), (used + 128, -1), (used + 128, -100), (0, 1), (0, -1)] {
            let f = f.copy().with(|f| f.miscount(TableKind::DType(DType::Int8), row as usize, by));
            assert_eq!(f.outcome(), LOOKUPS);
        }
        // One more in one row, one less in another.
        let f = f.copy().with(|f| {
            f.miscount(TableKind::Range, 0, 1);
            f.miscount(TableKind::Range, 1, -1);
        });
        assert_eq!(f.outcome(), LOOKUPS);
        // The same row number of another table.
        let f = f.copy().with(|f| {
            f.miscount(TableKind::Range, 0, -1);
            f.miscount(TableKind::Range, 1, 1);
            f.miscount(TableKind::Range, 3, 1);
            f.miscount(TableKind::DType(DType::Int8), 3, -1);
        });
        assert_eq!(f.outcome(), LOOKUPS);
    }
}

/// Without the table and its lookups on both sides nothing is left that its multiplicities stand in, and any pass: it is the sum of the
/// table's fractions that stops them.
#[test]
fn multiplicities_are_stopped_by_the_fractions_of_their_table() {
    for victim in victims() {
        for (kind, row, by) in [(TableKind::Range, 3, 1), (TableKind::Range, 0, -1), (TableKind::DType(DType::Int8), 200, 7)] {
            let mut f = victim.forge(&[&input()]);
            let table = f.layout.tables.iter().position(|t| t.kind == kind).expect("a table");
            let multiplicities = f.layout.tables[table].multiplicities;
            f.miscount(kind.clone(), row, by);
            assert_eq!(f.outcome(), LOOKUPS);
            // Nothing counts the multiplicities of a table that is not there.
            count(&f.layout, &mut f.witness);
            f.bump(multiplicities, row, by);
            let verdict = f.against(|layout| {
                layout.tables.remove(table);
                layout.lookups.retain(|k| k.table != table);
                layout.lookups.iter_mut().filter(|k| k.table > table).for_each(|k| k.table -= 1);
            });
            assert_eq!(verdict, Ok(()), "{kind:?} row {row} {by:+}");
        }
    }
}

#[test]
fn one_lookup_left_out() {
    for victim in victims() {
        let honest = victim.forge(&[&input()]);
        for at in 0..honest.layout.lookups.len() {
            let mut f = honest.copy();
            let lookup = f.layout.lookups.remove(at);
            assert!(f.outcome().is_err(), "lookup {at} is not needed");
            // Counted as if it were there, it does not help either.
            assert!(f.uncounted().outcome().is_err(), "{lookup:?}");
        }
        assert!(honest.layout.lookups.iter().any(|k| k.entries.iter().flatten().any(|t| matches!(t.source, Source::Accumulator(_)))));
        assert!(honest.groups("y").iter().all(|g| honest.layout.lookups.iter().any(|k| uses(k, g.cells.y))));
    }
}

/// Adds 1 to the first coordinate of element `at`.
fn add_one(bytes: &mut [u8], at: usize) {
    let at = at * 8;
    let x = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    bytes[at..at + 8].copy_from_slice(&((x + 1) % P).to_le_bytes());
}

#[test]
fn every_message_is_bound_by_an_equation() {
    for victim in victims() {
        let f = victim.forge(&[&input()]);
        let expected: [(&str, &str, usize); 9] = [
            ("root", "GKR layer", 1),
            ("gkr round", "GKR layer", 10),
            ("gkr layer", "GKR layer", 5),
            ("contraction total", "contraction sumcheck", 1),
            ("contraction round", "contraction sumcheck", 4),
            ("folded factors", "contraction sumcheck", 1),
            ("opening round", "opening sumcheck", 8),
            ("opening value", "opening sumcheck", 1),
            ("combined polynomial", "value of the combined polynomial", 1),
        ];
        for (label, equation, occurrences) in expected {
            for occurrence in 0..occurrences {
                // Both halves of the message: each element counts.
                for half in [0, 1] {
                    let verdict = f.tampered(label, move |seen, bytes| {
                        if seen == occurrence {
                            add_one(bytes, if half == 0 { 0 } else { bytes.len() / 8 - 1 });
                        }
                    });
                    assert_eq!(verdict, Err(Reject::Equation(equation)), "{label} {occurrence} {half}");
                }
            }
        }
        // The last layer's claims are not checked by the tree itself: the committed cells tell.
        let last = f.tampered("gkr layer", |_, bytes| bytes.copy_within(0..16, 32));
        assert_eq!(last, Err(Reject::Equation("GKR layer")));
    }
}

#[test]
fn a_root_of_zero() {
    for victim in victims() {
        let f = victim.forge(&[&input()]);
        assert_eq!(f.tampered("root", |_, bytes| bytes.fill(0)), LOOKUPS);
        // All layers zero as well: then the claims on the leaves are wrong.
        let zeros: Verdict<()> = {
            let mut forged = f.copy();
            forged.bump(f.storage("x"), 0, 0);
            forged.tampered("gkr layer", |_, bytes| bytes.fill(0))
        };
        assert_eq!(zeros, LOOKUPS);
    }
}

/// A model large enough for the inner argument: its oracle has more than 2^12 rows.
fn large() -> [Victim; 2] {
    Victim::each(support::dense_with(5, 700, 400, 11), false)
}

#[test]
fn every_message_of_the_inner_argument_is_bound() {
    for victim in large() {
        let f = victim.forge(&[&Random(5).int8(700)]);
        assert_eq!(f.outcome(), Ok(()));
        for (label, reasons) in [
            ("combined root", &[Reject::Merkle { oracle: "folding" }][..]),
            ("folding round", &[Reject::Equation("folded claim"), Reject::Row { oracle: "folding" }]),
            ("folding polynomial", &[Reject::Row { oracle: "folding" }]),
        ] {
            for element in [0, 1] {
                let verdict = f.tampered(label, move |seen, bytes| {
                    if seen == 0 {
                        add_one(bytes, element);
                    }
                });
                assert!(verdict.as_ref().is_err_and(|e| reasons.contains(e)), "{label}: {verdict:?}");
            }
        }
    }
}

#[test]
fn elements_that_are_not_canonical() {
    for victim in victims() {
        let f = victim.forge(&[&input()]);
        for label in [
            "root",
            "gkr round",
            "gkr layer",
            "contraction total",
            "contraction round",
            "folded factors",
            "opening round",
            "opening value",
            "combined polynomial",
        ] {
            for value in [P, P + 1, u64::MAX] {
                let verdict = f.tampered(label, move |_, bytes| bytes[8..16].copy_from_slice(&value.to_le_bytes()));
                assert_eq!(verdict, Err(Reject::NotCanonical { at: label }));
            }
        }
        // In opened rows: a zero written as p.
        let (statement, proof) = f.proof(Mode::Plain);
        let zeros: Vec<usize> = (0..proof.len() / 8).map(|i| i * 8).filter(|&i| proof[i..i + 8] == [0; 8]).collect();
        assert!(zeros.len() > 100, "rows have zeros where columns are padded");
        for &at in zeros.iter().step_by(zeros.len() / 20) {
            let mut bad = proof.clone();
            bad[at..at + 8].copy_from_slice(&P.to_le_bytes());
            let verdict = verify(&victim.key.verifying, &statement, &bad);
            assert!(matches!(verdict, Err(Reject::NotCanonical { .. })), "{at}: {verdict:?}");
        }
    }
}

#[test]
fn truncated_extended_and_reordered() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in victims() {
            let (statement, proof) = victim.forge(&[&input()]).proof(mode);
            let check = |bytes: &[u8]| verify(&victim.in_mode(mode).verifying, &statement, bytes);
            assert_eq!(check(&proof), Ok(()));
            for length in (0..proof.len()).step_by(proof.len() / 300) {
                assert!(matches!(check(&proof[..length]), Err(Reject::Truncated { .. } | Reject::Statement(_))), "{length}");
            }
            for extra in [1, 8, 32, 1000] {
                assert_eq!(check(&[&proof[..], &vec![0; extra]].concat()), Err(Reject::Trailing { extra }));
            }
            // Messages in another order, a proof twice, two proofs' halves.
            for (a, b) in [(64, 80), (96, 160), (1000, 1064), (proof.len() - 64, proof.len())] {
                let mut bad = proof.clone();
                bad[a..b].rotate_left(8);
                assert_ne!(bad, proof);
                assert!(check(&bad).is_err());
            }
            assert_eq!(check(&proof.repeat(2)), Err(Reject::Trailing { extra: proof.len() }));
            let (_, other) = victim.forge(&[&Random(4).int8(20)]).proof(mode);
            for at in (64..proof.len().min(other.len())).step_by(proof.len() / 50) {
                assert!(check(&[&proof[..at], &other[at..]].concat()).is_err());
            }
        }
    }
}
