//! Committing: cells, code word, tree.

use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::oracle::OracleLayout;
use crate::field::{F, canonical};
use crate::hash::{Digest, Key, hash_blocks, leaf_bytes};
use crate::merkle::Tree;
use crate::ntt::encode;
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};

/// A committed oracle, as its committer holds it.
pub struct Committed {
    /// Where things lie.
    pub layout: Arc<OracleLayout>,
    /// All columns one after another, padding included.
    pub(super) cells: Vec<F>,
    /// Row-major code word, row `i` at point `i`.
    code: Vec<F>,
    tree: Tree,
    /// Root of the tree over the rows.
    pub root: Digest,
}

/// Commits `values[s]`: storage `s`, row-major `positions x channels`.
pub fn commit(_parameters: &Parameters, layout: Arc<OracleLayout>, values: &[&[F]]) -> Committed {
    let rows = 1usize << layout.log_rows;
    let mut cells = vec![F::ZERO; layout.columns * rows];
    let mut rest = &mut cells[..];
    let mut targets = Vec::with_capacity(layout.blocks.len());
    for b in &layout.blocks {
        let (mine, others) = rest.split_at_mut(b.size());
        rest = others;
        targets.push((b, mine));
    }
    targets.into_par_iter().for_each(|(b, target)| {
        let width = layout.shapes[b.owner].1;
        for (row, p) in target.chunks_exact_mut(b.channels.size).zip(b.positions.range()) {
            row[..b.channels.used].copy_from_slice(&values[b.owner][p * width..][b.channels.range()]);
        }
    });
    let code = encode(transpose(&cells, rows, layout.columns), layout.columns, layout.log_rows + ORACLE_LOG_BLOWUP);
    let tree = Tree::new(hash_rows(&Key::leaf(layout.role.name(), layout.columns, false), &code, layout.columns));
    Committed { root: tree.root(), layout, cells, code, tree }
}

/// Columns one after another -> row-major, tile by tile.
fn transpose(cells: &[F], rows: usize, columns: usize) -> Vec<F> {
    const TILE: usize = 32;
    let mut out = Vec::with_capacity(2 * cells.len());
    out.resize(cells.len(), F::ZERO);
    out.par_chunks_mut(TILE * columns).enumerate().for_each(|(tile, out)| {
        for (c, column) in cells.chunks_exact(rows).enumerate() {
            for (r, &x) in column[tile * TILE..].iter().take(TILE).enumerate() {
                out[r * columns + c] = x;
            }
        }
    });
    out
}

/// The leaf digest of each row of `width` elements.
pub(super) fn hash_rows(key: &Key, rows: &[F], width: usize) -> Vec<Digest> {
    const RUN: usize = 64;
    let bytes = leaf_bytes(width, 0);
    let mut out = vec![[0; 32]; rows.len() / width];
    out.par_chunks_mut(RUN).zip(rows.par_chunks(RUN * width)).for_each_init(
        || vec![0u8; RUN * bytes],
        |buffer, (digests, rows)| {
            for (leaf, row) in buffer.chunks_exact_mut(bytes).zip(rows.chunks_exact(width)) {
                for (b, &x) in leaf.chunks_exact_mut(8).zip(row) {
                    b.copy_from_slice(&canonical(x).to_le_bytes());
                }
            }
            hash_blocks(key, bytes / 64, &buffer[..digests.len() * bytes], digests);
        },
    );
    out
}

/// The bytes of elements as they are sent.
pub(super) fn element_bytes(elements: &[F], out: &mut Vec<u8>) {
    elements.iter().for_each(|&x| out.extend(canonical(x).to_le_bytes()));
}

impl Committed {
    /// Rows at sorted distinct indices, then the siblings of their paths.
    pub(super) fn open_rows(&self, rows: &[usize]) -> Vec<u8> {
        let columns = self.layout.columns;
        let mut out = Vec::new();
        rows.iter().for_each(|&r| element_bytes(&self.code[r * columns..][..columns], &mut out));
        self.tree.siblings(rows).iter().for_each(|d| out.extend(d));
        out
    }
}
