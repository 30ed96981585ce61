//! Attacks on what masking could let pass: the line `v = b + e r` and the proof of all equations (design section 8).
//!
//! A forged proof is accepted, as an ablation, where the verifier lacks the one safeguard that the attack tests.

use std::sync::Arc;

use nexus_edge_core::channel::Tamper;
use nexus_edge_core::field::P;
use nexus_edge_core::masking::{Defect, EQUATIONS, Trick};
use nexus_edge_core::proof::{Cheat, Lapse};
use nexus_edge_core::reject::{Reject, Verdict};

use crate::forge::{Forgery, LOOKUPS, Victim};
use crate::support::{self, Random};

const FALSE_EQUATIONS: Verdict<()> = Err(Reject::Equation(EQUATIONS));
const FALSE_LINE: Verdict<()> = Err(Reject::Row { oracle: "line" });
const DEFECTS: [Option<Defect>; 4] = [None, Some(Defect::RowsUnchecked), Some(Defect::PointFirst), Some(Defect::BatchFirst)];

fn victims() -> [Victim; 2] {
    Victim::each(support::dense(1, 20, 7), false)
}

/// An output that is off by one, and claimed: no row of the clamp table, so that the first equation is false, and no other.
fn off_by_one(victim: &Victim) -> Forgery<'_> {
    let mut f = victim.forge(&[&Random(3).int8(20)]);
    let y = f.groups("y")[0].cells.y;
    let at = (0..7).find(|&at| f.get(y, at) < 127).expect("an output below the clamp");
    f.bump(y, at, 1);
    f.claim();
    f
}

fn verdict(f: &Forgery<'_>, trick: Option<Trick>, defect: Option<Defect>) -> Verdict<()> {
    f.masked(Cheat { trick, lapse: Lapse { tape: None, defect }, ..Cheat::default() })
}

/// The verdict when 1 is added to the first coordinate of an element of a message; counted from its end if negative.
fn shifted(f: &Forgery<'_>, label: &'static str, element: isize, defect: Option<Defect>) -> Verdict<()> {
    let tamper: Tamper = Arc::new(move |at, _, bytes| {
        if at == label {
            let elements = bytes.len() as isize / 16;
            let from = 16 * (if element < 0 { elements + element } else { element }) as usize;
            let word = bytes[from..].first_chunk_mut::<8>().expect("an element");
            *word = ((u64::from_le_bytes(*word) + 1) % P).to_le_bytes();
        }
    });
    f.masked(Cheat { tamper: Some(tamper), lapse: Lapse { tape: None, defect }, ..Cheat::default() })
}

#[test]
fn honest_proofs_pass_every_verifier_and_false_equations_pass_none() {
    for victim in victims() {
        let (honest, forged) = (victim.forge(&[&Random(3).int8(20)]), off_by_one(&victim));
        assert_eq!(forged.outcome(), LOOKUPS);
        for defect in DEFECTS {
            assert_eq!(verdict(&honest, None, defect), Ok(()), "{defect:?}");
            assert_eq!(verdict(&forged, None, defect), FALSE_EQUATIONS, "{defect:?}");
        }
    }
}

#[test]
fn another_point_of_the_line() {
    for victim in victims() {
        let f = victim.forge(&[&Random(3).int8(20)]);
        let pads = 162;
        // Coefficients that mask messages, and the line's own constant.
        for element in [0, 1, 50, -(pads + 2), -(pads + 1)] {
            assert_eq!(shifted(&f, "line", element, None), FALSE_EQUATIONS, "coefficient {element}");
        }
        // The random ones are in no equation.
        for element in [-pads, -pads / 2, -1] {
            assert_eq!(shifted(&f, "line", element, None), FALSE_LINE, "coefficient {element}");
            assert_eq!(shifted(&f, "line", element, Some(Defect::RowsUnchecked)), Ok(()), "coefficient {element}");
        }
    }
}

