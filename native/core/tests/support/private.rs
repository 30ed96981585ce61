//! A program once more, operator by operator, with its weights private: everything that is said of public weights can be said of private ones.

use nexus_edge_core::program::builder::{Bounds, Convolution, ProgramBuilder};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::error::{Fault, ProgramError};
use nexus_edge_core::program::quantize::{Addition, Multiplier};
use nexus_edge_core::program::{Contract, Formula, Op, Program, Rescale, Weights, Window, limits};

use super::{multiplier, window};

/// The same operators on the same tensors with the same weights.
fn again(program: &Program, weights: &Weights) -> Result<ProgramBuilder, ProgramError> {
    let mut b = ProgramBuilder::new(program.name.clone(), program.semantics);
    for t in &program.tensors {
        b.tensor(t.name.clone(), t.dtype, &t.dims, t.scale.map(f32::from_bits), t.zero_point)?;
    }
    program.inputs.iter().try_for_each(|p| b.input(p.tensor, p.edge))?;
    let mut contract = None;
    for op in &program.ops {
        match op {
            Op::Contract { contract: c, .. } => contract = Some(c),
            Op::Rescale(r) => rescaled(&mut b, program, weights, contract.take().expect("a rescale follows its contraction"), r)?,
            Op::Lookup { inputs, out, table } => {
                b.lookup("lookup", inputs.clone(), *out, program.tables[*table as usize].values.clone())?
            }
            Op::Softmax { x, out, multiplier, shift } => b.softmax("softmax", *x, *out, *multiplier, *shift),
            Op::MaxPool { x, out, window, clamp } => b.max_pool("max", *x, *out, *window, *clamp)?,
            Op::View { out, pieces, fill } => b.view("view", *out, pieces.clone(), *fill),
            Op::Permute { x, out, dims, perm } => b.permute("permute", *x, *out, dims.clone(), perm.clone()),
        }
    }
    program.outputs.iter().try_for_each(|p| b.output(p.tensor, p.edge))?;
    Ok(b)
}

fn rescaled(b: &mut ProgramBuilder, program: &Program, weights: &Weights, contract: &Contract, r: &Rescale) -> Result<(), ProgramError> {
    let (multipliers, single_rounding): (&[Multiplier], bool) = match &r.formula {
        Formula::DoubleRounding(m) => (m, false),
        Formula::SingleRounding(m) => (m, true),
        Formula::AveragePool | Formula::Add { .. } => (&[], false),
    };
    let (x, window, constant, bias, x_zero, depthwise) = match contract {
        Contract::Conv { x, window, weights, bias, x_zero } => (*x, *window, *weights, *bias, *x_zero, false),
        Contract::Depthwise { x, window, weights, bias, x_zero } => (*x, *window, *weights, *bias, *x_zero, true),
        Contract::Sum { x, window, x_zero } => {
            return match multipliers {
                [] => b.average_pool("average", *x, r.out, *window, r.clamp),
                [first, ..] => b.mean("mean", *x, r.out, *window, *x_zero, *first, r.clamp),
            };
        }
        Contract::Mix { terms } => {
            let a = Addition::of(&r.formula).expect("a sum of two tensors");
            let [(_, x1), (_, x2)] = terms[..] else { panic!("a sum of two tensors") };
            return b.add("add", (x1, x2), r.out, (a.first, a.second, a.output), r.clamp, a.subtract);
        }
    };
    let values = |id: u32| weights.values[id as usize].clone();
    let c = Convolution {
        x,
        out: r.out,
        window,
        dims: &program.constants[constant as usize].dims,
        weights: values(constant),
        bias: bias.map(values),
        x_zero,
        multipliers: multipliers.to_vec(),
        clamp: r.clamp,
        depthwise,
        single_rounding,
    };
    b.conv("conv", c)
}

/// A layer with weights beside a program that has none: what it computes from the first input is read by nothing.
fn with_weights(b: &mut ProgramBuilder, program: &Program) -> Result<(), ProgramError> {
    let x = program.inputs[0].tensor;
    let read = &program.tensors[x as usize];
    let (positions, channels) = (read.positions() as u32, read.channels() as u32);
    let out = b.tensor("beside", read.dtype, &[1, positions, 1], Some(0.1), 0)?;
    let line: Window = window((positions, 1), (positions, 1), (1, 1), (1, 1), (0, 0));
    let c = Convolution {
        x,
        out,
        window: line,
        dims: &[1, 1, 1, channels],
        weights: (0..channels as i32).map(|i| 5 - i).collect(),
        bias: Some(vec![17]),
        x_zero: read.zero_point,
        multipliers: vec![multiplier(0.25)],
        clamp: read.dtype.range(),
        depthwise: false,
        single_rounding: false,
    };
    b.conv("beside", c)
}

/// The private program of the same operators and weights, with the least bound that they keep.
pub fn private_form(program: &CheckedProgram, weights: &Weights) -> Result<(CheckedProgram, Weights), ProgramError> {
    let build = |bits: u8| {
        let mut b = again(program, weights)?;
        if weights.values.is_empty() {
            with_weights(&mut b, program)?;
        }
        b.private(Bounds::All(bits));
        b.finish(Some(program.range_bits))
    };
    let (least, most) = limits::LOG_BOUND;
    (least..most).map(build).find(|made| !matches!(made, Err(e) if e.fault == Fault::Weights)).unwrap_or_else(|| build(most))
}
