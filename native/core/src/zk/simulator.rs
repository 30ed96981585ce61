//! A proof from the statement and programmed challenges alone. Nothing that depends on secret data enters this file.
//!
//! In the order of dependence: opened cells of data and of `r` are uniform, `g` is uniform with the value that the sumcheck wants, masked
//! messages, `D1` and `v` are uniform; then follow `D0` from the equations, opened cells of the mask from `g` and those of `b` from `v`.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;

use crate::channel::{Prover, Source, Transcript};
use crate::eq::eq;
use crate::field::{Ext, F, K, canonical};
use crate::hash::{Digest, SALT};
use crate::masking::{MaskedReader, evaluate};
use crate::merkle::Tree;
use crate::ntt;
use crate::parameters::Parameters;
use crate::pcs::{Combined, Committed, Hiding, Word, distinct, monomials, over_columns, prove_folding, reduced};
use crate::proof::{Compiled, Content, Statement, StatementTensor, VerifyingKey, conversation, tensor_commitment, weight_conversation};
use crate::random::Randomness;
use crate::reject::{Reject, Verdict};

const D: usize = 2;

fn uniform(coins: &mut Randomness, n: usize) -> Vec<K<D>> {
    coins.elements(D * n).as_chunks::<D>().0.iter().map(|&c| Ext(c)).collect()
}

/// Invents what a verifier reads.
struct Invented<'a> {
    transcript: Transcript,
    coins: &'a mut Randomness,
    sent: Vec<u8>,
    log_rows: usize,
    /// Of the mask.
    log_stride: usize,
    /// The oracle of weights that everybody knows, its first column in the stack, and its stride.
    public: Option<(&'a Committed, usize, usize)>,
    /// The combination below `2^log_rows`.
    g: Vec<K<D>>,
}

impl Invented<'_> {
    fn send(&mut self, elements: &[K<D>]) {
        elements.iter().for_each(|x| x.to_bytes(&mut self.sent));
    }
}

impl Source for Invented<'_> {
    fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    fn elements<const E: usize>(&mut self, label: &'static str, n: usize) -> Verdict<Vec<K<E>>> {
        let elements = match label {
            "opening value" => {
                self.g = uniform(self.coins, 1 << self.log_rows);
                let drawn = self.transcript.drawn::<D>("opening round");
                let (z, columns) = drawn.split_at(self.log_rows);
                if let Some((weights, base, stride)) = self.public {
                    // What the mask does not cover everybody can compute.
                    let mut known = vec![K::ZERO; self.g.len()];
                    let of = eq(columns);
                    over_columns(&weights.cells, weights.layout.log_rows, &of[base..][..weights.layout.columns], stride, &mut known);
                    let known = known.into_iter().enumerate().filter(|(i, _)| !i.is_multiple_of(1 << self.log_stride));
                    known.for_each(|(i, x)| self.g[i] = x);
                }
                vec![self.g.iter().zip(monomials(z)).map(|(&c, m)| c * m).sum()]
            }
            "combined polynomial" => self.g.clone(),
            _ => uniform(self.coins, n),
        };
        self.send(&elements);
        Ok(elements.into_iter().map(|x| Ext(core::array::from_fn(|d| x.0[d]))).collect())
    }

    fn bytes(&mut self, label: &'static str, _: usize) -> Verdict<Vec<u8>> {
        assert_eq!(label, "combined root");
        let root = Word::<D>::new(&self.g).root();
        self.sent.extend(root);
        Ok(root.to_vec())
    }

    fn opening(&mut self, label: &'static str, _: usize) -> Verdict<&[u8]> {
        Err(Reject::Truncated { at: label })
    }
}

