//! Opened rows and the combination of the columns are jointly uniform: the map from the oracles' randomness to them has full rank over `F`.
//!
//! The matrix is that of the product's prover: it opens the same commitment again and again, with one random element changed by one. The
//! mask's opened cells, `r` and `b` are then fixed by equations that the verifier checks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;

use super::linear::rank;
use crate::channel::{Prover, Transcript};
use crate::field::F;
use crate::parameters::{Mode, Parameters};
use crate::pcs::{Fresh, Hiding, OracleLayout, Role, Stack, assemble, combine, query};
use crate::random::{Randomness, Seed};

const D: usize = 2;
/// Queries of the small parameter set.
const QUERIES: usize = 9;

/// Oracles that are opened together, the witness first, and the values in them.
struct Instance {
    params: Parameters,
    stack: Stack,
    values: Vec<Vec<F>>,
}

/// The secrets of some openings of the same kept oracles.
#[derive(Clone)]
struct Randomised {
    /// The witness's, for each opening.
    fresh: Vec<Fresh>,
    /// Random cells of each oracle.
    cells: Vec<Vec<F>>,
}

/// Where a random element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pad { opening: usize, at: usize },
    Mask { opening: usize, at: usize },
    Cell { oracle: usize, at: usize },
}

impl Instance {
    /// A witness of the given cells, and kept oracles with so many rows at least.
    fn new(witness: (usize, usize), kept: &[((usize, usize), usize)]) -> Self {
        Self::beside(witness, kept, None)
    }

    /// The same beside weights that are public.
    fn beside(witness: (usize, usize), kept: &[((usize, usize), usize)], public: Option<((usize, usize), usize)>) -> Self {
        let params = Parameters::tiny_in(Mode::Zk, D, 4, 4, 12, 2);
        let tensor = |(k, &(shape, log_rows)): (usize, &((usize, usize), usize))| {
            OracleLayout::with_rows(&params, Role::Tensor, k as u32, vec![shape], Hiding::Kept, log_rows)
        };
        let tensors: Vec<_> = kept.iter().enumerate().map(tensor).collect();
        let longest = tensors.iter().map(|o| o.log_rows).max().unwrap_or(0);
        let hiding = Hiding::Fresh { pads: params.pads(), degree: D };
        let mut layouts = vec![Arc::new(OracleLayout::with_rows(&params, Role::Witness, 0, vec![witness], hiding, longest))];
        layouts.extend(tensors.into_iter().map(Arc::new));
        layouts.extend(
            public.map(|(shape, log_rows)| Arc::new(OracleLayout::with_rows(&params, Role::Model, 0, vec![shape], Hiding::None, log_rows))),
        );
        let values = layouts.iter().map(|o| (0..o.shapes[0].0 * o.shapes[0].1).map(F::from_usize).collect()).collect();
        Instance { params, stack: Stack::new(layouts), values }
    }

    fn randomised(&self, openings: usize) -> Randomised {
        let mut random = Randomness::chosen([3; 32]);
        let witness = &self.stack.layouts[0];
        let fresh = (0..openings).map(|_| Fresh::new(&mut random, witness.columns, witness.log_rows, self.params.pads(), D, 0)).collect();
        let cells = self.stack.layouts.iter().map(|o| if o.hiding == Hiding::Kept { random.elements(o.cells() / 2) } else { vec![] });
        Randomised { fresh, cells: cells.collect() }
    }

    /// All random elements, of pads, mask and kept oracles.
    fn places(&self, secrets: &Randomised) -> Vec<Place> {
        let each = secrets.fresh.iter().enumerate();
        let fresh = each.flat_map(|(opening, fresh)| {
            let pads = (0..fresh.pads.len()).map(move |at| Place::Pad { opening, at });
            pads.chain((0..fresh.mask.len()).map(move |at| Place::Mask { opening, at }))
        });
        let cells = secrets.cells.iter().enumerate().flat_map(|(oracle, cells)| (0..cells.len()).map(move |at| Place::Cell { oracle, at }));
        fresh.chain(cells).collect()
    }

