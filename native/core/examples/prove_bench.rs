//! Proves one exported model several times and prints the median and the least time of each phase, and the latter for each unit of its work.
//!
//! `cargo run --release --example prove_bench -- PROGRAM WEIGHTS [RUNS] [THREADS] [plain|zk]`, where the files hold `Model.program_bytes` and
//! `Model.weights_bytes()`.

/// As in the Python binding.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::collections::BTreeMap;
use std::time::Instant;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::{Program, Weights};
use nexus_edge_core::proof::{ProvingKey, Request, prove, verify};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let runs: usize = args.get(3).map_or(Ok(5), |n| n.parse())?;
    let threads: usize = args.get(4).map_or(Ok(0), |n| n.parse())?;
    let mode = if args.get(5).is_some_and(|m| m == "zk") { Mode::Zk } else { Mode::Plain };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let program = Program::from_bytes(&std::fs::read(&args[1])?)?;
    let weights = Weights::from_bytes(&std::fs::read(&args[2])?)?;
    let key = ProvingKey::new(program, weights, false, 100, mode)?;
    let executor = Executor::new(key.verifying.program().clone(), &key.weights)?;
    let program = key.verifying.program();
    let inputs: Vec<Vec<i16>> = program
        .inputs
        .iter()
        .map(|p| {
            let t = &program.tensors[p.tensor as usize];
            let (low, high) = t.dtype.range();
            (0..t.size()).map(|i| (low + ((i as i32).wrapping_mul(7919) >> 3).rem_euclid(high - low + 1)) as i16).collect()
        })
        .collect();
    let mut phases: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    let (mut whole, mut checks) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..runs {
        let request = Request {
            inputs: inputs.iter().map(Vec::as_slice).collect(),
            context: [0; 32],
            committed: key.verifying.usual_form(),
            seeds: Vec::new(),
        };
        let start = Instant::now();
        let made = prove(&key, &executor, &request, &mut |_, _| true)?;
        whole.push(start.elapsed().as_secs_f64() * 1e3);
        for (i, &(name, ms)) in made.figures.phases.iter().enumerate() {
            phases.entry((i, name)).or_default().push(ms);
        }
        let start = Instant::now();
        verify(&key.verifying, &made.statement, &made.proof)?;
        checks.push(start.elapsed().as_secs_f64() * 1e3);
        last = Some(made);
    }
    let made = last.ok_or("no runs")?;
    let median = |v: &mut Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    let (cells, lookups) = (made.figures.cells as f64, made.figures.lookups as f64);
    println!("cells {cells} lookups {lookups} proof {} bytes, {:.1} bits", made.proof.len(), made.figures.bits);
    println!("prove {:.1} ms, verify {:.2} ms", median(&mut whole), median(&mut checks));
    let weights = program.constants.iter().map(|c| c.dims.iter().map(|&n| n as usize).product::<usize>()).sum::<usize>() as f64;
    for ((_, name), mut ms) in phases {
        let middle = median(&mut ms);
        let (unit, count, model) = match name {
            "commit" => ("cell", cells, "23"),
            "opening" => ("cell", cells, "8-17"),
            "lookups" => ("lookup", lookups, "25-55"),
            "contractions" => ("weight", weights, "1.2 of public ones"),
            _ => ("cell", cells, "-"),
        };
        println!("  {name:14} {middle:8.2} ms, least {:8.2} ms = {:6.1} ns/{unit} (cost model: {model})", ms[0], ms[0] * 1e6 / count);
    }
    Ok(())
}
