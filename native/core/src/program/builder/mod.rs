//! Builds a program operator by operator; [`ProgramBuilder::finish`] finds the digital lines, chooses the tables and checks the result.

mod solve;

use super::check::Refused;
use super::check::contract::window as check_window;
use super::error::{Checked, Fault, ProgramError};
use super::quantize::{Addition, Multiplier};
use super::{
    ConstId, Constant, Contract, DType, Edge, Formula, Op, Piece, Port, Semantics, Table, TableId, Tensor, TensorId, Weights, Window,
    limits, private,
};

/// A program under construction.
pub struct ProgramBuilder {
    name: String,
    semantics: Semantics,
    tensors: Vec<Tensor>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    constants: Vec<Constant>,
    weights: Weights,
    tables: Vec<Table>,
    drafts: Vec<(String, Draft)>,
    private: Option<Bounds>,
}

/// Where values before the clamps of a private model lie: `log2 V`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// [`private::DEFAULT_LOG_BOUND`] for all layers with weights.
    Default,
    /// One for all layers with weights.
    All(u8),
    /// One for each layer with weights, in order.
    Each(Vec<u8>),
}

impl Bounds {
    /// For each layer with weights.
    fn of(self, drafts: &[(String, Draft)]) -> Checked<Vec<u8>> {
        let weighted = |(_, draft): &&(String, Draft)| matches!(draft, Draft::Rescaled { contract, .. } if contract.has_weights());
        let layers = drafts.iter().filter(weighted).count();
        match self {
            Bounds::Default => Ok(vec![private::DEFAULT_LOG_BOUND; layers]),
            Bounds::All(bits) => Ok(vec![bits; layers]),
            Bounds::Each(all) if all.len() == layers => Ok(all),
            Bounds::Each(all) => Err(fault("private form", Fault::Limit, format!("{} bounds for {layers} layers with weights", all.len()))),
        }
    }
}

/// An operator whose rules are not known yet.
enum Draft {
    Ready(Op),
    Rescaled { contract: Contract, out: TensorId, formula: Formula, clamp: (i32, i32) },
    Add { inputs: (TensorId, TensorId), out: TensorId, addition: Addition, clamp: (i32, i32) },
}

/// A convolution to add.
pub struct Convolution<'a> {
    /// Input.
    pub x: TensorId,
    /// Output.
    pub out: TensorId,
    /// Index map.
    pub window: Window,
    /// Dimensions of `weights`: `[O, KH, KW, C]`, or `[KH, KW, C m]` for depthwise.
    pub dims: &'a [u32],
    /// Weights, zero point already subtracted.
    pub weights: Vec<i32>,
    /// Biases, one for each output channel.
    pub bias: Option<Vec<i32>>,
    /// Input zero point.
    pub x_zero: i32,
    /// One for each output channel.
    pub multipliers: Vec<Multiplier>,
    /// Clamp of the output.
    pub clamp: (i32, i32),
    /// Channel by channel.
    pub depthwise: bool,
    /// One rounding instead of two.
    pub single_rounding: bool,
}

fn fault(label: &str, fault: Fault, detail: impl Into<String>) -> ProgramError {
    ProgramError::new(fault, label, detail)
}

impl ProgramBuilder {
    /// An empty program.
    pub fn new(name: impl Into<String>, semantics: Semantics) -> Self {
        ProgramBuilder {
            name: name.into(),
            semantics,
            tensors: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: Vec::new(),
            weights: Weights::default(),
            tables: Vec::new(),
            drafts: Vec::new(),
            private: None,
        }
    }

    /// Makes the program one of private weights: nothing in it will depend on weights or biases.
    pub fn private(&mut self, bounds: Bounds) {
        self.private = Some(bounds);
    }

