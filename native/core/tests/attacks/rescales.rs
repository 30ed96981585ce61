//! Attacks on requantisations: wrong values, signs, limbs and clamps.

use nexus_edge_core::field::from_i64;
use nexus_edge_core::layout::{Layout, Lookup, Source, TableKind};
use nexus_edge_core::parameters::Mode;
use p3_field::Field;

use crate::forge::{Forgery, Group, LOOKUPS, OPENING, Victim, goes_to, is_clamp, uses};
use crate::support::{self, Random, nets};

/// The range check of one side of a rescale: the accumulator enters the lower one with `+`, the upper one with `-`.
fn side(g: &Group, sign: i64) -> impl Fn(&Layout, &Lookup) -> bool {
    let g = g.clone();
    move |_, k| k.entries.iter().flatten().any(|t| t.source == Source::Accumulator(g.accumulator) && t.scale == sign) && uses(k, g.cells.v)
}

fn clamp_of(g: &Group) -> impl Fn(&Layout, &Lookup) -> bool {
    let g = g.clone();
    move |layout, k| is_clamp(layout, k) && uses(k, g.cells.y)
}

fn dense() -> [Victim; 2] {
    Victim::each(support::dense_with(1, 20, 7, 16), true)
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
        let dense = Victim::each(support::dense(1, 20, 7), inside).map(|victim| (victim, 20));
        let everything = Victim::each(support::everything(3, 10), inside).map(|victim| (victim, 126));
        for (victim, size) in dense.into_iter().chain(everything) {
            let x = Random(3).int8(size);
            let mut f = victim.forge(&[&x]);
            let (statement, proof) = f.proof(Mode::Plain);
            assert_eq!(f.outcome(), Ok(()));
            let honest = f.witness.clone();
            f.reaccumulate();
            assert_eq!(honest.accumulators, f.witness.accumulators);
            victim.program().tensors.iter().for_each(|t| f.rescale(&t.name));
            f.claim();
            assert_eq!(honest.storages, f.witness.storages);
            assert_eq!((statement, proof), f.proof(Mode::Plain), "plain proofs are deterministic");
        }
    }
}

#[test]
fn a_clear_output_off_by_one() {
    for victim in dense() {
        let (mut f, ..) = dense_cell(&victim, false);
        f.ports[1][2] -= 1;
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.without_tie("y"), Ok(()));
    }
}

#[test]
fn an_output_cell_off_by_one() {
    for victim in dense() {
        let (mut f, g, at, _) = dense_cell(&victim, false);
        f.bump(g.cells.y, at, 1);
        f.claim();
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(clamp_of(&g)), Ok(()));
    }
}

