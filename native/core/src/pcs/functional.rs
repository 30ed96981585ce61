//! Linear functionals on storages: outer products of one vector over positions and one over channels.

use super::stack::Stack;
use crate::blocks::{Block, Piece};
use crate::field::K;
use crate::reject::{Reject, Verdict};
use crate::side::Side;

/// `sum_(p, c) u[p] v[c] storage[p, c]`.
#[derive(Clone, Debug)]
pub struct Functional<const D: usize> {
    /// Index into the stack's oracles.
    pub oracle: usize,
    /// Index into the oracle's shapes.
    pub storage: usize,
    /// One weight for each position.
    pub u: Side<D>,
    /// One weight for each channel.
    pub v: Side<D>,
}

/// The sum of some functionals has a value.
#[derive(Clone, Debug)]
pub struct Claim<V, const D: usize> {
    /// The summands.
    pub functionals: Vec<Functional<D>>,
    /// The value.
    pub value: V,
}

/// A functional of the random combination of all claims.
pub(crate) struct Weighted<'a, const D: usize> {
    pub u: &'a Side<D>,
    pub v: &'a Side<D>,
    pub scale: K<D>,
}

/// A functional on one block, zero outside `positions x channels`, which are relative to the block.
pub(crate) struct Term<const D: usize> {
    /// First position with a weight.
    pub position: usize,
    /// Weights from there on.
    pub u: Vec<K<D>>,
    /// First channel with a weight.
    pub channel: usize,
    /// Weights from there on.
    pub v: Vec<K<D>>,
}

/// The combination by powers of `eta`, by oracle and storage. Refuses functionals that do not fit the stack.
pub(crate) fn batch<'a, const D: usize>(
    stack: &Stack,
    claims: impl Iterator<Item = &'a [Functional<D>]>,
    eta: K<D>,
) -> Verdict<Vec<Vec<Vec<Weighted<'a, D>>>>> {
    let mut out: Vec<Vec<Vec<_>>> = stack.layouts.iter().map(|o| o.shapes.iter().map(|_| Vec::new()).collect()).collect();
    let mut power = K::ONE;
    for functionals in claims {
        for f in functionals {
            let shape = stack.layouts.get(f.oracle).and_then(|o| o.shapes.get(f.storage));
            if shape != Some(&(f.u.size(), f.v.size())) {
                let why = format!("storage {} of oracle {} is not {} x {}", f.storage, f.oracle, f.u.size(), f.v.size());
                return Err(Reject::Malformed { what: "functional", why });
            }
            out[f.oracle][f.storage].push(Weighted { u: &f.u, v: &f.v, scale: power });
        }
        power *= eta;
    }
    Ok(out)
}

/// The entries of a piece from the first to the last that is not zero, and the index of the first, relative to the piece.
fn support<const D: usize>(x: &Side<D>, piece: &Piece) -> Option<(usize, Vec<K<D>>)> {
    let mut x = x.range(piece.range());
    let first = x.iter().position(|&k| k != K::ZERO)?;
    let last = x.iter().rposition(|&k| k != K::ZERO)?;
    x.truncate(last + 1);
    x.drain(..first);
    Some((first, x))
}

/// `q` with `b = q a`, if there is one; both start with an entry that is not zero.
fn ratio<const D: usize>(a: &[K<D>], b: &[K<D>]) -> Option<K<D>> {
    if a.len() != b.len() {
        return None;
    }
    if a == b {
        return Some(K::ONE);
    }
    // Proportional pairs come from one vector and two scalars; a second entry tells most others apart without an inversion.
    let middle = a.len() / 2;
    if a[0] * b[middle] != b[0] * a[middle] {
        return None;
    }
    let q = b[0] * a[0].try_inverse()?;
    a.iter().zip(b).all(|(&x, &y)| q * x == y).then_some(q)
}