    /// What the openings show, with challenges from the tapes: all coefficients of each combination that are the mask's too, the data columns of
    /// each opened row, a kept oracle's rows once. -> also which rows of each oracle, all openings together, and the other coefficients.
    fn view(&self, secrets: &Randomised, tapes: &[[u8; 32]]) -> (Vec<F>, Vec<BTreeSet<usize>>, Vec<F>) {
        let (mut out, mut others) = (Vec::new(), Vec::new());
        let mut seen: Vec<BTreeMap<usize, Vec<F>>> = vec![BTreeMap::new(); self.stack.layouts.len()];
        for (fresh, &tape) in secrets.fresh.iter().zip(tapes) {
            let committed: Vec<_> = (self.stack.layouts.iter().zip(&self.values).zip(&secrets.cells))
                .map(|((layout, values), cells)| {
                    let fresh = layout.has_mask().then(|| fresh.clone());
                    let salts = (layout.hiding != Hiding::None).then(|| Seed::from_bytes([4; 32]));
                    assemble(layout.clone(), &[values], fresh, salts, cells)
                })
                .collect();
            let oracles: Vec<_> = committed.iter().collect();
            let mut prover = Prover::new(Transcript::new().taped(Some(tape)));
            let combination = combine::<D>(&self.params, &mut prover, &self.stack, &oracles, &[], &mut |_| ControlFlow::Continue(()));
            let ControlFlow::Continue(combination) = combination else { panic!("nobody stops it") };
            let coefficients = (1 << self.stack.log_rows) + self.params.pads();
            let sent = prover.so_far();
            let words = sent[sent.len() - 8 * D * coefficients..].as_chunks::<8>().0;
            for (i, element) in words.as_chunks::<D>().0.iter().enumerate() {
                // The pads come first.
                let is_masked = i.checked_sub(self.params.pads()).is_none_or(|i| i.is_multiple_of(1 << self.stack.log_mask_stride()));
                let to = if is_masked { &mut out } else { &mut others };
                to.extend(element.iter().map(|&word| F::from_u64(u64::from_le_bytes(word))));
            }
            for ((rows, oracle), seen) in
                query(&self.params, &mut prover, &self.stack, &oracles, combination).iter().zip(oracles).zip(&mut seen)
            {
                let cells = |&row: &usize| (row, oracle.code.row(row)[..oracle.layout.columns].to_vec());
                if oracle.layout.has_mask() {
                    out.extend(rows.iter().map(cells).flat_map(|(_, cells)| cells));
                }
                seen.extend(rows.iter().map(cells));
            }
        }
        for (_, seen) in self.stack.layouts.iter().zip(&seen).filter(|(o, _)| o.hiding == Hiding::Kept) {
            out.extend(seen.values().flatten());
        }
        (out, seen.into_iter().map(|rows| rows.into_keys().collect()).collect(), others)
    }

    /// Coordinates of the view less the rank of the map to them from the elements that `random` names: 0 if the view is uniform.
    fn deficit(&self, tapes: &[[u8; 32]], random: impl Fn(Place) -> bool) -> usize {
        let secrets = self.randomised(tapes.len());
        let (base, _, public) = self.view(&secrets, tapes);
        let row = |place| {
            let mut moved = secrets.clone();
            *(match place {
                Place::Pad { opening, at } => &mut moved.fresh[opening].pads[at],
                Place::Mask { opening, at } => &mut moved.fresh[opening].mask[at],
                Place::Cell { oracle, at } => &mut moved.cells[oracle][at],
            }) += F::ONE;
            let (seen, _, others) = self.view(&moved, tapes);
            assert!(others == public, "{place:?} is no part of the other coefficients");
            seen.iter().zip(&base).map(|(&x, &y)| x - y).collect()
        };
        base.len() - rank(self.places(&secrets).into_iter().filter(|&place| random(place)).map(row).collect())
    }
}

fn tapes(n: usize, seed: u8) -> Vec<[u8; 32]> {
    (0..n).map(|k| [seed + k as u8; 32]).collect()
}

