//! Max pool (design section 6): with `z = [y - x = 0]` for every valid cell `x` of a window, all `(y - x, z)` lie in the table
//! `(d, [d = 0])` and `sum z - 1` in the range table: `y` is at least every cell and equal to one of them.

use super::recipe::Recipe;
use super::tables::constant;
use super::types::{Index, Rows, Source, TableKind, Term};
use super::{Builder, LayoutError};
use crate::program::{TensorId, Window};

impl Builder<'_> {
    pub(super) fn max_pool(&mut self, x: TensorId, out: TensorId, window: &Window, clamp: (i32, i32)) -> Result<(), LayoutError> {
        let (p, c) = self.shape(out);
        let taps_total = window.kernel.0 as usize * window.kernel.1 as usize;
        // A tap is a storage, a lookup and a recipe as well: some thousand steps.
        self.spend(out, p.saturating_mul(c).saturating_add(1 << 12).saturating_mul(taps_total))?;
        self.counts(out, taps_total)?;
        let all = Index::all(c);
        let pooled = self.witness(p, c);
        self.out.recipes.push(Recipe::Pooled { storage: pooled, x, window: *window });
        let (table, group) = (self.table(TableKind::Difference)?, self.group());
        let mut hits = vec![constant(-1)];
        for ky in 0..window.kernel.0 as usize {
            for kx in 0..window.kernel.1 as usize {
                let (outputs, inputs) = taps(window, ky, kx);
                if outputs.is_empty() {
                    continue;
                }
                let n = outputs.len();
                let z = self.witness(n, c);
                let difference = vec![
                    Term::new(1, Source::Local(pooled)).rows(Rows::Gather(outputs.clone())),
                    Term::new(-1, Source::Tensor(x)).rows(Rows::Gather(inputs.clone())),
                ];
                self.lookup(table, n, &all, group, vec![difference, vec![Term::new(1, Source::Local(z))]]);
                hits.push(Term::new(1, Source::Local(z)).rows(Rows::Scatter(outputs.clone())));
                self.out.recipes.push(Recipe::PoolTap { storage: z, x, pooled, outputs, inputs });
            }
        }
        let range = self.range()?;
        self.lookup(range, p, &all, group, vec![hits]);

        // A fused activation is a clamp of the maximum, which already lies in the dtype.
        let (low, high) = self.dtype_of(out).range();
        if clamp == (low, high) {
            self.whole(out, pooled);
        } else {
            let y = self.witness(p, c);
            self.out.recipes.push(Recipe::Tensor { storage: y, tensor: out });
            self.whole(out, y);
            let table = self.table(TableKind::Clamp(clamp.0, clamp.1))?;
            let entries = vec![vec![Term::new(1, Source::Local(pooled))], vec![Term::new(1, Source::Local(y))]];
            self.lookup(table, p, &all, group, entries);
        }
        Ok(())
    }
}

/// Valid outputs of a tap and the input position that each reads.
pub(crate) fn taps(window: &Window, ky: usize, kx: usize) -> (Index, Index) {
    let (mut outputs, mut inputs) = (Vec::new(), Vec::new());
    for oy in 0..window.output_rows() {
        let Some(iy) = window.row(oy, ky) else { continue };
        for ox in 0..window.output.1 as usize {
            if let Some(ix) = window.column(ox, kx) {
                outputs.push((oy * window.output.1 as usize + ox) as u32);
                inputs.push((iy * window.input.1 as usize + ix) as u32);
            }
        }
    }
    (Index::from_list(outputs), Index::from_list(inputs))
}
