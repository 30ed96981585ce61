//! The verifier's side of an opening: work on sides, columns and queries, never on areas.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;

use super::code::{Rows, take_rows};
use super::functional::{Claim, batch};
use super::open::reduced;
use super::stack::Stack;
use super::weight::weight_at;
use super::whir::{self, distinct, monomials};
use crate::channel::Reader;
use crate::eq::eq;
use crate::field::{Ext, F, K};
use crate::hash::Digest;
use crate::masking::{Line, evaluate};
use crate::ntt;
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};
use crate::reject::{Reject, Verdict};

/// The column combination as received, before any index is drawn.
pub struct Combined<const D: usize> {
    /// Weights of the stack's columns.
    pub(crate) columns: Vec<K<D>>,
    /// The point below `log2(L_max)`.
    pub(crate) z: Vec<K<D>>,
    s: K<D>,
    /// Coefficients of the combination from `L_max` on: those of random pads.
    pub(crate) pads: Vec<K<D>>,
    g: Polynomial<D>,
}

enum Polynomial<const D: usize> {
    Clear(Vec<K<D>>),
    Root(Digest),
}

/// Checks that the oracles with the given roots have the claimed values, as far as the combination of all columns: the sumcheck, `s`, the pads,
/// and `g` or its root.
pub fn verify_combination<const D: usize, R: Reader<D>>(
    params: &Parameters,
    reader: &mut R,
    stack: &Stack,
    roots: &[Digest],
    claims: &[Claim<R::Value, D>],
) -> Verdict<Combined<D>> {
    if params.degree() != D || roots.len() != stack.layouts.len() {
        return Err(Reject::Malformed { what: "opening", why: "parameter set or number of roots".into() });
    }
    reader.absorb("opening oracles", &stack.to_bytes(roots));
    let eta = reader.challenge("opening batch");
    let functionals = batch(stack, claims.iter().map(|c| c.functionals.as_slice()), eta)?;
    // Horner from the last claim: claim k has weight eta^k.
    let mut claim = claims.iter().rev().fold(reader.constant(K::ZERO), |sum, c| reader.add_scaled(&c.value, &sum, eta));
    let mut z = Vec::with_capacity(stack.variables());
    for j in 0..stack.variables() {
        let h = reader.receive("opening round", 2)?;
        let x = reader.challenge("opening round");
        // h(x) = h0 + x h1 + x^2 h2 with h1 = claim, or h1 = claim - 2 h0 - h2.
        let (c0, c2) = if j < stack.log_rows { (K::ONE, x * x) } else { (K::ONE - x - x, x * x - x) };
        let linear = reader.scale(&claim, x);
        claim = reader.add_scaled(&reader.add_scaled(&linear, &h[0], c0), &h[1], c2);
        z.push(x);
    }
    let s = reader.receive_clear("opening value", 1)?[0];
    let pads = reader.receive_clear("combined pads", stack.pads())?;
    let difference = reader.add(&claim, &reader.constant(-(s * weight_at(stack, &functionals, &z))));
    reader.assert_zero(&difference, "opening sumcheck")?;
    let columns = eq(&z.split_off(stack.log_rows));
    let g = if params.is_clear(stack.log_rows) {
        let g = reader.receive_clear("combined polynomial", 1 << stack.log_rows)?;
        let value: K<D> = g.iter().zip(monomials(&z)).map(|(&c, m)| c * m).sum();
        if value != s {
            return Err(Reject::Equation("value of the combined polynomial"));
        }
        Polynomial::Clear(g)
    } else {
        let mut root = [0; 32];
        root.copy_from_slice(&reader.receive_bytes("combined root", 32)?);
        Polynomial::Root(root)
    };
    Ok(Combined { columns, z, s, pads, g })
}

