//! Programs that pass for others: what `load` or a key accepts must mean the same to the executor and to the proof.

use nexus_edge_core::exec::Executor;
use nexus_edge_core::layout::{Form, Layout};
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::builder::ProgramBuilder;
use nexus_edge_core::program::check::{CheckedProgram, load};
use nexus_edge_core::program::{Contract, DType, Edge, Op, Piece, Port, Program, Rule, Semantics, Weights, Window};
use nexus_edge_core::proof::{KeyError, ProvingKey, Request, VerifyingKey, prove, register, verify, verify_registration};
use nexus_edge_core::reject::Reject;

use crate::bytes::timed;
use crate::forge::Victim;
use crate::support::private::private_form;
use crate::support::{self, Random, window};

/// Executes, proves and verifies.
fn agrees(program: (CheckedProgram, Weights), x: &[i16]) {
    // Private weights are int8, and read int8.
    let int8 = program.0.tensors.iter().all(|t| t.dtype == DType::Int8);
    let private = int8.then(|| Victim::private(program.clone()));
    for victim in private.into_iter().chain([Victim::new(program, true)]) {
        let request = Request { inputs: vec![x], context: [0; 32], committed: vec![true, false], ..Request::default() };
        for key in [&victim.key, &victim.zk] {
            let made = prove(key, &victim.executor, &request, &mut |_, _| true).expect("provable");
            assert_eq!(verify(&key.verifying, &made.statement, &made.proof), Ok(()));
        }
    }
}

/// One operator from `x` to `y`.
fn single(
    dtype: DType,
    dims: [&[u32]; 2],
    quantisation: [(f32, i32); 2],
    add: impl FnOnce(&mut ProgramBuilder, u32, u32),
) -> ProgramBuilder {
    let mut b = ProgramBuilder::new("single", if dtype == DType::Int8 { Semantics::Tflm } else { Semantics::Tflite214 });
    let [x, y] = [0, 1].map(|i| {
        let (scale, zero) = quantisation[i];
        b.tensor(["x", "y"][i], dtype, dims[i], Some(scale), zero).expect("tensor")
    });
    b.input(x, Edge::Integer).expect("input");
    add(&mut b, x, y);
    b.output(y, Edge::Integer).expect("output");
    b
}

fn global_max(side: u32) -> ProgramBuilder {
    single(DType::Int8, [&[1, side, side, 2], &[1, 1, 1, 2]], [(0.1, -10); 2], |b, x, y| {
        b.max_pool("max", x, y, window((side, side), (1, 1), (side, side), (1, 1), (0, 0)), (-128, 127)).expect("max pool");
    })
}

#[test]
fn softmax_means_the_same_for_both_dtypes() {
    for (dtype, zero, x) in [(DType::UInt8, 0, [0, 1, 2, 3, 4, 100, 101, 102]), (DType::Int8, -128, [-128, 1, 2, 3, 4, 100, 101, 102])] {
        let b = single(dtype, [&[1, 8], &[1, 8]], [(0.1, 100), (1.0 / 256.0, zero)], |b, x, y| b.softmax("softmax", x, y, 1546188227, 24));
        agrees(b.finish(None).expect("a valid program"), &x);
    }
}

#[test]
fn a_fused_clamp_of_a_max_pool_has_its_rows() {
    let b = single(DType::Int8, [&[1, 4, 4, 2], &[1, 2, 2, 2]], [(0.1, -10); 2], |b, x, y| {
        b.max_pool("max", x, y, window((4, 4), (2, 2), (2, 2), (2, 2), (0, 0)), (-10, 100)).expect("max pool");
    });
    agrees(b.finish(None).expect("a valid program"), &Random(1).int8(32));
}

#[test]
fn the_range_table_holds_as_many_equal_maxima_as_there_are() {
    let (program, weights) = global_max(8).finish(None).expect("a valid program");
    assert_eq!(program.range_bits, 6);
    agrees((program, weights), &[5; 128]);
    let (program, weights) = global_max(8).finish(Some(5)).expect("the executor runs it");
    assert!(matches!(ProvingKey::new(Program::clone(&program), weights, true, 100, Mode::Plain), Err(KeyError::Layout(_))));
}

/// With rows that start above the lower bound of the clamp, the table would say that everything below the upper bound is clamped.
#[test]
fn clamp_rows_cover_the_clamp() {
    let (program, weights) = support::dense_slow(1, 20, 7);
    let mut hostile = Program::clone(&program);
    hostile.clamp_rows = (-100, 8);
    let Op::Rescale(r) = &program.ops[1] else { panic!("not a rescale") };
    let reachable = |rule: &Rule| match rule {
        Rule::Line { low, high, line } => line.value(*low, 3) >= -100 && line.value(*high, 3) < 156,
        Rule::Constant(_) => true,
    };
    assert!(r.rules.iter().all(reachable), "the lines themselves are covered");
    assert!(matches!(ProvingKey::new(hostile, weights, true, 100, Mode::Plain), Err(KeyError::Program(_) | KeyError::Layout(_))));
}

