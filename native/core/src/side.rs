//! One side of a separable functional: a weight for each position or each channel of a storage.
//!
//! Most sides are multiples of `eq` on the aligned pieces that blocks are cut into. These stay closed forms, so that a verifier spends the
//! logarithm of their length on them; whatever has no such form (index maps, windows, public vectors) is written out.

use std::ops::Range;
use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;

use crate::blocks::Piece;
use crate::eq::{below, eq_at, inner};
use crate::field::{F, K};
use crate::halves::Halves;
use crate::layout::Index;
use crate::run::Run;

/// `coefficient * eq(point, i - start)` at the indices `start <= i < start + used`, where `used <= 2^len(point)`.
#[derive(Clone, Debug)]
pub struct Part<const D: usize> {
    /// First index.
    pub start: usize,
    /// Number of indices.
    pub used: usize,
    /// The point; parts of equal points share it.
    pub point: Arc<[K<D>]>,
    /// The factor.
    pub coefficient: K<D>,
}

impl<const D: usize> Part<D> {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.used
    }

    /// Whether the part is the same but for its factor. Equal points that are not shared are told apart, which costs time only.
    fn is_multiple(&self, other: &Self) -> bool {
        self.start == other.start && self.used == other.used && Arc::ptr_eq(&self.point, &other.point)
    }

    /// Adds the part's values at `at .. at + out.len()`.
    fn add_to(&self, out: &mut Run<D>, at: usize) {
        let (from, to) = (self.start.max(at), self.range().end.min(at + out.len()));
        if from < to {
            Halves::eq(self.coefficient, &self.point).add_to(from - self.start, out, from - at, to - from);
        }
    }

    /// The factor, point and length of the part on an aligned piece that it contains or that starts with its last indices:
    /// `eq` of the bits below the piece's size, and a constant from those above.
    fn on(&self, piece: &Piece) -> Option<(K<D>, &[K<D>], usize)> {
        let offset = piece.start.checked_sub(self.start)?;
        let log = piece.log();
        if log > self.point.len() || !offset.is_multiple_of(piece.size) || offset >= self.used {
            return None;
        }
        let (low, high) = self.point.split_at(log);
        Some((self.coefficient * eq_at(high, offset >> log), low, (self.used - offset).min(piece.used)))
    }

    /// Whether the part has no index in the piece.
    fn misses(&self, piece: &Piece) -> bool {
        self.start >= piece.range().end || piece.start >= self.range().end
    }
}

/// A vector of weights: an explicit run, zero outside, plus closed forms.
#[derive(Clone, Debug)]
pub struct Side<const D: usize> {
    size: usize,
    start: usize,
    run: Run<D>,
    parts: Vec<Part<D>>,
}

impl<const D: usize> From<Vec<K<D>>> for Side<D> {
    fn from(run: Vec<K<D>>) -> Self {
        Run::from(run).into()
    }
}

impl<const D: usize> From<Run<D>> for Side<D> {
    fn from(run: Run<D>) -> Self {
        Side { size: run.len(), start: 0, run, parts: Vec::new() }
    }
}

/// A tensor product of pairs over the variables of a piece, and its table where one is needed.
#[derive(Clone, Copy)]
pub(crate) struct Axis<'a, const D: usize> {
    /// Factors of bit 0 and 1 of each variable.
    pub pairs: &'a [(K<D>, K<D>)],
    /// The factors multiplied out.
    pub table: Option<&'a Halves<D>>,
}

impl<const D: usize> Side<D> {
    /// Zeros.
    pub fn zero(size: usize) -> Self {
        Side { size, start: 0, run: Run::zeros(0), parts: Vec::new() }
    }

    /// `run` from `start` on, zeros elsewhere.
    pub(crate) fn placed(size: usize, start: usize, run: Run<D>) -> Self {
        assert!(start + run.len() <= size, "a run outside its side");
        Side { size, start, run, parts: Vec::new() }
    }

    /// A single closed form.
    pub fn of(size: usize, part: Part<D>) -> Self {
        let mut out = Self::zero(size);
        out.add_part(part);
        out
    }

