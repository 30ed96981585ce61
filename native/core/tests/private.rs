//! Private models: a program that says nothing about its weights, honest proofs under it, registrations and links.

mod support;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::builder::Bounds;
use nexus_edge_core::program::check::{CheckedProgram, load};
use nexus_edge_core::program::error::Fault;
use nexus_edge_core::program::{Constant, Op, PrivateForm, Program, Rescale, Rule, Weights};
use nexus_edge_core::proof::{
    KeyError, ProvingKey, Request, VerifyingKey, link, prove, register, verify, verify_link, verify_registration,
};
use nexus_edge_core::random::Seed;
use proptest::prelude::*;
use support::{Random, everything_with_weights};

fn private(weights: u64, bounds: Bounds) -> (CheckedProgram, Weights) {
    let mut b = everything_with_weights(3, weights);
    b.private(bounds);
    b.finish(None).expect("a valid program")
}

#[test]
fn two_models_of_one_shape_are_one_program() {
    let ((a, one), (b, other)) = (private(1, Bounds::Default), private(2, Bounds::Default));
    assert_ne!(one, other);
    assert_eq!(a.to_bytes(), b.to_bytes());
    // The public programs of the same weights differ.
    let public = |weights| everything_with_weights(3, weights).finish(None).expect("a valid program").0.to_bytes();
    assert_ne!(public(1), public(2));
    assert_ne!(public(1), a.to_bytes());
}

