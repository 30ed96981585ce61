//! A proof is of one statement: each item changed alone after proving, and proofs of other statements, models, forms and parameter sets.

use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::DType;
use nexus_edge_core::proof::{Content, Request, Statement, prove, verify};
use nexus_edge_core::random::Seed;
use nexus_edge_core::reject::Reject;

use crate::forge::Victim;
use crate::support::{self, Random};

const FORMS: [[bool; 2]; 4] = [[true, false], [false, false], [true, true], [false, true]];

fn made(victim: &Victim, mode: Mode, committed: &[bool], x: &[i16], context: [u8; 32]) -> (Statement, Vec<u8>) {
    let request = Request { inputs: vec![x], context, committed: committed.to_vec(), ..Request::default() };
    let made = prove(victim.in_mode(mode), &victim.executor, &request, &mut |_, _| true).expect("honest");
    (made.statement, made.proof)
}

/// Refused by an equation, not by the statement's shape: the item is in the transcript.
fn is_bound(victim: &Victim, mode: Mode, statement: &Statement, proof: &[u8]) -> bool {
    let verdict = verify(&victim.in_mode(mode).verifying, statement, proof);
    matches!(verdict, Err(Reject::Equation(_) | Reject::Row { .. } | Reject::Merkle { .. } | Reject::NotCanonical { .. }))
}

#[test]
fn every_item_of_a_statement_is_bound() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in Victim::each(support::dense(1, 20, 7), false) {
            let x = Random(3).int8(20);
            for committed in FORMS {
                let (statement, proof) = made(&victim, mode, &committed, &x, [5; 32]);
                let changed = |f: &dyn Fn(&mut Statement)| {
                    let mut s = statement.clone();
                    f(&mut s);
                    assert_ne!(s, statement);
                    s
                };
                for byte in 0..32 {
                    assert!(is_bound(&victim, mode, &changed(&|s| s.context[byte] ^= 1 << (byte % 8)), &proof));
                    let other = changed(&|s| s.digest[byte] ^= 1 << (byte % 8));
                    assert!(matches!(verify(&victim.in_mode(mode).verifying, &other, &proof), Err(Reject::Statement(_))));
                }
                for port in 0..2 {
                    let length = match &statement.tensors[port].content {
                        Content::Clear(b) => b.len(),
                        Content::Committed(_) => 32,
                    };
                    for byte in 0..length {
                        let other = changed(&|s| match &mut s.tensors[port].content {
                            Content::Clear(b) => b[byte] ^= 1,
                            Content::Committed(c) => c[byte] ^= 1,
                        });
                        match other.tensors[port].content {
                            Content::Clear(_) => assert!(is_bound(&victim, mode, &other, &proof)),
                            Content::Committed(_) => {
                                assert!(matches!(verify(&victim.in_mode(mode).verifying, &other, &proof), Err(Reject::Statement(_))))
                            }
                        }
                    }
                    let shapes: [&dyn Fn(&mut Statement); 4] = [
                        &|s| s.tensors[port].dtype = DType::UInt8,
                        &|s| s.tensors[port].dims.reverse(),
                        &|s| s.tensors[port].dims.push(1),
                        &|s| {
                            s.tensors[port].dims.remove(0);
                        },
                    ];
                    for change in shapes {
                        let other = changed(change);
                        assert!(matches!(verify(&victim.in_mode(mode).verifying, &other, &proof), Err(Reject::Statement(_))));
                    }
                }
                let swapped = changed(&|s| s.tensors.swap(0, 1));
                assert!(matches!(verify(&victim.in_mode(mode).verifying, &swapped, &proof), Err(Reject::Statement(_))));
            }
        }
    }
}

#[test]
fn a_proof_of_one_form_is_none_of_another() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in Victim::each(support::dense(1, 20, 7), false) {
            let x = Random(3).int8(20);
            let all = FORMS.map(|form| made(&victim, mode, &form, &x, [5; 32]));
            for (i, (_, proof)) in all.iter().enumerate() {
                for (j, (statement, _)) in all.iter().enumerate() {
                    assert_eq!(verify(&victim.in_mode(mode).verifying, statement, proof).is_ok(), i == j, "proof {i}, statement {j}");
                }
            }
        }
    }
}

#[test]
fn a_proof_serves_one_context_and_one_input() {
    for mode in [Mode::Plain, Mode::Zk] {
        for victim in Victim::each(support::dense(1, 20, 7), true) {
            let (x, y) = (Random(3).int8(20), Random(4).int8(20));
            let all: Vec<_> =
                [(&x, [1; 32]), (&x, [2; 32]), (&y, [1; 32])].into_iter().map(|(x, c)| made(&victim, mode, &[true, false], x, c)).collect();
            for (i, (_, proof)) in all.iter().enumerate() {
                for (j, (statement, _)) in all.iter().enumerate() {
                    assert_eq!(verify(&victim.in_mode(mode).verifying, statement, proof).is_ok(), i == j);
                }
            }
        }
    }
}

