//! Proofs of the simulator: accepted under the challenges that it programmed, refused under real ones.

use super::simulator::{Simulated, simulate, simulate_about_weights};
use super::support::{Net, Random, dense, dense_with, nets};
use super::{Subject, small_key, taped};
use crate::masking::EQUATIONS;
use crate::pcs::OracleLayout;
use crate::program::check::CheckedProgram;
use crate::program::{Edge, Piece, Weights};
use crate::proof::{KeyWeights, Lapse, ProvingKey, Subject as About, VerifyingKey, judge, prove_taped, verify_lapsed};
use crate::random::{Randomness, Seed, Weakness};
use crate::reject::Reject;

/// Everything that a simulator must not be able to speak of.
const SECRETS: [&str; 7] = ["Witness", "crate::prover", "Executor", "exec::", "Trace", "ProvingKey", "prove_witness"];

#[test]
fn the_simulator_has_no_access_to_a_witness() {
    let source = include_str!("simulator.rs");
    for name in SECRETS {
        assert!(!source.contains(name), "{name}");
    }
    // The list names what provers use.
    assert!(SECRETS[..2].iter().all(|name| include_str!("../proof/prove.rs").contains(name)));
}

/// `forms` of statements about any outputs at all: whether they are true does not matter to a simulator.
fn check(key: &ProvingKey, forms: &[[bool; 2]], sizes: [usize; 2]) {
    for (k, form) in forms.iter().enumerate() {
        let compiled = key.verifying.compiled(form).expect("a layout");
        let mut random = Random(k as u64);
        let clear: Vec<Option<Vec<u8>>> =
            form.iter().zip(sizes).map(|(&c, n)| (!c).then(|| (0..n).map(|_| random.next() as u8).collect())).collect();
        let tape = [k as u8; 32];
        let mut coins = Randomness::chosen([9; 32]);
        let private = key.verifying.program().private.is_some();
        let public = key.model.as_ref().filter(|_| !private);
        let Simulated { mut statement, proof, model } = simulate(&key.verifying, &compiled, &clear, public, tape, &mut coins);
        // Hidden weights: their commitment is simulated too.
        let own = &key.verifying;
        let simulated = model.map(|root| VerifyingKey::new(own.parameters().clone(), own.program().clone(), KeyWeights::Committed(root)));
        let simulated = simulated.transpose().expect("a key");
        assert_eq!(simulated.is_some(), private);
        let verifying = simulated.as_ref().unwrap_or(own);
        statement.digest = verifying.digest();
        let judged = |lapse| verify_lapsed(verifying, &statement, &proof, lapse);
        let judged_by = |tape| judged(taped(tape));
        assert_eq!(judged_by(tape), Ok(()), "{form:?}");
        assert!(judged_by([77; 32]).is_err(), "{form:?}");
        let real = judged(Lapse::default());
        assert!(matches!(real, Err(Reject::Equation(EQUATIONS | "value of the combined polynomial"))), "{form:?}: {real:?}");
        // As long as a real one, but for hashes that two queries share: both open the same rows.
        let subject = Subject::new(key, form, &Random(3).int8(sizes[0]));
        let shown = subject.proof(tape, [8; 32], Weakness::None);
        assert_eq!(subject.verify(tape, &shown), Ok(()));
        assert_eq!(shown.proof.len(), proof.len());
    }
}

const FORMS: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

#[test]
fn simulated_proofs_are_accepted_under_programmed_challenges_only() {
    for clear_log in [12, 4] {
        check(&small_key(dense(1, 20, 7), true, clear_log), &FORMS, [20, 7]);
        check(&small_key(dense(1, 20, 7), false, clear_log), &FORMS, [20, 7]);
    }
}

/// Half of the first 8 of 3000 elements: almost no cells of its own beside a long input.
fn excerpt() -> (CheckedProgram, Weights) {
    let mut n = Net::new("excerpt", 0);
    let [x, v, y] = [("x", 3000), ("v", 8), ("y", 8)].map(|(name, size)| n.tensor(name, &[1, size], 0.02, 0));
    n.b.input(x, Edge::Integer).expect("input");
    n.b.view("cut", v, vec![Piece { source: x, dims: vec![(0, 1, 0, 1), (0, 8, 0, 1)] }], 0);
    n.b.lookup("half", vec![v], y, (-128..128).map(|v: i16| v / 2).collect()).expect("lookup");
    n.b.output(y, Edge::Integer).expect("output");
    n.b.finish(Some(8)).expect("a valid program")
}