/// Public weights in an oracle of `2^11` rows over a witness of `2^10`: the mask is a stride apart, and rows of the line are rows of the witness.
#[test]
fn a_line_shorter_than_the_weights() {
    let victim = Victim::new(support::dense_with(1, 700, 100, 11), false);
    let compiled = victim.zk.verifying.compiled(&victim.zk.verifying.usual_form()).expect("a layout");
    let lengths: Vec<usize> = compiled.oracles.iter().map(|o| o.log_rows).collect();
    assert!(lengths[0] == 10 && lengths.contains(&11), "{lengths:?}");
    let honest = victim.forge(&[&Random(3).int8(700)]);
    for defect in DEFECTS {
        assert_eq!(verdict(&honest, None, defect), Ok(()), "{defect:?}");
    }
    let pads = 162;
    for element in [0, 50, -(pads + 1)] {
        assert_eq!(shifted(&honest, "line", element, None), FALSE_EQUATIONS, "coefficient {element}");
    }
    for element in [-pads, -1] {
        assert_eq!(shifted(&honest, "line", element, None), FALSE_LINE, "coefficient {element}");
        assert_eq!(shifted(&honest, "line", element, Some(Defect::RowsUnchecked)), Ok(()), "coefficient {element}");
    }
    for element in [0, 1, -1] {
        // A coefficient of the combination beyond the rows is in no equation but those of the opened rows.
        let rows = Err(Reject::Row { oracle: "combined polynomial" });
        assert_eq!(shifted(&honest, "combined pads", element, Some(Defect::RowsUnchecked)), rows, "pad {element}");
        assert_eq!(shifted(&honest, "combined pads", element, None), rows, "pad {element}");
    }
    let mut forged = victim.forge(&[&Random(3).int8(700)]);
    let y = forged.groups("y")[0].cells.y;
    let at = (0..100).find(|&at| forged.get(y, at) < 127).expect("an output below the clamp");
    forged.bump(y, at, 1);
    forged.claim();
    assert_eq!(verdict(&forged, None, None), FALSE_EQUATIONS);
    assert_eq!(verdict(&forged, Some(Trick::OtherMasks), None), FALSE_LINE);
    assert_eq!(verdict(&forged, Some(Trick::OtherMasks), Some(Defect::RowsUnchecked)), Ok(()));
    assert_eq!(verdict(&forged, Some(Trick::SolvedConstant), Some(Defect::PointFirst)), Ok(()));
    assert_eq!(verdict(&forged, Some(Trick::Compensation), Some(Defect::BatchFirst)), Ok(()));
    for trick in [Trick::SolvedConstant, Trick::Compensation] {
        assert_eq!(verdict(&forged, Some(trick), None), FALSE_EQUATIONS);
    }
}

#[test]
fn other_line_constants() {
    for victim in victims() {
        let f = victim.forge(&[&Random(3).int8(20)]);
        for element in [0, 1] {
            assert_eq!(shifted(&f, "line constants", element, None), FALSE_EQUATIONS);
        }
    }
}

/// All equations hold on the messages behind masks that were never committed.
#[test]
fn other_masks_than_committed() {
    for victim in victims() {
        let f = off_by_one(&victim);
        assert_eq!(verdict(&f, Some(Trick::OtherMasks), None), FALSE_LINE);
        assert_eq!(verdict(&f, Some(Trick::OtherMasks), Some(Defect::RowsUnchecked)), Ok(()));
        // An honest prover's masks are the committed ones: there is nothing to move.
        assert_eq!(verdict(&victim.forge(&[&Random(3).int8(20)]), Some(Trick::OtherMasks), None), Ok(()));
    }
}

/// `D0` is what the batch wants at one point.
#[test]
fn a_constant_solved_for_a_guessed_point() {
    for victim in victims() {
        let f = off_by_one(&victim);
        assert_eq!(verdict(&f, Some(Trick::SolvedConstant), None), FALSE_EQUATIONS);
        assert_eq!(verdict(&f, Some(Trick::SolvedConstant), Some(Defect::PointFirst)), Ok(()));
    }
}

/// Two false equations whose sum, with the weights of one batch, is 0.
#[test]
fn equations_that_cancel_for_a_guessed_batch() {
    for victim in victims() {
        let f = off_by_one(&victim);
        assert_eq!(verdict(&f, Some(Trick::Compensation), None), FALSE_EQUATIONS);
        assert_eq!(verdict(&f, Some(Trick::Compensation), Some(Defect::BatchFirst)), Ok(()));
    }
}
