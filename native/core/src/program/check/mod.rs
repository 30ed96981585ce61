//! `load`: the only way from a [`Program`] to a [`CheckedProgram`], whatever its origin.
//!
//! A checked program has sound references and shapes, values inside their dtypes, rules that equal the runtime's formulas on all
//! reachable accumulators, and no equation that could wrap modulo the field's characteristic. Without weights the accumulators'
//! intervals are taken as declared. A private form declares nothing about weights: its lines hold on all accumulators that overflow
//! nothing.

pub(super) mod contract;
mod layout;
mod rescale;

use std::collections::HashSet;
use std::ops::Deref;

use super::error::{Checked, Fault, ProgramError};
use super::{Contract, DType, Op, Port, Program, Tensor, TensorId, Weights, interval, limits};

/// A program that passed every check. Immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedProgram {
    program: Program,
    /// The rescale of each accumulator.
    rescale_of: Vec<usize>,
}

impl Deref for CheckedProgram {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl CheckedProgram {
    /// Index of the operator that rescales accumulator `acc`: there is exactly one.
    pub fn rescale_of(&self, acc: super::AccId) -> usize {
        self.rescale_of[acc as usize]
    }

    /// Kind, index and output of an operator, for people.
    pub fn place(&self, op: usize) -> String {
        place(&self.program, op)
    }
}

/// Checks everything. With `weights`, they are checked too and every interval and constant is recomputed from them.
pub fn load(program: Program, weights: Option<&Weights>) -> Checked<CheckedProgram> {
    counts(&program)?;
    tensors(&program)?;
    constants(&program)?;
    private(&program)?;
    if let Some(w) = weights {
        check_weights(&program, w)?;
    }
    let mut checker = Checker::new(&program, weights);
    checker.ports_in()?;
    for (i, op) in program.ops.iter().enumerate() {
        checker.operator(op).map_err(|f| f.at(&program, i))?;
    }
    checker.ports_out()?;
    checker.totals()?;
    let rescale_of = checker.finish()?;
    Ok(CheckedProgram { program, rescale_of })
}

/// Checks that `weights` have the declared shapes and ranges, and give the program's intervals and constant channels.
pub fn load_weights(program: &CheckedProgram, weights: &Weights) -> Checked<()> {
    check_weights(program, weights)?;
    let mut checker = Checker::new(program, Some(weights));
    for (i, op) in program.ops.iter().enumerate() {
        if let Op::Rescale(r) = op {
            checker.rules(r).map_err(|f| f.at(program, i))?;
        } else if let Op::Contract { acc, contract } = op {
            checker.sources[*acc as usize] = Some(contract);
        }
    }
    Ok(())
}

/// A fault whose operator the caller knows.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Fault, pub(super) String);

impl Refused {
    fn at(self, program: &Program, op: usize) -> ProgramError {
        ProgramError { op: Some(op), ..ProgramError::new(self.0, place(program, op), self.1) }
    }
}

pub(super) type Step<T = ()> = Result<T, Refused>;

fn require(condition: bool, fault: Fault, detail: impl FnOnce() -> String) -> Step {
    if condition { Ok(()) } else { Err(Refused(fault, detail())) }
}

fn refuse<T>(fault: Fault, detail: impl Into<String>) -> Step<T> {
    Err(Refused(fault, detail.into()))
}

/// The field's word for an operator.
pub fn kind(op: &Op) -> &'static str {
    match op {
        Op::Contract { contract: Contract::Conv { .. }, .. } => "convolution",
        Op::Contract { contract: Contract::Depthwise { .. }, .. } => "depthwise convolution",
        Op::Contract { contract: Contract::Sum { .. }, .. } => "sum",
        Op::Contract { contract: Contract::Mix { .. }, .. } => "mix",
        Op::Rescale(_) => "rescale",
        Op::Lookup { .. } => "lookup",
        Op::Softmax { .. } => "softmax",
        Op::MaxPool { .. } => "max pool",
        Op::View { .. } => "view",
        Op::Permute { .. } => "permute",
    }
}

