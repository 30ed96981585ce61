//! A committed matrix of code words: rows hashed to leaves, opened by row.
//!
//! An opening at sorted distinct rows is these rows in order, each its elements in 8 canonical little-endian bytes and the salt of its leaf, if
//! leaves have salts, and then the siblings of [`crate::merkle`].
//!
//! Without salts a leaf is a function of its row, and one who can guess the row recognises it; with one salt for the whole tree, so can one
//! who has seen any other row.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::channel::{Prover, Reader};
use crate::field::{F, P, canonical};
use crate::hash::{BLOCK, Digest, Key, SALT, hash_blocks, leaf_bytes};
use crate::merkle::{Tree, root_of, sibling_count};
use crate::ntt::{Codewords, PANEL, Row, reverse};
use crate::random::Seed;
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
        const RUN: usize = 128;
        assert_eq!(leaf.salted, seed.is_some(), "salts come from a seed");
        let (key, size) = (leaf.key(), leaf_bytes(leaf.columns, leaf.salt()));
        let height = words.log_domain();
        let mut stored = vec![[0; 32]; 1 << height];
        stored.par_chunks_mut(RUN).enumerate().for_each_init(
            || vec![0u8; RUN * size],
            |padded, (run, out)| {
                // A row of a panel is a block of the leaf; columns that do not exist are zeros, which a salt replaces.
                for (k, panel) in words.panels().enumerate() {
                    for (bytes, row) in padded.chunks_exact_mut(size).zip(&panel[run * RUN..][..out.len()]) {
                        if let Some(block) = bytes[BLOCK * k..].first_chunk_mut::<BLOCK>() {
                            *block = row_bytes(row);
                        }
                    }
                }
                if let Some(seed) = &seed {
                    let mut salts = [[0; SALT]; RUN];
                    seed.salts(run * RUN, &mut salts[..out.len()]);
                    for (bytes, salt) in padded.chunks_exact_mut(size).zip(&salts[..out.len()]) {
                        bytes[8 * leaf.columns..][..SALT].copy_from_slice(salt);
                    }
                }
                hash_blocks(&key, size / BLOCK, &padded[..out.len() * size], out);
            },
        );
        let leaves = (0..1usize << height).into_par_iter().with_min_len(1 << 12).map(|i| stored[reverse(i, height)]).collect();
        drop(stored);
        Code { leaf, words, tree: Tree::new(leaves), seed }
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

    /// Appends the opening at `rows`, sorted and distinct.
    pub fn open(&self, prover: &mut Prover, rows: &[usize]) {
        let mut bytes = Vec::with_capacity(rows.len() * self.leaf.opened());
        for &i in rows {
            for x in self.words.row(i) {
                bytes.extend_from_slice(&canonical(x).to_le_bytes());
            }
            if let Some(seed) = &self.seed {
                let mut salt = [[0; SALT]];
                seed.salts(reverse(i, self.words.log_domain()), &mut salt);
                bytes.extend_from_slice(&salt[0]);
            }
        }
        prover.append(&bytes);
        prover.append(self.tree.siblings(rows).as_flattened());
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

/// An opening as it was read: at `rows`, sorted, distinct and below `2^height`.
pub(crate) struct Rows {
    leaf: Leaf,
    height: usize,
    rows: Vec<usize>,
    bytes: Vec<u8>,
}

/// Takes the bytes of the opening at `rows` from a proof.
pub(crate) fn take_rows<const D: usize, R: Reader<D>>(reader: &mut R, leaf: Leaf, height: usize, rows: Vec<usize>) -> Verdict<Rows> {
    let size = leaf.opened() * rows.len() + size_of::<Digest>() * sibling_count(&rows, height);
    let bytes = reader.take(leaf.role, size)?.to_vec();
    Ok(Rows { leaf, height, rows, bytes })
}

impl Rows {
    /// Which rows these are.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Checks them against `root`. -> the elements of all rows, one after another.
    pub fn check(&self, root: &Digest) -> Verdict<Vec<F>> {
        let leaf = self.leaf;
        let (data, siblings) = self.bytes.split_at(leaf.opened() * self.rows.len());
        let mut values = Vec::with_capacity(leaf.columns * self.rows.len());
        for row in data.chunks_exact(leaf.opened().max(1)) {
            for word in row[..8 * leaf.columns].as_chunks::<8>().0 {
                let v = u64::from_le_bytes(*word);
                if v >= P {
                    return Err(Reject::NotCanonical { at: leaf.role });
                }
                values.push(F::from_u64(v));
            }
        }
        let digests = leaf.digests(&leaf.key(), data);
        match root_of(&self.rows, digests, siblings.as_chunks::<32>().0, self.height) {
            Some(found) if found == *root => Ok(values),
            _ => Err(Reject::Merkle { oracle: leaf.role }),
        }
    }
}
