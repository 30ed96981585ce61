//! Networks of one or two operators, each made so that one attack is possible on them.

use nexus_edge_core::program::builder::{Bounds, Convolution};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::error::ProgramError;
use nexus_edge_core::program::quantize::Multiplier;
use nexus_edge_core::program::{Edge, Piece, TensorId, Weights, Window};

use super::{Net, multiplier, window};

fn finish(n: Net, out: TensorId, range_bits: u8) -> (CheckedProgram, Weights) {
    let mut b = n.b;
    b.output(out, Edge::Integer).expect("output");
    b.finish(Some(range_bits)).expect("a valid program")
}

fn input(n: &mut Net, dims: &[u32], zero: i32) -> TensorId {
    let x = n.tensor("x", dims, 0.02, zero);
    n.b.input(x, Edge::Integer).expect("input");
    x
}

/// 5 x 4 x 3, a 3 x 3 convolution to 4 channels with a border, zero point 7.
pub fn convolution() -> (CheckedProgram, Weights) {
    let mut n = Net::new("convolution", 21);
    let x = input(&mut n, &[1, 5, 4, 3], 7);
    let y = n.tensor("y", &[1, 5, 4, 4], 0.05, -20);
    n.conv((x, 7), y, window((5, 4), (5, 4), (3, 3), (1, 1), (1, 1)), &[4, 3, 3, 3], -128, false);
    finish(n, y, 16)
}

/// 64 x 64 x 16, five 3 x 3 convolutions: long enough that every phase of its proof reports on the way.
pub fn long() -> (CheckedProgram, Weights) {
    let mut n = Net::new("long", 25);
    let mut x = (input(&mut n, &[1, 64, 64, 16], 7), 7);
    for layer in 0..5 {
        let y = n.tensor(&format!("y{layer}"), &[1, 64, 64, 16], 0.05, -20);
        n.conv(x, y, window((64, 64), (64, 64), (3, 3), (1, 1), (1, 1)), &[16, 3, 3, 16], -128, false);
        x = (y, -20);
    }
    finish(n, x.0, 12)
}

/// Two fully connected layers.
pub fn chain() -> (CheckedProgram, Weights) {
    let mut n = Net::new("chain", 22);
    let x = input(&mut n, &[1, 12], 3);
    let h = n.tensor("h", &[1, 10], 0.02, -5);
    n.conv((x, 3), h, window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)), &[10, 1, 1, 12], -128, false);
    let y = n.tensor("y", &[1, 6], 0.02, 3);
    n.conv((h, -5), y, window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)), &[6, 1, 1, 10], -128, false);
    finish(n, y, 16)
}

/// So many fully connected layers of two channels that a proof sends more messages than the least number of rows.
pub fn deep() -> (CheckedProgram, Weights) {
    let mut n = Net::new("deep", 23);
    let mut x = input(&mut n, &[1, 2], 0);
    for layer in 0..300 {
        let y = n.tensor(&format!("layer {layer}"), &[1, 2], 0.02, 0);
        n.conv((x, 0), y, window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)), &[2, 1, 1, 2], -128, false);
        x = y;
    }
    finish(n, x, 12)
}

/// `y = round(x / 4)`, half away from zero: every fourth input is a tie.
pub fn quarter() -> (CheckedProgram, Weights) {
    scaled(&[(1, 0.25)])
}

/// `y_c = round(w_c x m_c)` for one input `x` and channels `(w_c, m_c)`.
pub fn scaled(channels: &[(i32, f64)]) -> (CheckedProgram, Weights) {
    let mut n = Net::new("scaled", 0);
    let x = input(&mut n, &[1, 1], 0);
    let outputs = channels.len() as u32;
    let y = n.tensor("y", &[1, outputs], 0.02, 0);
    let c = Convolution {
        x,
        out: y,
        window: window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
        dims: &[outputs, 1, 1, 1],
        weights: channels.iter().map(|c| c.0).collect(),
        bias: None,
        x_zero: 0,
        multipliers: channels.iter().map(|c| multiplier(c.1)).collect(),
        clamp: (-128, 127),
        depthwise: false,
        single_rounding: false,
    };
    n.b.conv("conv", c).expect("conv");
    finish(n, y, 12)
}

/// One input and a channel whose line has two offsets.
pub fn two_offsets() -> (CheckedProgram, Weights) {
    scaled(&[(127, 0.3 / 127.0), (101, 0.0071), (90, 0.0029)])
}

/// Max pool 3 x 3 with a border over 4 x 4 x 2.
pub fn max_pool() -> (CheckedProgram, Weights) {
    let mut n = Net::new("max", 0);
    let x = input(&mut n, &[1, 4, 4, 2], 0);
    let y = n.tensor("y", &[1, 4, 4, 2], 0.02, 0);
    n.b.max_pool("max", x, y, window((4, 4), (4, 4), (3, 3), (1, 1), (1, 1)), (-128, 127)).expect("max pool");
    finish(n, y, 8)
}