#[test]
fn output_and_preclamp_value_off_by_one() {
    for victim in dense() {
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
}

#[test]
fn a_value_one_lower_or_higher_with_limbs_that_fit() {
    for victim in Victim::each(support::dense(1, 20, 7), true) {
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
}

#[test]
fn a_negative_limb_with_a_forged_multiplicity() {
    for victim in Victim::each(support::dense(1, 20, 7), true) {
        let (mut f, g, at, acc) = dense_cell(&victim, true);
        let v = f.get(g.cells.v, at) - 1;
        f.digitise(&g, at, acc, v);
        f.claim();
        for row in [0, 1, (1 << f.layout.range_bits) - 1] {
            let f = f.copy().with(|f| f.miscount(TableKind::Range, row, 1));
            assert_eq!(f.outcome(), LOOKUPS);
        }
    }
}

#[test]
fn a_relu_or_clamp_dropped() {
    // c1 has a fused ReLU: its clamp starts at its zero point, -20.
    for victim in Victim::each(support::everything(3, 10), true) {
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
}

#[test]
fn a_tie_rounded_the_other_way() {
    // 2 / 4 is half way between 0 and 1, -2 / 4 between -1 and 0: away from zero. 1 / 4 is a tie of the first of two roundings.
    for victim in Victim::each(nets::quarter(), true) {
        for (x, honest, cheat) in [(2, 1, 0), (-2, -1, 0), (6, 2, 1), (-6, -2, -1), (1, 1, 0), (-1, 0, -1)] {
            let mut f = victim.forge(&[&[x]]);
            let g = f.groups("y").remove(0);
            assert_eq!(f.get(g.cells.y, 0), honest);
            f.digitise(&g, 0, x.into(), cheat);
            f.claim();
            assert_eq!(f.outcome(), LOOKUPS, "{x}");
            let (lower, upper) = (f.without(side(&g, 1)), f.without(side(&g, -1)));
            assert_eq!([lower, upper].iter().filter(|v| v.is_ok()).count(), 1, "{x}: one of the two checks stops it");
        }
    }
}

#[test]
fn a_false_sign_state_at_a_channel_of_two_offsets() {
    for victim in Victim::each(nets::two_offsets(), true) {
        let mut accepted = 0;
        for x in -128..128 {
            let f = victim.forge(&[&[x]]);
            let g = f.groups("y").into_iter().find(|g| g.cells.signs.is_some()).expect("a channel of two offsets");
            let (n1, n2) = g.cells.signs.expect("signs");
            let acc = i64::from(f.trace.accumulators[g.accumulator][g.channels.get(0)]);
            let (line, w) = (g.line(0, 0), f.layout.range_bits);
            let honest = f.get(g.cells.v, 0);
            for v in honest - 1..=honest + 1 {
                for (s1, s2) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    if (v, s1, s2) == (honest, i64::from(v <= g.zero), i64::from(v < g.zero)) {
                        continue;
                    }
                    let b = |s: i64| if s == 1 { line.b_neg } else { line.b_pos };
                    let (low, high) = (acc * line.a + b(s1) - line.d * v, line.d - 1 - (acc * line.a + b(s2) - line.d * v));
                    if low < 0 || high < 0 {
                        continue; // the range checks stop it whatever the signs
                    }
                    let f = f.copy().with(|f| {
                        f.digitise(&g, 0, acc, v);
                        f.set(n1, 0, s1);
                        f.set(n2, 0, s2);
                        if let Some((h1, h2)) = g.cells.limbs {
                            f.set(h1, 0, low >> w);
                            f.set(h2, 0, high >> w);
                        }
                        f.claim();
                    });
                    assert_eq!(f.outcome(), LOOKUPS, "acc {acc} v {v} signs {s1} {s2}");
                    assert_eq!(f.without(|layout, k| goes_to(layout, k, &TableKind::Sign)), Ok(()));
                    accepted += usize::from(v != honest);
                }
            }
        }
        assert!(accepted > 0, "without the sign table another value passes");
    }
}

#[test]
fn a_preclamp_value_outside_the_clamp_table() {
    for victim in dense() {
        let (f, g, at, acc) = dense_cell(&victim, false);
        for v in [1 << 20, -(1 << 20)] {
            let f = f.copy().with(|f| {
                f.digitise(&g, at, acc, v);
                f.claim();
            });
            assert_eq!(f.outcome(), LOOKUPS);
            assert_eq!(f.without(clamp_of(&g)), LOOKUPS, "the line's range checks stop it too");
        }
        // A value that makes R a small number modulo p is outside the tables: only they stop it.
        let line = g.line(0, at);
        let offset = if f.get(g.cells.v, at) > g.zero { line.b_pos } else { line.b_neg };
        let numerator = from_i64(acc * line.a + offset);
        for remainder in [0, 1, line.d - 1] {
            let v = (numerator - from_i64(remainder)) * from_i64(line.d).inverse();
            let f = f.copy().with(|f| {
                f.witness.storages[g.cells.v][at] = v;
                f.bump(g.cells.y, at, -1);
                f.claim();
            });
            assert_eq!(f.outcome(), LOOKUPS);
            assert_eq!(f.without(|layout, k| clamp_of(&g)(layout, k) || goes_to(layout, k, &TableKind::Sign)), Ok(()));
        }
    }
}

#[test]
fn a_value_outside_int8_between_layers() {
    for victim in Victim::each(nets::chain(), true) {
        let x = Random(4).int8(12);
        let mut f = victim.forge(&[&x]);
        let g = f.groups("h").remove(0);
        let at = (0..10).find(|&at| f.get(g.cells.v, at) > 127).expect("a clamped value");
        let v = f.get(g.cells.v, at);
        f.set(g.cells.y, at, v);
        f.reaccumulate();
        f.rescale("h");
        f.set(g.cells.y, at, v);
        f.rescale("y");
        f.claim();
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(clamp_of(&g)), Ok(()));
    }
}

#[test]
fn a_dead_channel_with_another_value() {
    // The second channel is 0, with multiplier 1e-9 for every input and with multiplier 0 for every accumulator.
    let dead = |multiplier| nets::scaled(&[(100, 0.01), (100, multiplier)]);
    for victim in Victim::each(dead(0.0), true).into_iter().chain([Victim::new(dead(1e-9), true)]) {
        let mut f = victim.forge(&[&[77]]);
        assert_eq!(f.ports[1], [77, 0]);
        f.ports[1][1] = 1;
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.without_tie("y"), Ok(()));
        // With a prover that believes in the other constant.
        let mut f = victim.forge(&[&[77]]);
        let y = victim.tensor("y") as usize;
        f.layout.views[y].constants = vec![(vec![1], vec![0, 1])];
        f.claim();
        assert_eq!(f.ports[1], [77, 1]);
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.against(|_| ()), Ok(()), "the constant is public: it is the verifier's layout that refuses");
    }
}

#[test]
fn an_average_divided_by_nine_everywhere() {
    for victim in Victim::each(nets::average_pool(), true) {
        let x = Random(5).int8(32);
        let mut f = victim.forge(&[&x]);
        let g = f.groups("y").remove(0);
        let nine = *g.lines.iter().max_by_key(|l| l.d).expect("lines");
        for at in 0..32 {
            let acc = i64::from(f.trace.accumulators[g.accumulator][at]);
            f.digitise(&g, at, acc, nine.value(acc, 0));
        }
        f.claim();
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(|layout, k| side(&g, 1)(layout, k) || side(&g, -1)(layout, k)), Ok(()));
    }
}
