//! Attacks on softmax: maximum, powers, reciprocal, saturation, and quotients that wrap modulo p.

use nexus_edge_core::field::{F, P, canonical, centred, from_i64};
use nexus_edge_core::layout::{Index, Layout, Lookup, Recipe, SoftmaxCells, Source, StorageId, TableKind, Term};
use nexus_edge_core::program::softmax::{Exponentials, Reciprocal};
use nexus_edge_core::prover::values::entry;
use p3_field::{Field, PrimeCharacteristicRing};

use crate::forge::{Forgery, LOOKUPS, Victim, goes_to, softmax_cells, uses};
use crate::support::nets;

const WIDTH: usize = 8;
/// Six equal maxima and two classes of probability 0; a slope; one class that has everything, whose reciprocal saturates.
const SCORES: [[i16; WIDTH]; 3] =
    [[10, 10, 10, 10, 10, 10, -128, -100], [5, 4, 3, 2, 1, 0, -1, -2], [127, -128, -128, -128, -128, -128, -128, -128]];

fn victims() -> [Victim; 2] {
    Victim::each(nets::softmax(3, 8), true)
}

fn forge(victim: &Victim) -> (Forgery<'_>, SoftmaxCells) {
    let f = victim.forge(&[SCORES.as_flattened()]);
    let cells = softmax_cells(&f.layout);
    (f, cells)
}

/// Recomputes products and limbs from the cells.
pub fn refit(f: &mut Forgery<'_>) {
    f.reaccumulate();
    for recipe in f.layout.recipes.clone() {
        let Recipe::Limbs(r) = recipe else { continue };
        let value = Lookup { table: 0, positions: r.positions, channels: Index::all(r.channels), group: 0, entries: vec![r.terms] };
        let values = entry(&f.layout, &f.witness, &value, 0);
        let w = f.layout.range_bits;
        for (k, &limb) in r.limbs.iter().enumerate() {
            let last = k + 1 == r.limbs.len();
            let split = |v: &F| {
                let high = centred(*v) >> (w * (k + 1));
                from_i64(if last { high } else { high & ((1 << w) - 1) })
            };
            f.witness.storages[limb] = values.iter().map(split).collect();
        }
    }
    f.claim();
}

/// The high limbs of the range check whose value has these terms.
fn limbs_of(layout: &Layout, is: impl Fn(&[Term]) -> bool) -> Vec<StorageId> {
    let found: Vec<_> =
        layout.recipes.iter().filter_map(|r| if let Recipe::Limbs(r) = r { is(&r.terms).then(|| r.limbs.clone()) } else { None }).collect();
    assert_eq!(found.len(), 1, "one range check is meant");
    found.concat()
}

/// The range check that has these high limbs.
fn check(limbs: &[StorageId]) -> impl Fn(&Layout, &Lookup) -> bool {
    let limbs = limbs.to_vec();
    move |_, k| limbs.iter().any(|&s| uses(k, s))
}

/// Whether a check is on one storage (plus a constant).
fn only(storage: StorageId) -> impl Fn(&[Term]) -> bool {
    move |terms| {
        terms.iter().all(|t| t.source == Source::One || t.source == Source::Local(storage) && t.scale == 1)
            && terms.iter().any(|t| t.source == Source::Local(storage))
    }
}

fn has(terms: &[Term], storage: StorageId, scale: i64) -> bool {
    terms.iter().any(|t| t.source == Source::Local(storage) && t.scale == scale)
}

/// All cells of a row as the honest algorithm leaves them for a false maximum.
fn row_with_maximum(f: &mut Forgery<'_>, c: &SoftmaxCells, row: usize, maximum: i64) {
    let exps = exponentials();
    let distance: Vec<i64> = SCORES[row].iter().map(|&x| maximum - i64::from(x)).collect();
    let at = |table: &[i32], d: i64| i64::from(table[d.max(0) as usize]);
    let sum = distance.iter().map(|&d| at(&exps.coarse, d)).sum();
    let r = Reciprocal::new(sum).expect("defined");
    let row_cells =
        [(c.maximum, maximum), (c.headroom, i64::from(r.headroom) - 4), (c.power, 1 << r.headroom), (c.half_power, r.half_unit())];
    row_cells.into_iter().chain([(c.half, r.half), (c.q0, r.q0), (c.saturated, r.saturates.into())]).for_each(|(s, v)| f.set(s, row, v));
    (0..3).for_each(|i| {
        f.set(c.h[i], row, r.h[i]);
        f.set(c.k[i], row, r.k[i]);
    });
    for (j, &d) in distance.iter().enumerate() {
        let (at_cell, fine) = (row * WIDTH + j, at(&exps.fine, d));
        f.set(c.exp, at_cell, fine);
        f.set(c.rounded, at_cell, at(&exps.coarse, d));
        f.set(c.is_max, at_cell, (d == 0).into());
        output(f, c, at_cell, fine * r.scale, r.half_unit());
    }
    refit(f);
}