/// `a += q b`, both with their first index.
fn accumulate<const D: usize>(at: &mut usize, a: &mut Vec<K<D>>, from: usize, b: &[K<D>], q: K<D>) {
    let start = (*at).min(from);
    let end = (*at + a.len()).max(from + b.len());
    let mut sum = vec![K::ZERO; end - start];
    sum[*at - start..][..a.len()].copy_from_slice(a);
    for (s, &y) in sum[from - start..].iter_mut().zip(b) {
        *s += q * y;
    }
    (*at, *a) = (start, sum);
}

/// The functionals of a storage on one of its blocks, those with proportional vectors on one side merged.
pub(crate) fn restrict<const D: usize>(block: &Block, functionals: &[Weighted<'_, D>]) -> Vec<Term<D>> {
    let mut by_u: Vec<Term<D>> = Vec::new();
    for f in functionals {
        // Channels first: they are fewer, and often there are none in a block.
        let Some((c, v)) = support(f.v, &block.channels) else { continue };
        let Some((p, u)) = support(f.u, &block.positions) else { continue };
        let twin = by_u.iter_mut().find_map(|t| (t.position == p).then(|| ratio(&t.u, &u)).flatten().map(|q| (t, q)));
        match twin {
            Some((t, q)) => accumulate(&mut t.channel, &mut t.v, c, &v, q * f.scale),
            None => {
                let v = v.iter().map(|&x| x * f.scale).collect();
                by_u.push(Term { position: p, u, channel: c, v });
            }
        }
    }
    let mut out: Vec<Term<D>> = Vec::new();
    for t in by_u {
        // A merged vector may start with zeros, which have no ratio: such a term stays alone.
        let whole = t.v.first().is_some_and(|&x| x != K::ZERO);
        let twin = out
            .iter_mut()
            .filter(|o| whole && o.channel == t.channel && o.v.first().is_some_and(|&x| x != K::ZERO))
            .find_map(|o| ratio(&o.v, &t.v).map(|q| (o, q)));
        match twin {
            Some((o, q)) => accumulate(&mut o.position, &mut o.u, t.position, &t.u, q),
            None => out.push(t),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    use crate::blocks::stack;
    use crate::pcs::tests::element;

    fn scaled(x: &[K<2>], q: K<2>) -> Vec<K<2>> {
        x.iter().map(|&y| y * q).collect()
    }

    #[test]
    fn merged_terms_are_the_same_matrix() {
        let vector = |n: usize, seed: u64, zeros: Range<usize>| -> Vec<K<2>> {
            (0..n).map(|i| if zeros.contains(&i) { K::ZERO } else { element(seed + i as u64) }).collect()
        };
        let (positions, channels) = (13, 11);
        let (a, b) = (vector(positions, 1, 0..3), vector(positions, 100, 8..13));
        let (x, y, z) = (vector(channels, 200, 0..0), vector(channels, 300, 0..8), vector(channels, 400, 2..5));
        let q = element::<2>(9);
        let sides =
            [(a.clone(), x.clone()), (scaled(&a, q), y), (b.clone(), z.clone()), (a, scaled(&z, q)), (b, x), (vec![K::ZERO; 13], z)];
        let as_sides: Vec<(Side<2>, Side<2>)> = sides.iter().map(|(u, v)| (u.clone().into(), v.clone().into())).collect();
        let functionals: Vec<_> = as_sides.iter().map(|(u, v)| Weighted { u, v, scale: element(7) }).collect();
        for block in stack(&[(positions, channels)]).0 {
            let terms = restrict(&block, &functionals);
            assert!(terms.len() <= 2, "two vectors over positions");
            for p in 0..block.positions.size {
                for c in 0..block.channels.size {
                    let merged: K<2> = terms
                        .iter()
                        .filter(|t| p >= t.position && c >= t.channel)
                        .filter_map(|t| Some(*t.u.get(p - t.position)? * *t.v.get(c - t.channel)?))
                        .sum();
                    let inside = p < block.positions.used && c < block.channels.used;
                    let plain: K<2> = sides
                        .iter()
                        .filter(|_| inside)
                        .map(|(u, v)| u[block.positions.start + p] * v[block.channels.start + c] * element(7))
                        .sum();
                    assert_eq!(merged, plain);
                }
            }
        }
    }
}
