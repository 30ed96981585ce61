//! Attacks on what is computed from what: weights, biases, inputs, windows, tables, views, copies.

use nexus_edge_core::field::from_i64;
use nexus_edge_core::layout::{AccumulatorKind, Layout, TableKind};
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::{Contract, DType, Weights};
use nexus_edge_core::proof::{Content, verify};
use nexus_edge_core::reject::{Reject, Verdict};

use crate::forge::{CONTEXT, Forgery, LOOKUPS, OPENING, Victim, goes_to, recompute};
use crate::support::{self, Random, nets};

/// Where an oracle is noticed that is not the one that was opened.
const ROWS: Verdict<()> = Err(Reject::Row { oracle: "combined polynomial" });

fn contract(layout: &mut Layout) -> &mut Contract {
    match &mut layout.accumulators[0].kind {
        AccumulatorKind::Contract { contract, .. } => contract,
        AccumulatorKind::Product { .. } => panic!("a product"),
    }
}

/// Changes of the weights of the convolution `[4, 3, 3, 3]` or its biases.
fn other_weights() -> Vec<(&'static str, fn(&mut Weights))> {
    vec![
        ("one weight", |w| w.values[0][13] += 60),
        ("channels swapped", |w| (0..27).for_each(|i| w.values[0].swap(i, 27 + i))),
        ("a kernel turned", |w| w.values[0][..27].reverse()),
        ("one bias", |w| w.values[1][2] += 500),
    ]
}

#[test]
fn other_weights_or_biases_than_the_key_holds() {
    let victim = Victim::new(nets::convolution(), true);
    for (what, change) in other_weights() {
        let prover = victim.with_weights(change);
        let mut f = Forgery::new(&victim, &prover, &[true, false], &[&Random(7).int8(60)]);
        recompute(&mut f);
        // A weight enters the sumcheck's last equation; a bias is part of the claim on the lookups.
        let noticed = if what == "one bias" { OPENING } else { Err(Reject::Equation("contraction sumcheck")) };
        assert_eq!(f.outcome(), noticed, "{what}");
        assert_eq!(f.against(|_| ()), Ok(()), "{what}: the verifier with those weights accepts");
    }
}

#[test]
fn other_weights_or_biases_than_are_committed() {
    for victim in Victim::each(nets::convolution(), false) {
        for (what, change) in other_weights() {
            // Under the registered root, but opened from another oracle.
            let prover = victim.with_weights(change);
            let mut f = Forgery::new(&victim, &prover, &[true, false], &[&Random(7).int8(60)]);
            recompute(&mut f);
            assert_eq!(f.outcome(), Err(Reject::Merkle { oracle: "model" }), "{what}");
            // Computed with other weights, opened from the registered oracle.
            let mut weights = Weights::clone(&victim.key.weights);
            change(&mut weights);
            let mut f = victim.forge(&[&Random(7).int8(60)]);
            for (s, values) in
                victim.key.weights.values.iter().enumerate().map(|(id, _)| (model_storage(&f.layout, id), &weights.values[id]))
            {
                f.witness.storages[s] = values.iter().map(|&x| from_i64(x.into())).collect();
            }
            recompute_stored(&mut f, &weights);
            assert_eq!(f.outcome(), OPENING, "{what}");
        }
    }
}

fn model_storage(layout: &Layout, constant: usize) -> usize {
    use nexus_edge_core::layout::Recipe;
    let of = |r: &Recipe| match r {
        Recipe::Constant { storage, constant: id } if *id as usize == constant => Some(*storage),
        _ => None,
    };
    layout.recipes.iter().find_map(of).expect("a committed constant")
}

fn recompute_stored(f: &mut Forgery<'_>, weights: &Weights) {
    assert_eq!(f.witness.storages[model_storage(&f.layout, 1)][2], from_i64(weights.values[1][2].into()));
    recompute(f);
}

#[test]
fn computes_with_another_input_than_it_commits_to() {
    for victim in Victim::each(nets::convolution(), true) {
        let (a, b) = (Random(7).int8(60), Random(8).int8(60));
        let mut f = victim.forge(&[&a]);
        let other = victim.forge(&[&b]);
        let mut committed = f.witness.clone();
        let x = f.storage("x");
        committed.storages[x] = other.witness.storages[x].clone();
        f.committed = Some(committed);
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.two_faced(), ROWS, "every equation holds: only the opened rows tell");
        // Proves for one input, claims the commitment of the other.
        f.committed = None;
        for mode in [Mode::Plain, Mode::Zk] {
            let ((mut statement, proof), (theirs, _)) = (f.proof(mode), other.proof(mode));
            statement.tensors[0] = theirs.tensors[0].clone();
            assert!(matches!(verify(&victim.in_mode(mode).verifying, &statement, &proof), Err(Reject::Statement(_))));
        }
        // The same with clear inputs.
        let mut f = victim.forge_form(&[false, false], &[&a]);
        f.ports[0] = b;
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.without_tie("x"), OPENING, "the convolution reads the cells that were tied");
    }
}

