//! Sums and maxima over windows, vectorised over channels.

use crate::program::{TensorId, Window};

/// A sum over windows.
#[derive(Debug)]
pub(super) struct Sum {
    /// Input.
    pub(super) x: TensorId,
    /// Index map.
    pub(super) window: Window,
    /// Input zero point.
    pub(super) zero: i16,
}

impl Sum {
    /// Accumulators of the positions from `first` that `acc` has room for.
    pub(super) fn tile(&self, x: &[i16], first: usize, acc: &mut [i32], channels: usize) {
        for (i, acc) in acc.chunks_exact_mut(channels).enumerate() {
            acc.fill(0);
            cells(&self.window, first + i, |cell| {
                let cell = &x[cell * channels..][..channels];
                acc.iter_mut().zip(cell).for_each(|(acc, &x)| *acc = acc.wrapping_add(i32::from(x - self.zero)));
            });
        }
    }
}

/// Calls `visit` with the input position of every valid tap of an output position.
fn cells(w: &Window, position: usize, mut visit: impl FnMut(usize)) {
    let width = w.output.1 as usize;
    let (oy, ox) = (position / width, position % width);
    for iy in (0..w.kernel.0 as usize).filter_map(|ky| w.row(oy, ky)) {
        for ix in (0..w.kernel.1 as usize).filter_map(|kx| w.column(ox, kx)) {
            visit(iy * w.input.1 as usize + ix);
        }
    }
}

/// Largest valid cell of each window, clamped.
pub(super) fn max(x: &[i16], window: &Window, channels: usize, clamp: (i16, i16), y: &mut [i16]) {
    for (position, y) in y.chunks_exact_mut(channels).enumerate() {
        y.fill(i16::MIN);
        cells(window, position, |cell| y.iter_mut().zip(&x[cell * channels..][..channels]).for_each(|(y, &x)| *y = (*y).max(x)));
        y.iter_mut().for_each(|y| *y = (*y).clamp(clamp.0, clamp.1));
    }
}
