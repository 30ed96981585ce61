//! Values of tensors, accumulators and lookup entries, computed in the field: a cheating prover's cells may be any elements.

use p3_field::{PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{F, LANES, PackedF, from_i64};
use crate::layout::{AccumulatorKind, Index, Layout, Lookup, Rows, Source, Term};
use crate::program::{Contract, Window};

/// Values of all storages, and of all accumulators (which are not committed).
#[derive(Clone, Default)]
pub struct Witness {
    /// Row-major `positions x channels` for each storage.
    pub storages: Vec<Vec<F>>,
    /// The same for each accumulator of the layout.
    pub accumulators: Vec<Vec<F>>,
}

/// `out += coefficient * source`, elementwise.
pub(crate) fn add_product(out: &mut [F], coefficients: &[F], source: &[F]) {
    let n = out.len() / LANES * LANES;
    let (head, tail) = out.split_at_mut(n);
    let packs = PackedF::pack_slice_mut(head).iter_mut();
    for ((o, &c), &s) in packs.zip(PackedF::pack_slice(&coefficients[..n])).zip(PackedF::pack_slice(&source[..n])) {
        *o += c * s;
    }
    for ((o, &c), &s) in tail.iter_mut().zip(&coefficients[n..]).zip(&source[n..]) {
        *o += c * s;
    }
}

/// `out += factor * source`.
pub(crate) fn add_scaled(out: &mut [F], factor: F, source: &[F]) {
    let n = out.len() / LANES * LANES;
    let (head, tail) = out.split_at_mut(n);
    let broadcast = PackedF::from(factor);
    for (o, &s) in PackedF::pack_slice_mut(head).iter_mut().zip(PackedF::pack_slice(&source[..n])) {
        *o += broadcast * s;
    }
    for (o, &s) in tail.iter_mut().zip(&source[n..]) {
        *o += factor * s;
    }
}

/// The values of a tensor, row-major.
pub fn tensor(layout: &Layout, witness: &Witness, id: u32) -> Vec<F> {
    let view = &layout.views[id as usize];
    let mut out = vec![F::ZERO; view.positions * view.channels];
    for piece in &view.pieces {
        let width = layout.storages[piece.storage].channels;
        let cells = &witness.storages[piece.storage];
        for (t, s) in piece.tensor_positions.iter().zip(piece.storage_positions.iter()) {
            let (to, from) = (&mut out[t * view.channels..][..view.channels], &cells[s * width..][..width]);
            match (&piece.tensor_channels, &piece.storage_channels) {
                (&Index::Range(a, n), &Index::Range(b, _)) => to[a..a + n].copy_from_slice(&from[b..b + n]),
                (tc, sc) => tc.iter().zip(sc.iter()).for_each(|(i, j)| to[i] = from[j]),
            }
        }
    }
    for (u, v) in &view.constants {
        for (row, &a) in out.chunks_exact_mut(view.channels).zip(u) {
            if a != 0 {
                row.iter_mut().zip(v).for_each(|(x, &b)| *x += from_i64(a * b));
            }
        }
    }
    out
}

/// The values of a tensor that is a storage, or whole rows of one.
fn stored<'a>(layout: &Layout, witness: &'a Witness, id: u32) -> Option<&'a [F]> {
    let view = &layout.views[id as usize];
    let ([piece], []) = (&view.pieces[..], &view.constants[..]) else { return None };
    let all = [&piece.tensor_channels, &piece.storage_channels].into_iter().all(|c| *c == Index::all(view.channels));
    let whole = all && layout.storages[piece.storage].channels == view.channels && piece.tensor_positions == Index::all(view.positions);
    match piece.storage_positions {
        Index::Range(first, n) if whole && n == view.positions => {
            Some(&witness.storages[piece.storage][first * view.channels..][..n * view.channels])
        }
        _ => None,
    }
}

/// Values that are computed together: enough to forget the cost of a row, few enough for the first cache.
pub(crate) const STRIP: usize = 512;

/// Consecutive rows of some channels.
pub(crate) struct Strip {
    /// The first row.
    pub first: usize,
    /// How many.
    pub rows: usize,
    /// Their channels.
    pub channels: core::ops::Range<usize>,
}

