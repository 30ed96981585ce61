//! Rescales as digital lines (design section 5).
//!
//! With `R = acc a + b - d v'`: `R` and `d - 1 - R` lie in `[0, 2^w)`, and `(v', y)` is in the clamp table. Where `d > 2^w` one high limb
//! for each check is committed; where one offset does not fit, `b` depends on the committed signs `n1 = [v <= zero]`, `n2 = [v < zero]`:
//! the lower check uses `n1`, the upper one `n2`.

use std::collections::BTreeMap;

use super::recipe::{Recipe, RescaleCells};
use super::tables::constant;
use super::types::{Index, Source, StorageId, TableKind, Term, View, ViewPiece};
use super::{Builder, LayoutError};
use crate::program::{Line, Rescale, Rule};

impl Builder<'_> {
    pub(super) fn rescale(&mut self, op: &Rescale) -> Result<(), LayoutError> {
        let accumulator = self.contracts[&op.acc];
        let (p, c) = (self.out.accumulators[accumulator].positions, self.out.accumulators[accumulator].channels);
        let w = self.out.range_bits;
        let mut view = View { positions: p, channels: c, ..View::default() };
        let needs_limb = |l: &Line| l.d > 1 << w;

        // Groups of channels that need the same columns; constant channels are public.
        let mut groups: BTreeMap<(bool, bool), (Vec<u32>, Vec<Line>)> = BTreeMap::new();
        if op.by_position {
            let lines: Vec<Line> = op
                .rules
                .iter()
                .map(|r| match r {
                    Rule::Line { line, .. } => Ok(*line),
                    Rule::Constant(_) => Err(self.fail(op.out, "a position with a constant output")),
                })
                .collect::<Result<_, _>>()?;
            let key = (lines.iter().any(Line::two_offsets), lines.iter().any(needs_limb));
            groups.insert(key, ((0..c as u32).collect(), lines));
        } else {
            let mut dead = vec![0i64; c];
            for (channel, rule) in op.rules.iter().enumerate() {
                match rule {
                    Rule::Constant(v) => dead[channel] = i64::from(*v),
                    Rule::Line { line, .. } => {
                        let g = groups.entry((line.two_offsets(), needs_limb(line))).or_default();
                        g.0.push(channel as u32);
                        g.1.push(*line);
                    }
                }
            }
            if dead.iter().any(|&v| v != 0) {
                view.constants.push((vec![1; p], dead));
            }
        }

        for ((two, limb), (channels, lines)) in groups {
            if lines.iter().any(|l| l.d > 1 << (2 * w)) {
                return Err(self.fail(op.out, "the line's denominator needs a third limb"));
            }
            let channels = Index::from_list(channels);
            let n = channels.len();
            let cells = RescaleCells {
                y: self.witness(p, n),
                v: self.witness(p, n),
                signs: two.then(|| (self.witness(p, n), self.witness(p, n))),
                limbs: limb.then(|| (self.witness(p, n), self.witness(p, n))),
            };
            view.pieces.push(ViewPiece {
                storage: cells.y,
                tensor_positions: Index::all(p),
                storage_positions: Index::all(p),
                tensor_channels: channels.clone(),
                storage_channels: Index::all(n),
            });
            self.checks(op, accumulator, p, &channels, &lines, cells)?;
            self.out.recipes.push(Recipe::Rescale {
                accumulator,
                channels,
                lines,
                by_position: op.by_position,
                zero: i64::from(op.zero),
                clamp: (i64::from(op.clamp.0), i64::from(op.clamp.1)),
                cells,
            });
        }
        self.out.views[op.out as usize] = view;
        Ok(())
    }

    fn checks(
        &mut self,
        op: &Rescale,
        accumulator: usize,
        p: usize,
        channels: &Index,
        lines: &[Line],
        cells: RescaleCells,
    ) -> Result<(), LayoutError> {
        let mut vector = |f: &dyn Fn(&Line) -> i64| self.vector(lines.iter().map(f).collect());
        let (a, b, d, top) = (vector(&|l| l.a), vector(&|l| l.b_pos), vector(&|l| l.d), vector(&|l| l.d - 1));
        let step = cells.signs.map(|_| vector(&|l| l.b_neg - l.b_pos));
        let by = op.by_position;
        let local = |s: StorageId, scale: i64| Term::new(scale, Source::Local(s));
        let line = |sign: i64, n: Option<StorageId>| {
            let mut terms = vec![
                Term::new(sign, Source::Accumulator(accumulator)).weighted(&a, by),
                constant(sign).weighted(&b, by),
                local(cells.v, -sign).weighted(&d, by),
            ];
            if let (Some(n), Some(step)) = (n, &step) {
                terms.push(local(n, sign).weighted(step, by));
            }
            terms
        };
        let mut low = line(1, cells.signs.map(|s| s.0));
        let mut high = line(-1, cells.signs.map(|s| s.1));
        high.push(constant(1).weighted(&top, by));

        let range = self.range()?;
        let group = self.group();
        if let Some((h1, h2)) = cells.limbs {
            let unit = 1i64 << self.out.range_bits;
            low.push(local(h1, -unit));
            high.push(local(h2, -unit));
            self.lookup(range, p, channels, group, vec![vec![local(h1, 1)]]);
            self.lookup(range, p, channels, group, vec![vec![local(h2, 1)]]);
        }
        self.lookup(range, p, channels, group, vec![low]);
        self.lookup(range, p, channels, group, vec![high]);
        if let Some((n1, n2)) = cells.signs {
            let table = self.table(TableKind::Sign)?;
            let v = vec![local(cells.v, 1), constant(-i64::from(op.zero))];
            self.lookup(table, p, channels, group, vec![v, vec![local(n1, 1)], vec![local(n2, 1)]]);
        }
        let kind = match self.program.log_bound(op.acc) {
            Some(bits) => TableKind::Bounded(op.clamp.0, op.clamp.1, bits),
            None => TableKind::Clamp(op.clamp.0, op.clamp.1),
        };
        let table = self.table(kind)?;
        self.lookup(table, p, channels, group, vec![vec![local(cells.v, 1)], vec![local(cells.y, 1)]]);
        Ok(())
    }
}
