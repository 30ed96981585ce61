//! From operators to a checked program: their digital lines, the tables, the number of range bits that costs least.

use rayon::prelude::*;

use super::{Draft, ProgramBuilder, fault, intern};
use crate::program::check::{self, CheckedProgram};
use crate::program::error::{Checked, Fault, ProgramError};
use crate::program::lines::{self, Channel, Interval, Plane};
use crate::program::quantize::{Multiplier, Staircase, is_mean_multiplier, is_multiplier};
use crate::program::{
    Accumulator, Contract, Formula, Line, Op, Program, Rescale, Rule, Tensor, TensorId, Weights, cost, interval, limits, private,
};

/// A draft with its rules.
enum Solved {
    Ready,
    Rules { rules: Vec<Rule>, by_position: bool },
    Add { table: Vec<i16>, plane: Option<Plane> },
}

impl ProgramBuilder {
    /// Finds all lines, chooses `w` (unless given), planes or tables, and the tables' rows, and checks the program with its weights.
    pub fn finish(mut self, range_bits: Option<u8>) -> Checked<(CheckedProgram, Weights)> {
        let drafts = std::mem::take(&mut self.drafts);
        let solved: Vec<Solved> = drafts.par_iter().map(|(label, d)| self.solve(label, d)).collect::<Checked<_>>()?;
        let w = match range_bits {
            Some(w) if (limits::RANGE_BITS.0..=limits::RANGE_BITS.1).contains(&w) => w,
            Some(w) => return Err(fault("range_bits", Fault::Limit, format!("{w} is out of range"))),
            None => self.choose_range_bits(&drafts, &solved),
        };
        let log_bounds = self.private.take().map(|bounds| bounds.of(&drafts)).transpose()?;
        let mut labels = Vec::new();
        let mut accumulators = Vec::new();
        let mut ops = Vec::new();
        for ((label, draft), solved) in drafts.into_iter().zip(solved) {
            let before = ops.len();
            self.assemble(draft, solved, w, &mut accumulators, &mut ops);
            labels.resize(labels.len() + ops.len() - before, label);
        }
        let private = log_bounds.map(|log_bounds| private::form(&ops, log_bounds));
        let mut program = Program {
            name: self.name,
            semantics: self.semantics,
            tensors: self.tensors,
            accumulators,
            constants: self.constants,
            tables: self.tables,
            inputs: self.inputs,
            outputs: self.outputs,
            ops,
            range_bits: w,
            clamp_rows: (0, 0),
            sign_rows: (0, 0),
            private,
        };
        (program.clamp_rows, program.sign_rows) = rows(&program);
        let checked = check::load(program, Some(&self.weights)).map_err(|e| match e.op.and_then(|i| labels.get(i)) {
            Some(label) => ProgramError { place: format!("{label}: {}", e.place), ..e },
            None => e,
        })?;
        Ok((checked, self.weights))
    }

    fn solve(&self, label: &str, draft: &Draft) -> Checked<Solved> {
        match draft {
            Draft::Ready(_) => Ok(Solved::Ready),
            Draft::Add { inputs, out, addition, clamp } => {
                let dtype = |id: TensorId| self.tensors[id as usize].dtype;
                let dtypes = (dtype(inputs.0), dtype(inputs.1));
                let table = addition.table(dtypes, self.tensors[*out as usize].zero_point, *clamp);
                let plane = lines::find_plane(addition, dtypes, *clamp, &table);
                Ok(Solved::Add { table, plane })
            }
            Draft::Rescaled { contract, out, formula, clamp } => self.solve_rules(label, contract, *out, formula, *clamp),
        }
    }

    fn solve_rules(&self, label: &str, contract: &Contract, out: TensorId, formula: &Formula, clamp: (i32, i32)) -> Checked<Solved> {
        let out = &self.tensors[out as usize];
        self.clamp(label, out, clamp)?;
        let clamp = (i64::from(clamp.0), i64::from(clamp.1));
        let (reach, taps) = self.reach(contract, out.channels()).ok_or_else(|| fault(label, Fault::Shape, "weights do not fit"))?;
        let (single, multipliers) = match formula {
            Formula::DoubleRounding(m) => (false, m),
            Formula::SingleRounding(m) => (true, m),
            _ => return Ok(average_rules(contract, &self.tensors, &taps, out.channels(), clamp)),
        };
        let valid = if matches!(contract, Contract::Sum { .. }) { is_mean_multiplier } else { is_multiplier };
        if let Some(m) = multipliers.iter().find(|m| !valid(**m)) {
            return Err(fault(label, Fault::Quantization, format!("multiplier {m:?} is out of range")));
        }
        let hidden = self.private.is_some() && contract.has_weights();
        let find = |(i, (&reach, &m)): (usize, (&Interval, &Multiplier))| {
            let staircase = if single { Staircase::Single(m) } else { Staircase::Double(m) };
            let reach = if hidden { staircase.whole_domain() } else { reach };
            let channel = Channel { staircase, reach, zero: out.zero_point.into(), clamp };
            channel.find().map_err(|e| {
                fault(
                    label,
                    if matches!(e, lines::LineError::Overflow(_)) { Fault::Wrap } else { Fault::Line },
                    format!("channel {i}: {e}"),
                )
            })
        };
        let rules = reach.par_iter().zip(multipliers).enumerate().with_min_len(8).map(find).collect::<Checked<_>>()?;
        Ok(Solved::Rules { rules, by_position: false })
    }

