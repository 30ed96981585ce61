//! `ProgramBuilder` and `Model`.

use std::sync::Arc;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::program::builder::{Bounds, Convolution, ProgramBuilder as CoreBuilder};
use nexus_edge_core::program::check::{self, CheckedProgram};
use nexus_edge_core::program::error::{Fault, ProgramError};
use nexus_edge_core::program::quantize::Multiplier;
use nexus_edge_core::program::{DType, Edge, Op, Piece, Port, PrivateForm, Program, Semantics, Weights, Window};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::proofs::ProvingKey;
use crate::secrets::Seed;
use crate::{arrays, errors, tensors};

type WindowTuple = (u32, (u32, u32), (u32, u32), (u32, u32), (u32, u32), (u32, u32), (u32, u32));

fn window((batch, input, output, kernel, stride, pad, dilation): WindowTuple) -> Window {
    Window { batch, input, output, kernel, stride, pad, dilation }
}

fn edge(float: bool) -> Edge {
    if float { Edge::Float } else { Edge::Integer }
}

fn refused(label: &str, fault: Fault, detail: impl Into<String>) -> PyErr {
    errors::program(ProgramError::new(fault, label, detail))
}

const SEMANTICS: [(&str, Semantics); 3] =
    [("tflm", Semantics::Tflm), ("tflite-2.14", Semantics::Tflite214), ("litert-2.3-ref", Semantics::Litert23Ref)];

/// `log2 V` of private layers: one for all, or one for each.
#[derive(FromPyObject)]
enum LogBounds {
    All(u8),
    Each(Vec<u8>),
}

/// Adds operators in order, then `finish` finds the digital lines, checks everything and returns the model.
#[pyclass(module = "nexus_edge.proofs._native")]
pub struct ProgramBuilder {
    /// `None` after `finish`.
    inner: Option<CoreBuilder>,
}

impl ProgramBuilder {
    fn open(&mut self) -> PyResult<&mut CoreBuilder> {
        self.inner.as_mut().ok_or_else(|| refused("program", Fault::Unsupported, "the builder is finished"))
    }
}

#[pymethods]
impl ProgramBuilder {
    #[new]
    fn new(name: String, semantics: &str) -> PyResult<Self> {
        let found = SEMANTICS.iter().find(|(word, _)| *word == semantics);
        let &(_, semantics) = found.ok_or_else(|| refused("program", Fault::Unsupported, format!("unknown semantics {semantics:?}")))?;
        Ok(ProgramBuilder { inner: Some(CoreBuilder::new(name, semantics)) })
    }

    fn tensor(&mut self, name: String, dtype: &str, dims: Vec<u32>, scale: Option<f32>, zero_point: i32) -> PyResult<u32> {
        let dtype = [DType::Int8, DType::UInt8].into_iter().find(|d| arrays::word(*d) == dtype);
        let dtype = dtype.ok_or_else(|| refused(&name, Fault::Unsupported, "dtype is neither int8 nor uint8"))?;
        self.open()?.tensor(name, dtype, &dims, scale, zero_point).map_err(errors::program)
    }

    #[pyo3(signature = (tensor, float_edge = false))]
    fn input(&mut self, tensor: u32, float_edge: bool) -> PyResult<()> {
        self.open()?.input(tensor, edge(float_edge)).map_err(errors::program)
    }

    #[pyo3(signature = (tensor, float_edge = false))]
    fn output(&mut self, tensor: u32, float_edge: bool) -> PyResult<()> {
        self.open()?.output(tensor, edge(float_edge)).map_err(errors::program)
    }

    #[pyo3(signature = (label, x, out, window, weights, bias, x_zero, multipliers, clamp, depthwise = false, single_rounding = false))]
    fn conv(
        &mut self,
        label: &str,
        x: u32,
        out: u32,
        window: WindowTuple,
        weights: &Bound<'_, PyAny>,
        bias: Option<&Bound<'_, PyAny>>,
        x_zero: i32,
        multipliers: Vec<Multiplier>,
        clamp: (i32, i32),
        depthwise: bool,
        single_rounding: bool,
    ) -> PyResult<()> {
        let wrong = |e: PyErr| refused(label, Fault::Weights, format!("weights and biases must be int32 arrays: {e}"));
        let (weights, shape) = arrays::read::<i32>(weights).map_err(wrong)?;
        let bias = bias.map(|b| arrays::read::<i32>(b).map(|(b, _)| b)).transpose().map_err(wrong)?;
        let dims: Vec<u32> = shape.iter().map(|&d| u32::try_from(d).unwrap_or(0)).collect();
        let window = self::window(window);
        let c = Convolution { x, out, window, dims: &dims, weights, bias, x_zero, multipliers, clamp, depthwise, single_rounding };
        self.open()?.conv(label, c).map_err(errors::program)
    }

