//! The executor: runs a checked program exactly, with or without its trace.
//!
//! Values are `i16` holding int8 or uint8, row-major positions x channels. Accumulators are `i32`: the program's checks bound every
//! partial sum, so that wrapping arithmetic is exact.

mod buffers;
mod contract;
mod depthwise;
mod gemm;
mod kernels;
mod layout;
mod pool;
mod requantize;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use thiserror::Error;

use crate::control::{Control, Gauge};
use crate::program::check::{self, CheckedProgram};
use crate::program::error::Checked;
use crate::program::softmax::{self, Exponentials};
use crate::program::{Op, TensorId, Weights};

use buffers::Buffers;
use contract::Contraction;

/// Inputs for which the program is not defined.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// Another number of inputs than the model has.
    #[error("{got} inputs for a model with {want}")]
    Count {
        /// Inputs of the model.
        want: usize,
        /// Inputs given.
        got: usize,
    },
    /// An input of another size.
    #[error("input {name:?} has {want} elements, got {got}")]
    Size {
        /// Name of the tensor.
        name: String,
        /// Its size.
        want: usize,
        /// Elements given.
        got: usize,
    },
    /// An input value outside the tensor's dtype.
    #[error("input {name:?} has a value outside its dtype")]
    Range {
        /// Name of the tensor.
        name: String,
    },
    /// A row of a softmax whose exponentials sum to 512 or more: the runtimes abort or disagree.
    #[error("{place}: softmax is undefined, the exponentials of a row sum to 512 or more")]
    Softmax {
        /// The operator.
        place: String,
    },
    /// The thread pool could not be started.
    #[error("threads: {0}")]
    Threads(String),
    /// Broken off by its [`Control`].
    #[error("cancelled")]
    Stopped,
}

/// Products that take about as long as a value written in fresh memory.
const WRITE: usize = 16;
/// Products from which on a run is worth a report.
const REPORTED: usize = 1 << 22;

/// Values of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By `TensorId`; without the trace only the outputs are kept, others are empty.
    pub tensors: Vec<Vec<i16>>,
    /// By `AccId`; of convolutions and sums, with the trace only.
    pub accumulators: Vec<Vec<i32>>,
}

impl Trace {
    /// A tensor's values.
    pub fn tensor(&self, id: TensorId) -> &[i16] {
        &self.tensors[id as usize]
    }
}

/// A program with its weights packed for the kernels of this machine.
#[derive(Debug)]
pub struct Executor {
    program: Arc<CheckedProgram>,
    steps: Vec<Step>,
    /// The tensor that each operator computes; a rescale's is computed with its contraction.
    outs: Vec<Option<TensorId>>,
    /// For each operator the tensors that nobody reads after it.
    dead_after: Vec<Vec<usize>>,
    /// For each operator about how long it takes, for reports: products, and values written.
    work: Vec<usize>,
    values: Buffers<i16>,
    sums: Buffers<i32>,
}

/// What an operator needs beside the program.
#[derive(Debug)]
enum Step {
    /// A contraction together with its rescale.
    Contraction(Box<Contraction>),
    Softmax(Exponentials),
    /// A rescale runs with its contraction; index maps and lookups need nothing.
    Nothing,
}

impl Executor {
    /// Checks the weights against the program and packs them.
    pub fn new(program: Arc<CheckedProgram>, weights: &Weights) -> Checked<Self> {
        check::load_weights(&program, weights)?;
        let steps = program
            .ops
            .par_iter()
            .map(|op| match op {
                Op::Contract { acc, contract } => Step::Contraction(Box::new(Contraction::new(&program, op, *acc, contract, weights))),
                Op::Softmax { multiplier, shift, .. } => Step::Softmax(Exponentials::new(*multiplier, *shift)),
                _ => Step::Nothing,
            })
            .collect();
        let outs: Vec<_> = program.ops.iter().map(|op| if matches!(op, Op::Rescale(_)) { None } else { program.output_of(op) }).collect();
        let dead_after = dead_after(&program, &outs);
        let written = |out: &Option<TensorId>| out.map_or(0, |t| WRITE * program.tensors[t as usize].size());
        let work = program.ops.iter().zip(&outs).map(|(op, out)| program.macs(op) as usize + written(out)).collect();
        Ok(Executor { program, steps, outs, dead_after, work, values: Buffers::default(), sums: Buffers::default() })
    }

