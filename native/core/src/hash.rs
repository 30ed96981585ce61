//! Keyed BLAKE3 for leaves and nodes, many inputs at once.
//!
//! Every kind of input has a key of its own, so that no leaf passes for a node, for a leaf of another role or width, or for a node of
//! another height:
//!
//! - leaf of `n` columns of role `r`: `key = derive_key("nexus-edge v1 leaf-plain " || r, n as u64 LE)`, input the `n` canonical elements,
//!   8 bytes little endian each, padded by zero bytes to whole 64-byte blocks (at least one);
//! - leaf with a salt: context `"nexus-edge v1 leaf-salted " || r`, input the elements, the 16 bytes of salt, zero padding;
//! - node of height `h >= 1` (leaves have height 0): `key = derive_key("nexus-edge v1 node", h as u64 LE)`, input `left || right`.
//!
//! An input is at most one BLAKE3 chunk (1024 bytes). Then BLAKE3 of each input is one chain of compressions and 16 of them run side by side
//! in the lanes of one vector register: about ten times faster than one by one. [`hash_blocks`] equals `Hasher::new_keyed` on the same bytes.

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform};

/// A BLAKE3 output.
pub type Digest = [u8; 32];

/// Bytes of a BLAKE3 block.
pub const BLOCK: usize = 64;
/// Bytes of a salt.
pub const SALT: usize = 16;
/// Base columns of a leaf at most: with a salt they fill one chunk of 16 blocks.
pub const MAX_LEAF_COLUMNS: usize = (16 * BLOCK - SALT) / 8;

// Flags of BLAKE3's specification, section 2.2.
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// The key of a hash function of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Of leaves of `columns` base elements whose oracle has the role `role`.
    pub fn leaf(role: &str, columns: usize, salted: bool) -> Key {
        let kind = if salted { "leaf-salted" } else { "leaf-plain" };
        Key(blake3::derive_key(&format!("nexus-edge v1 {kind} {role}"), &(columns as u64).to_le_bytes()))
    }

    /// Of the nodes of one height; leaves have height 0.
    pub fn node(height: usize) -> Key {
        Key(blake3::derive_key("nexus-edge v1 node", &(height as u64).to_le_bytes()))
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Bytes that a leaf takes when hashed: its elements and its salt in whole blocks.
pub fn leaf_bytes(columns: usize, salt: usize) -> usize {
    (8 * columns + salt).max(1).next_multiple_of(BLOCK)
}

/// `out[i]` = keyed BLAKE3 of the `i`-th of `out.len()` inputs of `blocks` blocks each (1 to 16) that `inputs` holds one after another.
pub fn hash_blocks(key: &Key, blocks: usize, inputs: &[u8], out: &mut [Digest]) {
    macro_rules! dispatch {
        ($($n:literal)*) => {
            match blocks {
                $($n => many::<{ $n * BLOCK }>(key, inputs, out),)*
                // A leaf's width is bounded where oracles are laid out.
                _ => unreachable!("an input is one chunk of whole blocks"),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
}

fn many<const N: usize>(key: &Key, inputs: &[u8], out: &mut [Digest]) {
    let mut words = [0u32; 8];
    for (word, bytes) in words.iter_mut().zip(key.0.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let platform = Platform::detect();
    let (inputs, _) = inputs.as_chunks::<N>();
    for (group, digests) in inputs.chunks(MAX_SIMD_DEGREE).zip(out.chunks_mut(MAX_SIMD_DEGREE)) {
        let mut lanes: [&[u8; N]; MAX_SIMD_DEGREE] = [&group[0]; MAX_SIMD_DEGREE];
        for (lane, input) in lanes.iter_mut().zip(group) {
            *lane = input;
        }
        platform.hash_many(
            &lanes[..group.len()],
            &words,
            0,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            digests.as_flattened_mut(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn many_at_once_equal_one_by_one(blocks in 1usize..=16, count in 0usize..40, seed: u8, height in 0usize..40) {
            let inputs: Vec<u8> = (0..blocks * BLOCK * count).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect();
            let key = Key::node(height);
            let mut out = vec![[0; 32]; count];
            hash_blocks(&key, blocks, &inputs, &mut out);
            for (input, digest) in inputs.chunks(blocks * BLOCK).zip(&out) {
                let one: Digest = blake3::Hasher::new_keyed(key.bytes()).update(input).finalize().into();
                prop_assert_eq!(one, *digest);
            }
        }
    }

    #[test]
    fn keys_differ_by_kind_role_columns_and_height() {
        let keys = [
            Key::leaf("witness", 8, false),
            Key::leaf("witness", 9, false),
            Key::leaf("witness", 8, true),
            Key::leaf("tensor", 8, false),
            Key::node(1),
            Key::node(8),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn the_widest_leaf_is_one_chunk() {
        assert_eq!(leaf_bytes(MAX_LEAF_COLUMNS, SALT), 1024);
        assert_eq!(leaf_bytes(0, 0), 64);
        assert_eq!(leaf_bytes(8, 0), 64);
        assert_eq!(leaf_bytes(8, SALT), 128);
    }
}
