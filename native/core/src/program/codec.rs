//! Canonical bytes of programs and weights: exactly one encoding each.
//!
//! Little endian, fixed order, one version. Integers of rules and tables, which are most of a program, are minimal zigzag LEB128;
//! everything else has a fixed width. A length is compared with its limit and with the bytes that are left before anything is allocated.
//! Decoding gives plain data: only `check::load` makes it a program that may be run.

use super::error::{Checked, Fault, ProgramError};
use super::{
    Accumulator, Constant, Contract, DType, Edge, Formula, Line, Op, Piece, Port, PrivateForm, Program, Rescale, Rule, Semantics, Table,
    Tensor, Weights, Window, limits,
};

const PROGRAM_MAGIC: &[u8; 8] = b"NXEprg\x01\0";
/// The same, and the bounds of a private model's values after it.
const PRIVATE_MAGIC: &[u8; 8] = b"NXEprg\x02\0";
const WEIGHTS_MAGIC: &[u8; 8] = b"NXEwgt\x01\0";

/// What is encoded: a value writes itself and reads itself back.
trait Code: Sized {
    /// Fewest bytes that one value takes: bounds lengths before allocation.
    const LEAST: usize;

    fn write(&self, out: &mut Vec<u8>);
    fn read(input: &mut Input) -> Checked<Self>;
}

struct Input<'a> {
    bytes: &'a [u8],
}

fn fault(detail: impl Into<String>) -> ProgramError {
    ProgramError::new(Fault::Encoding, "bytes", detail)
}

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Checked<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or_else(|| fault("too short"))?;
        self.bytes = tail;
        Ok(head)
    }

    fn tag(&mut self, count: u8) -> Checked<u8> {
        let tag = u8::read(self)?;
        if tag < count { Ok(tag) } else { Err(fault(format!("unknown tag {tag}"))) }
    }

    fn length(&mut self, limit: usize, least: usize) -> Checked<usize> {
        let n = u32::read(self)? as usize;
        if n > limit || n.saturating_mul(least.max(1)) > self.bytes.len() {
            return Err(fault(format!("length {n} is beyond its limit or the bytes that are left")));
        }
        Ok(n)
    }

    fn list<T: Code>(&mut self, limit: usize) -> Checked<Vec<T>> {
        let n = self.length(limit, T::LEAST)?;
        (0..n).map(|_| T::read(self)).collect()
    }

    fn end(&self) -> Checked<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(fault(format!("{} bytes left over", self.bytes.len()))) }
    }
}

