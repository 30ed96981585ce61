//! Canonical bytes of programs and weights: exactly one encoding each.
//!
//! Little endian, fixed order, one version. Integers of rules and tables, which are most of a program, are minimal zigzag LEB128;
//! everything else has a fixed width. A length is compared with its limit and with the bytes that are left before anything is allocated.
//! Decoding gives plain data: only `check::load` makes it a program that may be run.

mod records;
mod wire;

use self::wire::{Code, Input, fault, write_list};
use super::error::Checked;
use super::{PrivateForm, Program, Weights, limits};

const PROGRAM_MAGIC: &[u8; 8] = b"NXEprg\x01\0";
/// The same, and the bounds of a private model's values after it.
const PRIVATE_MAGIC: &[u8; 8] = b"NXEprg\x02\0";
/// The two with forms that readers of the versions before do not know.
const LATER_MAGIC: &[u8; 8] = b"NXEprg\x03\0";
const LATER_PRIVATE_MAGIC: &[u8; 8] = b"NXEprg\x04\0";
const WEIGHTS_MAGIC: &[u8; 8] = b"NXEwgt\x01\0";

impl Program {
    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.named(&self.name)
    }

    /// What a model's digest is made of: the canonical encoding with an empty name. A name is for people and does not change what is
    /// proved, so that two owners of one model may call it what they like.
    pub fn unnamed_bytes(&self) -> Vec<u8> {
        self.named("")
    }

    fn named(&self, name: &str) -> Vec<u8> {
        let mut out = self.magic().to_vec();
        write_list(name.as_bytes(), &mut out);
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

    /// The version is the least that has the program's forms: a program of the first needs no reader of a later one.
    fn magic(&self) -> &'static [u8; 8] {
        match (self.has_later_forms(), self.private.is_some()) {
            (false, false) => PROGRAM_MAGIC,
            (false, true) => PRIVATE_MAGIC,
            (true, false) => LATER_MAGIC,
            (true, true) => LATER_PRIVATE_MAGIC,
        }
    }

    /// Reads what [`Program::to_bytes`] wrote, and nothing else. The program is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Checked<Program> {
        let mut input = Input { bytes };
        let magic = input.take(8)?;
        if ![PROGRAM_MAGIC, PRIVATE_MAGIC, LATER_MAGIC, LATER_PRIVATE_MAGIC].iter().any(|known| magic == *known) {
            return Err(fault("not a program of this version"));
        }
        let private = magic == PRIVATE_MAGIC || magic == LATER_PRIVATE_MAGIC;
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
        if magic != program.magic() {
            return Err(fault("another version has the program's forms"));
        }
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
mod tests;
