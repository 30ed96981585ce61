use super::*;
use crate::program::codec::wire::Varint;
use crate::program::{
    Accumulator, Constant, Contract, DType, Edge, Formula, Line, Op, Piece, Port, Rescale, Rule, Semantics, Table, Tensor, Window,
};
use proptest::prelude::*;

fn pair<T: Arbitrary + Copy>() -> impl Strategy<Value = (T, T)> {
    any::<(T, T)>()
}

fn window() -> impl Strategy<Value = Window> {
    let batch = prop_oneof![Just(1u32), any::<u32>()];
    (batch, pair(), pair(), pair(), pair(), pair(), pair()).prop_map(|(batch, input, output, kernel, stride, pad, dilation)| Window {
        batch,
        input,
        output,
        kernel,
        stride,
        pad,
        dilation,
    })
}

fn contract() -> impl Strategy<Value = Contract> {
    let convolution = || (any::<u32>(), window(), any::<u32>(), any::<Option<u32>>(), any::<i32>());
    prop_oneof![
        convolution().prop_map(|(x, window, weights, bias, x_zero)| Contract::Conv { x, window, weights, bias, x_zero }),
        convolution().prop_map(|(x, window, weights, bias, x_zero)| Contract::Depthwise { x, window, weights, bias, x_zero }),
        (any::<u32>(), window(), any::<i32>()).prop_map(|(x, window, x_zero)| Contract::Sum { x, window, x_zero }),
        prop::collection::vec(any::<(i64, u32)>(), 0..3).prop_map(|terms| Contract::Mix { terms }),
    ]
}

