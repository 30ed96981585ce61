//! NumPy arrays in and out through the buffer protocol: strict about dtype and shape, in C order whatever the strides.

use nexus_edge_core::program::{DType, Tensor};
use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::errors;

/// The elements of an array in C order, and its shape.
pub fn read<T: Element>(array: &Bound<'_, PyAny>) -> PyResult<(Vec<T>, Vec<usize>)> {
    let buffer = PyBuffer::<T>::get(array)?;
    Ok((buffer.to_vec(array.py())?, buffer.shape().to_vec()))
}

/// An array that must have a tensor's dtype and shape, as the executor takes it.
pub fn tensor(array: &Bound<'_, PyAny>, t: &Tensor) -> PyResult<Vec<i16>> {
    let wrong = |_| errors::input("dtype", format!("input {:?} must be an array of {}", t.name, word(t.dtype)));
    let (values, shape): (Vec<i16>, _) = match t.dtype {
        DType::Int8 => read::<i8>(array).map(|(v, s)| (v.into_iter().map(i16::from).collect(), s)).map_err(wrong)?,
        DType::UInt8 => read::<u8>(array).map(|(v, s)| (v.into_iter().map(i16::from).collect(), s)).map_err(wrong)?,
    };
    if !shape.iter().copied().eq(t.dims.iter().map(|&d| d as usize)) {
        return Err(errors::input("shape", format!("input {:?} has shape {:?}, got {shape:?}", t.name, t.dims)));
    }
    Ok(values)
}

/// A new array of a tensor's dtype and shape.
pub fn array<'py>(py: Python<'py>, values: &[i16], t: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    // The low byte of an int8 or uint8 value is its representation.
    let bytes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
    from_bytes(py, &bytes, t.dtype, &t.dims)
}

/// A new array from its elements' bytes in C order.
pub fn from_bytes<'py>(py: Python<'py>, bytes: &[u8], dtype: DType, dims: &[u32]) -> PyResult<Bound<'py, PyAny>> {
    let flat = py.import("numpy")?.call_method1("frombuffer", (PyByteArray::new(py, bytes), word(dtype)))?;
    flat.call_method1("reshape", (dims.to_vec(),))
}

/// NumPy's name of a dtype.
pub fn word(dtype: DType) -> &'static str {
    match dtype {
        DType::Int8 => "int8",
        DType::UInt8 => "uint8",
    }
}
