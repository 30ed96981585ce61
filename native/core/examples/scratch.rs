//! Scratch.
use nexus_edge_core::field::{F, P, canonical, from_i64};
use nexus_edge_core::hash::*;
use nexus_edge_core::merkle::Tree;
use nexus_edge_core::ntt::*;
use p3_field::PrimeCharacteristicRing;
fn cpu() -> f64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|t| {
            std::fs::read_to_string(t.unwrap().path().join("schedstat")).unwrap().split_whitespace().next().unwrap().parse::<f64>().unwrap()
        })
        .sum()
}
fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for (log, columns) in [(13, 40usize), (14, 64), (18, 40)] {
        let cells: Vec<i32> = (0..columns << log).map(|i| (i as i32).wrapping_mul(77) >> 24).collect();
        for _ in 0..3 {
            let t = cpu();
            let words = encode(columns, log, log + 1, |panel, row, out| {
                let mut cols = [[F::ZERO; 16]; 8];
                for c in 0..8 {
                    for (to, &x) in cols[c].iter_mut().zip(&cells[((panel * 8 + c) << log) + row..][..16]) {
                        *to = F::from_u64((x as i64 as u64).wrapping_add(P & ((x >> 31) as i64 as u64)));
                    }
                }
                for (i, to) in out.iter_mut().enumerate() {
                    *to = core::array::from_fn(|c| cols[c][i]);
                }
            });
            let t1 = cpu();
            let n = (columns << log) as f64;
            // hash only
            let key = Key::leaf("witness", columns, false);
            let size = leaf_bytes(columns, 0);
            let mut out = vec![[0u8; 32]; 2 << log];
            let mut buf = vec![0u8; 64 * size];
            for (run, out) in out.chunks_mut(64).enumerate() {
                for (k, panel) in words.panels().enumerate() {
                    for (bytes, row) in buf.chunks_exact_mut(size).zip(&panel[run * 64..][..out.len()]) {
                        for (to, &x) in bytes[64 * k..][..64].as_chunks_mut::<8>().0.iter_mut().zip(row) {
                            *to = canonical(x).to_le_bytes();
                        }
                    }
                }
                hash_blocks(&key, size / 64, &buf, out);
            }
            let t2 = cpu();
            let leaves: Vec<Digest> = (0..2usize << log).map(|i| out[reverse(i, log + 1)]).collect();
            let t3 = cpu();
            let tree = Tree::new(leaves);
            let t4 = cpu();
            println!(
                "2^{log} x {columns}: ntt {:.2} hash {:.2} permute {:.2} tree {:.2} ns/cell {:?}",
                (t1 - t) / n,
                (t2 - t1) / n,
                (t3 - t2) / n,
                (t4 - t3) / n,
                tree.root()[0]
            );
        }
    }
    // mul throughput
    use p3_field::{Field, PackedValue};
    type PF = <F as Field>::Packing;
    let mut x: [PF; 8] = core::array::from_fn(|i| PF::from(F::from_u64((i as u64 * 0x9e3779b97f4a7c15) % P)));
    let c = x[3];
    let d = x[5];
    let t = cpu();
    for _ in 0..1_000_000 {
        for y in &mut x {
            *y = *y * c;
        }
    }
    println!("mul {:.3} ns/lane {:?}", (cpu() - t) / 8e6 / 8.0, x[0].as_slice()[0]);
    let t = cpu();
    for _ in 0..1_000_000 {
        for k in 0..4 {
            let t = x[k + 4] * c;
            let a = x[k];
            x[k] = a + t;
            x[k + 4] = a - t;
        }
        x.swap(0, 5);
        x.swap(2, 7);
    }
    println!("butterfly {:.3} ns/lane-pair {:?}", (cpu() - t) / 4e6 / 8.0, x[0].as_slice()[0]);
    let t = cpu();
    for _ in 0..1_000_000 {
        for y in &mut x {
            *y = *y + d;
        }
    }
    println!("add {:.3} ns/lane {:?}", (cpu() - t) / 8e6 / 8.0, x[0].as_slice()[0]);
}
