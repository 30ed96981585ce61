//! Exhaustive neighbours: for every accumulator near a threshold, every value before the clamp near the true one, with every choice of signs
//! and the only limbs that could fit. Against the constraints themselves; whole proofs for a sample.

use nexus_edge_core::field::{centred, from_i64};
use nexus_edge_core::layout::{Form, Layout};
use nexus_edge_core::program::builder::{Convolution, ProgramBuilder};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::quantize::Staircase;
use nexus_edge_core::program::{DType, Edge, Formula, Op, Rule, Semantics, Weights, private};
use nexus_edge_core::prover::values::Witness;

use crate::forge::{Group, LOOKUPS, Victim, groups, softmax_cells};
use crate::ideal::violated_lookup;
use crate::support::private::private_form;
use crate::support::{Random, multiplier, nets, window};

/// One input and one channel for each multiplier; weight 127.
fn channels(random: &mut Random, n: u32, clamp: (i32, i32), zero: i32, single_rounding: bool, range_bits: u8) -> (CheckedProgram, Weights) {
    let mut b = ProgramBuilder::new("channels", if single_rounding { Semantics::Litert23Ref } else { Semantics::Tflm });
    let x = b.tensor("x", DType::Int8, &[1, 4], Some(0.1), 0).expect("tensor");
    let y = b.tensor("y", DType::Int8, &[1, n], Some(0.1), zero).expect("tensor");
    b.input(x, Edge::Integer).expect("input");
    let c = Convolution {
        x,
        out: y,
        window: window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
        dims: &[n, 1, 1, 4],
        weights: (0..4 * n).map(|_| random.within(60, 127) as i32).collect(),
        bias: Some((0..n).map(|_| random.within(-9000, 9000) as i32).collect()),
        x_zero: 0,
        multipliers: (0..n).map(|_| multiplier((-1.0 - 8.0 * random.unit()).exp2())).collect(),
        clamp,
        depthwise: false,
        single_rounding,
    };
    b.conv("conv", c).expect("conv");
    b.output(y, Edge::Integer).expect("output");
    b.finish(Some(range_bits)).expect("a valid program")
}

/// Accumulators within 2 of each threshold of a channel that an input can reach.
fn near_thresholds(staircase: Staircase, low: i64, high: i64, first: i64, last: i64) -> Vec<i64> {
    let mut out: Vec<i64> =
        (first..=last).flat_map(|v| (-2..=2).map(move |d| (v, d))).map(|(v, d)| staircase.threshold(v) + d).chain([low, high]).collect();
    out.retain(|acc| (low..=high).contains(acc));
    out.sort_unstable();
    out.dedup();
    out
}

/// Signs that a cheat may claim.
fn signs(g: &Group) -> Vec<Option<(i64, i64)>> {
    match g.cells.signs {
        None => vec![None],
        Some(_) => [(0, 0), (0, 1), (1, 0), (1, 1)].map(Some).to_vec(),
    }
}

/// All candidates of one activation against the lookups; the accepted outputs.
pub fn accepted(layout: &Layout, g: &Group, witness: &mut Witness, at: usize, acc: i64, honest: i64) -> Vec<i64> {
    let (position, j) = (at / g.channels.len(), at % g.channels.len());
    let line = g.line(position, j);
    let width = layout.accumulators[g.accumulator].channels;
    witness.accumulators[g.accumulator][position * width + g.channels.get(j)] = from_i64(acc);
    let mut out = Vec::new();
    for v in honest - 3..=honest + 3 {
        for s in signs(g) {
            let b = |n: i64| if n == 1 { line.b_neg } else { line.b_pos };
            let (n1, n2) = s.unwrap_or((0, 0));
            let low = acc * line.a + b(n1) - line.d * v;
            let high = line.d - 1 - (acc * line.a + b(n2) - line.d * v);
            let mut set = |s: usize, v: i64| witness.storages[s][at] = from_i64(v);
            set(g.cells.v, v);
            set(g.cells.y, v.clamp(g.clamp.0, g.clamp.1));
            if let Some((c1, c2)) = g.cells.signs {
                set(c1, n1);
                set(c2, n2);
            }
            if let Some((h1, h2)) = g.cells.limbs {
                set(h1, low >> layout.range_bits);
                set(h2, high >> layout.range_bits);
            }
            if violated_lookup(layout, witness).is_none() {
                out.push(v.clamp(g.clamp.0, g.clamp.1));
            }
        }
    }
    out
}

