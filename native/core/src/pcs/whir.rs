//! WHIR on the column combination `g` (eprint 2024/1586), in the unique decoding regime: no out-of-domain samples.
//!
//! An oracle of `2^n` coefficients over `K` has `2^(n + b)` points, rate `2^-b`; leaf `j` holds the 16 points with one value of `x^16`: points
//! `j + k 2^(n+b-4)` for `k` in 0..16. Claims are inner products with tensors `(1, y_0) (x) (1, y_1) (x) ...`: powers of a point `x` have
//! `y_i = x^(2^i)`. A round: batching challenge `xi`; four sumcheck rounds in the coefficient basis; the folded polynomial's root (16 times
//! fewer coefficients, half the points: the rate halves), or its coefficients when there are few; *then* the leaf indices; leaves and
//! siblings. Each leaf, folded by the four challenges, is a claim on the folded polynomial at `x^16`.

use p3_field::{Field, PrimeCharacteristicRing, TwoAdicField};
use rayon::prelude::*;

use super::committed::{element_bytes, hash_rows};
use super::open::distinct;
use crate::channel::{Prover, Reader};
use crate::field::{Ext, F, K};
use crate::hash::{Digest, Key, hash_blocks, leaf_bytes};
use crate::merkle::{Tree, root_of, sibling_count};
use crate::ntt;
use crate::parameters::{FOLD_LOG, ORACLE_LOG_BLOWUP, Parameters, WHIR_LOG_BLOWUP};
use crate::reject::{Reject, Verdict};

pub(super) const FIRST_LOG_BLOWUP: usize = WHIR_LOG_BLOWUP;
const LEAF: usize = 1 << FOLD_LOG;
const ROLE: &str = "whir";

/// One round: sizes of the oracle that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// `log2` of the coefficients.
    pub log_size: usize,
    /// `log2` of the inverse rate.
    pub log_blowup: usize,
}

/// The rounds for `2^log_size` coefficients.
pub fn sizes(parameters: &Parameters, log_size: usize) -> Vec<Size> {
    let mut out = vec![Size { log_size, log_blowup: WHIR_LOG_BLOWUP }];
    loop {
        let last = out[out.len() - 1];
        let next = last.log_size - FOLD_LOG;
        if parameters.is_final(next) {
            return out;
        }
        out.push(Size { log_size: next, log_blowup: last.log_blowup + FOLD_LOG - 1 });
    }
}

/// A committed polynomial over `K`.
pub(super) struct Oracle<const D: usize> {
    log_domain: usize,
    /// Row-major, `D` base elements a point.
    code: Vec<F>,
    tree: Tree,
}

fn leaf_key<const D: usize>() -> Key {
    Key::leaf(ROLE, LEAF * D, false)
}

impl<const D: usize> Oracle<D> {
    pub(super) fn new(coefficients: &[K<D>], log_size: usize, log_blowup: usize) -> Self {
        let log_domain = log_size + log_blowup;
        let flat: Vec<F> = coefficients.iter().flat_map(|x| x.0).collect();
        let code = ntt::encode(flat, D, log_domain);
        let mut oracle = Oracle { log_domain, code, tree: Tree::new(vec![[0; 32]]) };
        let leaves = 1usize << (log_domain - FOLD_LOG);
        const RUN: usize = 1 << 8;
        let digests: Vec<Vec<Digest>> = (0..leaves.div_ceil(RUN))
            .into_par_iter()
            .map(|run| {
                let rows: Vec<F> = (run * RUN..leaves.min((run + 1) * RUN)).flat_map(|j| oracle.leaf(j)).collect();
                hash_rows(&leaf_key::<D>(), &rows, LEAF * D)
            })
            .collect();
        oracle.tree = Tree::new(digests.concat());
        oracle
    }

    pub(super) fn root(&self) -> Digest {
        self.tree.root()
    }

    /// The points of a leaf, in order.
    fn leaf(&self, j: usize) -> Vec<F> {
        let step = 1usize << (self.log_domain - FOLD_LOG);
        (0..LEAF).flat_map(|k| &self.code[(j + k * step) * D..][..D]).copied().collect()
    }

    fn open(&self, leaves: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        leaves.iter().for_each(|&j| element_bytes(&self.leaf(j), &mut out));
        self.tree.siblings(leaves).iter().for_each(|d| out.extend(d));
        out
    }
}

/// `sum over claims of xi^k point_k^i` for every `i < 2^log_size`, claims `1, 2, ...` at the given points of the domain: one transform of
/// the sparse vector of coefficients.
fn point_weights<const D: usize>(indices: &[usize], log_domain: usize, log_size: usize, coefficients: &[K<D>]) -> Vec<K<D>> {
    let mut sparse = vec![F::ZERO; D << log_domain];
    for (&i, c) in indices.iter().zip(coefficients) {
        sparse[i * D..][..D].copy_from_slice(&c.0);
    }
    let values = ntt::dft(sparse, D, log_domain);
    let h = ntt::shift(log_domain);
    const RUN: usize = 1 << 10;
    let mut out = vec![K::ZERO; 1 << log_size];
    out.par_chunks_mut(RUN).enumerate().for_each(|(run, out)| {
        let mut power = h.exp_u64((run * RUN) as u64);
        for (i, x) in out.iter_mut().enumerate() {
            let at = (run * RUN + i) * D;
            *x = Ext::<F, D>(core::array::from_fn(|d| values[at + d])).scale(power);
            power *= h;
        }
    });
    out
}

