//! int8 (or uint8) softmax over each row (design section 6): gemmlowp's exponential as a table, its reciprocal as fixed-point steps.
//!
//! Per row, with `S` the sum of the exponentials rounded to Q12.19 and `hz` its leading zeros in 32 bits:
//! `half = S 2^(hz-1)` in `[2^30, 2^31)`, `x_0 = 48/17 - 32/17 half` in Q2.29, three Newton steps `x += 4 round(x (1/2 - half x))`, and the
//! scale is `2 x`, saturated. Per element, `h = round(e scale)`, `v' = round(h / 2^E) + zero` with `E = 35 - hz` and the dtype's least value as zero point, clamped.
//!
//! Every quotient of a floor is range-checked, not only its remainder: an unbounded quotient can be solved for in the field.

use super::recipe::{LimbRecipe, Recipe, SoftmaxCells};
use super::tables::constant;
use super::types::{Accumulator, AccumulatorKind, Index, Source, StorageId, TableKind, Term};
use super::{Builder, LayoutError};
use crate::program::TensorId;
use crate::program::softmax::NEWTON;

const HALF_UP: i64 = 1 << 30;
const Q31: i64 = 1 << 31;

struct Gadget<'a, 'b> {
    b: &'a mut Builder<'b>,
    positions: usize,
    width: usize,
    group: [usize; 2],
}

fn local(s: StorageId) -> Term {
    Term::new(1, Source::Local(s))
}

/// Terms of a row in a lookup over elements: narrow storages are broadcast.
fn broadcast(terms: &[Term]) -> Vec<Term> {
    terms
        .iter()
        .map(|t| match t.source {
            Source::Local(s) => Term::new(t.scale, Source::Broadcast(s)),
            _ => t.clone(),
        })
        .collect()
}

fn times(terms: &[Term], factor: i64) -> Vec<Term> {
    terms.iter().map(|t| t.times(factor)).collect()
}

fn sum<const N: usize>(parts: [Vec<Term>; N]) -> Vec<Term> {
    parts.into_iter().flatten().collect()
}

impl Gadget<'_, '_> {
    fn cell(&mut self, wide: bool) -> StorageId {
        self.b.witness(self.positions, if wide { self.width } else { 1 })
    }

    fn product(&mut self, a: Vec<Term>, b: Vec<Term>, wide: bool) -> Term {
        let channels = if wide { self.width } else { 1 };
        let at = self.b.out.accumulators.len();
        self.b.out.accumulators.push(Accumulator { positions: self.positions, channels, kind: AccumulatorKind::Product { a, b } });
        self.b.out.recipes.push(Recipe::Accumulator(at));
        Term::new(1, Source::Accumulator(at))
    }

    fn lookup(&mut self, kind: TableKind, wide: bool, entries: Vec<Vec<Term>>) -> Result<(), LayoutError> {
        let table = self.b.table(kind)?;
        let channels = Index::all(if wide { self.width } else { 1 });
        self.b.lookup(table, self.positions, &channels, self.group[usize::from(wide)], entries);
        Ok(())
    }

    /// `0 <= terms < 2^bits`: limbs of `w` bits, the lowest virtual, the highest also times `2^slack`.
    fn bits(&mut self, terms: Vec<Term>, bits: usize, wide: bool) -> Result<(), LayoutError> {
        let w = self.b.out.range_bits;
        let limbs: Vec<StorageId> = (1..bits.div_ceil(w)).map(|_| self.cell(wide)).collect();
        let mut low = terms.clone();
        for (k, &s) in limbs.iter().enumerate() {
            low.push(Term::new(-(1 << (w * (k + 1))), Source::Local(s)));
        }
        self.lookup(TableKind::Range, wide, vec![low])?;
        for &s in &limbs {
            self.lookup(TableKind::Range, wide, vec![vec![local(s)]])?;
        }
        let slack = (w - bits % w) % w;
        if slack > 0 {
            let top = limbs.last().map_or_else(|| terms.clone(), |&s| vec![local(s)]);
            self.lookup(TableKind::Range, wide, vec![times(&top, 1 << slack)])?;
        }
        let channels = if wide { self.width } else { 1 };
        self.b.out.recipes.push(Recipe::Limbs(LimbRecipe { terms, positions: self.positions, channels, limbs }));
        Ok(())
    }

    /// `quotient = floor((product + 2^30) / 2^31)` for a committed quotient, remainder in range.
    fn rounds_to(&mut self, product: Vec<Term>, quotient: StorageId, wide: bool) -> Result<(), LayoutError> {
        let remainder = sum([product, vec![constant(HALF_UP), local(quotient).times(-Q31)]]);
        self.bits(remainder, 31, wide)
    }
}