/// The rest of an opening, after the equations are settled: the rows, and WHIR where `g` is committed. The rows also show that the line is what
/// the witness oracle holds.
pub fn verify_queries<const D: usize, R: Reader<D>>(
    params: &Parameters,
    reader: &mut R,
    stack: &Stack,
    roots: &[Digest],
    combined: Combined<D>,
    line: Option<&Line<D>>,
) -> Verdict<()> {
    let log_domain = stack.log_rows + ORACLE_LOG_BLOWUP;
    let indices = distinct(reader.indices("row indices", params.row_queries(), log_domain));
    let points: Vec<F> = indices.iter().map(|&i| ntt::point(log_domain, i)).collect();
    if stack.layouts.iter().filter(|o| o.has_mask()).count() != usize::from(line.is_some()) {
        return Err(Reject::Equation("the line"));
    }
    let taken = stack
        .layouts
        .iter()
        .map(|layout| take_rows(reader, layout.leaf(), layout.log_domain(), reduced(&indices, layout.log_domain())))
        .collect::<Verdict<Vec<Rows>>>()?;
    let oracles: Vec<_> = stack.layouts.iter().zip(&taken).zip(roots).zip(&stack.bases).collect();
    let sums = oracles.into_par_iter().map(|(((layout, rows), root), &base)| {
        let cells = rows.check(root)?;
        let weights = &combined.columns[base..][..layout.stack_columns()];
        if let (true, Some(line)) = (layout.has_mask(), line) {
            // As long as the longest oracle: its rows are the indices themselves.
            line.check(
                cells.chunks_exact(layout.leaf().columns).map(|row| (element(row, layout.columns, 1), element(row, layout.columns, 2))),
                &points,
            )?;
        }
        let sum = |row: &[F]| {
            let of_data = row[..layout.columns].iter().zip(weights).map(|(&c, w)| w.scale(c)).sum::<K<D>>();
            if layout.has_mask() { of_data + weights[layout.columns] * element(row, layout.columns, 0) } else { of_data }
        };
        Ok(cells.chunks_exact(layout.leaf().columns).map(sum).collect())
    });
    let sums = sums.collect::<Vec<Verdict<Vec<K<D>>>>>().into_iter().collect::<Verdict<Vec<Vec<K<D>>>>>()?;
    let mut values = vec![K::ZERO; indices.len()];
    for ((layout, rows), sums) in stack.layouts.iter().zip(&taken).zip(sums) {
        let mask = (1 << layout.log_domain()) - 1;
        for (value, i) in values.iter_mut().zip(&indices) {
            // Every reduced index is in `rows`, which was made from the same list.
            let k = rows.rows().partition_point(|&row| row < i & mask);
            *value += sums[k];
        }
    }
    if !combined.pads.is_empty() {
        // What is left are the values of the coefficients below L_max.
        let beyond = evaluate(&combined.pads, &points);
        for ((value, &x), y) in values.iter_mut().zip(&points).zip(beyond) {
            *value -= y.scale(x.exp_power_of_2(stack.log_rows));
        }
    }
    match combined.g {
        Polynomial::Clear(g) => {
            let flat: Vec<F> = g.iter().flat_map(|x| x.0).collect();
            let word = ntt::encode_rows(&flat, D, stack.log_rows, log_domain);
            let at = |i: usize| {
                let mut row = word.row(i);
                Ext(core::array::from_fn(|_| row.next().unwrap_or_default()))
            };
            match indices.iter().zip(values).all(|(&i, value)| at(i) == value) {
                true => Ok(()),
                false => Err(Reject::Row { oracle: "combined polynomial" }),
            }
        }
        Polynomial::Root(root) => whir::verify(params, reader, root, &combined.z, combined.s, &indices, &values),
    }
}

/// Element `which` over `K` behind `columns` base columns: 0 the mask, 1 and 2 the line's `r` and `b`.
fn element<const D: usize>(row: &[F], columns: usize, which: usize) -> K<D> {
    Ext(core::array::from_fn(|d| row[columns + which * D + d]))
}