fn write_list<T: Code>(items: &[T], out: &mut Vec<u8>) {
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

macro_rules! fields {
    ($t:ident { $($field:ident: $ft:ty),* }) => {
        impl Code for $t {
            const LEAST: usize = 0 $(+ <$ft as Code>::LEAST)*;

            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(input: &mut Input) -> Checked<Self> {
                Ok($t { $($field: Code::read(input)?),* })
            }
        }
    };
}
fields!(Window { input: (u32, u32), output: (u32, u32), kernel: (u32, u32), stride: (u32, u32), pad: (u32, u32), dilation: (u32, u32) });
fields!(Accumulator { positions: u32, channels: u32 });
fields!(Port { tensor: u32, edge: Edge });

macro_rules! words {
    ($t:ident: $($variant:ident),*) => {
        impl Code for $t {
            const LEAST: usize = 1;

            fn write(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn read(input: &mut Input) -> Checked<Self> {
                const ALL: &[$t] = &[$($t::$variant),*];
                Ok(ALL[input.tag(ALL.len() as u8)? as usize])
            }
        }
    };
}
words!(Semantics: Tflm, Tflite214, Litert23Ref);
words!(DType: Int8, UInt8);
words!(Edge: Integer, Float);

/// A zigzag LEB128 integer in the fewest bytes.
struct Varint(i64);

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

impl Code for Tensor {
    const LEAST: usize = 14;

    fn write(&self, out: &mut Vec<u8>) {
        self.name.write(out);
        self.dtype.write(out);
        write_list(&self.dims, out);
        self.scale.write(out);
        self.zero_point.write(out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(Tensor {
            name: Code::read(input)?,
            dtype: Code::read(input)?,
            dims: input.list(limits::RANK)?,
            scale: Code::read(input)?,
            zero_point: Code::read(input)?,
        })
    }
}

impl Code for Constant {
    const LEAST: usize = 12;

    fn write(&self, out: &mut Vec<u8>) {
        write_list(&self.dims, out);
        self.range.write(out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(Constant { dims: input.list(limits::RANK)?, range: Code::read(input)? })
    }
}

impl Code for Table {
    const LEAST: usize = 4;

    /// Differences: neighbouring rows have near values, which take one byte.
    fn write(&self, out: &mut Vec<u8>) {
        (self.values.len() as u32).write(out);
        let mut last = 0;
        for &v in &self.values {
            Varint(v.wrapping_sub(last).into()).write(out);
            last = v;
        }
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let n = input.length(1 << 16, 1)?;
        let mut last = 0i16;
        let mut next = |_| {
            let step = i16::try_from(Varint::read(input)?.0).map_err(|_| fault("table value too large"))?;
            last = last.wrapping_add(step);
            Ok(last)
        };
        Ok(Table { values: (0..n).map(&mut next).collect::<Checked<_>>()? })
    }
}

impl Code for Piece {
    const LEAST: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        self.source.write(out);
        write_list(&self.dims, out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(Piece { source: Code::read(input)?, dims: input.list(limits::RANK)? })
    }
}

impl Code for Contract {
    const LEAST: usize = 5;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Contract::Conv { x, window, weights, bias, x_zero } | Contract::Depthwise { x, window, weights, bias, x_zero } => {
                out.push(u8::from(matches!(self, Contract::Depthwise { .. })));
                (*x, *window, *weights, *bias).write(out);
                x_zero.write(out);
            }
            Contract::Sum { x, window, x_zero } => {
                out.push(2);
                (*x, *window).write(out);
                x_zero.write(out);
            }
            Contract::Mix { terms } => {
                out.push(3);
                write_list(terms, out);
            }
        }
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let tag = input.tag(4)?;
        Ok(match tag {
            0 | 1 => {
                let ((x, window, weights, bias), x_zero) = Code::read(input)?;
                if tag == 0 {
                    Contract::Conv { x, window, weights, bias, x_zero }
                } else {
                    Contract::Depthwise { x, window, weights, bias, x_zero }
                }
            }
            2 => {
                let ((x, window), x_zero) = Code::read(input)?;
                Contract::Sum { x, window, x_zero }
            }
            _ => Contract::Mix { terms: input.list(limits::ITEMS)? },
        })
    }
}

impl Code for Formula {
    const LEAST: usize = 1;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Formula::DoubleRounding(m) => {
                out.push(0);
                write_list(m, out);
            }
            Formula::SingleRounding(m) => {
                out.push(1);
                write_list(m, out);
            }
            Formula::AveragePool => out.push(2),
            Formula::Add { first, second, output, zeros, subtract } => {
                out.push(3);
                (*first, *second, *output, *zeros).write(out);
                subtract.write(out);
            }
        }
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(match input.tag(4)? {
            0 => Formula::DoubleRounding(input.list(limits::RULES)?),
            1 => Formula::SingleRounding(input.list(limits::RULES)?),
            2 => Formula::AveragePool,
            _ => {
                let ((first, second, output, zeros), subtract) = Code::read(input)?;
                Formula::Add { first, second, output, zeros, subtract }
            }
        })
    }
}

impl Code for Rule {
    const LEAST: usize = 2;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Rule::Constant(c) => {
                out.push(0);
                Varint((*c).into()).write(out);
            }
            // Most lines have one offset: the second is written as a (wrapping) difference, 0 in one byte.
            Rule::Line { low, high, line } => {
                out.push(1);
                let numbers = [*low, *high, line.a, line.b_pos, line.b_neg.wrapping_sub(line.b_pos), line.d];
                numbers.into_iter().for_each(|v| Varint(v).write(out));
            }
        }
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let next = |input: &mut Input| Varint::read(input).map(|v| v.0);
        if input.tag(2)? == 0 {
            let c = next(input)?;
            return i32::try_from(c).map(Rule::Constant).map_err(|_| fault("constant too large"));
        }
        let (low, high, a, b_pos) = (next(input)?, next(input)?, next(input)?, next(input)?);
        let (b_neg, d) = (next(input)?.wrapping_add(b_pos), next(input)?);
        Ok(Rule::Line { low, high, line: Line { a, b_pos, b_neg, d } })
    }
}

impl Code for Rescale {
    const LEAST: usize = 26;

