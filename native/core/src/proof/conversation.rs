//! What prover and verifier derive alike: the transcript's start, and the forms that tie statement tensors and copies.

use super::instance::{Compiled, variables};
use super::statement::{Content, Statement};
use crate::channel::Transcript;
use crate::eq::log2_ceil;
use crate::field::{K, from_i64};
use crate::layout::split;
use crate::logup::LinearForm;
use crate::parameters::Parameters;
use crate::program::{DType, Program, Tensor};
use crate::run::Run;
use crate::side::Side;

/// Absorbs the statement, then every oracle.
pub(super) fn begin(
    statement: &Statement,
    program: &Program,
    parameters: &Parameters,
    compiled: &Compiled,
    roots: &[[u8; 32]],
) -> Transcript {
    let mut t = Transcript::new();
    statement.absorb(&mut t, program, parameters);
    t.absorb("oracles", &(roots.len() as u64).to_le_bytes());
    for (layout, root) in compiled.oracles.iter().zip(roots) {
        t.absorb("oracle", &layout.to_bytes());
        t.absorb("root", root);
    }
    t
}

/// `eq` over the positions and the channels (low bits) of a tensor.
fn closed<const D: usize>(tensor: &Tensor, tau: &[K<D>]) -> (Side<D>, Side<D>) {
    let (low, high) = tau[..variables(tensor)].split_at(log2_ceil(tensor.channels()));
    (Side::eq(tensor.positions(), high), Side::eq(tensor.channels(), low))
}

/// The same, multiplied out.
fn sides<const D: usize>(tensor: &Tensor, tau: &[K<D>]) -> (Vec<K<D>>, Vec<K<D>>) {
    let (u, v) = closed(tensor, tau);
    (u.to_vec(), v.to_vec())
}

/// A clear byte as an integer.
pub(crate) fn element(dtype: DType, byte: u8) -> i64 {
    match dtype {
        DType::Int8 => i64::from(byte as i8),
        DType::UInt8 => i64::from(byte),
    }
}

/// Every clear tensor equals the bytes that were absorbed; every committed output equals its oracle. -> (form, value) for each.
pub(super) fn ties<const D: usize>(
    compiled: &Compiled,
    program: &Program,
    statement: &Statement,
    tau: &[K<D>],
) -> Vec<(LinearForm<D>, K<D>)> {
    let layout = &compiled.layout;
    let mut out = Vec::new();
    for (i, (&id, entry)) in layout.ports.iter().zip(&statement.tensors).enumerate() {
        let tensor = &program.tensors[id as usize];
        let mut form = LinearForm::default();
        match (&entry.content, layout.port_storages[i]) {
            (Content::Clear(bytes), _) => {
                let (u, v) = sides(tensor, tau);
                let row = |row: &[u8]| row.iter().zip(&v).map(|(&b, &x)| x.scale(from_i64(element(tensor.dtype, b)))).sum::<K<D>>();
                let value = bytes.chunks_exact(tensor.channels()).zip(&u).map(|(bytes, &x)| x * row(bytes)).sum();
                let (us, vs) = closed(tensor, tau);
                form.tensor(layout, id, us, vs);
                out.push((form, value));
            }
            // A committed input is its oracle; a committed output has one beside the cells that the program computes.
            (Content::Committed(_), Some(storage)) if i >= program.inputs.len() => {
                let (u, v) = closed(tensor, tau);
                form.tensor(layout, id, u.clone().scaled(-K::ONE), v.clone());
                form.push(storage, u, v);
                out.push((form, K::ZERO));
            }
            (Content::Committed(_), _) => {}
        }
    }
    out
}

/// Variables of each copy's challenge.
pub(super) fn copy_variables(compiled: &Compiled) -> usize {
    compiled.layout.copies.iter().flat_map(|c| &c.dims).map(|&d| log2_ceil(d)).sum()
}

/// `<source, e> - <copy, e> = 0` with `e` a product of one `eq` for each refined dimension.
pub(super) fn copies<const D: usize>(compiled: &Compiled, tau: &[K<D>]) -> Vec<LinearForm<D>> {
    let layout = &compiled.layout;
    let mut rest = tau;
    layout
        .copies
        .iter()
        .map(|copy| {
            let sides: Vec<Side<D>> = copy
                .dims
                .iter()
                .map(|&d| {
                    let (head, tail) = rest.split_at(log2_ceil(d));
                    rest = tail;
                    Side::eq(d, head)
                })
                .collect();
            let moved: Vec<&Side<D>> = copy.perm.iter().map(|&i| &sides[i]).collect();
            let mut form = LinearForm::default();
            let original: Vec<&Side<D>> = sides.iter().collect();
            for (tensor, order, sign) in [(copy.source, original, K::ONE), (copy.copy, moved, -K::ONE)] {
                let dims: Vec<usize> = order.iter().map(|t| t.size()).collect();
                // The layout refused dimensions that do not split.
                let at = split(&dims, layout.views[tensor as usize].channels).expect("checked by the layout");
                let u = row_major(&order[..at]).scaled(sign);
                form.tensor(layout, tensor, u, row_major(&order[at..]));
            }
            form
        })
        .collect()
}

/// The outer product of the sides, last one fastest.
fn row_major<const D: usize>(sides: &[&Side<D>]) -> Side<D> {
    if let [one] = sides {
        return (*one).clone();
    }
    sides.iter().fold(Run::from(vec![K::ONE]), |out, s| out.outer(&s.to_run())).into()
}