impl Strip {
    /// Values in it.
    pub fn len(&self) -> usize {
        self.rows * self.channels.len()
    }
}

/// A term with its values at hand.
struct Resolved<'a> {
    values: Values<'a>,
    rows: &'a Rows,
    /// For [`Rows::Scatter`]: source row of each lookup row.
    back: Vec<u32>,
    by_position: Option<Vec<F>>,
    factor: F,
    /// Times `factor`, repeated up to a strip's length.
    by_channel: Option<Vec<F>>,
}

enum Values<'a> {
    One,
    Matrix { cells: std::borrow::Cow<'a, [F]>, width: usize, channels: Option<&'a Index> },
    Broadcast { cells: &'a [F] },
    RowSum { cells: &'a [F], width: usize },
}

/// Evaluates one entry of a lookup (or one factor of a product) row by row.
pub(crate) struct Entry<'a> {
    terms: Vec<Resolved<'a>>,
    channels: usize,
}

impl<'a> Entry<'a> {
    /// `positions` and `channels` are the lookup's own.
    pub(crate) fn new(layout: &'a Layout, witness: &'a Witness, terms: &'a [Term], positions: usize, channels: &'a Index) -> Self {
        let lift = |v: &[i64]| v.iter().map(|&x| from_i64(x)).collect::<Vec<F>>();
        let resolve = |t: &'a Term| {
            let values = match &t.source {
                Source::One => Values::One,
                Source::Local(s) => {
                    Values::Matrix { cells: (&witness.storages[*s][..]).into(), width: layout.storages[*s].channels, channels: None }
                }
                Source::Broadcast(s) => Values::Broadcast { cells: &witness.storages[*s] },
                Source::RowSum(s) => Values::RowSum { cells: &witness.storages[*s], width: layout.storages[*s].channels },
                Source::RowSums(s) => {
                    let rows = witness.storages[*s].chunks_exact(layout.storages[*s].channels);
                    let cells: Vec<F> = rows.map(|row| row.iter().copied().sum()).collect();
                    Values::Matrix { width: cells.len(), cells: cells.into(), channels: None }
                }
                Source::ColumnSums(s) => {
                    let width = layout.storages[*s].channels;
                    let mut cells = vec![F::ZERO; width];
                    witness.storages[*s].chunks_exact(width).for_each(|row| add_scaled(&mut cells, F::ONE, row));
                    Values::Matrix { cells: cells.into(), width, channels: None }
                }
                Source::Tensor(x) => Values::Matrix {
                    cells: stored(layout, witness, *x).map_or_else(|| tensor(layout, witness, *x).into(), Into::into),
                    width: layout.views[*x as usize].channels,
                    channels: Some(channels),
                },
                Source::Accumulator(a) => Values::Matrix {
                    cells: (&witness.accumulators[*a][..]).into(),
                    width: layout.accumulators[*a].channels,
                    channels: Some(channels),
                },
            };
            let mut back = Vec::new();
            if let Rows::Scatter(index) = &t.rows {
                back = vec![u32::MAX; positions];
                index.iter().enumerate().for_each(|(j, i)| back[i] = j as u32);
            }
            let factor = from_i64(t.scale);
            let repeats = (STRIP / channels.len().max(1)).clamp(1, positions.max(1));
            let by_channel =
                t.by_channel.as_ref().map(|v| lift(&v.values).into_iter().map(|x| x * factor).collect::<Vec<F>>().repeat(repeats));
            Resolved { values, rows: &t.rows, back, by_position: t.by_position.as_ref().map(|v| lift(&v.values)), factor, by_channel }
        };
        Entry { terms: terms.iter().map(resolve).collect(), channels: channels.len() }
    }

    /// Row `p`, channels `from .. from + out.len()`; `scratch` is as long as `out`.
    pub(crate) fn row(&self, p: usize, from: usize, out: &mut [F], scratch: &mut [F]) {
        self.strip(&Strip { first: p, rows: 1, channels: from..from + out.len() }, out, scratch);
    }

    /// Some rows, one after the other; `out` and `scratch` have their length.
    pub(crate) fn strip(&self, strip: &Strip, out: &mut [F], scratch: &mut [F]) {
        let n = strip.channels.len();
        debug_assert!(strip.channels.end <= self.channels && out.len() == strip.len() && scratch.len() == strip.len());
        out.fill(F::ZERO);
        for t in &self.terms {
            let source: &[F] = match t.in_place(strip) {
                Some(source) => source,
                None => {
                    for (row, p) in scratch.chunks_exact_mut(n).zip(strip.first..) {
                        t.source_row(p, strip.channels.start, row);
                    }
                    scratch
                }
            };
            match (&t.by_channel, &t.by_position) {
                (None, None) => add_scaled(out, t.factor, source),
                // The vector is repeated for strips of whole rows.
                (Some(v), None) if n == self.channels && v.len() >= out.len() => add_product(out, &v[..out.len()], source),
                _ => {
                    for ((out, source), p) in out.chunks_exact_mut(n).zip(source.chunks_exact(n)).zip(strip.first..) {
                        let position = t.by_position.as_ref().map(|v| v[p]);
                        match (t.by_channel.as_ref().map(|v| &v[strip.channels.clone()]), position) {
                            (Some(v), None) => add_product(out, v, source),
                            (None, x) => add_scaled(out, x.map_or(t.factor, |x| t.factor * x), source),
                            (Some(v), Some(x)) => out.iter_mut().zip(v).zip(source).for_each(|((o, &c), &s)| *o += c * s * x),
                        }
                    }
                }
            }
        }
    }

    /// All rows and channels.
    pub(crate) fn all(&self, positions: usize) -> Vec<F> {
        let n = self.channels;
        let mut out = F::zero_vec(positions * n);
        let rows = (STRIP / n).max(1);
        out.par_chunks_mut(n * rows).with_min_len(8).enumerate().for_each_init(
            || vec![F::ZERO; n * rows],
            |scratch, (block, out)| {
                let strip = Strip { first: block * rows, rows: out.len() / n, channels: 0..n };
                self.strip(&strip, out, &mut scratch[..strip.len()]);
            },
        );
        out
    }
}

