//! WHIR beside a published implementation of it by others, `p3-whir`.
//!
//! Neither can read the other's proofs: the transcripts, the trees, the domains (a subgroup there, a coset here) and the bases differ. What
//! lies beneath is the same, and is compared on one vector `d` of `2^n` elements:
//! - *Code.* Both write `d` as the coefficients of 16 interleaved polynomials of the same rate, and commit to the same leaves.
//! - *Fold.* There, `d` is a table of values on the cube and folds by `(1 - r, r)`; here it is a table of coefficients and folds by `(1, r)`.
//!   With `y = r / (1 - r)`, `(1 - r, r) = (1 - r) (1, y)`: the same fold but for the factor, over all rounds.
//! - *Claim.* In the same way `<d, eq(z)> = prod (1 - z_j) <d, m(y)>`: a claim there is one here.
//! - *Rounds.* The messages in the basis of values equal those of our outer sumcheck. Its other basis (eprint 2026/762) becomes our basis
//!   of coefficients when the weights of the variable that is bound change places.
//! - *Parameters.* Rates, heights and queries are the same; the error terms differ by constants that are explained where they are compared.

use std::collections::HashMap;
use std::sync::Arc;

use p3_challenger::{HashChallenger, SerializingChallenger64};
use p3_commit::{Mmcs, MultilinearPcs};
use p3_dft::Radix2DFTSmallBatch;
use p3_field::extension::BinomialExtensionField;
use p3_field::{BasedVectorSpace, Field, PrimeCharacteristicRing};
use p3_matrix::dense::RowMajorMatrix;
use p3_merkle_tree::MerkleTreeMmcs;
use p3_multilinear_util::point::Point;
use p3_sumcheck::layout::{Layout, SuffixProver, Table, Verifier};
use p3_sumcheck::strategy::{Basis as TheirBasis, VariableOrder};
use p3_sumcheck::{OpeningBatch, OpeningProtocol, PrescribedPointPcs, TableShape, TableSpec};
use p3_symmetric::{CompressionFunctionFromHasher, CryptographicHasher, SerializingHasher};
use p3_whir::{
    FoldingFactor, PcsProof, ProtocolParameters, QueryOpenings, SecurityAssumption, VerifierError, WhirConfig, WhirProver, WhirVerifier,
};

use super::planes::{Basis, Planes, round};
use super::tests::element;
use super::whir::{self, Stage, Word, monomials, stages};
use super::{Hiding, OracleLayout, Role, Stack};
use crate::channel::{PlainReader, Prover, Reader, Transcript};
use crate::eq::eq;
use crate::field::{Ext, F, K, canonical};
use crate::ntt;
use crate::parameters::{FOLD_LOG, Mode, ORACLE_LOG_BLOWUP, Parameters, WHIR_LOG_BLOWUP};
use crate::reject::{Reject, Verdict};
use crate::soundness::opening_terms;

/// Bits that each code word's queries give ([`crate::parameters`]): the level that theirs are derived from.
const LEVEL: usize = 104;
const UNIQUE: SecurityAssumption = SecurityAssumption::UniqueDecoding;

type E = BinomialExtensionField<F, 2>;

#[derive(Clone)]
struct Blake3;

impl CryptographicHasher<u8, [u8; 32]> for Blake3 {
    fn hash_iter<I: IntoIterator<Item = u8>>(&self, input: I) -> [u8; 32] {
        blake3::hash(&input.into_iter().collect::<Vec<_>>()).into()
    }
}

type Challenger = SerializingChallenger64<F, HashChallenger<u8, Blake3, 32>>;
type Trees = MerkleTreeMmcs<F, u8, SerializingHasher<Blake3>, CompressionFunctionFromHasher<Blake3, 2, 32>, 2, 32>;
type Dft = Radix2DFTSmallBatch<F>;
/// Binds the lowest variable first, as we do.
type Order = SuffixProver<F, E>;
type Pcs = WhirProver<E, F, Dft, Trees, Challenger, Order>;
type Root = <Trees as Mmcs<F>>::Commitment;
type Proof = PcsProof<F, E, Trees>;

