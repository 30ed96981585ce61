//! Honest proofs end to end: every operator, both kinds of key, both parameter sets, clear and committed statement tensors.

mod support;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{Program, Weights};
use nexus_edge_core::proof::{Content, Made, ProvingKey, Request, Statement, VerifyingKey, prove, verify};
use nexus_edge_core::reject::Reject;

fn key(program: &CheckedProgram, weights: &Weights, inside: bool, security: u32, mode: Mode) -> (ProvingKey, Executor) {
    let key = ProvingKey::new(Program::clone(program), weights.clone(), inside, security, mode).expect("provable");
    let executor = Executor::new(key.verifying.program().clone(), weights).expect("weights fit");
    (key, executor)
}

fn make(key: &(ProvingKey, Executor), inputs: Vec<&[i16]>, committed: Vec<bool>) -> Made {
    let request = Request { inputs, context: [9; 32], committed, ..Request::default() };
    prove(&key.0, &key.1, &request, &mut |_, _| true).expect("honest")
}

#[test]
fn every_operator_proves_in_every_form() {
    let mut random = support::Random(5);
    let kinds = [(10, false, 100), (12, true, 100), (9, false, 128), (16, true, 128)];
    for ((range_bits, inside, security), mode) in kinds.into_iter().flat_map(|k| [(k, Mode::Plain), (k, Mode::Zk)]) {
        let (program, weights) = support::everything(u64::from(range_bits), range_bits);
        let key = key(&program, &weights, inside, security, mode);
        for committed in [vec![true, false], vec![false, false], vec![true, true], vec![false, true]] {
            let x = random.int8(7 * 6 * 3);
            let made = make(&key, vec![&x], committed.clone());
            assert_eq!(made.outputs[0], support::run(&program, &weights, &[&x]).tensor(program.outputs[0].tensor));
            let read = VerifyingKey::from_bytes(&key.0.verifying.to_bytes()).expect("own key");
            assert_eq!(read.digest(), key.0.verifying.digest());
            let statement = Statement::from_bytes(&made.statement.to_bytes()).expect("own statement");
            assert_eq!(statement, made.statement);
            verify(&read, &statement, &made.proof).unwrap_or_else(|e| panic!("w {range_bits} inside {inside} {committed:?} {mode:?}: {e}"));
            assert!(made.figures.bits > f64::from(security));
        }
    }
}

#[test]
fn a_name_is_no_part_of_the_model() {
    for (inside, mode) in [(true, Mode::Plain), (false, Mode::Zk)] {
        let (program, weights) = support::everything(3, 10);
        let ours = key(&program, &weights, inside, 100, mode);
        let mut renamed = Program::clone(&program);
        renamed.name = "what another owner calls it".into();
        let theirs = ProvingKey::new(renamed.clone(), weights.clone(), inside, 100, mode).expect("provable").verifying;
        assert_ne!(theirs.to_bytes(), ours.0.verifying.to_bytes(), "a key carries the name");
        assert_eq!(theirs.digest(), ours.0.verifying.digest());
        let x = support::Random(2).int8(7 * 6 * 3);
        let made = make(&ours, vec![&x], vec![true, false]);
        verify(&theirs, &made.statement, &made.proof).expect("the same model");
        // Any other part of the program makes another model.
        renamed.tensors[0].name.push('x');
        let other = ProvingKey::new(renamed, weights, inside, 100, mode).expect("provable").verifying;
        assert_ne!(other.digest(), theirs.digest());
        assert!(verify(&other, &made.statement, &made.proof).is_err());
    }
}

#[test]
fn uint8_proves_its_own_values() {
    for mode in [Mode::Plain, Mode::Zk] {
        let (program, weights) = support::uint8_head();
        let key = key(&program, &weights, true, 100, mode);
        let mut random = support::Random(8);
        for _ in 0..3 {
            let x: Vec<i16> = (0..96).map(|_| random.within(0, 255) as i16).collect();
            let made = make(&key, vec![&x], vec![true, false]);
            assert!(made.outputs[0].iter().any(|&y| y > 127), "probabilities above one half are the values that int8 cannot hold");
            verify(&key.0.verifying, &made.statement, &made.proof).expect("honest");
        }
    }
}

