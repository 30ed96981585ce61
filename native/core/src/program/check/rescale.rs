//! Rescales: every rule against its formula, every equation against wrap-around.

use rayon::prelude::*;

use super::super::error::Fault;
use super::super::lines::{self, Channel, Interval, LineError};
use super::super::quantize::{Addition, Multiplier, Staircase, is_mean_multiplier, is_multiplier};
use super::super::{Contract, Formula, Program, Rescale, Rule, interval, limits, private};
use super::{Checker, Refused, Step, refuse, require};

/// Equations stay below this, a quarter of the field's characteristic.
const WRAP: i128 = 1 << 62;

impl<'a> Checker<'a> {
    pub(super) fn rescale(&mut self, r: &'a Rescale) -> Step {
        let Some(shape) = self.program.accumulators.get(r.acc as usize) else {
            return refuse(Fault::Reference, format!("no accumulator {}", r.acc));
        };
        require(self.sources[r.acc as usize].is_some(), Fault::Reference, || {
            format!("accumulator {} is used before it is defined", r.acc)
        })?;
        let used = self.rescale_of[r.acc as usize].replace(self.index);
        require(used.is_none(), Fault::Reference, || format!("accumulator {} is rescaled twice", r.acc))?;
        let out = self.output(r.out)?;
        let (positions, channels) = (shape.positions as usize, shape.channels as usize);
        require(out.positions() == positions && out.channels() == channels, Fault::Shape, || "the output has another shape".into())?;
        clamp(r.clamp, out.dtype.range())?;
        let average = matches!(r.formula, Formula::AveragePool);
        require(r.zero == if average { 0 } else { out.zero_point }, Fault::Quantization, || {
            format!("zero point {} is not the output's", r.zero)
        })?;
        require(!r.by_position || average, Fault::Unsupported, || "only average pools have rules by position".into())?;
        let count = if r.by_position { positions } else { channels };
        require(r.rules.len() == count, Fault::Shape, || format!("{} rules for {count}", r.rules.len()))?;
        self.rules += count;
        require(self.rules <= limits::RULES, Fault::Limit, || "too many rules".into())?;
        self.rules(r)
    }

    /// The rules of a rescale whose shapes are right.
    pub(super) fn rules(&mut self, r: &Rescale) -> Step {
        let Some(contract) = self.sources[r.acc as usize] else {
            return refuse(Fault::Reference, "its accumulator is not defined");
        };
        let bounds = Bounds::new(self.program, r, contract);
        if let Formula::Add { .. } = r.formula {
            return self.addition(r, contract, &bounds);
        }
        let staircases = staircases(r, contract, self.program)?;
        let reach = self.reach(r, contract)?;
        let channel = |i: usize| {
            if bounds.private.is_some() {
                let reach = staircases[i].whole_domain();
                return Some(Channel { staircase: staircases[i], reach, zero: r.zero.into(), clamp: (r.clamp.0.into(), r.clamp.1.into()) });
            }
            let declared = match r.rules[i] {
                Rule::Line { low, high, .. } => Some((low, high)),
                Rule::Constant(_) => None,
            };
            let reach = reach.as_ref().map(|all| all[i]).or(declared);
            reach.map(|reach| Channel { staircase: staircases[i], reach, zero: r.zero.into(), clamp: (r.clamp.0.into(), r.clamp.1.into()) })
        };
        let two = (0..r.rules.len())
            .into_par_iter()
            .with_min_len(16)
            .map(|i| {
                let what = if r.by_position { "position" } else { "channel" };
                let name = |Refused(fault, detail): Refused| Refused(fault, format!("{what} {i}: {detail}"));
                match channel(i) {
                    Some(c) => {
                        let checked = c.check(&r.rules[i]).map_err(line_fault).and_then(|()| bounds.rule(&r.rules[i], c.zero));
                        let kept = |two| match &reach {
                            Some(all) => bounds.kept(&c, &r.rules[i], all[i]).map(|()| two),
                            _ => Ok(two),
                        };
                        checked.and_then(kept).map_err(name)
                    }
                    None => unreached_constant(r, i, staircases[i]).map_err(name),
                }
            })
            .reduce(|| Ok(false), |a, b| Ok(a? | b?))?;
        require(!two || !matches!(r.formula, Formula::AveragePool), Fault::Unsupported, || "an average has one offset".into())?;
        self.two_offsets |= two;
        Ok(())
    }

