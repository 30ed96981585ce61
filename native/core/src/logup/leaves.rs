//! Leaf blocks, and their fractions for given challenges.

use p3_field::{PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use super::LANE_BITS;
use super::tree::GROUP;
use crate::blocks::{Block, stack};
use crate::eq::log2_ceil;
use crate::field::{F, K, LANES, PackedF, from_i64};
use crate::layout::Layout;
use crate::prover::values::{Entry, Witness};

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

/// The fractions at the bottom of the tree: base-field numerators, denominators in `K`.
pub struct Leaves<const D: usize> {
    pub(super) p: Vec<F>,
    pub(super) q: [Vec<F>; D],
}

/// One row of a block: where it starts in the arrays, and who fills it.
struct Row {
    offset: usize,
    position: usize,
}

impl<const D: usize> Leaves<D> {
    /// `1 / (alpha - fingerprint)` and `-m / (alpha - fingerprint)`; `0 / 1` in padding.
    pub fn new(layout: &Layout, witness: &Witness, blocks: &LeafBlocks, alpha: K<D>, betas: &[K<D>]) -> Self {
        let groups = blocks.total.div_ceil(GROUP);
        let ones_and_zeros = core::array::from_fn(|j| vec![F::from_bool(j == 0); groups * GROUP]);
        let mut out = Leaves { p: vec![F::ZERO; groups * GROUP], q: ones_and_zeros };
        for (lookup_or_table, of_owner) in by_owner(blocks, layout.lookups.len() + layout.tables.len()).into_iter().enumerate() {
            match layout.lookups.get(lookup_or_table) {
                Some(lookup) => {
                    let ident = (lookup.table + 1) as i64;
                    let base = alpha - betas[0].scale(from_i64(ident));
                    let entries: Vec<Entry<'_>> =
                        lookup.entries.iter().map(|e| Entry::new(layout, witness, e, lookup.positions, &lookup.channels)).collect();
                    for b in of_owner {
                        out.fill(b, |row, p, q, [values, scratch]| {
                            p.fill(F::ONE);
                            for (x, column) in base.0.iter().zip(q.iter_mut()) {
                                column.fill(*x);
                            }
                            for (entry, beta) in entries.iter().zip(&betas[1..]) {
                                entry.row(row, b.channels.start, values, scratch);
                                for (x, column) in beta.0.iter().zip(q.iter_mut()) {
                                    subtract_scaled(column, *x, values);
                                }
                            }
                        });
                    }
                }
                None => {
                    let at = lookup_or_table - layout.lookups.len();
                    let table = &layout.tables[at];
                    let width = layout.storages[table.multiplicities].channels;
                    let counts = &witness.storages[table.multiplicities];
                    let base = alpha - betas[0].scale(from_i64(at as i64 + 1));
                    for b in of_owner {
                        out.fill(b, |position, p, q, _| {
                            for c in 0..p.len() {
                                let row = position * width + b.channels.start + c;
                                p[c] = -counts[row];
                                let mut x = base;
                                for (j, beta) in (0..table.columns.len()).zip(&betas[1..]) {
                                    x -= beta.scale(from_i64(table.value(j, row)));
                                }
                                for (column, v) in q.iter_mut().zip(x.0) {
                                    column[c] = v;
                                }
                            }
                        });
                    }
                }
            }
        }
        out
    }

    /// Calls `f(position, numerators, denominators, scratch)` for each row of a block, in parallel.
    fn fill(&mut self, b: &Block, f: impl Fn(usize, &mut [F], &mut [&mut [F]; D], &mut [Vec<F>; 2]) + Sync) {
        let (width, used) = (b.channels.size, b.channels.used);
        let range = b.offset..b.offset + b.positions.used * width;
        let p = &mut self.p[range.clone()];
        let chunk = (1usize << 12).div_ceil(width) * width;
        let mut columns: Vec<Vec<&mut [F]>> = (0..p.len().div_ceil(chunk)).map(|_| Vec::with_capacity(D)).collect();
        for column in self.q.iter_mut() {
            column[range.clone()].chunks_mut(chunk).zip(&mut columns).for_each(|(c, out)| out.push(c));
        }
        p.par_chunks_mut(chunk).zip(columns).enumerate().for_each(|(task, (p, mut q))| {
            let mut scratch = [vec![F::ZERO; used], vec![F::ZERO; used]];
            for i in 0..p.len() / width {
                let row = Row { offset: i * width, position: b.positions.start + task * (chunk / width) + i };
                let mut columns = q.iter_mut();
                let mut cells: [&mut [F]; D] = core::array::from_fn(|_| {
                    let column = columns.next().expect("one column for each coordinate");
                    &mut column[row.offset..row.offset + used]
                });
                f(row.position, &mut p[row.offset..row.offset + used], &mut cells, &mut scratch);
            }
        });
    }
}

fn by_owner(blocks: &LeafBlocks, owners: usize) -> Vec<Vec<&Block>> {
    let mut out = vec![Vec::new(); owners];
    for b in &blocks.blocks {
        out[b.owner].push(b);
    }
    out
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
