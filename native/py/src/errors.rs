//! The exceptions, and the one crossing of core errors into Python.

use nexus_edge_core::exec::ExecError;
use nexus_edge_core::program::error::ProgramError as CoreProgramError;
use nexus_edge_core::proof::{KeyError, ProveError};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(nexus_edge.proofs._native, NativeError, PyException, "Base of the errors below; `kind` is a stable word for programs.");
create_exception!(nexus_edge.proofs._native, ProgramError, NativeError, "The program cannot be checked, built or run.");
create_exception!(nexus_edge.proofs._native, InputError, NativeError, "An array does not fit, or the model is undefined for its values.");
create_exception!(nexus_edge.proofs._native, Rejected, NativeError, "The proof is not accepted.");
create_exception!(nexus_edge.proofs._native, ProverError, NativeError, "There is no proof, although program and input are good.");
create_exception!(nexus_edge.proofs._native, Cancelled, NativeError, "The progress callback asked to stop.");

/// The exception with its `kind`.
pub fn with_kind(error: PyErr, kind: &str) -> PyErr {
    with(error, "kind", kind)
}

fn with(error: PyErr, attribute: &str, value: &str) -> PyErr {
    Python::attach(|py| match error.value(py).setattr(attribute, value) {
        Ok(()) => error,
        Err(other) => other,
    })
}

/// A fault of a program.
pub fn program(e: CoreProgramError) -> PyErr {
    with(with_kind(ProgramError::new_err(e.to_string()), e.fault.word()), "place", &e.place)
}

/// A fault of an input.
pub fn input(kind: &str, message: impl Into<String>) -> PyErr {
    with_kind(InputError::new_err(message.into()), kind)
}

/// A prover that failed.
pub fn proving(e: ProveError) -> PyErr {
    let failed = |kind, e: &ProveError| with_kind(ProverError::new_err(e.to_string()), kind);
    match e {
        ProveError::Execution(e) => execution(e),
        ProveError::Key(e) => key(e),
        ProveError::Stopped => with_kind(Cancelled::new_err(e.to_string()), "cancelled"),
        ProveError::Entropy(_) => failed("entropy", &e),
        ProveError::SelfCheck(_) => failed("self-check", &e),
        ProveError::Uncovered => failed("uncovered", &e),
        _ => failed("prover", &e),
    }
}

/// A key that cannot be made or read.
pub fn key(e: KeyError) -> PyErr {
    match e {
        KeyError::Program(e) => program(e),
        KeyError::Entropy(_) => with_kind(ProverError::new_err(e.to_string()), "entropy"),
        KeyError::Malformed(_) => with_kind(ProgramError::new_err(e.to_string()), "encoding"),
        _ => with_kind(ProgramError::new_err(e.to_string()), "unsupported"),
    }
}

/// A run that is not defined.
pub fn execution(e: ExecError) -> PyErr {
    let kind = match e {
        ExecError::Count { .. } => "count",
        ExecError::Size { .. } => "shape",
        ExecError::Range { .. } => "range",
        ExecError::Softmax { .. } => "softmax",
        _ => "threads",
    };
    input(kind, e.to_string())
}

/// Adds the exceptions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    // Class attributes, so that they exist even on instances that Python code raises.
    py.get_type::<NativeError>().setattr("kind", "error")?;
    py.get_type::<ProgramError>().setattr("place", "")?;
    m.add("NativeError", py.get_type::<NativeError>())?;
    m.add("ProgramError", py.get_type::<ProgramError>())?;
    m.add("InputError", py.get_type::<InputError>())?;
    m.add("ProverError", py.get_type::<ProverError>())?;
    m.add("Rejected", py.get_type::<Rejected>())?;
    m.add("Cancelled", py.get_type::<Cancelled>())
}
