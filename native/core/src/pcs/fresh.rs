//! What the oracle of one proof has beside its data: pads, the mask, and the line's two columns.
//!
//! With `q` pads and `L` rows, column `l` is `d_l(X) + X^L pad_l(X)`. Behind the columns of data come, each as `D` base columns, the mask (uniform
//! in all `L + q` coefficients; the last column of the stack, without a weight in any claim), `r` and `b` of the line (`messages + 1 + q`
//! coefficients; not in the stack).

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use crate::field::{Ext, F, K};
use crate::ntt::{PANEL, Row};
use crate::random::Randomness;
#[cfg(feature = "attacks")]
use crate::random::{Seed, Weakness};

/// Random coefficients of one oracle. Vectors over `K` are flat: `degree` base elements each.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Fresh {
    /// `pads x columns`, row-major.
    pub pads: Vec<F>,
    /// All coefficients of the mask.
    pub mask: Vec<F>,
    /// The line's slope: one entry masks each message, one more the line's own constant.
    pub r: Vec<F>,
    /// The line at 0.
    pub b: Vec<F>,
    columns: usize,
    degree: usize,
    rows: usize,
}

/// Element `i` of a flat vector.
pub(crate) fn element<const D: usize>(flat: &[F], i: usize) -> K<D> {
    Ext(core::array::from_fn(|d| flat[i * D + d]))
}

impl Fresh {
    #[allow(clippy::let_and_return)] // a seam of tests
    pub fn new(random: &mut Randomness, columns: usize, log_rows: usize, pads: usize, degree: usize, messages: usize) -> Fresh {
        let rows = 1 << log_rows;
        let line = messages + 1 + pads;
        assert!(line <= rows + pads, "the line is a word of the witness's code");
        let fresh = Fresh {
            pads: random.elements(pads * columns),
            mask: random.elements((rows + pads) * degree),
            r: random.elements(line * degree),
            b: random.elements(line * degree),
            columns,
            degree,
            rows,
        };
        #[cfg(feature = "attacks")]
        let fresh = fresh.weakened(random.weakness);
        fresh
    }

    #[cfg(feature = "attacks")]
    fn weakened(mut self, weakness: Weakness) -> Fresh {
        let same = |like: &[F]| Seed::from_bytes([1; 32]).elements(0, like.len());
        match weakness {
            Weakness::None => {}
            Weakness::NoPads => self.pads.fill(F::ZERO),
            Weakness::SameMasks => self.r = same(&self.r),
            Weakness::SameMask => self.mask = same(&self.mask),
            Weakness::Unmasked(message) => self.r[message * self.degree..][..self.degree].fill(F::ZERO),
        }
        self
    }

    /// Coefficient `row` of base column `column` beyond the data; 0 past the end.
    fn coefficient(&self, column: usize, row: usize) -> F {
        let (which, d) = ((column - self.columns) / self.degree, (column - self.columns) % self.degree);
        let from = match which {
            0 => &self.mask,
            1 => &self.r,
            2 => &self.b,
            _ => return F::ZERO,
        };
        from.get(row * self.degree + d).copied().unwrap_or(F::ZERO)
    }

    /// Sets the columns of a panel's row that are not data.
    pub fn add_columns(&self, panel: usize, row: usize, out: &mut Row) {
        for (to, column) in out.iter_mut().zip(panel * PANEL..) {
            if column >= self.columns {
                *to = self.coefficient(column, row);
            }
        }
    }

    /// The coefficients of a panel beyond the rows.
    pub fn tail(&self, panel: usize) -> Vec<Row> {
        let pads = self.pads.len() / self.columns;
        let at = |i: usize, column: usize| match column < self.columns {
            true => self.pads[i * self.columns + column],
            false => self.coefficient(column, self.rows + i),
        };
        (0..pads).map(|i| core::array::from_fn(|j| at(i, panel * PANEL + j))).collect()
    }

    /// Coefficients of the mask, those beyond the rows included.
    pub fn mask<const D: usize>(&self) -> impl IndexedParallelIterator<Item = K<D>> + '_ {
        self.mask.as_chunks::<D>().0.par_iter().map(|&c| Ext(c))
    }

    /// Coefficients of the combination beyond the rows, for weights of the columns and, last, of the mask.
    pub fn combined_pads<const D: usize>(&self, weights: &[K<D>]) -> Vec<K<D>> {
        let of_mask = weights[self.columns];
        self.pads
            .chunks_exact(self.columns)
            .enumerate()
            .map(|(i, row)| row.iter().zip(weights).fold(of_mask * element(&self.mask, self.rows + i), |sum, (&c, w)| sum + w.scale(c)))
            .collect()
    }
}
