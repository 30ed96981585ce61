//! Vectors over `K` as one array per coordinate: whole vector registers for the verifier's sums over sides.

use core::ops::Range;

use p3_field::{PackedValue, PrimeCharacteristicRing};

use crate::field::{Ext, F, K, LANES, PackedF, from_i64};

/// A vector over `K`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run<const D: usize>([Vec<F>; D]);

impl<const D: usize> From<Vec<K<D>>> for Run<D> {
    fn from(values: Vec<K<D>>) -> Self {
        Run(core::array::from_fn(|d| values.iter().map(|x| x.0[d]).collect()))
    }
}

/// Row `i` of the matrix of `x -> k x`: coordinate `i` of `k X^j` for each `j`.
fn matrix<const D: usize>(k: K<D>) -> [[F; D]; D] {
    let seven = F::from_u8(7);
    core::array::from_fn(|i| core::array::from_fn(|j| if j <= i { k.0[i - j] } else { k.0[D + i - j] * seven }))
}

/// The longest prefix of whole registers.
fn whole(n: usize) -> usize {
    n - n % LANES
}

/// What becomes of `x` when a bit of the index is added.
#[derive(Clone, Copy)]
enum Pair {
    /// `(x - k x, k x)`
    OfOne,
    /// `(k x, x)`
    First,
    /// `(x, k x)`
    Second,
}

impl Pair {
    #[inline(always)]
    fn of<T: PrimeCharacteristicRing>(self, x: T, product: T) -> (T, T) {
        match self {
            Pair::OfOne => (x - product.clone(), product),
            Pair::First => (product, x),
            Pair::Second => (x, product),
        }
    }
}

/// Fills the high half, for every `x` in the low half.
#[inline(always)]
fn double<const D: usize>(halves: [(&mut [F], &mut [F]); D], k: K<D>, pair: Pair) {
    let m = matrix(k);
    let packed = m.map(|row| row.map(PackedF::from));
    let n = halves[0].0.len();
    for at in (0..whole(n)).step_by(LANES) {
        let x: [PackedF; D] = core::array::from_fn(|d| *PackedF::from_slice(&halves[d].0[at..at + LANES]));
        for i in 0..D {
            let product = PackedF::dot_product(&x, &packed[i]);
            let (low, high) = pair.of(x[i], product);
            *PackedF::from_slice_mut(&mut halves[i].0[at..at + LANES]) = low;
            *PackedF::from_slice_mut(&mut halves[i].1[at..at + LANES]) = high;
        }
    }
    for at in whole(n)..n {
        let x: [F; D] = core::array::from_fn(|d| halves[d].0[at]);
        for i in 0..D {
            let product = F::dot_product(&x, &m[i]);
            (halves[i].0[at], halves[i].1[at]) = pair.of(x[i], product);
        }
    }
}

impl<const D: usize> Run<D> {
    /// Zeros.
    pub fn zeros(n: usize) -> Self {
        Run(core::array::from_fn(|_| F::zero_vec(n)))
    }

    /// `factor * eq(point, i)`.
    pub fn eq(factor: K<D>, point: &[K<D>]) -> Self {
        Self::tensor(factor, point.iter().map(|&x| (K::ONE - x, x)))
    }

    /// `factor` times the product over the bits of the index of one entry of each pair, bit 0 lowest. In each pair the entries sum up to 1 or
    /// one of them is 1.
    pub fn tensor(factor: K<D>, pairs: impl ExactSizeIterator<Item = (K<D>, K<D>)>) -> Self {
        let mut out = Self::zeros(1 << pairs.len());
        out.0.iter_mut().zip(factor.0).for_each(|(plane, c)| plane[0] = c);
        for (j, (zero, one)) in pairs.enumerate() {
            let n = 1 << j;
            let halves = out.0.each_mut().map(|plane| plane[..2 * n].split_at_mut(n));
            if one == K::ONE {
                double(halves, zero, Pair::First);
            } else if zero == K::ONE {
                double(halves, one, Pair::Second);
            } else {
                debug_assert!(zero + one == K::ONE);
                double(halves, one, Pair::OfOne);
            }
        }
        out
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0[0].len()
    }

    /// One element.
    pub fn get(&self, i: usize) -> K<D> {
        Ext(core::array::from_fn(|d| self.0[d][i]))
    }

    /// `self[to] += x[from]` for each pair of indices.
    pub fn add_moved(&mut self, x: &Self, pairs: impl Iterator<Item = (usize, usize)> + Clone) {
        for (out, x) in self.0.iter_mut().zip(&x.0) {
            pairs.clone().for_each(|(to, from)| out[to] += x[from]);
        }
    }

    /// The outer product `self[i] other[j]` at `i len(other) + j`.
    pub fn outer(&self, other: &Self) -> Self {
        let n = other.len();
        let mut out = Self::zeros(self.len() * n);
        for i in 0..self.len() {
            out.add_scaled(i * n, other, 0, n, self.get(i));
        }
        out
    }

