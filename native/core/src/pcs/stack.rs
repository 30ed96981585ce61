//! All oracles of a proof as one long vector.
//!
//! The global index of a cell is `column L_max + row stride`: oracles take aligned ranges of columns, widest first (ties in the order of role,
//! then index), each, its mask included, rounded up to a power of two; an oracle with `L < L_max` rows enters as `f(X^stride)`, `stride = L_max / L`.
//! The bits below `log2(L_max)` are folded in the coefficient basis, those above in the evaluation basis.
//!
//! The mask of the combination of all columns is a column of the witness's oracle, with its stride. It covers what is secret: hiding oracles are no
//! longer than that one, so that their columns have coefficients at multiples of its stride only. The others are of weights that are public.

use std::sync::Arc;

use super::oracle::{Hiding, OracleLayout};
use crate::blocks::Block;
use crate::eq::log2_ceil;
use crate::parameters::ORACLE_LOG_BLOWUP;

/// The oracles of a proof and where their columns lie.
#[derive(Clone, Debug)]
pub struct Stack {
    /// In the order given, which is the order of roots and of openings.
    pub layouts: Vec<Arc<OracleLayout>>,
    /// First column of each oracle.
    pub bases: Vec<usize>,
    /// `log2(L_max)`.
    pub log_rows: usize,
    /// `log2` of the columns.
    pub column_bits: usize,
}

/// A block's place among the variables: `start` idle ones, then `channels`, then `positions`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub start: usize,
    pub channels: usize,
    pub positions: usize,
    /// Global index of the block's first cell.
    pub index: usize,
}

impl Span {
    /// The variable at which only a scalar is left.
    pub fn end(&self) -> usize {
        self.start + self.channels + self.positions
    }
}

impl Stack {
    /// Stacks oracles, at least one.
    pub fn new(layouts: Vec<Arc<OracleLayout>>) -> Stack {
        let mut order: Vec<usize> = (0..layouts.len()).collect();
        let width = |o: usize| layouts[o].stack_columns().next_power_of_two();
        order.sort_by_key(|&o| (core::cmp::Reverse(width(o)), layouts[o].role, layouts[o].index));
        let (mut bases, mut total) = (vec![0; layouts.len()], 0);
        for o in order {
            bases[o] = total;
            total += width(o);
        }
        let log_rows = layouts.iter().map(|o| o.log_rows).max().unwrap_or(0);
        // Under a longer oracle a mask would leave some of the combination's coefficients as they are.
        let secret = layouts.iter().filter(|o| o.hiding != Hiding::None).map(|o| o.log_rows).max().unwrap_or(0);
        let short = |o: &Arc<OracleLayout>| o.has_mask() && o.log_rows < secret;
        assert!(!layouts.iter().any(short), "an oracle with a mask is as long as the longest that hides");
        Stack { bases, log_rows, column_bits: log2_ceil(total.max(1)), layouts }
    }

    /// `log2` of the stride of the oracle with the mask; 0 without one.
    pub(crate) fn log_mask_stride(&self) -> usize {
        self.layouts.iter().position(|o| o.has_mask()).map_or(0, |o| self.log_stride(o))
    }

    /// Coefficients of the combination of all columns from `X^(2^log_rows)` on, as many powers apart as the mask's stride.
    pub(crate) fn pads(&self) -> usize {
        self.layouts.iter().map(|o| o.pads()).max().unwrap_or(0)
    }

    /// `log2` of the points at which the combination of all columns is encoded.
    pub(crate) fn log_domain(&self) -> usize {
        self.log_rows + ORACLE_LOG_BLOWUP
    }

    /// Variables of the opening sumcheck.
    pub fn variables(&self) -> usize {
        self.log_rows + self.column_bits
    }

    /// `log2` of an oracle's stride.
    pub(crate) fn log_stride(&self, oracle: usize) -> usize {
        self.log_rows - self.layouts[oracle].log_rows
    }

    pub(crate) fn span(&self, oracle: usize, block: &Block) -> Span {
        self.span_of(oracle, block.offset, block.channels.log(), block.positions.log())
    }

    /// The span of any aligned cells of an oracle.
    pub(crate) fn span_of(&self, oracle: usize, offset: usize, channels: usize, positions: usize) -> Span {
        let start = self.log_stride(oracle);
        Span { start, channels, positions, index: (self.bases[oracle] << self.log_rows) + (offset << start) }
    }

    /// What the opening absorbs first: the number of oracles and each one's descriptor and root.
    pub(crate) fn to_bytes(&self, roots: &[[u8; 32]]) -> Vec<u8> {
        let mut out = (self.layouts.len() as u32).to_le_bytes().to_vec();
        for (oracle, root) in self.layouts.iter().zip(roots) {
            out.extend(oracle.to_bytes());
            out.extend_from_slice(root);
        }
        out
    }
}
