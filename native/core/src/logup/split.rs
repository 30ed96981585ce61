//! The last claim of the tree, in closed form: `p~(r) + gamma q~(r)` is a public part, one linear form in the committed storages, and
//! weights on accumulators. This is the heart of the verifier; its work is on the sides of blocks, never on their area.

use std::collections::HashMap;


use super::LeafBlocks;
use crate::eq::{below, eq, eq_at};
use crate::field::{K, from_i64};
use crate::layout::{Column, Index, Layout, Lookup, Rows, Source, StorageId, Table, Term};

/// `constant + sum of <storage, u (x) v>`.
#[derive(Clone, Debug)]
pub struct LinearForm<const D: usize> {
    /// Public part.
    pub constant: K<D>,
    /// Functionals.
    pub slots: Vec<Slot<D>>,
    by_key: HashMap<Key, usize>,
}

/// A separable functional on one storage.
#[derive(Clone, Debug)]
pub struct Slot<const D: usize> {
    /// The storage.
    pub storage: StorageId,
    /// Weight of each position.
    pub u: Vec<K<D>>,
    /// Weight of each channel.
    pub v: Vec<K<D>>,
}

/// Functionals with equal keys have equal `v`, by construction: it is made from what the key names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    storage: StorageId,
    source: Source,
    piece: usize,
    vector: usize,
    group: usize,
    channel: usize,
}

/// A weight `u (x) v` on an accumulator, merged over the position pieces and checks that share `v`.
#[derive(Clone, Debug)]
pub struct AccumulatorWeight<const D: usize> {
    /// The layout's accumulator.
    pub accumulator: usize,
    /// Weight of each position.
    pub u: Vec<K<D>>,
    /// Weight of each channel.
    pub v: Vec<K<D>>,
}

impl<const D: usize> Default for LinearForm<D> {
    fn default() -> Self {
        LinearForm { constant: K::ZERO, slots: Vec::new(), by_key: HashMap::new() }
    }
}

impl<const D: usize> LinearForm<D> {
    /// Adds a functional of its own.
    pub fn push(&mut self, storage: StorageId, u: Vec<K<D>>, v: Vec<K<D>>) {
        self.slots.push(Slot { storage, u, v });
    }

    /// Adds `scale * other`.
    pub fn add(&mut self, other: LinearForm<D>, scale: K<D>) {
        self.constant += scale * other.constant;
        for mut slot in other.slots {
            slot.u.iter_mut().for_each(|x| *x *= scale);
            self.slots.push(slot);
        }
    }

    /// Pulls a functional `u (x) v` on a tensor back to its storages.
    pub fn tensor(&mut self, layout: &Layout, tensor: u32, u: &[K<D>], v: &[K<D>]) {
        let view = &layout.views[tensor as usize];
        for piece in &view.pieces {
            let s = layout.storages[piece.storage];
            let us = pull(s.positions, &piece.storage_positions, &piece.tensor_positions, u);
            let vs = pull(s.channels, &piece.storage_channels, &piece.tensor_channels, v);
            self.push(piece.storage, us, vs);
        }
        for (a, b) in &view.constants {
            self.constant += weighted(u, a) * weighted(v, b);
        }
    }

    /// The value on given cells (the prover's self-test and tests; never the verifier).
    pub fn value(&self, storages: &[Vec<crate::field::F>]) -> K<D> {
        self.slots.iter().fold(self.constant, |total, s| {
            let rows = storages[s.storage].chunks_exact(s.v.len()).zip(&s.u);
            total + rows.map(|(row, &u)| u * row.iter().zip(&s.v).map(|(&x, &v)| v.scale(x)).sum::<K<D>>()).sum::<K<D>>()
        })
    }

    fn slot(&mut self, key: Key, positions: usize, v: impl FnOnce() -> Vec<K<D>>) -> &mut Vec<K<D>> {
        let storage = key.storage;
        let at = *self.by_key.entry(key).or_insert_with(|| {
            self.slots.push(Slot { storage, u: vec![K::ZERO; positions], v: v() });
            self.slots.len() - 1
        });
        &mut self.slots[at].u
    }
}

fn weighted<const D: usize>(u: &[K<D>], a: &[i64]) -> K<D> {
    u.iter().zip(a).filter(|(_, a)| **a != 0).map(|(&x, &a)| x.scale(from_i64(a))).sum()
}

/// `out[storage[i]] += u[tensor[i]]`.
fn pull<const D: usize>(n: usize, storage: &Index, tensor: &Index, u: &[K<D>]) -> Vec<K<D>> {
    let mut out = vec![K::ZERO; n];
    for (s, t) in storage.iter().zip(tensor.iter()) {
        out[s] += u[t];
    }
    out
}

