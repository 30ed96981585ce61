//! Random networks: honest proofs are accepted, one changed cell or output byte is not. `examples/hunt.rs` goes through as many seeds as one
//! has time for.

use nexus_edge_core::field::F;
use nexus_edge_core::layout::Home;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::error::Fault;
use nexus_edge_core::program::{Program, Weights};
use nexus_edge_core::proof::ProvingKey;
use p3_field::PrimeCharacteristicRing;

use crate::forge::Victim;
use crate::ideal::is_satisfied;
use crate::support::Random;
use crate::support::private::private_form;
use crate::support::random_net::random_net;

/// Whether there is a proof at all: a network may need a larger range table than its own, or a reshape that has no constraint, and says so.
fn provable(net: &(CheckedProgram, Weights)) -> bool {
    ProvingKey::new(Program::clone(&net.0), net.1.clone(), true, 100, Mode::Plain).is_ok()
}

/// Proves the network of a seed and attacks it, and again with its weights private; `false` if the seed gives none.
pub fn check(seed: u64) -> bool {
    let Some(net) = random_net(seed).ok().filter(provable) else { return false };
    let private = private(&net);
    let outputs = attack(seed, net, false);
    if let Some(net) = private {
        assert_eq!(attack(seed, net, true), outputs, "seed {seed}");
    }
    true
}

/// The private form, where there is one: weights of uint8 models, and lines that need a larger range table, have none.
pub fn private(net: &(CheckedProgram, Weights)) -> Option<(CheckedProgram, Weights)> {
    let made = private_form(&net.0, &net.1);
    let made = made.inspect_err(|e| assert!(matches!(e.fault, Fault::Weights | Fault::Wrap | Fault::Line | Fault::Limit), "{e}"));
    made.ok().filter(|net| ProvingKey::new(Program::clone(&net.0), net.1.clone(), false, 100, Mode::Plain).is_ok())
}

/// Attacks one form of a network. -> its honest inputs and outputs.
fn attack(seed: u64, net: (CheckedProgram, Weights), private: bool) -> Vec<Vec<i16>> {
    let mut random = Random(seed ^ 0x5eed);
    let ports = net.0.inputs.len() + net.0.outputs.len();
    let input = &net.0.tensors[net.0.inputs[0].tensor as usize];
    let (low, high) = input.dtype.range();
    let x: Vec<i16> = (0..input.size()).map(|_| random.within(low.into(), high.into()) as i16).collect();
    let security = if random.next().is_multiple_of(4) { 128 } else { 100 };
    let inside = random.next().is_multiple_of(2);
    let victim = Victim::with_security(net, inside && !private, security);
    if private {
        victim.register();
    }
    let committed: Vec<bool> = (0..ports).map(|_| random.next().is_multiple_of(2)).collect();
    let f = victim.forge_form(&committed, &[&x]);
    assert_eq!(f.outcome(), Ok(()), "seed {seed} form {committed:?}: {:?}", victim.program().ops);
    assert!(is_satisfied(&f.layout, &f.witness, &f.ports), "seed {seed}: the ideal check refuses what the verifier accepts");

    // An output byte.
    if let Some(port) = (1..ports).find(|&i| !committed[i]) {
        let mut f = f.copy();
        let at = (random.next() % f.ports[port].len() as u64) as usize;
        f.ports[port][at] ^= 1;
        assert!(f.outcome().is_err(), "seed {seed} port {port} element {at}");
    }
    // A cell of the witness: the others determine it, so that no other value passes.
    let own: Vec<usize> = (0..f.layout.storages.len()).filter(|&s| f.layout.storages[s].home == Home::Witness).collect();
    for _ in 0..2 {
        let s = own[(random.next() % own.len() as u64) as usize];
        let at = (random.next() % f.witness.storages[s].len() as u64) as usize;
        let mut f = f.copy().uncounted();
        f.witness.storages[s][at] += [F::ONE, -F::ONE, F::from_u64(random.next() >> 1)][(random.next() % 3) as usize];
        f.reaccumulate();
        assert!(f.outcome().is_err(), "seed {seed} storage {s} cell {at}");
    }
    f.ports
}

#[test]
fn random_networks() {
    let alive = (0..120).filter(|&seed| check(seed)).count();
    assert!(alive > 40, "{alive} networks");
    let private = (0..120).filter(|&seed| random_net(seed).is_ok_and(|net| private(&net).is_some())).count();
    assert!(private > 25, "{private} private networks");
}
