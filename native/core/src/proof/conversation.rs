//! What prover and verifier derive alike: the transcript's start, and the forms that tie statement tensors and copies.

use super::instance::{Compiled, variables};
use super::statement::{Content, Statement};
use crate::channel::Transcript;
use crate::eq::log2_ceil;
use crate::field::{K, from_i64};
use crate::layout::{Copy, Order};
use crate::logup::LinearForm;
use crate::parameters::Parameters;
use crate::program::{DType, Program, Tensor, split};
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

/// Elements of the copies' challenge.
pub(super) fn copy_variables(compiled: &Compiled) -> usize {
    let of = |copy: &Copy| match &copy.order {
        Order::Refined { dims, .. } => dims.iter().map(|&d| log2_ceil(d)).sum(),
        Order::RowMajor => 1,
    };
    compiled.layout.copies.iter().map(of).sum()
}

/// Roots that a copy's identity may have, of all copies: its variables, or the degree of a polynomial in the one challenge.
pub(super) fn copy_roots(compiled: &Compiled) -> usize {
    let layout = &compiled.layout;
    let of = |copy: &Copy| match &copy.order {
        Order::Refined { dims, .. } => dims.iter().map(|&d| log2_ceil(d)).sum(),
        Order::RowMajor => layout.views[copy.copy as usize].positions * layout.views[copy.copy as usize].channels - 1,
    };
    layout.copies.iter().map(of).sum()
}

/// `<source, e> - <copy, e> = 0` with `e` a product of one `eq` for each refined dimension, or the powers of one challenge.
pub(super) fn copies<const D: usize>(compiled: &Compiled, tau: &[K<D>]) -> Vec<LinearForm<D>> {
    let layout = &compiled.layout;
    let mut rest = tau;
    layout
        .copies
        .iter()
        .map(|copy| {
            let (source, made) = (&layout.views[copy.source as usize], &layout.views[copy.copy as usize]);
            let mut form = LinearForm::default();
            let mut add = |tensor, (u, v): (Side<D>, Side<D>), sign| form.tensor(layout, tensor, u.scaled(sign), v);
            match &copy.order {
                Order::Refined { dims, perm } => {
                    let sides: Vec<Side<D>> = dims
                        .iter()
                        .map(|&d| {
                            let (head, tail) = rest.split_at(log2_ceil(d));
                            rest = tail;
                            Side::eq(d, head)
                        })
                        .collect();
                    let original: Vec<&Side<D>> = sides.iter().collect();
                    let moved: Vec<&Side<D>> = perm.iter().map(|&i| &sides[i]).collect();
                    add(copy.source, by_dimensions(&original, source.channels), K::ONE);
                    add(copy.copy, by_dimensions(&moved, made.channels), -K::ONE);
                }
                Order::RowMajor => {
                    let (&tau, tail) = rest.split_first().expect("as many as counted");
                    rest = tail;
                    add(copy.source, by_powers(tau, source.positions, source.channels), K::ONE);
                    add(copy.copy, by_powers(tau, made.positions, made.channels), -K::ONE);
                }
            }
            form
        })
        .collect()
}

/// The weights of positions and of channels.
fn by_dimensions<const D: usize>(sides: &[&Side<D>], channels: usize) -> (Side<D>, Side<D>) {
    let dims: Vec<usize> = sides.iter().map(|t| t.size()).collect();
    // The layout refused dimensions that do not split.
    let at = split(&dims, channels).expect("checked by the layout");
    (row_major(&sides[..at]), row_major(&sides[at..]))
}

/// The same for `tau^i` at element `i` of the row-major list: `(tau^channels)^position tau^channel`.
fn by_powers<const D: usize>(tau: K<D>, positions: usize, channels: usize) -> (Side<D>, Side<D>) {
    let powers = |base: K<D>, n: usize| -> Vec<K<D>> { core::iter::successors(Some(K::ONE), |&x| Some(x * base)).take(n).collect() };
    let v = powers(tau, channels);
    (powers(v[channels - 1] * tau, positions).into(), v.into())
}

