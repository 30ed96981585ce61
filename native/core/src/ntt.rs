//! Reed-Solomon encoding on shifted two-adic domains.
//!
//! The domain of size `2^s` is `h_s <omega_s>` with `omega_s = 7^((p-1)/2^s)` and `h_s = 7^(2^(32-s))`; point `i` is `h_s omega_s^i`. Squaring
//! maps it onto the domain of size `2^(s-1)`: point `i` to point `i mod 2^(s-1)`. No domain meets another one's: `h_s` is not in
//! `<omega_s>`.
//!
//! The transform walks down the tree of remainders: the domain is the set of roots of `X^N - h^N`, a node is a remainder modulo
//! `X^m - c^2`, its children are the remainders modulo `X^(m/2) - c` and `X^(m/2) + c`: `(a, b) -> (a + c b, a - c b)`. It needs no shift
//! beforehand, a polynomial with fewer coefficients than points starts below the root with equal copies, and node `j` of depth `d` has
//! `c = h_(d+1) omega_(d+1)^rev_d(j)` whatever the size of the domain, where `rev_d` reverses `d` bits: one table for each depth serves all.
//! Values come out in bit-reversed order.
//!
//! Eight columns make a panel, whose rows are one line of the cache and fill one or several vector registers: all butterflies are vertical.
//! Three layers at a time, depth first, so that most of them happen in the caches.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use p3_field::{PackedValue, PrimeCharacteristicRing, TwoAdicField};
use rayon::prelude::*;

use crate::control::Gauge;
use crate::field::{F, LANES, PackedF};
use crate::parameters::MAX_LOG_DOMAIN;

/// Columns of a panel.
pub const PANEL: usize = 8;
const _: () = assert!(PANEL.is_multiple_of(LANES), "a panel's row is whole registers");

/// A row of a panel.
pub type Row = [F; PANEL];

/// `omega_s`.
pub fn omega(log: usize) -> F {
    F::two_adic_generator(log)
}

/// `h_s`.
pub fn shift(log: usize) -> F {
    F::from_u8(7).exp_power_of_2(32 - log)
}

/// Point `i` of the domain of size `2^log`.
pub fn point(log: usize, i: usize) -> F {
    shift(log) * omega(log).exp_u64(i as u64)
}

/// The points of the domain of size `2^log` with the given indices: two products each, from the powers of `omega` by the halves of an index.
pub fn points(log: usize, indices: &[usize]) -> Vec<F> {
    let half = log / 2;
    let powers = |base: F, first: F, n: usize| -> Vec<F> { core::iter::successors(Some(first), |&x| Some(x * base)).take(n).collect() };
    let (low, high) = (powers(omega(log), shift(log), 1 << half), powers(omega(log).exp_power_of_2(half), F::ONE, 1 << (log - half)));
    indices.iter().map(|&i| low[i & ((1 << half) - 1)] * high[i >> half]).collect()
}

/// `i` with its lowest `bits` bits reversed.
pub fn reverse(i: usize, bits: usize) -> usize {
    if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS as usize - bits) }
}

/// Code words in panels of eight columns, the last filled up with zeros, rows in bit-reversed order.
pub struct Codewords {
    panels: Vec<Vec<F>>,
    columns: usize,
    log_domain: usize,
}

impl Codewords {
    /// Columns, padding excluded.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `log2` of the rows.
    pub fn log_domain(&self) -> usize {
        self.log_domain
    }

    /// Panels, rows in the stored order: row `j` belongs to point `reverse(j)`. Columns that do not exist are 0.
    pub fn panels(&self) -> impl Iterator<Item = &[Row]> {
        self.panels.iter().map(|p| p.as_chunks::<PANEL>().0)
    }

    /// The values of all columns at point `i`.
    pub fn row(&self, i: usize) -> impl Iterator<Item = F> {
        let at = reverse(i, self.log_domain);
        self.panels.iter().flat_map(move |rows| &rows[at * PANEL..][..PANEL]).take(self.columns).copied()
    }
}

/// Encodes `columns` polynomials of `2^log_rows` coefficients each on the domain of size `2^log_domain`. `load(panel, row, out)` fills `out` with
/// rows `row, row + 1, ...` of a panel's coefficients, zeros in columns that do not exist.
pub fn encode(columns: usize, log_rows: usize, log_domain: usize, load: impl Fn(usize, usize, &mut [Row]) + Sync) -> Codewords {
    encode_long(columns, log_rows, log_domain, load, |_| Vec::new())
}

