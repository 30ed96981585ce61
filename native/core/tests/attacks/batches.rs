//! Attacks on windows over a batch: every image is constrained, and by its own cells alone.

use nexus_edge_core::layout::{AccumulatorKind, Layout, Lookup, TableKind};
use nexus_edge_core::program::Contract;

use crate::forge::{LOOKUPS, OPENING, Victim, recompute};
use crate::support::{Random, nets};

const KINDS: [&str; 4] = ["convolution", "depthwise", "average", "maximum"];
/// Cells of one image of the input.
const IMAGE: usize = 4 * 3 * 2;

fn input() -> Vec<i16> {
    Random(31).int8(2 * IMAGE)
}

/// The lookups that bind a windowed operator's output to what it reads.
fn binding(layout: &Layout, k: &Lookup) -> bool {
    matches!(layout.tables[k.table].kind, TableKind::Range | TableKind::Difference | TableKind::Clamp(..))
}

#[test]
fn every_output_of_every_image_is_bound() {
    for kind in KINDS {
        let victim = Victim::new(nets::batch(kind), true);
        let x = input();
        let honest = victim.forge(&[&x]);
        assert_eq!(honest.copy().outcome(), Ok(()), "{kind}");
        let outputs = honest.ports[1].len();
        for at in [0, outputs / 2 - 1, outputs / 2, outputs - 1] {
            for by in [1, -1] {
                let f = victim.forge(&[&x]).tensor("y", |y| y[at] = if (-127..127).contains(&y[at]) { y[at] + by } else { 0 });
                assert_ne!(honest.ports, f.ports);
                assert_eq!(f.outcome(), LOOKUPS, "{kind} {at}");
                assert_eq!(f.without(binding), Ok(()), "{kind} {at}");
            }
        }
    }
}

#[test]
fn images_that_change_places() {
    for kind in KINDS {
        let victim = Victim::new(nets::batch(kind), true);
        let f = victim.forge(&[&input()]).tensor("y", |y| y.rotate_left(y.len() / 2));
        assert_eq!(f.outcome(), LOOKUPS, "{kind}");
    }
}

fn contract(layout: &mut Layout) -> &mut Contract {
    match &mut layout.accumulators[0].kind {
        AccumulatorKind::Contract { contract, .. } => contract,
        AccumulatorKind::Product { .. } => panic!("a product"),
    }
}

/// The same positions as one image: then windows at the seam read from both.
fn as_one_image(layout: &mut Layout) {
    let (Contract::Conv { window, .. } | Contract::Depthwise { window, .. } | Contract::Sum { window, .. }) = contract(layout) else {
        panic!("no window")
    };
    (window.batch, window.input.0, window.output.0) = (1, 2 * window.input.0, 2 * window.output.0);
}

#[test]
fn a_window_that_reads_the_next_image() {
    // An average pool's rules go by position: a seam without a border has other counts.
    for kind in ["convolution", "depthwise"] {
        let victim = Victim::new(nets::batch(kind), true);
        let mut f = victim.forge(&[&input()]);
        as_one_image(&mut f.layout);
        recompute(&mut f);
        assert_eq!(f.outcome(), OPENING, "{kind}");
        assert_eq!(f.against(|_| ()), Ok(()), "{kind}: the verifier of one tall image accepts");
    }
}