    /// Reachable accumulators of each channel, and valid taps of a sum.
    fn reach(&self, contract: &Contract, channels: usize) -> Option<(Vec<Interval>, Vec<u32>)> {
        if let Contract::Sum { x, window, x_zero } = contract {
            let taps = interval::valid_taps(window);
            let most = taps.iter().copied().max().unwrap_or(0);
            return Some((vec![interval::of_sum(&self.tensors[*x as usize], *x_zero, most); channels], taps));
        }
        let reach = interval::of_weights(&self.tensors, &self.constants, contract, &self.weights)?;
        Some((reach, Vec::new()))
    }

    /// The width of the range table that makes the whole program cheapest.
    fn choose_range_bits(&self, drafts: &[(String, Draft)], solved: &[Solved]) -> u8 {
        let total = |w: u8| -> u64 {
            let operator = |((_, draft), solved): (&(String, Draft), &Solved)| match (draft, solved) {
                (Draft::Rescaled { out, .. }, Solved::Rules { rules, .. }) => {
                    let each = (self.tensors[*out as usize].size() / rules.len()) as u64;
                    rules.iter().map(|r| if let Rule::Line { line, .. } = r { each * cost::rescale(line, w) } else { 0 }).sum()
                }
                (Draft::Add { out, .. }, Solved::Add { plane, .. }) => {
                    let (plane, table) = add_costs(plane.as_ref(), self.tensors[*out as usize].size(), w);
                    plane.map_or(table, |plane| plane.min(table))
                }
                (Draft::Ready(Op::Softmax { out, .. }), _) => match self.tensors.get(*out as usize) {
                    Some(t) => cost::softmax(t.positions() as u64, t.size() as u64, w),
                    None => 0,
                },
                _ => 0,
            };
            (cost::ROW << w) + drafts.iter().zip(solved).map(operator).sum::<u64>()
        };
        // Sums of bits, less 1, are looked up in the range table: taps of a max pool, maxima of a softmax (fewer than 512).
        let counted = drafts.iter().map(|(_, draft)| match draft {
            Draft::Ready(Op::MaxPool { window, .. }) => u64::from(window.kernel.0) * u64::from(window.kernel.1),
            Draft::Ready(Op::Softmax { out, .. }) => self.tensors.get(*out as usize).map_or(1, |t| t.channels().min(511) as u64),
            _ => 1,
        });
        let counting = counted.max().unwrap_or(1).next_power_of_two().ilog2() as u8;
        // Two limbs must hold the largest denominator.
        let denominators = solved.iter().flat_map(|s| match s {
            Solved::Rules { rules, .. } => rules.as_slice(),
            _ => &[],
        });
        let largest = denominators.map(|r| if let Rule::Line { line, .. } = r { line.d } else { 1 }).max().unwrap_or(1);
        let least = (0..limits::RANGE_BITS.1).find(|w| largest <= 1 << (2 * w)).unwrap_or(limits::RANGE_BITS.1);
        (least.max(counting).max(limits::RANGE_BITS.0)..=limits::RANGE_BITS.1).min_by_key(|&w| total(w)).unwrap_or(limits::RANGE_BITS.1)
    }

