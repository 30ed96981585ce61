//! `ProvingKey`, `VerifyingKey`, `Statement`, `verify`.

use std::sync::Arc;

use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::{Port, Program, Tensor};
use nexus_edge_core::proof::{self as core, Content, RegistrationError, Request, StatementTensor};
use nexus_edge_core::reject::Reject;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::program::{Model, describe};
use crate::secrets::Seed;
use crate::{arrays, errors, tensors};

fn registration_error(e: RegistrationError) -> PyErr {
    match e {
        RegistrationError::Proof(e) => errors::proving(e),
        e => errors::with_kind(errors::ProgramError::new_err(e.to_string()), "unsupported"),
    }
}

/// Seed and opened rows of a hiding commitment.
type Opened = Option<(Seed, Vec<usize>)>;

fn opened(o: Option<core::Opened>) -> Opened {
    o.map(|o| (Seed { inner: o.seed }, o.rows))
}

fn rejected(e: &Reject) -> PyErr {
    let kind = match e {
        Reject::Malformed { .. } => "malformed",
        Reject::Truncated { .. } => "truncated",
        Reject::Trailing { .. } => "trailing",
        Reject::NotCanonical { .. } => "not-canonical",
        Reject::Statement(_) => "statement",
        Reject::Equation(_) => "equation",
        Reject::Merkle { .. } => "merkle",
        Reject::Row { .. } => "row",
        _ => "degenerate",
    };
    errors::with_kind(errors::Rejected::new_err(e.to_string()), kind)
}

fn hash(name: &str, bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| errors::input("shape", format!("{name} has 32 bytes, got {}", bytes.len())))
}

fn port<'a>(program: &'a Program, ports: &[Port], index: usize) -> PyResult<&'a Tensor> {
    let port = ports.get(index).ok_or_else(|| errors::input("count", format!("no tensor {index}: the model has {}", ports.len())))?;
    Ok(&program.tensors[port.tensor as usize])
}

/// Runs `f` on `threads` threads, 0 for all. As many as the common pool has run there: what that freed is at hand for them, while threads of a
/// new one would ask the system for more.
fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> PyResult<T> {
    if threads == 0 || threads == rayon::current_num_threads() {
        return Ok(f());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    Ok(pool.map_err(|e| errors::input("threads", e.to_string()))?.install(f))
}

/// Checked program, and the weights or their commitment.
#[pyclass(module = "nexus_edge.proofs._native", frozen)]
pub struct VerifyingKey {
    inner: Arc<core::VerifyingKey>,
}

#[pymethods]
impl VerifyingKey {
    #[staticmethod]
    fn load(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let inner = py.detach(|| core::VerifyingKey::from_bytes(data)).map_err(errors::key)?;
        Ok(VerifyingKey { inner: Arc::new(inner) })
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_bytes())
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.digest())
    }

    #[getter]
    fn commitment<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.weights().root().map(|root| PyBytes::new(py, &root))
    }

    #[getter]
    fn registered(&self) -> bool {
        self.inner.is_registered()
    }

    #[getter]
    fn linked(&self) -> bool {
        self.inner.is_linked()
    }

    fn registered_key(&self, py: Python<'_>) -> PyResult<Self> {
        let inner = py.detach(|| self.inner.registered_key()).map_err(errors::key)?;
        Ok(VerifyingKey { inner: Arc::new(inner) })
    }

    fn linked_key(&self, py: Python<'_>, commitment: &[u8]) -> PyResult<Self> {
        let root = hash("a commitment", commitment)?;
        let inner = py.detach(|| self.inner.linked_key(root)).map_err(errors::key)?;
        Ok(VerifyingKey { inner: Arc::new(inner) })
    }

    fn admit_registration(&self, digest: &[u8]) -> PyResult<()> {
        self.inner.admit(&core::Registered::recorded(hash("a digest", digest)?));
        Ok(())
    }

    fn admit_link(&self, digest: &[u8], commitment: &[u8]) -> PyResult<()> {
        self.inner.admit_link(&core::Linked::recorded(hash("a digest", digest)?, hash("a commitment", commitment)?));
        Ok(())
    }

    fn model_rows<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let layout = self.inner.hiding_layout().map_err(errors::key)?;
        layout.map(|layout| tensors::rows(py, &layout, self.inner.parameters())).transpose()
    }

    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let d = describe(py, self.inner.program())?;
        let compiled = self.inner.compiled(&self.inner.usual_form()).map_err(errors::key)?;
        d.set_item("cells", compiled.layout.cells())?;
        d.set_item("lookups", compiled.layout.lookup_count())?;
        d.set_item("proof_bytes", core::proof_bytes(self.inner.parameters(), &compiled))?;
        d.set_item("security", self.inner.parameters().security())?;
        d.set_item("mode", tensors::word(self.inner.parameters().mode()))?;
        d.set_item("committed_weights", self.inner.committed_weights())?;
        Ok(d)
    }

    fn soundness<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let compiled = self.inner.compiled(&self.inner.usual_form()).map_err(errors::key)?;
        let sum = core::soundness(self.inner.parameters(), &compiled);
        let d = PyDict::new(py);
        let terms = PyDict::new(py);
        for t in &sum.terms {
            terms.set_item(t.name.to_string(), t.bits)?;
        }
        d.set_item("terms", terms)?;
        d.set_item("bits", sum.bits)?;
        d.set_item("security", self.inner.parameters().security())?;
        Ok(d)
    }
}