    /// Some elements.
    pub fn slice(&self, range: Range<usize>) -> Self {
        Run(core::array::from_fn(|d| self.0[d][range.clone()].to_vec()))
    }

    /// Some elements, as such.
    pub fn iter(&self, range: Range<usize>) -> impl Iterator<Item = K<D>> {
        range.map(|i| self.get(i))
    }

    /// `self[at + i] += k * x[from + i]` for `i < n`.
    pub fn add_scaled(&mut self, at: usize, x: &Self, from: usize, n: usize, k: K<D>) {
        if k == K::ONE {
            for (out, x) in self.0.iter_mut().zip(&x.0) {
                out[at..at + n].iter_mut().zip(&x[from..from + n]).for_each(|(o, &x)| *o += x);
            }
            return;
        }
        let m = matrix(k);
        let full = whole(n);
        let xs: [&[PackedF]; D] = core::array::from_fn(|j| PackedF::pack_slice(&x.0[j][from..from + full]));
        for (out, row) in self.0.iter_mut().zip(&m) {
            let packed = row.map(PackedF::from);
            let (head, tail) = out[at..at + n].split_at_mut(full);
            for (l, o) in PackedF::pack_slice_mut(head).iter_mut().enumerate() {
                let x: [PackedF; D] = core::array::from_fn(|j| xs[j][l]);
                *o += PackedF::dot_product(&x, &packed);
            }
            for (l, o) in tail.iter_mut().enumerate() {
                let x: [F; D] = core::array::from_fn(|j| x.0[j][from + full + l]);
                *o += F::dot_product(&x, row);
            }
        }
    }

    /// `k * self`.
    pub fn scaled(mut self, k: K<D>) -> Self {
        if k == K::ONE {
            return self;
        }
        let (n, m) = (self.len(), matrix(k));
        let packed = m.map(|row| row.map(PackedF::from));
        for at in (0..whole(n)).step_by(LANES) {
            let x: [PackedF; D] = core::array::from_fn(|d| *PackedF::from_slice(&self.0[d][at..at + LANES]));
            for (plane, row) in self.0.iter_mut().zip(&packed) {
                *PackedF::from_slice_mut(&mut plane[at..at + LANES]) = PackedF::dot_product(&x, row);
            }
        }
        for at in whole(n)..n {
            let x: [F; D] = core::array::from_fn(|d| self.0[d][at]);
            for (plane, row) in self.0.iter_mut().zip(&m) {
                plane[at] = F::dot_product(&x, row);
            }
        }
        self
    }

