//! scratch
use nexus_edge_core::program::builder::ProgramBuilder;
use nexus_edge_core::program::{DType, Edge, Program, Semantics};
use nexus_edge_core::program::check::load;
use crate::forge::Victim;
use crate::support::{self, Random, window};
use nexus_edge_core::proof::{ProvingKey, Request, prove, verify};

fn honest(program: nexus_edge_core::program::check::CheckedProgram, weights: nexus_edge_core::program::Weights, x: &[i16]) -> Result<(), String> {
    let victim = Victim::new((program, weights), true);
    let request = Request { inputs: vec![x], context: [0; 32], committed: vec![true, false] };
    let made = prove(&victim.key, &victim.executor, &request, &mut |_, _| true).map_err(|e| e.to_string())?;
    verify(&victim.key.verifying, &made.statement, &made.proof).map_err(|e| e.to_string())
}

#[test]
fn uint8_softmax() {
    let mut b = ProgramBuilder::new("u", Semantics::Tflite214);
    let x = b.tensor("x", DType::UInt8, &[1, 8], Some(0.1), 100).unwrap();
    let y = b.tensor("y", DType::UInt8, &[1, 8], Some(1.0 / 256.0), 0).unwrap();
    b.input(x, Edge::Integer).unwrap();
    b.softmax("s", x, y, 1546188227, 24);
    b.output(y, Edge::Integer).unwrap();
    let (p, w) = b.finish(None).unwrap();
    println!("{:?}", p.clamp_rows);
    assert_eq!(honest(p, w, &[0, 1, 2, 3, 4, 100, 101, 102]), Ok(()));
}

#[test]
fn max_pool_clamp_alone() {
    let mut b = ProgramBuilder::new("u", Semantics::Tflm);
    let x = b.tensor("x", DType::Int8, &[1, 4, 4, 2], Some(0.1), -10).unwrap();
    let y = b.tensor("y", DType::Int8, &[1, 2, 2, 2], Some(0.1), -10).unwrap();
    b.input(x, Edge::Integer).unwrap();
    b.max_pool("s", x, y, window((4, 4), (2, 2), (2, 2), (2, 2), (0, 0)), (-10, 100)).unwrap();
    b.output(y, Edge::Integer).unwrap();
    let (p, w) = b.finish(None).unwrap();
    println!("{:?} {}", p.clamp_rows, p.range_bits);
    assert_eq!(honest(p, w, &Random(1).int8(32)), Ok(()));
}

#[test]
fn pool_ties_small_range() {
    let mut b = ProgramBuilder::new("u", Semantics::Tflm);
    let x = b.tensor("x", DType::Int8, &[1, 8, 8, 2], Some(0.1), -10).unwrap();
    let y = b.tensor("y", DType::Int8, &[1, 1, 1, 2], Some(0.1), -10).unwrap();
    b.input(x, Edge::Integer).unwrap();
    b.max_pool("s", x, y, window((8, 8), (1, 1), (8, 8), (1, 1), (0, 0)), (-128, 127)).unwrap();
    b.output(y, Edge::Integer).unwrap();
    let (p, w) = b.finish(None).unwrap();
    println!("{:?} {}", p.clamp_rows, p.range_bits);
    assert_eq!(honest(p, w, &[5; 128]), Ok(()));
}

#[test]
fn clamp_rows_do_not_cover_the_clamp() {
    let (p, w) = support::dense_with(1, 20, 7, 16);
    let mut q = Program::clone(&p);
    println!("{:?}", q.clamp_rows);
    // reachable values
    if let nexus_edge_core::program::Op::Rescale(r) = &q.ops[1] {
        for rule in &r.rules {
            if let nexus_edge_core::program::Rule::Line { low, high, line } = rule {
                println!("{} {}", line.value(*low, 3), line.value(*high, 3));
            }
        }
    }
    q.clamp_rows = (-100, 8);
    println!("{:?}", load(q, Some(&w)).err());
}

#[test]
fn statement_with_more_inputs_than_tensors() {
    let victim = Victim::new(support::dense(1, 20, 7), true);
    let x = Random(3).int8(20);
    let (mut s, proof) = victim.forge(&[&x]).proof();
    s.inputs = 9;
    println!("{:?}", verify(&victim.key.verifying, &s, &proof));
}

#[test]
fn many_taps() {
    for side in [64u32, 128, 256] {
        let mut b = ProgramBuilder::new("u", Semantics::Tflm);
        let x = b.tensor("x", DType::Int8, &[1, side, side, 1], Some(0.1), -10).unwrap();
        let y = b.tensor("y", DType::Int8, &[1, 1, 1, 1], Some(0.1), -10).unwrap();
        b.input(x, Edge::Integer).unwrap();
        b.max_pool("s", x, y, window((side, side), (1, 1), (side, side), (1, 1), (0, 0)), (-128, 127)).unwrap();
        b.output(y, Edge::Integer).unwrap();
        let (p, w) = b.finish(Some(10)).unwrap();
        let t = std::time::Instant::now();
        let k = ProvingKey::new(Program::clone(&p), w, true, 100);
        println!("{side} {:?} key bytes {}", t.elapsed(), k.map(|k| k.verifying.to_bytes().len()).unwrap_or(0));
        println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap());
    }
}
