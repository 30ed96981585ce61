//! Goldilocks `F = Z/p`, `p = 2^64 - 2^32 + 1`, and its extensions `K = F[X]/(X^D - 7)` for `D = 2` (100-bit set) and `D = 3` (128-bit set).
//!
//! 7 generates the multiplicative group of `F`, so it is neither a square nor a cube and `X^D - 7` is irreducible for both degrees.
//! Index convention everywhere: variable `i` of a point is bit `i` of the index, bit 0 (the lowest) first.

use core::iter::Sum;
use core::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use p3_field::{Field, PackedValue, PrimeCharacteristicRing, PrimeField64};

/// The base field. Its in-memory form is not canonical; use [`canonical`] before hashing, comparing bytes or encoding.
pub type F = p3_goldilocks::Goldilocks;
/// Several base elements in one vector register.
pub type PackedF = <F as Field>::Packing;
/// Lanes of [`PackedF`].
pub const LANES: usize = <PackedF as PackedValue>::WIDTH;
/// The modulus.
pub const P: u64 = 0xffff_ffff_0000_0001;

/// An element of `K` over `B`, which is [`F`] or [`PackedF`]: `c[0] + c[1] X + ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ext<B, const D: usize>(pub [B; D]);

/// An extension element.
pub type K<const D: usize> = Ext<F, D>;
/// [`LANES`] extension elements, one base coordinate per register.
pub type PackedK<const D: usize> = Ext<PackedF, D>;

/// The canonical representative in `[0, p)`.
#[inline]
pub fn canonical(x: F) -> u64 {
    x.as_canonical_u64()
}

/// A signed integer as a field element.
#[inline]
pub fn from_i64(x: i64) -> F {
    F::from_u64((x as u64).wrapping_add(if x < 0 { P } else { 0 }))
}

/// The signed integer in `(-p/2, p/2)` that `x` stands for.
#[inline]
pub fn centred(x: F) -> i64 {
    let v = canonical(x);
    if v > P / 2 { (v.wrapping_sub(P)) as i64 } else { v as i64 }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Ext<B, D> {
    /// 0.
    pub const ZERO: Self = Ext([B::ZERO; D]);
    /// 1.
    pub const ONE: Self = {
        let mut c = [B::ZERO; D];
        c[0] = B::ONE;
        Ext(c)
    };

    /// Embeds a base element.
    #[inline(always)]
    pub fn from_base(x: B) -> Self {
        let mut c = [B::ZERO; D];
        c[0] = x;
        Ext(c)
    }

    /// Product with a base element.
    #[inline(always)]
    pub fn scale(self, x: B) -> Self {
        Ext(self.0.map(|c| c * x))
    }

    /// The square.
    #[inline(always)]
    pub fn square(self) -> Self {
        self * self
    }

    /// Twice the element.
    #[inline(always)]
    pub fn double(self) -> Self {
        self + self
    }

    /// `self^e` by square and multiply.
    pub fn pow(self, mut e: u64) -> Self {
        let (mut base, mut out) = (self, Self::ONE);
        while e > 0 {
            if e & 1 == 1 {
                out *= base;
            }
            base = base.square();
            e >>= 1;
        }
        out
    }
}

impl<const D: usize> K<D> {
    /// Lifts a signed integer.
    #[inline]
    pub fn from_i64(x: i64) -> Self {
        Self::from_base(from_i64(x))
    }

    /// The inverse, or `None` for 0. Solves `self * y = 1` as a `D x D` linear system over `F`.
    pub fn try_inverse(self) -> Option<Self> {
        if self == Self::ZERO {
            return None;
        }
        // Columns of the matrix of multiplication by `self`: self * X^j.
        let mut rows = [[F::ZERO; 4]; 4];
        let mut power = self;
        for j in 0..D {
            for i in 0..D {
                rows[i][j] = power.0[i];
            }
            let mut shifted = [F::ZERO; D];
            shifted[1..].copy_from_slice(&power.0[..D - 1]);
            shifted[0] = power.0[D - 1] * F::from_u8(7);
            power = Ext(shifted);
        }
        let mut rhs = [F::ZERO; 4];
        rhs[0] = F::ONE;
        for col in 0..D {
            let pivot = (col..D).find(|&i| rows[i][col] != F::ZERO)?;
            rows.swap(col, pivot);
            rhs.swap(col, pivot);
            let inv = rows[col][col].try_inverse()?;
            for j in 0..D {
                rows[col][j] *= inv;
            }
            rhs[col] *= inv;
            for i in 0..D {
                if i != col {
                    let factor = rows[i][col];
                    for j in 0..D {
                        let t = rows[col][j];
                        rows[i][j] -= factor * t;
                    }
                    let t = rhs[col];
                    rhs[i] -= factor * t;
                }
            }
        }
        let mut out = [F::ZERO; D];
        out.copy_from_slice(&rhs[..D]);
        Some(Ext(out))
    }

    /// The same element in every lane.
    #[inline(always)]
    pub fn broadcast(self) -> PackedK<D> {
        Ext(self.0.map(PackedF::from))
    }

    /// `D` little-endian 8-byte canonical integers.
    pub fn to_bytes(self, out: &mut Vec<u8>) {
        for c in self.0 {
            out.extend_from_slice(&canonical(c).to_le_bytes());
        }
    }

    /// Reads `8 D` bytes; `None` if a coordinate is not canonical or the length is off.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 8 * D {
            return None;
        }
        let mut c = [F::ZERO; D];
        for (x, b) in c.iter_mut().zip(bytes.chunks_exact(8)) {
            let v = u64::from_le_bytes(b.try_into().ok()?);
            if v >= P {
                return None;
            }
            *x = F::from_u64(v);
        }
        Some(Ext(c))
    }
}