fn exponentials() -> Exponentials {
    let (program, _) = nets::softmax(3, 8);
    let Some(&nexus_edge_core::program::Op::Softmax { multiplier, shift, .. }) = program.ops.first() else { panic!("not a softmax") };
    Exponentials::new(multiplier, shift)
}

/// Quotient, value and output of an element from `exp * scale`.
fn output(f: &mut Forgery<'_>, c: &SoftmaxCells, at: usize, product: i64, half_unit: i64) {
    let quotient = (product + (1 << 30)) >> 31;
    let v = (quotient + half_unit).div_euclid(2 * half_unit) - 128;
    f.set(c.quotient, at, quotient);
    f.set(c.v, at, v);
    f.set(c.y, at, v.clamp(-128, 127));
}

#[test]
fn refitting_an_honest_row_changes_nothing() {
    for victim in victims() {
        let (mut f, c) = forge(&victim);
        let honest = f.witness.clone();
        for row in 0..3 {
            row_with_maximum(&mut f, &c, row, SCORES[row].iter().copied().max().unwrap_or(0).into());
        }
        assert_eq!((f.witness.storages, f.witness.accumulators), (honest.storages, honest.accumulators));
    }
}

#[test]
fn a_probability_of_0_becomes_1_by_wrapping() {
    // 2^31 (2^33 - 2) = 2^64 - 2^32 = -1 modulo p: one more in the remainder, 2^33 - 2 more in the quotient, 256 more in the output.
    for victim in victims() {
        let (mut f, c) = forge(&victim);
        let at = 7;
        assert_eq!(f.get(c.y, at), -128);
        f.bump(c.quotient, at, (1 << 33) - 2);
        f.bump(c.v, at, 256);
        f.set(c.y, at, 127);
        refit(&mut f);
        assert_eq!(f.ports[1][at], 127);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(check(&limbs_of(&f.layout, only(c.quotient)))), Ok(()));
    }
}

#[test]
fn an_output_off_by_one() {
    for victim in victims() {
        for (row, class) in [(0, 0), (1, 0), (1, 7), (2, 1)] {
            for (by, sign) in [(1, 1), (-1, -1)] {
                let (mut f, c) = forge(&victim);
                let at = row * WIDTH + class;
                f.bump(c.v, at, by);
                let v = f.get(c.v, at);
                f.set(c.y, at, v.clamp(-128, 127));
                refit(&mut f);
                assert_eq!(f.outcome(), LOOKUPS);
                // One higher: the remainder is negative. One lower: it is 2^E or more.
                let side = limbs_of(&f.layout, |t| {
                    has(t, c.quotient, sign) && t.len() > 2 && t.iter().any(|t| matches!(t.source, Source::Broadcast(_)))
                });
                let verdict = f.without(check(&side));
                let outside = !(-129..=128).contains(&v);
                assert_eq!(verdict.is_ok(), !outside, "{row} {class} {by}: {verdict:?}");
            }
        }
    }
}

#[test]
fn a_false_exponential_or_rounding_of_it() {
    for victim in victims() {
        for which in 0..2 {
            let (mut f, c) = forge(&victim);
            f.bump([c.exp, c.rounded][which], WIDTH + 2, 1 << 10);
            refit(&mut f);
            assert_eq!(f.outcome(), LOOKUPS);
        }
        // The exponential alone, with an output that fits it.
        let (mut f, c) = forge(&victim);
        let at = WIDTH + 2;
        let scale = Reciprocal::new((0..WIDTH).map(|j| f.get(c.rounded, WIDTH + j)).sum()).expect("defined");
        f.bump(c.exp, at, 1 << 28);
        let product = f.get(c.exp, at) * scale.scale;
        output(&mut f, &c, at, product, scale.half_unit());
        refit(&mut f);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(|layout, k| matches!(layout.tables[k.table].kind, TableKind::Exp(..))), Ok(()));
    }
}