/// `xi, xi^2, ...`.
fn powers<const D: usize>(xi: K<D>, n: usize) -> Vec<K<D>> {
    core::iter::successors(Some(xi), |&x| Some(x * xi)).take(n).collect()
}

/// Four sumcheck rounds on `<f, w>`, which fold both.
fn sumcheck<const D: usize>(prover: &mut Prover, f: &mut Vec<K<D>>, w: &mut Vec<K<D>>) {
    for _ in 0..FOLD_LOG {
        let add = |a: (K<D>, K<D>), b: (K<D>, K<D>)| (a.0 + b.0, a.1 + b.1);
        let (h0, h2) = f
            .par_chunks_exact(2)
            .zip(w.par_chunks_exact(2))
            .with_min_len(1 << 10)
            .map(|(f, w)| (f[0] * w[1], f[1] * w[0]))
            .reduce(|| (K::ZERO, K::ZERO), add);
        prover.send_clear("whir round", &[h0, h2]);
        let z: K<D> = prover.challenge("whir round");
        *f = f.par_chunks_exact(2).with_min_len(1 << 10).map(|f| f[0] + z * f[1]).collect();
        *w = w.par_chunks_exact(2).with_min_len(1 << 10).map(|w| w[1] + z * w[0]).collect();
    }
}

/// Proves `<g, m(z)> = s` and the values of `g` at the opened rows.
pub(super) fn prove<const D: usize>(
    parameters: &Parameters,
    prover: &mut Prover,
    mut f: Vec<K<D>>,
    mut oracle: Oracle<D>,
    z: &[K<D>],
    rows: &[usize],
) {
    let log = z.len();
    let mut w = crate::eq::tensor(&z.iter().map(|&x| (K::ONE, x)).collect::<Vec<_>>());
    let (mut indices, mut domain) = (rows.to_vec(), log + ORACLE_LOG_BLOWUP);
    for size in sizes(parameters, log) {
        let xi: K<D> = prover.challenge("whir batch");
        let extra = point_weights(&indices, domain, size.log_size, &powers(xi, indices.len()));
        w.par_iter_mut().zip(extra).with_min_len(1 << 12).for_each(|(a, b)| *a += b);
        sumcheck(prover, &mut f, &mut w);
        let next_log = size.log_size - FOLD_LOG;
        let next = if parameters.is_final(next_log) {
            prover.send_clear("whir final", &f);
            None
        } else {
            let next = Oracle::new(&f, next_log, size.log_blowup + FOLD_LOG - 1);
            prover.send_bytes("whir root", &next.root());
            Some(next)
        };
        let leaves = size.log_size + size.log_blowup - FOLD_LOG;
        indices = distinct(&prover.transcript.indices("whir leaves", parameters.queries(size.log_blowup), leaves), leaves);
        prover.append(&oracle.open(&indices));
        domain = leaves;
        match next {
            Some(next) => oracle = next,
            None => return,
        }
    }
}

/// A claim on the current polynomial: coefficient times `<f, powers of x>`.
struct PointClaim<const D: usize> {
    coefficient: K<D>,
    point: F,
}

/// Reads and checks distinct opened leaves of `width` elements. -> the leaves.
pub(super) fn read_leaves<const D: usize, R: Reader<D>>(
    reader: &mut R,
    what: &'static str,
    key: &Key,
    root: &Digest,
    leaves: &[usize],
    width: usize,
    height: usize,
) -> Verdict<Vec<F>> {
    let bytes = reader.take(what, leaves.len() * width * 8)?.to_vec();
    let mut out = Vec::with_capacity(leaves.len() * width);
    for b in bytes.chunks_exact(8) {
        let x = u64::from_le_bytes(b.try_into().expect("8 bytes"));
        if x >= crate::field::P {
            return Err(Reject::NotCanonical { at: what });
        }
        out.push(F::from_u64(x));
    }
    let padded = leaf_bytes(width, 0);
    let mut inputs = vec![0u8; leaves.len() * padded];
    for (to, from) in inputs.chunks_exact_mut(padded).zip(bytes.chunks_exact(width * 8)) {
        to[..from.len()].copy_from_slice(from);
    }
    let mut digests = vec![[0; 32]; leaves.len()];
    hash_blocks(key, padded / 64, &inputs, &mut digests);
    let count = sibling_count(leaves, height);
    let siblings = reader.take(what, count * 32)?;
    let siblings: &[Digest] = siblings.as_chunks::<32>().0;
    if root_of(leaves, digests, siblings, height) != Some(*root) {
        return Err(Reject::Merkle { oracle: what });
    }
    Ok(out)
}