/// Value of a table column's multilinear extension: in closed form for steps, row by row for listed values.
fn column_at<const D: usize>(table: &Table, j: usize, r: &[K<D>], rows: &mut Option<Vec<K<D>>>) -> K<D> {
    match &table.columns[j] {
        Column::Values(v) => weighted(rows.get_or_insert_with(|| eq(r)), v),
        Column::Steps(steps) => {
            let ends = steps.iter().skip(1).map(|s| s.0).chain([1 << table.log_rows]);
            let mut total = K::ZERO;
            for (&(start, c0, c1), end) in steps.iter().zip(ends) {
                let (m0, f0) = below(r, start);
                let (m1, f1) = below(r, end);
                total += (m1 - m0).scale(from_i64(c0)) + (f1 - f0).scale(from_i64(c1));
            }
            total
        }
    }
}

/// A leaf block of a lookup at the point: `u (x) v` over the lookup's positions and channels.
struct Leaf<'a, const D: usize> {
    layout: &'a Layout,
    lookup: &'a Lookup,
    /// First position and first channel.
    start: (usize, usize),
    u: &'a [K<D>],
    v: &'a [K<D>],
    sum_u: K<D>,
    sum_v: K<D>,
}

struct Splitter<const D: usize> {
    form: LinearForm<D>,
    weights: Vec<AccumulatorWeight<D>>,
    by_key: HashMap<(usize, usize, usize, usize), usize>,
}

impl<const D: usize> Splitter<D> {
    /// Adds `factor * <term, u (x) v>`.
    fn term(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let factor = factor.scale(from_i64(term.scale));
        let (p0, c0) = leaf.start;
        let channel = |j: usize| term.by_channel.as_ref().map_or(K::ONE, |v| K::from_i64(v.values[c0 + j]));
        let v = || -> Vec<K<D>> {
            match &term.by_channel {
                Some(w) => leaf.v.iter().zip(&w.values[c0..]).map(|(&x, &w)| x.scale(from_i64(w))).collect(),
                None => leaf.v.to_vec(),
            }
        };
        let sum_v = || match term.by_channel {
            Some(_) => leaf.v.iter().enumerate().map(|(j, &x)| x * channel(j)).sum(),
            None => leaf.sum_v,
        };
        let at = |i: usize| leaf.u[i] * factor;
        let position = |i: usize| match &term.by_position {
            Some(w) => at(i).scale(from_i64(w.values[p0 + i])),
            None => at(i),
        };
        let storages = &leaf.layout.storages;
        let mut key = Key {
            storage: 0,
            source: term.source.clone(),
            piece: 0,
            vector: term.by_channel.as_ref().map_or(0, |v| v.id),
            group: leaf.lookup.group,
            channel: c0,
        };
        match &term.source {
            Source::One => {
                let sum_u = match &term.by_position {
                    Some(_) => (0..leaf.u.len()).map(position).sum(),
                    None => leaf.sum_u * factor,
                };
                self.form.constant += sum_u * sum_v();
            }
            Source::Local(s) | Source::Broadcast(s) | Source::RowSum(s) => {
                let shape = storages[*s];
                // The channel side of a narrow storage is a single factor, or ones: it goes to the position side.
                let narrow = !matches!(term.source, Source::Local(_));
                let side = if narrow { sum_v() } else { K::ONE };
                key.storage = *s;
                if narrow {
                    (key.vector, key.group, key.channel) = (0, 0, 0);
                }
                let u = self.form.slot(key, shape.positions, || {
                    if narrow {
                        return vec![K::ONE; shape.channels];
                    }
                    let mut out = vec![K::ZERO; shape.channels];
                    out[c0..c0 + leaf.v.len()].copy_from_slice(&v());
                    out
                });
                let n = leaf.u.len();
                match &term.rows {
                    Rows::Same if narrow => (0..n).for_each(|i| u[p0 + i] += position(i) * side),
                    Rows::Same => (0..n).for_each(|i| u[p0 + i] += position(i)),
                    Rows::Gather(index) => (0..n).for_each(|i| u[index.get(p0 + i)] += position(i) * side),
                    Rows::Scatter(index) => index.iter().enumerate().for_each(|(j, i)| {
                        if let Some(i) = i.checked_sub(p0).filter(|&i| i < n) {
                            u[j] += position(i) * side;
                        }
                    }),
                }
            }
            Source::Tensor(x) => {
                let view = &leaf.layout.views[*x as usize];
                let rows = |i: usize| match &term.rows {
                    Rows::Same => p0 + i,
                    Rows::Gather(index) => index.get(p0 + i),
                    Rows::Scatter(_) => unreachable!("layouts scatter the rows of local storages only"),
                };
                let mut whole_u = vec![K::ZERO; view.positions];
                (0..leaf.u.len()).for_each(|i| whole_u[rows(i)] += position(i));
                let mut whole_v = vec![K::ZERO; view.channels];
                v().into_iter().enumerate().for_each(|(j, x)| whole_v[leaf.lookup.channels.get(c0 + j)] += x);
                for (piece, p) in view.pieces.iter().enumerate() {
                    let s = storages[p.storage];
                    let us = pull(s.positions, &p.storage_positions, &p.tensor_positions, &whole_u);
                    let key = Key { storage: p.storage, piece, ..key.clone() };
                    let u = self.form.slot(key, s.positions, || pull(s.channels, &p.storage_channels, &p.tensor_channels, &whole_v));
                    u.iter_mut().zip(us).for_each(|(a, b)| *a += b);
                }
                for (a, b) in &view.constants {
                    self.form.constant += weighted(&whole_u, a) * weighted(&whole_v, b);
                }
            }
            Source::Accumulator(a) => {
                let shape = &leaf.layout.accumulators[*a];
                let at = *self.by_key.entry((*a, key.vector, key.group, c0)).or_insert_with(|| {
                    let mut whole_v = vec![K::ZERO; shape.channels];
                    v().into_iter().enumerate().for_each(|(j, x)| whole_v[leaf.lookup.channels.get(c0 + j)] += x);
                    self.weights.push(AccumulatorWeight { accumulator: *a, u: vec![K::ZERO; shape.positions], v: whole_v });
                    self.weights.len() - 1
                });
                let u = &mut self.weights[at].u;
                (0..leaf.u.len()).for_each(|i| u[p0 + i] += position(i));
            }
        }
    }
}