    fn mean(
        &mut self,
        label: &str,
        x: u32,
        out: u32,
        window: WindowTuple,
        x_zero: i32,
        multiplier: Multiplier,
        clamp: (i32, i32),
    ) -> PyResult<()> {
        self.open()?.mean(label, x, out, self::window(window), x_zero, multiplier, clamp).map_err(errors::program)
    }

    fn average_pool(&mut self, label: &str, x: u32, out: u32, window: WindowTuple, clamp: (i32, i32)) -> PyResult<()> {
        self.open()?.average_pool(label, x, out, self::window(window), clamp).map_err(errors::program)
    }

    fn max_pool(&mut self, label: &str, x: u32, out: u32, window: WindowTuple, clamp: (i32, i32)) -> PyResult<()> {
        self.open()?.max_pool(label, x, out, self::window(window), clamp).map_err(errors::program)
    }

    #[pyo3(signature = (label, first, second, out, multipliers, clamp, subtract = false))]
    fn add(
        &mut self,
        label: &str,
        first: u32,
        second: u32,
        out: u32,
        multipliers: (Multiplier, Multiplier, Multiplier),
        clamp: (i32, i32),
        subtract: bool,
    ) -> PyResult<()> {
        self.open()?.add(label, (first, second), out, multipliers, clamp, subtract).map_err(errors::program)
    }

    fn lookup(&mut self, label: &str, inputs: Vec<u32>, out: u32, table: &Bound<'_, PyAny>) -> PyResult<()> {
        let values = arrays::read::<i16>(table).map_err(|e| refused(label, Fault::Table, format!("a table is an int16 array: {e}")))?.0;
        self.open()?.lookup(label, inputs, out, values).map_err(errors::program)
    }

    fn softmax(&mut self, label: &str, x: u32, out: u32, multiplier: i32, shift: i64) -> PyResult<()> {
        let shift = u8::try_from(shift).map_err(|_| refused(label, Fault::Quantization, format!("left shift {shift}")))?;
        self.open()?.softmax(label, x, out, multiplier, shift);
        Ok(())
    }

    #[pyo3(signature = (label, out, pieces, fill = 0))]
    fn view(&mut self, label: &str, out: u32, pieces: Vec<(u32, Vec<(u32, u32, u32, i32)>)>, fill: i32) -> PyResult<()> {
        let pieces = pieces.into_iter().map(|(source, dims)| Piece { source, dims }).collect();
        self.open()?.view(label, out, pieces, fill);
        Ok(())
    }

    fn permute(&mut self, label: &str, x: u32, out: u32, dims: Vec<u32>, perm: Vec<u32>) -> PyResult<()> {
        let perm = perm.into_iter().map(|p| u8::try_from(p).unwrap_or(u8::MAX)).collect();
        self.open()?.permute(label, x, out, dims, perm);
        Ok(())
    }

    #[pyo3(signature = (log_bounds = None))]
    fn private(&mut self, log_bounds: Option<LogBounds>) -> PyResult<()> {
        self.open()?.private(match log_bounds {
            None => Bounds::Default,
            Some(LogBounds::All(bits)) => Bounds::All(bits),
            Some(LogBounds::Each(bits)) => Bounds::Each(bits),
        });
        Ok(())
    }

    #[pyo3(signature = (range_bits = None))]
    fn finish(&mut self, py: Python<'_>, range_bits: Option<u8>) -> PyResult<Model> {
        let builder = self.inner.take().ok_or_else(|| refused("program", Fault::Unsupported, "the builder is finished"))?;
        py.detach(move || {
            let (program, weights) = builder.finish(range_bits)?;
            Model::new(program, weights)
        })
        .map_err(errors::program)
    }
}

/// A checked program with its weights.
#[pyclass(module = "nexus_edge.proofs._native", frozen)]
pub struct Model {
    /// The program and its packed weights.
    pub executor: Executor,
    /// The weights as the program declares them.
    pub weights: Arc<Weights>,
}

impl Model {
    fn new(program: CheckedProgram, weights: Weights) -> Result<Self, ProgramError> {
        Ok(Model { executor: Executor::new(Arc::new(program), &weights)?, weights: Arc::new(weights) })
    }
}

#[pymethods]
impl Model {
    #[staticmethod]
    fn load(py: Python<'_>, program: &[u8], weights: &[u8]) -> PyResult<Model> {
        py.detach(|| {
            let weights = Weights::from_bytes(weights)?;
            let program = check::load(Program::from_bytes(program)?, Some(&weights))?;
            Model::new(program, weights)
        })
        .map_err(errors::program)
    }

