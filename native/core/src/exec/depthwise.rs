//! Depthwise convolutions, vectorised over channels.

use crate::program::{TensorId, Window};

/// A depthwise convolution with its weights.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// Input.
    pub(super) x: TensorId,
    window: Window,
    channels: usize,
    /// `[KH, KW, C m]`
    weights: Vec<i16>,
    bias: Vec<i32>,
    zero: i16,
}

impl Depthwise {
    /// `weights` are `[KH, KW, C m]`.
    pub(super) fn new(x: TensorId, window: Window, channels: usize, weights: &[i32], bias: &[i32], zero: i32) -> Self {
        Depthwise { x, window, channels, weights: weights.iter().map(|&w| w as i16).collect(), bias: bias.to_vec(), zero: zero as i16 }
    }

    /// Accumulators of the positions from `first` that `acc` has room for.
    pub(super) fn tile(&self, x: &[i16], first: usize, acc: &mut [i32]) {
        let (w, c, outputs) = (&self.window, self.channels, self.bias.len());
        let width = w.output.1 as usize;
        for (i, acc) in acc.chunks_exact_mut(outputs).enumerate() {
            acc.copy_from_slice(&self.bias);
            let (oy, ox) = ((first + i) / width, (first + i) % width);
            for ky in 0..w.kernel.0 as usize {
                let Some(iy) = w.row(oy, ky) else { continue };
                for kx in 0..w.kernel.1 as usize {
                    let Some(ix) = w.column(ox, kx) else { continue };
                    let cell = &x[(iy * w.input.1 as usize + ix) * c..][..c];
                    let weights = &self.weights[(ky * w.kernel.1 as usize + kx) * outputs..][..outputs];
                    self.tap(cell, weights, acc);
                }
            }
        }
    }

    fn tap(&self, cell: &[i16], weights: &[i16], acc: &mut [i32]) {
        let multiplier = acc.len() / cell.len();
        if multiplier == 1 {
            for ((acc, &x), &w) in acc.iter_mut().zip(cell).zip(weights) {
                *acc = acc.wrapping_add(i32::from(x - self.zero) * i32::from(w));
            }
            return;
        }
        for ((acc, weights), &x) in acc.chunks_exact_mut(multiplier).zip(weights.chunks_exact(multiplier)).zip(cell) {
            for (acc, &w) in acc.iter_mut().zip(weights) {
                *acc = acc.wrapping_add(i32::from(x - self.zero) * i32::from(w));
            }
        }
    }
}
