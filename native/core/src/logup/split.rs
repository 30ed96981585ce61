//! The last claim of the tree, in closed form: `p~(r) + gamma q~(r)` is a public part, one linear form in the committed storages, and
//! weights on accumulators. This is the heart of the verifier; its work is on the sides of blocks, never on their area.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::LeafBlocks;
use super::columns::column_at;
use super::form::LinearForm;
use crate::blocks::{Block, Piece};
use crate::eq::{below, eq_at};
use crate::field::{F, K, LANES, from_i64};
use crate::layout::{Index, Layout, Lookup, Rows, Source, StorageId, Term};
use crate::run::Run;
use crate::side::{Part, Side, times};

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

struct Pending<const D: usize> {
    /// The first block that it is from.
    block: usize,
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
    /// These parts of the point.
    along: Arc<[K<D>]>,
    across: Arc<[K<D>]>,
    slot: K<D>,
}

/// Integers of a public vector in the field.
fn elements(values: &[i64]) -> Vec<F> {
    values.iter().map(|&x| from_i64(x)).collect()
}

/// Splits some of the blocks.
struct Splitter<'a, const D: usize> {
    layout: &'a Layout,
    r: &'a [K<D>],
    /// The block at hand.
    block: usize,
    constant: K<D>,
    /// Ranges of the point, shared by all parts on them, and their tables where one is needed.
    points: HashMap<(usize, usize), Arc<[K<D>]>>,
    tables: HashMap<(usize, usize), Arc<Run<D>>>,
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

    fn table(&mut self, range: (usize, usize)) -> Arc<Run<D>> {
        let r = self.r;
        self.tables.entry(range).or_insert_with(|| Run::eq(K::ONE, &r[range.0..range.1]).into()).clone()
    }

    /// `sum of eq` over the first `used` indices.
    fn mass(&mut self, range: (usize, usize), used: usize) -> K<D> {
        let r = &self.r[range.0..range.1];
        *self.masses.entry((range.0, range.1, used)).or_insert_with(|| below(r, used).0)
    }

    /// `eq` over the leaf's positions, from their first on, times `factor`.
    fn positions(&self, leaf: &Leaf<'_, D>, factor: K<D>) -> Part<D> {
        let Piece { start, used, .. } = leaf.positions;
        Part { start, used, point: leaf.along.clone(), coefficient: factor * leaf.slot }
    }

    /// `eq` over the leaf's channels times the term's factors, at the lookup's own channels.
    fn channels(&mut self, leaf: &Leaf<'_, D>, term: &Term, size: usize) -> Side<D> {
        let Piece { start, used, .. } = leaf.channels;
        let range = (0, leaf.bits.0);
        match &term.by_channel {
            Some(w) => {
                let weights = self.table(range).times_each(&w.values[start..][..used]);
                Side::placed(size, start, weights)
            }
            None => Side::of(size, Part { start, used, point: leaf.across.clone(), coefficient: K::ONE }),
        }
    }

    /// The same at the channels of a tensor or an accumulator that the lookup stands for.
    fn spread(&mut self, leaf: &Leaf<'_, D>, term: &Term, size: usize) -> Side<D> {
        let n = leaf.lookup.channels.len();
        self.channels(leaf, term, n).into_moved(size, &leaf.lookup.channels, &Index::all(n))
    }

    /// The leaf's position weights times the term's factors and `factor`, one by one.
    fn position_weights(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>) -> Run<D> {
        let (table, Piece { start, used, .. }) = (self.table(leaf.bits), leaf.positions);
        let weights = match &term.by_position {
            Some(w) => table.times_each(&w.values[start..][..used]),
            None => table.slice(0..used),
        };
        weights.scaled(factor * leaf.slot)
    }

    fn channel_mass(&mut self, leaf: &Leaf<'_, D>, term: &Term) -> K<D> {
        let Piece { start, used, .. } = leaf.channels;
        let range = (0, leaf.bits.0);
        let Some(w) = &term.by_channel else { return self.mass(range, used) };
        let key = (w.id, start, used);
        if let Some(&mass) = self.channel_masses.get(&key) {
            return mass;
        }
        let mass = self.table(range).dot_base(&elements(&w.values[start..][..used]));
        self.channel_masses.insert(key, mass);
        mass
    }

    fn slot(&mut self, key: Key, positions: usize, v: impl FnOnce(&mut Self) -> Side<D>) -> usize {
        if let Some(&at) = self.slots.get(&key) {
            return at;
        }
        let v = v(self);
        self.pending.push(Pending { block: self.block, target: key.target, u: Side::zero(positions), v });
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
        let mut moved = Run::zeros(u.size());
        match &term.rows {
            Rows::Same => return u.add_run(start, &weights, K::ONE),
            Rows::Gather(index) => moved.add_moved(&weights, (0..weights.len()).map(|i| (index.get(start + i), i))),
            Rows::Scatter(index) => {
                let n = weights.len();
                let inside = |j: usize| index.get(j).checked_sub(start).filter(|&i| i < n).map(|i| (j, i));
                moved.add_moved(&weights, (0..index.len()).filter_map(inside));
            }
        }
        u.add_run(0, &moved, K::ONE);
    }

    /// The leaf's positions as weights on the rows of a tensor.
    fn tensor_rows(&mut self, leaf: &Leaf<'_, D>, term: &Term, factor: K<D>, positions: usize) -> Side<D> {
        let start = leaf.positions.start;
        match (&term.rows, &term.by_position) {
            (Rows::Same, None) => Side::of(positions, self.positions(leaf, factor)),
            (Rows::Same, Some(_)) => Side::placed(positions, start, self.position_weights(leaf, term, factor)),
            (Rows::Gather(index), _) => {
                let weights = self.position_weights(leaf, term, factor);
                let mut out = Run::zeros(positions);
                out.add_moved(&weights, (0..weights.len()).map(|i| (index.get(start + i), i)));
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
                    Some(_) => self.position_weights(leaf, term, factor).sum(),
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
            // One position: its weight is one factor. The lookup's channels are the storage's rows, or its columns.
            Source::RowSums(s) => {
                let shape = layout.storages[*s];
                let weight = self.position_weights(leaf, term, factor).sum();
                let rows = self.channels(leaf, term, shape.positions);
                let key = Key { target: Target::Storage(*s), vector: 0, group: 0, channel: 0 };
                let slot = self.slot(key, shape.positions, |_| vec![K::ONE; shape.channels].into());
                self.pending[slot].u.add(&rows, weight);
            }
            Source::ColumnSums(s) => {
                let shape = layout.storages[*s];
                let weight = self.position_weights(leaf, term, factor).sum();
                let slot = self.slot(key(Target::ColumnSums(*s)), shape.positions, |this| this.channels(leaf, term, shape.channels));
                self.pending[slot].u.add(&vec![K::ONE; shape.positions].into(), weight);
            }
            Source::Tensor(x) => {
                let view = &layout.views[*x as usize];
                let whole = self.tensor_rows(leaf, term, factor, view.positions);
                for (i, p) in view.pieces.iter().enumerate() {
                    let s = layout.storages[p.storage];
                    let slot = self.slot(key(Target::Piece(*x, i)), s.positions, |this| {
                        this.spread(leaf, term, view.channels).into_moved(s.channels, &p.storage_channels, &p.tensor_channels)
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

    /// Adds a block's share. `fingerprints` are the tables' at the point, by block.
    fn block(&mut self, blocks: &LeafBlocks, at: usize, gamma: K<D>, alpha: K<D>, betas: &[K<D>], fingerprints: &[K<D>]) {
        let (layout, r) = (self.layout, self.r);
        let b = &blocks.blocks[at];
        self.block = at;
        let bits = (b.channels.log(), b.log());
        let slot = eq_at(&r[bits.1..], b.offset >> bits.1);
        let mass = self.mass(bits, b.positions.used) * self.mass((0, bits.0), b.channels.used) * slot;
        // What is padding everywhere has the denominator 1.
        self.constant -= gamma * mass;
        let Some(lookup) = layout.lookups.get(b.owner) else {
            let table = &layout.tables[b.owner - layout.lookups.len()];
            self.constant += gamma * slot * (alpha - fingerprints[at]);
            let shape = layout.storages[table.multiplicities];
            let u = Part { start: b.positions.start, used: b.positions.used, point: self.point(bits), coefficient: -slot };
            let v = Part { start: b.channels.start, used: b.channels.used, point: self.point((0, bits.0)), coefficient: K::ONE };
            let (u, v) = (Side::of(shape.positions, u), Side::of(shape.channels, v));
            self.pending.push(Pending { block: at, target: Target::Storage(table.multiplicities), u, v });
            return;
        };
        let ident = betas[0].scale(from_i64(lookup.table as i64 + 1));
        self.constant += mass + gamma * mass * (alpha - ident);
        let leaf = Leaf {
            lookup,
            positions: b.positions,
            channels: b.channels,
            bits,
            along: self.point(bits),
            across: self.point((0, bits.0)),
            slot,
        };
        for (entry, &beta) in lookup.entries.iter().zip(&betas[1..]) {
            for term in entry {
                self.term(&leaf, term, -gamma * beta);
            }
        }
    }
}

/// The blocks in shares of about equal work, the blocks of one group of lookups together: slots are merged within a share only, and those of
/// accumulators, whose number and order are the prover's and the verifier's alike, within a group only.
fn shares(layout: &Layout, blocks: &LeafBlocks) -> Vec<Vec<usize>> {
    const SHARES: usize = 8;
    let group = |b: &Block| layout.lookups.get(b.owner).map_or(0, |l| l.group);
    let work = |b: &Block| {
        layout.lookups.get(b.owner).map_or(1, |l| (1 + b.channels.used / LANES) * l.entries.iter().map(Vec::len).sum::<usize>())
    };
    let mut by_group: BTreeMap<usize, usize> = BTreeMap::new();
    blocks.blocks.iter().for_each(|b| *by_group.entry(group(b)).or_default() += work(b));
    let total: usize = by_group.values().sum();
    let mut before = 0;
    for own in by_group.values_mut() {
        before += *own;
        *own = (before - *own) * SHARES / total.max(1);
    }
    let mut out = vec![Vec::new(); SHARES];
    for (at, b) in blocks.blocks.iter().enumerate() {
        out[by_group[&group(b)]].push(at);
    }
    out
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
    // The fingerprint's extension at the point, for each block of a table.
    let fingerprint = |b: &Block| {
        let Some(at) = b.owner.checked_sub(layout.lookups.len()) else { return K::ZERO };
        let table = &layout.tables[at];
        let columns = (0..table.columns.len()).zip(&betas[1..]);
        columns.fold(betas[0].scale(from_i64(at as i64 + 1)), |sum, (j, &beta)| sum + beta * column_at(table, j, &r[..b.log()]))
    };
    let fingerprints: Vec<K<D>> = blocks.blocks.par_iter().with_min_len(1).map(fingerprint).collect();
    let share = |share: Vec<usize>| {
        let mut s = Splitter {
            layout,
            r,
            block: 0,
            constant: K::ZERO,
            points: HashMap::new(),
            tables: HashMap::new(),
            masses: HashMap::new(),
            channel_masses: HashMap::new(),
            pending: Vec::new(),
            slots: HashMap::new(),
        };
        share.into_iter().for_each(|at| s.block(blocks, at, gamma, alpha, betas, &fingerprints));
        (s.constant, s.pending)
    };
    let shares: Vec<(K<D>, Vec<Pending<D>>)> = shares(layout, blocks).into_par_iter().map(share).collect();
    let constant = shares.iter().fold(gamma, |sum, (own, _)| sum + *own);
    // In the order of blocks, each of which is in one share; within a share they are.
    let count = shares.iter().map(|(_, pending)| pending.len()).sum();
    let mut rest: Vec<_> = shares.into_iter().map(|(_, pending)| pending.into_iter()).collect();
    let mut next = || {
        let ahead = rest.iter_mut().filter_map(|share| Some((share.as_slice().first()?.block, share)));
        ahead.min_by_key(|(block, _)| *block)?.1.next()
    };
    let mut form = LinearForm { constant, slots: Vec::with_capacity(count) };
    let mut weights = Vec::new();
    while let Some(Pending { target, u, v, .. }) = next() {
        match target {
            Target::Storage(storage) | Target::ColumnSums(storage) => form.push(storage, u, v),
            Target::Piece(x, i) => form.push(layout.views[x as usize].pieces[i].storage, u, v),
            Target::Accumulator(accumulator) => weights.push(AccumulatorWeight { accumulator, u, v }),
        }
    }
    (form, weights)
}
