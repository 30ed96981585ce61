//! Exhaustive neighbours of the gadgets that `gadgets` leaves: averages, means, sums by a plane, max pools, clamps, tables, and every cell of a
//! softmax. Everything that a cheat can fit to the false value is fitted. Against the constraints themselves, which cover every choice of
//! multiplicities; whole proofs for a sample.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::field::from_i64;
use nexus_edge_core::layout::{Form, Layout, Recipe, SoftmaxCells, Source, StorageId, Term};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::quantize::{Staircase, high_half};
use nexus_edge_core::program::softmax::{Exponentials, NEWTON};
use nexus_edge_core::program::{Contract, Formula, Op, Rule, Weights};
use nexus_edge_core::prover::values::Witness;
use nexus_edge_core::prover::witness::fill;
use rayon::prelude::*;

use crate::forge::{Forgery, LOOKUPS, Victim, groups, softmax_cells, uses};
use crate::gadgets::accepted;
use crate::ideal::{violated_lookup, violated_lookups};
use crate::pools::{CHANNELS, taps, window};
use crate::softmaxes::refit;
use crate::support::private::private_form;
use crate::support::{Random, nets};

fn both(program: (CheckedProgram, Weights)) -> [(CheckedProgram, Weights); 2] {
    let private = private_form(&program.0, &program.1).expect("a private form");
    [program, private]
}

/// The structure with committed inputs and clear outputs, and an honest witness.
fn honest(program: &CheckedProgram, weights: &Weights, inputs: &[&[i16]]) -> (Layout, Witness) {
    let committed = [vec![true; program.inputs.len()], vec![false; program.outputs.len()]].concat();
    let layout = Layout::new(program, Form { committed, committed_weights: false }).expect("a layout");
    let executor = Executor::new(Arc::new(program.clone()), weights).expect("weights fit");
    let witness = fill(&layout, weights, &executor.run(inputs, 1, true).expect("defined"));
    (layout, witness)
}

/// Every sum that a window can have, on every kind of position.
#[test]
fn averages_and_means_accept_one_value_for_every_sum() {
    let (mut sums, mut kinds) = (0, 0);
    for (program, weights) in [nets::average_pool(), nets::mean()].into_iter().flat_map(both) {
        let size: usize = program.tensors[program.inputs[0].tensor as usize].size();
        let (layout, witness) = honest(&program, &weights, &[&Random(41).int8(size)]);
        let Some(Op::Rescale(r)) = program.ops.iter().find(|op| matches!(op, Op::Rescale(_))) else { panic!("no rescale") };
        let Some(window) = program.ops.iter().find_map(|op| match op {
            Op::Contract { contract: Contract::Sum { window, .. }, .. } => Some(*window),
            _ => None,
        }) else {
            panic!("no sum")
        };
        for g in groups(&layout, r.out) {
            let mut lines = Vec::new();
            for at in 0..layout.storages[g.cells.v].positions * g.channels.len() {
                let (position, j) = (at / g.channels.len(), at % g.channels.len());
                let line = g.line(position, j);
                let which = if r.by_position { position } else { g.channels.get(j) };
                let Rule::Line { low, high, .. } = r.rules[which] else { panic!("a constant") };
                if lines.contains(&(line, low, high)) {
                    continue;
                }
                lines.push((line, low, high));
                let columns = window.output.1 as usize;
                let staircase = match &r.formula {
                    Formula::AveragePool => Staircase::Average(window.valid(position / columns, position % columns) as i64),
                    Formula::DoubleRounding(m) => Staircase::Double(m[g.channels.get(j)]),
                    _ => panic!("another formula"),
                };
                let mut witness = witness.clone();
                for acc in low..=high {
                    let want = (staircase.value(acc) + i64::from(r.zero)).clamp(g.clamp.0, g.clamp.1);
                    let all = accepted(&layout, &g, &mut witness, at, acc, line.value(acc, g.zero));
                    assert_eq!(all, [want], "{staircase:?} sum {acc}");
                    sums += 1;
                }
            }
            kinds += lines.len();
        }
    }
    assert!(sums > 10_000 && kinds >= 8, "{sums} sums, {kinds} kinds of positions");
}

