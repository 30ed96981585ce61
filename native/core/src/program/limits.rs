//! What a program may ask for at most. Counts are compared before anything of that size is allocated or visited.

/// Bytes of a name.
pub const NAME: usize = 256;
/// Tensors, accumulators, constants, tables and operators, each.
pub const ITEMS: usize = 1 << 16;
/// Dimensions of a tensor.
pub const RANK: usize = 6;
/// Dimensions of a permutation.
pub const PERMUTE_RANK: usize = 8;
/// One dimension, of anything.
pub const DIMENSION: u32 = 1 << 24;
/// Elements of all tensors and accumulators together.
pub const CELLS: usize = 1 << 28;
/// Elements of all constants together.
pub const WEIGHTS: usize = 1 << 28;
/// Values of all tables together.
pub const TABLE_VALUES: usize = 1 << 24;
/// Rules of all rescales together.
pub const RULES: usize = 1 << 20;
/// Additions by a plane: each is checked on 65,536 pairs.
pub const ADDITIONS: usize = 1 << 10;
/// Pieces of all views together.
pub const PIECES: usize = 1 << 12;
/// Multiply-accumulates of one run.
pub const MACS: u64 = 1 << 42;
/// `w` of the range table.
pub const RANGE_BITS: (u8, u8) = (4, 20);
/// Bits of the clamp tables and of the sign table.
pub const ROW_BITS: u8 = 24;
/// `log2 V` of private weights: at least as wide as a dtype, at most as a clamp table.
pub const LOG_BOUND: (u8, u8) = (8, ROW_BITS - 1);
/// Slope numerators of lines over private accumulators, exclusive.
pub const PRIVATE_SLOPE: i64 = 1 << 29;
/// `log2` of `2 d V` for private weights: the registration splits it into limbs.
pub const PRIVATE_SPAN: u32 = 60;
/// Magnitude of a Mix coefficient.
pub const COEFFICIENT: u64 = 1 << 40;
/// Output rows times input columns of a window: what pulling weights back to the input goes through.
pub const BETWEEN: u64 = 1 << 24;
