//! WHIR on the column combination `g`: four variables a round, the rate halves with each round, unique decoding throughout.
//!
//! `g = sum_a X^a G_a(X^16)` over `0 <= a < 16` is committed as an interleaved code word: leaf `j` holds `G_0(y_j), ..., G_15(y_j)`, where
//! `y_j` is point `j` of the domain of `len(g) / (16 rate)` points. The 16 values of `g` at the points with `x^16 = y_j` determine the leaf and are determined by it (a transform of length 16 with twiddles), so that this is the same code with the
//! same distance, leaf by leaf; it is cheaper to make and to fold: the fold by `r_0, ..., r_3` is `sum_a m_a(r) G_a(y_j)` with the monomials
//! `m_a(r) = prod over the bits of a of r_i`.
//!
//! The claims on a polynomial are `<g, m(z)>` and values `g(x_i) = <g, m(x_i, x_i^2, x_i^4, ...)>`, all inner products with a tensor of pairs
//! `(1, t)`. A round of the coefficient basis takes such a weight to `(t + r)` times the tensor of the other pairs: the verifier keeps one
//! coefficient and one point for each claim.

use p3_field::PrimeCharacteristicRing;

use super::code::{Code, Leaf, Rows};
use super::planes::{Basis, Planes, round};
use super::points::point_weights;
use crate::channel::{Prover, Reader};
use crate::eq::tensor;
use crate::field::{Ext, F, K};
use crate::hash::Digest;
use crate::masking::evaluate;
use crate::ntt;
use crate::parameters::{FOLD_LOG, ORACLE_LOG_BLOWUP, Parameters, WHIR_LOG_BLOWUP};
use crate::reject::{Reject, Verdict};

const LEAF: usize = 1 << FOLD_LOG;

fn leaf<const D: usize>() -> Leaf {
    Leaf { role: "folding", columns: LEAF * D, salted: false }
}

/// A round: its polynomial has `2^log` coefficients and the rate `2^-log_blowup`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub log: usize,
    pub log_blowup: usize,
}

impl Stage {
    /// `log2` of the number of leaves.
    pub fn height(self) -> usize {
        self.log - FOLD_LOG + self.log_blowup
    }

    /// `log2` of the coefficients that are left after the round.
    pub fn folded(self) -> usize {
        self.log - FOLD_LOG
    }
}

/// The rounds for `2^log` coefficients: 16 times fewer each time, at half the rate, until few enough are left to be sent.
pub(crate) fn stages(params: &Parameters, log: usize) -> Vec<Stage> {
    let mut out = vec![Stage { log, log_blowup: WHIR_LOG_BLOWUP }];
    while let Some(&last) = out.last()
        && !params.is_final(last.folded())
    {
        out.push(Stage { log: last.folded(), log_blowup: last.log_blowup + 1 });
    }
    out
}