/// Splits `p~(r) + gamma q~(r)`. `r` is by index bit.
pub fn split<const D: usize>(
    layout: &Layout,
    blocks: &LeafBlocks,
    r: &[K<D>],
    gamma: K<D>,
    alpha: K<D>,
    betas: &[K<D>],
) -> (LinearForm<D>, Vec<AccumulatorWeight<D>>) {
    let mut s = Splitter { form: LinearForm::default(), weights: Vec::new(), by_key: HashMap::new() };
    let mut tables: HashMap<(usize, usize), Vec<K<D>>> = HashMap::new();
    let mut inside = K::ZERO;
    for b in &blocks.blocks {
        let (lc, lp) = (b.channels.log(), b.positions.log());
        let slot = eq_at(&r[lc + lp..], b.offset >> (lc + lp));
        for range in [(0, lc), (lc, lc + lp)] {
            tables.entry(range).or_insert_with(|| eq(&r[range.0..range.1]));
        }
        let v = &tables[&(0, lc)][..b.channels.used];
        let u: Vec<K<D>> = tables[&(lc, lc + lp)][..b.positions.used].iter().map(|&x| x * slot).collect();
        let (sum_u, sum_v): (K<D>, K<D>) = (u.iter().copied().sum(), v.iter().copied().sum());
        let mass = sum_u * sum_v;
        inside += mass;
        let Some(lookup) = layout.lookups.get(b.owner) else {
            let at = b.owner - layout.lookups.len();
            let table = &layout.tables[at];
            let mut rows = None;
            let mut fingerprint = betas[0].scale(from_i64(at as i64 + 1));
            for (j, &beta) in (0..table.columns.len()).zip(&betas[1..]) {
                fingerprint += beta * column_at(table, j, &r[..lc + lp], &mut rows);
            }
            s.form.constant += gamma * slot * (alpha - fingerprint);
            s.form.push(table.multiplicities, u.iter().map(|&x| -x).collect(), v.to_vec());
            continue;
        };
        let ident = betas[0].scale(from_i64(lookup.table as i64 + 1));
        s.form.constant += mass + gamma * mass * (alpha - ident);
        let leaf = Leaf { layout, lookup, start: (b.positions.start, b.channels.start), u: &u, v, sum_u, sum_v };
        for (entry, &beta) in lookup.entries.iter().zip(&betas[1..]) {
            for term in entry {
                s.term(&leaf, term, -gamma * beta);
            }
        }
    }
    s.form.constant += gamma * (K::ONE - inside);
    (s.form, s.weights)
}
