//! Linear forms in committed cells: sums of separable functionals on storages.

use crate::field::{F, K};
use crate::layout::{Layout, StorageId};
use crate::side::Side;

/// `constant + sum of <storage, u (x) v>`.
#[derive(Clone, Debug)]
pub struct LinearForm<const D: usize> {
    /// Public part.
    pub constant: K<D>,
    /// Functionals.
    pub slots: Vec<Slot<D>>,
}

/// A separable functional on one storage.
#[derive(Clone, Debug)]
pub struct Slot<const D: usize> {
    /// The storage.
    pub storage: StorageId,
    /// Weight of each position.
    pub u: Side<D>,
    /// Weight of each channel.
    pub v: Side<D>,
}

impl<const D: usize> Default for LinearForm<D> {
    fn default() -> Self {
        LinearForm { constant: K::ZERO, slots: Vec::new() }
    }
}

impl<const D: usize> LinearForm<D> {
    /// Adds a functional of its own.
    pub fn push(&mut self, storage: StorageId, u: impl Into<Side<D>>, v: impl Into<Side<D>>) {
        self.slots.push(Slot { storage, u: u.into(), v: v.into() });
    }

    /// Adds another form.
    pub fn absorb(&mut self, other: LinearForm<D>) {
        self.constant += other.constant;
        self.slots.extend(other.slots);
    }

    /// Pulls a functional `u (x) v` on a tensor back to its storages.
    pub fn tensor(&mut self, layout: &Layout, tensor: u32, u: Side<D>, v: Side<D>) {
        let view = &layout.views[tensor as usize];
        for (a, b) in &view.constants {
            self.constant += u.weigh(a) * v.weigh(b);
        }
        let Some((last, others)) = view.pieces.split_last() else { return };
        for piece in others {
            let s = layout.storages[piece.storage];
            let us = u.moved(s.positions, &piece.storage_positions, &piece.tensor_positions);
            let vs = v.moved(s.channels, &piece.storage_channels, &piece.tensor_channels);
            self.push(piece.storage, us, vs);
        }
        let s = layout.storages[last.storage];
        let us = u.into_moved(s.positions, &last.storage_positions, &last.tensor_positions);
        let vs = v.into_moved(s.channels, &last.storage_channels, &last.tensor_channels);
        self.push(last.storage, us, vs);
    }

    /// The value on given cells (the prover's self-test and tests; never the verifier).
    pub fn value(&self, storages: &[Vec<F>]) -> K<D> {
        self.slots.iter().fold(self.constant, |total, s| {
            let (u, v) = (s.u.to_vec(), s.v.to_vec());
            let rows = storages[s.storage].chunks_exact(v.len()).zip(&u);
            total + rows.map(|(row, &u)| u * row.iter().zip(&v).map(|(&x, &v)| v.scale(x)).sum::<K<D>>()).sum::<K<D>>()
        })
    }
}
