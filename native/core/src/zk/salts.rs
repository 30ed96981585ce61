//! Why every leaf has a salt of its own: without salts, or with one for the whole tree, a proof picks its own witness out of a list.
//!
//! For a candidate witness everything in the rows that were not opened can be computed: the pads from the opened rows, the mask from `g`, `r`
//! from the messages that the candidate would send, `b` from the line. One sibling hash in the proof then tells.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;

use super::linear::interpolate;
use crate::channel::{ProofBytes, Prover, Reader, Transcript};
use crate::field::{Ext, F, K, canonical};
use crate::hash::SALT;
use crate::masking::{Line, MaskedReader, evaluate};
use crate::merkle::sibling_count;
use crate::ntt;
use crate::parameters::{Mode, Parameters};
use crate::pcs::{Claim, Combined, Committed, Fresh, Functional, Hiding, OracleLayout, Role, Stack};
use crate::pcs::{assemble, combine, distinct, monomials, query, verify_combination, verify_queries};
use crate::random::{Randomness, Salting, Seed};
use crate::reject::Verdict;

const D: usize = 2;
const CANDIDATES: usize = 8;
const SHAPE: (usize, usize) = (20, 6);

/// One witness oracle and a public claim on it.
struct Setting {
    params: Parameters,
    stack: Stack,
    tape: [u8; 32],
    /// Sorted and distinct.
    indices: Vec<usize>,
}

/// What a proof says to everybody.
struct Read {
    combined: Combined<D>,
    line: Line<D>,
    /// Messages as sent.
    sent: Vec<K<D>>,
    constants: [K<D>; 2],
    /// Opened rows with their salts.
    rows: Vec<(Vec<F>, [u8; SALT])>,
    siblings: Vec<[u8; 32]>,
}

impl Setting {
    fn new() -> Self {
        let params = Parameters::tiny_in(Mode::Zk, D, 8, 5, 12, 2);
        let hiding = Hiding::Fresh { pads: params.pads(), degree: D };
        let stack = Stack::new(vec![Arc::new(OracleLayout::new(&params, Role::Witness, 0, vec![SHAPE], hiding))]);
        // A query that meets no other, nor another's sibling, at the lowest index: the candidate's pads are determined.
        let drawn = |tape: [u8; 32]| {
            let mut transcript = Transcript::new().taped(Some(tape));
            // As the opening draws: one batch, the rounds, one batch of equations, one point.
            (0..stack.variables() + 3).for_each(|_| drop(transcript.challenge::<D>("", 1)));
            distinct(transcript.indices("row indices", params.row_queries(), stack.log_domain()))
        };
        let good = |indices: &[usize]| indices.len() == params.pads() && indices[0] ^ 1 != indices[1];
        let tape = (0..=255).map(|k| [k; 32]).find(|&tape| good(&drawn(tape))).expect("one in two");
        let indices = drawn(tape);
        Setting { params, stack, tape, indices }
    }

    fn messages(&self) -> usize {
        2 * self.stack.variables()
    }

    fn transcript(&self) -> Transcript {
        Transcript::new().taped(Some(self.tape))
    }

    /// Witnesses with the same sum: the claim is true of all.
    fn candidate(&self, k: usize) -> Vec<F> {
        let mut cells: Vec<F> = (0..SHAPE.0 * SHAPE.1).map(F::from_usize).collect();
        cells[3] += F::from_usize(k);
        cells[4] -= F::from_usize(k);
        cells
    }

    fn claim(&self) -> (Vec<Functional<D>>, K<D>) {
        let [u, v] = [SHAPE.0, SHAPE.1].map(|n| vec![K::<D>::ONE; n].into());
        (vec![Functional { oracle: 0, storage: 0, u, v }], K::from_base(self.candidate(0).into_iter().sum()))
    }

    fn commit(&self, cells: &[F], fresh: Fresh, salts: Seed) -> Committed {
        assemble(self.stack.layouts[0].clone(), &[cells], Some(fresh), Some(salts), &[])
    }

    fn fresh(&self, seed: u8) -> Fresh {
        let (layout, mut random) = (&self.stack.layouts[0], Randomness::chosen([seed; 32]));
        Fresh::new(&mut random, layout.columns, layout.log_rows, self.params.pads(), D, self.messages())
    }

    fn elements(flat: &[F]) -> Vec<K<D>> {
        flat.as_chunks::<D>().0.iter().map(|&c| Ext(c)).collect()
    }

    /// Messages as far as `g`, masked or not.
    fn conversation(&self, oracle: &Committed, masks: Option<Vec<F>>) -> (Prover, crate::pcs::Combination<D>) {
        let mut prover = Prover::new(self.transcript());
        if let Some(masks) = masks {
            prover = prover.masked(masks);
        }
        let claims = [self.claim().0];
        let combination = combine(&self.params, &mut prover, &self.stack, &[oracle], &claims, &mut |_| ControlFlow::Continue(()));
        let ControlFlow::Continue(combination) = combination else { panic!("nobody stops it") };
        (prover, combination)
    }

