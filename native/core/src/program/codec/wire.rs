//! How integers, lists, options and tuples are written, and read with limits.

use crate::program::error::{Checked, Fault, ProgramError};
use crate::program::limits;

/// What is encoded: a value writes itself and reads itself back.
pub(super) trait Code: Sized {
    /// Fewest bytes that one value takes: bounds lengths before allocation.
    const LEAST: usize;

    fn write(&self, out: &mut Vec<u8>);
    fn read(input: &mut Input) -> Checked<Self>;
}

pub(super) struct Input<'a> {
    pub bytes: &'a [u8],
}

pub(super) fn fault(detail: impl Into<String>) -> ProgramError {
    ProgramError::new(Fault::Encoding, "bytes", detail)
}

impl<'a> Input<'a> {
    pub fn take(&mut self, n: usize) -> Checked<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or_else(|| fault("too short"))?;
        self.bytes = tail;
        Ok(head)
    }

    pub fn tag(&mut self, count: u8) -> Checked<u8> {
        let tag = u8::read(self)?;
        if tag < count { Ok(tag) } else { Err(fault(format!("unknown tag {tag}"))) }
    }

    pub fn length(&mut self, limit: usize, least: usize) -> Checked<usize> {
        let n = u32::read(self)? as usize;
        if n > limit || n.saturating_mul(least.max(1)) > self.bytes.len() {
            return Err(fault(format!("length {n} is beyond its limit or the bytes that are left")));
        }
        Ok(n)
    }

    pub fn list<T: Code>(&mut self, limit: usize) -> Checked<Vec<T>> {
        let n = self.length(limit, T::LEAST)?;
        (0..n).map(|_| T::read(self)).collect()
    }

    pub fn end(&self) -> Checked<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(fault(format!("{} bytes left over", self.bytes.len()))) }
    }
}

pub(super) fn write_list<T: Code>(items: &[T], out: &mut Vec<u8>) {
    (items.len() as u32).write(out);
    items.iter().for_each(|x| x.write(out));
}

macro_rules! fixed_width {
    ($($t:ty),*) => {$(
        impl Code for $t {
            const LEAST: usize = size_of::<$t>();

            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(input: &mut Input) -> Checked<Self> {
                let mut b = [0; size_of::<$t>()];
                b.copy_from_slice(input.take(size_of::<$t>())?);
                Ok(<$t>::from_le_bytes(b))
            }
        }
    )*};
}
fixed_width!(u8, i8, u32, i16, i32, i64);

impl Code for bool {
    const LEAST: usize = 1;

    fn write(&self, out: &mut Vec<u8>) {
        u8::from(*self).write(out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(input.tag(2)? == 1)
    }
}

impl<T: Code> Code for Option<T> {
    const LEAST: usize = 1;

    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|x| x.write(out));
    }

    fn read(input: &mut Input) -> Checked<Self> {
        if bool::read(input)? { T::read(input).map(Some) } else { Ok(None) }
    }
}

macro_rules! in_order {
    ($($t:ident),*) => {
        impl<$($t: Code),*> Code for ($($t,)*) {
            const LEAST: usize = 0 $(+ $t::LEAST)*;

            #[allow(non_snake_case, reason = "the types' own names serve for the values")]
            fn write(&self, out: &mut Vec<u8>) {
                let ($($t,)*) = self;
                $($t.write(out);)*
            }

            fn read(input: &mut Input) -> Checked<Self> {
                Ok(($($t::read(input)?,)*))
            }
        }
    };
}
in_order!(A, B);
in_order!(A, B, C, D);

/// A zigzag LEB128 integer in the fewest bytes.
pub(super) struct Varint(pub i64);

impl Code for Varint {
    const LEAST: usize = 1;

    fn write(&self, out: &mut Vec<u8>) {
        let mut z = (self.0 << 1 ^ self.0 >> 63) as u64;
        while z >= 0x80 {
            out.push(z as u8 | 0x80);
            z >>= 7;
        }
        out.push(z as u8);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let mut z = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = u8::read(input)?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(fault("integer too large"));
            }
            z |= part << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(fault("integer is not minimal"));
                }
                return Ok(Varint((z >> 1) as i64 ^ -((z & 1) as i64)));
            }
        }
        Err(fault("integer too long"))
    }
}

impl Code for String {
    const LEAST: usize = 4;

    fn write(&self, out: &mut Vec<u8>) {
        write_list(self.as_bytes(), out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let n = input.length(limits::NAME, 1)?;
        String::from_utf8(input.take(n)?.to_vec()).map_err(|_| fault("a name is not UTF-8"))
    }
}
