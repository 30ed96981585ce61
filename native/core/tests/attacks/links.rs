//! Links of one commitment with others whose weights are not its own, and proofs of one kind that are shown as another.

use nexus_edge_core::field::F;
use nexus_edge_core::layout::Layout;
use nexus_edge_core::masking::EQUATIONS;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::pcs::Committed;
use nexus_edge_core::program::builder::{Bounds, Convolution};
use nexus_edge_core::program::check::load;
use nexus_edge_core::program::{Edge, PrivateForm, Program};
use nexus_edge_core::proof::{
    Linked, ProvingKey, Registered, Request, Subject, VerifyingKey, link, prove, prove_cells, register, verify, verify_cells, verify_link,
    verify_registration,
};
use nexus_edge_core::prover::values::Witness;
use nexus_edge_core::random::Seed;
use nexus_edge_core::reject::{Reject, Verdict};
use p3_field::PrimeCharacteristicRing;

use crate::bytes::{mutations, timed};
use crate::forge::{LOOKUPS, Victim};
use crate::owners::{Owner, again, executor, key, key_of, registered};
use crate::support::private::private_form;
use crate::support::{self, Net, Random, multiplier, nets, window};

#[test]
fn proofs_belong_to_one_model_and_one_kind() {
    let keys = [key(nets::private_layer(false, 1)), key(nets::private_layer(false, 2))];
    let proofs = keys.each_ref().map(registered);
    assert_eq!(keys[0].verifying.program().to_bytes(), keys[1].verifying.program().to_bytes(), "two private models of one shape");
    for (i, key) in keys.iter().enumerate() {
        assert!(verify_registration(&key.verifying, &proofs[i]).is_ok());
        assert!(verify_registration(&key.verifying, &proofs[1 - i]).is_err());
        for bad in [&proofs[i][..proofs[i].len() - 1], &[&proofs[i][..], &[0]].concat(), &[]] {
            assert!(verify_registration(&key.verifying, bad).is_err());
        }
    }
    // Of one key, for each of the three things that its proofs can say.
    let (key, other) = (&keys[0], again(&keys[0]));
    let x = Random(3).int8(60);
    let request = Request { inputs: vec![&x], context: [0; 32], committed: vec![true, false], ..Request::default() };
    let made = prove(key, &executor(key), &request, &mut |_, _| true).expect("honest");
    let verifying = &key.verifying;
    let linked = link(key, &[&other], &mut |_, _| true).expect("one model").proof;
    verifying.admit(&verify_registration(verifying, &proofs[0]).expect("honest"));
    assert_eq!(verify(verifying, &made.statement, &made.proof), Ok(()));
    assert!(verify_link(verifying, &[&other.verifying], &linked).is_ok());
    for other in [&made.proof, &linked] {
        assert!(verify_registration(verifying, other).is_err());
    }
    for other in [&proofs[0], &linked] {
        assert!(verify(verifying, &made.statement, other).is_err());
    }
    for bad in [&proofs[0], &made.proof] {
        assert!(verify_link(verifying, &[&other.verifying], bad).is_err());
    }
}

/// The same bytes of proof under another kind of statement: the kind is in the transcript, not only in the structure.
#[test]
fn the_kind_is_absorbed() {
    let owner = Owner::new(nets::private_layer(false, 1));
    for mode in [Mode::Plain, Mode::Zk] {
        let (key, model) = owner.commit(mode);
        let compiled = owner.compiled(&key, owner.layout.clone());
        let proof = prove_cells(Subject::Registration(&key), &compiled, &owner.witness(&owner.layout), &[&model]);
        assert_eq!(verify_cells(Subject::Registration(&key), &compiled, &proof), Ok(()));
        // A link of no commitments has the same oracles.
        assert!(matches!(verify_cells(Subject::Link(&key, &[]), &compiled, &proof), Err(Reject::Statement(_))));
        let proof = prove_cells(Subject::Link(&key, &[]), &compiled, &owner.witness(&owner.layout), &[&model]);
        assert_ne!(verify_cells(Subject::Registration(&key), &compiled, &proof), Ok(()));
    }
}