#[test]
fn a_few_bytes_of_key_do_not_make_gigabytes_of_structure() {
    let (program, weights) = global_max(512).finish(Some(18)).expect("the executor runs it");
    let form = Form { committed: vec![true, false], committed_weights: false };
    assert!(Layout::new(&program, form).is_err_and(|e| e.to_string().contains("too large")));
    assert!(matches!(ProvingKey::new(Program::clone(&program), weights, true, 100, Mode::Plain), Err(KeyError::Layout(_))));
}

/// `n` cells on a diagonal of a fill, which are as many public terms without a side in common, then `copies` views of all of it. Whether that
/// is little enough work.
fn diagonal(n: u32, copies: u32) -> bool {
    let mut b = ProgramBuilder::new("diagonal", Semantics::Tflm);
    let x = b.tensor("x", DType::Int8, &[1, 1], Some(0.1), 0).expect("tensor");
    b.input(x, Edge::Integer).expect("input");
    let mut last = b.tensor("d", DType::Int8, &[n, n], Some(0.1), 0).expect("tensor");
    b.view("diagonal", last, (0..n).map(|i| Piece { source: x, dims: vec![(i, 1, 0, 1); 2] }).collect(), 3);
    for k in 0..copies {
        let copy = b.tensor(format!("copy {k}"), DType::Int8, &[n, n], Some(0.1), 0).expect("tensor");
        b.view("copy", copy, vec![Piece { source: last, dims: vec![(0, n, 0, 1); 2] }], 0);
        last = copy;
    }
    b.output(last, Edge::Integer).expect("output");
    let (program, _) = b.finish(None).expect("the executor runs it");
    let layout = Layout::new(&program, Form { committed: vec![true, false], committed_weights: false });
    layout.map_err(|e| assert!(e.to_string().contains("too large"), "{e}")).is_ok()
}

/// Every public term is compared with all others of its view, whether it comes from a fill or from another view.
#[test]
fn terms_of_views_are_paid_for() {
    assert_eq!([(500, 1), (500, 2), (700, 0)].map(|(n, copies)| diagonal(n, copies)), [true, false, false]);
}

/// Many small pieces of a large fill: the fill is not copied for each.
#[test]
fn a_piece_costs_what_it_takes() {
    let mut b = ProgramBuilder::new("pieces", Semantics::Tflm);
    let mut tensor = |name: &str, dims: &[u32]| b.tensor(name, DType::Int8, dims, Some(0.1), 0).expect("tensor");
    let (x, large, y) = (tensor("x", &[1, 1]), tensor("large", &[1 << 22, 1]), tensor("y", &[1, 4001]));
    b.input(x, Edge::Integer).expect("input");
    b.view("fill", large, Vec::new(), 3);
    let piece = |i: u32| Piece { source: if i == 4000 { x } else { large }, dims: vec![(0, 1, 0, 1), (i, 1, 0, 1)] };
    b.view("pieces", y, (0..4001).map(piece).collect(), 0);
    b.output(y, Edge::Integer).expect("output");
    let (program, _) = b.finish(None).expect("the executor runs it");
    assert!(timed(|| Layout::new(&program, Form { committed: vec![true, false], committed_weights: false })).is_ok());
}

#[test]
fn a_statement_that_no_bytes_decode_to_is_refused_too() {
    for victim in Victim::each(support::dense(1, 20, 7), true) {
        let x = Random(3).int8(20);
        let (statement, proof) = victim.forge(&[&x]).proof(Mode::Plain);
        for inputs in [0, 2, 3, usize::MAX] {
            let mut s = statement.clone();
            s.inputs = inputs;
            assert!(matches!(verify(&victim.key.verifying, &s, &proof), Err(Reject::Statement(_))));
        }
    }
}

