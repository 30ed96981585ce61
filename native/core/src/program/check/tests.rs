use super::*;
use crate::program::builder::{Convolution, ProgramBuilder};
use crate::program::{Edge, Formula, Piece, Rescale, Rule, Semantics, Window};

const SAME: Window = Window { batch: 1, input: (4, 4), output: (4, 4), kernel: (3, 3), stride: (1, 1), pad: (1, 1), dilation: (1, 1) };

/// One of every operator. Operators: 0-1 conv, 2-3 depthwise, 4-5 add, 6-7 average pool, 8 max pool, 9-10 mean, 11 view, 12 permute,
/// 13 lookup, 14 softmax.
fn base() -> (Program, Weights) {
    let mut b = ProgramBuilder::new("base", Semantics::Tflm);
    let mut tensor = |name: &str, dims: &[u32], scale: f32, zero: i32| b.tensor(name, DType::Int8, dims, Some(scale), zero).unwrap();
    let map = [1, 4, 4, 4];
    let x = tensor("x", &[1, 4, 4, 2], 0.5, 3);
    let [c, d, s, a, m] = [("c", -7), ("d", 5), ("s", 0), ("a", 0), ("m", 0)].map(|(name, zero)| tensor(name, &map, 0.25, zero));
    let mean = tensor("mean", &[1, 4], 0.5, 1);
    let wide = tensor("wide", &[1, 6], 0.5, 1);
    let turned = tensor("turned", &[6, 1], 0.5, 1);
    let looked = tensor("looked", &[6, 1], 0.125, -4);
    let soft = tensor("soft", &[1, 6], 1.0 / 256.0, -128);
    b.input(x, Edge::Integer).unwrap();
    let convolution = |x, out, dims: &'static [u32], zero, depthwise| Convolution {
        x,
        out,
        window: SAME,
        dims,
        weights: (0..dims.iter().product::<u32>() as i32).map(|i| i * 37 % 255 - 127).collect(),
        bias: Some(vec![100, -50, 7, 0]),
        x_zero: zero,
        multipliers: vec![(1 << 30, 5), (1500000000, 4), (2000000000, 6), (0, 0)],
        clamp: (-128, 127),
        depthwise,
        single_rounding: false,
    };
    b.conv("conv", convolution(x, c, &[4, 3, 3, 2], 3, false)).unwrap();
    b.conv("depthwise", convolution(c, d, &[3, 3, 4], -7, true)).unwrap();
    b.add("add", (c, d), s, ((1 << 30, 0), (1 << 30, 0), (1 << 30, 19)), (-128, 127), false).unwrap();
    b.average_pool("average", s, a, SAME, (-128, 127)).unwrap();
    b.max_pool("max", a, m, SAME, (-128, 100)).unwrap();
    let whole = Window { output: (1, 1), kernel: (4, 4), pad: (0, 0), ..SAME };
    b.mean("mean", m, mean, whole, 0, (1 << 29, 3), (-128, 127)).unwrap();
    b.view("view", wide, vec![Piece { source: mean, dims: vec![(0, 1, 0, 1), (1, 4, 3, -1)] }], 9);
    b.permute("permute", wide, turned, vec![1, 6], vec![1, 0]);
    b.lookup("lookup", vec![turned], looked, (-128..128).collect()).unwrap();
    b.softmax("softmax", wide, soft, 1 << 30, 20);
    b.output(looked, Edge::Integer).unwrap();
    b.output(soft, Edge::Float).unwrap();
    let (program, weights) = b.finish(Some(9)).unwrap();
    (program.program, weights)
}

fn rescale(p: &mut Program, op: usize) -> &mut Rescale {
    let Op::Rescale(r) = &mut p.ops[op] else { panic!("operator {op} is no rescale") };
    r
}

fn line(p: &mut Program, op: usize) -> &mut crate::program::Line {
    let found = rescale(p, op).rules.iter_mut().find_map(|r| if let Rule::Line { line, .. } = r { Some(line) } else { None });
    found.expect("a line")
}

fn piece(p: &mut Program) -> &mut Piece {
    let Op::View { pieces, .. } = &mut p.ops[11] else { panic!("no view") };
    &mut pieces[0]
}

fn window(p: &mut Program, op: usize) -> &mut Window {
    match &mut p.ops[op] {
        Op::Contract {
            contract: Contract::Conv { window, .. } | Contract::Depthwise { window, .. } | Contract::Sum { window, .. },
            ..
        }
        | Op::MaxPool { window, .. } => window,
        other => panic!("{other:?} has no window"),
    }
}

