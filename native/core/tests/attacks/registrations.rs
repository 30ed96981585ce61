//! Owners of private models whose weights are not what their public programs assume.
//!
//! An owner commits to anything at all under an honest program; the honest registration prover does its best with it. Each attack names the
//! checks that stop it: with them taken away on both sides the same forgery is accepted.

use std::sync::Arc;

use nexus_edge_core::exec::Trace;
use nexus_edge_core::field::{F, centred, from_i64};
use nexus_edge_core::layout::{Home, Index, Layout, LimbRecipe, Lookup, Recipe, StorageId, TableKind};
use nexus_edge_core::masking::EQUATIONS;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::pcs::{self, Committed, Secret};
use nexus_edge_core::program::builder::{Bounds, Convolution};
use nexus_edge_core::program::check::{CheckedProgram, load};
use nexus_edge_core::program::error::Fault;
use nexus_edge_core::program::quantize::Multiplier;
use nexus_edge_core::program::{Edge, Line, Op, PrivateForm, Program, Rule, Weights};
use nexus_edge_core::proof::{
    Compiled, Linked, ProvingKey, Registered, Request, Subject, VerifyingKey, link, prove, prove_cells, register, verify, verify_cells,
    verify_link, verify_registration,
};
use nexus_edge_core::prover::values::{Witness, entry};
use nexus_edge_core::prover::witness::{count, fill};
use nexus_edge_core::random::Seed;
use nexus_edge_core::reject::{Reject, Verdict};
use p3_field::{Field, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::bytes::{mutations, timed};
use crate::forge::{LOOKUPS, Victim, same_in_both_modes, uses};
use crate::ideal::is_satisfied;
use crate::support::private::private_form;
use crate::support::{self, Net, Random, multiplier, nets, window};

/// The checks of one channel, in the order of their recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Bias,
    Top,
    Bottom,
    Above,
    Below,
    Int8,
}

/// Somebody who registers a program of one layer.
struct Owner {
    program: Arc<CheckedProgram>,
    layout: Layout,
    /// All cells but limbs and multiplicities, which [`Owner::witness`] adds.
    cells: Witness,
}

impl Owner {
    fn new((program, weights): (CheckedProgram, Weights)) -> Self {
        let layout = Layout::registration(&program).expect("private");
        let cells = fill(&layout, &weights, &Trace { tensors: vec![], accumulators: vec![] });
        Owner { program: Arc::new(program), layout, cells }
    }

    fn constant(&self, constant: u32) -> StorageId {
        let of = |r: &Recipe| matches!(r, Recipe::Constant { constant: c, .. } if *c == constant).then(|| storage_of(r));
        self.layout.recipes.iter().find_map(of).expect("a committed constant")
    }

    /// Positive parts of weights.
    fn positive_of(&self, weights: StorageId) -> Option<StorageId> {
        self.layout
            .recipes
            .iter()
            .find_map(|r| if let Recipe::Relu { storage, of } = r { (*of == weights).then_some(*storage) } else { None })
    }

    fn positive(&self) -> StorageId {
        self.positive_of(self.constant(0)).expect("weights")
    }

    /// Another value in any constant: positive parts follow.
    fn changed(mut self, constant: u32, at: usize, value: i64) -> Self {
        let s = self.constant(constant);
        self.cells.storages[s][at] = from_i64(value);
        if let Some(positive) = self.positive_of(s) {
            self.cells.storages[positive][at] = from_i64(value.max(0));
        }
        self
    }

    fn limbs(&self) -> Vec<LimbRecipe> {
        self.layout.recipes.iter().filter_map(|r| if let Recipe::Limbs(r) = r { Some(r.clone()) } else { None }).collect()
    }

    fn weight(self, at: usize, value: i64) -> Self {
        self.changed(0, at, value)
    }

    fn bias(self, channel: usize, value: i64) -> Self {
        self.changed(1, channel, value)
    }

    /// The best witness for the cells: limbs of whatever the sums are.
    fn witness(&self, layout: &Layout) -> Witness {
        let mut out = self.cells.clone();
        for recipe in self.limbs() {
            let all = Index::all(recipe.channels);
            let value = Lookup { table: 0, positions: 1, channels: all, group: 0, entries: vec![recipe.terms.clone()] };
            let values = entry(layout, &out, &value, 0);
            for (k, &s) in recipe.limbs.iter().enumerate() {
                let last = k + 1 == recipe.limbs.len();
                let limb = |v: &F| {
                    let high = centred(*v) >> (layout.range_bits * (k + 1));
                    from_i64(if last { high } else { high & ((1 << layout.range_bits) - 1) })
                };
                out.storages[s] = values.iter().map(limb).collect();
            }
        }
        count(layout, &mut out);
        out
    }

