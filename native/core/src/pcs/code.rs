//! A committed matrix of code words: rows hashed to leaves, opened by row.
//!
//! An opening at sorted distinct rows is these rows in order, each its elements in 8 canonical little-endian bytes and the salt of its leaf, if
//! leaves have salts, and then the siblings of [`crate::merkle`].
//!
//! Without salts a leaf is a function of its row, and one who can guess the row recognises it; with one salt for the whole tree, so can one
//! who has seen any other row.

use std::ops::ControlFlow;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::control::{Control, Gauge};
use crate::field::{F, P, canonical};
use crate::hash::{BLOCK, Digest, Key, SALT, hash_blocks, leaf_bytes};
use crate::merkle::{Tree, root_of, sibling_count};
use crate::ntt::{Codewords, PANEL, Row, reverse};
use crate::random::{Salts, Seed};
use crate::reject::{Reject, Verdict};

/// What fixes the hash of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Name of the role.
    pub role: &'static str,
    /// Base elements in a row.
    pub columns: usize,
    /// Whether 16 secret bytes are hashed with each row.
    pub salted: bool,
}

impl Leaf {
    pub fn key(&self) -> Key {
        Key::leaf(self.role, self.columns, self.salted)
    }

    fn salt(&self) -> usize {
        if self.salted { SALT } else { 0 }
    }

    /// Bytes of an opened row: its elements, and its salt.
    pub fn opened(&self) -> usize {
        8 * self.columns + self.salt()
    }

    /// Hashes rows of canonical bytes, each with its salt.
    pub fn digests(&self, key: &Key, rows: &[u8]) -> Vec<Digest> {
        let (raw, size) = (self.opened(), leaf_bytes(self.columns, self.salt()));
        let mut out = vec![[0; 32]; rows.len() / raw];
        let mut padded = vec![0; out.len() * size];
        for (leaf, row) in padded.chunks_exact_mut(size).zip(rows.chunks_exact(raw)) {
            leaf[..raw].copy_from_slice(row);
        }
        hash_blocks(key, size / BLOCK, &padded, &mut out);
        out
    }
}

/// Blocks from which on hashing is worth a report.
const REPORTED: usize = 1 << 16;

const _: () = assert!(8 * PANEL == BLOCK, "a row of a panel is a block");

/// A code word matrix with its tree.
pub(crate) struct Code {
    leaf: Leaf,
    words: Codewords,
    tree: Tree,
    /// Of the salts, which are in the order of stored rows.
    seed: Option<Seed>,
}

impl Code {
    /// Hashes the rows, with salts if there is a seed.
    pub fn new(leaf: Leaf, words: Codewords, seed: Option<Seed>) -> Code {
        let made = Self::heard(leaf, words, seed, &mut |_| ControlFlow::Continue(()));
        made.continue_value().expect("nobody stops it")
    }

