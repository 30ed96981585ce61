//! The executor: runs a checked program exactly, with or without its trace.
//!
//! Values are `i16` holding int8 or uint8, row-major positions x channels. Accumulators are `i32`: the program's checks bound every
//! partial sum, so that wrapping arithmetic is exact.

mod contract;
mod depthwise;
mod gemm;
mod kernels;
mod layout;
mod pool;
mod requantize;

use std::sync::Arc;

use rayon::prelude::*;
use thiserror::Error;

use crate::program::check::{self, CheckedProgram};
use crate::program::error::Checked;
use crate::program::softmax::{self, Exponentials};
use crate::program::{Op, TensorId, Weights};

use contract::Contraction;

/// Elements of a softmax batch or lookup that one task takes.
const GRAIN: usize = 1 << 14;

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
}

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
    /// After which operator each tensor is not read any more.
    last_use: Vec<usize>,
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
                Op::Contract { acc, contract } => Step::Contraction(Box::new(Contraction::new(&program, *acc, contract, weights))),
                Op::Softmax { multiplier, shift, .. } => Step::Softmax(Exponentials::new(*multiplier, *shift)),
                _ => Step::Nothing,
            })
            .collect();
        let last_use = last_uses(&program);
        Ok(Executor { program, steps, last_use })
    }

    /// The program.
    pub fn program(&self) -> &Arc<CheckedProgram> {
        &self.program
    }

    /// Runs on `threads` threads (0: the current pool's). `keep` keeps every tensor and accumulator.
    pub fn run(&self, inputs: &[&[i16]], threads: usize, keep: bool) -> Result<Trace, ExecError> {
        match threads {
            0 => self.run_here(inputs, keep, rayon::current_num_threads() > 1),
            1 => self.run_here(inputs, keep, false),
            n => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().map_err(|e| ExecError::Threads(e.to_string()))?;
                pool.install(|| self.run_here(inputs, keep, true))
            }
        }
    }

    fn run_here(&self, inputs: &[&[i16]], keep: bool, parallel: bool) -> Result<Trace, ExecError> {
        let p = &*self.program;
        let mut trace = Trace { tensors: vec![Vec::new(); p.tensors.len()], accumulators: vec![Vec::new(); p.accumulators.len()] };
        self.accept(inputs, &mut trace)?;
        for (i, (op, step)) in p.ops.iter().zip(&self.steps).enumerate() {
            self.step(op, step, i, &mut trace, keep, parallel)?;
            if !keep {
                for (tensor, _) in trace.tensors.iter_mut().zip(&self.last_use).filter(|(t, last)| **last == i && !t.is_empty()) {
                    *tensor = Vec::new();
                }
            }
        }
        if !keep {
            let is_output = |id: usize| p.outputs.iter().any(|o| o.tensor as usize == id);
            trace.tensors.iter_mut().enumerate().filter(|(id, _)| !is_output(*id)).for_each(|(_, t)| *t = Vec::new());
        }
        Ok(trace)
    }

    fn accept(&self, inputs: &[&[i16]], trace: &mut Trace) -> Result<(), ExecError> {
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
            trace.tensors[port.tensor as usize] = values.to_vec();
        }
        Ok(())
    }

    fn step(&self, op: &Op, step: &Step, index: usize, trace: &mut Trace, keep: bool, parallel: bool) -> Result<(), ExecError> {
        let p = &*self.program;
        let size = |id: TensorId| p.tensors[id as usize].size();
        match (op, step) {
            (Op::Contract { acc, .. }, Step::Contraction(c)) => {
                let (out, accumulators) = c.run(&trace.tensors, keep, parallel);
                trace.tensors[c.out() as usize] = out;
                trace.accumulators[*acc as usize] = accumulators;
            }
            (Op::Lookup { inputs, out, table }, _) => {
                let values = &p.tables[*table as usize].values;
                let row = |k: usize| {
                    let id = inputs[k] as usize;
                    (&trace.tensors[id][..], p.tensors[id].dtype.range().0 as i16)
                };
                let mut y = vec![0; size(*out)];
                let (x1, low1) = row(0);
                if inputs.len() == 1 {
                    y.iter_mut().zip(x1).for_each(|(y, &a)| *y = values[(a - low1) as usize]);
                } else {
                    let (x2, low2) = row(1);
                    y.iter_mut()
                        .zip(x1.iter().zip(x2))
                        .for_each(|(y, (&a, &b))| *y = values[(a - low1) as usize * 256 + (b - low2) as usize]);
                }
                trace.tensors[*out as usize] = y;
            }
            (Op::Softmax { x, out, .. }, Step::Softmax(exp)) => {
                let t = &p.tensors[*out as usize];
                let (x, low, n) = (&trace.tensors[*x as usize], t.dtype.range().0 as i16, t.channels());
                let mut y = vec![0; t.size()];
                let rows = (GRAIN / n).max(1) * n;
                let defined = y
                    .par_chunks_mut(rows)
                    .zip(x.par_chunks(rows))
                    .all(|(y, x)| y.chunks_exact_mut(n).zip(x.chunks_exact(n)).all(|(y, x)| softmax::row(exp, x, low, y).is_some()));
                if !defined {
                    return Err(ExecError::Softmax { place: p.place(index) });
                }
                trace.tensors[*out as usize] = y;
            }
            (Op::MaxPool { x, out, window, clamp }, _) => {
                let channels = p.tensors[*out as usize].channels();
                trace.tensors[*out as usize] =
                    pool::max(&trace.tensors[*x as usize], window, channels, (clamp.0 as i16, clamp.1 as i16), parallel);
            }
            (Op::View { out, pieces, fill }, _) => {
                trace.tensors[*out as usize] = layout::view(p, &trace.tensors, *out, pieces, *fill as i16)
            }
            (Op::Permute { x, out, dims, perm }, _) => {
                trace.tensors[*out as usize] = layout::permute(&trace.tensors[*x as usize], dims, perm)
            }
            // Steps are made from the same operators.
            (Op::Rescale(_) | Op::Contract { .. } | Op::Softmax { .. }, _) => {}
        }
        Ok(())
    }
}

/// Index of the last operator that reads each tensor; outputs are read for ever.
fn last_uses(p: &CheckedProgram) -> Vec<usize> {
    let mut last = vec![0; p.tensors.len()];
    for (i, op) in p.ops.iter().enumerate() {
        check::inputs_of(op).into_iter().for_each(|t| last[t as usize] = i);
    }
    p.outputs.iter().for_each(|o| last[o.tensor as usize] = usize::MAX);
    last
}

#[cfg(test)]
mod tests;
