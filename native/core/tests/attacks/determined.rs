//! Every committed cell is determined by the others: changed alone, none passes.

use nexus_edge_core::field::{F, from_i64};
use nexus_edge_core::layout::{Home, StorageId};
use nexus_edge_core::prover::values::accumulator;
use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::forge::{Forgery, Victim};
use crate::ideal::is_satisfied;
use crate::support::{self, Random};

fn everything(committed: &[bool], inside: bool) -> [Victim; 2] {
    let victims = Victim::each(support::everything(3, 10), inside);
    assert!(victims.iter().all(|v| v.forge_form(committed, &[&Random(3).int8(126)]).outcome().is_ok()));
    victims
}

fn changes(random: &mut Random) -> [F; 3] {
    [F::ONE, -F::ONE, F::from_u64(random.next() >> 1)]
}

/// A cell of a clear input is tied to the statement, of a committed one it *is* the statement: it may change where the output does not.
fn is_statement(f: &Forgery<'_>, s: StorageId) -> bool {
    matches!(f.layout.storages[s].home, Home::Port(_) | Home::Model)
}

/// All cells but multiplicities, against the constraints themselves, accumulators recomputed: this covers every choice of multiplicities.
#[test]
fn no_cell_is_free() {
    let committed = [false, true];
    for victim in everything(&committed, true) {
        let honest = victim.forge_form(&committed, &[&Random(3).int8(126)]);
        assert!(is_satisfied(&honest.layout, &honest.witness, &honest.ports));
        let multiplicities: Vec<StorageId> = honest.layout.tables.iter().map(|t| t.multiplicities).collect();
        let mut random = Random(17);
        let cells: Vec<(StorageId, usize, [F; 3])> = (0..honest.layout.storages.len())
            .filter(|&s| !multiplicities.contains(&s) && honest.layout.storages[s].home != Home::Model)
            .flat_map(|s| (0..honest.witness.storages[s].len()).map(move |at| (s, at)))
            .map(|(s, at)| (s, at, changes(&mut random)))
            .collect();
        let constants: Vec<Vec<F>> = victim.key.weights.values.iter().map(|v| v.iter().map(|&x| from_i64(x.into())).collect()).collect();
        let free: Vec<_> = cells
            .par_iter()
            .flat_map_iter(|&(s, at, by)| by.into_iter().map(move |by| (s, at, by)))
            .filter(|&(s, at, by)| {
                let mut w = honest.witness.clone();
                w.storages[s][at] += by;
                for a in 0..w.accumulators.len() {
                    w.accumulators[a] = accumulator(&honest.layout, &w, &|id| constants[id as usize].clone(), a);
                }
                is_satisfied(&honest.layout, &w, &honest.ports)
            })
            .collect();
        assert_eq!(free, []);
        assert!(cells.len() > 3000, "{}", cells.len());
    }
}

/// A few cells of each storage with whole proofs: multiplicities counted again and not.
#[test]
fn no_proof_with_one_changed_cell_passes() {
    for (committed, inside) in [([false, true], true), ([true, false], false)] {
        for victim in everything(&committed, inside) {
            let honest = victim.forge_form(&committed, &[&Random(3).int8(126)]);
            let multiplicities: Vec<StorageId> = honest.layout.tables.iter().map(|t| t.multiplicities).collect();
            let mut random = Random(18);
            for s in 0..honest.layout.storages.len() {
                for (by, counted) in changes(&mut random).into_iter().zip([true, false, true]) {
                    let at = (random.next() % honest.witness.storages[s].len() as u64) as usize;
                    let mut f = honest.copy();
                    f.witness.storages[s][at] += by;
                    if is_statement(&f, s) {
                        // Computes with the honest value: another statement, or another model, may well have the same output.
                        f.committed = Some(f.witness.clone());
                        f.witness = honest.witness.clone();
                        if f.layout.storages[s].home == Home::Model {
                            continue; // the model's oracle belongs to the key: `wiring` attacks it
                        }
                        assert!(f.two_faced().is_err(), "storage {s} cell {at}");
                    } else {
                        f.reaccumulate();
                        // Counting again would mend a multiplicity.
                        let f = if counted && !multiplicities.contains(&s) { f } else { f.uncounted() };
                        assert!(f.outcome().is_err(), "storage {s} cell {at} counted {counted}");
                    }
                }
            }
        }
    }
}
