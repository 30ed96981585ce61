//! Contractions and their windows.

use super::super::error::Fault;
use super::super::{AccId, ConstId, Contract, Tensor, Window, limits};
use super::{Checker, Step, centred, refuse, require};

/// Strides, dilations, kernels and padding are at most this: products with positions stay far below 64 bits.
const EXTENT: u32 = 1 << 16;

/// Checks that a window is inside its input: shapes positive, every output's window starts inside the padded input and padding alone
/// fills no window.
pub(in super::super) fn window(w: &Window, x: &Tensor) -> Step {
    let axis = |input: u32, output: u32, kernel: u32, stride: u32, pad: u32, dilation: u32| {
        let small = [kernel, stride, dilation].into_iter().all(|v| (1..=EXTENT).contains(&v));
        if !small || input == 0 || output == 0 || input > limits::DIMENSION || output > limits::DIMENSION {
            return false;
        }
        let last_start = u64::from(output - 1) * u64::from(stride);
        u64::from(pad) <= u64::from(dilation) * u64::from(kernel - 1) && last_start < u64::from(input) + u64::from(pad)
    };
    let most = limits::DIMENSION;
    require((1..=most).contains(&w.batch), Fault::Shape, || format!("a batch of {}", w.batch))?;
    let rows = axis(w.input.0, w.output.0, w.kernel.0, w.stride.0, w.pad.0, w.dilation.0);
    let columns = axis(w.input.1, w.output.1, w.kernel.1, w.stride.1, w.pad.1, w.dilation.1);
    require(rows && columns, Fault::Shape, || format!("window out of range: {w:?}"))?;
    // Pulling weights back to the input goes through one side of each.
    let between = u64::from(w.batch) * u64::from(w.output.0);
    let between = between.saturating_mul(w.input.1.into());
    require(between <= limits::BETWEEN, Fault::Limit, || format!("window too large: {w:?}"))?;
    let size = w.input_rows().saturating_mul(w.input.1 as usize);
    require(size == x.positions(), Fault::Shape, || format!("window over {size} positions of {:?}, which has {}", x.name, x.positions()))
}

impl<'a> Checker<'a> {
    pub(super) fn contract(&mut self, acc: AccId, contract: &'a Contract) -> Step {
        let Some(&shape) = self.program.accumulators.get(acc as usize) else {
            return refuse(Fault::Reference, format!("no accumulator {acc}"));
        };
        require(self.sources[acc as usize].is_none(), Fault::Reference, || format!("accumulator {acc} is defined twice"))?;
        let (positions, channels) = (shape.positions as usize, shape.channels as usize);
        match contract {
            Contract::Conv { x, window: w, weights, bias, x_zero } => {
                let x = self.contraction_input(*x, w, positions, *x_zero)?;
                let dims = [shape.channels, w.kernel.0, w.kernel.1, x.channels() as u32];
                self.constant(*weights, &dims, true)?;
                self.bias(*bias, shape.channels)?;
                self.count(positions * channels, w, x.channels() as u64);
                self.packed(dims[1..].iter().map(|&d| d as usize).product(), channels)?;
            }
            Contract::Depthwise { x, window: w, weights, bias, x_zero } => {
                let x = self.contraction_input(*x, w, positions, *x_zero)?;
                require(channels.is_multiple_of(x.channels()), Fault::Shape, || {
                    format!("{channels} outputs are no multiple of {} channels", x.channels())
                })?;
                self.constant(*weights, &[w.kernel.0, w.kernel.1, shape.channels], true)?;
                self.bias(*bias, shape.channels)?;
                self.count(positions * channels, w, 1);
                self.packed(w.kernel.0 as usize * w.kernel.1 as usize, channels)?;
                // The executor repeats channels, over the whole input, for its multiplier.
                require(x.positions().saturating_mul(channels) <= limits::CELLS, Fault::Limit, || {
                    "the input is too large for its multiplier".into()
                })?;
            }
            Contract::Sum { x, window: w, x_zero } => {
                let x = self.input(*x)?;
                window(w, x)?;
                centred(x.dtype, *x_zero)?;
                require(*x_zero == 0 || *x_zero == x.zero_point, Fault::Quantization, || {
                    format!("zero point {x_zero} is not the input's")
                })?;
                require(w.outputs() == positions && x.channels() == channels, Fault::Shape, || "the sum has another shape".into())?;
                self.count(positions * channels, w, 1);
            }
            Contract::Mix { terms } => {
                require((1..=2).contains(&terms.len()), Fault::Unsupported, || format!("{} terms", terms.len()))?;
                for (coefficient, x) in terms {
                    let x = self.input(*x)?;
                    let fits = x.positions() == positions && x.channels() == channels;
                    require(fits, Fault::Shape, || format!("term {:?} has another shape", x.name))?;
                    require(coefficient.unsigned_abs() <= limits::COEFFICIENT, Fault::Limit, || format!("coefficient {coefficient}"))?;
                }
                self.macs = self.macs.saturating_add((positions * channels * terms.len()) as u64);
            }
        }
        self.sources[acc as usize] = Some(contract);
        Ok(())
    }

    fn contraction_input(&self, x: u32, w: &Window, positions: usize, x_zero: i32) -> Step<&'a Tensor> {
        let x = self.input(x)?;
        window(w, x)?;
        require(w.outputs() == positions, Fault::Shape, || format!("{} outputs for {positions} positions", w.outputs()))?;
        centred(x.dtype, x_zero)?;
        require(x_zero == x.zero_point, Fault::Quantization, || format!("zero point {x_zero} is not the input's {}", x.zero_point))?;
        Ok(x)
    }

    fn count(&mut self, outputs: usize, w: &Window, depth: u64) {
        let taps = u64::from(w.kernel.0) * u64::from(w.kernel.1);
        self.macs = self.macs.saturating_add((outputs as u64).saturating_mul(taps).saturating_mul(depth));
    }

    /// The executor pads channels: few channels of great depth must not outgrow what their weights allow.
    fn packed(&mut self, depth: usize, channels: usize) -> Step {
        self.packed += depth.saturating_mul(channels.next_multiple_of(32));
        require(self.packed <= 2 * limits::WEIGHTS, Fault::Limit, || "too many weights".into())
    }

    fn constant(&mut self, id: ConstId, dims: &[u32], weights: bool) -> Step {
        let Some(c) = self.program.constants.get(id as usize) else {
            return refuse(Fault::Reference, format!("no constant {id}"));
        };
        require(c.dims == dims, Fault::Shape, || format!("constant {id} has shape {:?}, not {dims:?}", c.dims))?;
        let narrow = c.range.0 >= -255 && c.range.1 <= 255;
        require(!weights || narrow, Fault::Weights, || format!("weights in [{}, {}]", c.range.0, c.range.1))?;
        // Work per operator stays proportional to the constants.
        let used = std::mem::replace(&mut self.constant_used[id as usize], true);
        require(!used, Fault::Reference, || format!("constant {id} is used twice"))
    }

    fn bias(&mut self, id: Option<ConstId>, channels: u32) -> Step {
        id.map_or(Ok(()), |id| self.constant(id, &[channels], false))
    }
}
