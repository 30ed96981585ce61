//! Requantisation of whole rows: the formulas of `program::quantize` over channels side by side.

use rayon::prelude::*;

use crate::program::interval::valid_taps;
use crate::program::quantize::average;
use crate::program::{Contract, Formula, Rescale, Rule, TensorId};

use super::kernels::DoubleRounding;

/// A rescale's formula, ready for rows.
#[derive(Debug)]
pub(super) struct Requantize {
    formula: Rows,
    zero: i64,
    clamp: (i64, i64),
}

#[derive(Debug)]
enum Rows {
    Double(DoubleRounding),
    Single(Vec<Channel>),
    /// Valid cells at each position.
    Average(Vec<u32>),
    /// ADD's plane has no accumulators.
    None,
}

/// Single rounding of one channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    multiplier: i64,
    right: u32,
    /// Half of the divisor.
    half: i64,
}

impl Requantize {
    pub(super) fn new(r: &Rescale, contract: &Contract) -> Self {
        let formula = match (&r.formula, contract) {
            (Formula::DoubleRounding(m), _) => Rows::Double(DoubleRounding::new(m, r.zero, r.clamp)),
            (Formula::SingleRounding(m), _) => {
                let channel = |&(m, e): &(i32, i8)| {
                    let right = (31 + i32::from(e)) as u32;
                    Channel { multiplier: m.into(), right, half: 1 << (right - 1) }
                };
                Rows::Single(m.iter().map(channel).collect())
            }
            (Formula::AveragePool, Contract::Sum { window, .. }) => Rows::Average(valid_taps(window)),
            _ => Rows::None,
        };
        Requantize { formula, zero: r.zero.into(), clamp: (r.clamp.0.into(), r.clamp.1.into()) }
    }

    /// Outputs of whole rows of accumulators from position `first`.
    pub(super) fn rows(&self, first: usize, acc: &[i32], out: &mut [i16], channels: usize) {
        let (zero, (low, high)) = (self.zero, self.clamp);
        let rows = acc.chunks_exact(channels).zip(out.chunks_exact_mut(channels));
        match &self.formula {
            Rows::Double(d) => d.rows(acc, out),
            Rows::Single(all) => {
                for (acc, out) in rows {
                    for ((y, &acc), c) in out.iter_mut().zip(acc).zip(all) {
                        // |acc M| < 2^62 and half <= 2^61.
                        let v = (i64::from(acc) * c.multiplier + c.half) >> c.right;
                        *y = (v + zero).clamp(low, high) as i16;
                    }
                }
            }
            Rows::Average(taps) => {
                for ((acc, out), &n) in rows.zip(&taps[first..]) {
                    out.iter_mut().zip(acc).for_each(|(y, &s)| *y = (average(s.into(), n.into()) + zero).clamp(low, high) as i16);
                }
            }
            Rows::None => {}
        }
    }
}

/// ADD or SUB by its plane, which the program's checks found equal to the formula on all pairs.
#[derive(Debug)]
pub(super) struct Plane {
    terms: Vec<(i64, TensorId)>,
    rule: Rule,
    clamp: (i64, i64),
}

impl Plane {
    pub(super) fn new(terms: &[(i64, TensorId)], r: &Rescale) -> Self {
        Plane { terms: terms.to_vec(), rule: r.rules[0], clamp: (r.clamp.0.into(), r.clamp.1.into()) }
    }

    pub(super) fn run(&self, tensors: &[Vec<i16>], out: &mut [i16], parallel: bool) {
        let line = match self.rule {
            Rule::Constant(c) => return out.fill(c as i16),
            Rule::Line { line, .. } => line,
        };
        let [(p, x1), (q, x2)] = self.terms[..] else { return };
        let (x1, x2) = (&tensors[x1 as usize][..], &tensors[x2 as usize][..]);
        let (p, q, b) = (p * line.a, q * line.a, line.b_pos);
        let (low, high) = self.clamp;
        let power = (line.d & (line.d - 1) == 0).then(|| line.d.trailing_zeros());
        let run = |x1: &[i16], x2: &[i16], out: &mut [i16]| {
            let sums = x1.iter().zip(x2).map(|(&x1, &x2)| p * i64::from(x1) + q * i64::from(x2) + b);
            match power {
                Some(k) => out.iter_mut().zip(sums).for_each(|(y, s)| *y = (s >> k).clamp(low, high) as i16),
                None => out.iter_mut().zip(sums).for_each(|(y, s)| *y = s.div_euclid(line.d).clamp(low, high) as i16),
            }
        };
        if parallel {
            let grain = 1 << 15;
            out.par_chunks_mut(grain).zip(x1.par_chunks(grain).zip(x2.par_chunks(grain))).for_each(|(y, (x1, x2))| run(x1, x2, y));
        } else {
            run(x1, x2, out);
        }
    }
}