#[test]
fn proofs_of_neighbouring_averages_and_means_are_refused() {
    for (net, cells) in [(nets::average_pool(), 32), (nets::mean(), 2)] {
        for victim in Victim::each(net, true) {
            let size = victim.program().tensors[victim.program().inputs[0].tensor as usize].size();
            let honest = victim.forge(&[&Random(42).int8(size)]);
            for g in honest.groups("y") {
                for at in (0..cells.min(honest.witness.storages[g.cells.v].len())).step_by(5) {
                    let position = at / g.channels.len();
                    let width = honest.layout.accumulators[g.accumulator].channels;
                    let acc = nexus_edge_core::field::centred(
                        honest.witness.accumulators[g.accumulator][position * width + g.channels.get(at % g.channels.len())],
                    );
                    let v = honest.get(g.cells.v, at);
                    for by in [-1, 1] {
                        let f = honest.copy().with(|f| {
                            f.digitise(&g, at, acc, v + by);
                            f.claim();
                        });
                        assert_eq!(f.outcome(), LOOKUPS, "cell {at} {by:+}");
                    }
                }
            }
        }
    }
}

/// Every pair of operands.
#[test]
fn sums_by_a_plane_accept_one_value_for_every_pair() {
    let mut planes = [0, 0];
    let scales = [0.021, 0.031_373, 0.05, 0.049_825_795, 0.0537];
    for ((program, weights), subtract) in
        scales.into_iter().flat_map(|s| [false, true].map(|subtract| (nets::addition(s, subtract), usize::from(subtract))))
    {
        let (layout, witness) = honest(&program, &weights, &[&[0], &[0]]);
        // Without a plane it is a table of two inputs.
        let Some(Op::Rescale(r)) = program.ops.iter().find(|op| matches!(op, Op::Rescale(_))) else { continue };
        planes[subtract] += 1;
        let Some(Contract::Mix { terms }) = program.ops.iter().find_map(|op| match op {
            Op::Contract { contract, .. } => Some(contract),
            _ => None,
        }) else {
            panic!("no mix")
        };
        let executor = Executor::new(Arc::new(program.clone()), &weights).expect("weights fit");
        let [g] = &groups(&layout, r.out)[..] else { panic!("one cell is one group") };
        (-128..128i16).into_par_iter().for_each(|x1| {
            let mut witness = witness.clone();
            for x2 in -128..128i16 {
                let want = executor.run(&[&[x1], &[x2]], 1, false).expect("defined").tensor(r.out)[0];
                let acc = terms[0].0 * i64::from(x1) + terms[1].0 * i64::from(x2);
                let all = accepted(&layout, g, &mut witness, 0, acc, g.line(0, 0).value(acc, g.zero));
                assert_eq!(all, [i64::from(want)], "{x1} and {x2}");
            }
        });
    }
    assert!(planes.iter().all(|&n| n > 0), "{planes:?}");
}

