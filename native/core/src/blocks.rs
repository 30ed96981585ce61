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

/// The halves of a piece of at least two cells that hold anything.
fn halves(piece: Piece) -> impl Iterator<Item = Piece> {
    let size = piece.size / 2;
    let half = move |k: usize| Piece { start: piece.start + k * size, size, used: piece.used.saturating_sub(k * size).min(size) };
    (0..2).map(half).filter(|p| p.used > 0)
}

fn cut(block: Block, most: usize, out: &mut Vec<Block>) {
    if block.size() <= most {
        out.push(block);
    } else if block.positions.size > 1 {
        halves(block.positions).for_each(|positions| cut(Block { positions, ..block }, most, out));
    } else {
        halves(block.channels).for_each(|channels| cut(Block { channels, ..block }, most, out));
    }
}

/// Blocks of all `(positions, channels)` shapes sorted by falling size (ties in order of declaration, position pieces outer, channel
/// pieces inner), and the total length.
pub fn stack(shapes: &[(usize, usize)]) -> (Vec<Block>, usize) {
    stack_cut(shapes, usize::MAX)
}

/// [`stack`] of blocks of at most `most` cells, a power of two: larger ones are halved, positions first.
pub fn stack_cut(shapes: &[(usize, usize)], most: usize) -> (Vec<Block>, usize) {
    let mut blocks: Vec<Block> = Vec::new();
    for (owner, &(p, c)) in shapes.iter().enumerate() {
        for positions in pieces(p) {
            for channels in pieces(c) {
                cut(Block { owner, positions, channels, offset: 0 }, most, &mut blocks);
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
    fn cut_blocks_hold_the_same_cells() {
        for most in [1, 4, 32, 1024] {
            let shapes = [(49, 24), (1, 7), (12, 12), (1, 1)];
            let (blocks, total) = stack_cut(&shapes, most);
            assert!(blocks.iter().all(|b| b.size() <= most && b.offset % b.size() == 0 && b.positions.used > 0 && b.channels.used > 0));
            assert_eq!(total, blocks.iter().map(Block::size).sum::<usize>());
            for (owner, (p, c)) in shapes.into_iter().enumerate() {
                let mut seen = vec![0; p * c];
                for b in blocks.iter().filter(|b| b.owner == owner) {
                    b.positions.range().for_each(|p| b.channels.range().for_each(|k| seen[p * c + k] += 1));
                }
                assert!(seen.iter().all(|&n| n == 1));
            }
        }
    }

    #[test]
    fn blocks_are_aligned_and_disjoint() {
        let (blocks, total) = stack(&[(49, 24), (1, 7), (12, 12), (1, 1)]);
        assert!(blocks.iter().all(|b| b.offset % b.size() == 0));
        assert_eq!(total, blocks.iter().map(Block::size).sum::<usize>());
    }
}