    fn prove(&self, oracle: &Committed) -> Vec<u8> {
        let fresh = oracle.fresh.as_ref().expect("a witness");
        let (mut prover, combination) = self.conversation(oracle, Some(fresh.r.clone()));
        let so_far = prover.so_far().to_vec();
        let mut reader = MaskedReader::new(ProofBytes::new(self.transcript(), &so_far));
        self.read_combination(&mut reader, &oracle.root).expect("honest");
        reader.prove(&mut prover, &Self::elements(&fresh.r), &Self::elements(&fresh.b)).expect("honest");
        query(&self.params, &mut prover, &self.stack, &[oracle], combination);
        prover.finish()
    }

    fn read_combination(&self, reader: &mut MaskedReader<ProofBytes<'_>, D>, root: &[u8; 32]) -> Verdict<Combined<D>> {
        let (functionals, value) = self.claim();
        let claim = Claim { functionals, value: reader.constant(value) };
        verify_combination(&self.params, reader, &self.stack, &[*root], &[claim])
    }

    fn verify(&self, root: &[u8; 32], proof: &[u8]) -> Verdict<()> {
        let mut reader = MaskedReader::new(ProofBytes::new(self.transcript(), proof));
        let combined = self.read_combination(&mut reader, root)?;
        let line = reader.settle(self.params.pads())?;
        verify_queries(&self.params, &mut reader, &self.stack, &[*root], combined, line.as_ref())?;
        reader.into_source().finish()
    }

    /// Reads a proof for what it shows.
    fn read(&self, root: &[u8; 32], proof: &[u8]) -> Read {
        let leaf = self.stack.layouts[0].leaf();
        let mut reader = MaskedReader::new(ProofBytes::new(self.transcript(), proof));
        let combined = self.read_combination(&mut reader, root).expect("a proof");
        let line = reader.settle(self.params.pads()).expect("a proof").expect("a line");
        let drawn = reader.indices("row indices", self.params.row_queries(), self.stack.log_domain());
        assert_eq!(distinct(drawn), self.indices);
        let size = self.indices.len() * leaf.opened();
        let siblings = 32 * sibling_count(&self.indices, self.stack.log_domain());
        let bytes = reader.take("rows", size + siblings).expect("a proof").to_vec();
        let row = |row: &[u8]| {
            let (cells, salt) = row.split_at(8 * leaf.columns);
            let cells = cells.as_chunks::<8>().0.iter().map(|&word| F::from_u64(u64::from_le_bytes(word))).collect();
            (cells, salt.try_into().expect("a salt"))
        };
        let rows = bytes[..size].chunks_exact(leaf.opened()).map(row).collect();
        let siblings = bytes[size..].as_chunks::<32>().0.to_vec();
        let sent = Self::elements_of(&proof[..8 * D * self.messages()]);
        let constants = 8 * D * (self.messages() + 1 + self.params.pads() + (1 << self.stack.log_rows));
        let constants = Self::elements_of(&proof[constants..][..16 * D]);
        Read { combined, line, sent, constants: [constants[0], constants[1]], rows, siblings }
    }

    fn elements_of(bytes: &[u8]) -> Vec<K<D>> {
        bytes.chunks_exact(8 * D).map(|b| K::from_bytes(b).expect("canonical")).collect()
    }

    /// `g` with its pads, from the proof.
    fn combination(&self, proof: &[u8], read: &Read) -> Vec<K<D>> {
        let at = 8 * D * (self.messages() + 1 + self.params.pads());
        let mut g = Self::elements_of(&proof[at..][..(8 * D) << self.stack.log_rows]);
        let value: K<D> = g.iter().zip(monomials(&read.combined.z)).map(|(&c, m)| c * m).sum();
        assert_eq!(value, Self::elements_of(&proof[8 * D * self.messages()..][..8 * D])[0], "the opening's value");
        g.extend(&read.combined.pads);
        g
    }

