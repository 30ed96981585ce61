//! A committed matrix of code words: rows hashed to leaves, opened by row.
//!
//! An opening at sorted distinct rows is these rows in order, each its elements in 8 canonical little-endian bytes, and then the siblings of
//! [`crate::merkle`].

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::channel::{Prover, Reader};
use crate::field::{F, P, canonical};
use crate::hash::{BLOCK, Digest, Key, hash_blocks, leaf_bytes};
use crate::merkle::{Tree, root_of, sibling_count};
use crate::ntt::{Codewords, PANEL, Row, reverse};
use crate::reject::{Reject, Verdict};

/// What fixes the hash of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Name of the role.
    pub role: &'static str,
    /// Base elements in a row.
    pub columns: usize,
}

impl Leaf {
    fn key(&self) -> Key {
        Key::leaf(self.role, self.columns, false)
    }

    /// Hashes rows of canonical bytes.
    fn digests(&self, key: &Key, rows: &[u8]) -> Vec<Digest> {
        let (raw, size) = (8 * self.columns, leaf_bytes(self.columns, 0));
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
}

impl Code {
    /// Hashes the rows.
    pub fn new(leaf: Leaf, words: Codewords) -> Code {
        const RUN: usize = 128;
        let (key, size) = (leaf.key(), leaf_bytes(leaf.columns, 0));
        let height = words.log_domain();
        let mut stored = vec![[0; 32]; 1 << height];
        stored.par_chunks_mut(RUN).enumerate().for_each_init(
            || vec![0u8; RUN * size],
            |padded, (run, out)| {
                // A row of a panel is a block of the leaf; columns that do not exist are the zeros at its end.
                for (k, panel) in words.panels().enumerate() {
                    for (bytes, row) in padded.chunks_exact_mut(size).zip(&panel[run * RUN..][..out.len()]) {
                        if let Some(block) = bytes[BLOCK * k..].first_chunk_mut::<BLOCK>() {
                            *block = row_bytes(row);
                        }
                    }
                }
                hash_blocks(&key, size / BLOCK, &padded[..out.len() * size], out);
            },
        );
        let leaves = (0..1usize << height).into_par_iter().with_min_len(1 << 12).map(|i| stored[reverse(i, height)]).collect();
        drop(stored);
        Code { leaf, words, tree: Tree::new(leaves) }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// Appends the opening at `rows`, sorted and distinct.
    pub fn open(&self, prover: &mut Prover, rows: &[usize]) {
        let mut bytes = Vec::with_capacity(rows.len() * 8 * self.leaf.columns);
        for &i in rows {
            for x in self.words.row(i) {
                bytes.extend_from_slice(&canonical(x).to_le_bytes());
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

/// Reads the opening at `rows` (sorted, distinct, below `2^height`) and checks it against `root`: the rows one after another.
pub(crate) fn read_rows<const D: usize, R: Reader<D>>(
    reader: &mut R,
    leaf: Leaf,
    height: usize,
    root: &Digest,
    rows: &[usize],
) -> Verdict<Vec<F>> {
    let size = 8 * leaf.columns * rows.len();
    let siblings = 32 * sibling_count(rows, height);
    let bytes = reader.take(leaf.role, size + siblings)?;
    let (data, siblings) = bytes.split_at(size);
    let mut values = Vec::with_capacity(leaf.columns * rows.len());
    for chunk in data.as_chunks::<8>().0 {
        let v = u64::from_le_bytes(*chunk);
        if v >= P {
            return Err(Reject::NotCanonical { at: leaf.role });
        }
        values.push(F::from_u64(v));
    }
    let digests = leaf.digests(&leaf.key(), data);
    match root_of(rows, digests, siblings.as_chunks::<32>().0, height) {
        Some(found) if found == *root => Ok(values),
        _ => Err(Reject::Merkle { oracle: leaf.role }),
    }
}