fn ours(x: E) -> K<2> {
    let c: &[F] = x.as_basis_coefficients_slice();
    Ext([c[0], c[1]])
}

fn theirs(x: K<2>) -> E {
    E::new(x.0)
}

fn trees() -> Trees {
    Trees::new(SerializingHasher::new(Blake3), CompressionFunctionFromHasher::new(Blake3), 0)
}

/// Their schedule with our rates: folds of four variables, the rate halved each time. No grinding is allowed.
fn config(n: usize) -> WhirConfig<E, F, Challenger> {
    let rounds = stages(&params(), n).len();
    let parameters = ProtocolParameters {
        starting_log_inv_rate: WHIR_LOG_BLOWUP,
        round_log_inv_rates: (1..rounds).map(|i| WHIR_LOG_BLOWUP + i).collect(),
        folding_factor: FoldingFactor::PerRound(vec![FOLD_LOG; rounds]),
        soundness_type: UNIQUE,
        security_level: LEVEL,
        pow_bits: 0,
    };
    WhirConfig::new(n, parameters).expect("a schedule")
}

fn params() -> Parameters {
    Parameters::new(100, Mode::Plain).expect("a set")
}

/// A vector and a point, by seed.
fn case(n: usize, seed: u64) -> (Vec<F>, Vec<K<2>>) {
    let d = (0..1u64 << n).map(|i| element::<2>((seed << 32) + i).0[0]).collect();
    (d, (0..n as u64).map(|i| element((seed << 32) + (1 << 30) + i)).collect())
}

/// `z / (1 - z)` for each coordinate, and the product of all `1 - z`.
fn projective(z: &[K<2>]) -> (Vec<K<2>>, K<2>) {
    let one = |z: K<2>| K::ONE - z;
    let y = z.iter().map(|&z| z * one(z).try_inverse().expect("not 1")).collect();
    (y, z.iter().fold(K::ONE, |p, &z| p * one(z)))
}

/// Their commitment to `d` and proof of its value at `z`.
struct Published {
    pcs: Pcs,
    protocol: OpeningProtocol,
    point: Point<E>,
    root: Root,
    proof: Proof,
}

fn challenger() -> Challenger {
    Challenger::from_hasher(Vec::new(), Blake3)
}

impl Published {
    fn new(d: &[F], z: &[K<2>]) -> Self {
        let n = z.len();
        let pcs = Pcs::new(config(n), Dft::default(), trees());
        let protocol = OpeningProtocol::new(vec![TableSpec::new(TableShape::new(n, 1), vec![OpeningBatch::new(vec![0], vec![])])]);
        // Their first coordinate belongs to the highest bit of the index.
        let point = Point::new(z.iter().rev().map(|&z| theirs(z)).collect::<Vec<_>>());
        let mut challenger = challenger();
        let witness = Order::new_witness(vec![Table::new(RowMajorMatrix::new(d.to_vec(), 1 << n))], FOLD_LOG);
        let (root, data) = pcs.commit(witness, &mut challenger).expect("committed");
        let proof = pcs.open_at(data, &protocol, std::slice::from_ref(&point), &mut challenger).expect("proved");
        Published { pcs, protocol, point, root, proof }
    }

    fn value(&self) -> K<2> {
        ours(self.proof.evals[0].current()[0])
    }

    /// Their verdict on another value than the proof's: all of the folding challenges if they accept.
    fn verify(&self, value: K<2>) -> Result<Vec<K<2>>, VerifierError> {
        let mut challenger = challenger();
        self.pcs.observe_commitment(&self.root, &mut challenger);
        let mut layout = Verifier::<F, E>::new(&self.protocol.table_shapes(), Order::strategy());
        let (table, batch) = self.protocol.iter_openings().next().expect("an opening");
        layout.add_claim_at(table, batch, &self.point, &OpeningBatch::new(vec![theirs(value)], vec![]), &mut challenger)?;
        let (dft, trees) = (Dft::default(), trees());
        let verifier = WhirVerifier::new(&self.pcs, &dft, &trees, Order::variable_order());
        let r = verifier.verify(&self.proof.whir, &mut challenger, &self.root, 1, &layout)?;
        Ok(r.iter().map(|&r| ours(r)).collect())
    }
}

