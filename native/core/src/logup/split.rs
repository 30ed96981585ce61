//! The last claim of the tree, in closed form: `p~(r) + gamma q~(r)` is a public part, one linear form in the committed storages, and
//! weights on accumulators. This is the heart of the verifier; its work is on the sides of blocks, never on their area.

use std::collections::HashMap;
use std::sync::Arc;

use super::LeafBlocks;
use crate::blocks::Piece;
use crate::eq::{below, eq, eq_at};
use crate::field::{K, from_i64};
use crate::layout::{Column, Layout, Lookup, Rows, Source, StorageId, Table, Term};
use crate::side::{Part, Side, times};

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
    pub u: Side<D>,
    /// Weight of each channel.
    pub v: Side<D>,
}

/// A weight `u (x) v` on an accumulator, merged over the position pieces and checks that share `v`.
#[derive(Clone, Debug)]
pub struct AccumulatorWeight<const D: usize> {
    /// The layout's accumulator.
    pub accumulator: usize,
    /// Weight of each position.
    pub u: Side<D>,
    /// Weight of each channel.
    pub v: Side<D>,
}

impl<const D: usize> Default for LinearForm<D> {
    fn default() -> Self {
        LinearForm { constant: K::ZERO, slots: Vec::new() }
    }
}

impl<const D: usize> LinearForm<D> {
    /// Adds a functional of its own.
    pub fn push(&mut self, storage: StorageId, u: impl Into<Side<D>>, v: impl Into<Side<D>>) {
        self.slots.push(Slot { storage, u: u.into(), v: v.into() });
    }

    /// Adds another form.
    pub fn absorb(&mut self, other: LinearForm<D>) {
        self.constant += other.constant;
        self.slots.extend(other.slots);
    }

    /// Pulls a functional `u (x) v` on a tensor back to its storages.
    pub fn tensor(&mut self, layout: &Layout, tensor: u32, u: &Side<D>, v: &Side<D>) {
        let view = &layout.views[tensor as usize];
        for piece in &view.pieces {
            let s = layout.storages[piece.storage];
            let us = u.moved(s.positions, &piece.storage_positions, &piece.tensor_positions);
            let vs = v.moved(s.channels, &piece.storage_channels, &piece.tensor_channels);
            self.push(piece.storage, us, vs);
        }
        for (a, b) in &view.constants {
            self.constant += u.weigh(a) * v.weigh(b);
        }
    }

    /// The value on given cells (the prover's self-test and tests; never the verifier).
    pub fn value(&self, storages: &[Vec<crate::field::F>]) -> K<D> {
        self.slots.iter().fold(self.constant, |total, s| {
            let (u, v) = (s.u.to_vec(), s.v.to_vec());
            let rows = storages[s.storage].chunks_exact(v.len()).zip(&u);
            total + rows.map(|(row, &u)| u * row.iter().zip(&v).map(|(&x, &v)| v.scale(x)).sum::<K<D>>()).sum::<K<D>>()
        })
    }
}