/// The witness alone; with a kept oracle of its length; with one that is longer than the witness needs; with two of which one has a stride;
/// under public weights that are longer, without and with a kept oracle.
fn instances() -> [Instance; 6] {
    [
        Instance::new((14, 4), &[]),
        Instance::new((14, 4), &[((9, 2), 5)]),
        Instance::new((14, 4), &[((50, 1), 5)]),
        Instance::new((14, 4), &[((9, 2), 5), ((60, 1), 6)]),
        Instance::beside((14, 4), &[], Some(((30, 3), 5))),
        Instance::beside((14, 4), &[((9, 2), 5)], Some(((110, 3), 7))),
    ]
}

#[test]
fn opened_rows_and_the_combination_are_uniform() {
    let mut repeated = 0;
    for instance in instances() {
        let lengths: Vec<_> = instance.stack.layouts.iter().map(|o| o.log_rows).collect();
        let secret = instance.stack.layouts.iter().filter(|o| o.hiding != Hiding::None);
        assert!(secret.into_iter().all(|o| o.log_rows <= lengths[0]), "the witness is as long as the longest that hides");
        for seed in 0..3 {
            let tapes = tapes(1, 10 * seed);
            assert_eq!(instance.deficit(&tapes, |_| true), 0, "rows {lengths:?}");
            let rows = instance.view(&instance.randomised(1), &tapes).1;
            repeated += rows.iter().filter(|rows_of_one| rows_of_one.len() < rows[0].len()).count();
        }
    }
    assert!(repeated > 0, "some queries meet in a row of a shorter oracle");
    assert_eq!(instances().map(|one| one.stack.log_mask_stride()), [0, 0, 0, 0, 1, 2]);
    assert_eq!(instances()[2].stack.layouts[0].log_rows, 6);
    assert_eq!(instances()[3].stack.log_stride(1), 1);
}

#[test]
fn without_a_part_of_the_randomness_they_are_not() {
    let tapes = tapes(1, 40);
    for instance in instances() {
        let below = D << instance.stack.layouts[0].log_rows;
        assert!(instance.deficit(&tapes, |place| !matches!(place, Place::Pad { .. })) > 0, "no pads");
        let no_mask_on_pads = |place| !matches!(place, Place::Mask { at, .. } if at >= below);
        assert!(instance.deficit(&tapes, no_mask_on_pads) > 0, "no mask on the combination's pads");
        let one_column = |place| !matches!(place, Place::Mask { at, .. } if at % D > 0);
        assert!(instance.deficit(&tapes, one_column) > 0, "a mask over F");
        if instance.stack.layouts.iter().any(|o| o.hiding == Hiding::Kept) {
            assert!(instance.deficit(&tapes, |place| !matches!(place, Place::Cell { .. })) > 0, "no random cells");
        } else {
            // Random cells that no row uses up would step in.
            let all_but_one = |place| place != Place::Mask { opening: 0, at: below / 2 };
            assert_eq!(instance.deficit(&tapes, all_but_one), 1, "one coefficient of the mask known");
        }
    }
}

/// Queries at different rows of long weights meet in a row of the witness.
#[test]
fn rows_of_a_witness_that_public_weights_repeat() {
    for instance in instances().into_iter().skip(4) {
        let meets = |tapes: &[[u8; 32]]| {
            let rows = instance.view(&instance.randomised(1), tapes).1;
            rows[0].len() < rows[rows.len() - 1].len()
        };
        let tapes = (0..100).map(|seed| tapes(1, seed)).find(|tapes| meets(tapes)).expect("two of nine queries, now and then");
        assert_eq!(instance.deficit(&tapes, |_| true), 0);
    }
}

