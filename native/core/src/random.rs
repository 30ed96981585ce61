//! Secret randomness: a seed of the operating system for every attempt, expanded by BLAKE3.
//!
//! Nothing here is a function of the witness, and no generator lives on between two attempts or two processes: a fork cannot make two
//! proofs draw the same numbers. Seeds, and streams that hold them, are overwritten when they are dropped.

use std::fmt;
use std::io;

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::field::{F, P, canonical};
use crate::hash::SALT;

const STREAM: &str = "nexus-edge v1 random stream";
const SALTS: &str = "nexus-edge v1 salts";
const BOUND: &str = "nexus-edge v1 bound seed";
/// Elements drawn by one task.
const CHUNK: usize = 1 << 14;

/// How leaves are salted, for tests of what it is for.
#[cfg(feature = "attacks")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Salting {
    /// A salt for each leaf.
    #[default]
    Each,
    /// One for all leaves of a tree.
    One,
    /// Zeros.
    None,
}

/// What a prover of the test suite fails to draw anew for each proof.
#[cfg(feature = "attacks")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weakness {
    /// Nothing.
    #[default]
    None,
    /// The random coefficients of the columns of data are 0.
    NoPads,
    /// All proofs mask their messages alike.
    SameMasks,
    /// All proofs have one mask of the combination.
    SameMask,
    /// One message has the mask 0.
    Unmasked(usize),
}

/// 32 secret bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    bytes: [u8; 32],
    #[cfg(feature = "attacks")]
    salting: Salting,
}

impl Seed {
    /// From the operating system.
    pub fn fresh() -> io::Result<Seed> {
        let mut seed = Seed::from_bytes([0; 32]);
        getrandom::fill(&mut seed.bytes).map_err(io::Error::other)?;
        Ok(seed)
    }

    /// A seed that was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Seed {
        Seed {
            bytes,
            #[cfg(feature = "attacks")]
            salting: Salting::Each,
        }
    }

    /// Salts leaves in another way.
    #[cfg(feature = "attacks")]
    pub fn salting(mut self, salting: Salting) -> Seed {
        self.salting = salting;
        self
    }

    /// The bytes, to be kept secret.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The seed of one commitment: a function of this one, of what describes the commitment, and of the committed values. Two arrays, or one
    /// under two descriptions, never share a random cell or a salt, whatever seeds their holders choose.
    pub(crate) fn bound_to(&self, description: &[u8], values: &[&[F]]) -> Seed {
        let mut h = blake3::Hasher::new_derive_key(BOUND);
        h.update(&self.bytes);
        h.update(&(description.len() as u64).to_le_bytes());
        h.update(description);
        let mut bytes = Vec::new();
        for part in values.iter().flat_map(|v| v.chunks(CHUNK)) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|&x| canonical(x).to_le_bytes()));
            h.update(&bytes);
        }
        bytes.zeroize();
        let seed = Seed::from_bytes(*h.finalize().as_bytes());
        h.zeroize();
        seed
    }

    fn stream(&self, context: &str, numbers: &[u64]) -> Stream {
        let mut h = blake3::Hasher::new_derive_key(context);
        h.update(&self.bytes);
        numbers.iter().for_each(|n| {
            h.update(&n.to_le_bytes());
        });
        let out = Stream(h.finalize_xof());
        h.zeroize();
        out
    }

    /// `n` uniform elements of stream `number`.
    pub(crate) fn elements(&self, number: u64, n: usize) -> Vec<F> {
        let mut out = vec![F::ZERO; n];
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            let mut stream = self.stream(STREAM, &[number, chunk as u64]);
            let mut bytes = vec![0; 8 * out.len()];
            stream.0.fill(&mut bytes);
            for (x, word) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                let mut word = *word;
                // One word in 2^32 is not canonical.
                while u64::from_le_bytes(word) >= P {
                    stream.0.fill(&mut word);
                }
                *x = F::from_u64(u64::from_le_bytes(word));
            }
            bytes.zeroize();
        });
        out
    }

    /// The salts of a tree's leaves.
    pub(crate) fn salts(&self) -> Salts {
        Salts {
            stream: self.stream(SALTS, &[]),
            #[cfg(feature = "attacks")]
            salting: self.salting,
        }
    }
}

