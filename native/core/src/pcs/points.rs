//! Values of a polynomial over `K` at some points of a large domain, and the transpose.
//!
//! With `x^i = x^b (x^S)^a` for `i = S a + b`, `0 <= b < S`, the large transform is one of `S` interleaved polynomials on the domain of all `x^S`, `S` times
//! smaller, and `S` products at each point. `S` elements fill a panel, which a single one would leave empty for the most part.

use p3_field::{Field, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{Ext, F, K};
use crate::masking::evaluate;
use crate::ntt::{self, PANEL};

/// `log2(S)` for polynomials of `2^log` coefficients.
fn log_stride<const D: usize>(log: usize) -> usize {
    ((PANEL / D).ilog2() as usize).min(log)
}

/// The polynomial with the coefficients `g` and, from `X^len(g)` on, `beyond`, `2^log_apart` powers apart, at points of the domain of size
/// `2^log_domain`, more than `len(g)`.
pub(super) fn spread_values_at<const D: usize>(
    g: &[K<D>],
    beyond: &[K<D>],
    log_apart: usize,
    points: &[usize],
    log_domain: usize,
) -> Vec<K<D>> {
    if log_apart == 0 {
        return values_at(g, beyond, points, log_domain);
    }
    let mut values = values_at(g, &[], points, log_domain);
    let xs = ntt::points(log_domain, points);
    let log = g.len().trailing_zeros() as usize;
    values.iter_mut().zip(values_beyond(beyond, log_apart, log, &xs)).for_each(|(value, y)| *value += y);
    values
}

/// The polynomial with the coefficients `beyond` from `X^(2^log)` on, `2^log_apart` powers apart, at `points`.
pub(super) fn values_beyond<const D: usize>(beyond: &[K<D>], log_apart: usize, log: usize, points: &[F]) -> Vec<K<D>> {
    let apart: Vec<F> = points.iter().map(|x| x.exp_power_of_2(log_apart)).collect();
    evaluate(beyond, &apart).into_iter().zip(points).map(|(y, x)| y.scale(x.exp_power_of_2(log))).collect()
}

/// The same without gaps.
fn values_at<const D: usize>(g: &[K<D>], beyond: &[K<D>], points: &[usize], log_domain: usize) -> Vec<K<D>> {
    let log = g.len().trailing_zeros() as usize;
    let log_s = log_stride::<D>(log);
    let (s, log_n) = (1 << log_s, log_domain - log_s);
    let coefficient = |i: usize| if i < g.len() { g[i] } else { beyond.get(i - g.len()).copied().unwrap_or(K::ZERO) };
    let row = |a: usize, out: &mut ntt::Row| {
        out.fill(F::ZERO);
        for (b, to) in out.chunks_exact_mut(D).take(s).enumerate() {
            to.copy_from_slice(&coefficient(a * s + b).0);
        }
    };
    let load = |_: usize, first: usize, out: &mut [ntt::Row]| out.iter_mut().enumerate().for_each(|(k, out)| row(first + k, out));
    let tail = |_: usize| -> Vec<ntt::Row> {
        (0..beyond.len().div_ceil(s))
            .map(|k| {
                let mut out = [F::ZERO; PANEL];
                row((g.len() >> log_s) + k, &mut out);
                out
            })
            .collect()
    };
    let words = ntt::encode_long(s * D, log - log_s, log_n, load, tail);
    let at = |(&i, x): (&usize, F)| {
        let parts: Vec<F> = words.row(i & ((1 << log_n) - 1)).collect();
        parts.chunks_exact(D).rev().fold(K::ZERO, |y, c| y.scale(x) + Ext(core::array::from_fn(|d| c[d])))
    };
    points.iter().zip(ntt::points(log_domain, points)).map(at).collect()
}

/// `sum_k xi^(k+1) x_k^i` for `i < 2^log`, where `x_k` is point `points[k]` of the domain of size `2^log_domain`.
///
/// This is the transpose of an evaluation, and that is a transform again. With `i = S a + b` for `0 <= b < S` and `y_k = x_k^S`, which is point
/// `points[k] mod N` of the domain of `N = 2^log_domain / S` points `h omega^j`, the sum is `h^a sum_j e_(j, b) omega^(a j)`, where
/// `e_(j, b)` is the sum of `xi^(k+1) x_k^b` over `points[k] = j mod N`: an encoding of the coefficients `h^-j e_(j, b)`. `S` fills a panel.
pub(super) fn point_weights<const D: usize>(points: &[usize], xi: K<D>, log: usize, log_domain: usize) -> Vec<K<D>> {
    let log_s = log_stride::<D>(log);
    let (s, log_n) = (1 << log_s, log_domain - log_s);
    let columns = s * D;
    let mut e = vec![F::ZERO; columns << log_n];
    let h = ntt::shift(log_n);
    let inverse = h.inverse();
    let mut power = xi;
    for (&k, x) in points.iter().zip(ntt::points(log_domain, points)) {
        let j = k & ((1 << log_n) - 1);
        let mut c = power.scale(inverse.exp_u64(j as u64));
        for to in e[j * columns..][..columns].chunks_exact_mut(D) {
            for (to, c) in to.iter_mut().zip(c.0) {
                *to += c;
            }
            c = c.scale(x);
        }
        power *= xi;
    }
    let sums = ntt::encode_rows(&e, columns, log_n, log_n);
    const RUN: usize = 1 << 8;
    let mut out = vec![K::ZERO; 1 << log];
    out.par_chunks_mut(RUN * s).enumerate().for_each(|(run, out)| {
        let mut power = h.exp_u64((run * RUN) as u64);
        for (a, out) in out.chunks_exact_mut(s).enumerate() {
            let mut row = sums.row(run * RUN + a);
            for x in out {
                *x = Ext(core::array::from_fn(|_| row.next().map_or(F::ZERO, |c| c * power)));
            }
            power *= h;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    fn check<const D: usize>(log: usize, log_domain: usize, beyond: usize, picks: &[prop::sample::Index]) {
        let all: Vec<K<D>> = (0..(1 << log) + beyond as u64).map(element).collect();
        let indices: Vec<usize> = picks.iter().map(|p| p.index(1 << log_domain)).collect();
        let (g, beyond) = all.split_at(1 << log);
        let points: Vec<F> = indices.iter().map(|&i| ntt::point(log_domain, i)).collect();
        assert_eq!(ntt::points(log_domain, &indices), points);
        assert_eq!(values_at(g, beyond, &indices, log_domain), evaluate(&all, &points));
        for apart in 0..3 {
            let mut spread = vec![K::<D>::ZERO; (beyond.len() << apart).saturating_sub((1 << apart) - 1)];
            spread.iter_mut().step_by(1 << apart).zip(beyond).for_each(|(to, &c)| *to = c);
            let slow = evaluate(&[g, &spread].concat(), &points);
            assert_eq!(spread_values_at(g, beyond, apart, &indices, log_domain), slow);
        }
        let xi = element(77);
        let powers: Vec<K<D>> = core::iter::successors(Some(xi), |&x| Some(x * xi)).take(points.len()).collect();
        let slow: Vec<K<D>> = (0..1u64 << log).map(|i| powers.iter().zip(&points).map(|(&c, x)| c.scale(x.exp_u64(i))).sum()).collect();
        assert_eq!(point_weights(&indices, xi, log, log_domain), slow);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn both_equal_one_point_after_the_other(log in 0usize..10, blowup in 1usize..4, long: prop::sample::Index, picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
            let beyond = long.index((1 << log) + 1);
            check::<2>(log, log + blowup, beyond, &picks);
            check::<3>(log, log + blowup, beyond, &picks);
        }
    }
}