/// What a proof says.
#[pyclass(module = "nexus_edge.proofs._native", frozen)]
pub struct Statement {
    inner: core::Statement,
}

#[pymethods]
impl Statement {
    #[staticmethod]
    fn load(data: &[u8]) -> PyResult<Self> {
        core::Statement::from_bytes(data).map(|inner| Statement { inner }).map_err(|e| rejected(&e))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_bytes())
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.digest)
    }

    #[getter]
    fn context<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.context)
    }

    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        stated(py, &self.inner.tensors[..self.inner.inputs])
    }

    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        stated(py, &self.inner.tensors[self.inner.inputs..])
    }
}

/// A commitment as bytes, a clear tensor as an array.
fn stated<'py>(py: Python<'py>, tensors: &[StatementTensor]) -> PyResult<Bound<'py, PyList>> {
    let one = |t: &StatementTensor| match &t.content {
        Content::Committed(c) => Ok(PyBytes::new(py, c).into_any()),
        Content::Clear(bytes) => arrays::from_bytes(py, bytes, t.dtype, &t.dims),
    };
    PyList::new(py, tensors.iter().map(one).collect::<PyResult<Vec<_>>>()?)
}

/// A verifying key together with what proving needs.
#[pyclass(module = "nexus_edge.proofs._native", frozen)]
pub struct ProvingKey {
    inner: core::ProvingKey,
    executor: nexus_edge_core::exec::Executor,
}

impl ProvingKey {
    fn around(inner: core::ProvingKey) -> PyResult<Self> {
        let executor = nexus_edge_core::exec::Executor::new(inner.verifying.program().clone(), &inner.weights).map_err(errors::program)?;
        Ok(ProvingKey { inner, executor })
    }

    /// Commits a model; with the seed of a commitment that was made before, the same again. `registered` is the root of the registered
    /// commitment, if this is another.
    pub fn new(
        model: &Model,
        inside: bool,
        security: u32,
        mode: Mode,
        seed: Option<&Seed>,
        registered: Option<[u8; 32]>,
    ) -> PyResult<Self> {
        let (program, weights) = (Program::clone(model.executor.program()), (*model.weights).clone());
        let inner = match seed {
            None => core::ProvingKey::new(program, weights, inside, security, mode),
            Some(seed) => core::ProvingKey::with_seed(program, weights, inside, security, mode, Some(seed.inner.clone())),
        };
        let inner = inner.and_then(|key| match registered {
            None => Ok(key),
            Some(root) => key.linked_to(root),
        });
        Self::around(inner.map_err(errors::key)?)
    }
}

