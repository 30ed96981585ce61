//! A small network with every operator, and fixed pseudo-random numbers to fill it.
#![allow(dead_code)] // each test binary uses a part

pub mod bounded;
pub mod nets;
pub mod private;
pub mod random_net;

use nexus_edge_core::exec::{Executor, Trace};
use nexus_edge_core::program::builder::{Convolution, ProgramBuilder};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{DType, Edge, Piece, Semantics, TensorId, Weights, Window};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[low, high]`.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub fn int8(&mut self, n: usize) -> Vec<i16> {
        (0..n).map(|_| self.within(-128, 127) as i16).collect()
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// `x ~ M 2^-(31+e)` with `M` in `[2^30, 2^31)`, or `M = 0` for 0.
pub fn multiplier(x: f64) -> (i32, i8) {
    if x == 0.0 {
        return (0, 0);
    }
    let mut e = 0i8;
    let mut m = x;
    while m >= 1.0 {
        m /= 2.0;
        e -= 1;
    }
    while m < 0.5 {
        m *= 2.0;
        e += 1;
    }
    let q = (m * (1u64 << 31) as f64).round() as i64;
    if q == 1 << 31 { (1 << 30, e - 1) } else { (q as i32, e) }
}

pub fn window(input: (u32, u32), output: (u32, u32), kernel: (u32, u32), stride: (u32, u32), pad: (u32, u32)) -> Window {
    Window { batch: 1, input, output, kernel, stride, pad, dilation: (1, 1) }
}

pub struct Net {
    pub b: ProgramBuilder,
    pub random: Random,
    /// Where weights and biases come from, if not from `random`, which gives the shapes' and scales' numbers.
    pub weights: Option<Random>,
}

impl Net {
    pub fn new(name: &str, seed: u64) -> Self {
        Net { b: ProgramBuilder::new(name, Semantics::Tflm), random: Random(seed), weights: None }
    }

    pub fn tensor(&mut self, name: &str, dims: &[u32], scale: f32, zero: i32) -> TensorId {
        self.b.tensor(name, DType::Int8, dims, Some(scale), zero).expect("tensor")
    }

    pub fn conv(&mut self, x: (TensorId, i32), out: TensorId, window: Window, dims: &[u32], low: i32, depthwise: bool) {
        let n: u32 = dims.iter().product();
        let mut weights: Vec<i32> = (0..n).map(|_| self.random.within(-127, 127) as i32).collect();
        let channels = if depthwise { dims[2] } else { dims[0] } as usize;
        let depth = if depthwise { dims[0] * dims[1] } else { n / dims[0] };
        let mut bias: Vec<i32> = (0..channels).map(|_| self.random.within(-900, 900) as i32).collect();
        if let Some(own) = &mut self.weights {
            weights.fill_with(|| own.within(-128, 127) as i32);
            bias.fill_with(|| own.within(-20_000, 20_000) as i32);
        }
        let multipliers = (0..channels).map(|_| multiplier((0.5 + 2.5 * self.random.unit()) / (60.0 * f64::from(depth).sqrt()))).collect();
        let clamp = (low, 127);
        let c = Convolution {
            x: x.0,
            out,
            window,
            dims,
            weights,
            bias: Some(bias),
            x_zero: x.1,
            multipliers,
            clamp,
            depthwise,
            single_rounding: false,
        };
        self.b.conv("conv", c).expect("conv");
    }
}

/// 7 x 6 x 3: conv SAME, depthwise stride 2 with odd padding, pointwise, ADD, table, max pool, average pool SAME, views, transpose, fully
/// connected, softmax.
pub fn everything(seed: u64, range_bits: u8) -> (CheckedProgram, Weights) {
    every_operator(Net::new("everything", seed)).finish(Some(range_bits)).expect("a valid program")
}

/// The same with weights and biases of another seed.
pub fn everything_with_weights(seed: u64, weights: u64) -> ProgramBuilder {
    every_operator(Net { weights: Some(Random(weights)), ..Net::new("everything", seed) })
}

fn every_operator(mut n: Net) -> ProgramBuilder {
    let x = n.tensor("x", &[1, 7, 6, 3], 0.02, 7);
    n.b.input(x, Edge::Integer).expect("input");
    let c1 = n.tensor("c1", &[1, 7, 6, 5], 0.05, -20);
    n.conv((x, 7), c1, window((7, 6), (7, 6), (3, 3), (1, 1), (1, 1)), &[5, 3, 3, 3], -20, false);
    let d1 = n.tensor("d1", &[1, 4, 3, 10], 0.019_373_238, 23);
    n.conv((c1, -20), d1, window((7, 6), (4, 3), (3, 3), (2, 2), (1, 0)), &[3, 3, 10], -128, true);
    let p1 = n.tensor("p1", &[1, 4, 3, 10], 0.049_825_795, 5);
    n.conv((d1, 23), p1, window((4, 3), (4, 3), (1, 1), (1, 1), (0, 0)), &[10, 1, 1, 10], -128, false);
    let s1 = n.tensor("s1", &[1, 4, 3, 10], 0.053_513_177, 0);
    let twice = 2.0 * 0.049_825_795;
    let add = (multiplier(0.019_373_238 / twice), multiplier(0.5), multiplier(twice / (f64::from(1 << 20) * 0.053_513_177)));
    n.b.add("add", (d1, p1), s1, add, (-128, 127), false).expect("add");
    let t1 = n.tensor("t1", &[1, 4, 3, 10], 0.01, -3);
    let tanh = (-128..128).map(|v| (f64::from(v) / 50.0).tanh().mul_add(120.0, 0.5).floor() as i16).collect();
    n.b.lookup("map", vec![s1], t1, tanh).expect("lookup");
    let m1 = n.tensor("m1", &[1, 4, 3, 10], 0.01, -3);
    n.b.max_pool("max", t1, m1, window((4, 3), (4, 3), (3, 2), (1, 1), (1, 0)), (-100, 127)).expect("max pool");
    let a1 = n.tensor("a1", &[1, 2, 2, 10], 0.01, -3);
    n.b.average_pool("average", m1, a1, window((4, 3), (2, 2), (3, 3), (2, 2), (1, 1)), (-128, 127)).expect("average pool");
    let v1 = n.tensor("v1", &[1, 2, 2, 6], 0.01, -3);
    let pieces = vec![
        Piece { source: a1, dims: vec![(0, 1, 0, 1), (0, 2, 0, 1), (0, 2, 0, 1), (0, 4, 9, -1)] },
        Piece { source: a1, dims: vec![(0, 1, 0, 1), (0, 1, 1, 1), (0, 2, 0, 1), (5, 1, 0, 1)] },
    ];
    n.b.view("view", v1, pieces, 10);
    let r1 = n.tensor("r1", &[1, 6, 4], 0.01, -3);
    n.b.permute("transpose", v1, r1, vec![4, 6], vec![1, 0]);
    let u1 = n.tensor("u1", &[1, 6, 4], 0.02, 1);
    let product = (0..65536).map(|i: i32| (((i >> 8) - 128) * ((i & 255) - 128) / 97).clamp(-128, 127) as i16).collect();
    n.b.lookup("mul", vec![r1, r1], u1, product).expect("mul");
    let f1 = n.tensor("f1", &[1, 8], 0.05, 0);
    n.conv((u1, 1), f1, window((6, 1), (1, 1), (6, 1), (1, 1), (0, 0)), &[8, 6, 1, 4], -128, false);
    let o1 = n.tensor("o1", &[1, 8], 1.0 / 256.0, -128);
    let (m, e) = multiplier(0.05 * f64::from(1 << 26));
    n.b.softmax("softmax", f1, o1, m, (-e) as u8);
    n.b.output(o1, Edge::Integer).expect("output");
    n.b
}

/// One fully connected layer of one output.
pub fn dense(seed: u64, inputs: u32, outputs: u32) -> (CheckedProgram, Weights) {
    dense_with(seed, inputs, outputs, 8)
}

/// The same with a range table of `2^range_bits` rows.
pub fn dense_with(seed: u64, inputs: u32, outputs: u32, range_bits: u8) -> (CheckedProgram, Weights) {
    let mut n = Net::new("dense", seed);
    let x = n.tensor("x", &[1, inputs], 0.02, 3);
    n.b.input(x, Edge::Integer).expect("input");
    let y = n.tensor("y", &[1, outputs], 0.02, 3);
    n.conv((x, 3), y, window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)), &[outputs, 1, 1, inputs], -128, false);
    n.b.output(y, Edge::Integer).expect("output");
    n.b.finish(Some(range_bits)).expect("a valid program")
}

pub fn run(program: &CheckedProgram, weights: &Weights, inputs: &[&[i16]]) -> Trace {
    Executor::new(std::sync::Arc::new(program.clone()), weights).expect("weights fit").run(inputs, 1, true).expect("defined")
}

/// A uint8 softmax behind a pooled lookup: the other element type end to end.
pub fn uint8_head() -> (CheckedProgram, Weights) {
    let mut b = ProgramBuilder::new("uint8 head", Semantics::Tflite214);
    let mut tensor =
        |name: &str, dims: &[u32], scale: f32, zero: i32| b.tensor(name, DType::UInt8, dims, Some(scale), zero).expect("tensor");
    let (x, m) = (tensor("x", &[1, 4, 4, 6], 0.1, 128), tensor("m", &[1, 2, 2, 6], 0.1, 128));
    let (t, o) = (tensor("t", &[1, 2, 2, 6], 0.1, 7), tensor("o", &[1, 2, 2, 6], 1.0 / 256.0, 0));
    b.input(x, Edge::Integer).expect("input");
    b.max_pool("max", x, m, window((4, 4), (2, 2), (2, 2), (2, 2), (0, 0)), (20, 240)).expect("max pool");
    b.lookup("map", vec![m], t, (0..256).map(|v| (255 - v) as i16).collect()).expect("lookup");
    let (multiplier, e) = multiplier(0.1 * f64::from(1 << 26));
    b.softmax("softmax", t, o, multiplier, (-e) as u8);
    b.output(o, Edge::Integer).expect("output");
    b.finish(Some(9)).expect("a valid program")
}

/// As [`dense`], with multipliers so small that no value before the clamp leaves `[-100, 100]`.
pub fn dense_slow(seed: u64, inputs: u32, outputs: u32) -> (CheckedProgram, Weights) {
    let mut n = Net::new("slow", seed);
    let x = n.tensor("x", &[1, inputs], 0.02, 3);
    n.b.input(x, Edge::Integer).expect("input");
    let y = n.tensor("y", &[1, outputs], 0.02, 3);
    let weights = (0..inputs * outputs).map(|_| n.random.within(-127, 127) as i32).collect();
    let c = Convolution {
        x,
        out: y,
        window: window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
        dims: &[outputs, 1, 1, inputs],
        weights,
        bias: None,
        x_zero: 3,
        multipliers: vec![multiplier(80.0 / (127.0 * 131.0 * f64::from(inputs))); outputs as usize],
        clamp: (-128, 127),
        depthwise: false,
        single_rounding: false,
    };
    n.b.conv("conv", c).expect("conv");
    n.b.output(y, Edge::Integer).expect("output");
    n.b.finish(Some(8)).expect("a valid program")
}
