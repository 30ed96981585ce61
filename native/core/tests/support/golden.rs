//! What the golden files are made from. `examples/make_golden.rs` writes them, `tests/golden.rs` reads and compares them.
#![allow(dead_code)] // each binary uses a part

use nexus_edge_core::exec::Executor;
use nexus_edge_core::field::from_i64;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{Op, Program, Weights};
use nexus_edge_core::proof::{Cheat, Figures, ProvingKey, Secrets, link_from, prove_forged, prove_witness, register_from};
use nexus_edge_core::prover::witness;
use nexus_edge_core::random::{Randomness, Seed};

use crate::support::{self, Random};

const CONTEXT: [u8; 32] = *b"the context of the golden proofs";

/// A key, a proof of it, and a forged proof.
pub struct Golden {
    pub name: &'static str,
    pub key: Vec<u8>,
    pub statement: Vec<u8>,
    pub proof: Vec<u8>,
    /// Statement and proof of a prover who claims an output that is off by one.
    pub forged: (Vec<u8>, Vec<u8>),
}

impl Golden {
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("key.bin", self.key.clone()),
            ("statement.bin", self.statement.clone()),
            ("proof.bin", self.proof.clone()),
            ("forged-statement.bin", self.forged.0.clone()),
            ("forged-proof.bin", self.forged.1.clone()),
        ]
    }
}

fn make(name: &'static str, (program, weights): (CheckedProgram, Weights), inside: bool, committed: Vec<bool>, mode: Mode) -> Golden {
    let key = ProvingKey::new(Program::clone(&program), weights.clone(), inside, 100, mode).expect("provable");
    let executor = Executor::new(key.verifying.program().clone(), &weights).expect("weights fit");
    let x = Random(1).int8(program.tensors[program.inputs[0].tensor as usize].size());
    let compiled = key.verifying.compiled(&committed).expect("a layout");
    let mut trace = executor.run(&[&x], 1, true).expect("defined");
    let output = program.outputs[0].tensor as usize;
    let at = trace.tensors[output].iter().position(|&y| (-127..126).contains(&y)).expect("an output inside the clamp");
    let mut cells = witness::fill(&compiled.layout, &weights, &trace);
    let mut ports: Vec<Vec<i16>> = compiled.layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
    // A golden zero-knowledge proof can be made again: its randomness is public, and it hides nothing.
    let secrets = || Secrets { randomness: Randomness::chosen([1; 32]), seeds: Vec::new() };
    let (mut go_on, mut figures) = (|_: &'static str, _: f64| true, Figures::default());
    let made = prove_witness(&key, &compiled, &cells, &cells, &ports, CONTEXT, secrets(), &mut go_on, &mut figures).expect("honest");
    trace.tensors[output][at] += 1;
    let piece = compiled.layout.views[output].pieces.iter().find(|p| p.tensor_channels.iter().any(|c| c == at)).expect("the cell's piece");
    let channel = piece.tensor_channels.iter().position(|c| c == at).expect("the cell's channel");
    cells.storages[piece.storage][channel] += from_i64(1);
    witness::count(&compiled.layout, &mut cells);
    ports = compiled.layout.ports.iter().map(|&t| trace.tensors[t as usize].clone()).collect();
    let forged = prove_forged(&key, &compiled, &cells, &cells, &ports, CONTEXT, secrets(), Cheat::default());
    Golden {
        name,
        key: key.verifying.to_bytes(),
        statement: made.statement.to_bytes(),
        proof: made.proof,
        forged: (forged.statement.to_bytes(), forged.proof),
    }
}

/// Weights inside, everything clear: the smallest proof.
pub fn dense() -> Golden {
    make("dense", support::dense_with(1, 20, 7, 9), true, vec![false, false], Mode::Plain)
}

/// Two models, each in both modes: weights inside and everything clear, weights and input committed.
pub fn all() -> [Golden; 4] {
    [
        dense(),
        make("everything", support::everything(3, 10), false, vec![true, false], Mode::Plain),
        make("dense-zk", support::dense_with(1, 20, 7, 9), true, vec![false, false], Mode::Zk),
        make("everything-zk", support::everything(3, 10), false, vec![true, false], Mode::Zk),
    ]
}

/// A private model: its key and registration, the key of another commitment, and the link between the two.
pub fn private() -> Vec<(&'static str, Vec<u8>)> {
    let (program, weights) = support::nets::private_layer(false, 1);
    let seed = |k: u8| Seed::from_bytes([k; 32]);
    let owner = ProvingKey::with_seed(Program::clone(&program), weights, false, 100, Mode::Zk, Some(seed(2))).expect("provable");
    let other = owner.committed_again(seed(3)).expect("private");
    let registration = register_from(&owner, Randomness::chosen([4; 32]), &mut |_, _| true).expect("honest");
    let link = link_from(&owner, &[&other], Randomness::chosen([5; 32]), &mut |_, _| true).expect("one model");
    vec![
        ("key.bin", owner.verifying.to_bytes()),
        ("registration.bin", registration.proof),
        ("linked-key.bin", other.verifying.to_bytes()),
        ("link.bin", link.proof),
    ]
}

/// Keys of tiny programs, one for each kind of operator, and hostile ones, as bytes.
pub fn small_keys() -> Vec<(&'static str, Vec<u8>)> {
    let encode = |program: &Program, weights: &Weights| {
        let mut out = b"NXEvkey5".to_vec();
        out.extend(100u32.to_le_bytes());
        out.extend([Mode::Plain as u8, 0]);
        for part in [weights.to_bytes(), program.to_bytes()] {
            out.extend((part.len() as u64).to_le_bytes());
            out.extend(part);
        }
        out
    };
    let nets: [(&str, fn() -> (CheckedProgram, Weights)); 7] = [
        ("convolution", support::nets::convolution),
        ("two-offsets", support::nets::two_offsets),
        ("max-pool", support::nets::max_pool),
        ("average-pool", support::nets::average_pool),
        ("softmax", || support::nets::softmax(2, 4)),
        ("views", support::nets::views),
        ("uint8", support::uint8_head),
    ];
    let mut out: Vec<(&str, Vec<u8>)> = nets
        .into_iter()
        .map(|(name, net)| {
            let (program, weights) = net();
            (name, encode(&program, &weights))
        })
        .collect();
    // Clamp rows that start above the clamp: everything would be clamped.
    let (program, weights) = support::dense_slow(1, 4, 2);
    let mut hostile = Program::clone(&program);
    hostile.clamp_rows = (-100, 8);
    out.push(("clamp-rows", encode(&hostile, &weights)));
    // A pool whose taps alone would take gigabytes.
    let (program, weights) = support::nets::max_pool();
    let mut hostile = Program::clone(&program);
    hostile.range_bits = 20;
    for t in &mut hostile.tensors {
        t.dims = vec![1, 1024, 1024, 1];
    }
    hostile.tensors[1].dims = vec![1, 1, 1, 1];
    if let Op::MaxPool { window, .. } = &mut hostile.ops[0] {
        *window = support::window((1024, 1024), (1, 1), (1024, 1024), (1, 1), (0, 0));
    }
    out.push(("million-taps", encode(&hostile, &weights)));
    out
}