/// The leaves of the interleaved code word of `c` on the *subgroup* of `2^height` points, with their indices: our encoder, whose domain is
/// shifted by `h`, on the coefficients of `G_a(X / h)`.
fn leaves<const N: usize>(c: &[[F; N]], stage: Stage) -> HashMap<Vec<u64>, usize> {
    let inverse = ntt::shift(stage.height()).inverse();
    let rows: Vec<F> = c.iter().enumerate().flat_map(|(i, c)| c.map(|c| c * inverse.exp_u64((i >> FOLD_LOG) as u64))).collect();
    let words = ntt::encode_rows(&rows, N << FOLD_LOG, stage.folded(), stage.height());
    (0..1 << stage.height()).map(|j| (words.row(j).map(canonical).collect(), j)).collect()
}

fn key<'a>(row: impl IntoIterator<Item = &'a F>) -> Vec<u64> {
    row.into_iter().map(|&c| canonical(c)).collect()
}

fn values(planes: &Planes<2>, log: usize) -> Vec<K<2>> {
    (0..1 << log).map(|i| planes.get(ntt::reverse(i, log))).collect()
}

fn at(f: &[K<2>], x: F) -> K<2> {
    f.iter().rev().fold(K::ZERO, |t, &c| t.scale(x) + c)
}

/// Both accept the value, and neither another one.
#[test]
fn the_same_claims_are_accepted_and_refused() {
    for (n, seed) in [(14, 1), (14, 2), (18, 3)] {
        let (d, z) = case(n, seed);
        let published = Published::new(&d, &z);
        let (y, factor) = projective(&z);
        let g: Vec<K<2>> = d.iter().map(|&x| K::from_base(x)).collect();
        let s: K<2> = monomials(&y).iter().zip(&d).map(|(m, &x)| m.scale(x)).sum();
        assert_eq!(published.value(), factor * s, "one claim");
        let weights = eq(&z);
        assert_eq!(published.value(), weights.iter().zip(&d).map(|(e, &x)| e.scale(x)).sum());

        assert_eq!(published.verify(factor * s).map(|r| r.len()).ok(), Some(n));
        assert!(published.verify(factor * (s + K::ONE)).is_err());

        let params = params();
        let rows: Vec<usize> = (0..50).map(|i| i * 601 + seed as usize).collect();
        let log_domain = n + ORACLE_LOG_BLOWUP;
        let ys: Vec<K<2>> = rows.iter().map(|&i| at(&g, ntt::point(log_domain, i))).collect();
        let mut prover = Prover::default();
        let word = Word::new(&g);
        prover.send_bytes("combined root", &word.root());
        whir::prove(&params, &mut prover, &g, word, &y, rows.clone());
        let proof = prover.finish();
        let verify = |s: K<2>, ys: &[K<2>]| -> Verdict<()> {
            let mut reader = PlainReader::new(Transcript::new(), &proof);
            let root = Reader::<2>::receive_bytes(&mut reader, "combined root", 32)?.try_into().expect("32 bytes");
            whir::verify(&params, &mut reader, root, &y, s, &rows, ys)?;
            reader.finish()
        };
        assert_eq!(verify(s, &ys), Ok(()));
        assert_eq!(verify(s + K::ONE, &ys), Err(Reject::Equation("folded claim")));
        let mut wrong = ys.clone();
        wrong[7] += K::ONE;
        assert_eq!(verify(s, &wrong), Err(Reject::Equation("folded claim")));
    }
}

