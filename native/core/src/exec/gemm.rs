//! Convolutions as matrix products of patches and weights.

use crate::program::{TensorId, Window};

use super::kernels::Panels;

/// A convolution with its weights.
///
/// The input's zero point is moved into the bias: patches hold raw values and the zero point in the padding, and
/// `sum (x - z) w = sum x w - z sum w` exactly, modulo `2^32`.
#[derive(Debug)]
pub(super) struct Gemm {
    /// Input.
    pub(super) x: TensorId,
    window: Window,
    channels: usize,
    panels: Panels,
    zero: i16,
    /// Whether patches are rows of the input.
    direct: bool,
}

impl Gemm {
    /// `weights` are `[O, KH, KW, C]`.
    pub(super) fn new(x: TensorId, window: Window, channels: usize, weights: &[i32], bias: &[i32], zero: i32) -> Self {
        let depth = weights.len() / bias.len();
        let bias: Vec<i32> =
            weights.chunks_exact(depth).zip(bias).map(|(row, b)| b.wrapping_sub(zero.wrapping_mul(row.iter().sum()))).collect();
        let w = &window;
        let pointwise = w.kernel == (1, 1) && w.stride == (1, 1) && w.input == w.output;
        let whole = w.kernel == w.input && w.output == (1, 1) && w.pad == (0, 0) && w.dilation == (1, 1);
        let panels = Panels::new(weights, &bias);
        Gemm { x, window, channels, direct: (pointwise || whole) && panels.depth() == depth, panels, zero: zero as i16 }
    }

    /// Elements of a patch, 0 if none are gathered.
    pub(super) fn patch_depth(&self) -> usize {
        if self.direct { 0 } else { self.panels.depth() }
    }

    /// Accumulators of `positions` positions from `first`.
    pub(super) fn tile(&self, x: &[i16], first: usize, positions: usize, acc: &mut [i32], patches: &mut Vec<i16>) {
        let depth = self.panels.depth();
        if self.direct {
            return self.panels.multiply(&x[first * depth..(first + positions) * depth], acc);
        }
        patches.resize(positions * depth, 0);
        patches.chunks_exact_mut(depth).enumerate().for_each(|(i, patch)| self.patch(x, first + i, patch));
        self.panels.multiply(patches, acc);
    }

    /// The inputs of one position, in the order of the weights; what pads the depth meets weights of 0.
    fn patch(&self, x: &[i16], position: usize, patch: &mut [i16]) {
        let (w, c) = (&self.window, self.channels);
        let (width, columns) = (w.output.1 as usize, w.kernel.1 as usize);
        let (oy, ox) = (position / width, position % width);
        for (ky, line) in patch.chunks_exact_mut(columns * c).take(w.kernel.0 as usize).enumerate() {
            let Some(iy) = w.row(oy, ky) else {
                line.fill(self.zero);
                continue;
            };
            let row = &x[iy * w.input.1 as usize * c..][..w.input.1 as usize * c];
            // Without dilation the taps of a line that are inside the input are one slice of it.
            if let (1, Some(start)) = (w.dilation.1, w.column(ox, 0))
                && start + columns <= w.input.1 as usize
            {
                line.copy_from_slice(&row[start * c..][..columns * c]);
                continue;
            }
            for (kx, cell) in line.chunks_exact_mut(c).enumerate() {
                match w.column(ox, kx) {
                    Some(ix) => cell.copy_from_slice(&row[ix * c..][..c]),
                    None => cell.fill(self.zero),
                }
            }
        }
    }
}
