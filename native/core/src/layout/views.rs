//! Views: index maps only. What does not map storage dimensions to products of dimensions is committed again with a copy argument.

use super::recipe::Recipe;
use super::types::{Copy, Index, Order, View, ViewPiece};
use super::{Builder, LayoutError, VIEW_TERMS};
use crate::program::{Permutation, Piece, TensorId};

impl Builder<'_> {
    pub(super) fn view(&mut self, out: TensorId, pieces: &[Piece], fill: i32) -> Result<(), LayoutError> {
        let (p, c) = self.shape(out);
        let out_dims = self.program.tensors[out as usize].dims.clone();
        let mut view = View { positions: p, channels: c, ..View::default() };
        if fill != 0 {
            // Fill everywhere, taken back under each piece.
            view.constants.push((vec![1; p], vec![i64::from(fill); c]));
        }
        for piece in pieces {
            let source_dims = &self.program.tensors[piece.source as usize].dims;
            let last = out_dims.len() - 1;
            let (mut to, mut from) = (vec![0usize], vec![0usize]);
            for i in 0..last {
                let (dst, len, src, step) = piece.dims[i];
                let grow = |heads: &[usize], size: u32, at: &dyn Fn(u32) -> usize| -> Vec<usize> {
                    heads.iter().flat_map(|h| (0..len).map(move |k| (h, k))).map(|(h, k)| h * size as usize + at(k)).collect()
                };
                to = grow(&to, out_dims[i], &|k| (dst + k) as usize);
                from = grow(&from, source_dims[i], &|k| (i64::from(src) + i64::from(step) * i64::from(k)) as usize);
            }
            let (dst, len, src, step) = piece.dims[last];
            let to_channels: Vec<usize> = (0..len).map(|k| (dst + k) as usize).collect();
            let from_channels: Vec<usize> = (0..len).map(|k| (i64::from(src) + i64::from(step) * i64::from(k)) as usize).collect();

            // Taken for the moment: a copy would cost as much as the source, however small the piece.
            let source = std::mem::take(&mut self.out.views[piece.source as usize]);
            for s in &source.pieces {
                self.spend(out, source.positions + to.len() + source.channels + to_channels.len())?;
                let (tp, sp) = compose(&to, &from, &s.tensor_positions, &s.storage_positions, source.positions);
                let (tc, sc) = compose(&to_channels, &from_channels, &s.tensor_channels, &s.storage_channels, source.channels);
                if !tp.is_empty() && !tc.is_empty() {
                    view.pieces.push(ViewPiece {
                        storage: s.storage,
                        tensor_positions: tp,
                        storage_positions: sp,
                        tensor_channels: tc,
                        storage_channels: sc,
                    });
                }
            }
            for (u, v) in &source.constants {
                // Each is placed, and compared with those that are there.
                self.spend(out, (p + c) * (1 + view.constants.len()))?;
                add_constant(&mut view, place(p, &to, |i| u[from[i]]), place(c, &to_channels, |i| v[from_channels[i]]));
            }
            self.out.views[piece.source as usize] = source;
            if fill != 0 {
                self.spend(out, (p + c) * (1 + view.constants.len()))?;
                add_constant(&mut view, place(p, &to, |_| -1), place(c, &to_channels, |_| i64::from(fill)));
            }
            // Views of views multiply: a chain of them must not grow without bound.
            if view.pieces.len().max(view.constants.len()) > VIEW_TERMS {
                return Err(self.fail(out, format!("a view of more than {VIEW_TERMS} pieces")));
            }
        }
        self.out.views[out as usize] = view;
        Ok(())
    }

    pub(super) fn permute(&mut self, x: TensorId, out: TensorId, dims: &[u32], perm: &[u8]) -> Result<(), LayoutError> {
        let ((xp, xc), (p, c)) = (self.shape(x), self.shape(out));
        let form = Permutation::new(dims, perm);
        if form.is_identity() && (xp, xc) == (p, c) {
            self.spend(out, (p + c) * self.out.views[x as usize].constants.len())?;
            self.out.views[out as usize] = self.out.views[x as usize].clone();
            return Ok(());
        }
        let order = if form.splits(xc, c) {
            Order::Refined { dims: form.dims, perm: form.perm }
        } else if form.is_identity() {
            Order::RowMajor
        } else {
            return Err(self.fail(out, format!("a transpose from rows of {xc} to rows of {c} cuts through its dimensions")));
        };
        let storage = self.witness(p, c);
        self.out.recipes.push(Recipe::Tensor { storage, tensor: out });
        self.whole(out, storage);
        self.out.copies.push(Copy { source: x, copy: out, order });
        Ok(())
    }
}

/// Indices `to[i]` of the new tensor whose source `from[i]` lies in the piece `tensor -> storage`.
fn compose(to: &[usize], from: &[usize], tensor: &Index, storage: &Index, size: usize) -> (Index, Index) {
    let mut at = vec![u32::MAX; size];
    for i in 0..tensor.len() {
        at[tensor.get(i)] = storage.get(i) as u32;
    }
    let hits: Vec<(u32, u32)> = to.iter().zip(from).filter(|&(_, &f)| at[f] != u32::MAX).map(|(&t, &f)| (t as u32, at[f])).collect();
    (Index::from_list(hits.iter().map(|h| h.0).collect()), Index::from_list(hits.iter().map(|h| h.1).collect()))
}

/// Adds `u (x) v`, merged with a term that shares a side.
fn add_constant(view: &mut View, u: Vec<i64>, v: Vec<i64>) {
    if u.iter().all(|&x| x == 0) || v.iter().all(|&x| x == 0) {
        return;
    }
    let add = |a: &mut Vec<i64>, b: &[i64]| a.iter_mut().zip(b).for_each(|(x, y)| *x += y);
    for (a, b) in &mut view.constants {
        if *b == v {
            return add(a, &u);
        }
        if *a == u {
            return add(b, &v);
        }
    }
    view.constants.push((u, v));
}

fn place(n: usize, at: &[usize], value: impl Fn(usize) -> i64) -> Vec<i64> {
    let mut out = vec![0; n];
    for (i, &t) in at.iter().enumerate() {
        out[t] = value(i);
    }
    out
}