#[test]
fn a_private_model_needs_its_registration_and_its_link() {
    let keys = [key(nets::private_layer(false, 1)), key(nets::private_layer(false, 2))];
    let x = Random(3).int8(60);
    let request = Request { inputs: vec![&x], context: [0; 32], committed: vec![true, false], ..Request::default() };
    let read = |key: &ProvingKey| VerifyingKey::from_bytes(&key.verifying.to_bytes()).expect("own key");
    let refused = |verdict: Verdict<()>| assert!(matches!(verdict, Err(Reject::Statement(_))), "{verdict:?}");
    let [own, others] = keys.each_ref().map(|k| Registered::recorded(k.verifying.digest()));

    let made = prove(&keys[0], &executor(&keys[0]), &request, &mut |_, _| true).expect("honest");
    assert!(made.model_opened.as_ref().is_some_and(|o| o.rows.len() < o.budget));
    let verifier = read(&keys[0]);
    refused(verify(&verifier, &made.statement, &made.proof));
    verifier.admit(&others);
    refused(verify(&verifier, &made.statement, &made.proof));
    verifier.admit(&own);
    assert_eq!(verify(&verifier, &made.statement, &made.proof), Ok(()));

    // Under a commitment of its own, the statement names the registered model and the verifier wants the link too.
    let fresh = again(&keys[0]);
    let made = prove(&fresh, &executor(&fresh), &request, &mut |_, _| true).expect("honest");
    assert_eq!(made.statement.digest, keys[0].verifying.digest());
    let verifier = read(&fresh);
    assert_eq!(verifier.to_bytes(), fresh.verifying.to_bytes());
    verifier.admit(&own);
    refused(verify(&verifier, &made.statement, &made.proof));
    let root = fresh.verifying.weights().root().expect("committed");
    verifier.admit_link(&Linked::recorded(keys[1].verifying.digest(), root));
    verifier.admit_link(&Linked::recorded(keys[0].verifying.digest(), [0; 32]));
    refused(verify(&verifier, &made.statement, &made.proof));
    let proof = link(&keys[0], &[&fresh], &mut |_, _| true).expect("one model").proof;
    verifier.admit_link(&verify_link(&read(&keys[0]), &[&verifier], &proof).expect("honest"));
    assert_eq!(verify(&verifier, &made.statement, &made.proof), Ok(()));
    // The registered key's verifier does not take a proof under the other root.
    let registered = read(&keys[0]);
    registered.admit(&own);
    assert!(verify(&registered, &made.statement, &made.proof).is_err());

    let public = Victim::new(nets::convolution(), false);
    assert!(register(&public.zk, &mut |_, _| true).is_err(), "nothing is registered of a public model");
    assert!(public.zk.committed_again(Seed::from_bytes([1; 32])).is_err());
    assert!(fresh.committed_again(Seed::from_bytes([1; 32])).is_err(), "links start at the registered commitment");
}

/// Links of one registered commitment and others with the given cells: the cheater knows all of them and claims that they are equal.
fn linked(owner: &Owner, others: &[Owner], only: Option<&dyn Fn(&mut Layout)>) -> Verdict<()> {
    let commits: Vec<(VerifyingKey, Committed)> = std::iter::once(owner).chain(others).map(|o| o.commit(Mode::Zk)).collect();
    let again = |c: &(VerifyingKey, Committed)| key_of(&owner.program, &[commits[0].1.root, c.1.root].concat(), Mode::Zk);
    let fresh: Vec<VerifyingKey> = commits[1..].iter().map(again).collect();
    let fresh: Vec<&VerifyingKey> = fresh.iter().collect();
    let models: Vec<&Committed> = commits.iter().map(|c| &c.1).collect();
    let mut layout = Layout::link(&owner.program, others.len());
    if let Some(weaken) = only {
        weaken(&mut layout);
    }
    let compiled = owner.compiled(&commits[0].0, layout);
    let subject = Subject::Link(&commits[0].0, &fresh);
    let proof = prove_cells(subject, &compiled, &Witness::default(), &models);
    match only {
        None => verify_link(&commits[0].0, &fresh, &proof).map(|l| assert_eq!(l.digest(), commits[0].0.digest())),
        Some(_) => verify_cells(subject, &compiled, &proof),
    }
}