/// [`encode`] of polynomials that have more than `2^log_rows` coefficients: `tail(panel)` gives the rest, row by row, at most `2^log_rows` rows.
///
/// # Panics
/// If there is a tail and the domain does not have more than `2^log_rows` points.
pub fn encode_long(
    columns: usize,
    log_rows: usize,
    log_domain: usize,
    load: impl Fn(usize, usize, &mut [Row]) + Sync,
    tail: impl Fn(usize) -> Vec<Row> + Sync,
) -> Codewords {
    encode_heard(columns, log_rows, log_domain, load, tail, &Gauge::new(&mut |_| ControlFlow::Continue(()), 1, usize::MAX))
}

/// Units of work that [`encode_heard`] counts: each row of a panel twice.
pub(crate) fn encoding_work(columns: usize, log_domain: usize) -> usize {
    columns.div_ceil(PANEL) << (log_domain + 1)
}

/// [`encode_long`] of which `gauge` hears. Once it is stopped the words are worth nothing.
pub(crate) fn encode_heard(
    columns: usize,
    log_rows: usize,
    log_domain: usize,
    load: impl Fn(usize, usize, &mut [Row]) + Sync,
    tail: impl Fn(usize) -> Vec<Row> + Sync,
    gauge: &Gauge<'_>,
) -> Codewords {
    let panels = (0..columns.div_ceil(PANEL))
        .into_par_iter()
        .map(|p| {
            if !gauge.goes_on() {
                return Vec::new();
            }
            let tail = tail(p);
            assert!(tail.is_empty() || log_domain > log_rows, "the tail is folded into the copies");
            assert!(tail.len() <= 1 << log_rows, "the tail is shorter than the rest");
            let mut panel = vec![F::ZERO; PANEL << log_domain];
            encode_panel(&mut panel, log_rows, log_domain - log_rows, |row, out| load(p, row, out), &tail, gauge);
            panel
        })
        .collect();
    Codewords { panels, columns, log_domain }
}

/// [`encode`] of a row-major matrix.
pub fn encode_rows(coefficients: &[F], columns: usize, log_rows: usize, log_domain: usize) -> Codewords {
    encode(columns, log_rows, log_domain, |panel, row, out| {
        let n = PANEL.min(columns - panel * PANEL);
        for (k, to) in out.iter_mut().enumerate() {
            to[n..].fill(F::ZERO);
            to[..n].copy_from_slice(&coefficients[(row + k) * columns + panel * PANEL..][..n]);
        }
    })
}

/// Rows that are loaded together.
const STRIP: usize = 16;
/// So many rows are worth handing to another thread.
const TASK: usize = 1 << 9;

/// Adds to `rows`, which start at `row`, what the remainder at `node` of depth `log_blowup` has from the coefficients beyond: there `X^rows` is `c`
/// or `-c`.
fn add_tail(rows: &mut [Row], row: usize, tail: &[Row], log_blowup: usize, node: usize) {
    if row >= tail.len() {
        return;
    }
    let c = constants(log_blowup - 1)[node / 2];
    let c = if node.is_multiple_of(2) { c } else { -c };
    for (to, from) in rows.iter_mut().zip(tail.get(row..).unwrap_or_default()) {
        for (a, &b) in to.iter_mut().zip(from) {
            *a += c * b;
        }
    }
}

fn encode_panel(panel: &mut [F], log_rows: usize, log_blowup: usize, load: impl Fn(usize, &mut [Row]), tail: &[Row], gauge: &Gauge<'_>) {
    let copy = PANEL << log_rows;
    if 1 << log_rows < 8 * STRIP {
        let mut rows = vec![[F::ZERO; PANEL]; 1 << log_rows];
        load(0, &mut rows);
        for (node, block) in panel.chunks_exact_mut(copy).enumerate() {
            block.copy_from_slice(rows.as_flattened());
            add_tail(block.as_chunks_mut::<PANEL>().0, 0, tail, log_blowup, node);
            transform(PackedF::pack_slice_mut(block), log_rows, log_blowup, node);
        }
        gauge.did(2 << (log_rows + log_blowup));
        return;
    }
    // The first three layers, straight from where the coefficients come from, for all copies.
    let leg = copy / 8;
    let mut loaded = [[F::ZERO; PANEL]; 8 * STRIP];
    for row in (0..1 << (log_rows - 3)).step_by(STRIP) {
        for (k, strip) in loaded.chunks_exact_mut(STRIP).enumerate() {
            load((k << (log_rows - 3)) + row, strip);
        }
        let strips = |rows: &[Row; 8 * STRIP]| -> [[PackedF; STRIP * PANEL / LANES]; 8] {
            let mut parts = PackedF::pack_slice(rows.as_flattened()).as_chunks().0.iter();
            core::array::from_fn(|_| parts.next().copied().unwrap_or([PackedF::ZERO; STRIP * PANEL / LANES]))
        };
        let shared = (row >= tail.len()).then(|| strips(&loaded));
        for (node, block) in panel.chunks_exact_mut(copy).enumerate() {
            let from = shared.unwrap_or_else(|| {
                let mut own = loaded;
                for (k, strip) in own.chunks_exact_mut(STRIP).enumerate() {
                    add_tail(strip, (k << (log_rows - 3)) + row, tail, log_blowup, node);
                }
                strips(&own)
            });
            let constants = Constants3::new(log_blowup, node);
            let mut to = legs(block.chunks_exact_mut(leg).map(|to| PackedF::pack_slice_mut(&mut to[row * PANEL..][..STRIP * PANEL])));
            for i in 0..STRIP * PANEL / LANES {
                let y = constants.apply(core::array::from_fn(|k| from[k][i]));
                for (to, y) in to.iter_mut().zip(y) {
                    to[i] = y;
                }
            }
        }
        if !gauge.did((8 * STRIP) << log_blowup) {
            return;
        }
    }
    let (log_rows, depth) = (log_rows - 3, log_blowup + 3);
    let below = |(node, block): (usize, &mut [F])| {
        if gauge.goes_on() {
            transform(PackedF::pack_slice_mut(block), log_rows, depth, node);
            gauge.did(1 << log_rows);
        }
    };
    panel.par_chunks_exact_mut(leg).with_min_len(TASK >> log_rows).enumerate().for_each(below);
}

