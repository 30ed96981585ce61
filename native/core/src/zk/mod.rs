//! What a zero-knowledge proof shows, checked on small instances of the product's own code (design section 8).
//!
//! Each check comes with controls: the same check on a system without one of the parts that hide, where it must fail.

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

mod counts;
mod linear;
mod rank;
mod salts;
mod simulated;
mod simulator;
mod statistics;

use std::sync::Arc;

use crate::channel::{ProofBytes, Reader, Transcript};
use crate::exec::Executor;
use crate::field::P;
use crate::hash::SALT;
use crate::masking::MaskedReader;
use crate::merkle::sibling_count;
use crate::parameters::{Mode, Parameters};
use crate::pcs::{Hiding, distinct, reduced};
use crate::program::check::CheckedProgram;
use crate::program::{Program, Weights};
use crate::proof::{Cheat, Compiled, Lapse, ProvingKey, Secrets, Shown, conversation, prove_forged, verify_lapsed};
use crate::prover::values::Witness;
use crate::prover::witness;
use crate::random::{Randomness, Seed, Weakness};
use crate::reject::Verdict;

/// A small parameter set: 2^8 rows, 9 queries; `clear_log` decides whether the combination of the columns is sent or committed.
fn small_key((program, weights): (CheckedProgram, Weights), inside: bool, clear_log: usize) -> ProvingKey {
    let parameters = Parameters::tiny_in(Mode::Zk, 2, 16, 8, clear_log, 4);
    let seed = program.private.is_some().then(|| Seed::from_bytes([2; 32]));
    ProvingKey::with_parameters(Program::clone(&program), weights, inside, parameters, seed).expect("provable")
}

fn taped(tape: [u8; 32]) -> Lapse {
    Lapse { tape: Some(tape), defect: None }
}

/// A key and what its holder proves.
struct Subject<'a> {
    key: &'a ProvingKey,
    compiled: Arc<Compiled>,
    witness: Witness,
    ports: Vec<Vec<i16>>,
}

impl<'a> Subject<'a> {
    fn new(key: &'a ProvingKey, committed: &[bool], input: &[i16]) -> Self {
        let executor = Executor::new(key.verifying.program().clone(), &key.weights).expect("weights fit");
        let trace = executor.run(&[input], 1, true).expect("defined");
        let compiled = key.verifying.compiled(committed).expect("a layout");
        let witness = witness::fill(&compiled.layout, &key.weights, &trace);
        let ports = compiled.layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
        Subject { key, compiled, witness, ports }
    }

    fn output(&self) -> &[i16] {
        &self.ports[self.ports.len() - 1]
    }

    /// A proof with challenges from `tape` and secrets from `seed`.
    fn proof(&self, tape: [u8; 32], seed: [u8; 32], weakness: Weakness) -> Shown {
        let secrets = Secrets { randomness: Randomness::chosen(seed).weakened(weakness), seeds: Vec::new() };
        let cheat = Cheat { lapse: taped(tape), ..Cheat::default() };
        prove_forged(self.key, &self.compiled, &self.witness, &self.witness, &self.ports, [0; 32], secrets, cheat)
    }

    fn verify(&self, tape: [u8; 32], shown: &Shown) -> Verdict<()> {
        verify_lapsed(&self.key.verifying, &shown.statement, &shown.proof, taped(tape))
    }

    /// Everything in a proof that is not a hash: messages, then the opened rows and their salts; as fractions of what they are below.
    fn coordinates(&self, tape: [u8; 32], shown: &Shown) -> Vec<f64> {
        let (key, c) = (&self.key.verifying, &self.compiled);
        coordinates(tape, key.parameters(), c, &shown.proof, |reader| {
            conversation(reader, key, c, &shown.statement, &vec![[0; 32]; c.oracles.len()]).map(drop)
        })
    }
}

/// [`Subject::coordinates`] of any kind of proof, where `read` reads as far as the combination of the columns. What public weights alone decide is
/// left out: their rows, and coefficients of the combination that the mask does not have.
fn coordinates(
    tape: [u8; 32],
    parameters: &Parameters,
    c: &Compiled,
    proof: &[u8],
    read: impl FnOnce(&mut MaskedReader<ProofBytes<'_>, 2>) -> Verdict<()>,
) -> Vec<f64> {
    let own = c.ports.iter().enumerate().filter(|(k, port)| *k == 0 || port.is_some()).count();
    let rest = &proof[32 * own..];
    let mut reader = MaskedReader::<_, 2>::new(ProofBytes::new(Transcript::new().taped(Some(tape)), rest));
    read(&mut reader).expect("a proof");
    reader.settle(parameters.pads()).expect("a proof");
    let indices = distinct(reader.indices("row indices", parameters.row_queries(), c.stack.log_domain()));
    let rows: Vec<Vec<usize>> = c.oracles.iter().map(|o| reduced(&indices, o.log_domain())).collect();
    let size = |o: usize| rows[o].len() * c.oracles[o].leaf().opened();
    let siblings = |o: usize| 32 * sibling_count(&rows[o], c.oracles[o].log_domain());
    let openings: usize = (0..c.oracles.len()).map(|o| size(o) + siblings(o)).sum();
    assert!(parameters.is_clear(c.stack.log_rows), "nothing follows the rows");
    let (messages, mut opened) = rest.split_at(rest.len() - openings);
    // Behind the combination: the line's constants and its point.
    let element = 8 * parameters.degree();
    let end = messages.len() - element * (2 + reader.counts().0 + 1 + parameters.pads());
    let (before, after) = messages.split_at(end);
    let (before, combination) = before.split_at(end - (element << c.stack.log_rows));
    let masked = combination.chunks_exact(element).step_by(1 << c.stack.log_mask_stride()).flatten().copied();
    let messages: Vec<u8> = before.iter().copied().chain(masked).chain(after.iter().copied()).collect();
    let words = |bytes: &[u8], below: f64| -> Vec<f64> {
        bytes.as_chunks::<8>().0.iter().map(|&word| u64::from_le_bytes(word) as f64 / below).collect()
    };
    let mut out = words(&messages, P as f64);
    for o in 0..c.oracles.len() {
        if c.oracles[o].hiding == Hiding::None {
            opened = &opened[size(o) + siblings(o)..];
            continue;
        }
        for row in opened[..size(o)].chunks_exact(c.oracles[o].leaf().opened()) {
            let (cells, salt) = row.split_at(row.len() - SALT);
            out.extend(words(cells, P as f64));
            out.extend(words(salt, 2f64.powi(64)));
        }
        opened = &opened[size(o) + siblings(o)..];
    }
    assert!(opened.is_empty() && out.iter().all(|x| (0.0..=1.0).contains(x)));
    out
}