    fn write(&self, out: &mut Vec<u8>) {
        (self.acc, self.out, self.zero, self.clamp).write(out);
        self.formula.write(out);
        self.by_position.write(out);
        write_list(&self.rules, out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let (acc, out, zero, clamp) = Code::read(input)?;
        Ok(Rescale {
            acc,
            out,
            zero,
            clamp,
            formula: Code::read(input)?,
            by_position: Code::read(input)?,
            rules: input.list(limits::RULES)?,
        })
    }
}

impl Code for Op {
    const LEAST: usize = 9;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Op::Contract { acc, contract } => {
                out.push(0);
                acc.write(out);
                contract.write(out);
            }
            Op::Rescale(r) => {
                out.push(1);
                r.write(out);
            }
            Op::Lookup { inputs, out: to, table } => {
                out.push(2);
                write_list(inputs, out);
                (*to, *table).write(out);
            }
            Op::Softmax { x, out: to, multiplier, shift } => {
                out.push(3);
                (*x, *to, *multiplier, *shift).write(out);
            }
            Op::MaxPool { x, out: to, window, clamp } => {
                out.push(4);
                (*x, *to, *window, *clamp).write(out);
            }
            Op::View { out: to, pieces, fill } => {
                out.push(5);
                to.write(out);
                write_list(pieces, out);
                fill.write(out);
            }
            Op::Permute { x, out: to, dims, perm } => {
                out.push(6);
                (*x, *to).write(out);
                write_list(dims, out);
                write_list(perm, out);
            }
        }
    }

    fn read(input: &mut Input) -> Checked<Self> {
        Ok(match input.tag(7)? {
            0 => Op::Contract { acc: Code::read(input)?, contract: Code::read(input)? },
            1 => Op::Rescale(Code::read(input)?),
            2 => Op::Lookup { inputs: input.list(limits::ITEMS)?, out: Code::read(input)?, table: Code::read(input)? },
            3 => {
                let (x, out, multiplier, shift) = Code::read(input)?;
                Op::Softmax { x, out, multiplier, shift }
            }
            4 => {
                let (x, out, window, clamp) = Code::read(input)?;
                Op::MaxPool { x, out, window, clamp }
            }
            5 => Op::View { out: Code::read(input)?, pieces: input.list(limits::PIECES)?, fill: Code::read(input)? },
            _ => {
                let (x, out) = Code::read(input)?;
                Op::Permute { x, out, dims: input.list(limits::PERMUTE_RANK)?, perm: input.list(limits::PERMUTE_RANK)? }
            }
        })
    }
}

impl Program {
    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = if self.private.is_some() { PRIVATE_MAGIC } else { PROGRAM_MAGIC }.to_vec();
        self.name.write(&mut out);
        self.semantics.write(&mut out);
        write_list(&self.tensors, &mut out);
        write_list(&self.accumulators, &mut out);
        write_list(&self.constants, &mut out);
        write_list(&self.tables, &mut out);
        write_list(&self.inputs, &mut out);
        write_list(&self.outputs, &mut out);
        write_list(&self.ops, &mut out);
        self.range_bits.write(&mut out);
        self.clamp_rows.write(&mut out);
        self.sign_rows.write(&mut out);
        if let Some(form) = &self.private {
            write_list(&form.log_bounds, &mut out);
        }
        out
    }

    /// Reads what [`Program::to_bytes`] wrote, and nothing else. The program is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Checked<Program> {
        let mut input = Input { bytes };
        let magic = input.take(8)?;
        let private = magic == PRIVATE_MAGIC;
        if magic != PROGRAM_MAGIC && !private {
            return Err(fault("not a program of this version"));
        }
        let program = Program {
            name: Code::read(&mut input)?,
            semantics: Code::read(&mut input)?,
            tensors: input.list(limits::ITEMS)?,
            accumulators: input.list(limits::ITEMS)?,
            constants: input.list(limits::ITEMS)?,
            tables: input.list(limits::ITEMS)?,
            inputs: input.list(limits::ITEMS)?,
            outputs: input.list(limits::ITEMS)?,
            ops: input.list(limits::ITEMS)?,
            range_bits: Code::read(&mut input)?,
            clamp_rows: Code::read(&mut input)?,
            sign_rows: Code::read(&mut input)?,
            private: if private { Some(PrivateForm { log_bounds: input.list(limits::ITEMS)? }) } else { None },
        };
        input.end()?;
        Ok(program)
    }
}

/// Bytes of each value of an array: the fewest that hold all of them.
fn width(values: &[i32]) -> u8 {
    let fits = |low: i32, high: i32| values.iter().all(|v| (low..=high).contains(v));
    if fits(i8::MIN.into(), i8::MAX.into()) {
        1
    } else if fits(i16::MIN.into(), i16::MAX.into()) {
        2
    } else {
        4
    }
}

impl Weights {
    /// The canonical encoding: each array in the fewest bytes a value that hold it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = WEIGHTS_MAGIC.to_vec();
        (self.values.len() as u32).write(&mut out);
        for values in &self.values {
            let width = width(values);
            width.write(&mut out);
            (values.len() as u32).write(&mut out);
            values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()[..width.into()]));
        }
        out
    }

    /// Reads what [`Weights::to_bytes`] wrote, and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Checked<Weights> {
        let mut input = Input { bytes };
        if input.take(8)? != WEIGHTS_MAGIC {
            return Err(fault("not weights of this version"));
        }
        let arrays = input.length(limits::ITEMS, 5)?;
        let mut values = Vec::with_capacity(arrays);
        for _ in 0..arrays {
            let w = u8::read(&mut input)?;
            let n = input.length(limits::WEIGHTS, w.into())?;
            let raw = input.take(n * usize::from(w))?;
            let array: Vec<i32> = match w {
                1 => raw.iter().map(|&b| i32::from(b as i8)).collect(),
                2 => raw.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]]).into()).collect(),
                4 => raw.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                _ => return Err(fault(format!("unknown width {w}"))),
            };
            if width(&array) != w {
                return Err(fault("weights are not in their smallest width"));
            }
            values.push(array);
        }
        input.end()?;
        Ok(Weights { values })
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
