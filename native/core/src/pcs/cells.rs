//! The cells of an oracle: a long vector of field elements, almost all of them small integers, kept in four bytes each.
//!
//! The vector is the sum of a vector of small integers and of a few blocks of arbitrary elements (random ones; none in an ordinary witness).
//! Everything done to it is linear, so that each part takes the arithmetic that suits it.

use std::ops::Range;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::oracle::OracleLayout;
use crate::field::{F, P, centred};

/// Small cells are at most this large in absolute value: see `kernel`.
pub(crate) const SMALL: i64 = 1 << 24;

/// A long vector.
pub(crate) struct Cells {
    small: Vec<i32>,
    /// Offset and cells of the blocks that are not small, by rising offset; the small vector is 0 there.
    wide: Vec<(usize, Vec<F>)>,
}

/// A block's cells.
#[derive(Clone, Copy)]
pub(crate) enum BlockCells<'a> {
    /// Small integers.
    Small(&'a [i32]),
    /// Any elements.
    Wide(&'a [F]),
}

impl Cells {
    /// The storages' values, row-major, laid out in blocks; padding is 0. `random` fills the random blocks one after another.
    pub fn new(layout: &OracleLayout, values: &[&[F]], random: &[F]) -> Cells {
        let mut small = vec![0; layout.cells()];
        let mut slots = Vec::with_capacity(layout.blocks.len());
        let (mut rest, mut at) = (small.as_mut_slice(), 0);
        for b in &layout.blocks {
            let (slot, tail) = rest.split_at_mut(b.offset - at).1.split_at_mut(b.size());
            slots.push((b, slot));
            (rest, at) = (tail, b.offset + b.size());
        }
        let mut wide: Vec<(usize, Vec<F>)> = slots
            .into_par_iter()
            .filter_map(|(b, slot)| {
                let row = |p: usize| &values[b.owner][p * layout.shapes[b.owner].1..][b.channels.range()];
                let mut all_small = true;
                for (to, p) in slot.chunks_exact_mut(b.channels.size).zip(b.positions.range()) {
                    for (to, &x) in to.iter_mut().zip(row(p)) {
                        let x = centred(x);
                        all_small &= (-SMALL..=SMALL).contains(&x);
                        *to = x as i32;
                    }
                }
                if all_small {
                    return None;
                }
                slot.fill(0);
                let mut cells = vec![F::ZERO; b.size()];
                for (to, p) in cells.chunks_exact_mut(b.channels.size).zip(b.positions.range()) {
                    to[..b.channels.used].copy_from_slice(row(p));
                }
                Some((b.offset, cells))
            })
            .collect();
        let mut random = random;
        for (offset, size) in layout.random_blocks() {
            let (block, rest) = random.split_at(size);
            wide.push((offset, block.to_vec()));
            random = rest;
        }
        wide.sort_unstable_by_key(|w| w.0);
        Cells { small, wide }
    }

    /// The cells of a block.
    pub fn block(&self, offset: usize, size: usize) -> BlockCells<'_> {
        match self.wide.binary_search_by_key(&offset, |w| w.0) {
            Ok(k) => BlockCells::Wide(&self.wide[k].1),
            Err(_) => BlockCells::Small(&self.small[offset..offset + size]),
        }
    }

    /// The part of small integers.
    pub fn small(&self) -> &[i32] {
        &self.small
    }

    /// The parts of other elements with their offsets.
    pub fn wide(&self) -> &[(usize, Vec<F>)] {
        &self.wide
    }

    /// Some cells as field elements.
    pub fn read(&self, range: Range<usize>, out: &mut [F]) {
        for (to, &x) in out.iter_mut().zip(&self.small[range.clone()]) {
            *to = lift(x);
        }
        let first = self.wide.partition_point(|(offset, cells)| offset + cells.len() <= range.start);
        for (offset, cells) in self.wide[first..].iter().take_while(|w| w.0 < range.end) {
            let (from, to) = (range.start.max(*offset), range.end.min(offset + cells.len()));
            out[from - range.start..to - range.start].copy_from_slice(&cells[from - offset..to - offset]);
        }
    }
}

/// An integer as an element, without a branch.
#[inline(always)]
fn lift(x: i32) -> F {
    let sign = i64::from(x >> 31) as u64;
    F::from_u64((i64::from(x) as u64).wrapping_add(P & sign))
}
