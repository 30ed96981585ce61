//! Storages are cut into blocks with power-of-two sides, sorted by falling size, so that every block is an aligned slice of one long
//! vector: nothing is padded to the next power of two in every dimension.

use std::ops::Range;

/// Pieces of one dimension at most; the last may be padded.
const PIECES: usize = 3;

/// `size` cells (a power of two) from `start`, of which the first `used` are inside the true shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First index.
    pub start: usize,
    /// Power-of-two length.
    pub size: usize,
    /// True length, at least 1.
    pub used: usize,
}

impl Piece {
    /// The indices inside the true shape.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.used
    }

    /// `log2(size)`.
    pub fn log(&self) -> usize {
        self.size.trailing_zeros() as usize
    }
}

/// Cuts `n >= 1` into at most three pieces of falling power-of-two size.
pub fn pieces(n: usize) -> Vec<Piece> {
    let mut bits: Vec<usize> = (0..usize::BITS).rev().map(|i| 1usize << i).filter(|b| n & b != 0).collect();
    if bits.len() > PIECES {
        // Round up to a multiple of the last piece that is kept; the sum may then have fewer pieces.
        let unit = bits[PIECES - 1];
        let mut out = pieces(n.div_ceil(unit) * unit);
        let last = out.last_mut().expect("n >= 1 has a piece");
        last.used = n - last.start;
        return out;
    }
    let mut start = 0;
    bits.drain(..)
        .map(|size| {
            let p = Piece { start, size, used: size };
            start += size;
            p
        })
        .collect()
}

/// A slice of a storage: positions outer, channels in the low bits, at an offset aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whose block this is: an index into the shapes given to [`stack`].
    pub owner: usize,
    /// Rows.
    pub positions: Piece,
    /// Columns.
    pub channels: Piece,
    /// Where it lies in the long vector.
    pub offset: usize,
}

impl Block {
    /// Cells, padding included.
    pub fn size(&self) -> usize {
        self.positions.size * self.channels.size
    }

    /// `log2` of the size.
    pub fn log(&self) -> usize {
        self.positions.log() + self.channels.log()
    }
}

/// Blocks of all `(positions, channels)` shapes sorted by falling size (ties in order of declaration, position pieces outer, channel
/// pieces inner), and the total length.
pub fn stack(shapes: &[(usize, usize)]) -> (Vec<Block>, usize) {
    let mut blocks: Vec<Block> = Vec::new();
    for (owner, &(p, c)) in shapes.iter().enumerate() {
        for positions in pieces(p) {
            for channels in pieces(c) {
                blocks.push(Block { owner, positions, channels, offset: 0 });
            }
        }
    }
    blocks.sort_by_key(|b| core::cmp::Reverse(b.size()));
    let mut total = 0;
    for b in &mut blocks {
        b.offset = total;
        total += b.size();
    }
    (blocks, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_length() {
        for n in 1..5000 {
            let p = pieces(n);
            assert!(p.len() <= PIECES && p.iter().map(|x| x.used).sum::<usize>() == n);
            assert!(p.iter().all(|x| x.size.is_power_of_two() && 1 <= x.used && x.used <= x.size));
            assert!(p.windows(2).all(|w| w[1].start == w[0].start + w[0].size && w[0].used == w[0].size && w[0].size >= w[1].size));
        }
        assert_eq!(pieces(12544).iter().map(|x| x.size).collect::<Vec<_>>(), [8192, 4096, 256]);
    }

    #[test]
    fn blocks_are_aligned_and_disjoint() {
        let (blocks, total) = stack(&[(49, 24), (1, 7), (12, 12), (1, 1)]);
        assert!(blocks.iter().all(|b| b.offset % b.size() == 0));
        assert_eq!(total, blocks.iter().map(Block::size).sum::<usize>());
    }
}