/// The eighths of a node.
#[inline(always)]
fn legs<T: Default>(mut parts: impl Iterator<Item = T>) -> [T; 8] {
    core::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// `c` of all nodes of a depth.
fn constants(depth: usize) -> &'static [F] {
    static TABLES: [OnceLock<Vec<F>>; MAX_LOG_DOMAIN] = [const { OnceLock::new() }; MAX_LOG_DOMAIN];
    TABLES[depth].get_or_init(|| {
        let mut table = Vec::with_capacity(1 << depth);
        table.push(shift(depth + 1));
        for k in 0..depth {
            // rev_(k+1)(2^k + j) = 1 + rev_(k+1)(j).
            let step = omega(k + 2);
            for j in 0..1 << k {
                let c: F = table[j];
                table.push(c * step);
            }
        }
        table
    })
}

/// All layers below a node with `2^log_rows` rows.
fn transform(x: &mut [PackedF], log_rows: usize, depth: usize, node: usize) {
    match log_rows {
        0 => {}
        1 => layer(x, depth, node),
        2 => {
            layer(x, depth, node);
            let (a, b) = x.split_at_mut(x.len() / 2);
            layer(a, depth + 1, 2 * node);
            layer(b, depth + 1, 2 * node + 1);
        }
        _ => {
            layers3(x, depth, node);
            let leg = x.len() / 8;
            for (k, child) in x.chunks_exact_mut(leg).enumerate() {
                transform(child, log_rows - 3, depth + 3, 8 * node + k);
            }
        }
    }
}

/// The layer between a node and its children.
fn layer(x: &mut [PackedF], depth: usize, node: usize) {
    let c = PackedF::from(constants(depth)[node]);
    let (low, high) = x.split_at_mut(x.len() / 2);
    for (a, b) in low.iter_mut().zip(high) {
        (*a, *b) = butterfly(*a, *b, c);
    }
}

#[inline(always)]
fn butterfly(a: PackedF, b: PackedF, c: PackedF) -> (PackedF, PackedF) {
    let t = b * c;
    (a + t, a - t)
}

/// `c` of the seven nodes between a node and its great-grandchildren.
struct Constants3 {
    first: PackedF,
    second: [PackedF; 2],
    third: [PackedF; 4],
}

impl Constants3 {
    #[inline(always)]
    fn new(depth: usize, node: usize) -> Self {
        let at = |d: usize, j: usize| PackedF::from(constants(depth + d)[(node << d) + j]);
        Constants3 { first: at(0, 0), second: core::array::from_fn(|j| at(1, j)), third: core::array::from_fn(|j| at(2, j)) }
    }

    /// The three layers on one element of each eighth.
    #[inline(always)]
    fn apply(&self, x: [PackedF; 8]) -> [PackedF; 8] {
        let c = self.first;
        let [(a0, a4), (a1, a5), (a2, a6), (a3, a7)] = core::array::from_fn(|k| butterfly(x[k], x[k + 4], c));
        let [c, d] = self.second;
        let [(b0, b2), (b1, b3), (b4, b6), (b5, b7)] =
            [butterfly(a0, a2, c), butterfly(a1, a3, c), butterfly(a4, a6, d), butterfly(a5, a7, d)];
        let b = [(b0, b1), (b2, b3), (b4, b5), (b6, b7)];
        let [(y0, y1), (y2, y3), (y4, y5), (y6, y7)] = core::array::from_fn(|k| butterfly(b[k].0, b[k].1, self.third[k]));
        [y0, y1, y2, y3, y4, y5, y6, y7]
    }
}