/// Average pool 3 x 3 with a border over 4 x 4 x 2: 4, 6 or 9 cells.
pub fn average_pool() -> (CheckedProgram, Weights) {
    let mut n = Net::new("average", 0);
    let x = input(&mut n, &[1, 4, 4, 2], 0);
    let y = n.tensor("y", &[1, 4, 4, 2], 0.02, 0);
    n.b.average_pool("average", x, y, window((4, 4), (4, 4), (3, 3), (1, 1), (1, 1)), (-128, 127)).expect("average pool");
    finish(n, y, 12)
}

/// The mean of 4 x 3 positions of 2 channels, zero point 5, to another scale.
pub fn mean() -> (CheckedProgram, Weights) {
    let mut n = Net::new("mean", 0);
    let x = input(&mut n, &[1, 4, 3, 2], 5);
    let y = n.tensor("y", &[1, 1, 1, 2], 0.013, -9);
    n.b.mean("mean", x, y, window((4, 3), (1, 1), (4, 3), (1, 1), (0, 0)), 5, multiplier(0.02 / (12.0 * 0.013)), (-128, 127))
        .expect("mean");
    finish(n, y, 12)
}

/// The sum or difference of two cells of scales 0.02 and `scale`, by a plane if there is one.
pub fn addition(scale: f32, subtract: bool) -> (CheckedProgram, Weights) {
    let mut n = Net::new("addition", 0);
    let first = input(&mut n, &[1, 1], 7);
    let second = n.tensor("second", &[1, 1], scale, -20);
    n.b.input(second, Edge::Integer).expect("input");
    let y = n.tensor("y", &[1, 1], 0.06, 3);
    let twice = 2.0 * f64::from(scale);
    let multipliers = (multiplier(0.02 / twice), multiplier(0.5), multiplier(twice / (f64::from(1 << 20) * 0.06)));
    n.b.add("add", (first, second), y, multipliers, (-128, 127), subtract).expect("add");
    finish(n, y, 12)
}

/// Max pool 2 x 2 with a fused clamp over 4 x 2 x 1.
pub fn clamped_max_pool() -> (CheckedProgram, Weights) {
    let mut n = Net::new("clamped", 0);
    let x = input(&mut n, &[1, 4, 2, 1], 0);
    let y = n.tensor("y", &[1, 2, 1, 1], 0.02, 0);
    n.b.max_pool("max", x, y, window((4, 2), (2, 1), (2, 2), (2, 2), (0, 0)), (-10, 90)).expect("max pool");
    finish(n, y, 8)
}

/// Two images of 4 x 3 x 2, zero point 7, and one operator on each: 3 x 3 with a border, to 4 channels or channel by channel.
pub fn batch(kind: &str) -> (CheckedProgram, Weights) {
    let mut n = Net::new("batch", 24);
    let x = input(&mut n, &[2, 4, 3, 2], 7);
    let w = Window { batch: 2, ..window((4, 3), (4, 3), (3, 3), (1, 1), (1, 1)) };
    let channels = if kind == "convolution" { 4 } else { 2 };
    let same = kind == "average" || kind == "maximum";
    let y = n.tensor("y", &[2, 4, 3, channels], 0.02, if same { 7 } else { -20 });
    match kind {
        "convolution" => n.conv((x, 7), y, w, &[4, 3, 3, 2], -128, false),
        "depthwise" => n.conv((x, 7), y, w, &[3, 3, 2], -128, true),
        "average" => n.b.average_pool("average", x, y, w, (-128, 127)).expect("average pool"),
        _ => n.b.max_pool("maximum", x, y, w, (-128, 127)).expect("max pool"),
    }
    finish(n, y, 12)
}

/// 2 x 3 rows of 4 read as 4 rows of 6, then halved.
pub fn regrouped() -> (CheckedProgram, Weights) {
    let mut n = Net::new("regrouped", 0);
    let x = input(&mut n, &[2, 3, 4], 0);
    let r = n.tensor("r", &[4, 6], 0.02, 0);
    n.b.permute("reshape", x, r, vec![24], vec![0]);
    let y = n.tensor("y", &[4, 6], 0.02, 0);
    n.b.lookup("half", vec![r], y, (-128..128).map(|v: i16| v / 2).collect()).expect("lookup");
    finish(n, y, 8)
}

/// Softmax over `rows` rows of `width` scores of scale 0.18.
pub fn softmax(rows: u32, width: u32) -> (CheckedProgram, Weights) {
    let mut n = Net::new("softmax", 0);
    let x = input(&mut n, &[rows, width], 0);
    let y = n.tensor("y", &[rows, width], 1.0 / 256.0, -128);
    let (m, e) = multiplier(0.18 * f64::from(1 << 26));
    n.b.softmax("softmax", x, y, m, (-e) as u8);
    finish(n, y, 11)
}