    fn compiled(&self, key: &VerifyingKey, layout: Layout) -> Compiled {
        Compiled::from_layout(key.parameters(), layout).expect("a domain")
    }

    /// The key under the root of these very cells, and their oracle.
    fn commit(&self, mode: Mode) -> (VerifyingKey, Committed) {
        let honest = key_of(&self.program, &[0; 32], mode);
        let compiled = self.compiled(&honest, self.layout.clone());
        let values: Vec<&[F]> = compiled.members[1].iter().map(|&s| &self.cells.storages[s][..]).collect();
        let seed = Seed::fresh().expect("randomness");
        let secret = if mode == Mode::Zk { Secret::Kept(&seed) } else { Secret::None };
        let model = pcs::commit(honest.parameters(), compiled.oracles[1].clone(), &values, secret);
        (key_of(&self.program, &model.root, mode), model)
    }

    /// The honest verifier's verdict.
    fn outcome(&self) -> Verdict<()> {
        same_in_both_modes(|mode| {
            let (key, model) = self.commit(mode);
            let compiled = self.compiled(&key, self.layout.clone());
            let proof = prove_cells(Subject::Registration(&key), &compiled, &self.witness(&self.layout), &[&model]);
            verify_registration(&key, &proof).map(|registered| assert_eq!(registered.digest(), key.digest()))
        })
    }

    /// Whether a lookup is part of a check.
    fn belongs(&self, lookup: &Lookup, check: Check) -> bool {
        if check == Check::Int8 {
            return self.layout.tables[lookup.table].kind == TableKind::Relu;
        }
        let recipe = &self.limbs()[check as usize];
        assert!(!recipe.limbs.is_empty(), "found by its limbs");
        recipe.limbs.iter().any(|&s| uses(lookup, s))
    }

    /// The verdict without some checks, on both sides.
    fn without(&self, checks: &[Check]) -> Verdict<()> {
        let mut layout = self.layout.clone();
        layout.lookups.retain(|k| !checks.iter().any(|&c| self.belongs(k, c)));
        assert!(layout.lookups.len() < self.layout.lookups.len(), "nothing is taken away");
        let witness = self.witness(&layout);
        same_in_both_modes(|mode| {
            let (key, model) = self.commit(mode);
            let compiled = self.compiled(&key, layout.clone());
            let subject = Subject::Registration(&key);
            verify_cells(subject, &compiled, &prove_cells(subject, &compiled, &witness, &[&model]))
        })
    }

    /// Refused, and accepted without these checks but not with all but one of them.
    fn is_stopped_by(&self, checks: &[Check]) {
        assert_eq!(self.outcome(), LOOKUPS);
        assert_eq!(self.without(checks), Ok(()), "without {checks:?}");
        for kept in 0..checks.len() {
            let others: Vec<Check> = checks.iter().enumerate().filter(|(i, _)| *i != kept).map(|(_, &c)| c).collect();
            assert!(others.is_empty() || self.without(&others).is_err(), "{:?} alone does not stop it", checks[kept]);
        }
    }
}

fn storage_of(recipe: &Recipe) -> StorageId {
    let Recipe::Constant { storage, .. } = recipe else { unreachable!("matched by the caller") };
    *storage
}

/// The key of a program under any root, or under a registered one and another.
fn key_of(program: &CheckedProgram, roots: &[u8], mode: Mode) -> VerifyingKey {
    let program = program.to_bytes();
    let mut bytes = b"NXEvkey3".to_vec();
    bytes.extend(100u32.to_le_bytes());
    bytes.extend([mode as u8, (roots.len() / 32) as u8]);
    for part in [roots, &program] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    VerifyingKey::from_bytes(&bytes).expect("a key of any root")
}

fn line(program: &Program, channel: usize) -> Line {
    let rules = program.ops.iter().find_map(|op| if let Op::Rescale(r) = op { Some(&r.rules) } else { None }).expect("a rescale");
    let Rule::Line { line, .. } = rules[channel] else { panic!("channel {channel} is constant") };
    line
}

fn key(private: (CheckedProgram, Weights)) -> ProvingKey {
    ProvingKey::new(Program::clone(&private.0), private.1, false, 100, Mode::Zk).expect("provable")
}

fn again(key: &ProvingKey) -> ProvingKey {
    key.committed_again(Seed::fresh().expect("randomness")).expect("private")
}

fn registered(key: &ProvingKey) -> Vec<u8> {
    let made = register(key, &mut |_, _| true).expect("private");
    let opened = made.opened[0].as_ref().expect("rows of the hidden weights");
    assert!(made.opened.len() == 1 && opened.rows.is_sorted() && !opened.rows.is_empty() && opened.rows.len() < opened.budget);
    made.proof
}

