//! Commitments to tensors by themselves: they depend on values, description, parameter set and seed, and on no model.

use nexus_edge_core::field::{F, from_i64};
use nexus_edge_core::parameters::{Mode, Parameters};
use nexus_edge_core::pcs::OracleLayout;
use nexus_edge_core::program::{DType, Tensor};
use nexus_edge_core::proof::{Compiled, tensor_commitment};
use nexus_edge_core::random;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::secrets::Seed;
use crate::{arrays, errors};

/// dtype, dimensions, scale, zero point.
type Description = (String, Vec<u32>, Option<f32>, i32);

/// The most dimensions of a program's tensor.
const MAX_RANK: usize = 6;

/// The mode of that name.
pub fn mode(name: &str) -> PyResult<Mode> {
    let found = [Mode::Plain, Mode::Zk].into_iter().find(|&m| word(m) == name);
    found.ok_or_else(|| errors::input("mode", format!("no mode {name:?}: use \"zk\" or \"plain\"")))
}

/// The name of a mode.
pub fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "plain",
        Mode::Zk => "zk",
    }
}

fn parameters(security: u32, mode: Mode) -> PyResult<Parameters> {
    Parameters::new(security, mode).ok_or_else(|| errors::input("security", format!("no parameter set of {security} bits: use 100 or 128")))
}

fn tensor((dtype, dims, scale, zero_point): Description) -> PyResult<Tensor> {
    let found = [DType::Int8, DType::UInt8].into_iter().find(|&d| arrays::word(d) == dtype);
    let dtype = found.ok_or_else(|| errors::input("dtype", format!("{dtype:?} is neither int8 nor uint8")))?;
    let cells = dims.iter().try_fold(1u32, |n, &d| n.checked_mul(d));
    if !(1..=MAX_RANK).contains(&dims.len()) || cells.is_none_or(|n| n == 0) {
        return Err(errors::input("shape", format!("no tensor has dimensions {dims:?}")));
    }
    Ok(Tensor { name: "tensor".into(), dtype, dims, scale: scale.map(f32::to_bits), zero_point })
}

/// The 32-byte commitment to an array.
#[pyfunction]
#[pyo3(signature = (description, array, security, mode, seed = None))]
fn commit_tensor<'py>(
    py: Python<'py>,
    description: Description,
    array: &Bound<'py, PyAny>,
    security: u32,
    mode: &str,
    seed: Option<&Seed>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (tensor, mode) = (tensor(description)?, self::mode(mode)?);
    let parameters = parameters(security, mode)?;
    // Of no meaning in plain mode.
    let unused = random::Seed::from_bytes([0; 32]);
    let seed = match (seed, mode) {
        (Some(seed), Mode::Zk) => &seed.inner,
        (None, Mode::Plain) => &unused,
        (_, Mode::Zk) => return Err(errors::input("seed", "a hiding commitment is a function of a seed")),
        (_, Mode::Plain) => return Err(errors::input("seed", "a plain commitment has no seed")),
    };
    let values: Vec<F> = arrays::tensor(array, &tensor)?.into_iter().map(|x| from_i64(i64::from(x))).collect();
    let root = py.detach(|| Compiled::commit_tensor(&parameters, &tensor, &values, seed).root);
    Ok(PyBytes::new(py, &tensor_commitment(&root, &tensor, &parameters)))
}

/// Rows of the hiding commitment to a tensor.
#[pyfunction]
fn tensor_rows<'py>(py: Python<'py>, description: Description, security: u32) -> PyResult<Bound<'py, PyDict>> {
    let parameters = parameters(security, Mode::Zk)?;
    rows(py, &Compiled::tensor_layout(&parameters, &tensor(description)?), &parameters)
}

/// Rows of a hiding commitment.
pub fn rows<'py>(py: Python<'py>, layout: &OracleLayout, parameters: &Parameters) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    d.set_item("log_domain", layout.log_domain())?;
    d.set_item("budget", layout.budget())?;
    d.set_item("per_proof", parameters.row_queries())?;
    Ok(d)
}

/// Adds the functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(commit_tensor, m)?)?;
    m.add_function(wrap_pyfunction!(tensor_rows, m)?)
}
