//! A committed matrix of code words: rows hashed to leaves, opened by row.
//!
//! An opening at sorted distinct rows is these rows in order, each its elements in 8 canonical little-endian bytes, and then the siblings of
//! [`crate::merkle`].

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::channel::{Prover, Reader};
use crate::field::{F, P, canonical};
use crate::hash::{Digest, Key, hash_blocks, leaf_bytes};
use crate::merkle::{Tree, root_of, sibling_count};
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
        hash_blocks(key, size / 64, &padded, &mut out);
        out
    }
}

/// A code word matrix with its tree.
pub(crate) struct Code {
    leaf: Leaf,
    values: Vec<F>,
    tree: Tree,
}

impl Code {
    /// Hashes the rows of a row-major matrix.
    pub fn new(leaf: Leaf, values: Vec<F>) -> Code {
        const RUN: usize = 64;
        let (key, size) = (leaf.key(), leaf_bytes(leaf.columns, 0));
        let mut digests = vec![[0; 32]; values.len() / leaf.columns];
        digests.par_chunks_mut(RUN).zip(values.par_chunks(RUN * leaf.columns)).for_each_init(
            || vec![0u8; RUN * size],
            |padded, (out, rows)| {
                for (bytes, row) in padded.chunks_exact_mut(size).zip(rows.chunks_exact(leaf.columns)) {
                    for (b, &x) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(row) {
                        *b = canonical(x).to_le_bytes();
                    }
                }
                hash_blocks(&key, size / 64, &padded[..out.len() * size], out);
            },
        );
        Code { leaf, values, tree: Tree::new(digests) }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// Appends the opening at `rows`, sorted and distinct.
    pub fn open(&self, prover: &mut Prover, rows: &[usize]) {
        let mut bytes = Vec::with_capacity(rows.len() * 8 * self.leaf.columns);
        for &i in rows {
            for &x in &self.values[i * self.leaf.columns..][..self.leaf.columns] {
                bytes.extend_from_slice(&canonical(x).to_le_bytes());
            }
        }
        prover.append(&bytes);
        prover.append(self.tree.siblings(rows).as_flattened());
    }
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