/// A table of one input, then a table of two.
pub fn tables() -> (CheckedProgram, Weights) {
    let mut n = Net::new("tables", 0);
    let x = input(&mut n, &[1, 8], 0);
    let t = n.tensor("t", &[1, 8], 0.02, 0);
    let square = (-128i32..128).map(|v| (v * v / 128 - 64).clamp(-128, 127) as i16).collect();
    n.b.lookup("map", vec![x], t, square).expect("lookup");
    let y = n.tensor("y", &[1, 8], 0.02, 0);
    let ratio = (0..65536i32).map(|i| (((i >> 8) - 128) * 2 - ((i & 255) - 128)).clamp(-128, 127) as i16).collect();
    n.b.lookup("pair", vec![x, t], y, ratio).expect("lookup");
    finish(n, y, 8)
}

/// A border of 9 around 2 x 3 x 2, channels reversed; then a transpose of positions and channels, then a max pool that reads it.
pub fn views() -> (CheckedProgram, Weights) {
    let mut n = Net::new("views", 0);
    let x = input(&mut n, &[1, 2, 3, 2], 0);
    let v = n.tensor("v", &[1, 4, 3, 2], 0.02, 0);
    n.b.view("pad", v, vec![Piece { source: x, dims: vec![(0, 1, 0, 1), (1, 2, 0, 1), (0, 3, 0, 1), (0, 2, 1, -1)] }], 9);
    let r = n.tensor("r", &[1, 2, 12], 0.02, 0);
    n.b.permute("transpose", v, r, vec![12, 2], vec![1, 0]);
    let y = n.tensor("y", &[1, 2, 12], 0.02, 0);
    let same = (-128..128).map(|v: i16| v / 2).collect();
    n.b.lookup("half", vec![r], y, same).expect("lookup");
    finish(n, y, 8)
}

/// One layer with weights of its own, private: 5 x 4 x 3 positions, zero point 7, a 3 x 3 convolution with a border to 4 channels, or a
/// depthwise one with multiplier 2.
pub fn private_layer(depthwise: bool, seed: u64) -> (CheckedProgram, Weights) {
    let mut n = Net::new("private", seed);
    let x = input(&mut n, &[1, 5, 4, 3], 7);
    let channels = if depthwise { 6 } else { 4 };
    let y = n.tensor("y", &[1, 5, 4, channels], 0.05, -20);
    let dims: &[u32] = if depthwise { &[3, 3, 6] } else { &[4, 3, 3, 3] };
    let count = dims.iter().product::<u32>();
    let c = Convolution {
        x,
        out: y,
        window: window((5, 4), (5, 4), (3, 3), (1, 1), (1, 1)),
        dims,
        weights: (0..count).map(|_| n.random.within(-128, 127) as i32).collect(),
        bias: Some((0..channels).map(|_| n.random.within(-900, 900) as i32).collect()),
        x_zero: 7,
        multipliers: (0..channels).map(|c| multiplier(0.01 / f64::from(1 + c))).collect(),
        clamp: (-128, 127),
        depthwise,
        single_rounding: false,
    };
    n.b.conv("conv", c).expect("conv");
    n.b.private(Bounds::Default);
    finish(n, y, 16)
}

/// A private layer whose channels `(weights, bias, multiplier)` read the inputs `x_0, x_1` with zero point 0 at one position.
pub fn private_channels(depthwise: bool, channels: &[([i32; 2], i32, Multiplier)], log_bound: u8, clamp: (i32, i32)) -> Private {
    let mut n = Net::new("private channels", 0);
    // Depthwise: two taps of one channel, which the layer's channels share.
    let x = if depthwise { input(&mut n, &[1, 2, 1, 1], 0) } else { input(&mut n, &[1, 1, 1, 2], 0) };
    let outputs = channels.len() as u32;
    let y = n.tensor("y", &[1, 1, 1, outputs], 0.02, 0);
    let by_channel = channels.iter().flat_map(|c| c.0).collect();
    let by_tap = (0..2).flat_map(|tap| channels.iter().map(move |c| c.0[tap])).collect();
    let c = Convolution {
        x,
        out: y,
        window: if depthwise { window((2, 1), (1, 1), (2, 1), (1, 1), (0, 0)) } else { window((1, 1), (1, 1), (1, 1), (1, 1), (0, 0)) },
        dims: if depthwise { &[2, 1, outputs] } else { &[outputs, 1, 1, 2] },
        weights: if depthwise { by_tap } else { by_channel },
        bias: Some(channels.iter().map(|c| c.1).collect()),
        x_zero: 0,
        multipliers: channels.iter().map(|c| c.2).collect(),
        clamp,
        depthwise,
        single_rounding: false,
    };
    n.b.conv("conv", c).expect("conv");
    n.b.output(y, Edge::Integer).expect("output");
    n.b.private(Bounds::All(log_bound));
    n.b.finish(Some(16))
}

/// A private model, or why there is none.
pub type Private = Result<(CheckedProgram, Weights), ProgramError>;