    fn assemble(&mut self, draft: Draft, solved: Solved, w: u8, accumulators: &mut Vec<Accumulator>, ops: &mut Vec<Op>) {
        let shape = |t: &Tensor| Accumulator { positions: t.positions() as u32, channels: t.channels() as u32 };
        let acc = accumulators.len() as u32;
        match (draft, solved) {
            (Draft::Ready(op), _) => ops.push(op),
            (Draft::Rescaled { contract, out, formula, clamp }, Solved::Rules { rules, by_position }) => {
                let t = &self.tensors[out as usize];
                accumulators.push(shape(t));
                ops.push(Op::Contract { acc, contract });
                let zero = if matches!(formula, Formula::AveragePool) { 0 } else { t.zero_point };
                ops.push(Op::Rescale(Rescale { acc, out, zero, clamp, formula, by_position, rules }));
            }
            (Draft::Add { inputs, out, addition, clamp }, Solved::Add { table, plane }) => {
                let t = &self.tensors[out as usize];
                let (plane_cost, table_cost) = add_costs(plane.as_ref(), t.size(), w);
                match plane {
                    Some(plane) if plane_cost.is_some_and(|c| c <= table_cost) => {
                        let terms = vec![(plane.slopes.0, inputs.0), (plane.slopes.1, inputs.1)];
                        let dtypes = [inputs.0, inputs.1].map(|id| self.tensors[id as usize].dtype);
                        let (low, high) =
                            interval::of_mix(&[(plane.slopes.0, dtypes[0]), (plane.slopes.1, dtypes[1])]).unwrap_or((i64::MIN, i64::MAX));
                        let rules = vec![Rule::Line { low, high, line: plane_line(&plane) }; t.channels()];
                        accumulators.push(shape(t));
                        ops.push(Op::Contract { acc, contract: Contract::Mix { terms } });
                        let (zero, formula) = (t.zero_point, addition.formula());
                        ops.push(Op::Rescale(Rescale { acc, out, zero, clamp, formula, by_position: false, rules }));
                    }
                    _ => {
                        let table = intern(&mut self.tables, table);
                        ops.push(Op::Lookup { inputs: vec![inputs.0, inputs.1], out, table });
                    }
                }
            }
            // `solve` gives each draft its own kind.
            (Draft::Rescaled { .. } | Draft::Add { .. }, _) => {}
        }
    }
}

fn plane_line(plane: &Plane) -> Line {
    Line { a: 1, b_pos: plane.offset, b_neg: plane.offset, d: plane.d }
}

/// Costs of an addition as a plane, if it has one, and as a table.
fn add_costs(plane: Option<&Plane>, size: usize, w: u8) -> (Option<u64>, u64) {
    let fits = plane.filter(|p| p.d <= 1 << (2 * w));
    (fits.map(|p| size as u64 * cost::rescale(&plane_line(p), w)), size as u64 * cost::lookup() + (cost::ROW << 16))
}

fn average_rules(contract: &Contract, tensors: &[Tensor], taps: &[u32], channels: usize, (low, high): (i64, i64)) -> Solved {
    let Contract::Sum { x, .. } = contract else { return Solved::Rules { rules: Vec::new(), by_position: false } };
    let x = &tensors[*x as usize];
    let rule = |&n: &u32| {
        let (from, to) = interval::of_sum(x, 0, n);
        let line = lines::average_line(n.into(), x.dtype);
        let channel = Channel { staircase: Staircase::Average(n.into()), reach: (from, to), zero: 0, clamp: (low, high) };
        match channel.span() {
            Ok(None) => Rule::Constant(channel.output(from) as i32),
            _ => Rule::Line { low: from, high: to, line },
        }
    };
    let by_position = taps.iter().any(|n| *n != taps[0]);
    let rules = if by_position { taps.iter().map(rule).collect() } else { vec![rule(&taps[0]); channels] };
    Solved::Rules { rules, by_position }
}

/// `(start, bits)` of the smallest power of two of rows that covers the values.
fn cover(values: &[i64]) -> (i64, u8) {
    let (least, most) = values.iter().fold((0, 0), |(a, b), &v| (a.min(v), b.max(v)));
    (least, (64 - ((most - least) as u64).leading_zeros()) as u8)
}

/// Rows of the clamp tables: every dtype's values and one beyond, every reachable value of a line, softmax's values. Rows of the sign
/// table: the same without zero point, of lines with two offsets.
fn rows(program: &Program) -> ((i64, u8), (i64, u8)) {
    let (mut values, mut signs) = (Vec::new(), Vec::new());
    for op in &program.ops {
        let (Op::Rescale(Rescale { out, .. }) | Op::Softmax { out, .. } | Op::MaxPool { out, .. }) = op else { continue };
        if let Some(t) = program.tensors.get(*out as usize) {
            let (low, high) = t.dtype.range();
            values.extend([i64::from(low) - 1, i64::from(high) + 1]);
        }
        let Op::Rescale(r) = op else { continue };
        for rule in &r.rules {
            let &Rule::Line { low, high, line } = rule else { continue };
            let mut ends = [low, high].map(|acc| line.value(acc, r.zero.into()));
            match program.log_bound(r.acc) {
                // Such a line has a table of its own.
                Some(bits) => ends = private::span(bits, r.zero.into()).into(),
                None => values.extend(ends),
            }
            if line.two_offsets() {
                signs.extend(ends.map(|v| v - i64::from(r.zero)));
                signs.extend([-1, 1]);
            }
        }
    }
    (cover(&values), cover(&signs))
}