fn formula() -> impl Strategy<Value = Formula> {
    let multipliers = || prop::collection::vec(any::<(i32, i8)>(), 0..4);
    prop_oneof![
        multipliers().prop_map(Formula::DoubleRounding),
        multipliers().prop_map(Formula::SingleRounding),
        Just(Formula::AveragePool),
        (any::<(i32, i8)>(), any::<(i32, i8)>(), any::<(i32, i8)>(), pair(), any::<bool>())
            .prop_map(|(first, second, output, zeros, subtract)| Formula::Add { first, second, output, zeros, subtract }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        any::<i32>().prop_map(Rule::Constant),
        any::<[i64; 6]>().prop_map(|[low, high, a, b_pos, b_neg, d]| Rule::Line { low, high, line: Line { a, b_pos, b_neg, d } }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let piece =
        (any::<u32>(), prop::collection::vec(any::<(u32, u32, u32, i32)>(), 0..4)).prop_map(|(source, dims)| Piece { source, dims });
    prop_oneof![
        (any::<u32>(), contract()).prop_map(|(acc, contract)| Op::Contract { acc, contract }),
        ((any::<u32>(), any::<u32>(), any::<i32>(), pair()), formula(), any::<bool>(), prop::collection::vec(rule(), 0..4)).prop_map(
            |((acc, out, zero, clamp), formula, by_position, rules)| Op::Rescale(Rescale {
                acc,
                out,
                zero,
                clamp,
                formula,
                by_position,
                rules
            })
        ),
        (prop::collection::vec(any::<u32>(), 0..3), any::<u32>(), any::<u32>()).prop_map(|(inputs, out, table)| Op::Lookup {
            inputs,
            out,
            table
        }),
        any::<(u32, u32, i32, u8)>().prop_map(|(x, out, multiplier, shift)| Op::Softmax { x, out, multiplier, shift }),
        (any::<u32>(), any::<u32>(), window(), pair()).prop_map(|(x, out, window, clamp)| Op::MaxPool { x, out, window, clamp }),
        (any::<u32>(), prop::collection::vec(piece, 0..3), any::<i32>()).prop_map(|(out, pieces, fill)| Op::View { out, pieces, fill }),
        (any::<u32>(), any::<u32>(), prop::collection::vec(any::<u32>(), 0..5), prop::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(x, out, dims, perm)| Op::Permute { x, out, dims, perm }),
    ]
}

fn tensor() -> impl Strategy<Value = Tensor> {
    (".{0,9}", any::<bool>(), prop::collection::vec(any::<u32>(), 0..5), any::<Option<u32>>(), any::<i32>()).prop_map(
        |(name, int8, dims, scale, zero_point)| Tensor {
            name,
            dtype: if int8 { DType::Int8 } else { DType::UInt8 },
            dims,
            scale,
            zero_point,
        },
    )
}

fn program() -> impl Strategy<Value = Program> {
    let port = || (any::<u32>(), any::<bool>()).prop_map(|(tensor, f)| Port { tensor, edge: if f { Edge::Float } else { Edge::Integer } });
    let ports = move || prop::collection::vec(port(), 0..3);
    let accumulator = any::<(u32, u32)>().prop_map(|(positions, channels)| Accumulator { positions, channels });
    let constant = (prop::collection::vec(any::<u32>(), 0..5), pair()).prop_map(|(dims, range)| Constant { dims, range });
    let table = prop::collection::vec(any::<i16>(), 0..9).prop_map(|values| Table { values });
    let semantics = prop_oneof![Just(Semantics::Tflm), Just(Semantics::Tflite214), Just(Semantics::Litert23Ref)];
    (
        (".{0,9}", semantics),
        prop::collection::vec(tensor(), 0..4),
        prop::collection::vec(accumulator, 0..4),
        prop::collection::vec(constant, 0..4),
        prop::collection::vec(table, 0..3),
        (ports(), ports()),
        prop::collection::vec(op(), 0..6),
        (any::<(u8, (i64, u8), (i64, u8))>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..4))),
    )
        .prop_map(
            |(
                (name, semantics),
                tensors,
                accumulators,
                constants,
                tables,
                (inputs, outputs),
                ops,
                ((range_bits, clamp_rows, sign_rows), bounds),
            )| {
                Program {
                    name,
                    semantics,
                    tensors,
                    accumulators,
                    constants,
                    tables,
                    inputs,
                    outputs,
                    ops,
                    range_bits,
                    clamp_rows,
                    sign_rows,
                    private: bounds.map(|log_bounds| PrivateForm { log_bounds }),
                }
            },
        )
}

fn weights() -> impl Strategy<Value = Weights> {
    let array = prop_oneof![
        prop::collection::vec(-128i32..128, 0..9),
        prop::collection::vec(-255i32..256, 0..9),
        prop::collection::vec(any::<i32>(), 0..9)
    ];
    prop::collection::vec(array, 0..5).prop_map(|values| Weights { values })
}

/// Any change of the bytes is refused or is another value's only encoding.
fn assert_canonical<T: PartialEq + std::fmt::Debug>(bytes: &[u8], decode: impl Fn(&[u8]) -> Checked<T>, encode: impl Fn(&T) -> Vec<u8>) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(encode(&value), bytes);
    }
}

proptest! {
    #[test]
    fn programs_round_trip(p in program()) {
        prop_assert_eq!(Program::from_bytes(&p.to_bytes()).unwrap(), p);
    }

    #[test]
    fn weights_round_trip(w in weights()) {
        prop_assert_eq!(Weights::from_bytes(&w.to_bytes()).unwrap(), w);
    }

    #[test]
    fn mutations_of_programs(p in program(), at: prop::sample::Index, to: u8) {
        let bytes = p.to_bytes();
        let i = at.index(bytes.len());
        let mut changed = bytes.clone();
        changed[i] = to;
        assert_canonical(&changed, Program::from_bytes, Program::to_bytes);
        prop_assert!(Program::from_bytes(&bytes[..i]).is_err());
        let mut longer = bytes;
        longer.push(to);
        prop_assert!(Program::from_bytes(&longer).is_err());
        // Whatever decodes may be checked: never a panic.
        if let Ok(p) = Program::from_bytes(&changed) {
            let _ = crate::program::check::load(p, None);
        }
    }

    #[test]
    fn mutations_of_weights(w in weights(), at: prop::sample::Index, to: u8) {
        let bytes = w.to_bytes();
        let i = at.index(bytes.len());
        let mut changed = bytes.clone();
        changed[i] = to;
        assert_canonical(&changed, Weights::from_bytes, Weights::to_bytes);
        prop_assert!(Weights::from_bytes(&bytes[..i]).is_err());
    }

    #[test]
    fn noise(bytes: Vec<u8>) {
        for magic in [PROGRAM_MAGIC, PRIVATE_MAGIC, LATER_MAGIC, LATER_PRIVATE_MAGIC] {
            let program: Vec<u8> = magic.iter().chain(&bytes).copied().collect();
            assert_canonical(&program, Program::from_bytes, Program::to_bytes);
        }
        let weights: Vec<u8> = WEIGHTS_MAGIC.iter().chain(&bytes).copied().collect();
        assert_canonical(&weights, Weights::from_bytes, Weights::to_bytes);
    }

    #[test]
    fn integers_are_minimal(v: i64) {
        let mut out = Vec::new();
        Varint(v).write(&mut out);
        prop_assert_eq!(Varint::read(&mut Input { bytes: &out }).unwrap().0, v);
        let last = out.pop().unwrap();
        out.extend([last | 0x80, 0]);
        let read = Varint::read(&mut Input { bytes: &out });
        prop_assert!(read.is_err());
    }
}

