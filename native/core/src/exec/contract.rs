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

/// Accumulators and patches of one tile, elements: together a fraction of the second-level cache.
const TILE: usize = 1 << 15;
/// Rows of a tile are a multiple of this where there are enough: whole blocks of every matrix kernel.
const BLOCK: usize = 48;
/// Smaller operators run on one thread: waking another costs as much.
const PARALLEL_MACS: u64 = 1 << 22;

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
    channels: usize,
    size: usize,
    /// Positions of one tile.
    rows: usize,
    macs: u64,
    kernel: Kernel,
    requantize: Requantize,
}

impl Contraction {
    /// For a checked program and weights that were checked against it.
    pub(super) fn new(program: &CheckedProgram, op: &Op, acc: AccId, contract: &Contract, weights: &Weights) -> Self {
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
        let width = if let Kernel::Gemm(g) = &kernel { channels + g.patch_depth() } else { channels };
        let rows = (TILE / width).clamp(1, positions);
        let rows = if rows > BLOCK { rows / BLOCK * BLOCK } else { rows };
        let macs = program.macs(op);
        Contraction { channels, size: positions * channels, rows, macs, kernel, requantize: Requantize::new(rescale, contract) }
    }

    /// Number of accumulators that a trace keeps.
    pub(super) fn accumulators(&self) -> usize {
        if matches!(self.kernel, Kernel::Mix(_)) { 0 } else { self.size }
    }

    /// Fills the output, and the accumulators unless `accumulators` is empty.
    pub(super) fn run(&self, tensors: &[Vec<i16>], out: &mut [i16], accumulators: &mut [i32], parallel: bool) {
        let parallel = parallel && self.macs >= PARALLEL_MACS;
        let x = match &self.kernel {
            Kernel::Gemm(g) => Cow::Borrowed(&tensors[g.x as usize][..]),
            Kernel::Depthwise(d) => d.spread(&tensors[d.x as usize]),
            Kernel::Sum(s) => Cow::Borrowed(&tensors[s.x as usize][..]),
            Kernel::Mix(plane) => {
                return plane.run(tensors, out, parallel);
            }
        };
        let step = self.rows * self.channels;
        let tile = |scratch: &mut Scratch, index: usize, acc: &mut [i32], out: &mut [i16]| {
            let first = index * self.rows;
            match &self.kernel {
                Kernel::Gemm(g) => g.tile(&x, first, acc.len() / self.channels, acc, &mut scratch.patches),
                Kernel::Depthwise(d) => d.tile(&x, first, acc),
                Kernel::Sum(s) => s.tile(&x, first, acc, self.channels),
                Kernel::Mix(_) => {}
            }
            self.requantize.rows(first, acc, out, self.channels);
        };
        let dropped = |s: &mut Scratch, (i, out): (usize, &mut [i16])| {
            let mut acc = std::mem::take(&mut s.acc);
            acc.resize(step, 0);
            tile(s, i, &mut acc[..out.len()], out);
            s.acc = acc;
        };
        let kept = |s: &mut Scratch, (i, (acc, out)): (usize, (&mut [i32], &mut [i16]))| tile(s, i, acc, out);
        match (!accumulators.is_empty(), parallel) {
            (true, true) => {
                accumulators.par_chunks_mut(step).zip(out.par_chunks_mut(step)).enumerate().for_each_init(Scratch::default, kept);
            }
            (true, false) => {
                let s = &mut Scratch::default();
                accumulators.chunks_mut(step).zip(out.chunks_mut(step)).enumerate().for_each(|tile| kept(s, tile));
            }
            (false, true) => out.par_chunks_mut(step).enumerate().for_each_init(Scratch::default, dropped),
            (false, false) => {
                let s = &mut Scratch::default();
                out.chunks_mut(step).enumerate().for_each(|tile| dropped(s, tile));
            }
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    acc: Vec<i32>,
    patches: Vec<i16>,
}