/// The input's oracle is longer than the witness needs to be.
#[test]
fn simulated_proofs_with_a_long_kept_oracle() {
    let key = small_key(excerpt(), true, 12);
    let compiled = key.verifying.compiled(&[true, false]).expect("a layout");
    let (witness, input) = (&compiled.oracles[0], &compiled.oracles[1]);
    let alone = OracleLayout::new(key.verifying.parameters(), witness.role, 0, witness.shapes.clone(), witness.hiding);
    assert!(alone.log_rows < input.log_rows && witness.log_rows == input.log_rows, "{} {}", alone.log_rows, input.log_rows);
    check(&key, &FORMS, [3000, 8]);
}

/// Weights that everybody knows, in an oracle that is longer than the witness's and its mask.
#[test]
fn simulated_proofs_under_longer_public_weights() {
    for clear_log in [14, 4] {
        let key = small_key(dense_with(1, 300, 300, 9), false, clear_log);
        let compiled = key.verifying.compiled(&[true, false]).expect("a layout");
        assert_eq!(compiled.stack.log_mask_stride(), 1, "{:?}", compiled.oracles.iter().map(|o| o.log_rows).collect::<Vec<_>>());
        check(&key, &FORMS, [300, 300]);
    }
}

/// Weights that nobody but their owner knows: the model oracle is a kept one.
#[test]
fn simulated_proofs_of_a_private_model() {
    let key = small_key(nets::private_layer(false, 1), false, 12);
    let sizes = [key.verifying.program().inputs[0].tensor, key.verifying.program().outputs[0].tensor];
    check(&key, &FORMS[1..2], sizes.map(|id| key.verifying.program().tensors[id as usize].size()));
}

/// A registration and links, whose commitments are simulated with them: the simulator knows program and parameter set, and no weight.
#[test]
fn simulated_registrations_and_links() {
    let about = |others: u8, depthwise: bool, clear_log: usize| {
        let own = small_key(nets::private_layer(depthwise, 1), false, clear_log);
        let again = |k: u8| own.committed_again(Seed::from_bytes([3 + k; 32])).expect("private");
        let again: Vec<ProvingKey> = (0..others).map(again).collect();
        let keys: Vec<&ProvingKey> = std::iter::once(&own).chain(&again).collect();
        let (tape, what) = ([others; 32], format!("{others} links, clear below 2^{clear_log}"));
        let (compiled, real) = prove_taped(&keys, Randomness::chosen([8; 32]), taped(tape));
        let (params, program) = (own.verifying.parameters(), own.verifying.program());
        let (roots, proof) = simulate_about_weights(params, &compiled, tape, &mut Randomness::chosen([9; 32]));
        assert_eq!(roots.len(), keys.len());
        let key = |weights| VerifyingKey::new(params.clone(), program.clone(), weights).expect("a key");
        let registered = key(KeyWeights::Committed(roots[0]));
        let fresh: Vec<_> = roots[1..].iter().map(|&root| key(KeyWeights::Linked { registered: roots[0], root })).collect();
        let fresh: Vec<_> = fresh.iter().collect();
        let subject = if fresh.is_empty() { About::Registration(&registered) } else { About::Link(&registered, &fresh) };
        assert_eq!(judge(subject, &proof, taped(tape)), Ok(()), "{what}");
        assert!(judge(subject, &proof, taped([77; 32])).is_err(), "{what}");
        let refused = judge(subject, &proof, Lapse::default());
        assert!(matches!(refused, Err(Reject::Equation(EQUATIONS | "value of the combined polynomial"))), "{what}: {refused:?}");
        // Of the owner's real commitments it says nothing, and it is as long as what the owner proves.
        let owned: Vec<_> = again.iter().map(|key| &*key.verifying).collect();
        let owner = if owned.is_empty() { About::Registration(&own.verifying) } else { About::Link(&own.verifying, &owned) };
        assert_eq!(judge(owner, &real, taped(tape)), Ok(()), "{what}");
        assert!(judge(owner, &proof, taped(tape)).is_err(), "{what}");
        assert_eq!(real.len(), proof.len(), "{what}");
    };
    for (others, depthwise, clear_log) in [(0, false, 14), (0, true, 4), (1, false, 14), (1, true, 4), (3, false, 12)] {
        about(others, depthwise, clear_log);
    }
}
