//! Attacks on max pools.

use nexus_edge_core::layout::{Index, Layout, Lookup, Recipe, StorageId, TableKind};

use crate::forge::{Forgery, LOOKUPS, Victim, goes_to, uses};
use crate::support::{Random, nets};

pub const CHANNELS: usize = 2;

pub struct Tap {
    pub z: StorageId,
    outputs: Index,
    inputs: Index,
}

pub fn taps(layout: &Layout) -> Vec<Tap> {
    let tap = |r: &Recipe| match r {
        Recipe::PoolTap { storage, outputs, inputs, .. } => Some(Tap { z: *storage, outputs: outputs.clone(), inputs: inputs.clone() }),
        _ => None,
    };
    layout.recipes.iter().filter_map(tap).collect()
}

/// Input cells of output `(position, channel)`, each with the place of its indicator.
pub fn window(f: &Forgery<'_>, position: usize, channel: usize) -> Vec<(i64, StorageId, usize)> {
    let x = f.storage("x");
    let cell = |t: &Tap| {
        let i = t.outputs.iter().position(|o| o == position)?;
        Some((f.get(x, t.inputs.get(i) * CHANNELS + channel), t.z, i * CHANNELS + channel))
    };
    taps(&f.layout).iter().filter_map(cell).collect()
}

/// Claims `y` at an output, with indicators that fit it.
fn claim(f: &mut Forgery<'_>, position: usize, channel: usize, y: i64) {
    f.set(f.storage("y"), position * CHANNELS + channel, y);
    for (x, z, at) in window(f, position, channel) {
        f.set(z, at, i64::from(x == y));
    }
    f.claim();
}

fn sum_of_hits(layout: &Layout) -> impl Fn(&Layout, &Lookup) -> bool {
    let all = taps(layout);
    move |layout, k| goes_to(layout, k, &TableKind::Range) && all.iter().any(|t| uses(k, t.z))
}

fn difference(layout: &Layout, k: &Lookup) -> bool {
    goes_to(layout, k, &TableKind::Difference)
}

#[test]
fn a_maximum_too_large() {
    for victim in Victim::each(nets::max_pool(), true) {
        for (position, channel) in [(0, 0), (5, 1), (15, 0)] {
            for by in [1, 40] {
                let mut f = victim.forge(&[&Random(6).int8(32)]);
                let y = f.get(f.storage("y"), position * CHANNELS + channel) + by;
                claim(&mut f, position, channel, y.min(127));
                assert_eq!(f.outcome(), LOOKUPS);
                assert_eq!(f.without(difference), LOOKUPS, "the differences are fine");
                assert_eq!(f.without(sum_of_hits(&f.layout)), Ok(()));
            }
        }
    }
}

#[test]
fn a_maximum_too_small() {
    for victim in Victim::each(nets::max_pool(), true) {
        for position in [0, 6, 10] {
            let mut f = victim.forge(&[&Random(6).int8(32)]);
            let mut cells: Vec<i64> = window(&f, position, 1).into_iter().map(|c| c.0).collect();
            cells.sort_unstable();
            cells.dedup();
            let second = cells[cells.len() - 2];
            claim(&mut f, position, 1, second);
            assert_eq!(f.outcome(), LOOKUPS);
            assert_eq!(f.without(sum_of_hits(&f.layout)), LOOKUPS, "some cell is equal");
            assert_eq!(f.without(difference), Ok(()));
        }
    }
}

#[test]
fn a_forged_indicator() {
    for victim in Victim::each(nets::max_pool(), true) {
        // Too large, and one cell says that it is equal.
        let mut f = victim.forge(&[&Random(6).int8(32)]);
        let y = f.get(f.storage("y"), 3) + 1;
        claim(&mut f, 1, 1, y);
        let (_, z, at) = window(&f, 1, 1)[0];
        f.set(z, at, 1);
        assert_eq!(f.outcome(), LOOKUPS);
        assert_eq!(f.without(difference), Ok(()));
        // None, two for one, one of another cell as well.
        for (at_maximum, elsewhere) in [(0, 0), (2, 0), (1, 1), (0, 1)] {
            let mut f = victim.forge(&[&Random(6).int8(32)]);
            let y = f.get(f.storage("y"), 3);
            let (equal, less): (Vec<_>, Vec<_>) = window(&f, 1, 1).into_iter().partition(|c| c.0 == y);
            f.set(equal[0].1, equal[0].2, at_maximum);
            f.set(less[0].1, less[0].2, elsewhere);
            assert_eq!(f.outcome(), LOOKUPS);
        }
    }
}