impl Resolved<'_> {
    /// The source's values, where they lie in memory as the strip wants them.
    fn in_place(&self, strip: &Strip) -> Option<&[F]> {
        let Values::Matrix { cells, width, channels } = &self.values else { return None };
        let start = match channels {
            None => 0,
            Some(Index::Range(start, _)) => *start,
            Some(Index::List(_)) => return None,
        };
        let first = match self.rows {
            Rows::Same => strip.first,
            Rows::Gather(index) if strip.rows == 1 => index.get(strip.first),
            _ => return None,
        };
        let whole = strip.rows == 1 || strip.channels.len() == *width;
        whole.then(|| &cells[first * width + start + strip.channels.start..][..strip.len()])
    }

    /// Row `p` of the source, from channel `from` on.
    fn source_row(&self, p: usize, from: usize, out: &mut [F]) {
        let at = match self.rows {
            Rows::Same => p,
            Rows::Gather(index) => index.get(p),
            Rows::Scatter(_) if self.back[p] == u32::MAX => return out.fill(F::ZERO),
            Rows::Scatter(_) => self.back[p] as usize,
        };
        match &self.values {
            Values::One => out.fill(F::ONE),
            Values::Broadcast { cells } => out.fill(cells[at]),
            Values::RowSum { cells, width } => out.fill(cells[at * width..][..*width].iter().copied().sum()),
            Values::Matrix { cells, width, channels: Some(Index::List(list)) } => {
                out.iter_mut().zip(&list[from..]).for_each(|(x, &c)| *x = cells[at * width + c as usize]);
            }
            Values::Matrix { cells, width, channels } => {
                let start = if let Some(Index::Range(start, _)) = channels { *start } else { 0 };
                let n = out.len();
                out.copy_from_slice(&cells[at * width + start + from..][..n]);
            }
        }
    }
}

/// All values of one entry of a lookup.
pub fn entry(layout: &Layout, witness: &Witness, lookup: &Lookup, j: usize) -> Vec<F> {
    Entry::new(layout, witness, &lookup.entries[j], lookup.positions, &lookup.channels).all(lookup.positions)
}

