//! The verifier of an opening. Its work is on the sides of blocks and on opened rows.


use super::open::distinct;
use super::oracle::Stack;
use super::sumcheck::{ByStorage, batch};
use super::{Claim, whir};
use crate::channel::Reader;
use crate::eq::{eq, tensor};
use crate::field::{Ext, K};
use crate::hash::{Digest, Key};
use crate::ntt;
use crate::parameters::{ORACLE_LOG_BLOWUP, Parameters};
use crate::reject::{Reject, Verdict};

/// Checks that the oracles under `roots` satisfy all claims.
pub fn verify_opening<const D: usize, R: Reader<D>>(
    parameters: &Parameters,
    reader: &mut R,
    stack: &Stack,
    roots: &[Digest],
    claims: Vec<Claim<R::Value, D>>,
) -> Verdict<()> {
    let eta: K<D> = reader.challenge("batch");
    let mut claim = reader.constant(K::ZERO);
    let mut power = K::ONE;
    let mut functionals = Vec::with_capacity(claims.len());
    for c in claims {
        claim = reader.add_scaled(&claim, &c.value, power);
        power *= eta;
        functionals.push(c.functionals);
    }
    let functionals = batch(functionals, eta);

    let bits = stack.log_rows + stack.column_bits;
    let mut point = Vec::with_capacity(bits);
    for j in 0..bits {
        let h = reader.receive("opening round", 2)?;
        let z: K<D> = reader.challenge("opening round");
        point.push(z);
        // h(X) = h0 + h1 X + h2 X^2; the claim is h1 in the coefficient basis, h(0) + h(1) in the other.
        claim = reader.scale(&claim, z);
        let of_h0 = if j < stack.log_rows { K::ONE } else { K::ONE - z.double() };
        let of_h2 = if j < stack.log_rows { z * z } else { z * z - z };
        claim = reader.add_scaled(&claim, &h[0], of_h0);
        claim = reader.add_scaled(&claim, &h[1], of_h2);
    }
    let s = reader.receive_clear("opening value", 1)?[0];
    let expected = reader.constant(s * weight_at(stack, &functionals, &point));
    let difference = reader.sub(&expected, &claim);
    reader.assert_zero(&difference, "opening sumcheck")?;

    let (rows, columns) = point.split_at(stack.log_rows);
    let log_domain = stack.log_rows + ORACLE_LOG_BLOWUP;
    let clear = parameters.is_clear(stack.log_rows);
    let (g, root) = if clear {
        (reader.receive_clear("g", 1 << stack.log_rows)?, [0; 32])
    } else {
        let root = reader.receive_bytes("g", 32)?.try_into().map_err(|_| Reject::Truncated { at: "g" })?;
        (Vec::new(), root)
    };
    let queries = reader.indices("rows", parameters.queries(ORACLE_LOG_BLOWUP), log_domain);
    let full = distinct(&queries, log_domain);
    let mut values = vec![K::ZERO; full.len()];
    let weights = eq(columns);
    for (k, (layout, root)) in stack.layouts.iter().zip(roots).enumerate() {
        let log = layout.log_rows + ORACLE_LOG_BLOWUP;
        let mine = distinct(&queries, log);
        let key = Key::leaf(layout.role.name(), layout.columns, false);
        let opened = whir::read_leaves(reader, layout.role.name(), &key, root, &mine, layout.columns, log)?;
        let weights = &weights[stack.bases[k]..][..layout.columns];
        let sums: Vec<K<D>> = opened.chunks_exact(layout.columns).map(|row| row.iter().zip(weights).map(|(&x, w)| w.scale(x)).sum()).collect();
        for (value, &i) in values.iter_mut().zip(&full) {
            let at = mine.binary_search(&(i & ((1 << log) - 1))).map_err(|_| Reject::Row { oracle: layout.role.name() })?;
            *value += sums[at];
        }
    }
    if !clear {
        return whir::verify(parameters, reader, root, rows, s, &full, &values);
    }
    let monomials = tensor(&rows.iter().map(|&z| (K::ONE, z)).collect::<Vec<_>>());
    if g.iter().zip(&monomials).map(|(&a, &b)| a * b).sum::<K<D>>() != s {
        return Err(Reject::Equation("opening value"));
    }
    // Two small transforms are cheaper than evaluating g at every row.
    let word = ntt::encode(g.iter().flat_map(|x| x.0).collect(), D, log_domain);
    for (&i, &value) in full.iter().zip(&values) {
        let at: K<D> = Ext(core::array::from_fn(|d| word[i * D + d]));
        if at != value {
            return Err(Reject::Row { oracle: "stack" });
        }
    }
    Ok(())
}

/// The multilinear weight of all functionals at the final point, folded side by side.
fn weight_at<const D: usize>(stack: &Stack, functionals: &ByStorage<D>, point: &[K<D>]) -> K<D> {
    let low: Vec<(K<D>, K<D>)> =
        point.iter().enumerate().map(|(j, &z)| if j < stack.log_rows { (z, K::ONE) } else { (K::ONE - z, z) }).collect();
    let mut tables: std::collections::HashMap<(usize, usize), Vec<K<D>>> = std::collections::HashMap::new();
    let mut total = K::ZERO;
    for (k, layout) in stack.layouts.iter().enumerate() {
        let start = stack.log_stride(k);
        for b in &layout.blocks {
            let Some(mine) = functionals.get(&(k, b.owner)) else { continue };
            let (middle, end) = (start + b.channels.log(), start + b.log());
            let index = stack.index(k, b);
            let outer = (0..start).chain(end..point.len()).fold(K::ONE, |t, j| t * if index >> j & 1 == 1 { low[j].1 } else { low[j].0 });
            for range in [(start, middle), (middle, end)] {
                tables.entry(range).or_insert_with(|| tensor(&low[range.0..range.1]));
            }
            let (across, along) = (&tables[&(start, middle)], &tables[&(middle, end)]);
            for (u, v) in mine {
                let side = |x: &[K<D>], t: &[K<D>]| x.iter().zip(t).map(|(&a, &b)| a * b).sum::<K<D>>();
                let channels = side(&v[b.channels.range()], across);
                if channels != K::ZERO {
                    total += outer * channels * side(&u[b.positions.range()], along);
                }
            }
        }
    }
    total
}

