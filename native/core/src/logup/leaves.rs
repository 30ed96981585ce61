//! Leaf blocks, and their fractions for given challenges.

use std::ops::ControlFlow;

use p3_field::{PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use super::LANE_BITS;
use super::register::GROUP;
use super::runs::{Run, find, runs};
use crate::blocks::{Block, stack};
use crate::control::Control;
use crate::eq::log2_ceil;
use crate::field::{Ext, F, K, LANES, PackedF, from_i64};
use crate::layout::{Layout, Table};
use crate::prover::values::{Entry, STRIP, Strip, Witness};

/// Blocks of all lookups and tables. Owner `i` is lookup `i`, then table `i - lookups`.
#[derive(Clone, Debug)]
pub struct LeafBlocks {
    /// Sorted by falling size.
    pub blocks: Vec<Block>,
    /// Leaves, padding inside blocks included.
    pub total: usize,
    /// Variables of the tree.
    pub variables: usize,
}

impl LeafBlocks {
    /// Lookups in program order, then tables.
    pub fn new(layout: &Layout) -> Self {
        let mut shapes: Vec<(usize, usize)> = layout.lookups.iter().map(|l| (l.positions, l.channels.len())).collect();
        shapes.extend(layout.tables.iter().map(|t| {
            let s = layout.storages[t.multiplicities];
            (s.positions, s.channels)
        }));
        let (blocks, total) = stack(&shapes);
        LeafBlocks { blocks, total, variables: log2_ceil(total.div_ceil(GROUP)) + LANE_BITS }
    }
}

/// The fractions at the bottom of the tree: base-field numerators where they are not 1, denominators in `K`.
pub struct Leaves<const D: usize> {
    /// Of groups of leaves; units are multiples of four groups: two nodes, each of two groups.
    pub(super) runs: Vec<Run>,
    /// Numerators of the runs that are not units.
    pub(super) p: Vec<F>,
    pub(super) q: [Vec<F>; D],
}

/// Consecutive rows of a block that one task fills: the first, and the leaves' denominators.
struct Rows<'a, const D: usize> {
    block: &'a Block,
    first: usize,
    columns: [&'a mut [F]; D],
}

impl<const D: usize> Leaves<D> {
    /// `1 / (alpha - fingerprint)` and `-m / (alpha - fingerprint)`; `0 / 1` in padding.
    pub fn new(
        layout: &Layout,
        witness: &Witness,
        blocks: &LeafBlocks,
        alpha: K<D>,
        betas: &[K<D>],
        control: Control<'_>,
    ) -> ControlFlow<(), Self> {
        let groups = blocks.total.div_ceil(GROUP);
        let mut q: [Vec<F>; D] = core::array::from_fn(|_| F::zero_vec(groups * GROUP));
        q[0][blocks.total..].fill(F::ONE);
        let fill = |(owner, rows): (usize, Vec<Rows<'_, D>>)| {
            let Some(lookup) = layout.lookups.get(owner) else {
                let table = &layout.tables[owner - layout.lookups.len()];
                let base = alpha - betas[0].scale(from_i64((owner - layout.lookups.len()) as i64 + 1));
                let width = layout.storages[table.multiplicities].channels;
                rows.into_par_iter().for_each(|rows| fill_table(rows, table, width, base, &betas[1..]));
                return;
            };
            let base = alpha - betas[0].scale(from_i64(lookup.table as i64 + 1));
            let entries: Vec<Entry<'_>> =
                lookup.entries.iter().map(|e| Entry::new(layout, witness, e, lookup.positions, &lookup.channels)).collect();
            rows.into_par_iter().for_each(|rows| fill_lookup(rows, &entries, base, &betas[1..]));
        };
        let mut owners = rows_by_owner(blocks, layout.lookups.len() + layout.tables.len(), &mut q).into_iter().enumerate().peekable();
        let mut filled = 0;
        while owners.peek().is_some() {
            // Some owners at a time, so that reports come between.
            let mut batch = Vec::new();
            let mut size = 0;
            while size < (blocks.total / BATCHES).max(1)
                && let Some((owner, rows)) = owners.next()
            {
                size += rows.iter().map(|r| r.columns[0].len()).sum::<usize>();
                batch.push((owner, rows));
            }
            batch.into_par_iter().for_each(fill);
            filled += size;
            control(filled as f64 / blocks.total.max(1) as f64)?;
        }
        let runs = runs(units(layout, blocks), 4, groups);
        let p = numerators(layout, witness, blocks, &runs);
        ControlFlow::Continue(Leaves { runs, p, q })
    }

    /// One fraction (tests; the prover reads registers).
    pub fn fraction(&self, i: usize) -> (F, K<D>) {
        let p = match find(&self.runs, i / GROUP) {
            Some(run) if run.unit => F::ONE,
            Some(run) => self.p[i - (run.groups.start - run.at) * GROUP],
            None => F::ZERO,
        };
        (p, Ext(core::array::from_fn(|j| self.q[j][i])))
    }

    /// Groups of leaves.
    pub(super) fn groups(&self) -> usize {
        self.q[0].len() / GROUP
    }
}

/// The groups in which every leaf is a lookup's.
fn units(layout: &Layout, blocks: &LeafBlocks) -> Vec<core::ops::Range<usize>> {
    let mut leaves: Vec<core::ops::Range<usize>> = Vec::new();
    for b in &blocks.blocks {
        if b.owner >= layout.lookups.len() || b.channels.used < b.channels.size {
            continue;
        }
        let end = b.offset + b.positions.used * b.channels.size;
        match leaves.last_mut() {
            Some(last) if last.end == b.offset => last.end = end,
            _ => leaves.push(b.offset..end),
        }
    }
    leaves.into_iter().map(|r| r.start.div_ceil(GROUP)..r.end / GROUP).collect()
}

/// Numerators of all groups that are not units.
fn numerators(layout: &Layout, witness: &Witness, blocks: &LeafBlocks, runs: &[Run]) -> Vec<F> {
    let mut out = Vec::new();
    for run in runs.iter().filter(|r| !r.unit) {
        let (mut at, end) = (run.groups.start * GROUP, run.groups.end * GROUP);
        let first = blocks.blocks.partition_point(|b| b.offset + b.size() <= at);
        for b in &blocks.blocks[first..] {
            let (from, to) = (at - b.offset, end.min(b.offset + b.size()) - b.offset);
            let used = |i: usize| i / b.channels.size < b.positions.used && i % b.channels.size < b.channels.used;
            match b.owner.checked_sub(layout.lookups.len()) {
                None => out.extend((from..to).map(|i| F::from_bool(used(i)))),
                Some(table) => {
                    let id = layout.tables[table].multiplicities;
                    let (counts, width) = (&witness.storages[id], layout.storages[id].channels);
                    let cell = |i: usize| (b.positions.start + i / b.channels.size) * width + b.channels.start + i % b.channels.size;
                    out.extend((from..to).map(|i| if used(i) { -counts[cell(i)] } else { F::ZERO }));
                }
            }
            at = b.offset + to;
            if at == end {
                break;
            }
        }
        // Beyond the last block.
        out.resize(out.len() + end - at, F::ZERO);
    }
    out
}

/// Cuts the columns into the blocks' rows, some thousand leaves at a time.
fn rows_by_owner<'a, const D: usize>(blocks: &'a LeafBlocks, owners: usize, q: &'a mut [Vec<F>; D]) -> Vec<Vec<Rows<'a, D>>> {
    let mut out: Vec<Vec<Rows<'a, D>>> = (0..owners).map(|_| Vec::new()).collect();
    let mut rest = q.each_mut().map(|column| &mut column[..]);
    let mut cut = |n: usize| {
        let mut columns = rest.iter_mut();
        core::array::from_fn(|_| columns.next().and_then(|c| c.split_off_mut(..n)).expect("blocks lie within the columns"))
    };
    for block in &blocks.blocks {
        let (step, rows) = (ROWS.div_ceil(block.channels.size), block.positions.size);
        for first in (0..rows).step_by(step) {
            out[block.owner].push(Rows { block, first, columns: cut(step.min(rows - first) * block.channels.size) });
        }
    }
    out
}

/// Reports while leaves are filled, at most and about.
const BATCHES: usize = 8;

/// Leaves that one task fills.
const ROWS: usize = 1 << 13;

fn fill_table<const D: usize>(mut rows: Rows<'_, D>, table: &Table, width: usize, base: K<D>, betas: &[K<D>]) {
    let (positions, channels) = (rows.block.positions, rows.block.channels);
    for i in 0..rows.columns[0].len() {
        let (position, c) = (rows.first + i / channels.size, i % channels.size);
        let mut x = K::ONE;
        if position < positions.used && c < channels.used {
            let row = (positions.start + position) * width + channels.start + c;
            x = (0..table.columns.len()).zip(betas).fold(base, |x, (j, beta)| x - beta.scale(from_i64(table.value(j, row))));
        }
        rows.columns.iter_mut().zip(x.0).for_each(|(column, v)| column[i] = v);
    }
}

fn fill_lookup<const D: usize>(mut rows: Rows<'_, D>, entries: &[Entry<'_>], base: K<D>, betas: &[K<D>]) {
    let (positions, channels) = (rows.block.positions, rows.block.channels);
    let n = rows.columns[0].len() / channels.size;
    let used = n.min(positions.used.saturating_sub(rows.first));
    // Rows without padding are one long row.
    let together = if channels.used == channels.size { (STRIP / channels.size).max(1) } else { 1 };
    let mut values = vec![F::ZERO; together * channels.used];
    let mut scratch = values.clone();
    for first in (0..used).step_by(together) {
        let strip = Strip { first: positions.start + rows.first + first, rows: together.min(used - first), channels: channels.range() };
        let (at, len) = (first * channels.size, strip.len());
        for (column, x) in rows.columns.iter_mut().zip(base.0) {
            column[at..at + len].fill(x);
            column[at + len..(first + strip.rows) * channels.size].fill(F::ZERO);
        }
        rows.columns[0][at + len..(first + strip.rows) * channels.size].fill(F::ONE);
        for (entry, beta) in entries.iter().zip(betas) {
            entry.strip(&strip, &mut values[..len], &mut scratch[..len]);
            for (column, x) in rows.columns.iter_mut().zip(beta.0) {
                subtract_scaled(&mut column[at..at + len], x, &values[..len]);
            }
        }
    }
    rows.columns[0][used * channels.size..].fill(F::ONE);
}

/// `out -= factor * values`.
fn subtract_scaled(out: &mut [F], factor: F, values: &[F]) {
    let n = out.len() / LANES * LANES;
    let (head, tail) = out.split_at_mut(n);
    let broadcast = PackedF::from(factor);
    for (o, &v) in PackedF::pack_slice_mut(head).iter_mut().zip(PackedF::pack_slice(&values[..n])) {
        *o -= broadcast * v;
    }
    for (o, &v) in tail.iter_mut().zip(&values[n..]) {
        *o -= factor * v;
    }
}