/// One change of a free choice in a program: rows, windows, pieces, permutations, clamps, tables, wiring.
fn mutate(p: &mut Program, random: &mut Random) {
    let near = |random: &mut Random, x: u32| x.wrapping_add_signed(random.within(-1, 1) as i32);
    let window = |random: &mut Random, w: &mut Window| {
        for pair in [&mut w.output, &mut w.kernel, &mut w.stride, &mut w.pad, &mut w.dilation] {
            if random.next().is_multiple_of(3) {
                *pair = (near(random, pair.0), near(random, pair.1));
            }
        }
    };
    match random.next() % 8 {
        0 => p.range_bits = random.within(3, 21) as u8,
        1 => p.clamp_rows = (p.clamp_rows.0 + random.within(-200, 200), (i64::from(p.clamp_rows.1) + random.within(-2, 2)) as u8),
        2 => p.sign_rows = (p.sign_rows.0 + random.within(-3, 3), (i64::from(p.sign_rows.1) + random.within(-2, 2)) as u8),
        3 => {
            let at = (random.next() % (p.ops.len() as u64 - 1)) as usize;
            p.ops.swap(at, at + 1);
        }
        4 => {
            let tensor = (random.next() % p.tensors.len() as u64) as u32;
            p.outputs.push(Port { tensor, edge: Edge::Integer });
        }
        5 => {
            let at = (random.next() % p.tensors.len() as u64) as usize;
            let t = &mut p.tensors[at];
            match random.next() % 3 {
                0 => t.zero_point += random.within(-1, 1) as i32,
                1 => t.dims = [&t.dims[..], &[1]].concat(),
                _ => t.dims.reverse(),
            }
        }
        _ => {
            let (tensors, at) = (p.tensors.len() as u64, (random.next() % p.ops.len() as u64) as usize);
            match &mut p.ops[at] {
                Op::Contract {
                    contract: Contract::Conv { x, window: w, x_zero, .. } | Contract::Depthwise { x, window: w, x_zero, .. },
                    ..
                } => match random.next() % 4 {
                    0 => *x = (random.next() % tensors) as u32,
                    1 => *x_zero += random.within(-1, 1) as i32,
                    _ => window(random, w),
                },
                Op::Contract { contract: Contract::Sum { window: w, .. }, .. } => window(random, w),
                Op::Contract { contract: Contract::Mix { terms }, .. } => terms.swap(0, 1),
                Op::Rescale(r) => match random.next() % 3 {
                    0 => r.clamp = (r.clamp.0 + random.within(-1, 9) as i32, r.clamp.1 - random.within(-1, 9) as i32),
                    1 => r.by_position = !r.by_position,
                    _ => r.rules.reverse(),
                },
                Op::Lookup { table, inputs, .. } => {
                    let (table, row) = (&mut p.tables[*table as usize].values, random.next() as usize);
                    inputs.reverse();
                    let row = row % table.len();
                    table[row] = random.within(-129, 128) as i16;
                }
                Op::Softmax { multiplier, shift, .. } => {
                    *multiplier = multiplier.wrapping_add(random.within(-1, 1 << 20) as i32);
                    *shift = random.within(10, 33) as u8;
                }
                Op::MaxPool { window: w, clamp, .. } => match random.next() % 2 {
                    0 => window(random, w),
                    _ => *clamp = (clamp.0 + random.within(-30, 30) as i32, clamp.1 - random.within(-1, 30) as i32),
                },
                Op::View { pieces, fill, .. } => {
                    *fill = random.within(-129, 128) as i32;
                    let piece = (random.next() % pieces.len() as u64) as usize;
                    let dim = (random.next() % pieces[piece].dims.len() as u64) as usize;
                    let d = &mut pieces[piece].dims[dim];
                    *d = (near(random, d.0), near(random, d.1), near(random, d.2), d.3 + random.within(-1, 1) as i32);
                }
                Op::Permute { perm, dims, .. } => {
                    perm.reverse();
                    if random.next().is_multiple_of(2) {
                        *dims = vec![2, 2, 6];
                        *perm = [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]][(random.next() % 4) as usize].to_vec();
                    }
                }
            }
        }
    }
}

/// Whatever `load` accepts, the proof means what the executor computes.
#[test]
fn changed_programs_are_refused_or_prove_what_they_execute() {
    let public = support::everything(3, 10);
    let private = private_form(&public.0, &public.1).expect("a private form");
    for (program, weights) in [public, private] {
        let x = Random(3).int8(126);
        let mut random = Random(11);
        let mut alive = 0;
        for round in 0..500 {
            let mut changed = Program::clone(&program);
            mutate(&mut changed, &mut random);
            if changed == *program || changed.range_bits > 16 {
                continue;
            }
            let Ok(checked) = load(changed, Some(&weights)) else { continue };
            let inside = round % 2 == 0 && program.private.is_none();
            let Ok(key) = ProvingKey::new(Program::clone(&checked), weights.clone(), inside, 100, Mode::Plain) else { continue };
            let executor = Executor::new(key.verifying.program().clone(), &weights).expect("weights fit");
            let committed = key.verifying.usual_form();
            let request = Request { inputs: vec![&x], context: [0; 32], committed, ..Request::default() };
            if let Ok(made) = prove(&key, &executor, &request, &mut |_, _| true) {
                alive += 1;
                let read = VerifyingKey::from_bytes(&key.verifying.to_bytes()).expect("own key");
                if program.private.is_some() {
                    let registration = register(&key, &mut |_, _| true).expect("private").proof;
                    read.admit(&verify_registration(&read, &registration).expect("what loads can be registered"));
                }
                assert_eq!(verify(&read, &made.statement, &made.proof), Ok(()), "round {round}: {:?}", checked.ops);
            }
        }
        assert!(alive > 30, "{alive} programs survived");
    }
}