impl<const D: usize> PackedK<D> {
    /// The sum of the lanes.
    #[inline]
    pub fn sum_lanes(self) -> K<D> {
        Ext(self.0.map(|c| c.as_slice().iter().copied().sum()))
    }

    /// The element in one lane.
    #[inline]
    pub fn lane(self, i: usize) -> K<D> {
        Ext(self.0.map(|c| c.as_slice()[i]))
    }

    /// Packs `LANES` elements produced by `f`.
    #[inline(always)]
    pub fn from_lanes(f: impl Fn(usize) -> K<D>) -> Self {
        Ext(core::array::from_fn(|j| PackedF::from_fn(|i| f(i).0[j])))
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Add for Ext<B, D> {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        Ext(core::array::from_fn(|i| self.0[i] + o.0[i]))
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Sub for Ext<B, D> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        Ext(core::array::from_fn(|i| self.0[i] - o.0[i]))
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Neg for Ext<B, D> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Ext(self.0.map(|c| -c))
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Mul for Ext<B, D> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        let (a, b) = (&self.0, &o.0);
        if D == 2 {
            // Schoolbook: four products beat Karatsuba's extra additions on packed Goldilocks.
            let mut c = [B::ZERO; D];
            let high = a[1] * b[1];
            // 7 x = 8 x - x: three doublings are cheaper than a product.
            c[0] = a[0] * b[0] + (high.double().double().double() - high);
            c[1] = a[0] * b[1] + a[1] * b[0];
            return Ext(c);
        }
        let mut low = [B::ZERO; D];
        let mut high = [B::ZERO; D];
        for i in 0..D {
            for j in 0..D {
                if i + j < D {
                    low[i + j] += a[i] * b[j];
                } else {
                    high[i + j - D] += a[i] * b[j];
                }
            }
        }
        let seven = B::from_u8(7);
        Ext(core::array::from_fn(|i| low[i] + seven * high[i]))
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> AddAssign for Ext<B, D> {
    #[inline(always)]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> SubAssign for Ext<B, D> {
    #[inline(always)]
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> MulAssign for Ext<B, D> {
    #[inline(always)]
    fn mul_assign(&mut self, o: Self) {
        *self = *self * o;
    }
}

impl<B: PrimeCharacteristicRing + Copy, const D: usize> Sum for Ext<B, D> {
    fn sum<I: Iterator<Item = Self>>(it: I) -> Self {
        it.fold(Self::ZERO, |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element() -> impl Strategy<Value = u64> {
        prop_oneof![0..P, Just(P - 1), Just(0), Just(1 << 32), Just((1 << 32) - 1)]
    }

    fn check_inverse<const D: usize>(c: [u64; D]) {
        let x: K<D> = Ext(c.map(F::from_u64));
        match x.try_inverse() {
            None => assert!(x == K::ZERO),
            Some(y) => assert!(x * y == K::ONE),
        }
        let mut bytes = Vec::new();
        x.to_bytes(&mut bytes);
        assert_eq!(K::<D>::from_bytes(&bytes), Some(x));
    }

    proptest! {
        #[test]
        fn inverse_and_encoding(a in element(), b in element(), c in element()) {
            check_inverse([a, b]);
            check_inverse([a, b, c]);
        }

        #[test]
        fn centred_round_trip(x in -(1i64 << 62)..(1i64 << 62)) {
            prop_assert_eq!(centred(from_i64(x)), x);
        }

        #[test]
        fn multiplication_is_associative_and_distributes(v in prop::array::uniform9(element())) {
            let k = |i: usize| Ext::<F, 3>([v[i], v[i + 1], v[i + 2]].map(F::from_u64));
            prop_assert_eq!((k(0) * k(3)) * k(6), k(0) * (k(3) * k(6)));
            prop_assert_eq!(k(0) * (k(3) + k(6)), k(0) * k(3) + k(0) * k(6));
        }
    }

    #[test]
    fn non_canonical_bytes_are_refused() {
        let mut bytes = vec![0; 16];
        bytes[..8].copy_from_slice(&P.to_le_bytes());
        assert_eq!(K::<2>::from_bytes(&bytes), None);
        assert_eq!(K::<2>::from_bytes(&bytes[..15]), None);
    }

    #[test]
    fn seven_is_neither_a_square_nor_a_cube() {
        let seven = F::from_u8(7);
        assert_ne!(seven.exp_u64((P - 1) / 2), F::ONE);
        assert_ne!(seven.exp_u64((P - 1) / 3), F::ONE);
    }
}
