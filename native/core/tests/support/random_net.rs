//! Random small networks: every operator in any order, odd shapes, both element types.

use nexus_edge_core::program::builder::{Convolution, ProgramBuilder};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::error::ProgramError;
use nexus_edge_core::program::{DType, Edge, Piece, Semantics, TensorId, Weights, Window};

use super::{Random, multiplier};

/// A tensor as the generator sees it: `[batch, h, w, c]`.
#[derive(Clone, Copy)]
struct Node {
    id: TensorId,
    h: u32,
    w: u32,
    c: u32,
    scale: f32,
    zero: i32,
}

struct Maker {
    b: ProgramBuilder,
    random: Random,
    dtype: DType,
    batch: u32,
    names: usize,
}

type Made<T> = Result<T, ProgramError>;

impl Maker {
    fn pick(&mut self, low: u32, high: u32) -> u32 {
        self.random.within(low.into(), high.into()) as u32
    }

    fn node(&mut self, h: u32, w: u32, c: u32, scale: f32, zero: i32) -> Made<Node> {
        self.names += 1;
        let id = self.b.tensor(format!("t{}", self.names), self.dtype, &[self.batch, h, w, c], Some(scale), zero)?;
        Ok(Node { id, h, w, c, scale, zero })
    }

    fn fresh(&mut self, h: u32, w: u32, c: u32) -> Made<Node> {
        let (low, high) = self.dtype.range();
        let scale = [0.01, 0.05, 0.1][self.pick(0, 2) as usize];
        let zero = self.random.within(low.into(), high.into()) as i32;
        self.node(h, w, c, scale, zero)
    }

    fn same(&mut self, x: Node, h: u32, w: u32, c: u32) -> Made<Node> {
        self.node(h, w, c, x.scale, x.zero)
    }

    fn axis(&mut self, input: u32) -> (u32, u32, u32, u32, u32) {
        loop {
            let (kernel, stride, dilation) = (self.pick(1, 3), self.pick(1, 3), self.pick(1, 2));
            let pad = self.pick(0, dilation * (kernel - 1));
            let reach = dilation * (kernel - 1) + 1;
            // SAME-like windows may hang over the far end as well.
            let hang = self.pick(0, reach - 1);
            if input + pad + hang >= reach {
                let output = (input + pad + hang - reach) / stride + 1;
                if (output - 1) * stride < input + pad {
                    return (output, kernel, stride, pad, dilation);
                }
            }
        }
    }

    fn window(&mut self, x: Node) -> Window {
        let ((oh, kh, sh, ph, dh), (ow, kw, sw, pw, dw)) = (self.axis(x.h), self.axis(x.w));
        Window {
            batch: self.batch,
            input: (x.h, x.w),
            output: (oh, ow),
            kernel: (kh, kw),
            stride: (sh, sw),
            pad: (ph, pw),
            dilation: (dh, dw),
        }
    }

    fn clamp(&mut self) -> (i32, i32) {
        let (low, high) = self.dtype.range();
        if self.pick(0, 2) == 0 { (low + self.pick(0, 120) as i32, high - self.pick(0, 100) as i32) } else { (low, high) }
    }

    /// A window over all of each image.
    fn whole(&self, x: Node) -> Window {
        let all = (x.h, x.w);
        Window { batch: self.batch, input: all, output: (1, 1), kernel: all, stride: (1, 1), pad: (0, 0), dilation: (1, 1) }
    }

