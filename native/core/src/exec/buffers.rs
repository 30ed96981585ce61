//! Buffers for tensors that nobody keeps: fresh pages cost more than the arithmetic on them.

use std::sync::{Mutex, PoisonError};

/// Buffers of earlier tensors or accumulators, for later ones of this and the next runs: no more than runs had alive at once.
#[derive(Debug, Default)]
pub(super) struct Buffers<T> {
    spare: Mutex<Vec<Vec<T>>>,
}

impl<T: Copy + Default> Buffers<T> {
    /// A buffer of `n` values, unspecified but initialised: the smallest spare one that is large enough, or a new one.
    pub(super) fn take(&self, n: usize) -> Vec<T> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = spare.iter().enumerate().filter(|(_, b)| b.capacity() >= n).min_by_key(|(_, b)| b.capacity()).map(|(i, _)| i);
        let Some(i) = fits else { return vec![T::default(); n] };
        let mut buffer = spare.swap_remove(i);
        drop(spare);
        buffer.resize(n, T::default());
        buffer
    }

    /// Returns a buffer.
    pub(super) fn give(&self, buffer: Vec<T>) {
        if buffer.capacity() > 0 {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