    /// Becomes zeros.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(|plane| plane.fill(F::ZERO));
    }

    /// Becomes `k * x`, in the memory that it has.
    pub fn set_scaled(&mut self, x: &Self, k: K<D>) {
        self.0.iter_mut().zip(&x.0).for_each(|(to, from)| to.clone_from(from));
        *self = core::mem::replace(self, Run::zeros(0)).scaled(k);
    }

    /// `self[i] values[i]` over the elements of `values`.
    pub fn times_each(&self, values: &[i64]) -> Self {
        // Factors at a time.
        const STEP: usize = 64;
        let mut out: [Vec<F>; D] = core::array::from_fn(|_| Vec::with_capacity(values.len()));
        let mut factors = [F::ZERO; STEP];
        for (step, values) in values.chunks(STEP).enumerate() {
            factors.iter_mut().zip(values).for_each(|(factor, &x)| *factor = from_i64(x));
            let (packed, rest) = PackedF::pack_slice_with_suffix(&factors[..values.len()]);
            for (out, plane) in out.iter_mut().zip(&self.0) {
                out.extend_from_slice(&plane[step * STEP..][..values.len()]);
                let (head, tail) = out[step * STEP..].split_at_mut(values.len() - rest.len());
                PackedF::pack_slice_mut(head).iter_mut().zip(packed).for_each(|(o, &x)| *o *= x);
                tail.iter_mut().zip(rest).for_each(|(o, &x)| *o *= x);
            }
        }
        Run(out)
    }

    /// The sum of all elements.
    pub fn sum(&self) -> K<D> {
        Ext(core::array::from_fn(|d| {
            let plane = &self.0[d];
            let (head, tail) = plane.split_at(whole(plane.len()));
            let head: PackedF = PackedF::pack_slice(head).iter().copied().sum();
            head.as_slice().iter().chain(tail).copied().sum()
        }))
    }

    /// `sum of self[i] other[i]` over the elements of `other`.
    pub fn dot_base(&self, other: &[F]) -> K<D> {
        // Four registers' products are reduced together.
        let (packed, rest) = PackedF::pack_slice_with_suffix(other);
        let (fours, ones) = packed.as_chunks::<4>();
        Ext(core::array::from_fn(|d| {
            let mine = PackedF::pack_slice(&self.0[d][..other.len() - rest.len()]);
            let mut sum = PackedF::ZERO;
            for (x, y) in mine.as_chunks::<4>().0.iter().zip(fours) {
                sum += PackedF::dot_product(x, y);
            }
            for (&x, &y) in mine[4 * fours.len()..].iter().zip(ones) {
                sum += x * y;
            }
            let tail = self.0[d][other.len() - rest.len()..].iter().zip(rest).map(|(&x, &y)| x * y);
            sum.as_slice().iter().copied().chain(tail).sum()
        }))
    }

    /// `sum over i < n of self[at + i] other[from + i]`.
    pub fn dot(&self, at: usize, other: &Self, from: usize, n: usize) -> K<D> {
        // Four registers' products are reduced together.
        let full = n - n % (4 * LANES);
        let a: [&[PackedF]; D] = core::array::from_fn(|d| PackedF::pack_slice(&self.0[d][at..at + full]));
        let b: [&[PackedF]; D] = core::array::from_fn(|d| PackedF::pack_slice(&other.0[d][from..from + full]));
        let mut sums = [[PackedF::ZERO; D]; D];
        for i in 0..D {
            for j in 0..D {
                for (x, y) in a[i].as_chunks::<4>().0.iter().zip(b[j].as_chunks::<4>().0) {
                    sums[i][j] += PackedF::dot_product(x, y);
                }
            }
        }
        let mut out = K::ZERO;
        for i in 0..D {
            for j in 0..D {
                // X^D = 7.
                let sum: F = sums[i][j].as_slice().iter().copied().sum();
                out.0[(i + j) % D] += if i + j < D { sum } else { sum * F::from_u8(7) };
            }
        }
        (full..n).fold(out, |t, i| t + self.get(at + i) * other.get(from + i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::P;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    fn check<const D: usize>(n: usize, at: usize, from: usize, extreme: bool, log: usize) {
        let vector = |seed: u64| -> Vec<K<D>> {
            let largest = Ext([F::from_u64(P - 1); D]);
            (0..n + at + from).map(|i| if extreme { largest } else { element(seed + i as u64) }).collect()
        };
        let (a, b, k) = (vector(0), vector(1000), element::<D>(7));
        let (mut x, y) = (Run::from(a.clone()), Run::from(b.clone()));
        assert_eq!(x.dot(at, &y, from, n), (0..n).map(|i| a[at + i] * b[from + i]).sum());
        let base: Vec<F> = b.iter().map(|x| x.0[0]).collect();
        assert_eq!(x.dot_base(&base[..n]), (0..n).map(|i| a[i].scale(base[i])).sum());
        let integers: Vec<i64> = (0..n as i64).map(|i| (i * 7919) << (i % 30)).map(|x| if x % 3 == 0 { -x } else { x }).collect();
        assert_eq!(x.times_each(&integers), (0..n).map(|i| a[i].scale(from_i64(integers[i]))).collect::<Vec<_>>().into());
        assert_eq!(x.sum(), a.iter().copied().sum());
        assert_eq!(x.clone().scaled(k).iter(0..a.len()).collect::<Vec<_>>(), a.iter().map(|&x| x * k).collect::<Vec<_>>());
        for k in [k, K::ONE] {
            let before = x.clone();
            x.add_scaled(at, &y, from, n, k);
            for i in 0..a.len() {
                let added = if (at..at + n).contains(&i) { b[i - at + from] * k } else { K::ZERO };
                assert_eq!(x.get(i), before.get(i) + added);
            }
        }
        let point: Vec<K<D>> = (0..log as u64).map(element).collect();
        let table = Run::eq(k, &point);
        assert_eq!(table.iter(0..1 << log).collect::<Vec<_>>(), crate::eq::eq(&point).iter().map(|&x| x * k).collect::<Vec<_>>());
        for pair in [|z| (z, K::ONE), |z| (K::ONE, z)] {
            let pairs: Vec<_> = point.iter().map(|&z| pair(z)).collect();
            assert_eq!(Run::tensor(K::ONE, pairs.iter().copied()).iter(0..1 << log).collect::<Vec<_>>(), crate::eq::tensor(&pairs));
        }
        let (x, y) = (Run::from(a[..at].to_vec()), Run::from(b[..n].to_vec()));
        assert_eq!(
            x.outer(&y).iter(0..at * n).collect::<Vec<_>>(),
            a[..at].iter().flat_map(|&x| b[..n].iter().map(move |&y| x * y)).collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn registers_equal_elements(n in 0usize..150, at in 0usize..20, from in 0usize..20, extreme: bool, log in 0usize..9) {
            check::<2>(n, at, from, extreme, log);
            check::<3>(n, at, from, extreme, log);
        }
    }
}