/// Our parts on their challenges: the first rounds' messages, the leaves of both code words, the fold of a leaf, the last polynomial.
#[test]
fn messages_code_words_and_folds_are_the_same() {
    let n = 14;
    let (d, z) = case(n, 4);
    let published = Published::new(&d, &z);
    let r = published.verify(published.value()).expect("accepted");
    let whir = &published.proof.whir;
    let stages = stages(&params(), n);
    assert_eq!((stages.len(), whir.rounds.len()), (2, 1));

    let weights = eq(&z);
    let (mut f, mut w) = (Planes::new(n, |i| K::from_base(d[i])), Planes::new(n, |i| weights[i]));
    let mut coefficients = f.clone();
    let (y, _) = projective(&r);
    assert_eq!(whir.initial_sumcheck.polynomial_evaluations().len(), FOLD_LOG);
    for (k, &[h0, h2]) in whir.initial_sumcheck.polynomial_evaluations().iter().enumerate() {
        assert_eq!(round(&f, &w, Basis::Evaluation), (ours(h0), ours(h2)), "round {k}");
        f.fold_data(r[k], Basis::Evaluation);
        w.fold_weight(r[k], Basis::Evaluation);
        coefficients.fold_data(y[k], Basis::Coefficient);
    }
    let (folded, factor) = (values(&f, n - FOLD_LOG), projective(&r[..FOLD_LOG]).1);
    assert!(values(&coefficients, n - FOLD_LOG).iter().map(|&x| factor * x).eq(folded.iter().copied()));

    // What they opened of their first code word are leaves of ours, and fold to values of the folded polynomial.
    let QueryOpenings::Base(opened) = &whir.rounds[0].openings else { panic!("the first word is over the base field") };
    let known = leaves(&d.iter().map(|&x| [x]).collect::<Vec<_>>(), stages[0]);
    let m = monomials(&y[..FOLD_LOG]);
    for row in &opened.rows {
        let j = known[&key(row)];
        let fold: K<2> = row.iter().zip(&m).map(|(&c, m)| m.scale(c)).sum();
        assert_eq!(factor * fold, at(&folded, ntt::omega(stages[0].height()).exp_u64(j as u64)));
    }
    assert_eq!(opened.rows.len(), params().queries(stages[0].log_blowup));

    // The same of the second, which is the folded polynomial's at half the rate.
    let QueryOpenings::Extension(opened) = &whir.final_openings else { panic!("the second word is over the extension") };
    let known = leaves(&folded.iter().map(|x| x.0).collect::<Vec<_>>(), stages[1]);
    assert!(
        opened.rows.iter().all(|row| known.contains_key(&key(row.iter().flat_map(BasedVectorSpace::<F>::as_basis_coefficients_slice))))
    );
    assert_eq!(opened.rows.len(), params().queries(stages[1].log_blowup));

    for k in FOLD_LOG..2 * FOLD_LOG {
        f.fold_data(r[k], Basis::Evaluation);
        coefficients.fold_data(y[k], Basis::Coefficient);
    }
    let last: Vec<K<2>> = whir.final_poly.as_ref().expect("sent").as_slice().iter().map(|&x| ours(x)).collect();
    let (left, factor) = (stages[1].folded(), projective(&r[..2 * FOLD_LOG]).1);
    assert!(values(&f, left) == last);
    assert!(values(&coefficients, left).iter().map(|&x| factor * x).eq(last));
}

/// `h(X) = <f_e + X f_o, w_o + X w_e>`, the round of our basis of coefficients, is their projective round with `w_e` and `w_o` exchanged: they
/// send `h(1)` and the coefficient of `X^2`, and claim the sum of the outer coefficients where we claim the middle one.
#[test]
fn rounds_in_the_basis_of_coefficients_are_projective_rounds() {
    let n = 9;
    let vector = |seed: u64| Planes::new(n, move |i| element::<2>(seed + i as u64));
    let (mut f, mut w) = (vector(1), vector(1 << 40));
    for log in (1..=n).rev() {
        let plain = |x: &Planes<2>| (0..1 << log).map(|i| theirs(x.get(i))).collect::<Vec<_>>();
        let (data, mut weights) = (plain(&f), plain(&w));
        let claim: K<2> = (0..1 << log).map(|i| f.get(i) * w.get(i)).sum();
        weights.rotate_left(1 << (log - 1));
        let message = TheirBasis::Projective.sumcheck_coefficients(VariableOrder::Prefix, &data, &weights);
        let (h0, h2) = round(&f, &w, Basis::Coefficient);
        assert_eq!((ours(message.c_a), ours(message.c_inf)), (h0 + claim + h2, h2), "{log} variables");
        let x = element(log as u64);
        // Theirs is a claim on h0 + h2.
        let next = TheirBasis::Projective.reduce_claim(message.c_a, message.c_inf, theirs(x), theirs(h0 + h2));
        f.fold_data(x, Basis::Coefficient);
        w.fold_weight(x, Basis::Coefficient);
        assert_eq!(ours(next), (0..1 << (log - 1)).map(|i| f.get(i) * w.get(i)).sum());
    }
}