#[test]
fn a_link_is_of_equal_weights_and_biases() {
    for depthwise in [false, true] {
        let owner = || Owner::new(nets::private_layer(depthwise, 1));
        assert_eq!(linked(&owner(), &[owner()], None), Ok(()));
        assert_eq!(linked(&owner(), &[owner(), owner(), owner()], None), Ok(()));
        let changed = |constant: u32, at: usize| {
            let mut other = owner();
            let s = other.constant(constant);
            other.cells.storages[s][at] += F::ONE;
            other
        };
        for (constant, at) in [(0, 0), (0, 53), (1, 0), (1, 3)] {
            assert_eq!(linked(&owner(), &[changed(constant, at)], None), Err(Reject::Equation(EQUATIONS)));
            assert_eq!(linked(&owner(), &[owner(), changed(constant, at)], None), Err(Reject::Equation(EQUATIONS)));
            assert_eq!(linked(&changed(constant, at), &[owner()], None), Err(Reject::Equation(EQUATIONS)));
            // Ablation: without the equality of this constant.
            let weaken = move |layout: &mut Layout| drop(layout.copies.remove(constant as usize));
            assert_eq!(linked(&owner(), &[changed(constant, at)], Some(&weaken)), Ok(()));
        }
    }
}

#[test]
fn a_link_is_of_these_commitments() {
    let [a, other] = [1, 2].map(|seed| key(nets::private_layer(false, seed)));
    let (b, c) = (again(&a), again(&a));
    assert_eq!(b.verifying.digest(), a.verifying.digest());
    assert_ne!(b.verifying.weights().root(), c.verifying.weights().root());
    let made = link(&a, &[&b], &mut |_, _| true).expect("one model");
    assert!(made.opened.len() == 2 && made.opened.iter().all(Option::is_some));
    let proof = made.proof;
    let linked = verify_link(&a.verifying, &[&b.verifying], &proof).expect("honest");
    assert_eq!(linked.digest(), a.verifying.digest());
    assert!(linked.covers(&b.verifying.weights().root().expect("committed")));
    assert!(!linked.covers(&c.verifying.weights().root().expect("committed")));
    let both = link(&a, &[&b, &c], &mut |_, _| true).expect("one model").proof;
    assert!(verify_link(&a.verifying, &[&b.verifying, &c.verifying], &both).is_ok());
    assert!(verify_link(&a.verifying, &[&c.verifying, &b.verifying], &both).is_err());
    assert!(link(&a, &[&again(&other)], &mut |_, _| true).is_err(), "an honest prover knows better");
    assert!(link(&a, &[], &mut |_, _| true).is_err());
    assert!(link(&b, &[&c], &mut |_, _| true).is_err(), "links start at the registered commitment");
    assert!(verify_link(&a.verifying, &[&c.verifying], &proof).is_err());
    assert!(verify_link(&a.verifying, &[&again(&other).verifying], &proof).is_err());
    assert!(verify_link(&other.verifying, &[&b.verifying], &proof).is_err());
    assert!(verify_link(&a.verifying, &[&b.verifying, &b.verifying], &proof).is_err());
    assert!(verify_link(&a.verifying, &[], &proof).is_err());
    let depthwise = key(nets::private_layer(true, 1));
    assert!(matches!(verify_link(&a.verifying, &[&again(&depthwise).verifying], &proof), Err(Reject::Statement(_))));
}

