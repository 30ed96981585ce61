//! Depthwise convolutions.

use std::borrow::Cow;

use crate::program::{TensorId, Window};

use super::kernels::Taps;

/// A depthwise convolution with its weights. The zero point is moved into the bias, as in [`super::gemm::Gemm`].
#[derive(Debug)]
pub(super) struct Depthwise {
    /// Input.
    pub(super) x: TensorId,
    window: Window,
    /// Output channels for each input channel.
    multiplier: usize,
    taps: Taps,
    /// A row of the zero point: what a tap in the padding reads.
    padding: Vec<i16>,
}

impl Depthwise {
    /// `weights` are `[KH, KW, C m]`.
    pub(super) fn new(x: TensorId, window: Window, channels: usize, weights: &[i32], bias: &[i32], zero: i32) -> Self {
        let outputs = bias.len();
        let sum = |o: usize| weights.iter().skip(o).step_by(outputs).sum();
        let bias: Vec<i32> = bias.iter().enumerate().map(|(o, b)| b.wrapping_sub(zero.wrapping_mul(sum(o)))).collect();
        let padding = vec![zero as i16; outputs];
        Depthwise { x, window, multiplier: outputs / channels, taps: Taps::new(weights, &bias), padding }
    }

    /// The input with one channel for each output channel.
    pub(super) fn spread<'a>(&self, x: &'a [i16]) -> Cow<'a, [i16]> {
        if self.multiplier == 1 { Cow::Borrowed(x) } else { x.iter().flat_map(|&x| std::iter::repeat_n(x, self.multiplier)).collect() }
    }

    /// Accumulators of the positions from `first` that `acc` has room for; `x` is [`Depthwise::spread`].
    pub(super) fn tile(&self, x: &[i16], first: usize, acc: &mut [i32]) {
        let (w, c) = (&self.window, self.padding.len());
        let (width, columns) = (w.output.1 as usize, w.kernel.1 as usize);
        let mut rows = vec![&self.padding[..]; self.taps.rows()];
        for (i, acc) in acc.chunks_exact_mut(c).enumerate() {
            let (oy, ox) = ((first + i) / width, (first + i) % width);
            for ky in 0..w.kernel.0 as usize {
                let line = w.row(oy, ky).map(|iy| &x[iy * w.input.1 as usize * c..][..w.input.1 as usize * c]);
                for kx in 0..columns {
                    let cell = line.zip(w.column(ox, kx)).map(|(line, ix)| &line[ix * c..][..c]);
                    rows[ky * columns + kx] = cell.unwrap_or(&self.padding);
                }
            }
            self.taps.accumulate(&rows, acc);
        }
    }
}
