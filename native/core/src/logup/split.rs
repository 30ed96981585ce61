//! The last claim of the tree, in closed form: `p~(r) + gamma q~(r)` is a public part, one linear form in the committed storages, and
//! weights on accumulators. This is the heart of the verifier; its work is on the sides of blocks, never on their area.

use std::collections::HashMap;

use rayon::prelude::*;

use super::LeafBlocks;
use crate::blocks::Piece;
use crate::eq::{below, eq, eq_at};
use crate::field::{K, from_i64};
use crate::layout::{Column, Index, Layout, Lookup, Rows, Source, StorageId, Table, Term, Vector};

/// `constant + sum of <storage, u (x) v>`.
#[derive(Clone, Debug)]
pub struct LinearForm<const D: usize> {
    /// Public part.
    pub constant: K<D>,
    /// Functionals.
    pub slots: Vec<Slot<D>>,
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
        LinearForm { constant: K::ZERO, slots: Vec::new() }
    }
}

impl<const D: usize> LinearForm<D> {
    /// Adds a functional of its own.
    pub fn push(&mut self, storage: StorageId, u: Vec<K<D>>, v: Vec<K<D>>) {
        self.slots.push(Slot { storage, u, v });
    }

    /// Adds another form.
    pub fn absorb(&mut self, other: LinearForm<D>) {
        self.constant += other.constant;
        self.slots.extend(other.slots);
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

/// What a slot is a functional on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Storage(StorageId),
    /// The same, with equal weights for all positions.
    ColumnSums(StorageId),
    /// A piece of a tensor's view.
    Piece(u32, usize),
    Accumulator(usize),
}

/// Functionals with equal keys have equal `v`, by construction: it is made from what the key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    target: Target,
    vector: usize,
    group: usize,
    channel: usize,
}

/// Part of a slot's `u` that is a multiple of one table of `eq`: where it starts, which table, and the factor for each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PartKey {
    slot: usize,
    start: usize,
    range: (usize, usize),
    used: usize,
    by_position: usize,
}

struct Part<const D: usize> {
    key: PartKey,
    by_position: Option<Vector>,
    coefficient: K<D>,
}

struct Pending<const D: usize> {
    target: Target,
    u: Vec<K<D>>,
    v: Vec<K<D>>,
}

/// A leaf block of a lookup at the point: `slot * eq(positions) (x) eq(channels)`.
struct Leaf<'a, const D: usize> {
    lookup: &'a Lookup,
    positions: Piece,
    channels: Piece,
    /// Variables of the channels are `0 .. bits.0`, of the positions `bits.0 .. bits.1`.
    bits: (usize, usize),
    slot: K<D>,
}

struct Splitter<'a, const D: usize> {
    layout: &'a Layout,
    r: &'a [K<D>],
    constant: K<D>,
    tables: HashMap<(usize, usize), Vec<K<D>>>,
    masses: HashMap<(usize, usize, usize), K<D>>,
    pending: Vec<Pending<D>>,
    slots: HashMap<Key, usize>,
    parts: Vec<Part<D>>,
    part_of: HashMap<PartKey, usize>,
}

