//! All accumulators of the program as one batched sumcheck over the contraction index `k = (ky, kx, c)` (design section 4, step 3).
//!
//! A weight `u (x) v` on an accumulator is `sum_k A(k) B(k)` with `A` the input folded by `u` through the index map and `B` the weights
//! folded by `v`. An instance of `n_i` variables uses the last `n_i` challenges at weight `2^-(n - n_i)`. Products of two committed
//! factors take part with `k = (p, c)` and the public factor `u (x) v`, which makes the rounds cubic.

mod fold;
mod forms;
mod sumcheck;

pub use forms::{Public, linear_part};
pub use sumcheck::{prove, verify};

use crate::eq::{eq, log2_ceil};
use crate::field::K;
use crate::layout::{AccumulatorKind, Layout};
use crate::logup::AccumulatorWeight;
use crate::program::{Contract, Window};
use crate::side::Side;

/// One summand of the batched sumcheck.
pub struct Instance<'a, const D: usize> {
    layout: &'a Layout,
    accumulator: usize,
    u: Side<D>,
    v: Side<D>,
    /// Bits of the cube, lowest first: `(c, kx, ky)`, or `(c, p)` for a product.
    bits: Vec<usize>,
}

/// What an instance sums over.
enum Shape<'a> {
    Window { window: &'a Window, x: u32, channels: usize, depthwise: bool, weights: u32, stored: Option<usize>, x_zero: i32 },
    Product,
}

impl<'a, const D: usize> Instance<'a, D> {
    /// `None` if the accumulator is linear in committed cells and needs no sumcheck.
    pub fn new(layout: &'a Layout, weight: AccumulatorWeight<D>) -> Result<Self, AccumulatorWeight<D>> {
        let acc = &layout.accumulators[weight.accumulator];
        let bits = match &acc.kind {
            AccumulatorKind::Product { .. } => vec![log2_ceil(acc.channels), log2_ceil(acc.positions)],
            AccumulatorKind::Contract { contract: Contract::Conv { x, window, .. } | Contract::Depthwise { x, window, .. }, .. } => {
                let channels = layout.views[*x as usize].channels;
                vec![log2_ceil(channels), log2_ceil(window.kernel.1 as usize), log2_ceil(window.kernel.0 as usize)]
            }
            AccumulatorKind::Contract { contract: Contract::Sum { .. } | Contract::Mix { .. }, .. } => return Err(weight),
        };
        Ok(Instance { layout, accumulator: weight.accumulator, u: weight.u, v: weight.v, bits })
    }

    /// Variables of the cube.
    pub fn variables(&self) -> usize {
        self.bits.iter().sum()
    }

    fn shape(&self) -> Shape<'a> {
        match &self.layout.accumulators[self.accumulator].kind {
            AccumulatorKind::Product { .. } => Shape::Product,
            AccumulatorKind::Contract { contract, weights: stored, .. } => {
                let (x, window, weights, x_zero, depthwise) = match contract {
                    Contract::Conv { x, window, weights, x_zero, .. } => (x, window, weights, x_zero, false),
                    Contract::Depthwise { x, window, weights, x_zero, .. } => (x, window, weights, x_zero, true),
                    Contract::Sum { .. } | Contract::Mix { .. } => unreachable!("`new` keeps bilinear accumulators only"),
                };
                let channels = self.layout.views[*x as usize].channels;
                Shape::Window { window, x: *x, channels, depthwise, weights: *weights, stored: *stored, x_zero: *x_zero }
            }
        }
    }

    /// Whether rounds are cubic.
    fn is_product(&self) -> bool {
        matches!(self.shape(), Shape::Product)
    }

    /// Factors whose final values the prover sends: both of a product, the input, and the weights where they are committed.
    pub fn sent(&self) -> usize {
        match self.shape() {
            Shape::Product | Shape::Window { stored: Some(_), .. } => 2,
            Shape::Window { stored: None, .. } => 1,
        }
    }

    /// This instance's part of the point by dimension, lowest first.
    fn points<'p>(&self, point: &'p [K<D>]) -> Vec<&'p [K<D>]> {
        let mut rest = &point[point.len() - self.variables()..];
        self.bits
            .iter()
            .map(|&b| {
                let (head, tail) = rest.split_at(b);
                rest = tail;
                head
            })
            .collect()
    }

    /// `eq` tables of [`Self::points`], each as long as its power of two.
    fn tables(&self, point: &[K<D>]) -> Vec<Vec<K<D>>> {
        self.points(point).into_iter().map(eq).collect()
    }
}

/// Variables of the batched sumcheck, and the degree of its rounds.
pub fn shape<const D: usize>(instances: &[Instance<'_, D>]) -> (usize, usize) {
    let n = instances.iter().map(Instance::variables).max().unwrap_or(0);
    (n, if instances.iter().any(Instance::is_product) { 3 } else { 2 })
}