    /// The program.
    pub fn program(&self) -> &Arc<CheckedProgram> {
        &self.program
    }

    /// Runs on `threads` threads (0: the current pool's). `keep` keeps every tensor and accumulator. See [`Executor::recycle`].
    pub fn run(&self, inputs: &[&[i16]], threads: usize, keep: bool) -> Result<Trace, ExecError> {
        let unheard: Control<'_> = &mut |_| ControlFlow::Continue(());
        match threads {
            0 => self.run_here(inputs, keep, rayon::current_num_threads() > 1, unheard),
            1 => self.run_here(inputs, keep, false, unheard),
            n => pool(n.min(std::thread::available_parallelism().map_or(n, Into::into)))?
                .install(|| self.run_here(inputs, keep, true, unheard)),
        }
    }

    /// [`Executor::run`] on the current pool with the whole trace; `control` hears of it between operators.
    pub fn trace(&self, inputs: &[&[i16]], control: Control<'_>) -> Result<Trace, ExecError> {
        self.run_here(inputs, true, rayon::current_num_threads() > 1, control)
    }

    /// Returns the memory of a run to later ones.
    pub fn recycle(&self, trace: Trace) {
        trace.tensors.into_iter().for_each(|t| self.values.give(t));
        trace.accumulators.into_iter().for_each(|a| self.sums.give(a));
    }

    fn run_here(&self, inputs: &[&[i16]], keep: bool, parallel: bool, control: Control<'_>) -> Result<Trace, ExecError> {
        let p = &*self.program;
        let mut trace = Trace { tensors: vec![Vec::new(); p.tensors.len()], accumulators: vec![Vec::new(); p.accumulators.len()] };
        self.accept(inputs)?;
        for (port, values) in p.inputs.iter().zip(inputs) {
            let mut x = self.values.take(values.len());
            x.copy_from_slice(values);
            trace.tensors[port.tensor as usize] = x;
        }
        self.steps(0, &mut trace, keep, parallel, control)?;
        Ok(trace)
    }

    /// Runs the operators from number `from` on again, over a trace whose earlier tensors were changed.
    #[cfg(feature = "attacks")]
    pub fn resume(&self, from: usize, trace: &mut Trace) -> Result<(), ExecError> {
        self.steps(from, trace, true, false, &mut |_| ControlFlow::Continue(()))
    }

    fn steps(&self, from: usize, trace: &mut Trace, keep: bool, parallel: bool, control: Control<'_>) -> Result<(), ExecError> {
        let p = &*self.program;
        let gauge = Gauge::new(control, self.work.iter().sum(), REPORTED);
        for (i, op) in p.ops.iter().enumerate().skip(from) {
            let Some(out) = self.outs[i] else { continue };
            let mut y = self.values.take(p.tensors[out as usize].size());
            self.step(i, op, trace, &mut y, keep, parallel)?;
            trace.tensors[out as usize] = y;
            if !keep {
                self.dead_after[i].iter().for_each(|&t| self.values.give(std::mem::take(&mut trace.tensors[t])));
            }
            if !gauge.did(self.work[i]) {
                return Err(ExecError::Stopped);
            }
        }
        Ok(())
    }

    fn accept(&self, inputs: &[&[i16]]) -> Result<(), ExecError> {
        let ports = &self.program.inputs;
        if inputs.len() != ports.len() {
            return Err(ExecError::Count { want: ports.len(), got: inputs.len() });
        }
        for (port, &values) in ports.iter().zip(inputs) {
            let t = &self.program.tensors[port.tensor as usize];
            let (low, high) = t.dtype.range();
            if values.len() != t.size() {
                return Err(ExecError::Size { name: t.name.clone(), want: t.size(), got: values.len() });
            }
            if values.iter().any(|&v| i32::from(v) < low || i32::from(v) > high) {
                return Err(ExecError::Range { name: t.name.clone() });
            }
        }
        Ok(())
    }

