//! Tensor products as two short tables: a long one would be written once, to fresh memory, and hardly be read more often.

use crate::eq::tensor;
use crate::field::K;
use crate::run::Run;

/// Bits of an index that the first table takes: it stays in the nearest cache.
const LOW: usize = 9;

/// The product over the bits of an index of one entry of each pair: entry `i` is `high[i >> LOW] low[i mod 2^LOW]`.
#[derive(Clone, Debug)]
pub(crate) struct Halves<const D: usize> {
    low: Run<D>,
    high: Vec<K<D>>,
}

impl<const D: usize> Halves<D> {
    /// `factor` times the product, bit 0 lowest. In each pair the entries sum up to 1 or the second is 1.
    pub fn new(factor: K<D>, pairs: &[(K<D>, K<D>)]) -> Self {
        let (low, high) = pairs.split_at(pairs.len().min(LOW));
        let mut high = tensor(high);
        high.iter_mut().for_each(|x| *x *= factor);
        Halves { low: Run::tensor(K::ONE, low.iter().copied()), high }
    }

    /// `factor * eq(point, i)`.
    pub fn eq(factor: K<D>, point: &[K<D>]) -> Self {
        Self::new(factor, &point.iter().map(|&x| (K::ONE - x, x)).collect::<Vec<_>>())
    }

    /// Stretches of the entries `from .. from + n` under one entry of the second table: this entry, the first index in the first table, the
    /// number of indices, and how many were before.
    fn stretches(&self, from: usize, n: usize) -> impl Iterator<Item = (K<D>, usize, usize, usize)> {
        let (size, mut before) = (self.low.len(), 0);
        core::iter::from_fn(move || {
            let (block, start) = ((from + before) / size, (from + before) % size);
            let len = (size - start).min(n - before);
            let out = (len > 0).then(|| (self.high[block], start, len, before));
            before += len;
            out
        })
    }

    /// `sum over i < n of self[from + i] other[at + i]`.
    pub fn dot(&self, from: usize, other: &Run<D>, at: usize, n: usize) -> K<D> {
        self.stretches(from, n).map(|(high, start, len, before)| high * other.dot(at + before, &self.low, start, len)).sum()
    }

    /// `out[at + i] += self[from + i]` for `i < n`.
    pub fn add_to(&self, from: usize, out: &mut Run<D>, at: usize, n: usize) {
        self.stretches(from, n).for_each(|(high, start, len, before)| out.add_scaled(at + before, &self.low, start, len, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn halves_equal_the_whole(bits in 0usize..12, cut: (prop::sample::Index, prop::sample::Index), at in 0usize..5, monomial: bool) {
            let z = |i: usize| element::<2>(i as u64);
            let pairs: Vec<_> = (0..bits).map(|i| if monomial { (z(i), K::ONE) } else { (K::ONE - z(i), z(i)) }).collect();
            let (whole, halves) = (Run::tensor(z(99), pairs.iter().copied()), Halves::new(z(99), &pairs));
            let from = cut.0.index(whole.len());
            let n = cut.1.index(whole.len() - from + 1);
            let other = Run::from((0..at + n).map(|i| z(1000 + i)).collect::<Vec<_>>());
            prop_assert_eq!(halves.dot(from, &other, at, n), whole.dot(from, &other, at, n));
            let (mut slow, mut fast) = (other.clone(), other);
            slow.add_scaled(at, &whole, from, n, K::ONE);
            halves.add_to(from, &mut fast, at, n);
            prop_assert_eq!(slow, fast);
            if !monomial {
                let point: Vec<_> = (0..bits).map(z).collect();
                let mut eq = Run::zeros(whole.len());
                Halves::eq(z(99), &point).add_to(0, &mut eq, 0, whole.len());
                prop_assert_eq!(eq, whole);
            }
        }
    }
}