fn with_op(tensors: Vec<Tensor>, op: Op) -> Program {
    Program {
        name: String::new(),
        semantics: Semantics::Tflm,
        tensors,
        accumulators: Vec::new(),
        constants: Vec::new(),
        tables: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        ops: vec![op],
        range_bits: 8,
        clamp_rows: (0, 0),
        sign_rows: (0, 0),
        private: None,
    }
}

/// A program is of a later version exactly if an operator has a form of it.
#[test]
fn the_version_is_that_of_the_forms() {
    let one = (1, 1);
    let window = |batch| Window { batch, input: one, output: one, kernel: one, stride: one, pad: one, dilation: one };
    let pool = |batch| with_op(Vec::new(), Op::MaxPool { x: 0, out: 1, window: window(batch), clamp: (0, 0) });
    let sum = |batch| with_op(Vec::new(), Op::Contract { acc: 0, contract: Contract::Sum { x: 0, window: window(batch), x_zero: 0 } });
    let tensor = |dims: [u32; 2]| Tensor { name: String::new(), dtype: DType::Int8, dims: dims.into(), scale: None, zero_point: 0 };
    let reshape = |dims: [u32; 2], to: [u32; 2]| {
        with_op(vec![tensor([6, 4]), tensor(to)], Op::Permute { x: 0, out: 1, dims: dims.into(), perm: vec![0, 1] })
    };
    let versions = [
        (pool(1), 1),
        (pool(2), 3),
        (sum(1), 1),
        (sum(3), 3),
        (reshape([6, 4], [24, 1]), 1),
        (reshape([6, 4], [1, 24]), 1),
        (reshape([1, 24], [4, 6]), 3),
        (reshape([6, 4], [4, 6]), 3),
    ];
    for (program, version) in versions {
        let bytes = program.to_bytes();
        assert_eq!(bytes[6], version, "{:?}", program.ops);
        assert_eq!(Program::from_bytes(&bytes).unwrap(), program);
        for other in (0..8).filter(|&v| v != version) {
            let mut changed = bytes.clone();
            changed[6] = other;
            if matches!(other, 2 | 4) {
                changed.extend([0; 4]);
            }
            assert!(Program::from_bytes(&changed).is_err() || (other == 4 && version == 3) || (other == 2 && version == 1), "{other}");
        }
    }
    // The second form of a batch of one.
    let mut bytes = pool(2).to_bytes();
    let at = bytes.windows(4).rposition(|w| w == [2, 0, 0, 0]).unwrap();
    bytes[at] = 1;
    assert!(Program::from_bytes(&bytes).unwrap_err().detail.contains("batch"));
}

/// A length of four billion is refused before it is allocated.
#[test]
fn lengths_are_bounded() {
    let mut bytes = PROGRAM_MAGIC.to_vec();
    bytes.extend([0, 0, 0, 0, 0]);
    bytes.extend(u32::MAX.to_le_bytes());
    assert!(Program::from_bytes(&bytes).unwrap_err().detail.contains("length"));
    let mut bytes = WEIGHTS_MAGIC.to_vec();
    bytes.extend(1u32.to_le_bytes());
    bytes.push(0);
    bytes.extend(1000u32.to_le_bytes());
    assert!(Weights::from_bytes(&bytes).is_err());
}
