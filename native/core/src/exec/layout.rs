//! Index maps: views and permutations.

use crate::program::{Piece, Program, TensorId};

/// Row-major strides.
fn strides(dims: &[u32]) -> Vec<i64> {
    let mut out = vec![1; dims.len()];
    for k in (1..dims.len()).rev() {
        out[k - 1] = out[k] * i64::from(dims[k]);
    }
    out
}

/// One dimension of a copy: how often, and how far each side moves.
struct Loop {
    length: u32,
    to: i64,
    from: i64,
}

/// Copies along nested loops, the last one innermost.
fn copy(loops: &[Loop], to: i64, from: i64, out: &mut [i16], x: &[i16]) {
    match loops {
        [] => out[to as usize] = x[from as usize],
        [Loop { length, to: 1, from: 1 }] => {
            let n = *length as usize;
            out[to as usize..][..n].copy_from_slice(&x[from as usize..][..n]);
        }
        [Loop { length, to: t, from: f }] => (0..i64::from(*length)).for_each(|i| out[(to + i * t) as usize] = x[(from + i * f) as usize]),
        [outer, inner @ ..] => (0..i64::from(outer.length)).for_each(|i| copy(inner, to + i * outer.to, from + i * outer.from, out, x)),
    }
}

/// Joins dimensions that are contiguous on both sides, drops those of length 1.
fn join(loops: Vec<Loop>) -> Vec<Loop> {
    let mut out: Vec<Loop> = Vec::with_capacity(loops.len());
    for inner in loops.into_iter().filter(|l| l.length != 1) {
        let n = i64::from(inner.length);
        match out.last_mut() {
            Some(outer) if outer.to == n * inner.to && outer.from == n * inner.from => {
                *outer = Loop { length: outer.length * inner.length, to: inner.to, from: inner.from };
            }
            _ => out.push(inner),
        }
    }
    out
}

/// The pieces of a view over its fill value.
pub(super) fn view(program: &Program, tensors: &[Vec<i16>], out: TensorId, pieces: &[Piece], fill: i16, y: &mut [i16]) {
    let to = strides(&program.tensors[out as usize].dims);
    y.fill(fill);
    for piece in pieces {
        let from = strides(&program.tensors[piece.source as usize].dims);
        let start = |pick: fn(&(u32, u32, u32, i32)) -> u32, strides: &[i64]| -> i64 {
            piece.dims.iter().zip(strides).map(|(d, s)| i64::from(pick(d)) * s).sum()
        };
        let loops = piece.dims.iter().zip(to.iter().zip(&from));
        let loops = loops.map(|(&(_, length, _, step), (to, from))| Loop { length, to: *to, from: from * i64::from(step) }).collect();
        copy(&join(loops), start(|d| d.0, &to), start(|d| d.2, &from), y, &tensors[piece.source as usize]);
    }
}

/// `x` read as `dims`, transposed by `perm`.
pub(super) fn permute(x: &[i16], dims: &[u32], perm: &[u8], y: &mut [i16]) {
    let from = strides(dims);
    let shape: Vec<u32> = perm.iter().map(|&k| dims[usize::from(k)]).collect();
    let to = strides(&shape);
    let loops = (0..perm.len()).map(|i| Loop { length: shape[i], to: to[i], from: from[usize::from(perm[i])] }).collect();
    copy(&join(loops), 0, 0, y, x);
}