/// The product accumulator's two factors, `positions x channels` each.
pub fn factors(layout: &Layout, witness: &Witness, accumulator: usize) -> Option<[Vec<F>; 2]> {
    let acc = &layout.accumulators[accumulator];
    let AccumulatorKind::Product { a, b } = &acc.kind else { return None };
    let channels = Index::all(acc.channels);
    Some([a, b].map(|terms| Entry::new(layout, witness, terms, acc.positions, &channels).all(acc.positions)))
}

/// An accumulator recomputed from the storages alone, whatever they hold. `constant(id)` gives public weights and biases.
pub fn accumulator(layout: &Layout, witness: &Witness, constant: &dyn Fn(u32) -> Vec<F>, at: usize) -> Vec<F> {
    if let Some([a, b]) = factors(layout, witness, at) {
        return a.into_iter().zip(b).map(|(x, y)| x * y).collect();
    }
    let acc = &layout.accumulators[at];
    let AccumulatorKind::Contract { contract, weights, bias, .. } = &acc.kind else { unreachable!("products are handled above") };
    let (p, c) = (acc.positions, acc.channels);
    let mut out = vec![F::ZERO; p * c];
    let fetch = |id: u32, storage: &Option<usize>| storage.map_or_else(|| constant(id), |s| witness.storages[s].clone());
    let minus = |x: Vec<F>, zero: i32| x.into_iter().map(|v| v - from_i64(i64::from(zero))).collect::<Vec<F>>();
    match contract {
        Contract::Mix { terms } => {
            for (k, x) in terms {
                add_scaled(&mut out, from_i64(*k), &tensor(layout, witness, *x));
            }
        }
        Contract::Sum { x, window, x_zero } => {
            let (x, n) = (minus(tensor(layout, witness, *x), *x_zero), c);
            each_tap(window, |_, o, i| add_scaled(&mut out[o * c..][..c], F::ONE, &x[i * n..][..n]));
        }
        Contract::Depthwise { x, window, weights: id, bias: bias_id, x_zero } => {
            let n = layout.views[*x as usize].channels;
            let (x, w) = (minus(tensor(layout, witness, *x), *x_zero), fetch(*id, weights));
            each_tap(window, |k, o, i| (0..c).for_each(|j| out[o * c + j] += w[k * c + j] * x[i * n + j / (c / n)]));
            add_bias(&mut out, bias_id.map(|id| fetch(id, bias)), c);
        }
        Contract::Conv { x, window, weights: id, bias: bias_id, x_zero } => {
            let n = layout.views[*x as usize].channels;
            let taps = (window.kernel.0 * window.kernel.1) as usize;
            let (x, w) = (minus(tensor(layout, witness, *x), *x_zero), fetch(*id, weights));
            each_tap(window, |k, o, i| {
                for j in 0..c {
                    let row = &w[(j * taps + k) * n..][..n];
                    out[o * c + j] += row.iter().zip(&x[i * n..]).map(|(&a, &b)| a * b).sum::<F>();
                }
            });
            add_bias(&mut out, bias_id.map(|id| fetch(id, bias)), c);
        }
    }
    out
}

fn add_bias(out: &mut [F], bias: Option<Vec<F>>, channels: usize) {
    if let Some(bias) = bias {
        out.chunks_exact_mut(channels).for_each(|row| add_scaled(row, F::ONE, &bias));
    }
}

/// Calls `f(tap, output position, input position)` for every valid tap of every output.
fn each_tap(window: &Window, mut f: impl FnMut(usize, usize, usize)) {
    for ky in 0..window.kernel.0 as usize {
        for kx in 0..window.kernel.1 as usize {
            for oy in 0..window.output_rows() {
                let Some(iy) = window.row(oy, ky) else { continue };
                for ox in 0..window.output.1 as usize {
                    if let Some(ix) = window.column(ox, kx) {
                        f(ky * window.kernel.1 as usize + kx, oy * window.output.1 as usize + ox, iy * window.input.1 as usize + ix);
                    }
                }
            }
        }
    }
}