/// The opening of an oracle at some rows, and its root: leaves that are not opened are random.
fn opened(compiled: &Compiled, oracle: usize, rows: &BTreeMap<usize, Vec<F>>, coins: &mut Randomness) -> (Digest, Vec<u8>) {
    let layout = &compiled.oracles[oracle];
    let leaf = layout.leaf();
    let bytes = |coins: &mut Randomness, n: usize| -> Vec<u8> {
        // A coordinate below p is as good as uniform.
        coins.elements(n.div_ceil(8)).into_iter().flat_map(|x| canonical(x).to_le_bytes()).take(n).collect()
    };
    let mut leaves: Vec<Digest> = (0..1usize << layout.log_domain()).map(|_| bytes(coins, 32).try_into().expect("32 bytes")).collect();
    let mut data = Vec::new();
    for row in rows.values() {
        data.extend(row.iter().flat_map(|&x| canonical(x).to_le_bytes()));
        data.extend(bytes(coins, SALT));
    }
    for (&row, digest) in rows.keys().zip(leaf.digests(&leaf.key(), &data)) {
        leaves[row] = digest;
    }
    let tree = Tree::new(leaves.clone());
    data.extend(tree.siblings(&rows.keys().copied().collect::<Vec<_>>(), |i| leaves[i]).as_flattened());
    (tree.root(), data)
}

/// What is proved, as far as everybody knows it.
#[derive(Clone, Copy)]
struct Known<'a> {
    params: &'a Parameters,
    compiled: &'a Compiled,
    /// The oracle of weights that everybody knows, where there is one.
    public: Option<&'a Committed>,
    tape: [u8; 32],
}

/// What a simulator invents beside a statement.
struct Parts {
    /// Of all oracles, those of public weights zeros.
    roots: Vec<Digest>,
    /// Messages, rows and whatever follows them.
    rest: Vec<u8>,
}

