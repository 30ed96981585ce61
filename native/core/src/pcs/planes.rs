//! Vectors over `K` as one array per coordinate, indices bit-reversed, and the two moves of a sumcheck on them.
//!
//! Variables are bound from the lowest index bit upwards. In bit-reversed order the even entries are the first half and the odd ones the
//! second, so that rounds and folds read whole vector registers.

use p3_field::{PackedValue, PrimeCharacteristicRing};

use crate::field::{Ext, F, K, LANES, PackedF, PackedK};
use crate::ntt::reverse;

/// How a variable is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Data `f_e + z f_o`, weights `w_o + z w_e`: the inner product is the coefficient of `X` in `<f_e + X f_o, w_o + X w_e>`.
    Coefficient,
    /// Both `x_e + z (x_o - x_e)`: the inner product is `h(0) + h(1)`.
    Evaluation,
}

/// A vector over `K` of power-of-two length.
#[derive(Clone, Debug)]
pub(crate) struct Planes<const D: usize>([Vec<F>; D]);

/// Below this length a pass is not worth a second thread.
const GRAIN: usize = 1 << 12;

impl<const D: usize> Planes<D> {
    /// From `f(i)` at natural index `i < 2^log`.
    pub fn new(log: usize, f: impl Fn(usize) -> K<D>) -> Self {
        let mut out = Planes(core::array::from_fn(|_| vec![F::ZERO; 1 << log]));
        for i in 0..1 << log {
            let (x, at) = (f(i), reverse(i, log));
            for (plane, c) in out.0.iter_mut().zip(x.0) {
                plane[at] = c;
            }
        }
        out
    }

    /// The length.
    pub fn len(&self) -> usize {
        self.0[0].len()
    }

    /// The element stored at `i`: bit-reversed order.
    pub fn get(&self, i: usize) -> K<D> {
        Ext(core::array::from_fn(|d| self.0[d][i]))
    }

    /// From `f(i)` at index `i < 2^log`, with only the lowest `bits` bits brought to the top, reversed: an order that is enough to bind `bits`
    /// variables and is natural afterwards. It is faster to make for long vectors.
    pub fn by_low_bits(log: usize, bits: usize, f: impl Fn(usize) -> K<D> + Sync) -> Self {
        let mut out = Planes(core::array::from_fn(|_| vec![F::ZERO; 1 << log]));
        out.at_low_bits(bits, |i, mut at| {
            for (to, c) in at.iter_mut().zip(f(i).0) {
                **to = c;
            }
        });
        out
    }

    /// Adds `f(i)` to a vector in the order of [`Self::by_low_bits`].
    pub fn add_by_low_bits(&mut self, bits: usize, f: impl Fn(usize) -> K<D> + Sync) {
        self.at_low_bits(bits, |i, mut at| {
            for (to, c) in at.iter_mut().zip(f(i).0) {
                **to += c;
            }
        });
    }

    /// Calls `visit` with each index and its place.
    fn at_low_bits(&mut self, bits: usize, visit: impl Fn(usize, [&mut F; D]) + Sync) {
        let run = self.len() >> bits;
        // parts[a][d] holds coordinate d of the indices whose lowest bits are a.
        let mut parts: Vec<[&mut [F]; D]> = (0..1 << bits).map(|_| core::array::from_fn(|_| Default::default())).collect();
        for (d, plane) in self.0.iter_mut().enumerate() {
            for (k, part) in plane.chunks_exact_mut(run).enumerate() {
                parts[reverse(k, bits)][d] = part;
            }
        }
        walk(parts, 0, &visit);
    }

    /// Binds one variable of a data vector.
    pub fn fold_data(&mut self, z: K<D>, basis: Basis) {
        match basis {
            Basis::Coefficient => self.bind(z, Rule::Monomial),
            Basis::Evaluation => self.bind(z, Rule::Line),
        }
    }

    /// Binds one variable of a weight vector.
    pub fn fold_weight(&mut self, z: K<D>, basis: Basis) {
        match basis {
            Basis::Coefficient => self.bind(z, Rule::Reversed),
            Basis::Evaluation => self.bind(z, Rule::Line),
        }
    }

