//! The verifier's share of the opening sumcheck: the weight of all functionals at the final point, side by side.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::functional::Weighted;
use super::stack::{Span, Stack};
use crate::blocks::Block;
use crate::field::K;
use crate::halves::Halves;
use crate::side::Axis;

/// The multilinear extension of the batched functionals at `z`.
///
/// On a block it is the product of the idle variables' and the block's own position in the stack, and a sum of one product for each functional:
/// its positions' and its channels' inner product with a tensor of challenges.
pub(crate) fn weight_at<const D: usize>(stack: &Stack, functionals: &[Vec<Vec<Weighted<'_, D>>>], z: &[K<D>]) -> K<D> {
    let (mut tables, mut blocks) = (BTreeSet::new(), Vec::new());
    for (o, layout) in stack.layouts.iter().enumerate() {
        for block in &layout.blocks {
            let mine = &functionals[o][block.owner];
            let span = stack.span(o, block);
            if mine.iter().any(|f| f.v.needs_table(&block.channels)) {
                tables.insert((span.start, span.channels));
            }
            if mine.iter().any(|f| f.u.needs_table(&block.positions)) {
                tables.insert((span.start + span.channels, span.positions));
            }
            if !mine.is_empty() {
                blocks.push((span, block, mine));
            }
        }
    }
    let tensors = &Tensors::new(z, stack.log_rows, tables);
    // The first are the largest.
    blocks.into_par_iter().with_max_len(4).map(|(span, block, mine)| tensors.block(span, block, mine)).reduce(|| K::ZERO, |a, b| a + b)
}

/// Tensors of the factors that weights take from consecutive variables.
struct Tensors<const D: usize> {
    /// Factors of bit 0 and 1 of each variable: a weight folds as `w_o + z w_e` while variables are bound in the coefficient basis, then
    /// as `w_e + z (w_o - w_e)`.
    pairs: Vec<(K<D>, K<D>)>,
    /// Their products, by first variable and number of variables, where a side has no closed form.
    tables: BTreeMap<(usize, usize), Halves<D>>,
}

impl<const D: usize> Tensors<D> {
    /// The first `coefficients` variables are bound in the coefficient basis.
    fn new(z: &[K<D>], coefficients: usize, tables: BTreeSet<(usize, usize)>) -> Self {
        let pair = |(j, &z)| if j < coefficients { (z, K::ONE) } else { (K::ONE - z, z) };
        let pairs: Vec<_> = z.iter().enumerate().map(pair).collect();
        let table = |(from, len)| ((from, len), Halves::new(K::ONE, &pairs[from..from + len]));
        let tables = tables.into_par_iter().map(table).collect();
        Tensors { pairs, tables }
    }

    /// The weight of one block.
    fn block(&self, span: Span, block: &Block, functionals: &[Weighted<'_, D>]) -> K<D> {
        let (channels, positions) = (self.axis(span.start, span.channels), self.axis(span.start + span.channels, span.positions));
        let mut sum = K::ZERO;
        for f in functionals {
            let across = f.v.over(&block.channels, channels);
            if across != K::ZERO {
                sum += f.scale * across * f.u.over(&block.positions, positions);
            }
        }
        let outer = (0..span.start).chain(span.end()..self.pairs.len());
        outer.fold(sum, |t, j| t * if span.index >> j & 1 == 1 { self.pairs[j].1 } else { self.pairs[j].0 })
    }

    fn axis(&self, from: usize, len: usize) -> Axis<'_, D> {
        Axis { pairs: &self.pairs[from..from + len], table: self.tables.get(&(from, len)) }
    }
}