    fn convolution(&mut self, x: Node) -> Made<Node> {
        let depthwise = self.pick(0, 2) == 0;
        let w = if self.pick(0, 3) == 0 { self.whole(x) } else { self.window(x) };
        let channels = if depthwise { x.c * self.pick(1, 2) } else { self.pick(1, 7) };
        let out = self.fresh(w.output.0, w.output.1, channels)?;
        let dims = if depthwise { vec![w.kernel.0, w.kernel.1, channels] } else { vec![channels, w.kernel.0, w.kernel.1, x.c] };
        let n: u32 = dims.iter().product();
        let depth = f64::from(n / channels);
        let weights = (0..n).map(|_| self.random.within(-127, 127) as i32).collect();
        let bias = (self.pick(0, 1) == 0).then(|| (0..channels).map(|_| self.random.within(-3000, 3000) as i32).collect());
        let dead = self.pick(0, 4) == 0;
        let m = |r: &mut Random| {
            multiplier(if dead && r.next().is_multiple_of(3) { 1e-9 } else { (0.3 + 3.0 * r.unit()) / (90.0 * depth.sqrt()) })
        };
        let multipliers = (0..channels).map(|_| m(&mut self.random)).collect();
        let (clamp, single_rounding) = (self.clamp(), self.pick(0, 3) == 0);
        let c = Convolution {
            x: x.id,
            out: out.id,
            window: w,
            dims: &dims,
            weights,
            bias,
            x_zero: x.zero,
            multipliers,
            clamp,
            depthwise,
            single_rounding,
        };
        self.b.conv("conv", c)?;
        Ok(out)
    }

    fn pool(&mut self, x: Node) -> Made<Node> {
        let w = loop {
            let w = self.window(x);
            if (0..w.output.0 as usize).all(|y| (0..w.output.1 as usize).all(|x| w.valid(y, x) > 0)) {
                break w;
            }
        };
        let clamp = self.clamp();
        match self.pick(0, 2) {
            0 => {
                let out = self.same(x, w.output.0, w.output.1, x.c)?;
                self.b.average_pool("average", x.id, out.id, w, clamp)?;
                Ok(out)
            }
            1 => {
                let out = self.same(x, w.output.0, w.output.1, x.c)?;
                self.b.max_pool("max", x.id, out.id, w, clamp)?;
                Ok(out)
            }
            _ => {
                let out = self.fresh(1, 1, x.c)?;
                let all = self.whole(x);
                let m = multiplier(f64::from(x.scale / out.scale) / f64::from(x.h * x.w));
                self.b.mean("mean", x.id, out.id, all, x.zero, m, clamp)?;
                Ok(out)
            }
        }
    }

    fn lookup(&mut self, x: Node, other: Node) -> Made<Node> {
        let out = self.fresh(x.h, x.w, x.c)?;
        let (low, high) = self.dtype.range();
        let pair = (other.h, other.w, other.c) == (x.h, x.w, x.c) && self.pick(0, 5) == 0;
        let inputs = if pair { vec![x.id, other.id] } else { vec![x.id] };
        let values = (0..1usize << (8 * inputs.len())).map(|_| self.random.within(low.into(), high.into()) as i16).collect();
        self.b.lookup("lookup", inputs, out.id, values)?;
        Ok(out)
    }

    fn add(&mut self, x: Node, other: Node) -> Made<Node> {
        let other = if (other.h, other.w, other.c) == (x.h, x.w, x.c) { other } else { x };
        let out = self.fresh(x.h, x.w, x.c)?;
        let twice = 2.0 * f64::from(x.scale.max(other.scale));
        let m = |s: f32| multiplier(f64::from(s) / twice);
        let last = multiplier(twice / (f64::from(1 << 20) * f64::from(out.scale)));
        let (clamp, subtract) = (self.clamp(), self.pick(0, 1) == 0);
        self.b.add("add", (x.id, other.id), out.id, (m(x.scale), m(other.scale), last), clamp, subtract)?;
        Ok(out)
    }