    /// Declares a tensor.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        dims: &[u32],
        scale: Option<f32>,
        zero_point: i32,
    ) -> Checked<TensorId> {
        let name = name.into();
        if dims.is_empty() || dims.len() > limits::RANK || dims.contains(&0) || self.tensors.len() >= limits::ITEMS {
            return Err(fault(&format!("tensor {name:?}"), Fault::Shape, format!("bad dimensions {dims:?}, or too many tensors")));
        }
        self.tensors.push(Tensor { name, dtype, dims: dims.to_vec(), scale: scale.map(f32::to_bits), zero_point });
        Ok(self.tensors.len() as TensorId - 1)
    }

    /// Declares a model input.
    pub fn input(&mut self, tensor: TensorId, edge: Edge) -> Checked<()> {
        self.known("input", tensor)?;
        self.inputs.push(Port { tensor, edge });
        Ok(())
    }

    /// Declares a model output.
    pub fn output(&mut self, tensor: TensorId, edge: Edge) -> Checked<()> {
        self.known("output", tensor)?;
        self.outputs.push(Port { tensor, edge });
        Ok(())
    }

    fn known(&self, label: &str, id: TensorId) -> Checked<&Tensor> {
        self.tensors.get(id as usize).ok_or_else(|| fault(label, Fault::Reference, format!("no tensor {id}")))
    }

    fn windowed(&self, label: &str, x: TensorId, out: TensorId, window: &Window) -> Checked<(&Tensor, &Tensor)> {
        let (x, out) = (self.known(label, x)?, self.known(label, out)?);
        check_window(window, x).map_err(|Refused(kind, detail)| fault(label, kind, detail))?;
        if window.outputs() != out.positions() {
            return Err(fault(
                label,
                Fault::Shape,
                format!("window has {} outputs, tensor {:?} {}", window.outputs(), out.name, out.positions()),
            ));
        }
        Ok((x, out))
    }

    fn constant(&mut self, dims: &[u32], values: Vec<i32>, range: (i32, i32)) -> ConstId {
        self.constants.push(Constant { dims: dims.to_vec(), range });
        self.weights.values.push(values);
        self.constants.len() as ConstId - 1
    }

    fn draft(&mut self, label: &str, draft: Draft) {
        self.drafts.push((label.into(), draft));
    }

    /// A convolution, depthwise convolution or fully connected layer with its requantisation.
    pub fn conv(&mut self, label: &str, c: Convolution) -> Checked<()> {
        let (x, out) = self.windowed(label, c.x, c.out, &c.window)?;
        let (depth, channels, dtype) = (x.channels() as u32, out.channels() as u32, x.dtype);
        let (kh, kw) = c.window.kernel;
        let dims = if c.depthwise { vec![kh, kw, channels] } else { vec![channels, kh, kw, depth] };
        if c.dims != dims || dims.iter().map(|&d| u64::from(d)).product::<u64>() != c.weights.len() as u64 {
            return Err(fault(label, Fault::Shape, format!("weights have shape {:?}, not {dims:?}", c.dims)));
        }
        if c.bias.as_ref().is_some_and(|b| b.len() != channels as usize) || c.multipliers.len() != channels as usize {
            return Err(fault(label, Fault::Shape, format!("needs {channels} multipliers, and biases if any")));
        }
        let range = if dtype == DType::Int8 { (-128, 127) } else { (-255, 255) };
        let weights = self.constant(&dims, c.weights, range);
        let bias = c.bias.map(|b| self.constant(&[channels], b, (i32::MIN, i32::MAX)));
        let (x, window, x_zero) = (c.x, c.window, c.x_zero);
        let contract = if c.depthwise {
            Contract::Depthwise { x, window, weights, bias, x_zero }
        } else {
            Contract::Conv { x, window, weights, bias, x_zero }
        };
        let formula = if c.single_rounding { Formula::SingleRounding(c.multipliers) } else { Formula::DoubleRounding(c.multipliers) };
        self.draft(label, Draft::Rescaled { contract, out: c.out, formula, clamp: c.clamp });
        Ok(())
    }

    /// Sum over equal windows, requantised; `1/N` is part of the multiplier.
    pub fn mean(
        &mut self,
        label: &str,
        x: TensorId,
        out: TensorId,
        window: Window,
        x_zero: i32,
        multiplier: Multiplier,
        clamp: (i32, i32),
    ) -> Checked<()> {
        let channels = self.windowed(label, x, out, &window)?.1.channels();
        let formula = Formula::DoubleRounding(vec![multiplier; channels]);
        self.draft(label, Draft::Rescaled { contract: Contract::Sum { x, window, x_zero }, out, formula, clamp });
        Ok(())
    }

    /// Average of the valid cells of each window.
    pub fn average_pool(&mut self, label: &str, x: TensorId, out: TensorId, window: Window, clamp: (i32, i32)) -> Checked<()> {
        self.windowed(label, x, out, &window)?;
        self.draft(label, Draft::Rescaled { contract: Contract::Sum { x, window, x_zero: 0 }, out, formula: Formula::AveragePool, clamp });
        Ok(())
    }

    /// Largest valid cell of each window.
    pub fn max_pool(&mut self, label: &str, x: TensorId, out: TensorId, window: Window, clamp: (i32, i32)) -> Checked<()> {
        self.windowed(label, x, out, &window)?;
        self.draft(label, Draft::Ready(Op::MaxPool { x, out, window, clamp }));
        Ok(())
    }

    /// ADD or SUB by the multipliers of the first input, the second and the output: a plane or a table, whichever is exact and cheaper.
    pub fn add(
        &mut self,
        label: &str,
        inputs: (TensorId, TensorId),
        out: TensorId,
        multipliers: (Multiplier, Multiplier, Multiplier),
        clamp: (i32, i32),
        subtract: bool,
    ) -> Checked<()> {
        let (x1, x2, y) = (self.known(label, inputs.0)?, self.known(label, inputs.1)?, self.known(label, out)?);
        if x1.dims != y.dims || x2.dims != y.dims {
            return Err(fault(label, Fault::Shape, format!("shapes {:?}, {:?} and {:?} differ", x1.dims, x2.dims, y.dims)));
        }
        let (first, second, output) = multipliers;
        let addition = Addition { first, second, output, zeros: (x1.zero_point, x2.zero_point), subtract };
        if !addition.is_valid() {
            return Err(fault(label, Fault::Quantization, "a multiplier is out of range"));
        }
        self.clamp(label, y, clamp)?;
        self.draft(label, Draft::Add { inputs, out, addition, clamp });
        Ok(())
    }

    fn clamp(&self, label: &str, out: &Tensor, (low, high): (i32, i32)) -> Checked<()> {
        let dtype = out.dtype.range();
        if dtype.0 <= low && low <= high && high <= dtype.1 {
            return Ok(());
        }
        Err(fault(label, Fault::Quantization, format!("clamp [{low}, {high}] is not inside the dtype")))
    }

    /// `out = T[x]` or `T[x1, x2]`.
    pub fn lookup(&mut self, label: &str, inputs: Vec<TensorId>, out: TensorId, values: Vec<i16>) -> Checked<()> {
        let table = intern(&mut self.tables, values);
        self.known(label, out)?;
        self.draft(label, Draft::Ready(Op::Lookup { inputs, out, table }));
        Ok(())
    }

    /// Softmax over the channels.
    pub fn softmax(&mut self, label: &str, x: TensorId, out: TensorId, multiplier: i32, shift: u8) {
        self.draft(label, Draft::Ready(Op::Softmax { x, out, multiplier, shift }));
    }

    /// Slices, concatenations, padding, broadcasts.
    pub fn view(&mut self, label: &str, out: TensorId, pieces: Vec<Piece>, fill: i32) {
        self.draft(label, Draft::Ready(Op::View { out, pieces, fill }));
    }

    /// Reshape and transpose.
    pub fn permute(&mut self, label: &str, x: TensorId, out: TensorId, dims: Vec<u32>, perm: Vec<u8>) {
        self.draft(label, Draft::Ready(Op::Permute { x, out, dims, perm }));
    }
}

/// The id of a table with these values, a new one if there is none.
fn intern(tables: &mut Vec<Table>, values: Vec<i16>) -> TableId {
    let found = tables.iter().position(|t| t.values == values);
    found.unwrap_or_else(|| {
        tables.push(Table { values });
        tables.len() - 1
    }) as TableId
}