/// A whole network: the constants of every layer are held to what its own lines and tables assume, in registrations and in links.
#[test]
fn every_constant_of_a_network_counts() {
    let private = || {
        let (program, weights) = support::everything(3, 10);
        private_form(&program, &weights).expect("a private form")
    };
    let owner = || Owner::new(private());
    let (program, weights) = private();
    assert_eq!(owner().outcome(), Ok(()));
    assert_eq!(linked(&owner(), &[owner()], None), Ok(()));
    assert_eq!(program.constants.len(), 8, "four layers with biases");
    let mut random = Random(23);
    for (id, values) in weights.values.iter().enumerate() {
        let at = (random.next() % values.len() as u64) as usize;
        let is_bias = program.constants[id].dims.len() == 1;
        // Biases that are int32 and leave the bound, biases that are not; weights that are no int8.
        for value in if is_bias { [(1 << 31) - 1, -1 << 31, 1 << 31] } else { [128, -129, 1 << 32] } {
            assert_eq!(owner().changed(id as u32, at, value).outcome(), LOOKUPS, "constant {id} element {at} = {value}");
        }
        let by = if is_bias || values[at] < 127 { 1 } else { -1 };
        let other = || owner().changed(id as u32, at, i64::from(values[at]) + by);
        assert_eq!(linked(&owner(), &[other()], None), Err(Reject::Equation(EQUATIONS)), "constant {id} element {at}");
        assert_eq!(linked(&other(), &[owner()], None), Err(Reject::Equation(EQUATIONS)), "constant {id} element {at}");
        // The other weights are those of a model of their own.
        assert_eq!(linked(&other(), &[other()], None), Ok(()));
    }
}

/// The same network without biases, and one with as little as can be: a weight and a bias.
#[test]
fn layers_without_biases_and_layers_of_one_weight() {
    let mut n = Net::new("bare", 5);
    let dims = [("x", vec![1, 4]), ("h", vec![1, 1]), ("y", vec![1, 1])];
    let [x, h, y] = dims.map(|(name, dims)| n.tensor(name, &dims, 0.02, 3));
    n.b.input(x, Edge::Integer).expect("input");
    for (x, out, dims, bias) in [(x, h, [1, 1, 1, 4], None), (h, y, [1, 1, 1, 1], Some(vec![-40]))] {
        let weights = (0..dims[3] as i32).map(|i| 90 - 50 * i).collect();
        let window = window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0));
        let multipliers = vec![multiplier(0.01)];
        let (clamp, depthwise, single_rounding) = ((-128, 127), false, false);
        let c = Convolution { x, out, window, dims: &dims, weights, bias, x_zero: 3, multipliers, clamp, depthwise, single_rounding };
        n.b.conv("conv", c).expect("conv");
    }
    n.b.output(y, Edge::Integer).expect("output");
    n.b.private(Bounds::All(10));
    let (program, weights) = n.b.finish(Some(16)).expect("a valid program");
    assert_eq!(program.constants.iter().map(|c| c.dims.iter().product::<u32>()).collect::<Vec<_>>(), [4, 1, 1]);
    let owner = || Owner::new((program.clone(), weights.clone()));
    assert_eq!(owner().limbs().len(), 4 + 5, "only biases have a check of their own");
    assert_eq!(owner().outcome(), Ok(()));
    assert_eq!(linked(&owner(), &[owner(), owner()], None), Ok(()));
    for (constant, at, value) in [(0, 3, 128), (0, 0, -129), (1, 0, 128), (2, 0, 1 << 31), (2, 0, (1 << 31) - 1)] {
        assert_eq!(owner().changed(constant, at, value).outcome(), LOOKUPS, "constant {constant} = {value}");
        assert_eq!(linked(&owner(), &[owner(), owner().changed(constant, at, value)], None), Err(Reject::Equation(EQUATIONS)));
    }
    // The first layer's weights keep half its bound, larger ones do not.
    let declared = |bits: [u8; 2]| Program { private: Some(PrivateForm { log_bounds: bits.to_vec() }), ..Program::clone(&program) };
    let kept = |bits: &u8| load(declared([*bits, 10]), Some(&weights)).is_ok();
    let least = (8..=10).find(kept).expect("some bound");
    let tight = |bits| Owner::new((load(declared([bits, 10]), None).expect("no weights are looked at"), weights.clone()));
    assert_eq!(tight(least).outcome(), Ok(()));
    assert!(least < 10);
    assert_eq!((0..4).fold(tight(least), |owner, at| owner.weight(at, 127)).outcome(), LOOKUPS);
}

