//! The form of a private model: how far the values before its clamps may reach.
//!
//! A public model's tables cover exactly what its weights can reach. A private model must not show that, so its owner chooses a bound
//! `V`, a power of two, and proves once that the weights keep it. What the owner does not choose is the same for all models.

use super::{Op, PrivateForm};

/// `log2 V` of layers for which the owner chose nothing: enough for most networks, whatever their weights.
pub const DEFAULT_LOG_BOUND: u8 = 14;

/// The values before the clamp that weights may reach: with and without the output's zero point they are in `[-V, V)`, so that clamp and
/// sign table have `2 V` rows each.
pub fn span(log_bound: u8, zero: i64) -> (i64, i64) {
    let bound = 1i64 << log_bound;
    (zero.max(0) - bound, bound - 1 + zero.min(0))
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