/// The three layers between a node and its great-grandchildren.
#[inline]
fn layers3(x: &mut [PackedF], depth: usize, node: usize) {
    let constants = Constants3::new(depth, node);
    let n = x.len() / 8;
    let mut x = legs(x.chunks_exact_mut(n));
    for i in 0..n {
        let y = constants.apply(core::array::from_fn(|k| x[k][i]));
        for (leg, y) in x.iter_mut().zip(y) {
            leg[i] = y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::P;

    #[test]
    fn generators_and_shifts_are_the_powers_of_seven_of_the_specification() {
        for s in 0..=32 {
            assert_eq!(omega(s), F::from_u8(7).exp_u64((P - 1) >> s));
            assert_eq!(shift(s), F::from_u8(7).exp_u64(1 << (32 - s)));
        }
    }

    #[test]
    fn squares_of_points_are_points_of_the_half_domain() {
        for i in 0..32 {
            assert_eq!(point(5, i) * point(5, i), point(4, i % 16));
        }
    }

    #[test]
    fn constants_are_square_roots_down_the_tree() {
        for depth in 0..6 {
            for (j, &c) in constants(depth).iter().enumerate() {
                let (a, b) = (constants(depth + 1)[2 * j], constants(depth + 1)[2 * j + 1]);
                assert_eq!((a * a, b * b), (c, -c));
            }
        }
        assert_eq!(constants(0)[0] * constants(0)[0], shift(0));
    }

    #[test]
    fn values_are_those_of_horner() {
        for (log, log_domain, columns) in
            [(0, 0, 1), (0, 1, 1), (0, 3, 2), (1, 1, 8), (2, 4, 9), (3, 4, 3), (5, 8, 9), (6, 7, 8), (8, 11, 11), (9, 10, 17)]
        {
            let c: Vec<F> = (0..(columns << log) as u64).map(|i| F::from_u64(i.wrapping_mul(0x9e3779b97f4a7c15) % P)).collect();
            let words = encode_rows(&c, columns, log, log_domain);
            for i in 0..1 << log_domain {
                let x = point(log_domain, i);
                let row: Vec<F> = words.row(i).collect();
                assert_eq!(row.len(), columns);
                for (j, &value) in row.iter().enumerate() {
                    let horner = (0..1 << log).rev().fold(F::ZERO, |t, k| t * x + c[k * columns + j]);
                    assert_eq!(value, horner);
                }
            }
        }
    }

    #[test]
    fn tails_are_coefficients_beyond_the_rows() {
        let shapes = [(2, 3, 4), (4, 9, 5), (7, 8, 100), (9, 11, 40), (8, 2, 256), (8, 2, 1)];
        for ((log, columns, pads), log_blowup) in shapes.into_iter().flat_map(|s| [(s, 1), (s, 2), (s, 3)]) {
            let log_domain = log + log_blowup;
            let n = (1 << log) + pads;
            let c: Vec<F> = (0..(columns * n) as u64).map(|i| F::from_u64(i.wrapping_mul(0x9e3779b97f4a7c15) % P)).collect();
            let at = |panel: usize, k: usize| {
                core::array::from_fn(|j| {
                    *c.get(k * columns + panel * PANEL + j).filter(|_| panel * PANEL + j < columns).unwrap_or(&F::ZERO)
                })
            };
            let load = |panel: usize, row: usize, out: &mut [Row]| out.iter_mut().enumerate().for_each(|(k, to)| *to = at(panel, row + k));
            let words = encode_long(columns, log, log_domain, load, |panel| ((1 << log)..n).map(|k| at(panel, k)).collect());
            for i in 0..1 << log_domain {
                let x = point(log_domain, i);
                for (j, value) in words.row(i).enumerate() {
                    assert_eq!(value, (0..n).rev().fold(F::ZERO, |t, k| t * x + c[k * columns + j]), "{log} {pads} {i} {j}");
                }
            }
        }
    }

    /// `1 + 2 X + 3 X^2 + 5 X^3` on the domain of 8 points, computed from the definition with big integers, outside this crate.
    #[test]
    fn a_fixed_code_word() {
        let words = encode_rows(&[1, 2, 3, 5].map(F::from_u8), 1, 2, 3);
        let values: Vec<u64> = (0..8).map(|i| words.row(i).map(crate::field::canonical).sum()).collect();
        assert_eq!(values, FIXED);
    }

    const FIXED: [u64; 8] = [
        8687327415849047400,
        4325509296591973890,
        8959132369996354198,
        10759501819607896385,
        16035369774703451864,
        7084849012106280570,
        3211658578280315184,
        14723628010523017801,
    ];
}