#[test]
fn a_maximum_too_large() {
    for victim in victims() {
        for (row, by) in [(0, 1), (1, 1), (1, 3)] {
            let (mut f, c) = forge(&victim);
            let maximum = f.get(c.maximum, row) + by;
            row_with_maximum(&mut f, &c, row, maximum);
            assert_eq!(f.outcome(), LOOKUPS);
            let some_is_maximum = |layout: &Layout, k: &Lookup| goes_to(layout, k, &TableKind::Range) && uses(k, c.is_max);
            assert_eq!(f.without(some_is_maximum), Ok(()));
        }
    }
}

#[test]
fn a_maximum_too_small() {
    for victim in victims() {
        let (mut f, c) = forge(&victim);
        let maximum = f.get(c.maximum, 1) - 1;
        row_with_maximum(&mut f, &c, 1, maximum);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(|layout, k| matches!(layout.tables[k.table].kind, TableKind::Exp(..))), Ok(()));
    }
}

#[test]
fn a_false_power() {
    // The last shift is one more: all probabilities are halved.
    for victim in victims() {
        let powers = |layout: &Layout, k: &Lookup| goes_to(layout, k, &TableKind::Powers);
        let (mut f, c) = forge(&victim);
        let unit = 2 * f.get(c.half_power, 1);
        f.set(c.half_power, 1, unit);
        for at in WIDTH..2 * WIDTH {
            let v = (f.get(c.quotient, at) + unit).div_euclid(2 * unit) - 128;
            f.set(c.v, at, v);
            f.set(c.y, at, v);
        }
        refit(&mut f);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(powers), Ok(()));
    }
}

#[test]
fn another_exponent_with_everything_recomputed() {
    for victim in victims() {
        for by in [-1i64, 1] {
            let (mut f, c) = forge(&victim);
            let hz = f.get(c.headroom, 1) + 4 + by;
            f.bump(c.headroom, 1, by);
            f.set(c.power, 1, 1 << hz);
            f.set(c.half_power, 1, 1 << (34 - hz));
            let half = f.get(c.half, 1);
            f.set(c.half, 1, if by > 0 { 2 * half } else { half / 2 });
            refit(&mut f);
            assert_eq!(f.outcome(), LOOKUPS);
            // Even where `half` has no range, the reciprocal's steps would have to fit.
            assert_eq!(f.without(check(&limbs_of(&f.layout, only(c.half)))), LOOKUPS);
        }
    }
}

#[test]
fn filler_rows_of_the_powers_table_are_of_no_use() {
    for victim in victims() {
        for row in 9..16 {
            let (mut f, c) = forge(&victim);
            f.set(c.headroom, 1, row);
            [c.power, c.half_power, c.half].into_iter().for_each(|s| f.set(s, 1, 0));
            refit(&mut f);
            assert_eq!(f.outcome(), LOOKUPS);
            assert_eq!(f.without(check(&limbs_of(&f.layout, only(c.half)))), LOOKUPS, "the last remainder would be below 0 = 2^E");
        }
    }
}

#[test]
fn a_reciprocal_that_does_not_saturate() {
    for victim in victims() {
        let (mut f, c) = forge(&victim);
        assert_eq!(f.get(c.saturated, 2), 1);
        f.set(c.saturated, 2, 0);
        for j in 0..WIDTH {
            let at = 2 * WIDTH + j;
            let product = f.get(c.exp, at) << 31;
            let unit = f.get(c.half_power, 2);
            output(&mut f, &c, at, product, unit);
        }
        refit(&mut f);
        assert_eq!(f.outcome(), LOOKUPS);
        // t - 1 + sat >= 0 for t = 2^30 - x.
        let low = limbs_of(&f.layout, |t| has(t, c.saturated, 1) && t.len() > 2);
        assert_eq!(f.without(check(&low)), Ok(()));
        // The other way round: a row that does not saturate.
        let (mut f, c) = forge(&victim);
        f.set(c.saturated, 1, 1);
        refit(&mut f);
        assert_eq!(f.outcome(), LOOKUPS);
    }
}