/// The polynomial folded at a leaf: `sum_k m_k(r) f_k(x^16)` from its values at the 16 points `x zeta^k`.
fn fold_leaf<const D: usize>(values: &mut [K<D>; LEAF], x: F, challenges: &[K<D>], inverse_two: F) -> K<D> {
    let mut n = LEAF;
    let mut x_inverse = x.inverse();
    let mut root_inverse = F::two_adic_generator(FOLD_LOG).inverse();
    for &z in challenges {
        // Point k and point k + n/2 are x and -x.
        let mut inverse = x_inverse;
        for k in 0..n / 2 {
            let (a, b) = (values[k], values[k + n / 2]);
            let even = (a + b).scale(inverse_two);
            let odd = (a - b).scale(inverse_two * inverse);
            values[k] = even + z * odd;
            inverse *= root_inverse;
        }
        x_inverse = x_inverse * x_inverse;
        root_inverse = root_inverse * root_inverse;
        n /= 2;
    }
    values[0]
}

/// Checks the claims of [`prove`]: `values[k]` is `g` at row `rows[k]`.
pub(super) fn verify<const D: usize, R: Reader<D>>(
    parameters: &Parameters,
    reader: &mut R,
    mut root: Digest,
    z: &[K<D>],
    s: K<D>,
    rows: &[usize],
    values: &[K<D>],
) -> Verdict<()> {
    let log = z.len();
    let inverse_two = F::TWO.inverse();
    let mut claim = s;
    // Weight of <f, m(z)> with the bound variables' factor.
    let mut of_z = K::ONE;
    let mut rest = z;
    let (mut points, mut new_points, mut new_values) = (
        Vec::<PointClaim<D>>::new(),
        rows.iter().map(|&i| ntt::point(log + ORACLE_LOG_BLOWUP, i)).collect::<Vec<F>>(),
        values.to_vec(),
    );
    for size in sizes(parameters, log) {
        let xi: K<D> = reader.challenge("whir batch");
        for ((&point, &value), coefficient) in new_points.iter().zip(&new_values).zip(powers(xi, new_points.len())) {
            claim += coefficient * value;
            points.push(PointClaim { coefficient, point });
        }
        let mut challenges = Vec::with_capacity(FOLD_LOG);
        for _ in 0..FOLD_LOG {
            let h = reader.receive_clear("whir round", 2)?;
            let r: K<D> = reader.challenge("whir round");
            claim = h[0] + r * claim + r * r * h[1];
            challenges.push(r);
            of_z *= rest[0] + r;
            rest = &rest[1..];
            for p in &mut points {
                p.coefficient *= K::from_base(p.point) + r;
                p.point = p.point * p.point;
            }
        }
        let next_log = size.log_size - FOLD_LOG;
        let leaves = size.log_size + size.log_blowup - FOLD_LOG;
        let last = if parameters.is_final(next_log) { Some(reader.receive_clear("whir final", 1 << next_log)?) } else { None };
        let next_root = match last {
            Some(_) => None,
            None => Some(reader.receive_bytes("whir root", 32)?.try_into().map_err(|_| Reject::Truncated { at: "whir root" })?),
        };
        let indices = distinct(&reader.indices("whir leaves", parameters.queries(size.log_blowup), leaves), leaves);
        let opened = read_leaves(reader, "whir", &leaf_key::<D>(), &root, &indices, LEAF * D, leaves)?;
        new_points.clear();
        new_values.clear();
        for (&j, leaf) in indices.iter().zip(opened.chunks_exact(LEAF * D)) {
            let mut values = core::array::from_fn(|k| Ext(core::array::from_fn(|d| leaf[k * D + d])));
            let x = ntt::point(size.log_size + size.log_blowup, j);
            new_values.push(fold_leaf(&mut values, x, &challenges, inverse_two));
            new_points.push(x.exp_power_of_2(FOLD_LOG));
        }
        let Some(last) = last else {
            root = next_root.unwrap_or(root);
            continue;
        };
        let at = |x: F| last.iter().rev().fold(K::ZERO, |t: K<D>, &c| t.scale(x) + c);
        for (&x, &value) in new_points.iter().zip(&new_values) {
            if at(x) != value {
                return Err(Reject::Row { oracle: "whir" });
            }
        }
        let monomials = crate::eq::tensor(&rest.iter().map(|&x| (K::ONE, x)).collect::<Vec<_>>());
        let direct: K<D> = last.iter().zip(&monomials).map(|(&c, &m)| c * m).sum();
        let total = points.iter().fold(of_z * direct, |t, p| t + p.coefficient * at(p.point));
        return if total == claim { Ok(()) } else { Err(Reject::Equation("WHIR sumcheck")) };
    }
    Err(Reject::Equation("WHIR sumcheck"))
}
