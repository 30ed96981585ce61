//! The lookup tree's leaves, filled strip by strip, against the definition of a lookup cell by cell. Values are arbitrary field elements, as
//! a malicious prover's would be.

mod support;

use std::ops::ControlFlow;

use nexus_edge_core::field::{Ext, F, K, from_i64};
use nexus_edge_core::layout::{Form, Layout, Lookup, Rows, Source, Term};
use nexus_edge_core::logup::{LeafBlocks, Leaves};
use nexus_edge_core::program::check::CheckedProgram;
use nexus_edge_core::program::{Edge, Weights};
use nexus_edge_core::prover::values::{Witness, tensor};
use support::{Net, Random, nets, window};

fn element(random: &mut Random) -> F {
    from_i64(random.next() as i64 >> 1)
}

fn extension<const D: usize>(random: &mut Random) -> K<D> {
    Ext(core::array::from_fn(|_| element(random)))
}

/// `scale * by_position[p] * by_channel[c] * source`, straight from the definition.
fn term(layout: &Layout, witness: &Witness, lookup: &Lookup, t: &Term, p: usize, c: usize) -> F {
    let row = match &t.rows {
        Rows::Same => p,
        Rows::Gather(index) => index.get(p),
        Rows::Scatter(index) => match index.iter().position(|i| i == p) {
            Some(row) => row,
            None => return from_i64(0),
        },
    };
    let channel = lookup.channels.get(c);
    let stored = |s: usize, c: usize| witness.storages[s][row * layout.storages[s].channels + c];
    let source = match &t.source {
        Source::One => from_i64(1),
        Source::Local(s) => stored(*s, c),
        Source::Broadcast(s) => witness.storages[*s][row],
        Source::RowSum(s) => (0..layout.storages[*s].channels).map(|c| stored(*s, c)).sum(),
        Source::RowSums(s) => (0..layout.storages[*s].channels).map(|k| witness.storages[*s][c * layout.storages[*s].channels + k]).sum(),
        Source::ColumnSums(s) => witness.storages[*s].iter().skip(c).step_by(layout.storages[*s].channels).copied().sum(),
        Source::Tensor(x) => tensor(layout, witness, *x)[row * layout.views[*x as usize].channels + channel],
        Source::Accumulator(a) => witness.accumulators[*a][row * layout.accumulators[*a].channels + channel],
    };
    let factors = [t.by_position.as_ref().map(|v| v.values[p]), t.by_channel.as_ref().map(|v| v.values[c])];
    factors.into_iter().flatten().fold(source * from_i64(t.scale), |x, f| x * from_i64(f))
}

fn check<const D: usize>((program, _): &(CheckedProgram, Weights), committed_weights: bool, seed: u64) {
    let ports = program.inputs.len() + program.outputs.len();
    let layout = Layout::new(program, Form { committed: vec![true; ports], committed_weights }).expect("a layout");
    check_layout::<D>(&program.name, &layout, seed);
}

fn check_layout<const D: usize>(name: &str, layout: &Layout, seed: u64) {
    let mut random = Random(seed);
    let mut fill = |n: usize| (0..n).map(|_| element(&mut random)).collect::<Vec<F>>();
    let witness = Witness {
        storages: layout.storages.iter().map(|s| fill(s.positions * s.channels)).collect(),
        accumulators: layout.accumulators.iter().map(|a| fill(a.positions * a.channels)).collect(),
    };
    let alpha: K<D> = extension(&mut random);
    let betas: Vec<K<D>> = (0..layout.tuple_width()).map(|_| extension(&mut random)).collect();
    let blocks = LeafBlocks::new(layout);
    let flow = Leaves::new(layout, &witness, &blocks, alpha, &betas, &mut |_| ControlFlow::Continue(()));
    let leaves = flow.continue_value().expect("nobody stops it");
    for b in &blocks.blocks {
        for i in 0..b.size() {
            let (p, c) = (b.positions.start + i / b.channels.size, b.channels.start + i % b.channels.size);
            let inside = b.positions.range().contains(&p) && b.channels.range().contains(&c);
            let expected = match layout.lookups.get(b.owner) {
                _ if !inside => (from_i64(0), K::ONE),
                // Cells are many, and what is slow here is very slow: every seventh of the large blocks.
                Some(_) if b.size() > 1 << 10 && i % 7 != 0 => continue,
                Some(lookup) => {
                    let entry = |e: &Vec<Term>| e.iter().map(|t| term(layout, &witness, lookup, t, p, c)).sum::<F>();
                    let start = alpha - betas[0].scale(from_i64(lookup.table as i64 + 1));
                    (from_i64(1), lookup.entries.iter().zip(&betas[1..]).fold(start, |q, (e, beta)| q - beta.scale(entry(e))))
                }
                None => {
                    let at = b.owner - layout.lookups.len();
                    let table = &layout.tables[at];
                    let row = p * layout.storages[table.multiplicities].channels + c;
                    let start = alpha - betas[0].scale(from_i64(at as i64 + 1));
                    let columns = (0..table.columns.len()).zip(&betas[1..]);
                    let q = columns.fold(start, |q, (j, beta)| q - beta.scale(from_i64(table.value(j, row))));
                    (-witness.storages[table.multiplicities][row], q)
                }
            };
            assert_eq!(leaves.fraction(b.offset + i), expected, "{name} block at {} leaf {i}", b.offset);
        }
    }
    for i in blocks.total..blocks.total.next_multiple_of(8) {
        assert_eq!(leaves.fraction(i), (from_i64(0), K::<D>::ONE));
    }
}

/// Enough rows and channels for several strips and blocks of 8, 16 and 32 channels, some of them padded.
fn wide() -> (CheckedProgram, Weights) {
    let mut n = Net::new("wide", 31);
    let x = n.tensor("x", &[1, 13, 9, 3], 0.02, 7);
    n.b.input(x, Edge::Integer).expect("input");
    let h = n.tensor("h", &[1, 13, 9, 8], 0.05, -20);
    n.conv((x, 7), h, window((13, 9), (13, 9), (1, 1), (1, 1), (0, 0)), &[8, 1, 1, 3], -128, false);
    let y = n.tensor("y", &[1, 13, 9, 47], 0.05, 4);
    n.conv((h, -20), y, window((13, 9), (13, 9), (1, 1), (1, 1), (0, 0)), &[47, 1, 1, 8], -128, false);
    n.b.output(y, Edge::Integer).expect("output");
    n.b.finish(Some(10)).expect("a valid program")
}

#[test]
fn leaves_are_the_lookups_cell_by_cell() {
    let small = [nets::convolution(), nets::chain(), nets::max_pool(), nets::average_pool(), nets::tables(), nets::views()];
    for (i, net) in small.iter().chain(&[nets::softmax(3, 5), support::everything(4, 10), wide()]).enumerate() {
        check::<2>(net, i % 2 == 0, i as u64);
        check::<3>(net, i % 2 == 1, 100 + i as u64);
    }
}

#[test]
fn leaves_of_registrations_are_the_lookups_cell_by_cell() {
    for depthwise in [false, true] {
        let layout = Layout::registration(&nets::private_layer(depthwise, 1).0).expect("private");
        check_layout::<2>("registration", &layout, 7);
        check_layout::<3>("registration", &layout, 8);
    }
}