/// Every value of the dtype as the maximum: on windows of four cells with every choice of indicators, on larger ones with those that fit it and
/// with one more set.
#[test]
fn max_pools_accept_one_value() {
    let inputs = [Random(43).int8(32), vec![7; 32], (0..32).map(|i| [127, -128, 0, 127][i % 4]).collect()];
    for (victim, x) in Victim::each(nets::max_pool(), true).iter().flat_map(|v| inputs.iter().map(move |x| (v, x))) {
        let honest = victim.forge(&[x]);
        let (y_cells, all_taps) = (honest.storage("y"), taps(&honest.layout).len());
        assert_eq!(all_taps, 9);
        let found: Vec<(usize, i64)> = (0..16 * CHANNELS)
            .into_par_iter()
            .flat_map_iter(|at| {
                let cells = window(&honest, at / CHANNELS, at % CHANNELS);
                let mut witness = honest.witness.clone();
                let mut found = Vec::new();
                for y in -129..=128i64 {
                    let fitted: Vec<bool> = cells.iter().map(|c| c.0 == y).collect();
                    let choices: Vec<Vec<bool>> = if cells.len() == 4 {
                        (0..16).map(|set| (0..4).map(|k| set >> k & 1 == 1).collect()).collect()
                    } else {
                        let one_more = (0..cells.len())
                            .filter(|&k| !fitted[k])
                            .map(|k| fitted.iter().enumerate().map(|(i, &z)| z || i == k).collect());
                        std::iter::once(fitted.clone()).chain(one_more).collect()
                    };
                    witness.storages[y_cells][at] = from_i64(y);
                    for choice in choices {
                        for (&(_, z, place), &is) in cells.iter().zip(&choice) {
                            witness.storages[z][place] = from_i64(is.into());
                        }
                        if violated_lookup(&honest.layout, &witness).is_none() {
                            assert_eq!(choice, fitted);
                            found.push((at, y));
                        }
                    }
                }
                found.dedup();
                found
            })
            .collect();
        let want: Vec<(usize, i64)> = (0..16 * CHANNELS).map(|at| (at, honest.get(y_cells, at))).collect();
        assert_eq!(found, want);
    }
}

/// Every output for every value before a clamp: of a max pool, whose maximum is fitted too, and of a line.
#[test]
fn clamps_accept_one_value() {
    for victim in Victim::each(nets::clamped_max_pool(), true) {
        for maximum in -128..=127i16 {
            let honest = victim.forge(&[&[-128, maximum, -128, -128, 3, 1, 2, 3]]);
            let y = honest.storage("y");
            let mut witness = honest.witness.clone();
            let all: Vec<i64> = (-129..=128)
                .filter(|&v| {
                    witness.storages[y][0] = from_i64(v);
                    violated_lookup(&honest.layout, &witness).is_none()
                })
                .collect();
            assert_eq!(all, [i64::from(maximum).clamp(-10, 90)]);
        }
    }
    for victim in Victim::each(nets::two_offsets(), true) {
        for x in (-128..128i16).step_by(3) {
            let honest = victim.forge(&[&[x]]);
            for g in honest.groups("y") {
                for at in 0..g.channels.len() {
                    let mut witness = honest.witness.clone();
                    let all: Vec<i64> = (-129..=128)
                        .filter(|&v| {
                            witness.storages[g.cells.y][at] = from_i64(v);
                            violated_lookup(&honest.layout, &witness).is_none()
                        })
                        .collect();
                    assert_eq!(all, [honest.get(g.cells.y, at)]);
                }
            }
        }
    }
}

/// Every output for every value of a table of one input; neighbours and the outputs of neighbouring rows for every pair of a table of two.
#[test]
fn tables_accept_one_value() {
    let program = nets::tables();
    let kinds: Vec<Vec<i16>> = program.0.tables.iter().map(|t| t.values.clone()).collect();
    let (one, two) = (kinds.iter().find(|t| t.len() == 256).expect("a table"), kinds.iter().find(|t| t.len() == 65536).expect("a table"));
    for victim in Victim::each(program, true) {
        let honest = victim.forge(&[&[0; 8]]);
        let (x, t, y) = (honest.storage("x"), honest.storage("t"), honest.storage("y"));
        let accepts = |witness: &Witness| violated_lookup(&honest.layout, witness).is_none();
        let row = |x: i64| (x + 128) as usize;
        (-128..128i64).into_par_iter().for_each(|x_value| {
            let mut witness = honest.witness.clone();
            witness.storages[x][0] = from_i64(x_value);
            for t_value in -129..=128 {
                witness.storages[t][0] = from_i64(t_value);
                let right = i64::from(two[row(x_value) * 256 + row(t_value.clamp(-128, 127))]);
                witness.storages[y][0] = from_i64(right);
                assert_eq!(accepts(&witness), t_value == i64::from(one[row(x_value)]), "{x_value} to {t_value}");
            }
            // The pair that can occur with this input, with every output.
            let t_value = i64::from(one[row(x_value)]);
            witness.storages[t][0] = from_i64(t_value);
            for y_value in -129..=128 {
                witness.storages[y][0] = from_i64(y_value);
                assert_eq!(accepts(&witness), y_value == i64::from(two[row(x_value) * 256 + row(t_value)]), "{x_value} to {y_value}");
            }
        });
    }
}