    /// Reachable accumulators of each rule; `None` for convolutions without weights.
    fn reach(&self, r: &Rescale, contract: &Contract) -> Step<Option<Vec<Interval>>> {
        match contract {
            Contract::Conv { .. } | Contract::Depthwise { .. } => match self.weights {
                Some(w) => interval::of_weights(&self.program.tensors, &self.program.constants, contract, w)
                    .map_or_else(|| refuse(Fault::Weights, "weights have another shape"), |reach| Ok(Some(reach))),
                None => Ok(None),
            },
            Contract::Sum { x, window, x_zero } => {
                let x = &self.program.tensors[*x as usize];
                let taps = interval::valid_taps(window);
                let most = taps.iter().copied().max().unwrap_or(0);
                let of = |n: u32| interval::of_sum(x, *x_zero, n);
                Ok(Some(if r.by_position { taps.into_iter().map(of).collect() } else { vec![of(most); r.rules.len()] }))
            }
            Contract::Mix { .. } => refuse(Fault::Unsupported, "a mix is rescaled by the formula of ADD only"),
        }
    }

    fn addition(&mut self, r: &Rescale, contract: &Contract, bounds: &Bounds) -> Step {
        let (Some(add), Contract::Mix { terms }) = (Addition::of(&r.formula), contract) else {
            return refuse(Fault::Unsupported, "the formula of ADD needs a mix");
        };
        let [(a, x1), (b, x2)] = terms[..] else {
            return refuse(Fault::Unsupported, "ADD of other than two tensors");
        };
        self.additions += 1;
        require(self.additions <= limits::ADDITIONS, Fault::Limit, || "too many additions".into())?;
        require(add.is_valid(), Fault::Quantization, || "a multiplier of ADD is out of range".into())?;
        let (x1, x2) = (&self.program.tensors[x1 as usize], &self.program.tensors[x2 as usize]);
        let dtypes = (x1.dtype, x2.dtype);
        require(add.zeros == (x1.zero_point, x2.zero_point), Fault::Quantization, || "zero points are not the inputs'".into())?;
        let Some(&first) = r.rules.first() else { return refuse(Fault::Shape, "no rules") };
        require(r.rules.iter().all(|rule| *rule == first), Fault::Line, || "ADD has one rule for all channels".into())?;
        let table = add.table(dtypes, r.zero, r.clamp);
        let exact = match first {
            Rule::Constant(c) => table.iter().all(|&y| i32::from(y) == c),
            Rule::Line { low, high, line } => {
                let reach = interval::of_mix(&[(a, dtypes.0), (b, dtypes.1)]);
                require(reach == Some((low, high)), Fault::Line, || "another interval than the coefficients'".into())?;
                require(lines::is_bounded(&line) && !line.two_offsets(), Fault::Line, || "malformed plane".into())?;
                bounds.rule(&first, r.zero.into())?;
                lines::plane_is_exact((a, b), &line, dtypes, r.clamp, &table)
            }
        };
        require(exact, Fault::Line, || "the plane differs from the formula of ADD".into())
    }
}

/// Without weights a constant channel has no interval to check; its multiplier or its clamp must then leave one output.
fn unreached_constant(r: &Rescale, i: usize, staircase: Staircase) -> Step<bool> {
    let Rule::Constant(c) = r.rules[i] else { return refuse(Fault::Line, "no interval") };
    require((r.clamp.0..=r.clamp.1).contains(&c), Fault::Line, || format!("constant {c} is outside the clamp"))?;
    let forced = staircase.is_constant().then(|| r.zero.clamp(r.clamp.0, r.clamp.1));
    require(forced.is_none_or(|v| v == c), Fault::Line, || "a multiplier of 0 gives another constant".into())?;
    Ok(false)
}

pub(super) fn clamp((low, high): (i32, i32), dtype: (i32, i32)) -> Step {
    require(dtype.0 <= low && low <= high && high <= dtype.1, Fault::Quantization, || {
        format!("clamp [{low}, {high}] is not inside the dtype")
    })
}

fn line_fault(e: LineError) -> Refused {
    Refused(if matches!(e, LineError::Overflow(_)) { Fault::Wrap } else { Fault::Line }, e.to_string())
}