/// The smallest `x >= 0` with `low <= a x mod m <= high`.
fn first_in_range(a: u128, m: u128, low: u128, high: u128) -> Option<u128> {
    if low == 0 {
        return Some(0);
    }
    if a == 0 {
        return None;
    }
    let x = low.div_ceil(a);
    if a * x <= high {
        return Some(x);
    }
    // a x - m y in [low, high]: m y modulo a lies between -high and -low.
    let y = first_in_range(m % a, a, (a - high % a) % a, (a - low % a) % a)?;
    Some((low + m * y).div_ceil(a))
}

/// Where the quotients of the last Newton step have no range, the reciprocal can be anything: with `x` before the step and a target `X`,
/// `k = (X - x)/4` and `h = (half x + 2^30 - r)/2^31` in the field, and the remainder `x (2^29 - h) + 2^30 - 2^31 k` is affine in `r`; some
/// `r < 2^31` puts it below `2^31` for one target in four.
#[test]
fn a_reciprocal_solved_for_in_the_field() {
    for victim in victims() {
        let (mut f, c) = forge(&victim);
        let row = 1;
        let q31 = from_i64(1 << 31).inverse();
        let half = f.get(c.half, row);
        let honest = Reciprocal::new((0..WIDTH).map(|j| f.get(c.rounded, row * WIDTH + j)).sum()).expect("defined");
        let x = nexus_edge_core::program::softmax::NEWTON.0 + honest.q0 + 4 * (honest.k[0] + honest.k[1]);
        let slope = from_i64(x) * q31;
        let (target, r) = (1..)
            .find_map(|i| {
                // Half of the true reciprocal, or a little more.
                let target = honest.scale / 4 + i;
                let k = from_i64(target - x) * from_i64(4).inverse();
                let constant =
                    from_i64(x) * (from_i64(1 << 29) - from_i64(half * x + (1 << 30)) * q31) + from_i64(1 << 30) - from_i64(1 << 31) * k;
                // 0 <= constant + slope r < 2^31
                let low = canonical(-constant);
                let high = low.checked_add((1 << 31) - 1).filter(|&h| h < P)?;
                let r = first_in_range(canonical(slope).into(), P.into(), low.into(), high.into())?;
                (r < 1 << 31).then_some((target, r as i64))
            })
            .expect("one target in four");
        f.witness.storages[c.h[2]][row] = (from_i64(half * x + (1 << 30)) - from_i64(r)) * q31;
        f.witness.storages[c.k[2]][row] = from_i64(target - x) * from_i64(4).inverse();
        for j in 0..WIDTH {
            let at = row * WIDTH + j;
            let product = f.get(c.exp, at) * 2 * target;
            let unit = f.get(c.half_power, row);
            output(&mut f, &c, at, product, unit);
        }
        let before = f.ports[1].clone();
        refit(&mut f);
        assert_ne!(before, f.ports[1], "the probabilities of the row are halved");
        assert_eq!(f.outcome(), LOOKUPS);
        let (h, k) = (limbs_of(&f.layout, only(c.h[2])), limbs_of(&f.layout, only(c.k[2])));
        assert_eq!(f.without(check(&h)), LOOKUPS);
        assert_eq!(f.without(check(&k)), LOOKUPS);
        assert_eq!(f.without(check(&[h, k].concat())), Ok(()));
    }
}

/// A quotient plus `2^33 - 2` leaves a remainder that is one larger: each is stopped by its own range.
#[test]
fn quotients_that_wrap() {
    for victim in victims() {
        let (_, c) = forge(&victim);
        for s in [c.q0, c.h[0], c.h[1], c.h[2], c.k[0], c.k[1], c.k[2]] {
            for by in [(1 << 33) - 2, -((1 << 33) - 2)] {
                let (mut f, _) = forge(&victim);
                f.bump(s, 1, by);
                refit(&mut f);
                assert_eq!(f.outcome(), LOOKUPS);
            }
        }
        assert_eq!(F::from_u64(1 << 31) * F::from_u64((1 << 33) - 2), -F::ONE);
    }
}
