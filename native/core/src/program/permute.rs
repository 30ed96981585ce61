//! Reshapes and transposes by the dimensions that carry anything.

/// The dimensions of a permutation that are not 1.
pub(crate) struct Permutation {
    /// Dimensions of the source, their product its size.
    pub dims: Vec<usize>,
    /// Output dimension `i` is source dimension `perm[i]`.
    pub perm: Vec<usize>,
}

impl Permutation {
    /// Drops dimensions of size 1.
    pub fn new(dims: &[u32], perm: &[u8]) -> Self {
        let kept: Vec<usize> = (0..dims.len()).filter(|&i| dims[i] != 1).collect();
        Permutation {
            dims: kept.iter().map(|&i| dims[i] as usize).collect(),
            perm: perm.iter().filter_map(|&i| kept.iter().position(|&k| k == i as usize)).collect(),
        }
    }

    /// Whether every element keeps its place in the row-major list.
    pub fn is_identity(&self) -> bool {
        self.perm.iter().enumerate().all(|(i, &j)| i == j)
    }

    /// Whether the rows of both sides, so long, are products of whole dimensions.
    pub fn splits(&self, source_channels: usize, channels: usize) -> bool {
        let moved: Vec<usize> = self.perm.iter().map(|&i| self.dims[i]).collect();
        split(&self.dims, source_channels).is_some() && split(&moved, channels).is_some()
    }
}

/// How many leading dimensions make the positions, when the others multiply to `channels`.
pub(crate) fn split(dims: &[usize], channels: usize) -> Option<usize> {
    let mut product = 1usize;
    for at in (0..=dims.len()).rev() {
        if product == channels {
            return Some(at);
        }
        product = product.checked_mul(*dims.get(at.checked_sub(1)?)?)?;
    }
    None
}
