//! Makes one proof of an exported model and verifies it many times: `verify_bench PROGRAM WEIGHTS [RUNS] [plain|zk]`, files as for `prove_bench`.

use std::time::Instant;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::{Program, Weights};
use nexus_edge_core::proof::{ProvingKey, Request, prove, verify};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let runs: usize = args.get(3).map_or(Ok(50), |n| n.parse())?;
    let mode = if args.get(4).is_some_and(|m| m == "zk") { Mode::Zk } else { Mode::Plain };
    let program = Program::from_bytes(&std::fs::read(&args[1])?)?;
    let key = ProvingKey::new(program, Weights::from_bytes(&std::fs::read(&args[2])?)?, false, 100, mode)?;
    let executor = Executor::new(key.verifying.program().clone(), &key.weights)?;
    let inputs: Vec<Vec<i16>> = {
        let p = key.verifying.program();
        p.inputs.iter().map(|port| vec![1; p.tensors[port.tensor as usize].size()]).collect()
    };
    let request = Request {
        inputs: inputs.iter().map(Vec::as_slice).collect(),
        context: [0; 32],
        committed: key.verifying.usual_form(),
        seeds: Vec::new(),
    };
    let made = prove(&key, &executor, &request, &mut |_, _| true)?;
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            verify(&key.verifying, &made.statement, &made.proof).map(|()| start.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<Result<_, _>>()?;
    times.sort_by(f64::total_cmp);
    println!("verify: least {:.2} ms, median {:.2} ms over {runs} runs, proof {} bytes", times[0], times[runs / 2], made.proof.len());
    Ok(())
}
