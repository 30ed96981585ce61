//! Processor time of commitment and opening of a witness, a model and an input oracle, by phase, in nanoseconds per cell.
//!
//! `cargo run --release --example pcs_bench -- [THREADS] [RUNS]`. Processor time, summed over threads, is what a busy machine does not spoil;
//! where the system does not tell it, wall time is shown. Shapes resemble feature maps: five functionals on each witness storage, of
//! which two share a side.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use nexus_edge_core::channel::{PlainReader, Prover, Transcript};
use nexus_edge_core::field::{F, K, from_i64};
use nexus_edge_core::parameters::{Mode, Parameters};
use nexus_edge_core::pcs::{
    Claim, Committed, Functional, Hiding, OracleLayout, Role, Secret, Stack, combine, commit, query, verify_combination, verify_queries,
};
use nexus_edge_core::side::Side;
use nexus_edge_core::soundness::{Soundness, opening_terms};

const D: usize = 2;

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let threads = args.first().copied().unwrap_or(1);
    let runs = args.get(1).copied().unwrap_or(3);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("first use");
    println!("{threads} threads, median of {runs}");
    let resnet8 =
        vec![(1024, 16); 8].into_iter().chain(vec![(256, 32); 8]).chain(vec![(64, 64); 8]).chain([(256, 256)]).collect::<Vec<_>>();
    run("ResNet-8 like", runs, resnet8, vec![(144, 16), (144, 32), (288, 64), (576, 64), (64, 10)], (1024, 3));
    let million = vec![(3136, 96), (3136, 96), (784, 144), (784, 144), (196, 384), (196, 384), (512, 128)];
    run("2^20 cells", runs, million, vec![(160, 960), (320, 1280)], (50176, 3));
    let mut large = vec![(12544, 32), (12544, 32), (12544, 96), (12544, 96), (3136, 96), (3136, 24), (3136, 144), (3136, 144), (1024, 512)];
    large.extend(vec![(3136, 144); 6].into_iter().chain(vec![(784, 192); 12]).chain(vec![(196, 384); 24]).chain(vec![(196, 576); 12]));
    large.extend(vec![(49, 960); 12].into_iter().chain(vec![(12544, 96); 3]));
    let weights = vec![(960, 160), (160, 960), (320, 1280), (1280, 1001), (960, 320), (576, 96), (96, 576), (384, 64), (64, 384)];
    run("MobileNetV2 like", runs, large, weights, (50176, 3));
}

/// Processor time of all threads since a moment, or wall time.
struct Clock(Option<f64>, Instant);

impl Clock {
    fn now() -> Clock {
        Clock(Self::processor(), Instant::now())
    }

    fn elapsed(&self) -> f64 {
        match (Self::processor(), self.0) {
            (Some(now), Some(then)) => now - then,
            _ => self.1.elapsed().as_secs_f64(),
        }
    }

    fn processor() -> Option<f64> {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?;
        let nanoseconds = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        tasks.map(nanoseconds).sum::<Option<f64>>().map(|n| n * 1e-9)
    }
}