/// What a seed is expanded to. The reader holds the seed itself, as the block that it hashes anew for each piece of output.
#[derive(Clone)]
struct Stream(blake3::OutputReader);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The salts of a tree's leaves, one after another.
#[derive(Clone)]
pub(crate) struct Salts {
    stream: Stream,
    #[cfg(feature = "attacks")]
    salting: Salting,
}

impl Salts {
    /// The salts `first, first + 1, ...`.
    pub(crate) fn read(&mut self, first: usize, out: &mut [[u8; SALT]]) {
        #[cfg(feature = "attacks")]
        let first = if self.salting == Salting::One { 0 } else { first };
        self.stream.0.set_position((first * SALT) as u64);
        self.stream.0.fill(out.as_flattened_mut());
        #[cfg(feature = "attacks")]
        match self.salting {
            Salting::Each => {}
            Salting::One => out.fill(out[0]),
            Salting::None => out.fill([0; SALT]),
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// All randomness of one attempt at a proof.
pub struct Randomness {
    seed: Seed,
    used: u64,
    #[cfg(feature = "attacks")]
    pub(crate) weakness: Weakness,
}

impl Randomness {
    /// From the operating system.
    pub fn fresh() -> io::Result<Randomness> {
        Ok(Self::new(Seed::fresh()?))
    }

    /// Chosen, for tests of what a proof shows.
    #[cfg(any(test, feature = "attacks"))]
    pub fn chosen(seed: [u8; 32]) -> Randomness {
        Self::new(Seed::from_bytes(seed))
    }

    /// With a weakness.
    #[cfg(feature = "attacks")]
    pub fn weakened(mut self, weakness: Weakness) -> Randomness {
        self.weakness = weakness;
        self
    }

    fn new(seed: Seed) -> Randomness {
        Randomness {
            seed,
            used: 0,
            #[cfg(feature = "attacks")]
            weakness: Weakness::None,
        }
    }

    /// `n` uniform elements.
    pub(crate) fn elements(&mut self, n: usize) -> Vec<F> {
        self.used += 1;
        self.seed.elements(self.used, n)
    }

    /// A seed of its own.
    pub(crate) fn seed(&mut self) -> Seed {
        self.used += 1;
        let mut seed = Seed::from_bytes([0; 32]);
        self.seed.stream(STREAM, &[self.used]).0.fill(&mut seed.bytes);
        seed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn draws_differ_and_are_functions_of_the_seed() {
        let draw = |seed: u8| {
            let mut r = Randomness::chosen([seed; 32]);
            let mut all = r.elements(CHUNK + 100);
            all.extend(r.elements(7));
            all.push(F::from_u64(u64::from_le_bytes(r.seed().expose()[..8].try_into().expect("8 bytes")) % P));
            all
        };
        assert_eq!(draw(1), draw(1));
        let all: BTreeSet<u64> = [draw(1), draw(2)].concat().into_iter().map(canonical).collect();
        assert_eq!(all.len(), 2 * (CHUNK + 108), "no element twice among so few");
    }

    #[test]
    fn fresh_seeds_differ_and_do_not_print() {
        let (a, b) = (Seed::fresh().expect("entropy"), Seed::fresh().expect("entropy"));
        assert_ne!(a, b);
        assert_eq!(format!("{a:?}"), "Seed(secret)");
    }

    #[test]
    fn bound_seeds_differ_by_seed_description_and_values() {
        let (a, b) = ([F::ONE, F::TWO], [F::ONE, F::ONE]);
        let of = |seed: u8, description: &[u8], values: &[F]| Seed::from_bytes([seed; 32]).bound_to(description, &[values]);
        let all = [of(1, b"x", &a), of(2, b"x", &a), of(1, b"y", &a), of(1, b"x", &b), of(1, b"x", &a[..1])];
        assert_eq!(all[0], of(1, b"x", &a));
        assert!((0..all.len()).all(|i| !all[..i].contains(&all[i])));
    }

    #[test]
    fn salts_are_independent_of_how_they_are_read() {
        let seed = Seed::from_bytes([9; 32]);
        let mut all = [[0; SALT]; 40];
        seed.salts().read(0, &mut all);
        let mut one = [[0; SALT]; 1];
        let mut salts = seed.salts();
        for (i, salt) in all.iter().enumerate().rev() {
            salts.read(i, &mut one);
            assert_eq!(one[0], *salt);
        }
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 40);
    }
}