/// The tensors that an operator reads.
pub fn inputs_of(op: &Op) -> Vec<TensorId> {
    match op {
        Op::Contract { contract, .. } => match contract {
            Contract::Conv { x, .. } | Contract::Depthwise { x, .. } | Contract::Sum { x, .. } => vec![*x],
            Contract::Mix { terms } => terms.iter().map(|t| t.1).collect(),
        },
        Op::Rescale(_) => Vec::new(),
        Op::Lookup { inputs, .. } => inputs.clone(),
        Op::Softmax { x, .. } | Op::MaxPool { x, .. } | Op::Permute { x, .. } => vec![*x],
        Op::View { pieces, .. } => pieces.iter().map(|p| p.source).collect(),
    }
}

/// Kind, index and output of an operator, for people.
pub fn place(program: &Program, op: usize) -> String {
    let Some(o) = program.ops.get(op) else { return "program".into() };
    let name = program.output_of(o).and_then(|t| program.tensors.get(t as usize)).map_or("?", |t| t.name.as_str());
    format!("operator {op} ({} of {name:?})", kind(o))
}

fn counts(p: &Program) -> Checked<()> {
    let program = |fault, detail: &str| Err(ProgramError::new(fault, "program", detail));
    if p.name.len() > limits::NAME {
        return program(Fault::Name, "name too long");
    }
    if [p.tensors.len(), p.accumulators.len(), p.constants.len(), p.tables.len(), p.ops.len()].into_iter().any(|n| n > limits::ITEMS) {
        return program(Fault::Limit, "too many tensors, accumulators, constants, tables or operators");
    }
    if p.inputs.is_empty() || p.outputs.is_empty() || p.inputs.len() > limits::ITEMS || p.outputs.len() > limits::ITEMS {
        return program(Fault::Limit, "needs at least one input and one output");
    }
    if p.range_bits < limits::RANGE_BITS.0 || p.range_bits > limits::RANGE_BITS.1 {
        return program(Fault::Limit, "range table has too few or too many rows");
    }
    for (start, bits) in [p.clamp_rows, p.sign_rows] {
        if bits > limits::ROW_BITS || start.unsigned_abs() > 1 << 40 {
            return program(Fault::Limit, "clamp or sign table out of range");
        }
    }
    if p.tables.iter().map(|t| t.values.len()).sum::<usize>() > limits::TABLE_VALUES {
        return program(Fault::Limit, "tables are too large");
    }
    Ok(())
}

fn dimensions(dims: &[u32], rank: usize) -> Option<usize> {
    if dims.is_empty() || dims.len() > rank || dims.iter().any(|&d| d == 0 || d > limits::DIMENSION) {
        return None;
    }
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d as usize)).filter(|&n| n <= limits::CELLS)
}

fn tensors(p: &Program) -> Checked<()> {
    let mut names = HashSet::new();
    let mut cells = 0;
    for t in &p.tensors {
        let place = || format!("tensor {:?}", t.name);
        if t.name.len() > limits::NAME {
            return Err(ProgramError::new(Fault::Name, "tensor", "name too long"));
        }
        if !names.insert(t.name.as_str()) {
            return Err(ProgramError::new(Fault::Name, place(), "name is not unique"));
        }
        let Some(size) = dimensions(&t.dims, limits::RANK) else {
            return Err(ProgramError::new(Fault::Shape, place(), format!("bad dimensions {:?}", t.dims)));
        };
        cells += size;
        let (low, high) = t.dtype.range();
        if t.zero_point < low || t.zero_point > high {
            return Err(ProgramError::new(Fault::Quantization, place(), format!("zero point {} is outside its dtype", t.zero_point)));
        }
        if t.scale.is_some_and(|s| !f32::from_bits(s).is_normal() || f32::from_bits(s) < 0.0) {
            return Err(ProgramError::new(Fault::Quantization, place(), "scale is not a positive normal number"));
        }
    }
    for a in &p.accumulators {
        if a.positions == 0 || a.channels == 0 {
            return Err(ProgramError::new(Fault::Shape, "accumulator", "empty"));
        }
        cells += (a.positions as usize).saturating_mul(a.channels as usize).min(limits::CELLS + 1);
    }
    if cells > limits::CELLS {
        return Err(ProgramError::new(Fault::Limit, "program", format!("more than {} cells", limits::CELLS)));
    }
    Ok(())
}

fn constants(p: &Program) -> Checked<()> {
    let mut total = 0usize;
    for (i, c) in p.constants.iter().enumerate() {
        let Some(size) = dimensions(&c.dims, 4) else {
            return Err(ProgramError::new(Fault::Shape, format!("constant {i}"), format!("bad dimensions {:?}", c.dims)));
        };
        if c.range.0 > c.range.1 {
            return Err(ProgramError::new(Fault::Weights, format!("constant {i}"), "empty range"));
        }
        total += size;
    }
    if total > limits::WEIGHTS {
        return Err(ProgramError::new(Fault::Limit, "program", format!("more than {} weights", limits::WEIGHTS)));
    }
    Ok(())
}

