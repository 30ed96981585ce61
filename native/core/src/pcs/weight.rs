//! The verifier's share of the opening sumcheck: the weight of all functionals at the final point, side by side.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;

use super::functional::Weighted;
use super::stack::Stack;
use crate::blocks::Piece;
use crate::field::{Ext, F, K, canonical};

/// The multilinear extension of the batched functionals at `z`.
///
/// On a block it is the product of the idle variables' and the block's own position in the stack, and a sum of one product for each functional:
/// its positions' and its channels' inner product with a tensor of challenges.
pub(crate) fn weight_at<const D: usize>(stack: &Stack, functionals: &[Vec<Vec<Weighted<'_, D>>>], z: &[K<D>]) -> K<D> {
    let mut tensors = Tensors { z, coefficients: stack.log_rows, levels: BTreeMap::new() };
    let mut total = K::ZERO;
    for (o, layout) in stack.layouts.iter().enumerate() {
        for block in &layout.blocks {
            let span = stack.span(o, block);
            let middle = span.start + span.channels;
            let mut sum = K::ZERO;
            // Functionals that share a side are common, and neighbours in the list.
            let mut last: Option<(&[K<D>], K<D>)> = None;
            for f in &functionals[o][block.owner] {
                let across = dot(part(f.v, &block.channels), tensors.get(span.start, span.channels));
                if across == K::ZERO {
                    continue;
                }
                let u = part(f.u, &block.positions);
                let along = match last {
                    Some((same, value)) if same == u => value,
                    _ => dot(u, tensors.get(middle, span.positions)),
                };
                last = Some((u, along));
                sum += f.scale * across * along;
            }
            if sum != K::ZERO {
                let outer = (0..span.start).chain(span.end()..z.len());
                total += outer.fold(sum, |t, j| t * tensors.factor(j, span.index >> j & 1 == 1));
            }
        }
    }
    total
}

fn part<'a, const D: usize>(side: &'a [K<D>], piece: &Piece) -> &'a [K<D>] {
    &side[piece.range()]
}

/// Tensors of the factors that weights take from consecutive variables.
struct Tensors<'a, const D: usize> {
    z: &'a [K<D>],
    /// So many variables are bound in the coefficient basis.
    coefficients: usize,
    /// By first variable, then by number of variables.
    levels: BTreeMap<usize, Vec<Vec<K<D>>>>,
}

impl<const D: usize> Tensors<'_, D> {
    /// A weight folds as `w_o + z w_e`, then as `w_e + z (w_o - w_e)`.
    fn factor(&self, variable: usize, bit: bool) -> K<D> {
        let z = self.z[variable];
        match (variable < self.coefficients, bit) {
            (true, false) => z,
            (true, true) => K::ONE,
            (false, false) => K::ONE - z,
            (false, true) => z,
        }
    }

    fn get(&mut self, from: usize, len: usize) -> &[K<D>] {
        let levels = self.levels.entry(from).or_insert_with(|| vec![vec![K::ONE]]);
        while levels.len() <= len {
            let variable = from + levels.len() - 1;
            let (z, low) = (self.z[variable], &levels[levels.len() - 1]);
            let scaled: Vec<K<D>> = low.iter().map(|&x| x * z).collect();
            let both = if variable < self.coefficients {
                scaled.iter().chain(low).copied().collect()
            } else {
                low.iter().zip(&scaled).map(|(&x, &y)| x - y).chain(scaled.iter().copied()).collect()
            };
            levels.push(both);
        }
        &levels[len]
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