fn run(name: &str, runs: usize, witness: Vec<(usize, usize)>, model: Vec<(usize, usize)>, input: (usize, usize)) {
    let params = Parameters::new(100, Mode::Plain).expect("a set");
    let shapes = [(Role::Witness, witness), (Role::Model, model), (Role::Tensor, vec![input])];
    let layouts: Vec<_> = shapes.iter().map(|(role, s)| Arc::new(OracleLayout::new(&params, *role, 0, s.clone(), Hiding::None))).collect();
    let stack = Stack::new(layouts.clone());
    let small = |i: usize| from_i64(((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) & 255) as i64 - 128);
    let values: Vec<Vec<Vec<F>>> = shapes.iter().map(|(_, s)| s.iter().map(|(p, c)| (0..p * c).map(small).collect()).collect()).collect();
    let cells: usize = shapes.iter().flat_map(|(_, s)| s).map(|(p, c)| p * c).sum();
    println!("\n{name}: {cells} cells, L_max 2^{}", stack.log_rows);
    for l in &layouts {
        println!("  {:8} 2^{} x {}", l.role.name(), l.log_rows, l.columns);
    }
    let claims: Vec<Vec<Functional<D>>> = functionals(&stack);
    let mut times: Vec<[f64; 6]> = Vec::new();
    let mut size = 0;
    for _ in 0..runs {
        let start = Clock::now();
        let committed: Vec<Committed> = layouts
            .iter()
            .zip(&values)
            .map(|(layout, v)| commit(&params, layout.clone(), &v.iter().map(Vec::as_slice).collect::<Vec<_>>(), Secret::None))
            .collect();
        let commit_time = start.elapsed();
        let oracles: Vec<&Committed> = committed.iter().collect();
        let functionals = claims.clone();
        let mut prover = Prover::default();
        let start = Clock::now();
        // Progress marks phases: 0.3 after the contraction over positions, 0.7 after the sumcheck, 0.9 after g is committed.
        let mut marks = Vec::new();
        let flow = combine(&params, &mut prover, &stack, &oracles, &functionals, &mut |done| {
            marks.push((done, start.elapsed()));
            ControlFlow::Continue(())
        });
        let ControlFlow::Continue(combination) = flow else { panic!("nobody stops it") };
        query(&params, &mut prover, &stack, &oracles, combination);
        marks.push((1.0, start.elapsed()));
        let at = |x: f64| marks.iter().rev().find(|m| m.0 <= x + 1e-9).map_or(0.0, |m| m.1);
        let proof = prover.finish();
        size = proof.len();
        let roots: Vec<_> = committed.iter().map(|c| c.root).collect();
        let claims: Vec<_> = claims.iter().map(|f| Claim { functionals: f.clone(), value: value(&values, f) }).collect();
        const CHECKS: usize = 10;
        let claims: Vec<_> = (0..CHECKS).map(|_| claims.clone()).collect();
        let start = Clock::now();
        for claims in claims {
            let mut reader = PlainReader::new(Transcript::new(), &proof);
            let combined = verify_combination(&params, &mut reader, &stack, &roots, &claims).expect("an honest proof");
            verify_queries(&params, &mut reader, &stack, &roots, combined, None).expect("an honest proof");
            reader.finish().expect("nothing left");
        }
        let verify_time = start.elapsed() / CHECKS as f64;
        times.push([commit_time, at(0.3), at(0.7) - at(0.3), at(0.9) - at(0.7), at(1.0) - at(0.9), verify_time]);
    }
    let names = ["commit", "open: positions", "open: rounds", "open: columns, g", "open: rows, WHIR", "verify"];
    for (i, name) in names.iter().enumerate() {
        let mut t: Vec<f64> = times.iter().map(|t| t[i]).collect();
        t.sort_by(f64::total_cmp);
        let t = t[t.len() / 2];
        println!("  {name:18} {:9.2} ms {:7.2} ns/cell", t * 1e3, t * 1e9 / cells as f64);
    }
    println!("  {size} bytes, {:.1} bits", Soundness::new(opening_terms(&params, &stack, claims.len())).bits);
}

fn point(bits: usize, seed: u64) -> Vec<K<D>> {
    let mut t = Transcript::new();
    t.absorb("seed", &seed.to_le_bytes());
    t.challenge("point", bits)
}

/// One claim with all functionals: three over positions with different channel vectors, one of them twice, and one full.
fn functionals(stack: &Stack) -> Vec<Vec<Functional<D>>> {
    let mut out = Vec::new();
    for (oracle, layout) in stack.layouts.iter().enumerate() {
        for (storage, &(positions, channels)) in layout.shapes.iter().enumerate() {
            let side = |n: usize, seed: u64| Side::eq(n, &point(n.next_power_of_two().trailing_zeros() as usize, seed));
            let seed = 100 * storage as u64;
            for (u, v) in [(0, 1), (0, 2), (3, 4), (5, 6), (7, 4)] {
                out.push(Functional { oracle, storage, u: side(positions, seed + u), v: side(channels, seed + v) });
            }
        }
    }
    vec![out]
}

fn value(values: &[Vec<Vec<F>>], functionals: &[Functional<D>]) -> K<D> {
    functionals
        .iter()
        .map(|f| {
            let cells = &values[f.oracle][f.storage];
            let (u, v) = (f.u.to_vec(), f.v.to_vec());
            let row = |row: &[F]| row.iter().zip(&v).map(|(&c, v)| v.scale(c)).sum::<K<D>>();
            cells.chunks_exact(v.len()).zip(&u).map(|(cells, &u)| row(cells) * u).sum::<K<D>>()
        })
        .sum()
}