/// What the mask does not cover is of public weights alone: another witness under other randomness leaves it as it is.
#[test]
fn the_other_coefficients_are_those_of_public_weights() {
    for mut instance in instances().into_iter().skip(4) {
        let tapes = tapes(1, 80);
        let others = |instance: &Instance, seed: u8| {
            let mut secrets = instance.randomised(1);
            secrets.fresh[0].mask.iter_mut().for_each(|x| *x += F::from_u8(seed));
            instance.view(&secrets, &tapes).2
        };
        let before = others(&instance, 1);
        let secret = instance.stack.layouts.iter().filter(|o| o.hiding != Hiding::None).count();
        instance.values[..secret].iter_mut().flatten().for_each(|x| *x += F::TWO);
        assert!(before.len() >= D << (instance.stack.log_rows - 1));
        assert_eq!(others(&instance, 2), before);
        instance.values[secret][0] += F::ONE;
        instance.values[secret][1] += F::ONE;
        assert_ne!(others(&instance, 2), before);
    }
}

/// A witness shorter than the longest oracle that hides: its mask does not cover the combination. No such stack is made.
#[test]
fn a_short_witness_does_not_hide() {
    let mut instance = Instance::new((7, 2), &[((50, 1), 5)]);
    let short = Arc::new(OracleLayout::with_rows(
        &instance.params,
        Role::Witness,
        0,
        vec![(7, 2)],
        Hiding::Fresh { pads: instance.params.pads(), degree: D },
        0,
    ));
    assert!(short.log_rows < instance.stack.log_rows && short.columns == instance.stack.layouts[0].columns);
    instance.stack.layouts[0] = short;
    let layouts = instance.stack.layouts.clone();
    assert!(std::panic::catch_unwind(|| Stack::new(layouts)).is_err());
    let (secrets, tapes) = (instance.randomised(1), tapes(1, 50));
    let bare = instance.view(&secrets, &tapes).2;
    instance.values[1][1] += F::ONE;
    assert_ne!(instance.view(&secrets, &tapes).2, bare, "coefficients without a mask show the kept oracle");
}

/// Random coefficients with consecutive exponents make any rows uniform; every other exponent does not, where the points `x` and `-x` are both
/// opened. The code words are the product's.
#[test]
fn random_cells_need_consecutive_exponents() {
    let params = Parameters::tiny_in(Mode::Plain, D, 4, 4, 12, 2);
    let layout = Arc::new(OracleLayout::with_rows(&params, Role::Tensor, 0, vec![(32, 1)], Hiding::None, 5));
    assert_eq!((layout.columns, layout.log_domain()), (1, 7));
    // The points of rows i and i + 64 are opposite.
    let rows = [3, 5, 17, 67, 40, 60];
    let deficit = |exponents: &mut dyn Iterator<Item = usize>| {
        let matrix = exponents.map(|exponent| {
            let mut values = vec![F::ZERO; 32];
            values[exponent] = F::ONE;
            let committed = assemble(layout.clone(), &[&values], None, None, &[]);
            rows.iter().map(|&row| committed.code.row(row)[0]).collect()
        });
        rows.len() - rank(matrix.collect())
    };
    assert_eq!(deficit(&mut (16..32)), 0);
    assert_eq!(deficit(&mut (10..16)), 0, "as many as rows");
    assert_eq!(deficit(&mut (10..15)), 1, "one fewer");
    assert_eq!(deficit(&mut (0..32).step_by(2)), 1, "one pair of opposite points");
}

/// Several openings of one kept commitment under fresh masks show nothing until its random half is used up, and something after that.
#[test]
fn a_kept_oracle_hides_as_long_as_its_budget_lasts() {
    let instance = Instance::new((14, 4), &[((9, 2), 5)]);
    let budget = instance.stack.layouts[1].budget();
    assert_eq!(budget, 16);
    let (mut within, mut beyond) = (0, 0);
    for openings in 1..=4 {
        for seed in [60, 70] {
            let tapes = tapes(openings, seed);
            let rows = instance.view(&instance.randomised(openings), &tapes).1[1].len();
            assert!(rows <= openings * QUERIES);
            let deficit = instance.deficit(&tapes, |_| true);
            assert_eq!(deficit, rows.saturating_sub(budget) * instance.stack.layouts[1].columns, "{rows} rows of {budget}");
            *(if rows > budget { &mut beyond } else { &mut within }) += 1;
        }
    }
    assert!(within > 1 && beyond > 1, "{within} {beyond}");
}