/// The formula of each rule, if the combination of contraction and formula is one of the runtimes'.
fn staircases(r: &Rescale, contract: &Contract, program: &Program) -> Step<Vec<Staircase>> {
    let channels = program.accumulators[r.acc as usize].channels as usize;
    let multipliers = |all: &[Multiplier], of: fn(Multiplier) -> Staircase| {
        require(all.len() == channels, Fault::Shape, || format!("{} multipliers for {channels} channels", all.len()))?;
        let valid = if matches!(contract, Contract::Sum { .. }) { is_mean_multiplier } else { is_multiplier };
        require(all.iter().all(|&m| valid(m)), Fault::Quantization, || "a multiplier is out of range".into())?;
        Ok(all.iter().map(|&m| of(m)).collect())
    };
    match (&r.formula, contract) {
        (Formula::AveragePool, Contract::Sum { x, window, x_zero: 0 }) => {
            let (x, out) = (&program.tensors[*x as usize], &program.tensors[r.out as usize]);
            let equal = (x.dtype, x.scale, x.zero_point) == (out.dtype, out.scale, out.zero_point);
            require(equal, Fault::Quantization, || "an average pool keeps dtype, scale and zero point".into())?;
            let taps = interval::valid_taps(window);
            require(!taps.contains(&0), Fault::Shape, || "a window has no valid cell".into())?;
            let of = |n: &u32| Staircase::Average((*n).into());
            if r.by_position {
                return Ok(taps.iter().map(of).collect());
            }
            require(taps.iter().all(|n| *n == taps[0]), Fault::Line, || "ragged windows need rules by position".into())?;
            Ok(vec![of(&taps[0]); channels])
        }
        (Formula::AveragePool, _) => refuse(Fault::Unsupported, "an average needs a sum of raw values"),
        (Formula::DoubleRounding(m), _) => {
            if let Contract::Sum { x, window, x_zero } = contract {
                require(*x_zero == program.tensors[*x as usize].zero_point, Fault::Quantization, || {
                    "a mean subtracts its zero point".into()
                })?;
                let taps = interval::valid_taps(window);
                require(taps.iter().all(|n| *n == taps[0]), Fault::Shape, || "a mean has equal windows".into())?;
            }
            multipliers(m, Staircase::Double)
        }
        (Formula::SingleRounding(m), Contract::Conv { .. } | Contract::Depthwise { .. }) => multipliers(m, Staircase::Single),
        (Formula::SingleRounding(_) | Formula::Add { .. }, _) => refuse(Fault::Unsupported, "formula and contraction do not go together"),
    }
}

/// The rows of the program's tables that a rescale uses.
struct Bounds {
    range_bits: u32,
    clamp: (i64, i64),
    sign: (i64, i64),
    /// For an accumulator of private weights: the values before the clamp to which their registration binds them.
    private: Option<Interval>,
}

impl Bounds {
    fn new(p: &Program, r: &Rescale, contract: &Contract) -> Self {
        let rows = |(start, bits): (i64, u8)| (start, start + (1 << bits) - 1);
        let private = p.log_bound(r.acc).filter(|_| contract.has_weights()).map(|bits| private::span(bits, r.zero.into()));
        Bounds { range_bits: p.range_bits.into(), clamp: rows(p.clamp_rows_of(r.acc)), sign: rows(p.sign_rows), private }
    }

    /// Checks the owner's own weights against the bounds of a private form: what their registration is going to prove.
    fn kept(&self, channel: &Channel, rule: &Rule, reach: Interval) -> Step {
        if self.private.is_none() {
            return Ok(());
        }
        let (low, high) = channel.reach;
        require(low <= reach.0 && reach.1 <= high, Fault::Wrap, || {
            format!("accumulators in [{}, {}] overflow 32 bits in the kernel", reach.0, reach.1)
        })?;
        let (Rule::Line { line, .. }, Some(span)) = (rule, self.private) else { return Ok(()) };
        // With either offset: the registration does not look at signs.
        let value = |acc: i64, b: i64| (line.a * acc + b).div_euclid(line.d);
        let (first, last) = (value(reach.0, line.b_pos.min(line.b_neg)), value(reach.1, line.b_pos.max(line.b_neg)));
        require(span.0 <= first && last <= span.1, Fault::Weights, || {
            let enough = (limits::LOG_BOUND.0..=limits::LOG_BOUND.1).find(|&bits| {
                let (low, high) = private::span(bits, channel.zero);
                low <= first && last <= high
            });
            let hint = enough.map_or("no bound is large enough".into(), |bits| format!("choose 2^{bits}"));
            format!("values before the clamp reach [{first}, {last}], their bound V is {}: {hint}", -self.clamp.0)
        })
    }

