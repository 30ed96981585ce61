//! What a proof says: model digest, context, and one tensor for each port, clear or committed.

use crate::channel::Transcript;
use crate::parameters::Parameters;
use crate::program::{Program, Tensor};
use crate::reject::{Reject, Verdict};

use super::MODE_PLAIN;

const MAGIC: &[u8; 8] = b"NXEstmt1";
const TENSOR: &str = "nexus-edge v1 tensor";

/// One input or output of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementTensor {
    /// The array itself: one byte an element, row-major.
    Clear(Vec<u8>),
    /// Its tensor commitment.
    Committed([u8; 32]),
}

/// The public statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Digest of the model.
    pub digest: [u8; 32],
    /// Means nothing here; the market puts the lease there.
    pub context: [u8; 32],
    /// Inputs, then outputs.
    pub tensors: Vec<StatementTensor>,
}

/// `derive("tensor", root || dtype || rank || dims || mode || parameter set || scale and zero point or none)`: one kind for inputs and
/// outputs, so that an output commitment is the input commitment of the next proof.
pub fn tensor_commitment(root: &[u8; 32], tensor: &Tensor, parameters: &Parameters) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key(TENSOR);
    h.update(root);
    h.update(&description(tensor));
    h.update(&[MODE_PLAIN]);
    let set = parameters.to_bytes();
    h.update(&(set.len() as u32).to_le_bytes());
    h.update(&set);
    *h.finalize().as_bytes()
}

/// dtype, rank, dimensions, quantisation.
fn description(tensor: &Tensor) -> Vec<u8> {
    let mut out = vec![tensor.dtype as u8, tensor.dims.len() as u8];
    tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    match tensor.scale {
        Some(bits) => {
            out.push(1);
            out.extend(bits.to_le_bytes());
            out.extend(tensor.zero_point.to_le_bytes());
        }
        None => out.push(0),
    }
    out
}

impl Statement {
    /// Canonical bytes: magic, digest, context, number of tensors, then each as flag, length (8 bytes) and bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.digest);
        out.extend(self.context);
        out.extend((self.tensors.len() as u32).to_le_bytes());
        for t in &self.tensors {
            let (flag, bytes): (u8, &[u8]) = match t {
                StatementTensor::Clear(b) => (0, b),
                StatementTensor::Committed(c) => (1, c),
            };
            out.push(flag);
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        out
    }

    /// The only reading of the bytes: anything else is refused.
    pub fn from_bytes(bytes: &[u8]) -> Verdict<Statement> {
        let malformed = |why: &str| Reject::Malformed { what: "statement", why: why.into() };
        let mut rest = bytes;
        let mut take = |n: usize| -> Verdict<&[u8]> {
            let (head, tail) = rest.split_at_checked(n).ok_or_else(|| malformed("too short"))?;
            rest = tail;
            Ok(head)
        };
        if take(8)? != MAGIC {
            return Err(malformed("not a statement of this version"));
        }
        let digest = take(32)?.try_into().expect("32 bytes");
        let context = take(32)?.try_into().expect("32 bytes");
        let count = u32::from_le_bytes(take(4)?.try_into().expect("4 bytes"));
        let mut tensors = Vec::new();
        for _ in 0..count {
            let flag = take(1)?[0];
            let length = u64::from_le_bytes(take(8)?.try_into().expect("8 bytes"));
            let bytes = take(usize::try_from(length).map_err(|_| malformed("too short"))?)?;
            tensors.push(match flag {
                0 => StatementTensor::Clear(bytes.to_vec()),
                1 => StatementTensor::Committed(bytes.try_into().map_err(|_| malformed("a commitment has 32 bytes"))?),
                _ => return Err(malformed("unknown kind of tensor")),
            });
        }
        if !rest.is_empty() {
            return Err(malformed("bytes after the last tensor"));
        }
        Ok(Statement { digest, context, tensors })
    }

    /// Whether each tensor is committed, after checking number and lengths against the program.
    pub fn form(&self, program: &Program) -> Verdict<Vec<bool>> {
        let ports: Vec<_> = program.inputs.iter().chain(&program.outputs).collect();
        if ports.len() != self.tensors.len() {
            return Err(Reject::Statement(format!("the model has {} inputs and outputs, the statement {}", ports.len(), self.tensors.len())));
        }
        ports
            .into_iter()
            .zip(&self.tensors)
            .map(|(port, t)| {
                let tensor = &program.tensors[port.tensor as usize];
                match t {
                    StatementTensor::Committed(_) => Ok(true),
                    StatementTensor::Clear(b) if b.len() == tensor.size() => Ok(false),
                    StatementTensor::Clear(b) => {
                        Err(Reject::Statement(format!("tensor {} has {} elements, the statement {}", tensor.name, tensor.size(), b.len())))
                    }
                }
            })
            .collect()
    }

    /// Everything public, before the first challenge; oracles follow.
    pub(super) fn absorb(&self, transcript: &mut Transcript, program: &Program, parameters: &Parameters) {
        transcript.absorb("version", super::VERSION);
        transcript.absorb("parameter set", &parameters.to_bytes());
        transcript.absorb("mode", &[MODE_PLAIN]);
        transcript.absorb("semantics", &[program.semantics as u8]);
        transcript.absorb("model", &self.digest);
        transcript.absorb("context", &self.context);
        for (port, t) in program.inputs.iter().chain(&program.outputs).zip(&self.tensors) {
            transcript.absorb("tensor", &description(&program.tensors[port.tensor as usize]));
            match t {
                StatementTensor::Clear(b) => transcript.absorb("clear", b),
                StatementTensor::Committed(c) => transcript.absorb("committed", c),
            }
        }
    }
}