type Change = fn(&mut Program);

/// Every line is one fault; each must be refused for its own reason.
const CHANGES: &[(&str, Fault, Change)] = &[
    ("long name", Fault::Name, |p| p.name = "n".repeat(257)),
    ("long tensor name", Fault::Name, |p| p.tensors[1].name = "n".repeat(257)),
    ("equal names", Fault::Name, |p| p.tensors[1].name = "x".into()),
    ("no inputs", Fault::Limit, |p| p.inputs.clear()),
    ("no outputs", Fault::Limit, |p| p.outputs.clear()),
    ("narrow range table", Fault::Limit, |p| p.range_bits = 3),
    ("wide range table", Fault::Limit, |p| p.range_bits = 21),
    ("huge clamp table", Fault::Limit, |p| p.clamp_rows.1 = 40),
    ("shifted clamp table", Fault::Table, |p| p.clamp_rows.0 += 1 << p.clamp_rows.1),
    ("short clamp table", Fault::Table, |p| p.clamp_rows.1 -= 1),
    ("clamp table without softmax", Fault::Table, |p| p.clamp_rows.0 = -127),
    ("sign table that nobody needs or a short one", Fault::Table, |p| p.sign_rows = (5, 1)),
    ("empty dimension", Fault::Shape, |p| p.tensors[0].dims[1] = 0),
    ("no dimensions", Fault::Shape, |p| p.tensors[0].dims.clear()),
    ("many dimensions", Fault::Shape, |p| p.tensors[0].dims = vec![1; 7]),
    ("huge tensor", Fault::Shape, |p| p.tensors[0].dims = vec![1 << 20; 3]),
    ("many cells", Fault::Limit, |p| p.accumulators[0].positions = u32::MAX),
    ("empty accumulator", Fault::Shape, |p| p.accumulators[0].positions = 0),
    ("zero point outside the dtype", Fault::Quantization, |p| p.tensors[0].zero_point = 128),
    ("scale 0", Fault::Quantization, |p| p.tensors[0].scale = Some(0)),
    ("scale infinite", Fault::Quantization, |p| p.tensors[0].scale = Some(f32::INFINITY.to_bits())),
    ("negative scale", Fault::Quantization, |p| p.tensors[0].scale = Some((-1f32).to_bits())),
    ("float port without scale", Fault::Quantization, |p| {
        p.tensors[0].scale = None;
        p.inputs[0].edge = Edge::Float;
    }),
    ("input twice", Fault::Reference, |p| p.inputs.push(p.inputs[0].clone())),
    ("output twice", Fault::Reference, |p| p.outputs.push(p.outputs[0].clone())),
    ("input of no tensor", Fault::Reference, |p| p.inputs[0].tensor = 99),
    ("output of no tensor", Fault::Reference, |p| p.outputs[0].tensor = 99),
    ("undefined tensor", Fault::Reference, |p| p.tensors.push(Tensor { name: "new".into(), ..p.tensors[0].clone() })),
    ("unused table", Fault::Reference, |p| p.tables.push(p.tables[0].clone())),
    ("unused accumulator", Fault::Reference, |p| p.accumulators.push(p.accumulators[0])),
    ("input defined by an operator", Fault::Reference, |p| rescale(p, 1).out = 0),
    ("use before definition", Fault::Reference, |p| p.ops.swap(0, 1)),
    ("operators out of order", Fault::Reference, |p| p.ops.swap(12, 13)),
    ("rescaled twice", Fault::Reference, |p| p.ops.insert(2, p.ops[1].clone())),
    ("accumulated twice", Fault::Reference, |p| p.ops.insert(1, p.ops[0].clone())),
    ("never rescaled", Fault::Reference, |p| {
        let again = Op::Contract { acc: p.accumulators.len() as u32, contract: Contract::Sum { x: 0, window: SAME, x_zero: 0 } };
        p.accumulators.push(crate::program::Accumulator { positions: 16, channels: 2 });
        p.ops.push(again);
    }),
    ("another constant", Fault::Shape, |p| p.constants[0].dims.swap(0, 3)),
    ("a constant of two operators", Fault::Reference, |p| {
        let Op::Contract { contract: Contract::Depthwise { bias, .. }, .. } = &mut p.ops[2] else { panic!("no depthwise") };
        *bias = Some(1);
    }),
    ("wide weights", Fault::Weights, |p| p.constants[0].range.0 = -256),
    ("empty range", Fault::Weights, |p| p.constants[0].range = (1, 0)),
    ("window over another input", Fault::Shape, |p| window(p, 0).input.0 = 5),
    ("window of no output", Fault::Shape, |p| window(p, 0).output.0 = 0),
    ("stride 0", Fault::Shape, |p| window(p, 2).stride.1 = 0),
    ("dilation 0", Fault::Shape, |p| window(p, 2).dilation.1 = 0),
    ("padding of a whole window", Fault::Shape, |p| window(p, 6).pad.1 = 3),
    ("window beyond the input", Fault::Shape, |p| window(p, 8).stride.0 = 2),
    ("another input zero point", Fault::Quantization, |p| p.tensors[0].zero_point = 4),
    ("mean without its zero point", Fault::Quantization, |p| p.tensors[5].zero_point = 2),
    ("output zero point", Fault::Quantization, |p| rescale(p, 1).zero += 1),
    ("average with a zero point", Fault::Quantization, |p| rescale(p, 7).zero = 1),
    ("average between scales", Fault::Quantization, |p| p.tensors[4].scale = p.tensors[0].scale),
    ("max pool between zero points", Fault::Quantization, |p| p.tensors[5].zero_point = 1),
    ("clamp outside the dtype", Fault::Quantization, |p| rescale(p, 1).clamp.1 = 128),
    ("empty clamp", Fault::Quantization, |p| rescale(p, 1).clamp = (5, 4)),
    ("another clamp", Fault::Line, |p| {
        rescale(p, 1).clamp = (-128, -127);
    }),
    ("rules by position", Fault::Unsupported, |p| rescale(p, 1).by_position = true),
    ("rules by channel of ragged windows", Fault::Shape, |p| rescale(p, 7).by_position = false),
    ("no batch", Fault::Shape, |p| window(p, 0).batch = 0),
    ("a batch of two over the cells of one", Fault::Shape, |p| window(p, 0).batch = 2),
    ("a batch without end", Fault::Shape, |p| window(p, 8).batch = u32::MAX),
    ("two images in one", Fault::Shape, |p| *window(p, 0) = Window { batch: 2, input: (2, 4), ..SAME }),
    ("a window with little at either end and much between", Fault::Limit, |p| {
        let end = 1 << 24;
        *window(p, 0) =
            Window { input: (1, end), output: (end, 1), kernel: (1 << 9, 1), dilation: (1 << 16, 1), pad: (end - 1, 0), ..SAME };
    }),
    ("a rule less", Fault::Shape, |p| {
        rescale(p, 1).rules.pop();
    }),
    ("a multiplier less", Fault::Shape, |p| {
        let Formula::DoubleRounding(m) = &mut rescale(p, 1).formula else { panic!("formula") };
        m.pop();
    }),
    ("a small multiplier", Fault::Quantization, |p| rescale(p, 1).formula = Formula::DoubleRounding(vec![((1 << 30) - 1, 5); 4])),
    ("a large exponent", Fault::Quantization, |p| rescale(p, 1).formula = Formula::DoubleRounding(vec![(1 << 30, 32); 4])),
    ("another exponent", Fault::Line, |p| rescale(p, 1).formula = Formula::DoubleRounding(vec![(1 << 30, 7); 4])),
    ("a shift that overflows", Fault::Wrap, |p| rescale(p, 1).formula = Formula::DoubleRounding(vec![(1 << 30, -30); 4])),
    ("another formula", Fault::Unsupported, |p| {
        rescale(p, 1).formula = Formula::AveragePool;
        rescale(p, 1).zero = 0;
    }),
    ("single rounding of a mean", Fault::Unsupported, |p| rescale(p, 10).formula = Formula::SingleRounding(vec![(1 << 30, 3); 4])),
    ("slope", Fault::Line, |p| line(p, 1).a += 1),
    ("offset above", Fault::Line, |p| line(p, 1).b_pos += 1 << 20),
    ("offset below", Fault::Line, |p| line(p, 1).b_neg -= 1 << 20),
    ("denominator", Fault::Line, |p| line(p, 3).d *= 2),
    ("a negative line", Fault::Line, |p| line(p, 3).a *= -1),
    ("average line", Fault::Line, |p| rescale(p, 7).rules.iter_mut().for_each(|r| shift_plane(r, 1 << 9))),
    ("average with two offsets", Fault::Unsupported, |p| line(p, 7).b_pos += 1),
    ("mean line", Fault::Line, |p| line(p, 10).d += 1 << 10),
    ("plane offset", Fault::Line, |p| rescale(p, 5).rules.iter_mut().for_each(|r| shift_plane(r, 1 << 9))),
    ("planes that differ", Fault::Line, |p| line(p, 5).b_pos += 1),
    ("plane with two offsets", Fault::Line, |p| rescale(p, 5).rules.iter_mut().for_each(split_plane)),
    ("plane coefficient", Fault::Line, |p| {
        let Op::Contract { contract: Contract::Mix { terms }, .. } = &mut p.ops[4] else { panic!("no mix") };
        terms[0].0 += 1 << 5;
    }),
    ("a term less", Fault::Unsupported, |p| {
        let Op::Contract { contract: Contract::Mix { terms }, .. } = &mut p.ops[4] else { panic!("no mix") };
        terms.pop();
    }),
    ("no terms", Fault::Unsupported, |p| p.ops[4] = Op::Contract { acc: 2, contract: Contract::Mix { terms: Vec::new() } }),
    ("constant instead of a line", Fault::Line, |p| rescale(p, 1).rules[0] = Rule::Constant(0)),
    ("another constant channel", Fault::Line, |p| rescale(p, 1).rules[3] = Rule::Constant(0)),
    ("line instead of a constant", Fault::Line, |p| rescale(p, 1).rules[3] = rescale(p, 1).rules[0]),
    ("limbs that do not fit", Fault::Wrap, |p| p.range_bits = 4),
    ("fill outside the dtype", Fault::Table, |p| p.ops[11] = Op::View { out: 7, pieces: Vec::new(), fill: 128 }),
    ("piece beyond its source", Fault::Shape, |p| piece(p).dims[1] = (1, 4, 2, -1)),
    ("piece beyond the output", Fault::Shape, |p| piece(p).dims[1].0 = 3),
    ("empty piece", Fault::Shape, |p| piece(p).dims[1].1 = 0),
    ("piece of another rank", Fault::Shape, |p| piece(p).dims.truncate(1)),
    ("piece of no tensor", Fault::Reference, |p| piece(p).source = 77),
    ("overlapping pieces", Fault::Shape, |p| {
        let again = Piece { dims: vec![(0, 1, 0, 1), (4, 1, 0, 1)], ..piece(p).clone() };
        let Op::View { pieces, .. } = &mut p.ops[11] else { panic!("no view") };
        pieces.push(again);
    }),
    ("view between zero points", Fault::Quantization, |p| p.tensors[7].zero_point = 2),
    ("no permutation", Fault::Shape, |p| p.ops[12] = Op::Permute { x: 7, out: 8, dims: vec![1, 6], perm: vec![1, 1] }),
    ("permutation of another size", Fault::Shape, |p| p.ops[12] = Op::Permute { x: 7, out: 8, dims: vec![1, 7], perm: vec![1, 0] }),
    ("short table", Fault::Table, |p| {
        p.tables[0].values.pop();
    }),
    ("table value outside the dtype", Fault::Table, |p| p.tables[0].values[3] = 128),
    ("lookup of another shape", Fault::Shape, |p| p.ops[13] = Op::Lookup { inputs: vec![7], out: 9, table: 0 }),
    ("lookup of two with one table", Fault::Table, |p| p.ops[13] = Op::Lookup { inputs: vec![8, 8], out: 9, table: 0 }),
    ("lookup of nothing", Fault::Unsupported, |p| p.ops[13] = Op::Lookup { inputs: Vec::new(), out: 9, table: 0 }),
    ("no table", Fault::Reference, |p| p.ops[13] = Op::Lookup { inputs: vec![8], out: 9, table: 1 }),
    ("softmax scale", Fault::Quantization, |p| p.tensors[10].scale = Some(0.5f32.to_bits())),
    ("softmax zero point", Fault::Quantization, |p| p.tensors[10].zero_point = 0),
    ("softmax multiplier", Fault::Quantization, |p| p.ops[14] = Op::Softmax { x: 7, out: 10, multiplier: (1 << 30) - 1, shift: 20 }),
    ("softmax shift", Fault::Quantization, |p| p.ops[14] = Op::Softmax { x: 7, out: 10, multiplier: 1 << 30, shift: 32 }),
];