    fn view(&mut self, x: Node) -> Made<Node> {
        let (top, left, more) = (self.pick(0, 2), self.pick(0, 2), self.pick(0, 3));
        let out = self.same(x, x.h + top, x.w + left, x.c + more)?;
        let (low, high) = self.dtype.range();
        let fill = self.random.within(low.into(), high.into()) as i32;
        let mut flip = |n: u32, at: u32| if self.random.next().is_multiple_of(2) { (at, n, 0, 1) } else { (at, n, n - 1, -1) };
        let dims = vec![(0, self.batch, 0, 1), flip(x.h, top), flip(x.w, left), flip(x.c, 0)];
        let mut pieces = vec![Piece { source: x.id, dims }];
        if more > 0 {
            // One channel broadcast beside the others.
            pieces
                .push(Piece { source: x.id, dims: vec![(0, self.batch, 0, 1), (top, x.h, 0, 1), (left, x.w, 0, 0), (x.c, 1, x.c - 1, 1)] });
        }
        self.b.view("view", out.id, pieces, fill);
        Ok(out)
    }

    fn permute(&mut self, x: Node) -> Made<Node> {
        let (n, size) = (self.batch, x.h * x.w * x.c);
        let (dims, perm, shape) = match self.pick(0, 5) {
            0 => (vec![n, x.h, x.w, x.c], vec![0, 2, 1, 3], (x.w, x.h, x.c)),
            1 => (vec![n, x.h, x.w, x.c], vec![0, 3, 1, 2], (x.c, x.h, x.w)),
            2 => (vec![n, size], vec![0, 1], (1, 1, size)),
            3 => (vec![n * size], vec![0], (x.h, x.w * x.c, 1)),
            // Rows of the one that are none of the other, for most shapes.
            4 => (vec![n * size], vec![0], (x.c, 1, x.h * x.w)),
            _ => (vec![n, x.h * x.w, x.c], vec![0, 2, 1], (1, x.c, x.h * x.w)),
        };
        let out = self.same(x, shape.0, shape.1, shape.2)?;
        self.b.permute("permute", x.id, out.id, dims, perm);
        Ok(out)
    }

    fn softmax(&mut self, x: Node) -> Made<Node> {
        let low = self.dtype.range().0;
        let out = self.node(x.h, x.w, x.c, 1.0 / 256.0, low)?;
        let (m, e) = multiplier(f64::from(x.scale) * f64::from(1 << 26));
        self.b.softmax("softmax", x.id, out.id, m, (-e) as u8);
        Ok(out)
    }
}

/// A network of up to five operators, or why the builder has none for this seed.
pub fn random_net(seed: u64) -> Result<(CheckedProgram, Weights), ProgramError> {
    let mut random = Random(seed);
    let (dtype, semantics) =
        if random.next().is_multiple_of(4) { (DType::UInt8, Semantics::Tflite214) } else { (DType::Int8, Semantics::Tflm) };
    let batch = if random.next().is_multiple_of(3) { 2 } else { 1 };
    let mut m = Maker { b: ProgramBuilder::new("random", semantics), random, dtype, batch, names: 0 };
    let (h, w, c) = (m.pick(1, 6), m.pick(1, 5), m.pick(1, 6));
    let x = m.fresh(h, w, c)?;
    m.b.input(x.id, Edge::Integer)?;
    let mut nodes = vec![x];
    for _ in 0..m.pick(1, 5) {
        let x = nodes[nodes.len() - 1];
        let other = nodes[m.pick(0, nodes.len() as u32 - 1) as usize];
        let y = match m.pick(0, 10) {
            0..=3 => m.convolution(x)?,
            4 | 5 => m.pool(x)?,
            6 => m.lookup(x, other)?,
            7 => m.add(x, other)?,
            8 => m.view(x)?,
            9 => m.permute(x)?,
            _ => m.softmax(x)?,
        };
        nodes.push(y);
    }
    let last = nodes[nodes.len() - 1];
    m.b.output(last.id, Edge::Integer)?;
    if nodes.len() > 2 && m.pick(0, 2) == 0 {
        let other = m.pick(0, nodes.len() as u32 - 2) as usize;
        m.b.output(nodes[other].id, Edge::Integer)?;
    }
    let bits = [None, Some(8), Some(9), Some(12), Some(16)][m.pick(0, 4) as usize];
    m.b.finish(bits)
}