#[test]
fn a_statement_is_bound_item_by_item() {
    for mode in [Mode::Plain, Mode::Zk] {
        let (program, weights) = support::dense(1, 20, 7);
        let key = key(&program, &weights, false, 100, mode);
        let x = support::Random(2).int8(20);
        let made = make(&key, vec![&x], vec![false, false]);
        let vk = &key.0.verifying;
        verify(vk, &made.statement, &made.proof).expect("honest");

        let change = |f: &dyn Fn(&mut Statement)| {
            let mut s = made.statement.clone();
            f(&mut s);
            verify(vk, &s, &made.proof).expect_err("changed")
        };
        assert!(matches!(change(&|s| s.digest[3] ^= 1), Reject::Statement(_)));
        assert!(matches!(
            change(&|s| s.context[31] ^= 128),
            Reject::Equation(_) | Reject::Row { .. } | Reject::Merkle { .. } | Reject::NotCanonical { .. }
        ));
        for port in 0..2 {
            change(&|s| {
                if let Content::Clear(b) = &mut s.tensors[port].content {
                    b[1] ^= 1;
                }
            });
        }
        assert!(matches!(change(&|s| s.tensors.swap(0, 1)), Reject::Statement(_)));
        assert!(matches!(change(&|s| s.tensors[0].content = Content::Committed([0; 32])), Reject::Statement(_)));
        assert!(matches!(change(&|s| drop(s.tensors.pop())), Reject::Statement(_)));

        // The other weights, and the same program under the other parameter set, are other models.
        let (_, other) = support::dense(9, 20, 7);
        for (weights, security) in [(&other, 100), (&weights, 128)] {
            if let Ok(other) = ProvingKey::new(Program::clone(&program), Weights::clone(weights), false, security, mode) {
                assert!(matches!(verify(&other.verifying, &made.statement, &made.proof), Err(Reject::Statement(_))));
            }
        }
    }
}

#[test]
fn the_output_commitment_of_one_proof_is_the_input_commitment_of_the_next() {
    let (first, w1) = support::dense(11, 12, 20);
    let (second, w2) = support::dense(12, 20, 5);
    for mode in [Mode::Plain, Mode::Zk] {
        let (k1, k2) = (key(&first, &w1, false, 100, mode), key(&second, &w2, false, 100, mode));
        let x = support::Random(4).int8(12);
        let a = make(&k1, vec![&x], vec![true, true]);
        // Whoever proves the second step holds the value between, and the seed of its commitment where that hides it.
        let seeds = vec![a.opened[1].as_ref().map(|o| o.seed.clone())];
        assert_eq!(seeds[0].is_some(), mode == Mode::Zk);
        let request = Request { inputs: vec![&a.outputs[0]], context: [9; 32], committed: vec![true, false], seeds };
        let b = prove(&k2.0, &k2.1, &request, &mut |_, _| true).expect("honest");
        verify(&k1.0.verifying, &a.statement, &a.proof).expect("first");
        verify(&k2.0.verifying, &b.statement, &b.proof).expect("second");
        assert!(matches!(a.statement.tensors[1].content, Content::Committed(_)));
        assert_eq!(a.statement.tensors[1], b.statement.tensors[0]);
        if mode == Mode::Zk {
            let (out, back) = (a.opened[1].as_ref().expect("hiding"), b.opened[0].as_ref().expect("hiding"));
            assert!(out.rows.is_sorted() && out.rows.len() + back.rows.len() <= out.budget, "both openings together show nothing");
            assert_ne!(out.rows, back.rows);
        }
    }
}

#[test]
fn proving_stops_when_asked() {
    for mode in [Mode::Plain, Mode::Zk] {
        let (program, weights) = support::dense(1, 20, 7);
        let (key, executor) = key(&program, &weights, false, 100, mode);
        let x = support::Random(2).int8(20);
        for stop in ["execute", "witness", "commit", "lookups", "contractions", "opening"] {
            let request = Request { inputs: vec![&x], context: [0; 32], committed: vec![true, false], ..Request::default() };
            let outcome = prove(&key, &executor, &request, &mut |phase, _| phase != stop);
            assert!(outcome.is_err_and(|e| e.to_string() == "cancelled"), "{stop}");
        }
    }
}

/// Between two reports lies at most so much of a phase's work: what a cancellation may wait for.
const LARGEST_GAP: f64 = 0.31;

#[test]
fn long_phases_report_on_the_way_and_stop_at_every_report() {
    let (program, weights) = support::nets::long();
    let (key, executor) = key(&program, &weights, false, 100, Mode::Zk);
    let x = support::Random(3).int8(64 * 64 * 16);
    let attempt = |limit: usize| {
        let request = Request { inputs: vec![&x], context: [0; 32], committed: vec![true, false], ..Request::default() };
        let mut reports: Vec<(&'static str, f64)> = Vec::new();
        let outcome = prove(&key, &executor, &request, &mut |phase, done| {
            reports.push((phase, done));
            reports.len() < limit
        });
        (outcome, reports)
    };
    let (outcome, reports) = attempt(usize::MAX);
    assert!(outcome.is_ok());
    for phase in ["execute", "witness", "commit", "lookups", "contractions", "opening"] {
        let done: Vec<f64> = reports.iter().filter(|(p, _)| *p == phase).map(|&(_, done)| done).collect();
        assert!(done[0] == 0.0 && done.is_sorted() && done.iter().all(|d| (0.0..=1.0).contains(d)), "{phase}: {done:?}");
        let gap = done.windows(2).map(|w| w[1] - w[0]).fold(1.0 - done[done.len() - 1], f64::max);
        assert!(gap <= LARGEST_GAP, "{phase}: {done:?}");
    }
    // Threads share the work, so that how often they report differs a little from one proof to the next.
    for limit in (1..=reports.len()).step_by(5) {
        let (outcome, reports) = attempt(limit);
        match outcome {
            Ok(_) => assert!(reports.len() < limit),
            Err(e) => assert!(e.to_string() == "cancelled" && reports.len() == limit),
        }
    }
}