impl Builder<'_> {
    pub(super) fn softmax(&mut self, x: TensorId, out: TensorId, multiplier: i32, shift: u8) -> Result<(), LayoutError> {
        let low = self.dtype_of(out).range().0;
        let (positions, width) = self.shape(out);
        // 512 or more maxima have no defined softmax.
        self.counts(out, width.min(511))?;
        let group = [self.group(), self.group()];
        let mut g = Gadget { b: self, positions, width, group };
        let mut narrow = || g.cell(false);
        let row = [(); 13].map(|()| narrow());
        let mut wide = || g.cell(true);
        let element = [(); 6].map(|()| wide());
        let [maximum, headroom, power, half_power, half, q0, h0, h1, h2, k0, k1, k2, saturated] = row;
        let [exp, rounded, is_max, quotient, v, y] = element;
        let cells = SoftmaxCells {
            maximum,
            headroom,
            power,
            half_power,
            half,
            q0,
            h: [h0, h1, h2],
            k: [k0, k1, k2],
            saturated,
            exp,
            rounded,
            is_max,
            quotient,
            v,
            y,
        };
        // The limbs below are computed from these cells.
        g.b.out.recipes.push(Recipe::Softmax { x, scale: (multiplier, shift), low: i64::from(low), cells });

        // d = max - x in the exponential's table for every element, and some element is the maximum.
        let difference = vec![Term::new(1, Source::Broadcast(maximum)), Term::new(-1, Source::Tensor(x))];
        g.lookup(TableKind::Exp(multiplier, shift), true, vec![difference, vec![local(exp)], vec![local(rounded)], vec![local(is_max)]])?;
        g.lookup(TableKind::Range, false, vec![vec![Term::new(1, Source::RowSum(is_max)), constant(-1)]])?;

        // Normalise: half = S 2^(hz-1) in [2^30, 2^31) makes hz unique.
        g.lookup(TableKind::Powers, false, vec![vec![local(headroom)], vec![local(power)], vec![local(half_power)]])?;
        let scaled = g.product(vec![Term::new(1, Source::RowSum(rounded))], vec![local(power)], false);
        g.lookup(TableKind::Zero, false, vec![vec![scaled, local(half).times(-2)]])?;
        g.bits(vec![local(half), constant(-HALF_UP)], 30, false)?;

        // Newton's reciprocal.
        g.bits(vec![local(q0), constant(HALF_UP)], 30, false)?;
        g.rounds_to(vec![local(half).times(NEWTON.1)], q0, false)?;
        let mut estimate = vec![constant(NEWTON.0), local(q0)];
        for i in 0..3 {
            let hx = g.product(vec![local(half)], estimate.clone(), false);
            g.bits(vec![local(cells.h[i]), constant(HALF_UP)], 31, false)?;
            g.rounds_to(vec![hx], cells.h[i], false)?;
            let error = vec![constant(1 << 29), local(cells.h[i]).times(-1)];
            let step = g.product(estimate.clone(), error, false);
            g.bits(vec![local(cells.k[i]), constant(1 << 24)], 25, false)?;
            g.rounds_to(vec![step], cells.k[i], false)?;
            estimate.push(local(cells.k[i]).times(4));
        }

        // Doubling saturates: with t = 2^30 - x >= 0, sat = [t = 0] and the scale is 2 x - sat.
        let t = sum([vec![constant(1 << 30)], times(&estimate, -1)]);
        g.bits(vec![local(saturated)], 1, false)?;
        g.bits(sum([t.clone(), vec![constant(-1), local(saturated)]]), 31, false)?;
        g.bits(sum([vec![constant(Q31), local(saturated).times(-Q31)], times(&t, -1)]), 32, false)?;
        let scale = sum([times(&broadcast(&estimate), 2), vec![Term::new(-1, Source::Broadcast(saturated))]]);

        // Elements.
        let product = g.product(vec![local(exp)], scale, true);
        g.bits(vec![local(quotient)], 31, true)?;
        g.rounds_to(vec![product], quotient, true)?;
        let half_power = Term::new(1, Source::Broadcast(half_power));
        let multiple = g.product(vec![half_power.clone()], vec![local(v), constant(-i64::from(low))], true);
        let remainder = vec![local(quotient), half_power.clone(), multiple.times(-2)];
        g.bits(remainder.clone(), 32, true)?;
        g.bits(sum([vec![half_power.times(2), constant(-1)], times(&remainder, -1)]), 32, true)?;
        g.lookup(TableKind::Clamp(low, low + 255), true, vec![vec![local(v)], vec![local(y)]])?;
        self.whole(out, y);
        Ok(())
    }
}
