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

use std::sync::OnceLock;

use p3_field::{PackedValue, PrimeCharacteristicRing, TwoAdicField};
use rayon::prelude::*;

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

    /// The values of all columns at the point at which the stored order has its `position`-th row, panel by panel.
    pub fn stored(&self, position: usize) -> impl Iterator<Item = &[F]> {
        let cut = move |p: usize| PANEL.min(self.columns - p * PANEL);
        self.panels.iter().enumerate().map(move |(p, rows)| &rows[position * PANEL..][..cut(p)])
    }

    /// The values of all columns at point `i`, panel by panel.
    pub fn row(&self, i: usize) -> impl Iterator<Item = &[F]> {
        self.stored(reverse(i, self.log_domain))
    }
}

/// Encodes `columns` polynomials of `2^log_rows` coefficients each on the domain of size `2^log_domain`. `load(panel, row, out)` fills `out` with
/// rows `row, row + 1, ...` of a panel's coefficients, zeros in columns that do not exist.
pub fn encode(columns: usize, log_rows: usize, log_domain: usize, load: impl Fn(usize, usize, &mut [Row]) + Sync) -> Codewords {
    let panels = (0..columns.div_ceil(PANEL))
        .into_par_iter()
        .map(|p| {
            let mut panel = vec![F::ZERO; PANEL << log_domain];
            encode_panel(&mut panel, log_rows, log_domain - log_rows, |row, out| load(p, row, out));
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
const STRIP: usize = 8;
/// Nodes of so many rows are handed to another thread.
const TASK: usize = 1 << 12;

fn encode_panel(panel: &mut [F], log_rows: usize, log_blowup: usize, load: impl Fn(usize, &mut [Row])) {
    let copy = PANEL << log_rows;
    if 1 << log_rows < 8 * STRIP {
        let mut rows = vec![[F::ZERO; PANEL]; 1 << log_rows];
        load(0, &mut rows);
        for (node, block) in panel.chunks_exact_mut(copy).enumerate() {
            block.copy_from_slice(rows.as_flattened());
            transform(PackedF::pack_slice_mut(block), log_rows, log_blowup, node);
        }
        return;
    }
    // The first three layers, straight from where the coefficients come from, for all copies.
    let leg = copy / 8;
    let mut loaded = [[F::ZERO; PANEL]; 8 * STRIP];
    for row in (0..1 << (log_rows - 3)).step_by(STRIP) {
        for (k, strip) in loaded.chunks_exact_mut(STRIP).enumerate() {
            load((k << (log_rows - 3)) + row, strip);
        }
        for (node, block) in panel.chunks_exact_mut(copy).enumerate() {
            let mut strips = loaded;
            layers3(PackedF::pack_slice_mut(strips.as_flattened_mut()), log_blowup, node);
            for (to, from) in block.chunks_exact_mut(leg).zip(strips.chunks_exact(STRIP)) {
                to[row * PANEL..][..STRIP * PANEL].copy_from_slice(from.as_flattened());
            }
        }
    }
    let (log_rows, depth) = (log_rows - 3, log_blowup + 3);
    let below = |(node, block): (usize, &mut [F])| transform(PackedF::pack_slice_mut(block), log_rows, depth, node);
    if 1 << log_rows >= TASK {
        panel.par_chunks_exact_mut(leg).enumerate().for_each(below);
    } else {
        panel.chunks_exact_mut(leg).enumerate().for_each(below);
    }
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

/// The three layers between a node and its descendants.
#[inline]
fn layers3(x: &mut [PackedF], depth: usize, node: usize) {
    let c0 = PackedF::from(constants(depth)[node]);
    let c1: [PackedF; 2] = core::array::from_fn(|k| PackedF::from(constants(depth + 1)[2 * node + k]));
    let c2: [PackedF; 4] = core::array::from_fn(|k| PackedF::from(constants(depth + 2)[4 * node + k]));
    let n = x.len() / 8;
    let mut legs = x.chunks_exact_mut(n);
    let mut next = || legs.next().unwrap_or_default();
    let (l0, l1, l2, l3) = (next(), next(), next(), next());
    let (l4, l5, l6, l7) = (next(), next(), next(), next());
    for i in 0..n {
        let (a0, a4) = butterfly(l0[i], l4[i], c0);
        let (a1, a5) = butterfly(l1[i], l5[i], c0);
        let (a2, a6) = butterfly(l2[i], l6[i], c0);
        let (a3, a7) = butterfly(l3[i], l7[i], c0);
        let (b0, b2) = butterfly(a0, a2, c1[0]);
        let (b1, b3) = butterfly(a1, a3, c1[0]);
        let (b4, b6) = butterfly(a4, a6, c1[1]);
        let (b5, b7) = butterfly(a5, a7, c1[1]);
        (l0[i], l1[i]) = butterfly(b0, b1, c2[0]);
        (l2[i], l3[i]) = butterfly(b2, b3, c2[1]);
        (l4[i], l5[i]) = butterfly(b4, b5, c2[2]);
        (l6[i], l7[i]) = butterfly(b6, b7, c2[3]);
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
                let row: Vec<F> = words.row(i).flatten().copied().collect();
                assert_eq!(row.len(), columns);
                for (j, &value) in row.iter().enumerate() {
                    let horner = (0..1 << log).rev().fold(F::ZERO, |t, k| t * x + c[k * columns + j]);
                    assert_eq!(value, horner);
                }
            }
        }
    }

    /// `1 + 2 X + 3 X^2 + 5 X^3` on the domain of 8 points, computed from the definition with big integers, outside this crate.
    #[test]
    fn a_fixed_code_word() {
        let words = encode_rows(&[1, 2, 3, 5].map(F::from_u8), 1, 2, 3);
        let values: Vec<u64> = (0..8).map(|i| crate::field::canonical(words.row(i).next().expect("one column")[0])).collect();
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
