//! The parts of a program, field by field in the order in which they are written.

use super::wire::{Code, Input, Varint, fault, write_list};
use crate::program::error::Checked;
use crate::program::{
    Accumulator, Constant, Contract, DType, Edge, Formula, Line, Op, Piece, Port, Rescale, Rule, Semantics, Table, Tensor, Window, limits,
};

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

/// What of a window is written after the tensor it reads; a batch of more than one is written before that, behind another tag.
impl Code for Window {
    const LEAST: usize = 48;

    fn write(&self, out: &mut Vec<u8>) {
        (self.input, self.output, self.kernel, self.stride).write(out);
        (self.pad, self.dilation).write(out);
    }

    fn read(input: &mut Input) -> Checked<Self> {
        let ((size, output, kernel, stride), pad) = Code::read(input)?;
        Ok(Window { batch: 1, input: size, output, kernel, stride, pad, dilation: Code::read(input)? })
    }
}

/// Tags from here on are those of windows over a batch, less this.
const BATCHED_CONTRACT: u8 = 4;
const BATCHED_MAX_POOL: u8 = 7;

/// The tag, and the batch where it is not 1.
fn write_tag(tag: u8, batched: u8, window: &Window, out: &mut Vec<u8>) {
    if window.batch == 1 {
        out.push(tag);
    } else {
        out.push(batched);
        window.batch.write(out);
    }
}

fn read_batch(input: &mut Input) -> Checked<u32> {
    let batch = u32::read(input)?;
    if batch == 1 { Err(fault("a batch of one has the other tag")) } else { Ok(batch) }
}

impl Code for Contract {
    const LEAST: usize = 5;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Contract::Conv { x, window, weights, bias, x_zero } | Contract::Depthwise { x, window, weights, bias, x_zero } => {
                let kind = u8::from(matches!(self, Contract::Depthwise { .. }));
                write_tag(kind, kind + BATCHED_CONTRACT, window, out);
                (*x, *window, *weights, *bias).write(out);
                x_zero.write(out);
            }
            Contract::Sum { x, window, x_zero } => {
                write_tag(2, 2 + BATCHED_CONTRACT, window, out);
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
        let tag = input.tag(BATCHED_CONTRACT + 3)?;
        let batched = tag >= BATCHED_CONTRACT;
        let kind = if batched { tag - BATCHED_CONTRACT } else { tag };
        let batch = if batched { read_batch(input)? } else { 1 };
        Ok(match kind {
            0 | 1 => {
                let ((x, window, weights, bias), x_zero) = Code::read(input)?;
                let window = Window { batch, ..window };
                if kind == 0 {
                    Contract::Conv { x, window, weights, bias, x_zero }
                } else {
                    Contract::Depthwise { x, window, weights, bias, x_zero }
                }
            }
            2 => {
                let ((x, window), x_zero) = Code::read(input)?;
                Contract::Sum { x, window: Window { batch, ..window }, x_zero }
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
                write_tag(4, BATCHED_MAX_POOL, window, out);
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
        Ok(match input.tag(BATCHED_MAX_POOL + 1)? {
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
            BATCHED_MAX_POOL => {
                let batch = read_batch(input)?;
                let (x, out, window, clamp) = Code::read(input)?;
                Op::MaxPool { x, out, window: Window { batch, ..window }, clamp }
            }
            _ => {
                let (x, out) = Code::read(input)?;
                Op::Permute { x, out, dims: input.list(limits::PERMUTE_RANK)?, perm: input.list(limits::PERMUTE_RANK)? }
            }
        })
    }
}
