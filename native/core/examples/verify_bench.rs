//! Makes one proof of an exported model and verifies it many times, in this process and each time in a fresh one:
//! `verify_bench PROGRAM WEIGHTS [RUNS]`, files as for `prove_bench`, or `verify_bench make PROGRAM WEIGHTS DIRECTORY` once and then
//! `verify_bench DIRECTORY [RUNS]`. A last argument `zk` makes a zero-knowledge proof.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::{Program, Weights};
use nexus_edge_core::proof::{ProvingKey, Request, Statement, VerifyingKey, prove, verify};

/// The allocator of the binding.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Proves, and leaves key, statement and proof in `to`.
fn make(program: &str, weights: &str, to: &Path, mode: Mode) -> Outcome<()> {
    let program = Program::from_bytes(&std::fs::read(program)?)?;
    let key = ProvingKey::new(program, Weights::from_bytes(&std::fs::read(weights)?)?, false, 100, mode)?;
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
    std::fs::create_dir_all(to)?;
    std::fs::write(to.join("key"), key.verifying.to_bytes())?;
    std::fs::write(to.join("statement"), made.statement.to_bytes())?;
    std::fs::write(to.join("proof"), &made.proof)?;
    Ok(())
}

/// Times of loading the key and of `runs` verifications in this process, in milliseconds.
fn check(from: &Path, runs: usize) -> Outcome<(f64, Vec<f64>)> {
    let (key, proof) = (std::fs::read(from.join("key"))?, std::fs::read(from.join("proof"))?);
    let statement = Statement::from_bytes(&std::fs::read(from.join("statement"))?)?;
    let since = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let key = VerifyingKey::from_bytes(&key)?;
    let loaded = since(start);
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        verify(&key, &statement, &proof)?;
        times.push(since(start));
    }
    Ok((loaded, times))
}

fn report(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("{what}: least {:.2} ms, median {:.2} ms of {}", times[0], times[times.len() / 2], times.len());
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mode = if args.last() == Some(&"zk") { Mode::Zk } else { Mode::Plain };
    args.truncate(args.len() - usize::from(mode == Mode::Zk));
    let temporary = std::env::temp_dir().join(format!("verify-bench-{}", std::process::id()));
    let (from, runs) = match args[..] {
        // What a fresh process is asked for.
        ["once", from] => {
            let (loaded, times) = check(Path::new(from), 1)?;
            println!("{loaded} {}", times[0]);
            return Ok(());
        }
        ["make", program, weights, to] => return make(program, weights, Path::new(to), mode),
        // For a profiler.
        ["warm", from, runs] => {
            report("verify, same process", check(Path::new(from), runs.parse()?)?.1);
            return Ok(());
        }
        [from, ref rest @ ..] if Path::new(from).is_dir() => (Path::new(from), rest.first()),
        [program, weights, ref rest @ ..] => {
            make(program, weights, &temporary, mode)?;
            (&*temporary, rest.first())
        }
        _ => return Err("usage: verify_bench PROGRAM WEIGHTS [RUNS] | DIRECTORY [RUNS]".into()),
    };
    let runs: usize = runs.map_or(Ok(20), |n| n.parse())?;
    let (mut keys, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let output = Command::new(std::env::current_exe()?).arg("once").arg(from).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (key, verify) = text.trim().split_once(' ').ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        keys.push(key.parse()?);
        cold.push(verify.parse()?);
    }
    report("key, fresh process", keys);
    report("verify, fresh process", cold);
    report("verify, same process", check(from, runs)?.1);
    println!("proof {} bytes, key {} bytes", std::fs::metadata(from.join("proof"))?.len(), std::fs::metadata(from.join("key"))?.len());
    if from == temporary {
        std::fs::remove_dir_all(from)?;
    }
    Ok(())
}