#[test]
fn a_proof_is_of_one_model_parameter_set_and_kind_of_key() {
    for mode in [Mode::Plain, Mode::Zk] {
        let (a, b) = (support::dense_with(1, 20, 7, 9), support::dense_with(2, 20, 7, 9));
        let mut keys: Vec<Victim> = [(&a, false, 100), (&a, true, 100), (&a, false, 128), (&b, false, 100), (&b, true, 100)]
            .into_iter()
            .map(|(net, inside, security)| Victim::with_security(net.clone(), inside, security))
            .collect();
        keys.extend([&a, &b].map(|net| Victim::private(net.clone())));
        let x = Random(3).int8(20);
        for (i, prover) in keys.iter().enumerate() {
            let (mut statement, proof) = made(prover, mode, &[true, false], &x, [5; 32]);
            for (j, verifier) in keys.iter().enumerate() {
                statement.digest = prover.in_mode(mode).verifying.digest();
                let verdict = verify(&verifier.in_mode(mode).verifying, &statement, &proof);
                assert!(if i == j { verdict.is_ok() } else { matches!(verdict, Err(Reject::Statement(_))) });
                // Under the other's name it fails too.
                statement.digest = verifier.in_mode(mode).verifying.digest();
                assert_eq!(verify(&verifier.in_mode(mode).verifying, &statement, &proof).is_ok(), i == j);
            }
        }
    }
}

/// The commitment of a tensor binds its shape, type and quantisation: the same cells under another description are another tensor.
#[test]
fn a_tensor_commitment_is_of_one_description() {
    let x = Random(3).int8(20);
    let commitment_in = |mode: Mode, seed: u8, change: &dyn Fn(&mut nexus_edge_core::program::Tensor)| {
        let (program, _) = support::dense(1, 20, 7);
        let victim = Victim::new(support::dense(1, 20, 7), true);
        let mut tensor = program.tensors[0].clone();
        change(&mut tensor);
        let values: Vec<_> = x.iter().map(|&v| nexus_edge_core::field::from_i64(v.into())).collect();
        let oracle = nexus_edge_core::proof::Compiled::commit_tensor(
            victim.in_mode(mode).verifying.parameters(),
            &tensor,
            &values,
            &Seed::from_bytes([seed; 32]),
        );
        nexus_edge_core::proof::tensor_commitment(&oracle.root, &tensor, victim.in_mode(mode).verifying.parameters())
    };
    let commitment = |change: &dyn Fn(&mut nexus_edge_core::program::Tensor)| commitment_in(Mode::Zk, 1, change);
    // A commitment is of one mode, and hiding ones of the same array are many.
    assert_ne!(commitment(&|_| ()), commitment_in(Mode::Plain, 1, &|_| ()));
    assert_ne!(commitment(&|_| ()), commitment_in(Mode::Zk, 2, &|_| ()));
    assert_eq!(commitment_in(Mode::Plain, 1, &|_| ()), commitment_in(Mode::Plain, 2, &|_| ()));
    let all = [
        commitment(&|_| ()),
        commitment(&|t| t.dims = vec![1, 1, 20]),
        commitment(&|t| t.dims = vec![20, 1]),
        commitment(&|t| t.dims = vec![4, 5]),
        commitment(&|t| t.dtype = DType::UInt8),
        commitment(&|t| t.scale = None),
        commitment(&|t| t.scale = Some(1.0f32.to_bits())),
        commitment(&|t| t.zero_point += 1),
    ];
    for i in 0..all.len() {
        assert!(!all[..i].contains(&all[i]), "description {i}");
    }
    // The name is not part of it: one model's output is another's input.
    assert_eq!(all[0], commitment(&|t| t.name = "another".into()));
}

/// One array under two descriptions has two commitments and two budgets: then it must have two roots, or rows of one oracle could be opened
/// twice as often as is safe.
#[test]
fn hiding_commitments_under_two_descriptions_share_no_cell() {
    let victim = Victim::new(support::dense(1, 20, 7), true);
    let values: Vec<_> = Random(3).int8(20).iter().map(|&v| nexus_edge_core::field::from_i64(v.into())).collect();
    let root = |mode: Mode, zero_point: i32| {
        let mut tensor = victim.program().tensors[0].clone();
        tensor.zero_point = zero_point;
        let parameters = victim.in_mode(mode).verifying.parameters();
        nexus_edge_core::proof::Compiled::commit_tensor(parameters, &tensor, &values, &Seed::from_bytes([1; 32])).root
    };
    assert_eq!(root(Mode::Plain, 3), root(Mode::Plain, 4), "nothing is random there");
    assert_ne!(root(Mode::Zk, 3), root(Mode::Zk, 4));
    assert_eq!(root(Mode::Zk, 3), root(Mode::Zk, 3));
}
