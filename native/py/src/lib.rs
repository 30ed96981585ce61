//! `nexus_edge.proofs._native`: glue only.

mod arrays;
mod errors;
mod features;
mod program;
mod proofs;
mod secrets;
mod tensors;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("protocol", String::from_utf8_lossy(nexus_edge_core::proof::VERSION))?;
    m.add("build_features", features::build_features())?;
    errors::register(m)?;
    program::register(m)?;
    secrets::register(m)?;
    tensors::register(m)?;
    proofs::register(m)
}