#[test]
fn honest_owners_are_accepted() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        assert_eq!(owner.outcome(), Ok(()));
        // What the library commits to and proves.
        let key = key(nets::private_layer(depthwise, 1));
        let plain =
            ProvingKey::new(Program::clone(&owner.program), Weights::clone(&key.weights), false, 100, Mode::Plain).expect("provable");
        assert_eq!(owner.commit(Mode::Plain).0.digest(), plain.verifying.digest());
        let proof = registered(&key);
        let read = VerifyingKey::from_bytes(&key.verifying.to_bytes()).expect("own key");
        let registered = verify_registration(&read, &proof).expect("honest");
        assert_eq!(registered.digest(), key.verifying.digest());
        assert_eq!(owner.witness(&owner.layout).storages, owner.cells.storages);
    }
}

#[test]
fn a_weight_is_int8() {
    for depthwise in [false, true] {
        for value in [128, -129, 1 << 20] {
            let owner = Owner::new(nets::private_layer(depthwise, 1)).weight(5, value);
            assert_eq!(owner.outcome(), LOOKUPS);
        }
        Owner::new(nets::private_layer(depthwise, 1)).weight(5, 128).is_stopped_by(&[Check::Int8]);
        for value in [127, -128] {
            assert_eq!(Owner::new(nets::private_layer(depthwise, 1)).weight(5, value).outcome(), Ok(()));
        }
    }
}

#[test]
fn positive_parts_are_exact() {
    for (depthwise, by) in [(false, 1), (false, -1), (true, 1), (true, -1)] {
        let mut owner = Owner::new(nets::private_layer(depthwise, 1));
        let positive = owner.positive();
        owner.cells.storages[positive][7] += from_i64(by);
        owner.is_stopped_by(&[Check::Int8]);
    }
}

/// A multiplier so small that no accumulator leaves `V`.
const TINY: Multiplier = (1 << 30, 24);

#[test]
fn accumulators_stay_inside_int32() {
    const END: i64 = (1 << 31) - 1;
    for depthwise in [false, true] {
        // Inputs in [-128, 127]: weight 1 reaches [-128, 127], weight -2 reaches [-254, 256].
        let at = |weights, bias: i64| {
            let private =
                |bias: i64| nets::private_channels(depthwise, &[([3, -4], 9, TINY), (weights, bias as i32, TINY)], 8, (-128, 127));
            (private(bias).map(drop).map_err(|e| e.fault), Owner::new(private(0).expect("small")).bias(1, bias))
        };
        for (weights, bias) in [([1, 0], END - 127), ([1, 0], 128 - END), ([-2, 0], END - 256), ([0, -2], 254 - END)] {
            let (loaded, owner) = at(weights, bias);
            assert_eq!((loaded, owner.outcome()), (Ok(()), Ok(())), "{weights:?} {bias}");
            let beyond = bias + bias.signum();
            let (loaded, owner) = at(weights, beyond);
            assert_eq!(loaded, Err(Fault::Wrap));
            owner.is_stopped_by(&[if bias > 0 { Check::Top } else { Check::Bottom }]);
        }
    }
}

#[test]
fn biases_are_int32() {
    for depthwise in [false, true] {
        let owner =
            |bias| Owner::new(nets::private_channels(depthwise, &[([0, 0], 5, TINY)], 8, (-128, 127)).expect("small")).bias(0, bias);
        // Each check alone stops it.
        owner(1 << 31).is_stopped_by(&[Check::Bias, Check::Top]);
        owner(-(1 << 31) - 1).is_stopped_by(&[Check::Bias, Check::Top, Check::Bottom]);
        // The field's own -1 / 2 is no integer of any size.
        assert_eq!(owner(-1).outcome(), Ok(()));
        let mut half = owner(0);
        let bias = half.constant(1);
        half.cells.storages[bias][0] = -F::TWO.inverse();
        assert_eq!(half.outcome(), LOOKUPS);
    }
}

#[test]
fn a_left_shift_narrows_the_limits() {
    // One output only, so that no V stands before the shift's own limit; M 2^-(31+e) = 4 shifts by 3.
    const END: i64 = (1 << 28) - 1;
    for depthwise in [false, true] {
        let private = nets::private_channels(depthwise, &[([1, 0], 0, (1 << 30, -3))], 8, (5, 5)).expect("constant");
        let owner = |bias| Owner::new(private.clone()).bias(0, bias);
        for (bias, check) in [(END - 127, Check::Top), (128 - END, Check::Bottom)] {
            assert_eq!(owner(bias).outcome(), Ok(()));
            let beyond = owner(bias + bias.signum());
            assert_eq!(beyond.outcome(), LOOKUPS);
            assert_eq!(beyond.without(&[check]), Ok(()));
        }
    }
}