/// Links start at the registered commitment: one that starts at a linked commitment is nothing to a verifier, whoever makes it. Many links, and
/// links of what is linked already, are.
#[test]
fn a_link_of_a_link_is_none() {
    let a = key(nets::private_layer(false, 1));
    let (b, c) = (again(&a), again(&a));
    let root = |key: &ProvingKey| key.verifying.weights().root().expect("committed");
    let first = link(&a, &[&b], &mut |_, _| true).expect("one model").proof;
    b.verifying.admit_link(&verify_link(&a.verifying, &[&b.verifying], &first).expect("honest"));
    assert!(b.verifying.is_linked());
    assert!(link(&b, &[&c], &mut |_, _| true).is_err() && b.committed_again(Seed::from_bytes([7; 32])).is_err());

    // Its maker owns all of it: the proof itself is as good as an honest one.
    let owner = Owner::new(nets::private_layer(false, 1));
    let commits: Vec<Committed> = (0..3).map(|_| owner.commit(Mode::Zk).1).collect();
    let [second, third] = [1, 2].map(|k| key_of(&owner.program, &[commits[0].root, commits[k].root].concat(), Mode::Zk));
    let registered = key_of(&owner.program, &commits[0].root, Mode::Zk);
    let compiled = owner.compiled(&registered, Layout::link(&owner.program, 1));
    let chained = prove_cells(Subject::Link(&second, &[&third]), &compiled, &Witness::default(), &[&commits[1], &commits[2]]);
    assert!(matches!(verify_link(&second, &[&third], &chained), Err(Reject::Statement(_))));
    assert!(verify_link(&registered, &[&third], &chained).is_err());
    // As if the second commitment were registered: that is another digest, which says nothing of this one.
    let as_registered = key_of(&owner.program, &commits[1].root, Mode::Zk);
    let under = key_of(&owner.program, &[commits[1].root, commits[2].root].concat(), Mode::Zk);
    let honest = prove_cells(Subject::Link(&as_registered, &[&under]), &compiled, &Witness::default(), &[&commits[1], &commits[2]]);
    let evidence = verify_link(&as_registered, &[&under], &honest).expect("an honest link of another model");
    assert!(verify_link(&as_registered, &[&third], &honest).is_err(), "a key of the first model");
    third.admit_link(&evidence);
    assert!(!third.is_linked());

    // From the registered commitment: both at once, or one after the other, or the first again.
    for fresh in [vec![&c], vec![&b, &c], vec![&b]] {
        let proof = link(&a, &fresh, &mut |_, _| true).expect("one model").proof;
        let keys: Vec<&VerifyingKey> = fresh.iter().map(|key| &*key.verifying).collect();
        let evidence = verify_link(&a.verifying, &keys, &proof).expect("honest");
        assert!(fresh.iter().all(|key| evidence.covers(&root(key))) && !evidence.covers(&root(&a)));
        c.verifying.admit_link(&evidence);
    }
    assert!(c.verifying.is_linked());
}

/// Every region of a registration and of a link changed, cut out, doubled and moved.
#[test]
fn changed_bytes() {
    let a = key(nets::private_layer(false, 1));
    let b = again(&a);
    let proofs = [registered(&a), link(&a, &[&b], &mut |_, _| true).expect("one model").proof];
    for (is_link, proof) in proofs.into_iter().enumerate() {
        for bad in mutations(&proof, &mut Random(45)).iter().step_by(6) {
            let verdict = timed(|| match is_link {
                0 => verify_registration(&a.verifying, bad).map(drop),
                _ => verify_link(&a.verifying, &[&b.verifying], bad).map(drop),
            });
            verdict.expect_err("a changed proof");
        }
    }
}
