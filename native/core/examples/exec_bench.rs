//! Times the executor: `cargo run --release --example exec_bench [program.bin weights.bin]...`
//!
//! Without arguments it runs two networks of the shapes of MobileNetV2 1.0-224 and ResNet-8, with random weights.

use std::sync::Arc;
use std::time::Instant;

use nexus_edge_core::exec::Executor;
use nexus_edge_core::program::builder::{Convolution, ProgramBuilder};
use nexus_edge_core::program::check;
use nexus_edge_core::program::{DType, Edge, Program, Semantics, TensorId, Weights, Window};

type Error = Box<dyn std::error::Error>;

/// Layers with random weights, appended one after the other.
struct Network {
    builder: ProgramBuilder,
    seed: u64,
    tensors: usize,
    side: u32,
    depth: u32,
    last: TensorId,
}

impl Network {
    fn new(name: &str, side: u32) -> Result<Self, Error> {
        let mut builder = ProgramBuilder::new(name, Semantics::Tflm);
        let last = builder.tensor("input", DType::Int8, &[1, side, side, 3], Some(0.1), 0)?;
        builder.input(last, Edge::Integer)?;
        Ok(Network { builder, seed: 1, tensors: 0, side, depth: 3, last })
    }

    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.seed >> 33
    }

    fn tensor(&mut self, side: u32, depth: u32) -> Result<TensorId, Error> {
        self.tensors += 1;
        Ok(self.builder.tensor(format!("t{}", self.tensors), DType::Int8, &[1, side, side, depth], Some(0.1), 0)?)
    }

    /// SAME padding.
    fn conv(&mut self, depth: u32, kernel: u32, stride: u32, depthwise: bool) -> Result<TensorId, Error> {
        let side = self.side.div_ceil(stride);
        let pad = ((side - 1) * stride + kernel).saturating_sub(self.side) / 2;
        let out = self.tensor(side, depth)?;
        let window = Window {
            batch: 1,
            input: (self.side, self.side),
            output: (side, side),
            kernel: (kernel, kernel),
            stride: (stride, stride),
            pad: (pad, pad),
            dilation: (1, 1),
        };
        let dims = if depthwise { vec![kernel, kernel, depth] } else { vec![depth, kernel, kernel, self.depth] };
        let size: u32 = dims.iter().product();
        let weights = (0..size).map(|_| (self.next() % 255) as i32 - 127).collect();
        let bias = (0..depth).map(|_| (self.next() % 2000) as i32 - 1000).collect();
        // Sums of n products of values of about 60 are about 3600 sqrt(n); outputs are about 60.
        let shift = 5.5 + f64::from(size / depth).log2() / 2.0;
        let multipliers = (0..depth).map(|_| ((1 << 30) + (self.next() & 0x3fff_ffff) as i32, shift as i8)).collect();
        let c = Convolution {
            x: self.last,
            out,
            window,
            dims: &dims,
            weights,
            bias: Some(bias),
            x_zero: 0,
            multipliers,
            clamp: (-128, 127),
            depthwise,
            single_rounding: false,
        };
        self.builder.conv("conv", c)?;
        (self.side, self.depth, self.last) = (side, depth, out);
        Ok(out)
    }

    fn add(&mut self, other: TensorId) -> Result<(), Error> {
        let out = self.tensor(self.side, self.depth)?;
        let one = (1 << 30, 0);
        self.builder.add("add", (self.last, other), out, (one, one, (1 << 30, 18)), (-128, 127), false)?;
        self.last = out;
        Ok(())
    }

    fn finish(mut self, classes: u32) -> Result<(Program, Weights), Error> {
        let pooled = self.tensor(1, self.depth)?;
        let side = (self.side, self.side);
        let window = Window { batch: 1, input: side, output: (1, 1), kernel: side, stride: (1, 1), pad: (0, 0), dilation: (1, 1) };
        self.builder.average_pool("pool", self.last, pooled, window, (-128, 127))?;
        (self.side, self.last) = (1, pooled);
        let out = self.conv(classes, 1, 1, false)?;
        self.builder.output(out, Edge::Integer)?;
        let (program, weights) = self.builder.finish(None)?;
        Ok(((*program).clone(), weights))
    }
}

fn mobilenet_v2() -> Result<(Program, Weights), Error> {
    let mut n = Network::new("MobileNetV2 1.0-224 shape", 224)?;
    n.conv(32, 3, 2, false)?;
    for (expand, depth, repeat, stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for i in 0..repeat {
            let (from, width) = (n.last, n.depth * expand);
            if expand > 1 {
                n.conv(width, 1, 1, false)?;
            }
            n.conv(width, 3, if i == 0 { stride } else { 1 }, true)?;
            n.conv(depth, 1, 1, false)?;
            if i > 0 {
                n.add(from)?;
            }
        }
    }
    n.conv(1280, 1, 1, false)?;
    n.finish(1000)
}

fn resnet_8() -> Result<(Program, Weights), Error> {
    let mut n = Network::new("ResNet-8 shape", 32)?;
    n.conv(16, 3, 1, false)?;
    for (depth, stride) in [(16, 1), (32, 2), (64, 2)] {
        let (from, side, before) = (n.last, n.side, n.depth);
        n.conv(depth, 3, stride, false)?;
        let main = n.conv(depth, 3, 1, false)?;
        let other = if stride == 1 {
            from
        } else {
            (n.last, n.side, n.depth) = (from, side, before);
            n.conv(depth, 1, stride, false)?
        };
        n.last = main;
        n.add(other)?;
    }
    n.finish(10)
}

fn load(paths: &[String]) -> Result<(Program, Weights), Error> {
    let [program, weights] = paths else { return Err("arguments are pairs of files".into()) };
    Ok((Program::from_bytes(&std::fs::read(program)?)?, Weights::from_bytes(&std::fs::read(weights)?)?))
}

/// Fastest and median of some runs, in milliseconds.
fn time(mut f: impl FnMut()) -> (f64, f64) {
    let mut all: Vec<f64> = (0..41)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all[0], all[all.len() / 2])
}

fn bench((program, weights): (Program, Weights)) -> Result<(), Error> {
    let start = Instant::now();
    let checked = check::load(program, Some(&weights))?;
    let check_ms = start.elapsed().as_secs_f64() * 1e3;
    let macs: u64 = checked.ops.iter().map(|op| checked.macs(op)).sum();
    let executor = Executor::new(Arc::new(checked), &weights)?;
    let p = executor.program();
    let inputs: Vec<Vec<i16>> =
        p.inputs.iter().map(|i| (0..p.tensors[i.tensor as usize].size()).map(|k| (k * 37 % 128) as i16).collect()).collect();
    let inputs: Vec<&[i16]> = inputs.iter().map(Vec::as_slice).collect();
    println!("{}: {:.1} M MACs, {} operators, w = {}, load {check_ms:.1} ms", p.name, macs as f64 / 1e6, p.ops.len(), p.range_bits);
    for (threads, keep, what) in
        [(1, false, "one thread"), (0, false, "all threads"), (1, true, "one thread, with trace"), (0, true, "all, with trace")]
    {
        executor.run(&inputs, threads, keep)?;
        let (least, median) = time(|| executor.run(&inputs, threads, keep).map(|t| executor.recycle(t)).unwrap_or_default());
        println!("  {what:<24} {median:8.3} ms median, {least:8.3} ms least, {:.4} ns/MAC", median * 1e6 / macs as f64);
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        bench(resnet_8()?)?;
        return bench(mobilenet_v2()?);
    }
    paths.chunks(2).try_for_each(|pair| bench(load(pair)?))
}