/// A row as the algorithm computes it when some of its values are false: `say(cell, place, value)` gives what is committed, and all that follows
/// from.
fn row(f: &mut Forgery<'_>, c: &SoftmaxCells, exps: &Exponentials, scores: &[i16], say: impl Fn(StorageId, usize, i64) -> i64) {
    let put = |f: &mut Forgery<'_>, s: StorageId, at: usize, honest: i64| {
        let value = say(s, at, honest);
        f.set(s, at, value);
        value
    };
    let maximum = put(f, c.maximum, 0, scores.iter().copied().max().unwrap_or(0).into());
    let (mut sum, mut fine) = (0, Vec::new());
    for (j, &x) in scores.iter().enumerate() {
        let d = maximum - i64::from(x);
        let at = d.clamp(0, 255) as usize;
        fine.push(put(f, c.exp, j, exps.fine[at].into()));
        sum += put(f, c.rounded, j, exps.coarse[at].into());
        put(f, c.is_max, j, (d == 0).into());
    }
    let zeros = i64::from((sum as u32).leading_zeros());
    let headroom = 4 + put(f, c.headroom, 0, zeros - 4);
    let power = put(f, c.power, 0, 1 << headroom.clamp(0, 30));
    let half_unit = put(f, c.half_power, 0, 1 << (34 - headroom).clamp(0, 34)).max(1);
    let half = put(f, c.half, 0, sum * power / 2);
    let mut x = NEWTON.0 + put(f, c.q0, 0, high_half(half.wrapping_mul(NEWTON.1)));
    for i in 0..3 {
        let h = put(f, c.h[i], 0, high_half(half.wrapping_mul(x)));
        x = x.wrapping_add(4 * put(f, c.k[i], 0, high_half(x.wrapping_mul((1 << 29) - h))));
    }
    let saturated = put(f, c.saturated, 0, (x == 1 << 30).into());
    let scale = 2 * x - saturated;
    for (j, fine) in fine.into_iter().enumerate() {
        let quotient = put(f, c.quotient, j, high_half(fine.wrapping_mul(scale)));
        let v = put(f, c.v, j, (quotient + half_unit).div_euclid(2 * half_unit) - 128);
        put(f, c.y, j, v.clamp(-128, 127));
    }
    refit(f);
}

/// For each lookup the first that belongs to the same check: a range check of several limbs has one for each, and one more for its highest.
fn checks(layout: &Layout) -> Vec<usize> {
    let limbs: Vec<Vec<StorageId>> =
        layout.recipes.iter().filter_map(|r| if let Recipe::Limbs(r) = r { Some(r.limbs.clone()) } else { None }).collect();
    let check = |at: usize| limbs.iter().position(|l| l.iter().any(|&s| uses(&layout.lookups[at], s)));
    (0..layout.lookups.len()).map(|at| (0..at).find(|&b| check(at).is_some() && check(b) == check(at)).unwrap_or(at)).collect()
}

const SCORES: [[i16; 3]; 6] = [[5, 3, 0], [127, -128, -128], [10, 10, 10], [0, -20, -128], [-128, -128, 40], [1, 0, 1]];

