//! Operators without rescale: lookups, softmax, max pools and index maps.

use super::super::error::Fault;
use super::super::{Piece, TableId, Tensor, TensorId, Window, interval, limits};
use super::{Checker, Step, contract, dimensions, refuse, require, rescale};

/// `1/256`
const SOFTMAX_SCALE: f32 = 0.003_906_25;

fn same_values(x: &Tensor, out: &Tensor) -> Step {
    require((x.dtype, x.scale, x.zero_point) == (out.dtype, out.scale, out.zero_point), Fault::Quantization, || {
        format!("{:?} has another dtype, scale or zero point than the output", x.name)
    })
}

impl Checker<'_> {
    pub(super) fn lookup(&mut self, inputs: &[TensorId], out: TensorId, table: TableId) -> Step {
        let inputs = inputs.iter().map(|&x| self.input(x)).collect::<Step<Vec<_>>>()?;
        let out = self.output(out)?;
        let Some(t) = self.program.tables.get(table as usize) else {
            return refuse(Fault::Reference, format!("no table {table}"));
        };
        require(matches!(inputs.len(), 1 | 2), Fault::Unsupported, || format!("{} inputs", inputs.len()))?;
        require(t.values.len() == 1 << (8 * inputs.len()), Fault::Table, || {
            format!("{} rows for {} inputs", t.values.len(), inputs.len())
        })?;
        for x in inputs {
            require(x.dims == out.dims, Fault::Shape, || format!("{:?} has another shape than the output", x.name))?;
        }
        let (low, high) = out.dtype.range();
        let range = self.table_range[table as usize];
        let inside = low <= range.0.into() && high >= range.1.into();
        require(inside, Fault::Table, || "a table value is outside the output's dtype".into())?;
        self.table_used[table as usize] = true;
        Ok(())
    }

    pub(super) fn softmax(&mut self, x: TensorId, out: TensorId, multiplier: i32, shift: u8) -> Step {
        let x = self.input(x)?;
        let out = self.output(out)?;
        require(x.dims == out.dims && x.dtype == out.dtype, Fault::Shape, || "input and output differ in shape or dtype".into())?;
        let low = out.dtype.range().0;
        require(out.scale == Some(SOFTMAX_SCALE.to_bits()) && out.zero_point == low, Fault::Quantization, || {
            format!("the output of softmax has scale 1/256 and zero point {low}")
        })?;
        require(multiplier >= 1 << 30 && shift <= 31, Fault::Quantization, || format!("multiplier ({multiplier}, {shift})"))?;
        // An output is at most 256 above the zero point before the clamp.
        let (start, bits) = self.program.clamp_rows;
        let covers = start <= low.into() && start + (1 << bits) > i64::from(low) + 256;
        require(covers, Fault::Table, || "clamp rows do not cover softmax".into())
    }

    pub(super) fn max_pool(&mut self, x: TensorId, out: TensorId, window: &Window, clamp: (i32, i32)) -> Step {
        let x = self.input(x)?;
        let out = self.output(out)?;
        contract::window(window, x)?;
        let shape = window.outputs() == out.positions() && x.channels() == out.channels();
        require(shape, Fault::Shape, || "the output has another shape".into())?;
        same_values(x, out)?;
        rescale::clamp(clamp, out.dtype.range())?;
        require(!interval::valid_taps(window).contains(&0), Fault::Shape, || "a window has no valid cell".into())?;
        let taps = u64::from(window.kernel.0) * u64::from(window.kernel.1);
        self.macs = self.macs.saturating_add((out.size() as u64).saturating_mul(taps));
        Ok(())
    }

    pub(super) fn view(&mut self, out: TensorId, pieces: &[Piece], fill: i32) -> Step {
        self.pieces += pieces.len();
        require(self.pieces <= limits::PIECES, Fault::Limit, || "too many pieces".into())?;
        let sources = pieces.iter().map(|p| self.input(p.source)).collect::<Step<Vec<_>>>()?;
        let out = self.output(out)?;
        let (low, high) = out.dtype.range();
        require(low <= fill && fill <= high, Fault::Table, || format!("fill {fill} is outside the dtype"))?;
        for (piece, source) in pieces.iter().zip(&sources) {
            same_values(source, out)?;
            inside(piece, source, out)?;
        }
        for (i, a) in pieces.iter().enumerate() {
            for b in &pieces[..i] {
                let apart = a.dims.iter().zip(&b.dims).any(|(a, b)| a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0);
                require(apart, Fault::Shape, || "pieces overlap".into())?;
            }
        }
        Ok(())
    }

    pub(super) fn permute(&mut self, x: TensorId, out: TensorId, dims: &[u32], perm: &[u8]) -> Step {
        let x = self.input(x)?;
        let out = self.output(out)?;
        same_values(x, out)?;
        let size = dimensions(dims, limits::PERMUTE_RANK);
        require(size == Some(x.size()) && size == Some(out.size()), Fault::Shape, || format!("{dims:?} is not the size of both tensors"))?;
        let mut seen = [false; limits::PERMUTE_RANK];
        let valid =
            perm.len() == dims.len() && perm.iter().all(|&i| (i as usize) < dims.len() && !std::mem::replace(&mut seen[i as usize], true));
        require(valid, Fault::Shape, || format!("{perm:?} is not a permutation of {} dimensions", dims.len()))
    }
}

fn inside(piece: &Piece, source: &Tensor, out: &Tensor) -> Step {
    let rank = out.dims.len();
    require(piece.dims.len() == rank && source.dims.len() == rank, Fault::Shape, || "a piece has another rank".into())?;
    for (k, &(dst, len, src, step)) in piece.dims.iter().enumerate() {
        let last = i64::from(src) + i64::from(step) * (i64::from(len) - 1);
        let source_fits = src < source.dims[k] && (0..i64::from(source.dims[k])).contains(&last);
        let out_fits = len >= 1 && u64::from(dst) + u64::from(len) <= u64::from(out.dims[k]);
        require(source_fits && out_fits, Fault::Shape, || format!("piece of {:?} is out of range in dimension {k}", source.name))?;
    }
    Ok(())
}