/// Sorts drawn indices and drops repetitions.
pub(crate) fn distinct(mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// The monomials of a point: entry `i` is the product of the coordinates at the bits of `i`.
pub(crate) fn monomials<const D: usize>(z: &[K<D>]) -> Vec<K<D>> {
    tensor(&z.iter().map(|&z| (K::ONE, z)).collect::<Vec<_>>())
}

/// A committed polynomial of the recursion.
pub(crate) struct Word<const D: usize> {
    stage: Stage,
    code: Code,
}

impl<const D: usize> Word<D> {
    /// Commits to `g`.
    pub fn new(g: &[K<D>]) -> Self {
        Self::at(g, Stage { log: g.len().trailing_zeros() as usize, log_blowup: WHIR_LOG_BLOWUP })
    }

    fn at(g: &[K<D>], stage: Stage) -> Self {
        // Row b holds the coefficients of X^(16 b), ..., X^(16 b + 15): the natural order.
        let rows: Vec<F> = g.iter().flat_map(|x| x.0).collect();
        Word { stage, code: Code::new(leaf::<D>(), ntt::encode_rows(&rows, LEAF * D, stage.folded(), stage.height()), None) }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.code.root()
    }
}

/// Proves `<g, m(z)> = s` and the values of `g` at the given points of the domain of `2 len(g)` points. `word` commits to `g`.
pub(crate) fn prove<const D: usize>(params: &Parameters, prover: &mut Prover, g: &[K<D>], mut word: Word<D>, z: &[K<D>], rows: Vec<usize>) {
    let (low, high) = z.split_at(FOLD_LOG);
    let (low, high) = (monomials(low), monomials(high));
    let mut f = Planes::by_low_bits(word.stage.log, FOLD_LOG, |i| g[i]);
    let mut w = Planes::by_low_bits(word.stage.log, FOLD_LOG, |i| low[i % LEAF] * high[i / LEAF]);
    let (mut points, mut log_domain) = (rows, z.len() + ORACLE_LOG_BLOWUP);
    let stages = stages(params, z.len());
    let mut following = stages[1..].iter();
    loop {
        let stage = word.stage;
        let weights = point_weights(&points, prover.challenge("folding batch"), stage.log, log_domain);
        w.add_by_low_bits(FOLD_LOG, |i| weights[i]);
        drop(weights);
        for _ in 0..FOLD_LOG {
            let (h0, h2) = round(&f, &w, Basis::Coefficient);
            prover.send_clear("folding round", &[h0, h2]);
            let r = prover.challenge("folding round");
            f.fold_data(r, Basis::Coefficient);
            w.fold_weight(r, Basis::Coefficient);
        }
        // Four variables are bound: the order is natural again.
        let folded: Vec<K<D>> = (0..f.len()).map(|i| f.get(i)).collect();
        let next = following.next().map(|&stage| Word::at(&folded, stage));
        match &next {
            Some(word) => prover.send_bytes("folding root", &word.root()),
            None => prover.send_clear("folding polynomial", &folded),
        }
        points = distinct(prover.transcript.indices("folding indices", params.queries(stage.log_blowup), stage.height()));
        log_domain = stage.height();
        prover.append(&word.code.open(&points));
        match next {
            Some(next) => {
                let bound = w;
                f = Planes::by_low_bits(next.stage.log, FOLD_LOG, |i| folded[i]);
                w = Planes::by_low_bits(next.stage.log, FOLD_LOG, |i| bound.get(i));
                word = next;
            }
            None => return,
        }
    }
}

/// Checks [`prove`]'s messages: `s`, the values `ys` at the points `rows` of the domain of `2^(len(z) + 1)` points, the root of `g`.
pub(crate) fn verify<const D: usize, R: Reader<D>>(
    params: &Parameters,
    reader: &mut R,
    root: Digest,
    z: &[K<D>],
    s: K<D>,
    rows: &[usize],
    ys: &[K<D>],
) -> Verdict<()> {
    let (mut claim, mut root) = (s, root);
    // <g, m(z)> has become `scale` times the monomials of what is left of z.
    let (mut scale, mut z) = (K::ONE, z);
    let mut points: Vec<(K<D>, F)> = Vec::new();
    let log_domain = z.len() + ORACLE_LOG_BLOWUP;
    let stages = stages(params, z.len());
    let mut fresh: Vec<(F, K<D>)> = ntt::points(log_domain, rows).into_iter().zip(ys.iter().copied()).collect();
    for stage in &stages {
        let xi = reader.challenge("folding batch");
        let mut power = xi;
        for (x, y) in fresh {
            claim += power * y;
            points.push((power, x));
            power *= xi;
        }
        let mut r = Vec::with_capacity(FOLD_LOG);
        for _ in 0..FOLD_LOG {
            let h = reader.receive_clear("folding round", 2)?;
            let x = reader.challenge("folding round");
            claim = h[0] + x * (claim + x * h[1]);
            scale *= z[r.len()] + x;
            for (c, t) in &mut points {
                *c *= x + K::from_base(*t);
                *t = t.square();
            }
            r.push(x);
        }
        z = &z[FOLD_LOG..];
        // The indices are drawn after the polynomial or the root that their values are claims on.
        let (mut polynomial, mut next_root) = (Vec::new(), [0; 32]);
        let last = params.is_final(stage.folded());
        if last {
            polynomial = reader.receive_clear("folding polynomial", 1 << stage.folded())?;
        } else {
            next_root.copy_from_slice(&reader.receive_bytes("folding root", 32)?);
        }
        let opened = distinct(reader.indices("folding indices", params.queries(stage.log_blowup), stage.height()));
        let opened = Rows::new(leaf::<D>(), stage.height(), opened);
        let m = monomials(&r);
        let fold = |leaf: &[F]| -> K<D> { leaf.chunks_exact(D).zip(&m).map(|(c, &m)| m * Ext(core::array::from_fn(|d| c[d]))).sum() };
        let values = opened.check(reader.take("folding", opened.size())?, &root, fold)?;
        fresh = ntt::points(stage.height(), opened.rows()).into_iter().zip(values).collect();
        if last {
            return finish(&polynomial, &fresh, scale, z, &points, claim);
        }
        root = next_root;
    }
    Err(Reject::Equation("folded claim"))
}

/// The last polynomial has the values `fresh` and satisfies the claim that is left.
fn finish<const D: usize>(
    polynomial: &[K<D>],
    fresh: &[(F, K<D>)],
    scale: K<D>,
    z: &[K<D>],
    points: &[(K<D>, F)],
    claim: K<D>,
) -> Verdict<()> {
    let xs: Vec<F> = fresh.iter().map(|f| f.0).chain(points.iter().map(|p| p.1)).collect();
    let values = evaluate(polynomial, &xs);
    let (of_fresh, of_points) = values.split_at(fresh.len());
    if fresh.iter().zip(of_fresh).any(|(f, value)| f.1 != *value) {
        return Err(Reject::Row { oracle: "folding" });
    }
    let direct: K<D> = polynomial.iter().zip(monomials(z)).map(|(&c, m)| c * m).sum();
    let sum = points.iter().zip(of_points).fold(scale * direct, |t, (&(c, _), &value)| t + c * value);
    if sum == claim { Ok(()) } else { Err(Reject::Equation("folded claim")) }
}
