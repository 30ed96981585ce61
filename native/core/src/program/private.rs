//! The form of a private model: how far the values before its clamps may reach.
//!
//! A public model's tables cover exactly what its weights can reach. A private model must not show that, so its owner chooses a bound
//! `V`, a power of two, and proves once that the weights keep it. The default depends on shapes and scales only; it holds for every int8
//! weight unless biases are out of proportion.

use super::interval::centred;
use super::{Constant, Contract, Op, PrivateForm, Rule, Tensor, limits};

/// Output steps that the default bound leaves for biases, beyond what weights can add up to.
const BIASES: i64 = 1 << 12;

/// `log2` of the smallest `V` that holds for all int8 weights of this shape and scale, with biases of up to 2^12 steps of the output.
/// `rules` are those of the whole domain.
pub fn default_log_bound(tensors: &[Tensor], constants: &[Constant], contract: &Contract, rules: &[Rule], zero: i64) -> u8 {
    let (x, weights, x_zero, depthwise) = match *contract {
        Contract::Conv { x, weights, x_zero, .. } => (x, weights, x_zero, false),
        Contract::Depthwise { x, weights, x_zero, .. } => (x, weights, x_zero, true),
        Contract::Sum { .. } | Contract::Mix { .. } => return 0,
    };
    let dims = &constants[weights as usize].dims;
    let taps: i64 = if depthwise { &dims[..2] } else { &dims[1..] }.iter().map(|&d| i64::from(d)).product();
    let (low, high) = centred(tensors[x as usize].dtype, x_zero);
    let reach = taps * 128 * high.max(-low);
    let value = |rule: &Rule| match rule {
        Rule::Constant(_) => 0,
        Rule::Line { low, high, line } => {
            let ends = [(-reach).max(*low), reach.min(*high)].map(|acc| line.value(acc, zero).abs());
            ends[0].max(ends[1]) + BIASES
        }
    };
    let most = rules.iter().map(value).max().unwrap_or(0);
    // V itself is no row.
    let bits = (most.unsigned_abs() + 1).next_power_of_two().ilog2() as u8;
    bits.clamp(limits::LOG_BOUND.0, limits::LOG_BOUND.1)
}

/// The form of a program with these operators, for the bounds of its layers with weights in order.
pub(super) fn form(ops: &[Op], log_bounds: Vec<u8>) -> PrivateForm {
    let mut bounds = log_bounds.into_iter();
    let of = |op: &Op| match op {
        Op::Contract { contract, .. } if contract.has_weights() => bounds.next(),
        Op::Contract { .. } => Some(0),
        _ => None,
    };
    PrivateForm { log_bounds: ops.iter().filter_map(of).collect() }
}