fn weighted<const D: usize>(u: &[K<D>], a: &[i64]) -> K<D> {
    u.iter().zip(a).filter(|(_, a)| **a != 0).map(|(&x, &a)| times(x, a)).sum()
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

struct Pending<const D: usize> {
    target: Target,
    u: Side<D>,
    v: Side<D>,
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
    /// Ranges of the point, shared by all parts on them, and their tables where one is needed.
    points: HashMap<(usize, usize), Arc<[K<D>]>>,
    tables: HashMap<(usize, usize), Arc<[K<D>]>>,
    masses: HashMap<(usize, usize, usize), K<D>>,
    /// Sums of public channel vectors by number, first channel and length.
    channel_masses: HashMap<(usize, usize, usize), K<D>>,
    pending: Vec<Pending<D>>,
    slots: HashMap<Key, usize>,
}

impl<const D: usize> Splitter<'_, D> {
    fn point(&mut self, range: (usize, usize)) -> Arc<[K<D>]> {
        let r = self.r;
        self.points.entry(range).or_insert_with(|| r[range.0..range.1].into()).clone()
    }

    fn table(&mut self, range: (usize, usize)) -> Arc<[K<D>]> {
        let r = self.r;
        self.tables.entry(range).or_insert_with(|| eq(&r[range.0..range.1]).into()).clone()
    }

    /// `sum of eq` over the first `used` indices.
    fn mass(&mut self, range: (usize, usize), used: usize) -> K<D> {
        let r = &self.r[range.0..range.1];
        *self.masses.entry((range.0, range.1, used)).or_insert_with(|| below(r, used).0)
    }

    /// `eq` over the leaf's positions, from their first on, times `factor`.
    fn positions(&mut self, leaf: &Leaf<'_, D>, factor: K<D>) -> Part<D> {
        let point = self.point(leaf.bits);
        Part { start: leaf.positions.start, used: leaf.positions.used, point, coefficient: factor * leaf.slot }
    }

    /// `eq` over the leaf's channels times the term's factors, at the lookup's own channels.
    fn channels(&mut self, leaf: &Leaf<'_, D>, term: &Term, size: usize) -> Side<D> {
        let Piece { start, used, .. } = leaf.channels;
        let range = (0, leaf.bits.0);
        match &term.by_channel {
            Some(w) => {
                let table = self.table(range);
                let values = table[..used].iter().zip(&w.values[start..]).map(|(&x, &w)| x.scale(from_i64(w))).collect();
                Side::placed(size, start, values)
            }
            None => Side::of(size, Part { start, used, point: self.point(range), coefficient: K::ONE }),
        }
    }

    /// The same at the channels of a tensor or an accumulator that the lookup stands for.
    fn spread(&mut self, leaf: &Leaf<'_, D>, term: &Term, size: usize) -> Side<D> {
        let n = leaf.lookup.channels.len();
        self.channels(leaf, term, n).moved(size, &leaf.lookup.channels, &crate::layout::Index::all(n))
    }

    /// The leaf's position weights times the term's factors and `factor`, one by one.
    fn position_weights(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) -> Vec<K<D>> {
        let factor = factor * leaf.slot;
        let table = self.table(leaf.bits);
        let table = table[..leaf.positions.used].iter();
        match &term.by_position {
            Some(w) => table.zip(&w.values[leaf.positions.start..]).map(|(&x, &w)| (x * factor).scale(from_i64(w))).collect(),
            None => table.map(|&x| x * factor).collect(),
        }
    }

    fn channel_mass(&mut self, leaf: &Leaf<'_, D>, term: &Term) -> K<D> {
        let Piece { start, used, .. } = leaf.channels;
        let range = (0, leaf.bits.0);
        let Some(w) = &term.by_channel else { return self.mass(range, used) };
        let key = (w.id, start, used);
        if let Some(&mass) = self.channel_masses.get(&key) {
            return mass;
        }
        let mass = weighted(&self.table(range)[..used], &w.values[start..]);
        self.channel_masses.insert(key, mass);
        mass
    }

    fn slot(&mut self, key: Key, positions: usize, v: impl FnOnce(&mut Self) -> Side<D>) -> usize {
        if let Some(&at) = self.slots.get(&key) {
            return at;
        }
        let v = v(self);
        self.pending.push(Pending { target: key.target, u: Side::zero(positions), v });
        self.slots.insert(key, self.pending.len() - 1);
        self.pending.len() - 1
    }

    /// Adds `factor * (the leaf's positions)` to a slot.
    fn rows(&mut self, slot: usize, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let start = leaf.positions.start;
        if let (Rows::Same, None) = (&term.rows, &term.by_position) {
            let part = self.positions(leaf, factor);
            self.pending[slot].u.add_part(part);
            return;
        }
        let weights = self.position_weights(leaf, term, factor);
        let u = &mut self.pending[slot].u;
        match &term.rows {
            Rows::Same => u.run_mut(start..start + weights.len()).iter_mut().zip(weights).for_each(|(u, x)| *u += x),
            Rows::Gather(index) => {
                let u = u.run_mut(0..u.size());
                weights.into_iter().enumerate().for_each(|(i, x)| u[index.get(start + i)] += x);
            }
            Rows::Scatter(index) => {
                let u = u.run_mut(0..u.size());
                index.iter().enumerate().for_each(|(j, i)| {
                    if let Some(&x) = i.checked_sub(start).and_then(|i| weights.get(i)) {
                        u[j] += x;
                    }
                });
            }
        }
    }

    /// The leaf's positions as weights on the rows of a tensor.
    fn tensor_rows(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>, positions: usize) -> Side<D> {
        let start = leaf.positions.start;
        match (&term.rows, &term.by_position) {
            (Rows::Same, None) => Side::of(positions, self.positions(leaf, factor)),
            (Rows::Same, Some(_)) => Side::placed(positions, start, self.position_weights(leaf, term, factor)),
            (Rows::Gather(index), _) => {
                let mut out = vec![K::ZERO; positions];
                self.position_weights(leaf, term, factor).into_iter().enumerate().for_each(|(i, x)| out[index.get(start + i)] += x);
                out.into()
            }
            (Rows::Scatter(_), _) => unreachable!("layouts scatter the rows of local storages only"),
        }
    }

    /// Adds `factor * <term, leaf>`.
    fn term(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) {
        let layout = self.layout;
        let factor = times(factor, term.scale);
        let start = leaf.channels.start;
        let key = |target| Key { target, vector: term.by_channel.as_ref().map_or(0, |v| v.id), group: leaf.lookup.group, channel: start };
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
                let slot = self.slot(key(Target::Storage(*s)), shape.positions, |this| this.channels(leaf, term, shape.channels));
                self.rows(slot, leaf, term, factor);
            }
            // The channel side of a narrow storage is one factor, or ones: it goes to the position side.
            Source::Broadcast(s) | Source::RowSum(s) => {
                let shape = layout.storages[*s];
                let side = self.channel_mass(leaf, term);
                let key = Key { target: Target::Storage(*s), vector: 0, group: 0, channel: 0 };
                let slot = self.slot(key, shape.positions, |_| vec![K::ONE; shape.channels].into());
                self.rows(slot, leaf, term, factor * side);
            }
            Source::Tensor(x) => {
                let view = &layout.views[*x as usize];
                let whole = self.tensor_rows(leaf, term, factor, view.positions);
                for (i, p) in view.pieces.iter().enumerate() {
                    let s = layout.storages[p.storage];
                    let slot = self.slot(key(Target::Piece(*x, i)), s.positions, |this| {
                        this.spread(leaf, term, view.channels).moved(s.channels, &p.storage_channels, &p.tensor_channels)
                    });
                    self.pending[slot].u.add(&whole.moved(s.positions, &p.storage_positions, &p.tensor_positions), K::ONE);
                }
                if !view.constants.is_empty() {
                    let channels = self.spread(leaf, term, view.channels);
                    for (a, b) in &view.constants {
                        self.constant += whole.weigh(a) * channels.weigh(b);
                    }
                }
            }
            Source::Accumulator(a) => {
                let shape = &layout.accumulators[*a];
                let slot = self.slot(key(Target::Accumulator(*a)), shape.positions, |this| this.spread(leaf, term, shape.channels));
                self.rows(slot, leaf, term, factor);
            }
        }
    }

    fn finish(self) -> (LinearForm<D>, Vec<AccumulatorWeight<D>>) {
        let mut form = LinearForm { constant: self.constant, slots: Vec::new() };
        let mut weights = Vec::new();
        for Pending { target, u, v } in self.pending {
            match target {
                Target::Storage(storage) => form.push(storage, u, v),
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
        points: HashMap::new(),
        tables: HashMap::new(),
        masses: HashMap::new(),
        channel_masses: HashMap::new(),
        pending: Vec::new(),
        slots: HashMap::new(),
    };
    let mut inside = K::ZERO;
    for b in &blocks.blocks {
        let bits = (b.channels.log(), b.log());
        let slot = eq_at(&r[bits.1..], b.offset >> bits.1);
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
            let shape = layout.storages[table.multiplicities];
            let u = Part { start: b.positions.start, used: b.positions.used, point: s.point(bits), coefficient: -slot };
            let v = Part { start: b.channels.start, used: b.channels.used, point: s.point((0, bits.0)), coefficient: K::ONE };
            let (u, v) = (Side::of(shape.positions, u), Side::of(shape.channels, v));
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