fn shift_plane(rule: &mut Rule, by: i64) {
    if let Rule::Line { line, .. } = rule {
        line.b_pos += by;
        line.b_neg += by;
    }
}

fn split_plane(rule: &mut Rule) {
    if let Rule::Line { line, .. } = rule {
        line.b_neg -= 1;
    }
}

#[test]
fn the_base_is_accepted() {
    let (program, weights) = base();
    assert!(program.sign_rows.1 > 0, "needs a line with two offsets");
    load(program.clone(), None).unwrap();
    let checked = load(program.clone(), Some(&weights)).unwrap();
    assert_eq!(*checked, program);
    assert_eq!((0..5).map(|acc| checked.rescale_of(acc)).collect::<Vec<_>>(), [1, 3, 5, 7, 10]);
}

#[test]
fn every_fault_is_refused_for_its_reason() {
    let (program, weights) = base();
    let missed = CHANGES.iter().filter_map(|(name, fault, change)| {
        let mut p = program.clone();
        change(&mut p);
        let got = load(p, Some(&weights)).err();
        (got.as_ref().map(|e| e.fault) != Some(*fault)).then(|| format!("{name}: wants {fault:?}, got {got:?}"))
    });
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn errors_name_operator_and_tensor() {
    let (mut program, weights) = base();
    rescale(&mut program, 3).clamp.1 = 300;
    let e = load(program, Some(&weights)).unwrap_err();
    assert_eq!((e.op, e.to_string().as_str()), (Some(3), "operator 3 (rescale of \"d\"): clamp [-128, 300] is not inside the dtype"));
}

#[test]
fn weights_must_fit() {
    let (program, weights) = base();
    let change = |f: fn(&mut Weights)| {
        let mut w = weights.clone();
        f(&mut w);
        load(program.clone(), Some(&w)).unwrap_err().fault
    };
    assert_eq!(change(|w| w.values[0][0] = 128), Fault::Weights);
    assert_eq!(change(|w| w.values[0].truncate(9)), Fault::Weights);
    assert_eq!(change(|w| w.values.truncate(1)), Fault::Weights);
    // Another interval: the lines belong to these weights.
    assert_eq!(change(|w| w.values[0][0] += 1), Fault::Line);
    assert_eq!(change(|w| w.values[1][0] += 1), Fault::Line);
}

/// Small programs that ask for much memory.
#[test]
fn padding_and_repetition_are_bounded() {
    let (program, _) = base();
    let refused = |change: &dyn Fn(&mut Program)| {
        let mut p = program.clone();
        change(&mut p);
        load(p, None).unwrap_err()
    };
    let deep = refused(&|p| {
        p.tensors[0].dims = vec![1, 4, 4, 1 << 22];
        p.constants[0].dims[3] = 1 << 22;
    });
    assert_eq!((deep.fault, deep.detail.as_str()), (Fault::Limit, "too many weights"));
    let repeated = refused(&|p| {
        p.inputs[0].tensor = 1;
        p.tensors[1].dims = vec![1, 1 << 12, 1 << 12, 1];
        p.ops.drain(..2);
        p.accumulators[1] = crate::program::Accumulator { positions: 1, channels: 1 << 10 };
        *window(p, 0) = Window { input: (1 << 12, 1 << 12), output: (1, 1), ..SAME };
        p.constants[2].dims[2] = 1 << 10;
        p.constants[3].dims[0] = 1 << 10;
    });
    assert_eq!((repeated.fault, repeated.detail.as_str()), (Fault::Limit, "the input is too large for its multiplier"));
}

#[test]
fn a_constant_that_nobody_uses() {
    let (mut program, mut weights) = base();
    program.constants.push(program.constants[0].clone());
    weights.values.push(weights.values[0].clone());
    assert_eq!(load(program, Some(&weights)).unwrap_err().fault, Fault::Reference);
}

/// Without weights an interval is as declared, but its line must still be exact on it.
#[test]
fn declared_intervals() {
    let (mut program, _) = base();
    let Rule::Line { low, .. } = &mut rescale(&mut program, 1).rules[0] else { panic!("a line") };
    *low += 1;
    assert!(load(program.clone(), None).is_ok());
    let Rule::Line { low, .. } = &mut rescale(&mut program, 1).rules[0] else { panic!("a line") };
    *low = 1 << 40;
    assert_eq!(load(program, None).unwrap_err().fault, Fault::Wrap);
}