    fn bind(&mut self, z: K<D>, rule: Rule) {
        let half = self.len() / 2;
        let mut high: [&[F]; D] = [&[]; D];
        let mut d = 0;
        let low = self.0.each_mut().map(|plane| {
            let (a, b) = plane.split_at_mut(half);
            high[d] = b;
            d += 1;
            a
        });
        bind(low, high, z, rule);
        for plane in &mut self.0 {
            plane.truncate(half);
        }
    }

    fn halves(&self) -> ([&[F]; D], [&[F]; D]) {
        let half = self.len() / 2;
        (self.0.each_ref().map(|p| &p[..half]), self.0.each_ref().map(|p| &p[half..]))
    }
}

/// Coefficients of `X^0` and `X^2` of the round polynomial of `<f, w>`.
pub(crate) fn round<const D: usize>(f: &Planes<D>, w: &Planes<D>, basis: Basis) -> (K<D>, K<D>) {
    let ((fe, fo), (we, wo)) = (f.halves(), w.halves());
    products(fe, fo, we, wo, basis)
}

/// Visits `parts[a]` at `k` as index `parts.len() (first + k) + a`.
fn walk<const D: usize>(mut parts: Vec<[&mut [F]; D]>, first: usize, visit: &(impl Fn(usize, [&mut F; D]) + Sync)) {
    let n = parts[0][0].len();
    if n * parts.len() > GRAIN {
        let mut rest: Vec<[&mut [F]; D]> = Vec::with_capacity(parts.len());
        for part in &mut parts {
            let mut tail: [&mut [F]; D] = core::array::from_fn(|_| Default::default());
            for (plane, tail) in part.iter_mut().zip(&mut tail) {
                (*plane, *tail) = core::mem::take(plane).split_at_mut(n / 2);
            }
            rest.push(tail);
        }
        rayon::join(|| walk(parts, first, visit), || walk(rest, first + n / 2, visit));
        return;
    }
    let count = parts.len();
    for k in 0..n {
        for (a, part) in parts.iter_mut().enumerate() {
            visit(count * (first + k) + a, part.each_mut().map(|plane| &mut plane[k]));
        }
    }
}

#[derive(Clone, Copy)]
enum Rule {
    /// `e + z o`
    Monomial,
    /// `o + z e`
    Reversed,
    /// `e + z (o - e)`
    Line,
}

impl Rule {
    #[inline(always)]
    fn apply<B: PrimeCharacteristicRing + Copy, const D: usize>(self, e: Ext<B, D>, o: Ext<B, D>, z: Ext<B, D>) -> Ext<B, D> {
        match self {
            Rule::Monomial => e + z * o,
            Rule::Reversed => o + z * e,
            Rule::Line => e + z * (o - e),
        }
    }
}

fn pack<'a, const D: usize>(planes: &[&'a [F]; D]) -> [&'a [PackedF]; D] {
    planes.map(PackedF::pack_slice)
}

#[inline(always)]
fn load<B: Copy, const D: usize>(planes: &[&[B]; D], i: usize) -> Ext<B, D> {
    Ext(core::array::from_fn(|d| planes[d][i]))
}

fn bind<const D: usize>(low: [&mut [F]; D], high: [&[F]; D], z: K<D>, rule: Rule) {
    let n = high[0].len();
    if n > GRAIN {
        let mut rest: [&mut [F]; D] = core::array::from_fn(|_| Default::default());
        let mut d = 0;
        let first = low.map(|plane| {
            let (a, b) = plane.split_at_mut(n / 2);
            rest[d] = b;
            d += 1;
            a
        });
        rayon::join(|| bind(first, high.map(|p| &p[..n / 2]), z, rule), || bind(rest, high.map(|p| &p[n / 2..]), z, rule));
    } else if n.is_multiple_of(LANES) {
        let (mut low, high) = (low.map(PackedF::pack_slice_mut), pack(&high));
        let z = z.broadcast();
        for i in 0..n / LANES {
            let e: PackedK<D> = Ext(core::array::from_fn(|d| low[d][i]));
            let x = rule.apply(e, load(&high, i), z);
            for (plane, c) in low.iter_mut().zip(x.0) {
                plane[i] = c;
            }
        }
    } else {
        let mut low = low;
        for i in 0..n {
            let e = Ext(core::array::from_fn(|d| low[d][i]));
            let x = rule.apply(e, load(&high, i), z);
            for (plane, c) in low.iter_mut().zip(x.0) {
                plane[i] = c;
            }
        }
    }
}