    /// Computes the tensor that an operator (for a contraction: its rescale) defines.
    fn step(&self, index: usize, op: &Op, trace: &mut Trace, y: &mut [i16], keep: bool, parallel: bool) -> Result<(), ExecError> {
        let p = &*self.program;
        let tensors = &trace.tensors;
        match (op, &self.steps[index]) {
            (Op::Contract { acc, .. }, Step::Contraction(c)) => {
                let mut sums = if keep { self.sums.take(c.accumulators()) } else { Vec::new() };
                c.run(tensors, y, &mut sums, parallel);
                trace.accumulators[*acc as usize] = sums;
            }
            (Op::Lookup { inputs, table, .. }, _) => {
                let values = &p.tables[*table as usize].values;
                let operands: Vec<(&[i16], i16)> =
                    inputs.iter().map(|&id| (&tensors[id as usize][..], p.tensors[id as usize].dtype.range().0 as i16)).collect();
                lookup(values, &operands, y);
            }
            (Op::Softmax { x, out, .. }, Step::Softmax(exp)) => {
                let t = &p.tensors[*out as usize];
                let (x, low, n) = (&tensors[*x as usize], t.dtype.range().0 as i16, t.channels());
                let defined = y.chunks_exact_mut(n).zip(x.chunks_exact(n)).all(|(y, x)| softmax::row(exp, x, low, y).is_some());
                if !defined {
                    return Err(ExecError::Softmax { place: p.place(index) });
                }
            }
            (Op::MaxPool { x, out, window, clamp }, _) => {
                let channels = p.tensors[*out as usize].channels();
                pool::max(&tensors[*x as usize], window, channels, (clamp.0 as i16, clamp.1 as i16), y);
            }
            (Op::View { out, pieces, fill }, _) => layout::view(p, tensors, *out, pieces, *fill as i16, y),
            (Op::Permute { x, dims, perm, .. }, _) => layout::permute(&tensors[*x as usize], dims, perm, y),
            // Steps are made from the same operators.
            (Op::Rescale(_) | Op::Contract { .. } | Op::Softmax { .. }, _) => {}
        }
        Ok(())
    }
}

/// A pool of `n` threads: started once, as starting one costs more than a small network.
fn pool(n: usize) -> Result<Arc<ThreadPool>, ExecError> {
    static POOLS: Mutex<Vec<Arc<ThreadPool>>> = Mutex::new(Vec::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(p) = pools.iter().find(|p| p.current_num_threads() == n) {
        return Ok(p.clone());
    }
    let started = ThreadPoolBuilder::new().num_threads(n).build().map_err(|e| ExecError::Threads(e.to_string()))?;
    pools.push(Arc::new(started));
    Ok(pools[pools.len() - 1].clone())
}

/// `y = T[x]` or `y = T[x1, x2]`; operands with the smallest value of their dtype.
fn lookup(values: &[i16], operands: &[(&[i16], i16)], y: &mut [i16]) {
    match operands {
        [(x, low)] => y.iter_mut().zip(*x).for_each(|(y, x)| *y = values[(x - low) as usize]),
        [(x1, low1), (x2, low2)] => {
            let row = |(a, b): (&i16, &i16)| (a - low1) as usize * 256 + (b - low2) as usize;
            y.iter_mut().zip(x1.iter().zip(*x2)).for_each(|(y, x)| *y = values[row(x)]);
        }
        // A checked lookup has one or two.
        _ => {}
    }
}

/// For each operator the tensors that nobody reads after it. Outputs are read for ever.
fn dead_after(p: &CheckedProgram, outs: &[Option<TensorId>]) -> Vec<Vec<usize>> {
    let mut last = vec![0; p.tensors.len()];
    for (i, op) in p.ops.iter().enumerate() {
        let (reads, writes) = (check::inputs_of(op), outs[i]);
        reads.into_iter().chain(writes).for_each(|t| last[t as usize] = i);
    }
    p.outputs.iter().for_each(|o| last[o.tensor as usize] = usize::MAX);
    let mut dead = vec![Vec::new(); p.ops.len()];
    for (tensor, op) in last.into_iter().enumerate() {
        if let Some(dead) = dead.get_mut(op) {
            dead.push(tensor);
        }
    }
    dead
}

#[cfg(test)]
mod tests;