#[test]
fn rates_heights_and_queries_are_the_same() {
    // They send six variables in the clear, we up to nine: the schedules agree where six are left.
    for n in [14, 18] {
        let (params, config) = (params(), config(n));
        assert_eq!((config.commitment_ood_samples(), config.max_pow_bits()), (0, 0), "unique decoding, no grinding");
        let ours = stages(&params, n);
        assert_eq!(config.folding_schedule(), vec![FOLD_LOG; ours.len()]);
        let rounds: Vec<_> = config.round_parameters().iter().cloned().chain([config.final_round_config()]).collect();
        assert_eq!(rounds.len(), ours.len());
        for (i, stage) in ours.iter().enumerate() {
            assert_eq!(rounds[i].num_queries, params.queries(stage.log_blowup));
            assert_eq!((rounds[i].log_folded_domain_size, rounds[i].num_variables), (stage.height(), stage.folded()));
            assert_eq!(rounds[i].ood_samples, 0);
        }
        assert!(config.round_parameters().iter().zip(&ours[1..]).all(|(round, stage)| round.log_inv_rate == stage.log_blowup));
    }
    for (security, level) in [(100, LEVEL), (128, 132)] {
        let params = Parameters::new(security, Mode::Plain).expect("a set");
        assert!((ORACLE_LOG_BLOWUP..10).all(|rate| params.queries(rate) == UNIQUE.queries(level, rate)));
    }
}

/// They bound each challenge's error by itself, we the sum of all: so one of theirs stands beside the sum of a round's four.
#[test]
fn error_terms_differ_by_known_constants() {
    for (security, degree) in [(100, 2), (128, 3)] {
        let params = Parameters::new(security, Mode::Plain).expect("a set");
        for n in [14, 18, 21] {
            let stack = Stack::new(vec![Arc::new(OracleLayout::new(&params, Role::Witness, 0, vec![(1 << n, 64)], Hiding::None))]);
            assert_eq!(stack.log_rows, n);
            let terms = opening_terms(&params, &stack, 1);
            let mut queries = params.queries(ORACLE_LOG_BLOWUP);
            for (i, stage) in stages(&params, n).into_iter().enumerate() {
                let ours = |name: &str| terms.iter().find(|t| t.name == format!("folding {i}: {name}")).expect("a term").bits;
                let (field, log, rate) = (64 * degree, stage.log, stage.log_blowup);
                let differs = |name, theirs: f64, by: f64| {
                    assert!((ours(name) - theirs - by).abs() < 1e-6, "{name}: {} ours, {theirs} theirs", ours(name));
                };
                // Theirs counts twice the values.
                differs("batch of values", UNIQUE.queries_combination_error(field, log, rate, 0, queries), 1.0);
                // Four polynomials of degree 2 against one.
                differs("sumcheck", UNIQUE.fold_sumcheck_error(field, log, rate), -2.0);
                // Four folds of leaves, as words of 2^(n - 4 + b) leaves, against one fold of a word of 2^(n + b) symbols.
                differs("fold of leaves", UNIQUE.prox_gaps_error(log, rate, field, 2), 2.0);
                queries = params.queries(rate);
                differs("queries", UNIQUE.queries_error(rate, queries), 0.0);
            }
        }
    }
}
