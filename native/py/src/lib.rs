//! `nexus_edge.proofs._native`: glue only.

mod arrays;
mod errors;
mod program;

use pyo3::prelude::*;

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(m)?;
    program::register(m)
}
