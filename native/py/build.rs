//! Hands the CPU features of this build to `features.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    println!("cargo:rustc-env=NEXUS_EDGE_CPU_FEATURES={features}");
}
