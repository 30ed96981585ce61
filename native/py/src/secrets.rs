//! Secret seeds: they stay in memory that is overwritten, and leave it only by `expose`.

use nexus_edge_core::random;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;

/// 32 secret bytes, from which the random cells and the salts of one commitment follow.
#[pyclass(module = "nexus_edge.proofs._native", frozen)]
pub struct Seed {
    /// Overwritten when dropped.
    pub inner: random::Seed,
}

#[pymethods]
impl Seed {
    #[staticmethod]
    fn fresh() -> PyResult<Seed> {
        let inner = random::Seed::fresh().map_err(|e| errors::proving(e.into()))?;
        Ok(Seed { inner })
    }

    #[staticmethod]
    fn load(data: &[u8]) -> PyResult<Seed> {
        let bytes = data.try_into().map_err(|_| errors::input("shape", format!("a seed has 32 bytes, got {}", data.len())))?;
        Ok(Seed { inner: random::Seed::from_bytes(bytes) })
    }

    fn expose<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.expose())
    }

    fn __repr__(&self) -> &'static str {
        "Seed(secret)"
    }
}

/// Adds the class to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Seed>()
}
