//! What a program costs to prove, as far as its own free choices need it: the width of the range table, and planes against tables.
//!
//! Measured on one core: a committed cell costs about as much as a lookup leaf or table row; only ratios matter here.

use super::Line;

/// Nanoseconds of a committed cell.
const CELL: u64 = 35;
/// Nanoseconds of a lookup leaf, or of a table row beside its multiplicity.
const LEAF: u64 = 30;

/// Nanoseconds of a table row with its multiplicity.
pub(super) const ROW: u64 = CELL + LEAF;

fn of(cells: u64, leaves: u64) -> u64 {
    cells * CELL + leaves * LEAF
}

/// One activation of a rescale: value, value before the clamp, two signs where there are two offsets, a high limb for each check where
/// the denominator is above the range table.
pub(super) fn rescale(line: &Line, w: u8) -> u64 {
    let (mut cells, mut leaves) = if line.two_offsets() { (4, 4) } else { (2, 3) };
    if line.d > 1 << w {
        (cells, leaves) = (cells + 2, leaves + 2);
    }
    of(cells, leaves)
}

/// One activation of a lookup.
pub(super) fn lookup() -> u64 {
    of(1, 1)
}

/// A range check of `bits` by limbs of `w`: the lowest limb is virtual, a top limb that is not full is looked up twice.
fn range(bits: u64, w: u64) -> u64 {
    let limbs = bits.div_ceil(w);
    of(limbs - 1, limbs + u64::from(!bits.is_multiple_of(w)))
}

/// A softmax of `rows` rows and `elements` elements: its quotients and remainders depend on `w`, the rest does not.
pub(super) fn softmax(rows: u64, elements: u64, w: u8) -> u64 {
    let w = w.into();
    let row = [30, 30, 31, 31, 31, 25, 31, 31, 31, 25, 31, 31, 31, 25, 31, 1, 31, 32];
    let element = [31, 31, 32, 32];
    rows * row.map(|b| range(b, w)).iter().sum::<u64>() + elements * element.map(|b| range(b, w)).iter().sum::<u64>()
}