#[test]
fn lines_accept_one_value_for_every_accumulator_near_a_threshold() {
    let mut random = Random(31);
    let (mut tried, mut two, mut limbs) = ([0, 0], 0, 0);
    for round in 0..10 {
        let (clamp, zero) = [((-128, 127), 0), ((-128, 127), 17), ((-20, 127), -20), ((-100, 90), -128)][round % 4];
        let public = channels(&mut random, 3, clamp, zero, round % 3 == 2, [16, 9, 12][round % 3]);
        // A private line is right for every accumulator there is.
        let private = private_form(&public.0, &public.1).expect("a private form");
        for (program, weights) in [public, private] {
            let layout = Layout::new(&program, Form { committed: vec![true, false], committed_weights: false }).expect("a layout");
            let Some(Op::Rescale(r)) = program.ops.iter().find(|op| matches!(op, Op::Rescale(_))) else { panic!("no rescale") };
            let staircases: Vec<Staircase> = match &r.formula {
                Formula::DoubleRounding(m) => m.iter().map(|&m| Staircase::Double(m)).collect(),
                Formula::SingleRounding(m) => m.iter().map(|&m| Staircase::Single(m)).collect(),
                _ => panic!("another formula"),
            };
            let executor = nexus_edge_core::exec::Executor::new(std::sync::Arc::new(program.clone()), &weights).expect("weights fit");
            let trace = executor.run(&[&[1, 2, 3, 4]], 1, true).expect("defined");
            let honest = nexus_edge_core::prover::witness::fill(&layout, &weights, &trace);
            for g in groups(&layout, r.out) {
                (two, limbs) = (two + usize::from(g.cells.signs.is_some()), limbs + usize::from(g.cells.limbs.is_some()));
                for j in 0..g.channels.len() {
                    let channel = g.channels.get(j);
                    let Rule::Line { low, high, .. } = r.rules[channel] else { panic!("a constant") };
                    let (first, last) = (g.clamp.0 - i64::from(zero) - 2, g.clamp.1 - i64::from(zero) + 2);
                    let mut witness = honest.clone();
                    // Beyond it the registration keeps accumulators away.
                    let span = program.log_bound(r.acc).map(|bits| private::span(bits, g.zero));
                    for acc in near_thresholds(staircases[channel], low, high, first, last) {
                        let want = staircases[channel].value(acc) + i64::from(zero);
                        let v = g.line(0, j).value(acc, g.zero);
                        let all = accepted(&layout, &g, &mut witness, j, acc, v);
                        let (outside, beyond) =
                            span.map_or((false, false), |(low, high)| (v < low || v > high, v < low - 300 || v > high + 300));
                        if beyond {
                            assert!(all.is_empty(), "channel {channel} acc {acc}: {all:?}");
                        } else if !outside {
                            assert_eq!(all, [want.clamp(g.clamp.0, g.clamp.1)], "channel {channel} acc {acc}");
                            tried[usize::from(span.is_some())] += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(
        tried.iter().all(|&n| n > 5_000) && two > 0 && limbs > 0,
        "{tried:?} accumulators, {two} groups of two offsets, {limbs} with limbs"
    );
}

#[test]
fn proofs_of_neighbouring_values_are_refused() {
    let mut random = Random(32);
    for victim in Victim::each(channels(&mut random, 3, (-128, 127), 17, false, 9), true) {
        for x in [[1, 2, 3, 4], [-100, 90, 3, -4]] {
            let honest = victim.forge(&[&x]);
            for g in honest.groups("y") {
                for j in 0..g.channels.len() {
                    let acc = centred(honest.witness.accumulators[g.accumulator][g.channels.get(j)]);
                    let v = honest.get(g.cells.v, j);
                    for by in [-3, -2, -1, 1, 2, 3] {
                        let f = honest.copy().with(|f| {
                            f.digitise(&g, j, acc, v + by);
                            f.claim();
                        });
                        assert_eq!(f.outcome(), LOOKUPS, "acc {acc} v {v} {by}");
                    }
                }
            }
        }
    }
}

/// Every output of a softmax row, and its quotient and value before the clamp, near the true ones.
#[test]
fn softmax_accepts_one_value() {
    for victim in Victim::each(nets::softmax(1, 8), true) {
        let mut random = Random(33);
        for _ in 0..3 {
            let x: Vec<i16> = (0..8).map(|_| random.within(-30, 20) as i16).collect();
            let honest = victim.forge(&[&x]);
            let c = softmax_cells(&honest.layout);
            for at in 0..8 {
                for (dv, dq) in (-3..=3).flat_map(|v| (-3..=3).map(move |q| (v, q))).filter(|&d| d != (0, 0)) {
                    let mut f = honest.copy();
                    f.bump(c.v, at, dv);
                    f.bump(c.quotient, at, dq);
                    let v = f.get(c.v, at);
                    f.set(c.y, at, v.clamp(-128, 127));
                    crate::softmaxes::refit(&mut f);
                    assert!(violated_lookup(&f.layout, &f.witness).is_some(), "class {at} v {dv:+} quotient {dq:+}");
                }
                let f = honest.copy().with(|f| {
                    f.bump(c.v, at, 1);
                    f.bump(c.y, at, 1);
                    crate::softmaxes::refit(f);
                });
                assert_eq!(f.outcome(), LOOKUPS);
            }
        }
    }
}
