//! Hunts for random networks whose honest proof fails or whose forged one passes: `cargo run --release -p nexus-edge-core --example hunt --
//! FIRST COUNT`, from `native/`. Prints the seeds that fail; `tests/attacks/networks.rs` runs a few on every change.

#[path = "../tests/attacks/forge.rs"]
#[allow(dead_code)] // the attacks use the rest
mod forge;
#[path = "../tests/attacks/ideal.rs"]
#[allow(dead_code)]
mod ideal;
#[path = "../tests/attacks/networks.rs"]
mod networks;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|a| a.parse()).collect();
    let Ok([first, count]) = numbers.as_deref() else {
        eprintln!("usage: hunt FIRST COUNT");
        return ExitCode::from(2);
    };
    let (mut networks, mut failed) = (0, 0);
    for seed in *first..first.saturating_add(*count) {
        match std::panic::catch_unwind(|| networks::check(seed)) {
            Ok(alive) => networks += u64::from(alive),
            Err(_) => {
                failed += 1;
                println!("seed {seed} failed");
            }
        }
    }
    println!("{networks} networks of {count} seeds held, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