/// Every cell of a row near its true value, everything after it computed from the false one; then every two of them.
#[test]
fn every_cell_of_a_softmax_accepts_one_value() {
    for victim in Victim::each(nets::softmax(1, 3), true) {
        let Some(&Op::Softmax { multiplier, shift, .. }) = victim.program().ops.first() else { panic!("not a softmax") };
        let exps = Exponentials::new(multiplier, shift);
        let checks = checks(&victim.forge(&[&SCORES[0]]).layout);
        let (tried, alone): (usize, BTreeSet<usize>) = SCORES
            .par_iter()
            .map(|scores| {
                let mut f = victim.forge(&[scores]);
                let c = softmax_cells(&f.layout);
                let (witness, ports) = (f.witness.clone(), f.ports.clone());
                row(&mut f, &c, &exps, scores, |_, _, honest| honest);
                assert_eq!((&f.witness.storages, &f.witness.accumulators), (&witness.storages, &witness.accumulators));
                let narrow = [c.maximum, c.headroom, c.power, c.half_power, c.half, c.q0, c.saturated];
                let wide = [c.exp, c.rounded, c.is_max, c.quotient, c.v, c.y];
                let cells: Vec<(StorageId, usize)> = narrow
                    .into_iter()
                    .chain(c.h)
                    .chain(c.k)
                    .map(|s| (s, 0))
                    .chain(wide.into_iter().flat_map(|s| (0..3).map(move |j| (s, j))))
                    .collect();
                let (mut tried, mut alone) = (0, BTreeSet::new());
                let mut attempt = |lies: &[((StorageId, usize), i64)]| {
                    f.witness.clone_from(&witness);
                    f.ports.clone_from(&ports);
                    let lie = |s, at, honest: i64| honest + lies.iter().find(|l| l.0 == (s, at)).map_or(0, |l| l.1);
                    row(&mut f, &c, &exps, scores, lie);
                    let violated: BTreeSet<usize> = violated_lookups(&f.layout, &f.witness).map(|at| checks[at]).collect();
                    assert!(!violated.is_empty(), "{scores:?}: {lies:?}");
                    if violated.len() == 1 {
                        alone.extend(violated);
                    }
                    tried += 1;
                };
                for &cell in &cells {
                    let reach = if cell.0 == c.maximum { 255 } else { 40 };
                    (-reach..=reach).filter(|&by| by != 0).for_each(|by| attempt(&[(cell, by)]));
                }
                for (i, &first) in cells.iter().enumerate() {
                    for &second in &cells[i + 1..] {
                        for by in [(-2, 1), (-1, -1), (-1, 1), (1, -1), (1, 1), (2, -1)] {
                            attempt(&[(first, by.0), (second, by.1)]);
                        }
                    }
                }
                (tried, alone)
            })
            .reduce(|| (0, BTreeSet::new()), |(n, a), (m, b)| (n + m, &a | &b));
        // Every equation stops some neighbour alone. What is left are ranges: of the input, of the saturation's bit, and of the eight quotients,
        // which are there for values far away (`softmaxes::quotients_that_wrap`).
        if victim.program().private.is_none() {
            let layout = victim.forge(&[&SCORES[0]]).layout;
            let idle: BTreeSet<usize> = checks.iter().copied().filter(|check| !alone.contains(check)).collect();
            let is_range = |t: &Term| matches!(t.source, Source::Local(_) | Source::Tensor(_) | Source::One);
            assert!(idle.iter().all(|&at| layout.lookups[at].entries.iter().flatten().all(is_range)), "{idle:?}");
            assert_eq!(idle.len(), 1 + 2 + 8, "{idle:?}");
        }
        assert!(tried > 20_000, "{tried}");
        // Whole proofs, one lie in each kind of cell.
        let scores = SCORES[0];
        let c = softmax_cells(&victim.forge(&[&scores]).layout);
        let narrow = [c.maximum, c.headroom, c.power, c.half_power, c.half, c.q0, c.saturated, c.h[1], c.k[2]];
        for s in narrow.into_iter().chain([c.exp, c.rounded, c.is_max, c.quotient, c.v]) {
            let f = victim.forge(&[&scores]).with(|f| row(f, &c, &exps, &scores, |at, j, honest| honest + i64::from((at, j) == (s, 0))));
            assert_eq!(f.outcome(), LOOKUPS, "cell {s}");
        }
    }
}