/// Everything that `read`, the verifier of a kind of proof, reads of an accepted one.
fn invent(
    Known { params, compiled, public, tape }: Known<'_>,
    coins: &mut Randomness,
    read: impl FnOnce(&mut MaskedReader<Invented<'_>, D>, &[Digest]) -> Verdict<Combined<D>>,
) -> Parts {
    let stack = &compiled.stack;
    let mut own = Randomness::chosen(*coins.seed().expose());
    let transcript = Transcript::new().taped(Some(tape));
    let at = compiled.oracles.iter().position(|o| o.hiding == Hiding::None);
    let public_at = public.zip(at).map(|(weights, o)| (weights, stack.bases[o], 1 << stack.log_stride(o)));
    let log_stride = stack.log_mask_stride();
    let source =
        Invented { transcript, coins: &mut own, sent: Vec::new(), log_rows: stack.log_rows, log_stride, public: public_at, g: Vec::new() };
    let mut reader = MaskedReader::<_, D>::new(source);
    let combined = read(&mut reader, &vec![[0; 32]; compiled.oracles.len()]).expect("anything is a conversation");

    let (line, count) = (uniform(coins, reader.counts().0 + 1 + params.pads()), reader.counts().0);
    let mut challenges = reader.transcript();
    let [gamma, e] = ["equations", "line"].map(|label| challenges.challenge(label, 1)[0]);
    let d1 = uniform(coins, 1)[0];
    let d0 = reader.on_line(gamma, e, &line) - e * d1;
    assert_eq!(line.len(), count + 1 + params.pads());
    let mut source = reader.into_source();
    source.send(&[d0, d1]);
    source.send(&line);

    let log_domain = stack.log_domain();
    let indices = distinct(challenges.indices("row indices", params.row_queries(), log_domain));
    let mut rows: Vec<BTreeMap<usize, Vec<F>>> = vec![BTreeMap::new(); compiled.oracles.len()];
    let points: Vec<F> = indices.iter().map(|&i| ntt::point(log_domain, i)).collect();
    let apart: Vec<F> = points.iter().map(|x| x.exp_power_of_2(log_stride)).collect();
    let beyond = evaluate(&combined.pads, &apart).into_iter().zip(&points).map(|(y, x)| y.scale(x.exp_power_of_2(stack.log_rows)));
    let values = evaluate(&source.g, &points).into_iter().zip(beyond).map(|(x, y)| x + y);
    for ((&i, g), v) in indices.iter().zip(values).zip(evaluate(&line, &apart)) {
        let mut rest = g;
        let mut with_mask = None;
        for (o, layout) in compiled.oracles.iter().enumerate() {
            let at = i & ((1 << layout.log_domain()) - 1);
            let drawn = || match layout.hiding {
                Hiding::None => public.expect("weights that everybody knows").code.row(at),
                _ => coins.elements(layout.leaf().columns),
            };
            let row = rows[o].entry(at).or_insert_with(drawn);
            let weights = &combined.columns[stack.bases[o]..];
            rest -= row[..layout.columns].iter().zip(weights).map(|(&c, w)| w.scale(c)).sum::<K<D>>();
            if layout.has_mask() {
                with_mask = Some((o, at, layout.columns, weights[layout.columns]));
            }
        }
        let (o, at, columns, weight) = with_mask.expect("one oracle has a mask");
        let row = rows[o].get_mut(&at).expect("drawn above");
        let mask = rest * weight.try_inverse().expect("a challenge that is not 0");
        let r: K<D> = Ext(core::array::from_fn(|d| row[columns + D + d]));
        row[columns..columns + D].copy_from_slice(&mask.0);
        row[columns + 2 * D..].copy_from_slice(&(v - e * r).0);
    }

    let (mut roots, mut openings) = (Vec::new(), Vec::new());
    for (o, layout) in compiled.oracles.iter().enumerate() {
        let (root, opening) = match layout.hiding {
            Hiding::None => {
                let weights = public.expect("weights that everybody knows");
                ([0; 32], weights.code.open(&reduced(&indices, layout.log_domain())))
            }
            _ => opened(compiled, o, &rows[o], coins),
        };
        roots.push(root);
        openings.extend(opening);
    }
    let folding = if params.is_clear(stack.log_rows) {
        Vec::new()
    } else {
        let mut prover = Prover::new(challenges);
        prove_folding(params, &mut prover, &source.g, Word::new(&source.g), &combined.z, indices);
        prover.finish()
    };
    Parts { roots, rest: [source.sent, openings, folding].concat() }
}

/// What a simulator makes.
pub struct Simulated {
    pub statement: Statement,
    pub proof: Vec<u8>,
    /// The root of hidden weights.
    pub model: Option<Digest>,
}

/// Makes a statement and an accepted proof of it, where `clear` has the bytes of each clear tensor. `public` is the oracle of weights that
/// everybody knows, where there is one.
pub fn simulate(
    key: &VerifyingKey,
    compiled: &Compiled,
    clear: &[Option<Vec<u8>>],
    public: Option<&Committed>,
    tape: [u8; 32],
    coins: &mut Randomness,
) -> Simulated {
    let tensors = compiled.layout.ports.iter().zip(clear).map(|(&id, clear)| {
        let content = clear.clone().map_or(Content::Committed([0; 32]), Content::Clear);
        StatementTensor::new(&key.program().tensors[id as usize], content)
    });
    let tensors = tensors.collect();
    let mut statement = Statement { digest: key.digest(), context: [0; 32], inputs: key.program().inputs.len(), tensors };
    let known = Known { params: key.parameters(), compiled, public, tape };
    let parts = invent(known, coins, |reader, roots| conversation(reader, key, compiled, &statement, roots));
    let (mut proof, mut model) = (Vec::new(), None);
    for (o, (root, port)) in parts.roots.iter().zip(&compiled.ports).enumerate() {
        if o > 0 && port.is_none() {
            model = (compiled.oracles[o].hiding == Hiding::Kept).then_some(*root);
            continue;
        }
        proof.extend(root);
        if let Some(port) = *port {
            let tensor = &key.program().tensors[compiled.layout.ports[port] as usize];
            statement.tensors[port].content = Content::Committed(tensor_commitment(root, tensor, key.parameters()));
        }
    }
    proof.extend(parts.rest);
    Simulated { statement, proof, model }
}

/// Commitments of hidden weights, the registered one first, and an accepted registration or link of them, whichever `compiled` is of.
pub fn simulate_about_weights(params: &Parameters, compiled: &Compiled, tape: [u8; 32], coins: &mut Randomness) -> (Vec<Digest>, Vec<u8>) {
    let known = Known { params, compiled, public: None, tape };
    let parts = invent(known, coins, |reader, roots| weight_conversation(reader, params, compiled, roots));
    let (own, models) = parts.roots.split_first().expect("a witness");
    (models.to_vec(), [&own[..], &parts.rest].concat())
}