    /// [`Self::new`] of which `control` hears.
    pub fn heard(leaf: Leaf, words: Codewords, seed: Option<Seed>, control: Control<'_>) -> ControlFlow<(), Code> {
        const RUN: usize = 128;
        assert_eq!(leaf.salted, seed.is_some(), "salts come from a seed");
        let (key, size) = (leaf.key(), leaf_bytes(leaf.columns, leaf.salt()));
        let height = words.log_domain();
        let gauge = Gauge::new(control, (size / BLOCK) << height, REPORTED);
        let mut stored = vec![[0; 32]; 1 << height];
        stored.par_chunks_mut(RUN).enumerate().for_each_init(
            || (vec![0u8; RUN * size], seed.as_ref().map(Seed::salts)),
            |(padded, salts), (run, out)| {
                if !gauge.goes_on() {
                    return;
                }
                // A row of a panel is a block of the leaf; columns that do not exist are zeros, which a salt replaces.
                for (k, panel) in words.panels().enumerate() {
                    for (bytes, row) in padded.chunks_exact_mut(size).zip(&panel[run * RUN..][..out.len()]) {
                        if let Some(block) = bytes[BLOCK * k..].first_chunk_mut::<BLOCK>() {
                            *block = row_bytes(row);
                        }
                    }
                }
                if let Some(salts) = salts {
                    let mut read = [[0; SALT]; RUN];
                    salts.read(run * RUN, &mut read[..out.len()]);
                    for (bytes, salt) in padded.chunks_exact_mut(size).zip(&read[..out.len()]) {
                        bytes[8 * leaf.columns..][..SALT].copy_from_slice(salt);
                    }
                }
                hash_blocks(&key, size / BLOCK, &padded[..out.len() * size], out);
                gauge.did(out.len() * (size / BLOCK));
            },
        );
        gauge.end()?;
        let leaves = (0..1usize << height).into_par_iter().with_min_len(1 << 12).map(|i| stored[reverse(i, height)]).collect();
        drop(stored);
        ControlFlow::Continue(Code { leaf, words, tree: Tree::new(leaves), seed })
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// The values of all columns at point `i`.
    #[cfg(test)]
    pub fn row(&self, i: usize) -> Vec<F> {
        self.words.row(i).collect()
    }

    /// The opening at `rows`, sorted and distinct.
    pub fn open(&self, rows: &[usize]) -> Vec<u8> {
        let mut salts = self.seed.as_ref().map(Seed::salts);
        let mut bytes = Vec::with_capacity(rows.len() * (self.leaf.opened() + size_of::<Digest>() * self.words.log_domain()));
        rows.iter().for_each(|&i| self.write_row(i, salts.as_mut(), &mut bytes));
        let key = self.leaf.key();
        let leaf = |i: usize| {
            let mut row = Vec::with_capacity(self.leaf.opened());
            self.write_row(i, salts.clone().as_mut(), &mut row);
            self.leaf.digests(&key, &row)[0]
        };
        bytes.extend_from_slice(self.tree.siblings(rows, leaf).as_flattened());
        bytes
    }

    /// Appends a row's elements and its salt.
    fn write_row(&self, i: usize, salts: Option<&mut Salts>, bytes: &mut Vec<u8>) {
        let (at, end) = (reverse(i, self.words.log_domain()), bytes.len() + 8 * self.leaf.columns);
        self.words.panels().for_each(|rows| bytes.extend_from_slice(&row_bytes(&rows[at])));
        bytes.truncate(end);
        if let Some(salts) = salts {
            let mut salt = [[0; SALT]];
            salts.read(at, &mut salt);
            bytes.extend_from_slice(&salt[0]);
        }
    }
}

/// Canonical elements, little endian.
fn row_bytes(row: &Row) -> [u8; BLOCK] {
    let words: [u64; PANEL] = core::array::from_fn(|i| canonical(row[i]));
    let mut out = [0; BLOCK];
    for (to, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    out
}

/// Which rows an opening is about: sorted, distinct and below `2^height`.
pub(crate) struct Rows {
    leaf: Leaf,
    height: usize,
    rows: Vec<usize>,
}

impl Rows {
    pub fn new(leaf: Leaf, height: usize, rows: Vec<usize>) -> Rows {
        Rows { leaf, height, rows }
    }

    /// Bytes of the opening.
    pub fn size(&self) -> usize {
        self.leaf.opened() * self.rows.len() + size_of::<Digest>() * sibling_count(&self.rows, self.height)
    }

    /// The index of a row that is one of these.
    pub fn place(&self, row: usize) -> usize {
        self.rows.partition_point(|&r| r < row)
    }

    /// Which rows these are.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Checks an opening of [`Self::size`] bytes against `root`. -> what `each` makes of the elements of every row, in order.
    pub fn check<T: Send>(&self, opening: &[u8], root: &Digest, each: impl Fn(&[F]) -> T + Sync) -> Verdict<Vec<T>> {
        // A few at a time: buffers that stay in the cache, and work for several threads.
        const RUN: usize = 32;
        let (leaf, raw, key) = (self.leaf, self.leaf.opened(), self.leaf.key());
        let (data, siblings) = opening.split_at(raw * self.rows.len());
        let run = |rows: &[u8]| -> Verdict<(Vec<T>, Vec<Digest>)> {
            let mut elements = Vec::with_capacity(leaf.columns);
            let mut row = |row: &[u8]| {
                elements.clear();
                for word in row[..8 * leaf.columns].as_chunks::<8>().0 {
                    let v = u64::from_le_bytes(*word);
                    if v >= P {
                        return Err(Reject::NotCanonical { at: leaf.role });
                    }
                    elements.push(F::from_u64(v));
                }
                Ok(each(&elements))
            };
            let out = rows.chunks_exact(raw).map(&mut row).collect::<Verdict<Vec<T>>>()?;
            Ok((out, leaf.digests(&key, rows)))
        };
        let runs = data.par_chunks(RUN * raw).map(run).collect::<Vec<_>>();
        let (mut out, mut digests) = (Vec::with_capacity(self.rows.len()), Vec::with_capacity(self.rows.len()));
        for done in runs {
            let (values, mut hashed) = done?;
            out.extend(values);
            digests.append(&mut hashed);
        }
        match root_of(&self.rows, digests, siblings.as_chunks::<32>().0, self.height) {
            Some(found) if found == *root => Ok(out),
            _ => Err(Reject::Merkle { oracle: leaf.role }),
        }
    }
}