    /// The row beside the first opened one if `cells` were the witness of the proof.
    fn predicted(&self, proof: &[u8], read: &Read, root: &[u8; 32], cells: &[F]) -> Vec<F> {
        let layout = &self.stack.layouts[0];
        let (rows, pads, columns) = (1usize << layout.log_rows, self.params.pads(), layout.columns);
        let points: Vec<F> = self.indices.iter().map(|&i| ntt::point(layout.log_domain(), i)).collect();
        let salts = Seed::from_bytes([0; 32]);
        let mut fresh = self.fresh(0);
        for x in [&mut fresh.pads, &mut fresh.mask, &mut fresh.r, &mut fresh.b] {
            x.fill(F::ZERO);
        }
        // Pads, from the opened cells less those of the message alone.
        let bare = self.commit(cells, fresh.clone(), salts.clone());
        for c in 0..columns {
            let values: Vec<F> = read.rows.iter().zip(&self.indices).map(|((row, _), &i)| row[c] - bare.code.row(i)[c]).collect();
            interpolate(&points, &values, rows).into_iter().enumerate().for_each(|(j, x)| fresh.pads[j * columns + c] = x);
        }
        // The mask, from g: what a combination without a mask leaves.
        let weights = &read.combined.columns[self.stack.bases[0]..];
        let over = weights[columns].try_inverse().expect("a challenge that is not 0");
        let without = self.conversation(&self.commit(cells, fresh.clone(), salts.clone()), None).0.finish();
        let at = 8 * D * (self.messages() + 1);
        let unmasked = Self::elements_of(&without[at..]);
        let (own_pads, own_g) = unmasked.split_at(pads);
        let mask = self.combination(proof, read).into_iter().zip(own_g.iter().chain(own_pads)).map(|(g, &own)| (g - own) * over);
        fresh.mask = mask.flat_map(|m| m.0).collect();
        // Messages without masks, and with them r.
        let plain = self.conversation(&self.commit(cells, fresh.clone(), salts.clone()), None).0.finish();
        let t = Self::elements_of(&plain[..8 * D * self.messages()]);
        let (n, e) = (self.messages(), read.line.e);
        let mut r: Vec<K<D>> = read.sent.iter().zip(&t).map(|(&sent, &t)| sent - t).collect();
        let b: Vec<K<D>> = r.iter().zip(&read.line.v).map(|(&r, &v)| v - e * r).collect();
        let mut reader = MaskedReader::new(ProofBytes::new(self.transcript(), proof));
        self.read_combination(&mut reader, root).expect("a proof");
        let gamma: K<D> = reader.challenge("equations");
        r.push(read.constants[1] - reader.slope(gamma, &t, &b));
        // Its pads, from the opened cells of r.
        let known = evaluate(&r, &points);
        let mut tail = vec![[F::ZERO; D]; pads];
        for d in 0..D {
            let values: Vec<F> = read.rows.iter().zip(&known).map(|((row, _), y)| row[columns + D + d] - y.0[d]).collect();
            interpolate(&points, &values, n + 1).into_iter().zip(&mut tail).for_each(|(x, to)| to[d] = x);
        }
        r.extend(tail.into_iter().map(Ext));
        fresh.r = r.iter().flat_map(|x| x.0).collect();
        fresh.b = r.iter().zip(&read.line.v).flat_map(|(&r, &v)| (v - e * r).0).collect();
        self.commit(cells, fresh, salts).code.row(self.indices[0] ^ 1)
    }
}

/// The candidates that a proof of witness `secret` could be of.
fn found(salting: Salting, secret: usize) -> Vec<usize> {
    let setting = Setting::new();
    let oracle = setting.commit(&setting.candidate(secret), setting.fresh(5), Seed::from_bytes([6; 32]).salting(salting));
    let proof = setting.prove(&oracle);
    assert_eq!(setting.verify(&oracle.root, &proof), Ok(()));
    let read = setting.read(&oracle.root, &proof);
    let leaf = setting.stack.layouts[0].leaf();
    // The first sibling of a multi-opening is that of its first lone leaf.
    let (salt, sibling) = (read.rows[0].1, read.siblings[0]);
    let predictions: BTreeMap<usize, Vec<F>> =
        (0..CANDIDATES).map(|k| (k, setting.predicted(&proof, &read, &oracle.root, &setting.candidate(k)))).collect();
    // Everything is known but a salt.
    assert_eq!(predictions[&secret], oracle.code.row(setting.indices[0] ^ 1));
    let digest = |row: &[F]| {
        let mut bytes: Vec<u8> = row.iter().flat_map(|&x| canonical(x).to_le_bytes()).collect();
        bytes.extend(salt);
        leaf.digests(&leaf.key(), &bytes)[0]
    };
    predictions.into_iter().filter(|(_, row)| digest(row) == sibling).map(|(k, _)| k).collect()
}

#[test]
fn a_proof_without_salts_picks_its_witness_out_of_a_list() {
    assert_eq!(found(Salting::None, 5), [5]);
}

#[test]
fn a_proof_with_one_salt_for_the_tree_picks_its_witness_out_of_a_list() {
    assert_eq!(found(Salting::One, 2), [2]);
}

#[test]
fn a_proof_with_a_salt_for_each_leaf_does_not() {
    assert_eq!(found(Salting::Each, 5), [0; 0]);
}
