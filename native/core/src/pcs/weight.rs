//! The verifier's share of the opening sumcheck: the weight of all functionals at the final point, side by side.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::functional::Weighted;
use super::stack::{Span, Stack};
use crate::blocks::Block;
use crate::field::{Ext, F, K, canonical};
use crate::side::Axis;

/// The multilinear extension of the batched functionals at `z`.
///
/// On a block it is the product of the idle variables' and the block's own position in the stack, and a sum of one product for each functional:
/// its positions' and its channels' inner product with a tensor of challenges.
pub(crate) fn weight_at<const D: usize>(stack: &Stack, functionals: &[Vec<Vec<Weighted<'_, D>>>], z: &[K<D>]) -> K<D> {
    let mut tensors = Tensors::new(z, stack.log_rows);
    let mut blocks = Vec::new();
    for (o, layout) in stack.layouts.iter().enumerate() {
        for block in &layout.blocks {
            let mine = &functionals[o][block.owner];
            let span = stack.span(o, block);
            if mine.iter().any(|f| f.v.needs_table(&block.channels)) {
                tensors.extend(span.start, span.channels);
            }
            if mine.iter().any(|f| f.u.needs_table(&block.positions)) {
                tensors.extend(span.start + span.channels, span.positions);
            }
            if !mine.is_empty() {
                blocks.push((span, block, mine));
            }
        }
    }
    let tensors = &tensors;
    blocks.into_par_iter().map(|(span, block, mine)| tensors.block(span, block, mine)).reduce(|| K::ZERO, |a, b| a + b)
}

/// Tensors of the factors that weights take from consecutive variables.
struct Tensors<const D: usize> {
    /// Factors of bit 0 and 1 of each variable: a weight folds as `w_o + z w_e` while variables are bound in the coefficient basis, then
    /// as `w_e + z (w_o - w_e)`.
    pairs: Vec<(K<D>, K<D>)>,
    /// By first variable, then by number of variables.
    levels: BTreeMap<usize, Vec<Vec<K<D>>>>,
}

impl<const D: usize> Tensors<D> {
    /// The first `coefficients` variables are bound in the coefficient basis.
    fn new(z: &[K<D>], coefficients: usize) -> Self {
        let pair = |(j, &z)| if j < coefficients { (z, K::ONE) } else { (K::ONE - z, z) };
        Tensors { pairs: z.iter().enumerate().map(pair).collect(), levels: BTreeMap::new() }
    }

    /// The weight of one block.
    fn block(&self, span: Span, block: &Block, functionals: &[Weighted<'_, D>]) -> K<D> {
        let (channels, positions) = (self.axis(span.start, span.channels), self.axis(span.start + span.channels, span.positions));
        let mut sum = K::ZERO;
        for f in functionals {
            let across = f.v.over(&block.channels, channels, dot);
            if across != K::ZERO {
                sum += f.scale * across * f.u.over(&block.positions, positions, dot);
            }
        }
        let outer = (0..span.start).chain(span.end()..self.pairs.len());
        outer.fold(sum, |t, j| t * if span.index >> j & 1 == 1 { self.pairs[j].1 } else { self.pairs[j].0 })
    }

    /// `len` variables; with their table if [`Self::extend`] was asked for it.
    fn axis(&self, from: usize, len: usize) -> Axis<'_, D> {
        let table = self.levels.get(&from).and_then(|levels| levels.get(len));
        Axis { pairs: &self.pairs[from..from + len], table: table.map_or(&[], Vec::as_slice) }
    }

    fn extend(&mut self, from: usize, len: usize) {
        let levels = self.levels.entry(from).or_insert_with(|| vec![vec![K::ONE]]);
        while levels.len() <= len {
            let (zero, one) = self.pairs[from + levels.len() - 1];
            let low = &levels[levels.len() - 1];
            let mut both = Vec::with_capacity(2 * low.len());
            if one == K::ONE {
                both.extend(low.iter().map(|&x| x * zero));
                both.extend(low);
            } else {
                // zero + one = 1.
                both.extend_from_slice(low);
                both.extend(low.iter().map(|&x| x * one));
                let (zeros, ones) = both.split_at_mut(low.len());
                zeros.iter_mut().zip(ones).for_each(|(x, &mut y)| *x -= y);
            }
            levels.push(both);
        }
    }
}

/// `sum_i a[i] b[i]` over the shorter length. Products of coordinates are summed in 192 bits and reduced once.
pub(crate) fn dot<const D: usize>(a: &[K<D>], b: &[K<D>]) -> K<D> {
    // sums[i][j] is the coefficient of X^(i + j): D^2 sums, merged at the end, keep the carries independent of each other.
    let mut sums = [[(0u128, 0u64); D]; D];
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x.0.map(canonical), y.0.map(canonical));
        for i in 0..D {
            for j in 0..D {
                let (low, carry) = &mut sums[i][j];
                let (sum, overflow) = low.overflowing_add(u128::from(x[i]) * u128::from(y[j]));
                *low = sum;
                *carry += u64::from(overflow);
            }
        }
    }
    let mut out = [F::ZERO; D];
    for i in 0..D {
        for j in 0..D {
            let x = reduce(sums[i][j]);
            // X^D = 7.
            if i + j < D {
                out[i + j] += x;
            } else {
                out[i + j - D] += x * F::from_u8(7);
            }
        }
    }
    Ext(out)
}

/// `low + 2^128 carry`, with `2^64 = 2^32 - 1` and `2^128 = -2^32` modulo `p`.
fn reduce((low, carry): (u128, u64)) -> F {
    F::from_u64(low as u64) + F::from_u64((low >> 64) as u64) * F::from_u64(0xffff_ffff) - F::from_u64(carry) * F::from_u64(1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::P;
    use crate::pcs::tests::element;

    #[test]
    fn a_late_reduction_changes_nothing() {
        let extreme = vec![Ext([F::from_u64(P - 1); 3]); 40];
        let (a, b): (Vec<K<3>>, Vec<K<3>>) = ((0..40).map(element).collect(), (100..150).map(element).collect());
        for (a, b) in [(&a, &b), (&extreme, &extreme), (&b, &extreme), (&Vec::new(), &a)] {
            assert_eq!(dot(a, b), a.iter().zip(b).map(|(&x, &y)| x * y).sum());
        }
    }
}