/// The outer product of the sides, last one fastest.
fn row_major<const D: usize>(sides: &[&Side<D>]) -> Side<D> {
    if let [one] = sides {
        return (*one).clone();
    }
    sides.iter().fold(Run::from(vec![K::ONE]), |out, s| out.outer(&s.to_run())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logup::LinearForm;
    use crate::parameters::Mode;
    use crate::pcs::tests::element;
    use crate::program::check::CheckedProgram;
    use crate::program::{Program, Weights};
    use crate::proof::ProvingKey;
    use crate::zk::support::nets;

    fn compiled((program, weights): (CheckedProgram, Weights)) -> std::sync::Arc<Compiled> {
        let key = ProvingKey::new(Program::clone(&program), weights, false, 100, Mode::Plain).expect("a key").verifying;
        key.compiled(&key.usual_form()).expect("a layout")
    }

    fn product(factors: impl Iterator<Item = K<2>>) -> K<2> {
        factors.fold(K::ONE, |all, x| all * x)
    }

    /// What a copy's form is on a copy that differs from its source by `difference`, row-major.
    fn on_difference(compiled: &Compiled, form: &LinearForm<2>, difference: &[K<2>]) -> K<2> {
        let view = &compiled.layout.views[compiled.layout.copies[0].copy as usize];
        let storage = view.pieces[0].storage;
        let of_slot = |u: &[K<2>], v: &[K<2>]| -> K<2> {
            difference.chunks(v.len()).zip(u).map(|(row, &x)| x * row.iter().zip(v).map(|(&d, &y)| d * y).sum::<K<2>>()).sum()
        };
        form.slots.iter().filter(|s| s.storage == storage).map(|s| of_slot(&s.u.to_vec(), &s.v.to_vec())).sum()
    }

    /// A wrong copy of `n` elements passes at as many challenges as are counted, `n - 1`, and there is one that does: the difference whose
    /// entries are the coefficients of the polynomial with these roots.
    #[test]
    fn a_row_major_copy_has_as_many_roots_as_are_counted() {
        let compiled = compiled(nets::regrouped());
        assert!(matches!(compiled.layout.copies[..], [Copy { order: Order::RowMajor, .. }]));
        let roots: Vec<K<2>> = (0..copy_roots(&compiled) as u64).map(|i| element(900 + i)).collect();
        assert_eq!(roots.len(), 23);
        let difference = roots.iter().fold(vec![K::ONE], |p, &r| {
            (0..=p.len()).map(|i| i.checked_sub(1).map_or(K::ZERO, |j| p[j]) - p.get(i).map_or(K::ZERO, |&c| r * c)).collect()
        });
        let at = |tau: K<2>| on_difference(&compiled, &copies(&compiled, &[tau])[0], &difference);
        assert!(roots.iter().all(|&root| at(root) == K::ZERO));
        // Where it is not 0 it is the polynomial, so that there is no other root: its degree is their number.
        for tau in (0..40).map(element) {
            assert_eq!(at(tau), -product(roots.iter().map(|&root| tau - root)));
        }
    }

    /// A wrong copy passes if any one of the variables has a value that it was made for: a term for each is needed.
    #[test]
    fn a_refined_copy_has_a_root_in_each_variable_that_is_counted() {
        let compiled = compiled(nets::views());
        let [Copy { order: Order::Refined { dims, perm }, .. }] = &compiled.layout.copies[..] else { panic!("one refined copy") };
        let variables = copy_roots(&compiled);
        assert_eq!(variables, copy_variables(&compiled));
        // The extension of `(-a, 1 - a)` is `tau - a`. Where an index is out of range, `a = 1` leaves its half empty.
        let factor = |dim: usize, bit: usize| if dim.is_power_of_two() { element(700 + bit as u64) } else { K::ONE };
        let mut roots = Vec::new();
        let sides: Vec<Vec<K<2>>> = dims
            .iter()
            .map(|&d| {
                let own: Vec<K<2>> = (0..log2_ceil(d)).map(|bit| factor(d, roots.len() + bit)).collect();
                roots.extend_from_slice(&own);
                let entry = |i: usize| product(own.iter().enumerate().map(|(bit, &a)| if i >> bit & 1 == 1 { K::ONE - a } else { -a }));
                (0..d).map(entry).collect()
            })
            .collect();
        let difference =
            perm.iter().fold(vec![K::ONE], |out: Vec<K<2>>, &i| out.iter().flat_map(|&x| sides[i].iter().map(move |&y| x * y)).collect());
        let point: Vec<K<2>> = (0..variables as u64).map(|i| element(500 + i)).collect();
        let at = |point: &[K<2>]| on_difference(&compiled, &copies(&compiled, point)[0], &difference);
        assert_eq!(at(&point), -product(point.iter().zip(&roots).map(|(&x, &a)| x - a)));
        for (j, &root) in roots.iter().enumerate() {
            let mut met = point.clone();
            met[j] = root;
            assert_eq!(at(&met), K::ZERO, "variable {j}");
        }
    }
}