#[pymethods]
impl ProvingKey {
    #[getter]
    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey { inner: self.inner.verifying.clone() }
    }

    #[getter]
    fn seed(&self) -> Option<Seed> {
        self.inner.seed().map(|seed| Seed { inner: seed.clone() })
    }

    fn committed_again(&self, py: Python<'_>, seed: &Seed) -> PyResult<ProvingKey> {
        Self::around(py.detach(|| self.inner.committed_again(seed.inner.clone())).map_err(errors::key)?)
    }

    #[pyo3(signature = (inputs, context, clear_inputs = false, commit_outputs = false, threads = 0, progress = None, seeds = Vec::new()))]
    fn prove<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Bound<'py, PyAny>>,
        context: &[u8],
        clear_inputs: bool,
        commit_outputs: bool,
        threads: usize,
        progress: Option<Py<PyAny>>,
        seeds: Vec<Option<PyRef<'py, Seed>>>,
    ) -> PyResult<(Vec<Bound<'py, PyAny>>, Statement, Bound<'py, PyBytes>, Vec<Opened>, Opened, Bound<'py, PyDict>)> {
        let p = self.inner.verifying.program();
        if inputs.len() != p.inputs.len() {
            return Err(errors::input("count", format!("{} inputs for a model with {}", inputs.len(), p.inputs.len())));
        }
        let values =
            inputs.iter().enumerate().map(|(i, x)| arrays::tensor(x, port(p, &p.inputs, i)?)).collect::<PyResult<Vec<Vec<i16>>>>()?;
        let request = Request {
            inputs: values.iter().map(Vec::as_slice).collect(),
            context: hash("the context", context)?,
            committed: [vec![!clear_inputs; p.inputs.len()], vec![commit_outputs; p.outputs.len()]].concat(),
            seeds: seeds.iter().map(|s| s.as_ref().map(|s| s.inner.clone())).collect(),
        };
        let made = reporting(py, progress, threads, |report| core::prove(&self.inner, &self.executor, &request, report), errors::proving)?;
        let outputs =
            made.outputs.iter().enumerate().map(|(i, y)| arrays::array(py, y, port(p, &p.outputs, i)?)).collect::<PyResult<_>>()?;
        let figures = PyDict::new(py);
        let phases = PyDict::new(py);
        for (name, ms) in &made.figures.phases {
            phases.set_item(name, ms)?;
        }
        figures.set_item("phases_ms", phases)?;
        figures.set_item("cells", made.figures.cells)?;
        figures.set_item("lookups", made.figures.lookups)?;
        figures.set_item("security_bits", made.figures.bits)?;
        let ports = made.opened.into_iter().map(opened).collect();
        let statement = Statement { inner: made.statement };
        Ok((outputs, statement, PyBytes::new(py, &made.proof), ports, opened(made.model_opened), figures))
    }

    #[pyo3(signature = (threads = 0, progress = None))]
    fn register<'py>(&self, py: Python<'py>, threads: usize, progress: Option<Py<PyAny>>) -> PyResult<(Bound<'py, PyBytes>, Vec<Opened>)> {
        let made = reporting(py, progress, threads, |report| core::register(&self.inner, report), registration_error)?;
        Ok((PyBytes::new(py, &made.proof), made.opened.into_iter().map(opened).collect()))
    }

    #[pyo3(signature = (fresh, threads = 0, progress = None))]
    fn link<'py>(
        &self,
        py: Python<'py>,
        fresh: Vec<PyRef<'py, ProvingKey>>,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<Opened>)> {
        let fresh: Vec<&core::ProvingKey> = fresh.iter().map(|key| &key.inner).collect();
        let made = reporting(py, progress, threads, |report| core::link(&self.inner, &fresh, report), registration_error)?;
        Ok((PyBytes::new(py, &made.proof), made.opened.into_iter().map(opened).collect()))
    }
}

/// Runs `f` with a report that calls back into Python. A callback that raises stops it; its exception is what the caller gets.
fn reporting<T: Send, E: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    threads: usize,
    f: impl FnOnce(core::Progress<'_>) -> Result<T, E> + Send,
    error: impl FnOnce(E) -> PyErr,
) -> PyResult<T> {
    let mut raised: Option<PyErr> = None;
    let mut report = |phase: &'static str, fraction: f64| {
        let Some(callback) = &callback else { return true };
        Python::attach(|py| match callback.call1(py, (phase, fraction)).and_then(|go| go.is_truthy(py)) {
            Ok(go) => go,
            Err(e) => {
                raised = Some(e);
                false
            }
        })
    };
    let made = py.detach(|| on_threads(threads, || f(&mut report)))?;
    made.map_err(|e| raised.unwrap_or_else(|| error(e)))
}

/// Raises `Rejected` unless the proof shows the statement.
#[pyfunction]
fn verify(py: Python<'_>, key: &VerifyingKey, statement: &Statement, proof: &[u8]) -> PyResult<()> {
    py.detach(|| core::verify(&key.inner, &statement.inner, proof)).map_err(|e| rejected(&e))
}

/// Raises `Rejected` unless the proof shows that the key's private weights are what its program assumes; else the key accepts proofs.
#[pyfunction]
fn verify_registration(py: Python<'_>, key: &VerifyingKey, proof: &[u8]) -> PyResult<()> {
    let registered = py.detach(|| core::verify_registration(&key.inner, proof)).map_err(|e| rejected(&e))?;
    key.inner.admit(&registered);
    Ok(())
}

/// Raises `Rejected` unless the proof shows that all keys commit to the weights of the first; else the others take notice.
#[pyfunction]
fn verify_link(py: Python<'_>, registered: &VerifyingKey, fresh: Vec<PyRef<'_, VerifyingKey>>, proof: &[u8]) -> PyResult<()> {
    let fresh: Vec<&core::VerifyingKey> = fresh.iter().map(|key| &*key.inner).collect();
    let linked = py.detach(|| core::verify_link(&registered.inner, &fresh, proof)).map_err(|e| rejected(&e))?;
    fresh.iter().for_each(|key| key.admit_link(&linked));
    Ok(())
}

/// Adds the classes to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<VerifyingKey>()?;
    m.add_class::<Statement>()?;
    m.add_class::<ProvingKey>()?;
    m.add_function(wrap_pyfunction!(verify_registration, m)?)?;
    m.add_function(wrap_pyfunction!(verify_link, m)?)?;
    m.add_function(wrap_pyfunction!(verify, m)?)
}
