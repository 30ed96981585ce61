//! The constraint system by itself, without a proof: every tuple is a row of its table, every copy holds, every clear tensor is its bytes.
//! Whether *some* multiplicities exist is the same as whether every tuple is a row, so that this checks all choices of them at once.

use nexus_edge_core::field::{F, centred, from_i64};
use nexus_edge_core::layout::{Layout, Order, Table};
use nexus_edge_core::prover::values::{Witness, entry, tensor};

/// Whether a tuple is a row.
fn is_row(table: &Table, tuple: &[F]) -> bool {
    let row = centred(tuple[0]).checked_sub(table.first).and_then(|r| usize::try_from(r).ok()).filter(|&r| r < 1 << table.log_rows);
    row.is_some_and(|row| tuple.iter().enumerate().all(|(j, &v)| v == from_i64(table.value(j, row))))
}

/// The lookups with a tuple that is no row.
pub fn violated_lookups(layout: &Layout, witness: &Witness) -> impl Iterator<Item = usize> {
    (0..layout.lookups.len()).filter(|&at| {
        let k = &layout.lookups[at];
        let columns: Vec<Vec<F>> = (0..k.entries.len()).map(|j| entry(layout, witness, k, j)).collect();
        (0..columns[0].len()).any(|i| !is_row(&layout.tables[k.table], &columns.iter().map(|c| c[i]).collect::<Vec<_>>()))
    })
}

/// The first of them.
pub fn violated_lookup(layout: &Layout, witness: &Witness) -> Option<usize> {
    violated_lookups(layout, witness).next()
}

/// Whether source and copy hold the same elements.
fn is_copy(layout: &Layout, witness: &Witness, at: usize) -> bool {
    let copy = &layout.copies[at];
    let (source, made) = (tensor(layout, witness, copy.source), tensor(layout, witness, copy.copy));
    let Order::Refined { dims, perm } = &copy.order else { return source == made };
    let moved: Vec<usize> = perm.iter().map(|&i| dims[i]).collect();
    (0..made.len()).all(|i| {
        let (mut rest, mut index) = (i, vec![0; moved.len()]);
        for d in (0..moved.len()).rev() {
            index[perm[d]] = rest % moved[d];
            rest /= moved[d];
        }
        made[i] == source[index.iter().zip(dims).fold(0, |n, (&k, &d)| n * d + k)]
    })
}

/// Whether the cells satisfy everything that a proof says of them, accumulators taken as they are.
pub fn is_satisfied(layout: &Layout, witness: &Witness, ports: &[Vec<i16>]) -> bool {
    let inputs = layout.form.committed.len() - layout.ports.len();
    let tied = |i: usize| {
        let cells = tensor(layout, witness, layout.ports[i]);
        match layout.port_storages[i] {
            Some(s) if i >= inputs => cells == witness.storages[s],
            Some(_) => true,
            None => cells.iter().zip(&ports[i]).all(|(&c, &v)| c == from_i64(v.into())),
        }
    };
    violated_lookup(layout, witness).is_none()
        && (0..layout.copies.len()).all(|c| is_copy(layout, witness, c))
        && (0..layout.ports.len()).all(tied)
}