#[inline(always)]
fn term<B: PrimeCharacteristicRing + Copy, const D: usize>(
    [fe, fo, we, wo]: [Ext<B, D>; 4],
    (h0, h2): (Ext<B, D>, Ext<B, D>),
    basis: Basis,
) -> (Ext<B, D>, Ext<B, D>) {
    match basis {
        Basis::Coefficient => (h0 + fe * wo, h2 + fo * we),
        Basis::Evaluation => (h0 + fe * we, h2 + (fo - fe) * (wo - we)),
    }
}

fn products<const D: usize>(fe: [&[F]; D], fo: [&[F]; D], we: [&[F]; D], wo: [&[F]; D], basis: Basis) -> (K<D>, K<D>) {
    let n = fe[0].len();
    if n > GRAIN {
        let m = n / 2;
        let (a, b) = rayon::join(
            || products(fe.map(|p| &p[..m]), fo.map(|p| &p[..m]), we.map(|p| &p[..m]), wo.map(|p| &p[..m]), basis),
            || products(fe.map(|p| &p[m..]), fo.map(|p| &p[m..]), we.map(|p| &p[m..]), wo.map(|p| &p[m..]), basis),
        );
        (a.0 + b.0, a.1 + b.1)
    } else if n.is_multiple_of(LANES) {
        let all = [pack(&fe), pack(&fo), pack(&we), pack(&wo)];
        let zero = (PackedK::ZERO, PackedK::ZERO);
        let (h0, h2) = (0..n / LANES).fold(zero, |h, i| term(all.each_ref().map(|x| load(x, i)), h, basis));
        (h0.sum_lanes(), h2.sum_lanes())
    } else {
        let all = [fe, fo, we, wo];
        (0..n).fold((K::ZERO, K::ZERO), |h, i| term(all.each_ref().map(|x| load(x, i)), h, basis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;

    impl<const D: usize> Planes<D> {
        fn to_natural(&self) -> Vec<K<D>> {
            let bits = self.len().trailing_zeros() as usize;
            (0..self.len()).map(|i| self.get(reverse(i, bits))).collect()
        }
    }

    #[test]
    fn low_bits_are_bound_first_and_leave_the_natural_order() {
        let x = natural(13, 5);
        let (mut all, mut few) = (Planes::new(13, |i| x[i] + x[i]), Planes::by_low_bits(13, 4, |i| x[i]));
        few.add_by_low_bits(4, |i| x[i]);
        for k in 0..4 {
            all.fold_data(element(k), Basis::Coefficient);
            few.fold_data(element(k), Basis::Coefficient);
        }
        assert_eq!(all.to_natural(), (0..few.len()).map(|i| few.get(i)).collect::<Vec<_>>());
    }

    fn natural(log: usize, seed: u64) -> Vec<K<3>> {
        (0..1u64 << log).map(|i| element(seed + i)).collect()
    }

    /// `h(z)` is the inner product of the folded vectors, and the claim is recovered from `h`, for every length on both sides of the lanes
    /// and of the grain.
    #[test]
    fn a_round_and_a_fold_agree() {
        for log in [1, 2, 3, 4, 5, 14] {
            for basis in [Basis::Coefficient, Basis::Evaluation] {
                let (f, w) = (natural(log, 1), natural(log, 1 << 40));
                let claim: K<3> = f.iter().zip(&w).map(|(&a, &b)| a * b).sum();
                let (mut pf, mut pw) = (Planes::new(log, |i| f[i]), Planes::new(log, |i| w[i]));
                assert_eq!(pf.to_natural(), f);
                let (h0, h2) = round(&pf, &pw, basis);
                let h1 = match basis {
                    Basis::Coefficient => claim,
                    Basis::Evaluation => claim - h0 - h0 - h2,
                };
                let z: K<3> = element(77);
                pf.fold_data(z, basis);
                pw.fold_weight(z, basis);
                let (f, w) = (pf.to_natural(), pw.to_natural());
                assert_eq!(f.iter().zip(&w).map(|(&a, &b)| a * b).sum::<K<3>>(), h0 + z * (h1 + z * h2));
            }
        }
    }
}