#[test]
fn commits_to_another_output_than_it_computes() {
    for victim in Victim::each(nets::convolution(), true) {
        let mut f = victim.forge_form(&[true, true], &[&Random(7).int8(60)]);
        let committed_output = f.layout.port_storages[1].expect("committed");
        f.bump(committed_output, 3, 1);
        assert_eq!(f.outcome(), OPENING);
        // Without the tie any output oracle passes: the view that is tied reads the oracle itself.
        let y = victim.tensor("y") as usize;
        let untied = f.against(|layout| {
            layout.views[y].pieces.truncate(1);
            let piece = &mut layout.views[y].pieces[0];
            piece.storage = committed_output;
            piece.storage_channels = piece.tensor_channels.clone();
            let all = nexus_edge_core::layout::Index::all(4);
            (piece.storage_channels, piece.tensor_channels) = (all.clone(), all);
        });
        assert_eq!(untied, Ok(()));
    }
}

#[test]
fn commits_to_another_activation_than_it_computes() {
    for victim in Victim::each(nets::chain(), true) {
        let mut f = victim.forge(&[&Random(4).int8(12)]);
        let cell = f.groups("h")[0].cells.y;
        let mut committed = f.witness.clone();
        committed.storages[cell][0] += from_i64(1);
        f.committed = Some(committed);
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.two_faced(), ROWS);
    }
}

#[test]
fn an_input_outside_its_dtype() {
    for victim in Victim::each(nets::convolution(), true) {
        for value in [128, -129, 1 << 20] {
            let mut f = victim.forge(&[&Random(7).int8(60)]);
            f.set(f.storage("x"), 31, value);
            f.reaccumulate();
            f.rescale("y");
            f.claim();
            assert_eq!(f.outcome(), LOOKUPS);
            let verdict = f.without(|layout, k| goes_to(layout, k, &TableKind::DType(DType::Int8)));
            // What is far outside leaves the clamp's rows too.
            assert_eq!(verdict.is_ok(), value.abs() < 1 << 10, "{value}: {verdict:?}");
        }
    }
}

#[test]
fn a_shifted_window_or_a_border_that_is_not_the_zero_point() {
    for victim in Victim::each(nets::convolution(), true) {
        let changes: [(&str, fn(&mut Contract)); 4] = [
            ("shifted", |c| {
                if let Contract::Conv { window, .. } = c {
                    window.pad = (0, 1)
                }
            }),
            ("dilated", |c| {
                if let Contract::Conv { window, .. } = c {
                    window.dilation = (1, 2)
                }
            }),
            ("zero point not subtracted", |c| {
                if let Contract::Conv { x_zero, .. } = c {
                    *x_zero = 0
                }
            }),
            ("another zero point", |c| {
                if let Contract::Conv { x_zero, .. } = c {
                    *x_zero += 1
                }
            }),
        ];
        for (what, change) in changes {
            let mut f = victim.forge(&[&Random(7).int8(60)]);
            change(contract(&mut f.layout));
            recompute(&mut f);
            assert_eq!(f.outcome(), OPENING, "{what}");
            assert_eq!(f.against(|_| ()), Ok(()), "{what}: the verifier of that program accepts");
        }
    }
}

#[test]
fn channels_of_the_output_swapped() {
    for victim in Victim::each(nets::convolution(), true) {
        let f = victim.forge(&[&Random(7).int8(60)]).tensor("y", |y| y.chunks_exact_mut(4).for_each(|row| row.swap(0, 1)));
        assert_eq!(f.outcome(), LOOKUPS);
        let mut f = victim.forge(&[&Random(7).int8(60)]);
        f.ports[1].chunks_exact_mut(4).for_each(|row| row.swap(0, 1));
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.without_tie("y"), Ok(()));
    }
}

#[test]
fn a_table_with_another_value() {
    for victim in Victim::each(nets::tables(), true) {
        let f = victim.forge(&[&Random(9).int8(8)]).tensor("t", |t| t[3] ^= 1);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(|layout, k| goes_to(layout, k, &TableKind::Program(0))), Ok(()));
        let f = victim.forge(&[&Random(9).int8(8)]).tensor("y", |y| y[3] ^= 1);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(|layout, k| goes_to(layout, k, &TableKind::Program(1))), Ok(()));
    }
}