    /// Checks that the tables cover what honest values need and that nothing wraps, for every `v'` that the clamp table admits.
    /// Returns whether the line has two offsets.
    fn rule(&self, rule: &Rule, zero: i64) -> Step<bool> {
        let &Rule::Line { low, high, line } = rule else { return Ok(false) };
        let wide = i128::from;
        let reach = wide(low).abs().max(wide(high).abs());
        let worst = wide(self.clamp.0).abs().max(wide(self.clamp.1).abs() + 1);
        let offset = wide(line.b_pos).abs().max(wide(line.b_neg).abs());
        let top = reach * wide(line.a) + offset + wide(line.d) * worst + (1 << (2 * self.range_bits));
        require(top < WRAP, Fault::Wrap, || "the line's equation could wrap".into())?;
        require(line.d <= 1 << (2 * self.range_bits), Fault::Wrap, || format!("denominator {} needs a third limb", line.d))?;
        if self.private.is_some() {
            require(line.a < limits::PRIVATE_SLOPE, Fault::Wrap, || format!("slope {} of a private line", line.a))?;
            let span = 2 * wide(line.d) * worst;
            require(span <= 1 << limits::PRIVATE_SPAN, Fault::Wrap, || "the registration's equations could wrap".into())?;
        }
        let (first, last) = self.private.unwrap_or_else(|| (line.value(low, zero), line.value(high, zero)));
        let covers = |rows: (i64, i64), a: i64, b: i64| rows.0 <= a && b <= rows.1;
        require(covers(self.clamp, first, last), Fault::Table, || format!("clamp rows do not cover [{first}, {last}]"))?;
        let two = line.two_offsets();
        require(!two || covers(self.sign, first - zero, last - zero), Fault::Table, || "sign rows do not cover the line's values".into())?;
        Ok(two)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Line;

    /// One line against tables; the fault it is refused for.
    fn fault(line: Line, clamp: (i64, i64), reach: i64) -> Option<Fault> {
        let bounds = Bounds { range_bits: 16, clamp, sign: (-1, 1), private: None };
        bounds.rule(&Rule::Line { low: -reach, high: reach, line }, 0).err().map(|e| e.0)
    }

    #[test]
    fn each_term_of_the_wrap_bound_counts() {
        let line = Line { a: 1 << 20, b_pos: 0, b_neg: 0, d: 1 << 32 };
        let rows = (-(1 << 20), (1 << 20) - 1);
        assert_eq!(fault(line, rows, 1 << 31), None);
        assert_eq!(fault(line, rows, 1 << 42), Some(Fault::Wrap));
        assert_eq!(fault(Line { a: 1 << 31, ..line }, rows, 1 << 31), Some(Fault::Wrap));
        assert_eq!(fault(Line { b_pos: 1 << 61, b_neg: 1 << 61, ..line }, (-(1 << 29), (1 << 29) - 1), 1 << 31), Some(Fault::Wrap));
        // The clamp table admits values that no honest prover has.
        assert_eq!(fault(line, (-(1 << 30), (1 << 20) - 1), 1 << 31), Some(Fault::Wrap));
        assert_eq!(fault(line, (-(1 << 20), (1 << 30) - 1), 1 << 31), Some(Fault::Wrap));
        assert_eq!(fault(Line { d: (1 << 32) + 1, ..line }, rows, 1 << 31), Some(Fault::Wrap));
    }

    #[test]
    fn private_lines_leave_room_for_their_registration() {
        let fault = |line: Line, bound: i64| {
            let bounds =
                Bounds { range_bits: 20, clamp: (-bound, bound - 1), sign: (0, 0), private: Some(private::span(bound.ilog2() as u8, 0)) };
            bounds.rule(&Rule::Line { low: 1 - (1 << 31), high: (1 << 31) - 1, line }, 0).err().map(|e| e.0)
        };
        let line = Line { a: (1 << 29) - 1, b_pos: 0, b_neg: 0, d: 1 << 36 };
        assert_eq!(fault(line, 1 << 23), None);
        assert_eq!(fault(Line { a: 1 << 29, ..line }, 1 << 23), Some(Fault::Wrap));
        assert_eq!(fault(Line { d: (1 << 36) + 1, ..line }, 1 << 23), Some(Fault::Wrap));
        // Values of the whole domain are beyond the rows: the registration keeps the weights away from them.
        assert_eq!(fault(Line { d: 1, ..line }, 1 << 8), None);
    }

    #[test]
    fn tables_cover_what_is_reachable() {
        let line = Line { a: 1, b_pos: 0, b_neg: 0, d: 2 };
        assert_eq!(fault(line, (-5, 5), 10), None);
        assert_eq!(fault(line, (-4, 5), 10), Some(Fault::Table));
        assert_eq!(fault(line, (-5, 4), 10), Some(Fault::Table));
        assert_eq!(fault(Line { b_neg: -1, ..line }, (-8, 8), 1), None);
        assert_eq!(fault(Line { b_neg: -1, ..line }, (-8, 8), 10), Some(Fault::Table));
    }
}
