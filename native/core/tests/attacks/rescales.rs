//! Attacks on requantisations: wrong values, signs, limbs and clamps.

use nexus_edge_core::layout::{Layout, Lookup, Source, TableKind};

use crate::forge::{Forgery, Group, LOOKUPS, OPENING, Victim, uses};
use crate::support::{self, Random};

/// The range check of one side of a rescale: the accumulator enters the lower one with `+`, the upper one with `-`.
fn side(g: &Group, sign: i64) -> impl Fn(&Layout, &Lookup) -> bool {
    let g = g.clone();
    move |_, k| k.entries.iter().flatten().any(|t| t.source == Source::Accumulator(g.accumulator) && t.scale == sign) && uses(k, g.cells.v)
}

fn clamp_of(g: &Group) -> impl Fn(&Layout, &Lookup) -> bool {
    let g = g.clone();
    move |layout, k| matches!(layout.tables[k.table].kind, TableKind::Clamp(..)) && uses(k, g.cells.y)
}

fn dense() -> Victim {
    Victim::new(support::dense_with(1, 20, 7, 16), true)
}

/// A run of the dense network and an activation inside the clamp, of channels with or without limbs: group, cell, accumulator.
fn dense_cell(victim: &Victim, limbs: bool) -> (Forgery<'_>, Group, usize, i64) {
    let x = Random(3).int8(20);
    let f = victim.forge(&[&x]);
    let g = f.groups("y").into_iter().find(|g| g.cells.limbs.is_some() == limbs).expect("such a group");
    let inside = |at: &usize| (g.clamp.0 + 2..g.clamp.1 - 2).contains(&f.get(g.cells.v, *at));
    let at = (0..g.channels.len()).find(inside).expect("a value inside the clamp");
    let acc = i64::from(f.trace.accumulators[g.accumulator][g.channels.get(at)]);
    (f, g, at, acc)
}

#[test]
fn honest_runs_are_accepted() {
    for inside in [false, true] {
        for (victim, size) in [(Victim::new(support::dense(1, 20, 7), inside), 20), (Victim::new(support::everything(3, 10), inside), 126)] {
            let x = Random(3).int8(size);
            let mut f = victim.forge(&[&x]);
            let (statement, proof) = f.proof();
            assert_eq!(f.outcome(), Ok(()));
            let honest = f.witness.clone();
            f.reaccumulate();
            assert_eq!(honest.accumulators, f.witness.accumulators);
            victim.program().tensors.iter().for_each(|t| f.rescale(&t.name));
            f.claim();
            assert_eq!(honest.storages, f.witness.storages);
            assert_eq!((statement, proof), f.proof(), "proofs are deterministic");
        }
    }
}

#[test]
fn a_clear_output_off_by_one() {
    let victim = dense();
    let (mut f, ..) = dense_cell(&victim, false);
    f.ports[1][2] -= 1;
    assert_eq!(f.outcome(), OPENING);
    assert_eq!(f.without_tie("y"), Ok(()));
}

#[test]
fn an_output_cell_off_by_one() {
    let victim = dense();
    let (mut f, g, at, _) = dense_cell(&victim, false);
    f.bump(g.cells.y, at, 1);
    f.claim();
    assert_eq!(f.outcome(), LOOKUPS);
    assert_eq!(f.without(clamp_of(&g)), Ok(()));
}

#[test]
fn output_and_preclamp_value_off_by_one() {
    let victim = dense();
    for (by, sign) in [(-1, -1), (1, 1)] {
        let (mut f, g, at, _) = dense_cell(&victim, false);
        f.bump(g.cells.y, at, by);
        f.bump(g.cells.v, at, by);
        f.claim();
        assert_eq!(f.outcome(), LOOKUPS);
        // Both checks are needed: without the other one the forgery still fails.
        assert_eq!(f.without(side(&g, -sign)), LOOKUPS);
    }
}

#[test]
fn a_value_one_lower_or_higher_with_limbs_that_fit() {
    let victim = Victim::new(support::dense(1, 20, 7), true);
    for (by, check) in [(-1, -1), (1, 1)] {
        let (mut f, g, at, acc) = dense_cell(&victim, true);
        let (h1, h2) = g.cells.limbs.expect("a denominator above the range table");
        let v = f.get(g.cells.v, at) + by;
        f.digitise(&g, at, acc, v);
        f.claim();
        assert_eq!(f.outcome(), LOOKUPS);
        // The limb of the violated check would be negative; so it is not enough to take away the check of the rest.
        assert_eq!(f.without(side(&g, check)), LOOKUPS);
        let limb = if by < 0 { h2 } else { h1 };
        assert_eq!(f.without(|_, k| uses(k, limb)), Ok(()));
    }
}

#[test]
fn a_negative_limb_with_a_forged_multiplicity() {
    let victim = Victim::new(support::dense(1, 20, 7), true);
    let (mut f, g, at, acc) = dense_cell(&victim, true);
    let v = f.get(g.cells.v, at) - 1;
    f.digitise(&g, at, acc, v);
    f.claim();
    for row in [0, 1, (1 << f.layout.range_bits) - 1] {
        let f = f.copy().with(|f| f.miscount(TableKind::Range, row, 1));
        assert_eq!(f.outcome(), LOOKUPS);
    }
}

#[test]
fn a_relu_or_clamp_dropped() {
    // c1 has a fused ReLU: its clamp starts at its zero point, -20.
    let victim = Victim::new(support::everything(3, 10), true);
    let x = Random(3).int8(126);
    let f = victim.forge(&[&x]);
    let g = f.groups("c1").remove(0);
    let at = (0..f.witness.storages[g.cells.v].len()).find(|&at| (-128..-20).contains(&f.get(g.cells.v, at))).expect("a clamped value");
    let v = f.get(g.cells.v, at);
    let (p, c) = (at / g.channels.len(), g.channels.get(at % g.channels.len()));
    let f = f.tensor("c1", |t| t[p * 5 + c] = v as i16);
    assert_eq!(f.outcome(), LOOKUPS);
    assert_eq!(f.without(clamp_of(&g)), Ok(()));
}