#[test]
fn the_operands_of_a_table_swapped() {
    for victim in Victim::each(nets::tables(), true) {
        let x = Random(9).int8(8);
        let mut f = victim.forge(&[&x]);
        let t = f.trace.tensors[victim.tensor("t") as usize].clone();
        let f2 = victim
            .forge(&[&x])
            .tensor("y", |y| y.iter_mut().zip(x.iter().zip(&t)).for_each(|(y, (x, t))| *y = (2 * t - x).clamp(-128, 127)));
        assert_ne!(f.ports, f2.ports);
        assert_eq!(f2.outcome(), LOOKUPS);
        // A prover whose layout reads the operands in the other order.
        f = f2;
        let lookup = f.layout.lookups.iter_mut().find(|k| k.entries[0].len() == 4).expect("two operands");
        let sources = [lookup.entries[0][0].source.clone(), lookup.entries[0][2].source.clone()];
        lookup.entries[0][0].source = sources[1].clone();
        lookup.entries[0][2].source = sources[0].clone();
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.against(|_| ()), Ok(()));
    }
}

#[test]
fn another_fill_of_a_border() {
    for victim in Victim::each(nets::views(), true) {
        let x = Random(10).int8(12);
        let border = |v: &mut [i16], to: i16| v.iter_mut().enumerate().filter(|(i, _)| !(6..18).contains(i)).for_each(|(_, v)| *v = to);
        let mut f = victim.forge(&[&x]).tensor("v", |v| border(v, 11));
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.against(|layout| layout.copies.clear()), Ok(()), "only the copy ties the transposed border to the public fill");
        for (_, row) in f.layout.views[victim.tensor("v") as usize].constants.iter_mut() {
            row.iter_mut().for_each(|v| *v = *v * 11 / 9);
        }
        assert_eq!(f.outcome(), OPENING);
        assert_eq!(f.against(|_| ()), Ok(()), "the fill is public: it is the verifier's layout that refuses");
    }
}

/// 2 x 3 rows of 4 become 4 rows of 6: no dimension of the one is a product of dimensions of the other.
#[test]
fn cells_of_a_regrouped_copy_permuted_or_changed() {
    let victim = Victim::new(nets::regrouped(), true);
    let x = Random(10).int8(24);
    let honest = victim.forge(&[&x]);
    assert_eq!(honest.copy().outcome(), Ok(()));
    let changes: [fn(&mut [i16]); 6] = [
        |r| r.swap(4, 5),
        |r| r.swap(0, 23),
        |r| r[23] = if r[23] < 127 { r[23] + 1 } else { 0 },
        |r| r[0] ^= 1,
        |r| r.rotate_left(6),
        |r| r.reverse(),
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let f = honest.copy().tensor("r", change);
        assert_ne!(honest.trace.tensors[1], f.trace.tensors[1], "{which}");
        assert_eq!(f.outcome(), OPENING, "{which}");
        assert_eq!(f.against(|layout| layout.copies.clear()), Ok(()), "{which}");
    }
}

#[test]
fn cells_of_a_transposed_copy_permuted_or_changed() {
    for victim in Victim::each(nets::views(), true) {
        let x = Random(10).int8(12);
        let changes: [fn(&mut [i16]); 4] = [|r| r.swap(4, 5), |r| r[23] += 1, |r| r.rotate_left(12), |r| r.reverse()];
        for (which, change) in changes.into_iter().enumerate() {
            let honest = victim.forge(&[&x]);
            let f = honest.copy().tensor("r", change);
            assert_ne!(honest.trace.tensors[2], f.trace.tensors[2], "{which}");
            assert_eq!(f.outcome(), OPENING, "{which}");
            assert_eq!(f.against(|layout| layout.copies.clear()), Ok(()));
        }
    }
}

#[test]
fn a_model_under_anothers_name() {
    // The whole proof is honest, of a program with other weights; the statement names the victim's digest.
    for (inside, mode) in [(true, Mode::Plain), (false, Mode::Plain), (true, Mode::Zk), (false, Mode::Zk)] {
        let other = Victim::each(support::dense(2, 20, 7), inside);
        for (victim, other) in Victim::each(support::dense(1, 20, 7), inside).into_iter().zip(other) {
            let (mut statement, proof) = other.forge(&[&Random(3).int8(20)]).proof(mode);
            assert!(matches!(verify(&victim.in_mode(mode).verifying, &statement, &proof), Err(Reject::Statement(_))));
            statement.digest = victim.in_mode(mode).verifying.digest();
            assert!(verify(&victim.in_mode(mode).verifying, &statement, &proof).is_err_and(|e| !matches!(e, Reject::Statement(_))));
            assert_eq!(statement.context, CONTEXT);
            assert!(matches!(statement.tensors[0].content, Content::Committed(_)));
        }
    }
}