/// The declarations of a private form: bounds for the accumulators that weights make and no others, and nothing chosen about constants.
fn private(p: &Program) -> Checked<()> {
    let Some(form) = &p.private else { return Ok(()) };
    let refused = |fault, detail: &str| Err(ProgramError::new(fault, "private form", detail));
    if p.constants.is_empty() {
        return refused(Fault::Weights, "there are no weights to hide");
    }
    let mut weighted = vec![false; p.accumulators.len()];
    for op in &p.ops {
        let Op::Contract { acc, contract } = op else { continue };
        let (Contract::Conv { weights, bias, .. } | Contract::Depthwise { weights, bias, .. }) = contract else { continue };
        if let Some(w) = weighted.get_mut(*acc as usize) {
            *w = true;
        }
        let range = |id: Option<u32>| id.and_then(|id| p.constants.get(id as usize)).map(|c| c.range);
        if range(Some(*weights)).is_some_and(|r| r != (-128, 127)) || range(*bias).is_some_and(|r| r != (i32::MIN, i32::MAX)) {
            return refused(Fault::Weights, "private weights are int8 and biases int32");
        }
    }
    let fits = |(&bits, &weighted): (&u8, &bool)| match weighted {
        true => (limits::LOG_BOUND.0..=limits::LOG_BOUND.1).contains(&bits),
        false => bits == 0,
    };
    if form.log_bounds.len() != weighted.len() || !form.log_bounds.iter().zip(&weighted).all(fits) {
        return refused(Fault::Limit, "each accumulator that weights make has one bound, and no other has");
    }
    Ok(())
}

fn check_weights(p: &Program, weights: &Weights) -> Checked<()> {
    if weights.values.len() != p.constants.len() {
        return Err(ProgramError::new(
            Fault::Weights,
            "weights",
            format!("{} arrays for {} constants", weights.values.len(), p.constants.len()),
        ));
    }
    for (i, (c, values)) in p.constants.iter().zip(&weights.values).enumerate() {
        let place = || format!("constant {i} {:?}", c.dims);
        if Some(values.len()) != dimensions(&c.dims, 4) {
            return Err(ProgramError::new(Fault::Weights, place(), format!("{} values", values.len())));
        }
        if values.iter().any(|&v| v < c.range.0 || v > c.range.1) {
            return Err(ProgramError::new(Fault::Weights, place(), "a value is outside the declared range"));
        }
    }
    Ok(())
}

/// State of one pass over the operators.
struct Checker<'a> {
    program: &'a Program,
    weights: Option<&'a Weights>,
    defined: Vec<bool>,
    /// Contraction that defined each accumulator.
    sources: Vec<Option<&'a Contract>>,
    rescale_of: Vec<Option<usize>>,
    constant_used: Vec<bool>,
    table_used: Vec<bool>,
    /// Smallest and largest value of each table.
    table_range: Vec<(i16, i16)>,
    index: usize,
    macs: u64,
    packed: usize,
    rules: usize,
    additions: usize,
    pieces: usize,
    two_offsets: bool,
}

impl<'a> Checker<'a> {
    fn new(program: &'a Program, weights: Option<&'a Weights>) -> Self {
        Checker {
            program,
            weights,
            defined: vec![false; program.tensors.len()],
            sources: vec![None; program.accumulators.len()],
            rescale_of: vec![None; program.accumulators.len()],
            constant_used: vec![false; program.constants.len()],
            table_used: vec![false; program.tables.len()],
            table_range: program
                .tables
                .iter()
                .map(|t| t.values.iter().fold((i16::MAX, i16::MIN), |r, &v| (r.0.min(v), r.1.max(v))))
                .collect(),
            index: 0,
            macs: 0,
            packed: 0,
            rules: 0,
            additions: 0,
            pieces: 0,
            two_offsets: false,
        }
    }

