//! The public tables.

use super::types::{Column, Table, TableKind, TableRef};
use super::{Builder, LayoutError, Source, Term};
use crate::program::DType;
use crate::program::softmax::Exponentials;

fn values(n: usize, f: impl Fn(usize) -> i64) -> Column {
    Column::Values((0..n).map(f).collect::<Vec<_>>().into())
}

/// `clamp(v, lo, hi)` at `v = start + row`; `None` unless both bounds are rows.
fn clamp_steps(start: i64, bits: u8, lo: i64, hi: i64) -> Option<Column> {
    let row = |v: i64| usize::try_from(v - start).ok().filter(|&r| r < 1 << bits);
    Some(Column::Steps(vec![(0, lo, 0), (row(lo)?, start, 1), (row(hi)?, hi, 0)]))
}

/// `[v <= 0]` and `[v < 0]` at `v = start + row`; `None` unless -1, 0 and 1 are rows.
fn sign_steps(start: i64, bits: u8) -> Option<[Column; 2]> {
    let row = |v: i64| usize::try_from(v - start).ok().filter(|&r| r < 1 << bits);
    row(-1)?;
    Some([row(1)?, row(0)?].map(|end| Column::Steps(vec![(0, 1, 0), (end, 0, 0)])))
}

impl Builder<'_> {
    /// The table of a kind, made on first use. Its first column rises by 1 a row, so a tuple is in it at most once: it is a function.
    pub(super) fn table(&mut self, kind: TableKind) -> Result<TableRef, LayoutError> {
        if let Some(&t) = self.tables.get(&kind) {
            return Ok(t);
        }
        let outside =
            |what: &str| LayoutError { operator: format!("{what} table"), why: "its declared rows do not cover its bounds".into() };
        let rising = |first: i64| Column::Steps(vec![(0, first, 1)]);
        let clamped = |lo: i32, hi: i32, (start, bits): (i64, u8)| {
            let column = clamp_steps(start, bits, lo.into(), hi.into()).ok_or_else(|| outside("clamp"))?;
            Ok((bits as usize, start, vec![column]))
        };
        let (log_rows, first, rest) = match &kind {
            TableKind::Range => (self.out.range_bits, 0, vec![]),
            TableKind::DType(d) => (8, i64::from(d.range().0), vec![]),
            TableKind::Clamp(lo, hi) => clamped(*lo, *hi, self.program.clamp_rows)?,
            TableKind::Bounded(lo, hi, log_bound) => clamped(*lo, *hi, (-(1 << log_bound), log_bound + 1))?,
            TableKind::Sign => {
                let (start, bits) = self.program.sign_rows;
                (bits as usize, start, sign_steps(start, bits).ok_or_else(|| outside("sign"))?.into())
            }
            TableKind::Program(t) => {
                let v = &self.program.tables[*t as usize].values;
                (v.len().trailing_zeros() as usize, 0, vec![Column::Values(v.iter().map(|&x| i64::from(x)).collect::<Vec<_>>().into())])
            }
            TableKind::Relu => (8, -128, vec![Column::Steps(vec![(0, 0, 0), (128, -128, 1)])]),
            TableKind::Difference => (8, 0, vec![Column::Steps(vec![(0, 1, 0), (1, 0, 0)])]),
            TableKind::Exp(multiplier, shift) => {
                let exp = Exponentials::new(*multiplier, *shift);
                let is_max = Column::Steps(vec![(0, 1, 0), (1, 0, 0)]);
                (8, 0, vec![values(256, |d| exp.fine[d].into()), values(256, |d| exp.coarse[d].into()), is_max])
            }
            // Filler rows hold 0, which no lookup can use: half would be 0.
            TableKind::Powers => {
                let power = |row: usize, e: usize| if row <= 8 { 1i64 << e } else { 0 };
                (4, 0, vec![values(16, |r| power(r, r + 4)), values(16, |r| power(r, 30usize.saturating_sub(r)))])
            }
            TableKind::Zero => (0, 0, vec![]),
        };
        let mut columns = vec![rising(first)];
        columns.extend(rest);
        let multiplicities = self.witness(1 << log_rows.div_ceil(2), 1 << (log_rows / 2));
        let at = self.out.tables.len();
        self.out.tables.push(Table { kind: kind.clone(), log_rows, first, columns, multiplicities });
        self.tables.insert(kind, at);
        Ok(at)
    }

    pub(super) fn range(&mut self) -> Result<TableRef, LayoutError> {
        self.table(TableKind::Range)
    }

    pub(super) fn dtype_of(&self, tensor: u32) -> DType {
        self.program.tensors[tensor as usize].dtype
    }
}

/// A constant entry.
pub(super) fn constant(value: i64) -> Term {
    Term::new(value, Source::One)
}