    /// `eq` over the first `size` indices.
    pub fn eq(size: usize, point: &[K<D>]) -> Self {
        Self::of(size, Part { start: 0, used: size, point: point.into(), coefficient: K::ONE })
    }

    /// Number of weights.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds a closed form.
    pub fn add_part(&mut self, part: Part<D>) {
        assert!(part.range().end <= self.size && part.used <= 1 << part.point.len(), "a part outside its side");
        match self.parts.iter_mut().find(|p| p.is_multiple(&part)) {
            Some(p) => p.coefficient += part.coefficient,
            None => self.parts.push(part),
        }
    }

    fn end(&self) -> usize {
        self.start + self.run.len()
    }

    /// Adds `k * run` from `start` on.
    pub(crate) fn add_run(&mut self, start: usize, run: &Run<D>, k: K<D>) {
        assert!(start + run.len() <= self.size, "a run outside its side");
        if self.run.len() == 0 {
            (self.start, self.run) = (start, run.clone().scaled(k));
            return;
        }
        let (from, to) = (self.start.min(start), self.end().max(start + run.len()));
        if (from, to) != (self.start, self.end()) {
            let mut grown = Run::zeros(to - from);
            grown.add_scaled(self.start - from, &self.run, 0, self.run.len(), K::ONE);
            (self.start, self.run) = (from, grown);
        }
        self.run.add_scaled(start - self.start, run, 0, run.len(), k);
    }

    /// Adds `k * other`, which has the same size.
    pub fn add(&mut self, other: &Self, k: K<D>) {
        assert_eq!(self.size, other.size, "sides of one length");
        if other.run.len() > 0 {
            self.add_run(other.start, &other.run, k);
        }
        for part in &other.parts {
            self.add_part(Part { coefficient: part.coefficient * k, ..part.clone() });
        }
    }

    /// `k` times the side.
    pub fn scaled(mut self, k: K<D>) -> Self {
        self.run = self.run.scaled(k);
        self.parts.iter_mut().for_each(|p| p.coefficient *= k);
        self
    }

    /// The sum of all weights.
    pub fn sum(&self) -> K<D> {
        self.parts.iter().fold(self.run.sum(), |t, p| t + p.coefficient * below(&p.point, p.used).0)
    }

    /// All weights.
    pub fn to_vec(&self) -> Vec<K<D>> {
        self.range(0..self.size)
    }

    /// The weights at some indices.
    pub fn range(&self, range: Range<usize>) -> Vec<K<D>> {
        let run = self.part_of(range);
        run.iter(0..run.len()).collect()
    }

    /// All weights.
    pub(crate) fn to_run(&self) -> Run<D> {
        self.part_of(0..self.size)
    }

    fn part_of(&self, range: Range<usize>) -> Run<D> {
        let (from, to) = (self.start.max(range.start), self.end().min(range.end));
        if (from, to) == (range.start, range.end) && self.parts.is_empty() {
            return self.run.slice(from - self.start..to - self.start);
        }
        let mut out = Run::zeros(range.len());
        if from < to {
            out.add_scaled(from - range.start, &self.run, from - self.start, to - from, K::ONE);
        }
        self.parts.iter().for_each(|p| p.add_to(&mut out, range.start));
        out
    }

    /// `sum of weight[i] * values[i]`.
    pub fn weigh(&self, values: &[i64]) -> K<D> {
        // Often all values are the same.
        if let [first, ref rest @ ..] = *values
            && rest.iter().all(|&x| x == first)
        {
            return times(self.sum(), first);
        }
        let weighted = |u: &Run<D>, a: &[i64]| -> K<D> {
            a[..u.len()].iter().enumerate().filter(|(_, a)| **a != 0).map(|(i, &a)| times(u.get(i), a)).sum()
        };
        match self.parts[..] {
            [] => weighted(&self.run, &values[self.start..]),
            _ => weighted(&self.to_run(), values),
        }
    }

    /// Whether [`Self::moved`] by these indices changes nothing.
    fn stays(&self, size: usize, to: &Index, from: &Index) -> bool {
        let whole = Index::all(self.size);
        size == self.size && *to == whole && *from == whole
    }