    fn operator(&mut self, op: &'a Op) -> Step {
        match op {
            Op::Contract { acc, contract } => self.contract(*acc, contract)?,
            Op::Rescale(r) => self.rescale(r)?,
            Op::Lookup { inputs, out, table } => self.lookup(inputs, *out, *table)?,
            Op::Softmax { x, out, multiplier, shift } => self.softmax(*x, *out, *multiplier, *shift)?,
            Op::MaxPool { x, out, window, clamp } => self.max_pool(*x, *out, window, *clamp)?,
            Op::View { out, pieces, fill } => self.view(*out, pieces, *fill)?,
            Op::Permute { x, out, dims, perm } => self.permute(*x, *out, dims, perm)?,
        }
        self.index += 1;
        Ok(())
    }

    /// A tensor that is defined.
    fn input(&self, id: TensorId) -> Step<&'a Tensor> {
        match self.program.tensors.get(id as usize) {
            Some(t) if self.defined[id as usize] => Ok(t),
            Some(t) => refuse(Fault::Reference, format!("tensor {:?} is used before it is defined", t.name)),
            None => refuse(Fault::Reference, format!("no tensor {id}")),
        }
    }

    /// A tensor that is defined here, for the first time.
    fn output(&mut self, id: TensorId) -> Step<&'a Tensor> {
        match self.program.tensors.get(id as usize) {
            Some(t) if self.defined[id as usize] => refuse(Fault::Reference, format!("tensor {:?} is defined twice", t.name)),
            Some(t) => {
                self.defined[id as usize] = true;
                Ok(t)
            }
            None => refuse(Fault::Reference, format!("no tensor {id}")),
        }
    }

    fn ports_in(&mut self) -> Checked<()> {
        for port in &self.program.inputs {
            let name = self.port(port)?;
            if std::mem::replace(&mut self.defined[port.tensor as usize], true) {
                return Err(ProgramError::new(Fault::Reference, name, "is an input twice"));
            }
        }
        Ok(())
    }

    fn ports_out(&self) -> Checked<()> {
        let mut seen = HashSet::new();
        for port in &self.program.outputs {
            let name = self.port(port)?;
            if !self.defined[port.tensor as usize] || !seen.insert(port.tensor) {
                return Err(ProgramError::new(Fault::Reference, name, "is an output twice or never defined"));
            }
        }
        Ok(())
    }

    fn port(&self, port: &Port) -> Checked<String> {
        let Some(t) = self.program.tensors.get(port.tensor as usize) else {
            return Err(ProgramError::new(Fault::Reference, "ports", format!("no tensor {}", port.tensor)));
        };
        let place = format!("tensor {:?}", t.name);
        if port.edge == super::Edge::Float && t.scale.is_none() {
            return Err(ProgramError::new(Fault::Quantization, place, "a float port needs a scale"));
        }
        Ok(place)
    }

    fn totals(&self) -> Checked<()> {
        if self.macs > limits::MACS {
            return Err(ProgramError::new(Fault::Limit, "program", "too many multiply-accumulates"));
        }
        if self.two_offsets != (self.program.sign_rows.1 > 0) || (!self.two_offsets && self.program.sign_rows != (0, 0)) {
            return Err(ProgramError::new(Fault::Table, "program", "a sign table without a line of two offsets, or the reverse"));
        }
        Ok(())
    }

    /// Nothing may be left undefined or unused that a proof would commit to without constraining it.
    fn finish(self) -> Checked<Vec<usize>> {
        let program = |detail: String| Err(ProgramError::new(Fault::Reference, "program", detail));
        if let Some(i) = self.defined.iter().position(|d| !d) {
            return program(format!("tensor {:?} is never defined", self.program.tensors[i].name));
        }
        if let Some(i) = self.constant_used.iter().position(|d| !d) {
            return program(format!("constant {i} is never used"));
        }
        if let Some(i) = self.table_used.iter().position(|d| !d) {
            return program(format!("table {i} is never used"));
        }
        let rescales: Option<Vec<usize>> = self.rescale_of.into_iter().collect();
        rescales.map_or_else(|| program("an accumulator is never rescaled".into()), Ok)
    }
}

/// Bounds of `x - x_zero`, which must contain 0: a missing tap is an input of 0.
fn centred(dtype: DType, x_zero: i32) -> Step<super::lines::Interval> {
    let (low, high) = interval::centred(dtype, x_zero);
    require(low <= 0 && high >= 0, Fault::Quantization, || format!("input zero point {x_zero} is outside its dtype"))?;
    Ok((low, high))
}

#[cfg(test)]
mod tests;
