//! Vectors of extension elements, one array for each base coordinate, so that every loop runs on packed base elements.

use p3_field::{PackedValue, PrimeCharacteristicRing};

use crate::field::{Ext, F, K, LANES, PackedF, PackedK};

/// Elements that are always handled together: at least the lanes of every supported register.
pub const GROUP: usize = 8;
/// Packed registers in a group.
pub const PER_GROUP: usize = GROUP / LANES;

/// A vector over `K` whose length is a multiple of [`GROUP`].
#[derive(Clone, Debug)]
pub struct ExtVec<const D: usize> {
    /// One array for each coordinate.
    pub c: [Vec<F>; D],
}

/// A view of an [`ExtVec`] as packed elements.
#[derive(Clone, Copy)]
pub struct Packs<'a, const D: usize> {
    c: [&'a [PackedF]; D],
}

/// A mutable view of an [`ExtVec`] as packed elements.
pub struct PacksMut<'a, const D: usize> {
    c: [&'a mut [PackedF]; D],
}

impl<const D: usize> ExtVec<D> {
    /// `groups * GROUP` zeros.
    pub fn zeros(groups: usize) -> Self {
        ExtVec { c: core::array::from_fn(|_| vec![F::ZERO; groups * GROUP]) }
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.c[0].len() / GROUP
    }

    /// Element `i`.
    pub fn get(&self, i: usize) -> K<D> {
        Ext(core::array::from_fn(|j| self.c[j][i]))
    }

    /// Appends a group of equal elements.
    pub fn push_group(&mut self, x: K<D>) {
        for (column, v) in self.c.iter_mut().zip(x.0) {
            column.extend([v; GROUP]);
        }
    }

    /// Packed view.
    pub fn packs(&self) -> Packs<'_, D> {
        Packs { c: core::array::from_fn(|j| PackedF::pack_slice(&self.c[j])) }
    }

    /// Packed mutable view.
    pub fn packs_mut(&mut self) -> PacksMut<'_, D> {
        PacksMut { c: self.c.each_mut().map(|v| PackedF::pack_slice_mut(v)) }
    }
}

impl<const D: usize> Packs<'_, D> {
    /// The packed element `i`.
    #[inline(always)]
    pub fn get(&self, i: usize) -> PackedK<D> {
        Ext(core::array::from_fn(|j| self.c[j][i]))
    }
}

impl<'a, const D: usize> PacksMut<'a, D> {
    /// Overwrites the packed element `i`.
    #[inline(always)]
    pub fn set(&mut self, i: usize, x: PackedK<D>) {
        for j in 0..D {
            self.c[j][i] = x.0[j];
        }
    }

    /// Cuts into chunks of `n` packed elements (the last may be shorter).
    pub fn chunks(self, n: usize) -> Vec<PacksMut<'a, D>> {
        let count = self.c[0].len().div_ceil(n);
        let mut out: Vec<[Option<&'a mut [PackedF]>; D]> = (0..count).map(|_| core::array::from_fn(|_| None)).collect();
        for (j, column) in self.c.into_iter().enumerate() {
            for (slot, chunk) in out.iter_mut().zip(column.chunks_mut(n)) {
                slot[j] = Some(chunk);
            }
        }
        out.into_iter().map(|c| PacksMut { c: c.map(|x| x.expect("every column has as many chunks")) }).collect()
    }
}
