//! The CPU features that this build was compiled for.
//!
//! They are a marked string in the module's file, so that the loader (`nexus_edge/proofs/native_loader.py`) can compare them with
//! the processor *before* any code of this file runs: even the module's constructors may use them.

#[used]
static MARKED: &str = concat!("nexus-edge-cpu-features[", env!("NEXUS_EDGE_CPU_FEATURES"), "]");

/// The features by rustc's names, in rustc's order.
pub fn build_features() -> Vec<&'static str> {
    let names = MARKED.split_once('[').map_or("", |(_, rest)| rest.trim_end_matches(']'));
    names.split(',').filter(|name| !name.is_empty()).collect()
}