    /// [`Self::moved`] of a side that is not needed any more.
    pub fn into_moved(self, size: usize, to: &Index, from: &Index) -> Self {
        if self.stays(size, to, from) { self } else { self.moved(size, to, from) }
    }

    /// The side of size `size` with `out[to[i]] += self[from[i]]`.
    pub fn moved(&self, size: usize, to: &Index, from: &Index) -> Self {
        if self.stays(size, to, from) {
            return self.clone();
        }
        let (&Index::Range(to, _), &Index::Range(from, n)) = (to, from) else {
            let mut out = Run::zeros(size);
            let pairs = (0..to.len()).map(|i| (to.get(i), from.get(i)));
            if self.parts.is_empty() && self.run.len() == self.size {
                out.add_moved(&self.run, pairs);
            } else {
                out.add_moved(&self.to_run(), pairs);
            }
            return out.into();
        };
        let mut out = Self::zero(size);
        let (start, end) = (self.start.max(from), self.end().min(from + n));
        if start < end {
            out = Self::placed(size, start - from + to, self.run.slice(start - self.start..end - self.start));
        }
        for part in &self.parts {
            // A part keeps its form where its first index stays.
            if part.start >= from && part.start < from + n {
                let used = part.used.min(from + n - part.start);
                out.add_part(Part { start: part.start - from + to, used, ..part.clone() });
            } else {
                let (start, end) = (part.start.max(from), part.range().end.min(from + n));
                if start < end {
                    let mut run = Run::zeros(end - start);
                    part.add_to(&mut run, start);
                    out.add_run(start - from + to, &run, K::ONE);
                }
            }
        }
        out
    }

    /// Whether [`Self::over`] reads the table.
    pub(crate) fn needs_table(&self, piece: &Piece) -> bool {
        let (start, end) = (self.start.max(piece.start), self.end().min(piece.range().end));
        start < end || self.parts.iter().any(|p| !p.misses(piece) && p.on(piece).is_none())
    }

    /// The inner product of the weights in the piece with a tensor over the piece's variables.
    pub(crate) fn over(&self, piece: &Piece, axis: Axis<'_, D>) -> K<D> {
        let mut total = K::ZERO;
        let table = || axis.table.expect("a table, as `needs_table` says");
        let (start, end) = (self.start.max(piece.start), self.end().min(piece.range().end));
        if start < end {
            total += table().dot(start - piece.start, &self.run, start - self.start, end - start);
        }
        for part in self.parts.iter().filter(|p| !p.misses(piece)) {
            total += match part.on(piece) {
                Some((factor, point, used)) => factor * inner(point, axis.pairs, used),
                None => {
                    let mut values = Run::zeros(piece.used);
                    part.add_to(&mut values, piece.start);
                    table().dot(0, &values, 0, piece.used)
                }
            };
        }
        total
    }
}

