//! The inner loops, chosen once for the machine they run on.
//!
//! Everything here is exact in `i32` modulo `2^32`. `portable` is the definition; `x86` compiles the same bodies for wider vectors and
//! adds products of pairs of `i16` (`vpdpwssd`, `vpmaddwd`), which no portable code reaches. It is the only module with unsafe code.

use std::sync::OnceLock;

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A set of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What the build assumes.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Foundation, byte and word, doubleword and quadword, vector length, and neural network instructions.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The widest of this machine.
    fn best() -> Level {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| ALL_LEVELS.iter().copied().rfind(|l| l.is_available()).unwrap_or(Level::Portable))
    }

    fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            wide => x86::is_available(wide),
        }
    }
}

/// From narrow to wide.
const ALL_LEVELS: &[Level] = &[
    Level::Portable,
    #[cfg(target_arch = "x86_64")]
    Level::Avx2,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512,
];

/// Channels of one panel of packed weights.
const LANES: usize = 16;

/// A matrix of `i16` weights, packed for the kernels.
///
/// Panel by panel of 16 channels; in a panel pair by pair of the depth; then channel by channel the two weights of the pair. Channels and
/// depth are padded with zeros.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    channels: usize,
    pairs: usize,
    data: Vec<i16>,
    bias: Vec<i32>,
}

impl Panels {
    /// `weights` are `channels` rows of `depth`.
    pub(super) fn new(weights: &[i32], bias: &[i32]) -> Self {
        let (channels, depth) = (bias.len(), weights.len() / bias.len());
        let (panels, pairs) = (channels.div_ceil(LANES), depth.div_ceil(2));
        let mut data = vec![0; panels * pairs * 2 * LANES];
        for (o, row) in weights.chunks_exact(depth).enumerate() {
            for (k, &w) in row.iter().enumerate() {
                data[((o / LANES * pairs + k / 2) * LANES + o % LANES) * 2 + k % 2] = w as i16;
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(panels * LANES, 0);
        Panels { channels, pairs, data, bias }
    }

    /// Depth with padding: what a row of the other factor must have.
    pub(super) fn depth(&self) -> usize {
        2 * self.pairs
    }

    /// `acc[r, o] = bias[o] + sum_k rows[r, k] w[o, k]`; `rows` has rows of [`Panels::depth`].
    pub(super) fn multiply(&self, rows: &[i16], acc: &mut [i32]) {
        self.multiply_at(Level::best(), rows, acc);
    }

    fn multiply_at(&self, level: Level, rows: &[i16], acc: &mut [i32]) {
        let n = acc.len() / self.channels;
        assert!(rows.len() >= n * self.depth() && acc.len() == n * self.channels, "shapes of a matrix product");
        #[cfg(target_arch = "x86_64")]
        if x86::multiply(level, self, rows, acc) {
            return;
        }
        portable::multiply(self, rows, acc);
    }
}

/// Channels of one block of packed depthwise weights.
const WIDE: usize = 32;

/// Weights of a depthwise convolution, packed for the kernels: pair of taps by pair of taps, channel by channel its two weights.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    channels: usize,
    data: Vec<i16>,
    bias: Vec<i32>,
    /// The same in blocks of 32 channels, padded with zeros, each in the order that interleaving two vectors in lanes of 128 bits gives:
    /// channels 0-3, 8-11, 16-19, 24-27, then 4-7, 12-15, 20-23, 28-31.
    wide: Vec<i16>,
}

impl Taps {
    /// `weights` are rows of one weight for each channel.
    pub(super) fn new(weights: &[i32], bias: &[i32]) -> Self {
        let channels = bias.len();
        let pairs = (weights.len() / channels).div_ceil(2);
        let blocks = channels.div_ceil(WIDE);
        let (mut data, mut wide) = (vec![0; pairs * 2 * channels], vec![0; pairs * 2 * blocks * WIDE]);
        for (t, row) in weights.chunks_exact(channels).enumerate() {
            for (c, &w) in row.iter().enumerate() {
                data[(t / 2 * channels + c) * 2 + t % 2] = w as i16;
                let slot = c % 4 + c / 8 % 4 * 4 + c / 4 % 2 * 16;
                wide[((c / WIDE * pairs + t / 2) * WIDE + slot) * 2 + t % 2] = w as i16;
            }
        }
        Taps { channels, data, bias: bias.to_vec(), wide }
    }

    /// Rows that [`Taps::accumulate`] takes: the number of taps, made even.
    pub(super) fn rows(&self) -> usize {
        self.data.len() / self.channels
    }

    /// `acc[c] = bias[c] + sum_t rows[t][c] w[t, c]`.
    pub(super) fn accumulate(&self, rows: &[&[i16]], acc: &mut [i32]) {
        self.accumulate_at(Level::best(), rows, acc);
    }

    fn accumulate_at(&self, level: Level, rows: &[&[i16]], acc: &mut [i32]) {
        let inside = rows.len() == self.rows() && rows.iter().all(|r| r.len() == self.channels);
        assert!(inside && acc.len() == self.channels, "shapes of a depthwise product");
        #[cfg(target_arch = "x86_64")]
        if x86::accumulate(level, self, rows, acc) {
            return;
        }
        portable::accumulate(self, rows, acc);
    }
}

/// Double rounding for rows of channels, as `program::quantize::requant`.
#[derive(Clone, Debug)]
pub(super) struct DoubleRounding {
    /// Multipliers.
    m: Vec<i32>,
    /// Left shifts.
    left: Vec<u32>,
    /// Right shifts less one, 0 if there is none.
    right: Vec<u32>,
    /// All ones where there is a right shift.
    rounds: Vec<i32>,
    /// Zero point, and the clamp before it is added.
    zero: i32,
    low: i32,
    high: i32,
}

impl DoubleRounding {
    /// For `(M, e)` of each channel.
    pub(super) fn new(multipliers: &[(i32, i8)], zero: i32, clamp: (i32, i32)) -> Self {
        DoubleRounding {
            m: multipliers.iter().map(|m| m.0).collect(),
            left: multipliers.iter().map(|m| (-m.1).max(0) as u32).collect(),
            right: multipliers.iter().map(|m| (m.1 - 1).max(0) as u32).collect(),
            rounds: multipliers.iter().map(|m| -i32::from(m.1 > 0)).collect(),
            zero,
            low: clamp.0 - zero,
            high: clamp.1 - zero,
        }
    }

    /// Outputs of whole rows.
    pub(super) fn rows(&self, acc: &[i32], out: &mut [i16]) {
        self.rows_at(Level::best(), acc, out);
    }

    fn rows_at(&self, level: Level, acc: &[i32], out: &mut [i16]) {
        let channels = self.m.len();
        let parameters = [self.left.len(), self.right.len(), self.rounds.len()] == [channels; 3];
        assert!(parameters && acc.len() == out.len() && acc.len().is_multiple_of(channels), "shapes of a requantisation");
        #[cfg(target_arch = "x86_64")]
        if x86::double_rounding(level, self, acc, out) {
            return;
        }
        portable::double_rounding(self, acc, out);
    }
}

#[cfg(test)]
mod tests;
