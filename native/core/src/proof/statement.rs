//! What a proof says: model digest, context, and one tensor for each port, clear or committed.

use crate::channel::Transcript;
use crate::parameters::Parameters;
use crate::program::{DType, Program, Tensor};
use crate::random::Seed;
use crate::reject::{Reject, Verdict};

const MAGIC: &[u8; 8] = b"NXEstmt1";
const TENSOR: &str = "nexus-edge v1 tensor";

/// One input or output of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementTensor {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub dims: Vec<u32>,
    /// The array, or its commitment.
    pub content: Content,
}

/// What a statement says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
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
    /// How many of the tensors are inputs; they come first.
    pub inputs: usize,
    /// Inputs, then outputs.
    pub tensors: Vec<StatementTensor>,
}

/// `derive("tensor", root || dtype || rank || dims || mode || parameter set || whether there is a scale || scale || zero point)`: one kind for inputs and
/// outputs, so that an output commitment is the input commitment of the next proof.
pub fn tensor_commitment(root: &[u8; 32], tensor: &Tensor, parameters: &Parameters) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key(TENSOR);
    h.update(root);
    h.update(&description(tensor));
    h.update(&[parameters.mode() as u8]);
    let set = parameters.to_bytes();
    h.update(&(set.len() as u32).to_le_bytes());
    h.update(&set);
    *h.finalize().as_bytes()
}

/// The seed of a tensor's commitment: a holder's seed bound to the description, so that one array under two descriptions, which has two
/// commitments and two budgets, has two roots.
pub(super) fn tensor_seed(seed: &Seed, tensor: &Tensor) -> Seed {
    seed.bound_to(&description(tensor), &[])
}

/// dtype, rank, dimensions, quantisation.
fn description(tensor: &Tensor) -> Vec<u8> {
    let mut out = vec![tensor.dtype as u8, tensor.dims.len() as u8];
    tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.push(u8::from(tensor.scale.is_some()));
    out.extend(tensor.scale.unwrap_or(0).to_le_bytes());
    out.extend(tensor.zero_point.to_le_bytes());
    out
}

impl StatementTensor {
    /// What a statement says of a port.
    pub fn new(tensor: &Tensor, content: Content) -> Self {
        StatementTensor { dtype: tensor.dtype, dims: tensor.dims.clone(), content }
    }
}

/// Strict reading of a byte string.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn malformed(why: &str) -> Reject {
        Reject::Malformed { what: "statement", why: why.into() }
    }

    fn take(&mut self, n: usize) -> Verdict<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| Self::malformed("too short"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Verdict<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("N bytes"))
    }

    fn u32(&mut self) -> Verdict<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}

impl Statement {
    /// Canonical bytes: magic, digest, context, number of inputs and of tensors, then each tensor as dtype, rank, dimensions, flag, length
    /// (8 bytes) and bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.digest);
        out.extend(self.context);
        out.extend((self.inputs as u32).to_le_bytes());
        out.extend((self.tensors.len() as u32).to_le_bytes());
        for t in &self.tensors {
            out.extend([t.dtype as u8, t.dims.len() as u8]);
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            let (flag, bytes): (u8, &[u8]) = match &t.content {
                Content::Clear(b) => (0, b),
                Content::Committed(c) => (1, c),
            };
            out.push(flag);
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        out
    }

    /// The only reading of the bytes: anything else is refused.
    pub fn from_bytes(bytes: &[u8]) -> Verdict<Statement> {
        let malformed = Bytes::malformed;
        let mut r = Bytes(bytes);
        if r.take(8)? != MAGIC {
            return Err(malformed("not a statement of this version"));
        }
        let (digest, context) = (r.array()?, r.array()?);
        let (inputs, count) = (r.u32()? as usize, r.u32()?);
        let mut tensors = Vec::new();
        for _ in 0..count {
            let dtype = match r.array()? {
                [0] => DType::Int8,
                [1] => DType::UInt8,
                _ => return Err(malformed("unknown element type")),
            };
            let [rank] = r.array()?;
            let dims = (0..rank).map(|_| r.u32()).collect::<Verdict<Vec<u32>>>()?;
            let [flag] = r.array()?;
            let length = usize::try_from(u64::from_le_bytes(r.array()?)).map_err(|_| malformed("too short"))?;
            let bytes = r.take(length)?;
            let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d as usize));
            let content = match flag {
                0 if size == Some(length) => Content::Clear(bytes.to_vec()),
                0 => return Err(malformed("the array does not have its shape's number of elements")),
                1 => Content::Committed(bytes.try_into().map_err(|_| malformed("a commitment has 32 bytes"))?),
                _ => return Err(malformed("unknown kind of tensor")),
            };
            tensors.push(StatementTensor { dtype, dims, content });
        }
        if inputs > tensors.len() {
            return Err(malformed("more inputs than tensors"));
        }
        if !r.0.is_empty() {
            return Err(malformed("bytes after the last tensor"));
        }
        Ok(Statement { digest, context, inputs, tensors })
    }

    /// Whether each tensor is committed, after checking number, types and shapes against the program.
    pub fn form(&self, program: &Program) -> Verdict<Vec<bool>> {
        let ports: Vec<_> = program.inputs.iter().chain(&program.outputs).collect();
        if ports.len() != self.tensors.len() || program.inputs.len() != self.inputs {
            let outputs = self.tensors.len().saturating_sub(self.inputs);
            let model = (program.inputs.len(), program.outputs.len());
            return Err(Reject::Statement(format!(
                "{} inputs and {outputs} outputs for a model with {} and {}",
                self.inputs, model.0, model.1
            )));
        }
        ports
            .into_iter()
            .zip(&self.tensors)
            .map(|(port, t)| {
                let tensor = &program.tensors[port.tensor as usize];
                if (t.dtype, &t.dims) != (tensor.dtype, &tensor.dims) {
                    return Err(Reject::Statement(format!(
                        "tensor {} is {:?} {:?}, the statement's {:?} {:?}",
                        tensor.name, tensor.dtype, tensor.dims, t.dtype, t.dims
                    )));
                }
                match &t.content {
                    Content::Committed(_) => Ok(true),
                    Content::Clear(b) if b.len() == tensor.size() => Ok(false),
                    Content::Clear(_) => Err(Reject::Statement(format!("tensor {} has another number of elements", tensor.name))),
                }
            })
            .collect()
    }

    /// Everything public, before the first challenge; oracles follow.
    pub(super) fn absorb(&self, transcript: &mut Transcript, program: &Program, parameters: &Parameters) {
        transcript.absorb("version", super::VERSION);
        transcript.absorb("parameter set", &parameters.to_bytes());
        transcript.absorb("mode", &[parameters.mode() as u8]);
        transcript.absorb("semantics", &[program.semantics as u8]);
        transcript.absorb("model", &self.digest);
        transcript.absorb("context", &self.context);
        for (port, t) in program.inputs.iter().chain(&program.outputs).zip(&self.tensors) {
            transcript.absorb("tensor", &description(&program.tensors[port.tensor as usize]));
            match &t.content {
                Content::Clear(b) => transcript.absorb("clear", b),
                Content::Committed(c) => transcript.absorb("committed", c),
            }
        }
    }
}