/// `c` as a factor of the base field.
pub(crate) fn times<const D: usize>(x: K<D>, c: i64) -> K<D> {
    match c {
        1 => x,
        -1 => -x,
        _ => x.scale(if c < 0 { -F::from_u64(c.unsigned_abs()) } else { F::from_u64(c as u64) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::pieces;
    use crate::eq::{log2_ceil, tensor};
    use crate::pcs::tests::element;
    use proptest::prelude::*;

    type Spec = (usize, Vec<(usize, usize, usize)>, (usize, usize));

    /// Size, parts as (start, used, variables beyond what is needed), a run.
    fn spec() -> impl Strategy<Value = Spec> {
        (1usize..90).prop_flat_map(|n| {
            let range = (0..n).prop_flat_map(move |a| (Just(a), 0..=n - a));
            let part =
                (range.clone(), 0usize..2, any::<bool>(), any::<prop::sample::Index>()).prop_map(move |((a, used), more, aligned, k)| {
                    if aligned {
                        let pieces = pieces(n);
                        let p = pieces[k.index(pieces.len())];
                        return (p.start, p.used, more);
                    }
                    (a, used.max(1), more)
                });
            (Just(n), prop::collection::vec(part, 0..4), range)
        })
    }

    fn build((n, parts, (start, len)): &Spec, seed: u64) -> (Side<2>, Vec<K<2>>) {
        let run: Vec<K<2>> = (0..*len).map(|i| element(seed + i as u64)).collect();
        let mut plain = vec![K::ZERO; *n];
        plain[*start..][..*len].copy_from_slice(&run);
        let mut side = Side::placed(*n, *start, run.into());
        for (k, &(start, used, more)) in parts.iter().enumerate() {
            let point: Arc<[K<2>]> = (0..log2_ceil(used) + more).map(|i| element(seed + 500 + 10 * k as u64 + i as u64)).collect();
            let coefficient = element(seed + 900 + k as u64);
            (0..used).for_each(|i| plain[start + i] += coefficient * eq_at(&point, i));
            // The same part again must merge.
            for share in [coefficient - K::ONE, K::ONE] {
                side.add_part(Part { start, used, point: point.clone(), coefficient: share });
            }
        }
        assert!(side.parts.len() <= parts.len());
        (side, plain)
    }

    proptest! {
        #[test]
        fn closed_forms_equal_the_vector(spec in spec(), other in spec(), seed: u16, at: prop::sample::Index, cut: prop::sample::Index) {
            let (side, plain) = build(&spec, u64::from(seed));
            let n = plain.len();
            prop_assert_eq!(side.to_vec(), &plain[..]);
            prop_assert_eq!(side.sum(), plain.iter().copied().sum());
            let k = element(3);
            prop_assert_eq!(side.clone().scaled(k).to_vec(), plain.iter().map(|&x| x * k).collect::<Vec<_>>());
            let values: Vec<i64> = (0..n as i64).map(|i| (i * 7 - 20) % 5).collect();
            prop_assert_eq!(side.weigh(&vec![-3; n]), plain.iter().map(|&x| times(x, -3)).sum());
            prop_assert_eq!(side.weigh(&values), plain.iter().zip(&values).map(|(&x, &v)| times(x, v)).sum());
            for piece in pieces(n) {
                let pair = |i: u64| if i.is_multiple_of(2) { (element(i), K::ONE) } else { (K::ONE - element(i), element(i)) };
                let pairs: Vec<(K<2>, K<2>)> = (0..piece.log() as u64).map(pair).collect();
                let table = tensor(&pairs);
                let slow: K<2> = plain[piece.range()].iter().zip(&table).map(|(&x, &y)| x * y).sum();
                // Without a table where none is needed.
                let table = Halves::new(K::ONE, &pairs);
                let table = side.needs_table(&piece).then_some(&table);
                prop_assert_eq!(side.over(&piece, Axis { pairs: &pairs, table }), slow);
                prop_assert_eq!(&side.range(piece.range())[..], &plain[piece.range()]);
            }

            // A part of the side at another place, by ranges and by lists.
            let from = at.index(n);
            let len = cut.index(n - from) + 1;
            let (to, size) = (from / 2, n + 3);
            let lists = |a: usize| Index::List((a..a + len).map(|i| i as u32).collect());
            let mut slow = vec![K::ZERO; size];
            slow[to..to + len].copy_from_slice(&plain[from..from + len]);
            prop_assert_eq!(side.moved(size, &Index::Range(to, len), &Index::Range(from, len)).to_vec(), &slow[..]);
            prop_assert_eq!(side.moved(size, &lists(to), &lists(from)).to_vec(), slow);
            let whole = Index::all(n);
            prop_assert_eq!(side.moved(n, &whole, &whole).to_vec(), &plain[..]);
            prop_assert_eq!(side.clone().into_moved(n, &whole, &whole).to_vec(), &plain[..]);

            let (mut a, mut plain_a) = build(&other, 5000);
            let (b, plain_b) = build(&(plain_a.len(), Vec::new(), (0, plain_a.len() / 2)), 6000);
            a.add(&b, k);
            plain_a.iter_mut().zip(&plain_b).for_each(|(x, &y)| *x += y * k);
            prop_assert_eq!(a.to_vec(), &plain_a[..]);
            let mut twice = a.clone();
            twice.add(&a, k);
            prop_assert_eq!(twice.to_vec(), plain_a.iter().map(|&x| x + x * k).collect::<Vec<_>>());
        }
    }
}