#[test]
fn values_before_the_clamp_stay_inside_the_bound() {
    const SLOPES: [Multiplier; 3] = [(1 << 30, 7), (1_690_499_128, 6), (1_400_000_001, 11)];
    for depthwise in [false, true] {
        for slope in SLOPES {
            let channels = |bias| [([1, 1], 0, slope), ([5, -3], bias, slope)];
            let small = nets::private_channels(depthwise, &channels(0), 9, (-128, 127)).expect("small");
            let l = line(&small.0, 1);
            let (high, low) = (127 * 5 + 128 * 3, -128 * 5 - 127 * 3);
            let top = (l.d * 512 - 1 - l.b_pos.max(l.b_neg)).div_euclid(l.a) - high;
            let bottom = -(l.d * 512 + l.b_pos.min(l.b_neg)).div_euclid(l.a) - low;
            for (bias, check) in [(top, Check::Above), (bottom, Check::Below)] {
                let loaded =
                    |bias: i64| nets::private_channels(depthwise, &channels(bias as i32), 9, (-128, 127)).map(drop).map_err(|e| e.fault);
                assert_eq!((loaded(bias), Owner::new(small.clone()).bias(1, bias).outcome()), (Ok(()), Ok(())));
                let beyond = bias + bias.signum();
                assert_eq!(loaded(beyond), Err(Fault::Weights));
                Owner::new(small.clone()).bias(1, beyond).is_stopped_by(&[check]);
            }
        }
    }
}

#[test]
fn long_values_take_four_limbs() {
    for depthwise in [false, true] {
        let private = nets::private_channels(depthwise, &[([3, -4], 0, (1 << 30, 30))], 20, (-128, 127)).expect("small");
        let owner = |bias| Owner::new(private.clone()).bias(0, bias);
        assert_eq!(owner(0).layout.range_bits, 15);
        assert_eq!(owner(0).limbs().iter().map(|r| r.limbs.len()).collect::<Vec<_>>(), [2, 2, 2, 3, 3]);
        assert_eq!(owner((1 << 31) - 1 - 127 * 3 - 128 * 4).outcome(), Ok(()));
        owner((1 << 31) - 127 * 3 - 128 * 4).is_stopped_by(&[Check::Top]);
    }
}

#[test]
fn half_the_bound_is_not_kept() {
    for depthwise in [false, true] {
        let (program, weights) = nets::private_layer(depthwise, 1);
        // The least bound that these weights keep, and half of it.
        let declared = |bits: u8| Program { private: Some(PrivateForm { log_bounds: vec![bits] }), ..Program::clone(&program) };
        let kept = |bits: &u8| load(declared(*bits), Some(&weights)).is_ok();
        let least = (8..=23).find(kept).expect("some bound");
        assert!(least > 8, "weights too small to tell");
        let owner = |bits| Owner::new((load(declared(bits), None).expect("no weights are looked at"), weights.clone()));
        assert_eq!(owner(least).outcome(), Ok(()));
        let half = owner(least - 1);
        assert_eq!(half.outcome(), LOOKUPS);
        assert_eq!(half.without(&[Check::Above, Check::Below]), Ok(()));
    }
}

/// All cells, against the constraints themselves: this covers every choice of multiplicities.
#[test]
fn no_cell_is_free() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        assert!(is_satisfied(&owner.layout, &owner.cells, &[]));
        let free = |s: &StorageId| {
            let multiplicity = owner.layout.tables.iter().any(|t| t.multiplicities == *s);
            owner.layout.storages[*s].home == Home::Witness && !multiplicity
        };
        let cells: Vec<(StorageId, usize)> =
            (0..owner.layout.storages.len()).filter(free).flat_map(|s| (0..owner.cells.storages[s].len()).map(move |at| (s, at))).collect();
        let mut random = Random(19);
        let changes: Vec<_> =
            cells.iter().flat_map(|&(s, at)| [(s, at, F::ONE), (s, at, -F::ONE), (s, at, F::from_u64(random.next() >> 1))]).collect();
        let passing: Vec<_> = changes
            .into_par_iter()
            .filter(|&(s, at, by)| {
                let mut w = owner.cells.clone();
                w.storages[s][at] += by;
                is_satisfied(&owner.layout, &w, &[])
            })
            .collect();
        assert_eq!(passing, []);
    }
}

#[test]
fn costs_are_as_designed() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        let (weights, channels) = if depthwise { (54, 6) } else { (108, 4) };
        let rows: usize = owner.layout.tables.iter().map(|t| 1 << t.log_rows).sum();
        assert_eq!(owner.layout.cells(), weights + 5 * channels + rows);
        assert_eq!(owner.layout.lookup_count(), weights + 10 * channels);
        assert_eq!(rows, (1 << 16) + 256);
    }
}

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

fn executor(key: &ProvingKey) -> nexus_edge_core::exec::Executor {
    nexus_edge_core::exec::Executor::new(key.verifying.program().clone(), &key.weights).expect("weights fit")
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