    #[getter]
    fn program_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.executor.program().to_bytes())
    }

    fn weights_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.weights.to_bytes())
    }

    #[pyo3(signature = (inputs, threads = 0))]
    fn run<'py>(&self, py: Python<'py>, inputs: Vec<Bound<'py, PyAny>>, threads: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let p = self.executor.program();
        if inputs.len() != p.inputs.len() {
            return Err(errors::input("count", format!("{} inputs for a model with {}", inputs.len(), p.inputs.len())));
        }
        let tensor = |port: &Port| &p.tensors[port.tensor as usize];
        let values = inputs.iter().zip(&p.inputs).map(|(x, port)| arrays::tensor(x, tensor(port))).collect::<PyResult<Vec<_>>>()?;
        let slices: Vec<&[i16]> = values.iter().map(Vec::as_slice).collect();
        let trace = py.detach(|| self.executor.run(&slices, threads, false)).map_err(errors::execution)?;
        p.outputs.iter().map(|port| arrays::array(py, trace.tensor(port.tensor), tensor(port))).collect()
    }

    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        describe(py, self.executor.program())
    }

    #[pyo3(signature = (weights_inside = false, security = 100, mode = "zk", seed = None, registered = None))]
    fn commit(
        &self,
        py: Python<'_>,
        weights_inside: bool,
        security: u32,
        mode: &str,
        seed: Option<&Seed>,
        registered: Option<[u8; 32]>,
    ) -> PyResult<ProvingKey> {
        let mode = tensors::mode(mode)?;
        py.detach(|| ProvingKey::new(self, weights_inside, security, mode, seed, registered))
    }
}

fn port<'py>(py: Python<'py>, p: &Program, port: &Port) -> PyResult<Bound<'py, PyDict>> {
    let t = &p.tensors[port.tensor as usize];
    let d = PyDict::new(py);
    d.set_item("name", &t.name)?;
    d.set_item("dtype", arrays::word(t.dtype))?;
    d.set_item("shape", t.dims.clone())?;
    d.set_item("scale", t.scale.map(f32::from_bits))?;
    d.set_item("zero_point", t.zero_point)?;
    d.set_item("float_edge", port.edge == Edge::Float)?;
    Ok(d)
}

/// Ports, operators, constants and sizes of a program.
pub fn describe<'py>(py: Python<'py>, p: &CheckedProgram) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    d.set_item("name", &p.name)?;
    d.set_item("semantics", SEMANTICS.iter().find(|(_, s)| *s == p.semantics).map(|(word, _)| *word))?;
    let ports = |all: &[Port]| PyList::new(py, all.iter().map(|x| port(py, p, x)).collect::<PyResult<Vec<_>>>()?);
    d.set_item("inputs", ports(&p.inputs)?)?;
    d.set_item("outputs", ports(&p.outputs)?)?;
    let operators = PyList::empty(py);
    for op in p.ops.iter() {
        // A rescale is described with its contraction.
        if matches!(op, Op::Rescale(_)) {
            continue;
        }
        let item = PyDict::new(py);
        let out = p.output_of(op).map(|id| &p.tensors[id as usize]);
        item.set_item("kind", check::kind(op))?;
        item.set_item("output", out.map(|t| t.name.clone()))?;
        item.set_item("shape", out.map(|t| t.dims.clone()))?;
        item.set_item("inputs", check::inputs_of(op).iter().map(|&id| p.tensors[id as usize].name.clone()).collect::<Vec<_>>())?;
        item.set_item("macs", p.macs(op))?;
        operators.append(item)?;
    }
    d.set_item("operators", operators)?;
    d.set_item("macs", p.ops.iter().map(|op| p.macs(op)).sum::<u64>())?;
    let constants = p.constants.iter().map(|c| {
        let item = PyDict::new(py);
        item.set_item("shape", c.dims.clone())?;
        item.set_item("range", c.range)?;
        Ok(item)
    });
    d.set_item("constants", PyList::new(py, constants.collect::<PyResult<Vec<_>>>()?)?)?;
    d.set_item("weights", p.constants.iter().map(|c| c.dims.iter().map(|&n| u64::from(n)).product::<u64>()).sum::<u64>())?;
    d.set_item("tables", p.tables.iter().map(|t| t.values.len()).collect::<Vec<_>>())?;
    d.set_item("range_bits", p.range_bits)?;
    d.set_item("clamp_rows", p.clamp_rows)?;
    d.set_item("sign_rows", p.sign_rows)?;
    let bounds = |form: &PrivateForm| form.log_bounds.iter().copied().filter(|&b| b > 0).map(u32::from).collect::<Vec<_>>();
    d.set_item("log_bounds", p.private.as_ref().map(bounds))?;
    Ok(d)
}

/// Adds the classes to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<ProgramBuilder>()?;
    m.add_class::<Model>()
}
