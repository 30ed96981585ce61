//! A contraction and its rescale in one pass: each tile of positions is accumulated, requantised while it is in cache, and dropped
//! unless the trace wants it.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::program::check::CheckedProgram;
use crate::program::{AccId, Contract, Op, TensorId, Weights};

use super::depthwise::Depthwise;
use super::gemm::Gemm;
use super::pool::Sum;
use super::requantize::{Plane, Requantize};

/// Accumulators of one tile, in 32-bit words: a fraction of the second-level cache.
const TILE_WORDS: usize = 1 << 14;

#[derive(Debug)]
enum Kernel {
    Gemm(Gemm),
    Depthwise(Depthwise),
    Sum(Sum),
    /// No accumulators: ADD's plane is evaluated at once.
    Mix(Plane),
}

/// One contraction with its rescale.
#[derive(Debug)]
pub(super) struct Contraction {
    out: TensorId,
    positions: usize,
    channels: usize,
    kernel: Kernel,
    requantize: Requantize,
}

impl Contraction {
    /// For a checked program and weights that were checked against it.
    pub(super) fn new(program: &CheckedProgram, acc: AccId, contract: &Contract, weights: &Weights) -> Self {
        let shape = program.accumulators[acc as usize];
        let (positions, channels) = (shape.positions as usize, shape.channels as usize);
        let Op::Rescale(rescale) = &program.ops[program.rescale_of(acc)] else {
            unreachable!("`rescale_of` names a rescale");
        };
        let values = |id: u32| &weights.values[id as usize][..];
        let bias = |id: Option<u32>| id.map_or_else(|| vec![0; channels], |id| values(id).to_vec());
        let depth = |x: TensorId| program.tensors[x as usize].channels();
        let kernel = match contract {
            Contract::Conv { x, window, weights, bias: b, x_zero } => {
                Kernel::Gemm(Gemm::new(*x, *window, depth(*x), values(*weights), &bias(*b), *x_zero))
            }
            Contract::Depthwise { x, window, weights, bias: b, x_zero } => {
                Kernel::Depthwise(Depthwise::new(*x, *window, depth(*x), values(*weights), &bias(*b), *x_zero))
            }
            Contract::Sum { x, window, x_zero } => Kernel::Sum(Sum { x: *x, window: *window, zero: *x_zero as i16 }),
            Contract::Mix { terms } => Kernel::Mix(Plane::new(terms, rescale)),
        };
        Contraction { out: rescale.out, positions, channels, kernel, requantize: Requantize::new(rescale, contract) }
    }

    /// The tensor that the rescale defines.
    pub(super) fn out(&self) -> TensorId {
        self.out
    }

    /// The output, and the accumulators if they are kept and exist.
    pub(super) fn run(&self, tensors: &[Vec<i16>], keep: bool, parallel: bool) -> (Vec<i16>, Vec<i32>) {
        let mut out = vec![0; self.positions * self.channels];
        let x = match &self.kernel {
            Kernel::Gemm(g) => Cow::Borrowed(&tensors[g.x as usize][..]),
            Kernel::Depthwise(d) => d.spread(&tensors[d.x as usize]),
            Kernel::Sum(s) => Cow::Borrowed(&tensors[s.x as usize][..]),
            Kernel::Mix(plane) => {
                plane.run(tensors, &mut out, parallel);
                return (out, Vec::new());
            }
        };
        let rows = (TILE_WORDS / self.channels).clamp(1, self.positions).next_multiple_of(8).min(self.positions);
        let step = rows * self.channels;
        let tile = |scratch: &mut Scratch, index: usize, acc: &mut [i32], out: &mut [i16]| {
            let first = index * rows;
            match &self.kernel {
                Kernel::Gemm(g) => g.tile(&x, first, acc.len() / self.channels, acc, &mut scratch.patches),
                Kernel::Depthwise(d) => d.tile(&x, first, acc),
                Kernel::Sum(s) => s.tile(&x, first, acc, self.channels),
                Kernel::Mix(_) => {}
            }
            self.requantize.rows(first, acc, out, self.channels);
        };
        let mut accumulators = if keep { vec![0i32; out.len()] } else { Vec::new() };
        let fresh = || Scratch { acc: vec![0; if keep { 0 } else { step }], patches: Vec::new() };
        match (keep, parallel && self.positions > rows) {
            (true, true) => {
                let both = accumulators.par_chunks_mut(step).zip(out.par_chunks_mut(step)).enumerate();
                both.for_each_init(fresh, |s, (i, (acc, out))| tile(s, i, acc, out));
            }
            (true, false) => {
                let s = &mut fresh();
                accumulators.chunks_mut(step).zip(out.chunks_mut(step)).enumerate().for_each(|(i, (acc, out))| tile(s, i, acc, out));
            }
            (false, true) => out.par_chunks_mut(step).enumerate().for_each_init(fresh, |s, (i, out)| {
                let mut acc = std::mem::take(&mut s.acc);
                tile(s, i, &mut acc[..out.len()], out);
                s.acc = acc;
            }),
            (false, false) => {
                let s = &mut fresh();
                let mut acc = std::mem::take(&mut s.acc);
                out.chunks_mut(step).enumerate().for_each(|(i, out)| tile(s, i, &mut acc[..out.len()], out));
            }
        }
        (out, accumulators)
    }
}

/// Buffers of one thread.
struct Scratch {
    acc: Vec<i32>,
    patches: Vec<i16>,
}