#[test]
fn bytes_are_canonical_and_enough() {
    let (program, weights) = private(1, Bounds::Default);
    let bytes = program.to_bytes();
    let read = Program::from_bytes(&bytes).expect("own bytes");
    assert_eq!(load(read, None).expect("nothing follows from weights"), program);
    assert!(load(Program::clone(&program), Some(&weights)).is_ok());
    assert!(Program::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(Program::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    // The public form has no room for bounds, the private one no program without.
    let mut public = bytes.clone();
    public[6] = 1;
    assert!(Program::from_bytes(&public).is_err());
    let form = program.private.as_ref().expect("private");
    let convolutions = program.ops.iter().filter(|op| matches!(op, Op::Contract { contract, .. } if contract.has_weights())).count();
    assert_eq!(form.log_bounds.iter().filter(|&&b| b > 0).count(), convolutions);
    assert!(form.log_bounds.contains(&0), "a sum or a mix");
}

#[test]
fn owners_choose_their_bounds() {
    assert_eq!(private(1, Bounds::All(15)).0.private.as_ref().expect("private").log_bounds.iter().max(), Some(&15));
    let layers = private(1, Bounds::Default).0.private.as_ref().expect("private").log_bounds.iter().filter(|&&b| b > 0).count();
    let each: Vec<u8> = (0..layers).map(|i| 14 + i as u8).collect();
    let (program, _) = private(1, Bounds::Each(each.clone()));
    assert_eq!(program.private.as_ref().expect("private").log_bounds.iter().filter(|b| **b > 0).copied().collect::<Vec<_>>(), each);
    let refused = |bounds: Bounds| {
        let mut b = everything_with_weights(3, 1);
        b.private(bounds);
        b.finish(None).expect_err("refused").fault
    };
    assert_eq!(refused(Bounds::Each(vec![14])), Fault::Limit);
    assert_eq!(refused(Bounds::All(7)), Fault::Limit);
    assert_eq!(refused(Bounds::All(24)), Fault::Limit);
    assert_eq!(refused(Bounds::All(8)), Fault::Weights, "these weights reach further");
}

fn first_line(p: &mut Program) -> &mut Rescale {
    let found = p.ops.iter_mut().find_map(|op| if let Op::Rescale(r) = op { Some(r) } else { None });
    found.expect("a rescale")
}

type Change = fn(&mut Program);

/// Every line is one fault; each must be refused for its own reason, without weights.
const CHANGES: &[(&str, Fault, Change)] = &[
    ("a bound less", Fault::Limit, |p| form(p).pop().map_or((), drop)),
    ("a bound too many", Fault::Limit, |p| form(p).push(0)),
    ("a bound of a sum", Fault::Limit, |p| *form(p).iter_mut().find(|b| **b == 0).expect("a sum") = 14),
    ("no bound of a layer", Fault::Limit, |p| form(p)[0] = 0),
    ("a bound narrower than the dtype", Fault::Limit, |p| form(p)[0] = 7),
    ("a bound wider than any table", Fault::Limit, |p| form(p)[0] = 24),
    ("wide weights", Fault::Weights, |p| p.constants[0].range = (-255, 255)),
    ("narrow weights", Fault::Weights, |p| p.constants[0].range = (-127, 127)),
    ("narrow biases", Fault::Weights, |p| p.constants[1].range = (-900, 900)),
    ("an interval", Fault::Line, |p| {
        let Rule::Line { low, .. } = &mut first_line(p).rules[0] else { panic!("a line") };
        *low += 1;
    }),
    ("a constant channel", Fault::Line, |p| first_line(p).rules[0] = Rule::Constant(3)),
    ("another line", Fault::Line, |p| {
        let Rule::Line { line, .. } = &mut first_line(p).rules[0] else { panic!("a line") };
        line.b_pos += line.d;
    }),
    ("short sign rows", Fault::Table, |p| p.sign_rows.1 -= 2),
    ("the public form", Fault::Table, |p| p.private = None),
];

fn form(p: &mut Program) -> &mut Vec<u8> {
    &mut p.private.as_mut().expect("private").log_bounds
}

#[test]
fn every_fault_is_refused_for_its_reason() {
    let (program, _) = private(1, Bounds::Default);
    let missed = CHANGES.iter().filter_map(|(name, fault, change)| {
        let mut p = Program::clone(&program);
        change(&mut p);
        let got = load(p, None).err();
        (got.as_ref().map(|e| e.fault) != Some(*fault)).then(|| format!("{name}: wants {fault:?}, got {got:?}"))
    });
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_model_without_weights_has_nothing_private() {
    let mut b = support::everything_with_weights(3, 1);
    b.private(Bounds::Default);
    let (uint8, weights) = support::uint8_head();
    let p = Program { private: Some(PrivateForm { log_bounds: vec![] }), ..Program::clone(&uint8) };
    assert_eq!(load(p, Some(&weights)).expect_err("no weights").fault, Fault::Weights);
    let (program, _) = private(1, Bounds::Default);
    assert!(program.constants.iter().all(|c: &Constant| c.range == (-128, 127) || c.range == (i32::MIN, i32::MAX)));
}

#[test]
fn private_and_public_programs_compute_the_same() {
    let mut random = Random(9);
    for weights in 1..4 {
        let (program, values) = private(weights, Bounds::Default);
        let (public, same) = everything_with_weights(3, weights).finish(None).expect("a valid program");
        assert_eq!(values, same);
        for _ in 0..20 {
            let x = random.int8(7 * 6 * 3);
            let out = program.outputs[0].tensor;
            assert_eq!(support::run(&program, &values, &[&x]).tensor(out), support::run(&public, &same, &[&x]).tensor(out));
        }
    }
}

#[test]
fn a_private_model_is_registered_linked_and_proved() {
    for (security, mode) in [(100, Mode::Zk), (128, Mode::Zk), (100, Mode::Plain)] {
        let (program, weights) = private(1, Bounds::Default);
        let key = ProvingKey::new(Program::clone(&program), weights.clone(), false, security, mode).expect("provable");
        let read = |key: &ProvingKey| VerifyingKey::from_bytes(&key.verifying.to_bytes()).expect("own key");
        let registered = verify_registration(&read(&key), &register(&key, &mut |_, _| true).expect("private").proof).expect("honest");
        let mut keys = vec![key];
        if mode == Mode::Zk {
            let fresh = [1, 2].map(|seed| keys[0].committed_again(Seed::from_bytes([seed; 32])).expect("private"));
            let proof = link(&keys[0], &fresh.each_ref(), &mut |_, _| true).expect("one model").proof;
            let linked = verify_link(&read(&keys[0]), &fresh.each_ref().map(|k| &*k.verifying), &proof).expect("honest");
            fresh.iter().for_each(|key| key.verifying.admit_link(&linked));
            keys.extend(fresh);
        }
        for key in keys {
            key.verifying.admit(&registered);
            let executor = Executor::new(key.verifying.program().clone(), &weights).expect("weights fit");
            let x = Random(5).int8(7 * 6 * 3);
            for committed in [vec![true, false], vec![false, true]] {
                let request = Request { inputs: vec![&x], context: [9; 32], committed, ..Request::default() };
                let made = prove(&key, &executor, &request, &mut |_, _| true).expect("honest");
                verify(&key.verifying, &made.statement, &made.proof).expect("honest");
            }
        }
    }
}

/// A key of any commitment of a model leads to those of all others, and a commitment is made again from its seed.
#[test]
fn keys_of_one_model_lead_to_each_other() {
    let (program, weights) = private(1, Bounds::Default);
    let seed = |n| Seed::from_bytes([n; 32]);
    let made = |n| ProvingKey::with_seed(Program::clone(&program), weights.clone(), false, 100, Mode::Zk, Some(seed(n))).expect("provable");
    let key = made(1);
    let again = key.committed_again(seed(2)).expect("private");
    let (first, second) = (key.verifying.to_bytes(), again.verifying.to_bytes());
    let root = |key: &VerifyingKey| key.weights().root().expect("committed");
    assert_eq!(again.verifying.registered_key().expect("own root").to_bytes(), first);
    assert_eq!(key.verifying.linked_key(root(&again.verifying)).expect("private").to_bytes(), second);
    assert_eq!(made(2).linked_to(root(&key.verifying)).expect("private").verifying.to_bytes(), second);
    assert!(made(2).linked_to(root(&key.verifying)).expect("private").linked_to([0; 32]).is_err(), "linked already");
    // The same commitment once more would count its openings twice.
    assert!(key.committed_again(seed(1)).is_err() && key.verifying.linked_key(root(&key.verifying)).is_err());
    assert!(made(1).linked_to(root(&key.verifying)).is_err());
    let mut itself = second.clone();
    let at = 8 + 4 + 2 + 8;
    itself.copy_within(at..at + 32, at + 32);
    assert!(matches!(VerifyingKey::from_bytes(&itself), Err(KeyError::Malformed(why)) if why.contains("itself")));
    assert_eq!(again.verifying.digest(), key.verifying.digest());
    assert_eq!((key.verifying.is_registered(), key.verifying.is_linked()), (false, true));
    assert_eq!((again.verifying.is_registered(), again.verifying.is_linked()), (false, false));
    let rows = key.verifying.hiding_layout().expect("provable").expect("hides");
    assert_eq!(register(&key, &mut |_, _| true).expect("private").opened[0].as_ref().expect("hides").budget, rows.budget());

    let (public, weights) = everything_with_weights(3, 1).finish(None).expect("a valid program");
    let public = ProvingKey::new(Program::clone(&public), weights, false, 100, Mode::Zk).expect("provable");
    assert!(public.verifying.linked_key([0; 32]).is_err());
    assert!(public.verifying.hiding_layout().expect("provable").is_none());
    assert!(public.verifying.is_registered() && public.verifying.is_linked());
    assert!(public.linked_to([0; 32]).is_err());
}

#[test]
fn the_prover_can_be_stopped() {
    let (program, weights) = private(1, Bounds::Default);
    let key = ProvingKey::new(Program::clone(&program), weights, false, 100, Mode::Zk).expect("provable");
    for phase in ["witness", "commit", "lookups", "opening"] {
        assert!(register(&key, &mut |at, _| at != phase).is_err(), "{phase}");
    }
}

#[test]
fn an_owner_with_other_weights_has_no_key() {
    let (program, mut weights) = private(1, Bounds::Default);
    weights.values[1][0] = i32::MAX;
    let refused = ProvingKey::new(Program::clone(&program), weights, false, 100, Mode::Zk).err().expect("an overflow");
    assert!(matches!(refused, KeyError::Program(e) if e.fault == Fault::Wrap));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever the weights are, the program is the same.
    #[test]
    fn programs_do_not_depend_on_weights(seed in 1u64..1 << 40) {
        prop_assert_eq!(private(seed, Bounds::Default).0.to_bytes(), private(1, Bounds::Default).0.to_bytes());
    }
}