impl<const D: usize> Splitter<'_, D> {
    fn prepare(&mut self, range: (usize, usize)) {
        let r = self.r;
        self.tables.entry(range).or_insert_with(|| eq(&r[range.0..range.1]));
    }

    /// `sum of eq` over the first `used` indices.
    fn mass(&mut self, range: (usize, usize), used: usize) -> K<D> {
        let r = &self.r[range.0..range.1];
        *self.masses.entry((range.0, range.1, used)).or_insert_with(|| below(r, used).0)
    }

    fn positions(&self, leaf: &Leaf<'_, D>) -> &[K<D>] {
        &self.tables[&leaf.bits][..leaf.positions.used]
    }

    fn channels(&self, leaf: &Leaf<'_, D>) -> &[K<D>] {
        &self.tables[&(0, leaf.bits.0)][..leaf.channels.used]
    }

    /// `eq` over the leaf's channels times the term's factors.
    fn channel_weights(&self, leaf: &Leaf<'_, D>, term: &Term) -> Vec<K<D>> {
        let table = self.channels(leaf);
        match &term.by_channel {
            Some(w) => table.iter().zip(&w.values[leaf.channels.start..]).map(|(&x, &w)| x.scale(from_i64(w))).collect(),
            None => table.to_vec(),
        }
    }

    /// The leaf's position weights times the term's factors and `factor`, one by one.
    fn position_weights(&self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) -> Vec<K<D>> {
        let factor = factor * leaf.slot;
        let table = self.positions(leaf).iter();
        match &term.by_position {
            Some(w) => table.zip(&w.values[leaf.positions.start..]).map(|(&x, &w)| (x * factor).scale(from_i64(w))).collect(),
            None => table.map(|&x| x * factor).collect(),
        }
    }

    fn channel_mass(&mut self, leaf: &Leaf<'_, D>, term: &Term) -> K<D> {
        match term.by_channel {
            Some(_) => self.channel_weights(leaf, term).into_iter().sum(),
            None => self.mass((0, leaf.bits.0), leaf.channels.used),
        }
    }

    fn slot(&mut self, key: Key, positions: usize, v: impl FnOnce(&Self) -> Vec<K<D>>) -> usize {
        if let Some(&at) = self.slots.get(&key) {
            return at;
        }
        let v = v(self);
        self.pending.push(Pending { target: key.target, u: vec![K::ZERO; positions], v });
        self.slots.insert(key, self.pending.len() - 1);
        self.pending.len() - 1
    }

    /// Adds `factor * (the leaf's positions)` to a slot whose positions are the lookup's own.
    fn same_rows(&mut self, slot: usize, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let key = PartKey {
            slot,
            start: leaf.positions.start,
            range: leaf.bits,
            used: leaf.positions.used,
            by_position: term.by_position.as_ref().map_or(0, |v| v.id),
        };
        let at = *self.part_of.entry(key).or_insert_with(|| {
            self.parts.push(Part { key, by_position: term.by_position.clone(), coefficient: K::ZERO });
            self.parts.len() - 1
        });
        self.parts[at].coefficient += factor * leaf.slot;
    }

    /// The same for other row maps, position by position.
    fn moved_rows(&mut self, slot: usize, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let start = leaf.positions.start;
        let weights = self.position_weights(leaf, term, factor);
        let u = &mut self.pending[slot].u;
        match &term.rows {
            Rows::Same => weights.into_iter().enumerate().for_each(|(i, x)| u[start + i] += x),
            Rows::Gather(index) => weights.into_iter().enumerate().for_each(|(i, x)| u[index.get(start + i)] += x),
            Rows::Scatter(index) => index.iter().enumerate().for_each(|(j, i)| {
                if let Some(&x) = i.checked_sub(start).and_then(|i| weights.get(i)) {
                    u[j] += x;
                }
            }),
        }
    }

    fn rows(&mut self, slot: usize, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        match term.rows {
            Rows::Same => self.same_rows(slot, leaf, term, factor),
            _ => self.moved_rows(slot, leaf, term, factor),
        }
    }

    /// Adds `factor * <term, leaf>`.
    fn term(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let layout = self.layout;
        let factor = factor.scale(from_i64(term.scale));
        let start = leaf.channels.start;
        let key = |target| Key { target, vector: term.by_channel.as_ref().map_or(0, |v| v.id), group: leaf.lookup.group, channel: start };
        // Channel weights at the channels of a tensor or accumulator that the lookup stands for.
        let spread = |s: &Self, n: usize| {
            let mut out = vec![K::ZERO; n];
            s.channel_weights(leaf, term).into_iter().enumerate().for_each(|(j, x)| out[leaf.lookup.channels.get(start + j)] += x);
            out
        };
        match &term.source {
            Source::One => {
                let positions = match term.by_position {
                    Some(_) => self.position_weights(leaf, term, factor).into_iter().sum(),
                    None => self.mass(leaf.bits, leaf.positions.used) * factor * leaf.slot,
                };
                let channels = self.channel_mass(leaf, term);
                self.constant += positions * channels;
            }
            Source::Local(s) => {
                let shape = layout.storages[*s];
                let slot = self.slot(key(Target::Storage(*s)), shape.positions, |this| {
                    let mut out = vec![K::ZERO; shape.channels];
                    out[start..start + leaf.channels.used].copy_from_slice(&this.channel_weights(leaf, term));
                    out
                });
                self.rows(slot, leaf, term, factor);
            }
            // The channel side of a narrow storage is one factor, or ones: it goes to the position side.
            Source::Broadcast(s) | Source::RowSum(s) => {
                let shape = layout.storages[*s];
                let side = self.channel_mass(leaf, term);
                let key = Key { target: Target::Storage(*s), vector: 0, group: 0, channel: 0 };
                let slot = self.slot(key, shape.positions, |_| vec![K::ONE; shape.channels]);
                self.rows(slot, leaf, term, factor * side);
            }
            // One position: its weight is one factor. The lookup's channels are the storage's rows, or its columns.
            Source::RowSums(s) => {
                let shape = layout.storages[*s];
                let weight: K<D> = self.position_weights(leaf, term, factor).into_iter().sum();
                let rows = self.channel_weights(leaf, term);
                let key = Key { target: Target::Storage(*s), vector: 0, group: 0, channel: 0 };
                let slot = self.slot(key, shape.positions, |_| vec![K::ONE; shape.channels]);
                self.pending[slot].u[start..].iter_mut().zip(rows).for_each(|(u, x)| *u += x * weight);
            }
            Source::ColumnSums(s) => {
                let shape = layout.storages[*s];
                let weight: K<D> = self.position_weights(leaf, term, factor).into_iter().sum();
                let slot = self.slot(key(Target::ColumnSums(*s)), shape.positions, |this| {
                    let mut out = vec![K::ZERO; shape.channels];
                    out[start..start + leaf.channels.used].copy_from_slice(&this.channel_weights(leaf, term));
                    out
                });
                self.pending[slot].u.iter_mut().for_each(|u| *u += weight);
            }
            Source::Tensor(x) => {
                let view = &layout.views[*x as usize];
                let mut whole = vec![K::ZERO; view.positions];
                for (i, w) in self.position_weights(leaf, term, factor).into_iter().enumerate() {
                    let row = match &term.rows {
                        Rows::Same => leaf.positions.start + i,
                        Rows::Gather(index) => index.get(leaf.positions.start + i),
                        Rows::Scatter(_) => unreachable!("layouts scatter the rows of local storages only"),
                    };
                    whole[row] += w;
                }
                for (i, p) in view.pieces.iter().enumerate() {
                    let s = layout.storages[p.storage];
                    let slot = self.slot(key(Target::Piece(*x, i)), s.positions, |this| {
                        pull(s.channels, &p.storage_channels, &p.tensor_channels, &spread(this, view.channels))
                    });
                    let u = &mut self.pending[slot].u;
                    p.storage_positions.iter().zip(p.tensor_positions.iter()).for_each(|(to, from)| u[to] += whole[from]);
                }
                if !view.constants.is_empty() {
                    let channels = spread(self, view.channels);
                    for (a, b) in &view.constants {
                        self.constant += weighted(&whole, a) * weighted(&channels, b);
                    }
                }
            }
            Source::Accumulator(a) => {
                let shape = &layout.accumulators[*a];
                let slot = self.slot(key(Target::Accumulator(*a)), shape.positions, |this| spread(this, shape.channels));
                self.rows(slot, leaf, term, factor);
            }
        }
    }

    /// Writes the parts out.
    fn finish(mut self) -> (LinearForm<D>, Vec<AccumulatorWeight<D>>) {
        let mut by_slot: Vec<Vec<Part<D>>> = self.pending.iter().map(|_| Vec::new()).collect();
        for part in self.parts.drain(..) {
            by_slot[part.key.slot].push(part);
        }
        let tables = &self.tables;
        self.pending.par_iter_mut().zip(by_slot).with_min_len(8).for_each(|(pending, parts)| {
            for Part { key, by_position, coefficient } in parts {
                let table = &tables[&key.range][..key.used];
                let u = &mut pending.u[key.start..];
                match by_position {
                    None => u.iter_mut().zip(table).for_each(|(u, &x)| *u += x * coefficient),
                    Some(w) => {
                        let factors = &w.values[key.start..];
                        u.iter_mut().zip(table).zip(factors).for_each(|((u, &x), &w)| *u += (x * coefficient).scale(from_i64(w)));
                    }
                }
            }
        });
        let mut form = LinearForm { constant: self.constant, slots: Vec::new() };
        let mut weights = Vec::new();
        for Pending { target, u, v } in self.pending {
            match target {
                Target::Storage(storage) | Target::ColumnSums(storage) => form.push(storage, u, v),
                Target::Piece(x, i) => form.push(self.layout.views[x as usize].pieces[i].storage, u, v),
                Target::Accumulator(accumulator) => weights.push(AccumulatorWeight { accumulator, u, v }),
            }
        }
        (form, weights)
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
    let mut s = Splitter {
        layout,
        r,
        constant: K::ZERO,
        tables: HashMap::new(),
        masses: HashMap::new(),
        pending: Vec::new(),
        slots: HashMap::new(),
        parts: Vec::new(),
        part_of: HashMap::new(),
    };
    let mut inside = K::ZERO;
    for b in &blocks.blocks {
        let bits = (b.channels.log(), b.log());
        let slot = eq_at(&r[bits.1..], b.offset >> bits.1);
        s.prepare((0, bits.0));
        s.prepare(bits);
        let mass = s.mass(bits, b.positions.used) * s.mass((0, bits.0), b.channels.used) * slot;
        inside += mass;
        let Some(lookup) = layout.lookups.get(b.owner) else {
            let at = b.owner - layout.lookups.len();
            let table = &layout.tables[at];
            let mut rows = None;
            let mut fingerprint = betas[0].scale(from_i64(at as i64 + 1));
            for (j, &beta) in (0..table.columns.len()).zip(&betas[1..]) {
                fingerprint += beta * column_at(table, j, &r[..bits.1], &mut rows);
            }
            s.constant += gamma * slot * (alpha - fingerprint);
            let u = s.tables[&bits][..b.positions.used].iter().map(|&x| -(x * slot)).collect();
            let v = s.tables[&(0, bits.0)][..b.channels.used].to_vec();
            s.pending.push(Pending { target: Target::Storage(table.multiplicities), u, v });
            continue;
        };
        let ident = betas[0].scale(from_i64(lookup.table as i64 + 1));
        s.constant += mass + gamma * mass * (alpha - ident);
        let leaf = Leaf { lookup, positions: b.positions, channels: b.channels, bits, slot };
        for (entry, &beta) in lookup.entries.iter().zip(&betas[1..]) {
            for term in entry {
                s.term(&leaf, term, -gamma * beta);
            }
        }
    }
    s.constant += gamma * (K::ONE - inside);
    s.finish()
}
