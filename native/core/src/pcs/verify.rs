//! The verifier's side of an opening: work on sides, columns and queries, never on areas.

use std::sync::Arc;

use rayon::prelude::*;

use super::code::Rows;
use super::functional::{Claim, batch};
use super::open::reduced;
use super::oracle::OracleLayout;
use super::points::{spread_values_at, values_beyond};
use super::stack::Stack;
use super::weight::weight_at;
use super::whir::{self, distinct, monomials};
use crate::channel::Reader;
use crate::eq::eq;
use crate::field::{Ext, F, K};
use crate::hash::Digest;
use crate::masking::Line;
use crate::ntt;
use crate::parameters::Parameters;
use crate::reject::{Reject, Verdict};
use crate::run::Run;

/// The column combination as received, before any index is drawn.
pub struct Combined<const D: usize> {
    /// Weights of the stack's columns.
    pub(crate) columns: Vec<K<D>>,
    /// The point below `log2(L_max)`.
    pub(crate) z: Vec<K<D>>,
    s: K<D>,
    /// Coefficients of the combination from `X^L_max` on, as many powers apart as the mask's stride: those of random pads.
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
    let log_domain = stack.log_domain();
    let indices = distinct(reader.indices("row indices", params.row_queries(), log_domain));
    let points = ntt::points(log_domain, &indices);
    if stack.layouts.iter().filter(|o| o.has_mask()).count() != usize::from(line.is_some()) {
        return Err(Reject::Equation("the line"));
    }
    let rows: Vec<Rows> = stack.layouts.iter().map(|o| Rows::new(o.leaf(), o.log_domain(), reduced(&indices, o.log_domain()))).collect();
    let mut rest = reader.take("rows", rows.iter().map(Rows::size).sum())?;
    let mut oracles = Vec::with_capacity(rows.len());
    for (((layout, rows), root), &base) in stack.layouts.iter().zip(&rows).zip(roots).zip(&stack.bases) {
        let (opening, others) = rest.split_at(rows.size());
        rest = others;
        oracles.push((layout, rows, root, opening, &combined.columns[base..][..layout.stack_columns()]));
    }
    let see = |(layout, rows, root, opening, weights): (&Arc<OracleLayout>, &Rows, &Digest, &[u8], &[K<D>])| {
        let of_data = Run::from(weights[..layout.columns].to_vec());
        rows.check(opening, root, |row| {
            let sum = of_data.dot_base(&row[..layout.columns]);
            if !layout.has_mask() {
                return Seen { sum, line: [K::ZERO; 2] };
            }
            let [mask, r, b] = core::array::from_fn(|which| element(row, layout.columns, which));
            Seen { sum: sum + weights[layout.columns] * mask, line: [r, b] }
        })
    };
    // The line is a word of the witness's code.
    let with_line = || {
        let (Some(line), Some(at)) = (line, stack.layouts.iter().position(|o| o.has_mask())) else { return Vec::new() };
        line.values(&ntt::points(stack.layouts[at].log_domain(), rows[at].rows()))
    };
    let (seen, on_line) = rayon::join(|| oracles.into_par_iter().map(see).collect::<Vec<_>>(), with_line);
    let seen = seen.into_iter().collect::<Verdict<Vec<Vec<Seen<D>>>>>()?;
    let mut values = vec![K::ZERO; indices.len()];
    for ((layout, rows), seen) in stack.layouts.iter().zip(&rows).zip(seen) {
        if let (true, Some(line)) = (layout.has_mask(), line) {
            line.check(seen.iter().map(|s| s.line), &on_line)?;
        }
        let mask = (1 << layout.log_domain()) - 1;
        for (value, i) in values.iter_mut().zip(&indices) {
            *value += seen[rows.place(i & mask)].sum;
        }
    }
    let apart = stack.log_mask_stride();
    match combined.g {
        Polynomial::Clear(g) if spread_values_at(&g, &combined.pads, apart, &indices, log_domain) == values => Ok(()),
        Polynomial::Clear(_) => Err(Reject::Row { oracle: "combined polynomial" }),
        Polynomial::Root(root) => {
            // What is left are the values of the coefficients below L_max.
            let beyond = values_beyond(&combined.pads, apart, stack.log_rows, &points);
            values.iter_mut().zip(beyond).for_each(|(value, y)| *value -= y);
            whir::verify(params, reader, root, &combined.z, combined.s, &indices, &values)
        }
    }
}

/// What the verifier takes from an opened row: its share of the combination, and for the line the elements of `r` and `b`.
struct Seen<const D: usize> {
    sum: K<D>,
    line: [K<D>; 2],
}

/// Element `which` over `K` behind `columns` base columns: 0 the mask, 1 and 2 the line's `r` and `b`.
fn element<const D: usize>(row: &[F], columns: usize, which: usize) -> K<D> {
    Ext(core::array::from_fn(|d| row[columns + which * D + d]))
}
