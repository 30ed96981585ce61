use std::ops::ControlFlow;
use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;
use proptest::prelude::*;

use super::*;
use crate::channel::{PlainReader, ProofBytes, Prover, Reader, Transcript};
use crate::field::{Ext, F, K, P, centred, from_i64};
use crate::masking::MaskedReader;
use crate::parameters::{Mode, Parameters};
use crate::random::{Randomness, Seed};
use crate::reject::{Reject, Verdict};
use crate::side::Side;

/// A well-mixed element for each seed.
pub(crate) fn element<const D: usize>(seed: u64) -> K<D> {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 32)
    };
    Ext(core::array::from_fn(|d| F::from_u64(mix(seed.wrapping_mul(D as u64 + 1) + d as u64 + 1) % P)))
}

/// An opening with everything that both sides know.
struct Case<const D: usize> {
    params: Parameters,
    stack: Stack,
    values: Vec<Vec<Vec<F>>>,
    claims: Vec<Claim<K<D>, D>>,
}

fn value<const D: usize>(stack: &Stack, values: &[Vec<Vec<F>>], f: &Functional<D>) -> K<D> {
    let (positions, channels) = stack.layouts[f.oracle].shapes[f.storage];
    let (u, v) = (f.u.to_vec(), f.v.to_vec());
    (0..positions).map(|p| (0..channels).map(|c| v[c].scale(values[f.oracle][f.storage][p * channels + c])).sum::<K<D>>() * u[p]).sum()
}

impl<const D: usize> Case<D> {
    /// Storages of the given shapes by oracle, cells from `seed`; each claim has functionals on storages drawn from `seed`, on parts of their
    /// sides only, some sharing a side.
    fn new(params: Parameters, shapes: &[(Role, Vec<(usize, usize)>)], claims: usize, seed: u64) -> Self {
        let hiding = |i: usize, role: Role| match (params.mode(), role) {
            (Mode::Plain, _) => Hiding::None,
            (Mode::Zk, _) if i == 0 => Hiding::Fresh { pads: params.pads(), degree: D },
            (Mode::Zk, Role::Model) => Hiding::None,
            (Mode::Zk, _) => Hiding::Kept,
        };
        let layout = |(i, (role, s)): (usize, &(Role, Vec<(usize, usize)>)), log_rows: usize| {
            OracleLayout::with_rows(&params, *role, i as u32, s.clone(), hiding(i, *role), log_rows)
        };
        // Public weights may be longer than the mask.
        let longest = shapes.iter().enumerate().map(|x| layout(x, 0)).filter(|o| o.hiding != Hiding::None).map(|o| o.log_rows).max();
        let longest = longest.unwrap_or(0);
        let layouts =
            shapes.iter().enumerate().map(|x| Arc::new(layout(x, if x.0 == 0 && params.mode() == Mode::Zk { longest } else { 0 })));
        let stack = Stack::new(layouts.collect());
        let values: Vec<Vec<Vec<F>>> = shapes
            .iter()
            .enumerate()
            .map(|(o, (_, s))| {
                let any = |i: usize| element::<2>(seed + 1000 * o as u64 + i as u64).0[0];
                // Storages of small integers and others take turns.
                let cell = |i: usize, k: usize| if k.is_multiple_of(2) { from_i64(centred(any(i)) >> 40) } else { any(i) };
                s.iter().enumerate().map(|(k, (p, c))| (0..p * c).map(|i| cell(i + 77 * k, k)).collect()).collect()
            })
            .collect();
        let claims = (0..claims as u64)
            .map(|k| {
                let pick =
                    |i: u64, n: usize| (crate::field::canonical(element::<2>(seed ^ (k << 20) ^ (i << 40)).0[0]) % n as u64) as usize;
                let functionals: Vec<_> = (0..1 + pick(0, 3) as u64)
                    .map(|i| {
                        let oracle = pick(10 * i + 1, shapes.len());
                        let storage = pick(10 * i + 2, shapes[oracle].1.len());
                        let (positions, channels) = shapes[oracle].1[storage];
                        let side = |n: usize, salt: u64| -> Vec<K<D>> {
                            let (a, b) = (pick(salt, n), pick(salt + 1, n));
                            (0..n).map(|j| if (a.min(b)..=a.max(b)).contains(&j) { element(salt + j as u64) } else { K::ZERO }).collect()
                        };
                        let (u, v) = (side(positions, pick(10 * i + 3, 2) as u64), side(channels, 10 * i + 5));
                        Functional { oracle, storage, u: u.into(), v: v.into() }
                    })
                    .collect();
                let value = functionals.iter().map(|f| value(&stack, &values, f)).sum();
                Claim { functionals, value }
            })
            .collect();
        Case { params, stack, values, claims }
    }

    fn commit(&self, values: &[Vec<Vec<F>>]) -> Vec<Committed> {
        let mut random = Randomness::chosen([7; 32]);
        let seed = Seed::from_bytes([8; 32]);
        let slices = |v: &Vec<Vec<F>>| v.iter().map(|s| s.to_vec()).collect::<Vec<_>>();
        self.stack
            .layouts
            .iter()
            .zip(values)
            .map(|(layout, v)| {
                let owned = slices(v);
                let borrowed: Vec<&[F]> = owned.iter().map(Vec::as_slice).collect();
                let secret = match layout.hiding {
                    Hiding::None => Secret::None,
                    Hiding::Fresh { .. } => Secret::Fresh(Drawn::new(&mut random, layout, 2 * self.stack.variables())),
                    Hiding::Kept => Secret::Kept(&seed),
                };
                commit(&self.params, layout.clone(), &borrowed, secret)
            })
            .collect()
    }

    fn prove(&self, committed: &[Committed]) -> Vec<u8> {
        let mut prover = Prover::default();
        let fresh = committed.iter().find_map(|c| c.fresh.as_ref());
        if let Some(fresh) = fresh {
            prover = prover.masked(fresh.r.clone());
        }
        let claims: Vec<_> = self.claims.iter().map(|c| c.functionals.clone()).collect();
        let oracles: Vec<_> = committed.iter().collect();
        let combination = combine(&self.params, &mut prover, &self.stack, &oracles, &claims, &mut |_| ControlFlow::Continue(()));
        let ControlFlow::Continue(combination) = combination else { panic!("nobody stops it") };
        if let Some(fresh) = fresh {
            let so_far = prover.so_far().to_vec();
            let mut reader = MaskedReader::<_, D>::new(ProofBytes::new(Transcript::new(), &so_far));
            // Whether the claims hold is the verifier's business.
            let _ = self.read(&mut reader, &roots(committed), &self.claims);
            let line = |flat: &[F]| -> Vec<K<D>> { flat.as_chunks::<D>().0.iter().map(|&c| Ext(c)).collect() };
            reader.forge(&mut prover, &line(&fresh.r), &line(&fresh.b), None);
        }
        query(&self.params, &mut prover, &self.stack, &oracles, combination);
        prover.finish()
    }

    fn read<R: Reader<D>>(&self, reader: &mut R, roots: &[[u8; 32]], claims: &[Claim<K<D>, D>]) -> Verdict<Combined<D>> {
        let claims: Vec<_> = claims.iter().map(|c| Claim { functionals: c.functionals.clone(), value: reader.constant(c.value) }).collect();
        verify_combination(&self.params, reader, &self.stack, roots, &claims)
    }

    fn verify(&self, roots: &[[u8; 32]], claims: Vec<Claim<K<D>, D>>, proof: &[u8]) -> Verdict<()> {
        if self.params.mode() == Mode::Zk {
            let mut reader = MaskedReader::<_, D>::new(ProofBytes::new(Transcript::new(), proof));
            let combined = self.read(&mut reader, roots, &claims)?;
            let line = reader.settle(self.params.pads())?;
            verify_queries(&self.params, &mut reader, &self.stack, roots, combined, line.as_ref())?;
            return reader.into_source().finish();
        }
        let mut reader = PlainReader::new(Transcript::new(), proof);
        let combined = self.read(&mut reader, roots, &claims)?;
        verify_queries(&self.params, &mut reader, &self.stack, roots, combined, None)?;
        reader.finish()
    }
}

fn roots(committed: &[Committed]) -> Vec<[u8; 32]> {
    committed.iter().map(|c| c.root).collect()
}

fn shape() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![(1usize..40, 1usize..40), Just((1, 1)), (1usize..4, 1usize..300), (1usize..300, 1usize..4)]
}

fn oracles() -> impl Strategy<Value = Vec<(Role, Vec<(usize, usize)>)>> {
    let role = prop_oneof![Just(Role::Witness), Just(Role::Tensor), Just(Role::Model)];
    prop::collection::vec((role, prop::collection::vec(shape(), 1..6)), 1..4)
}

fn round_trip<const D: usize>(
    mode: Mode,
    shapes: Vec<(Role, Vec<(usize, usize)>)>,
    columns: usize,
    min: usize,
    clear: usize,
    claims: usize,
    seed: u64,
) {
    // Room for the line, which has two messages for each variable of the opening.
    let min = if mode == Mode::Zk { min.max(6) } else { min };
    let params = Parameters::tiny_in(mode, D, columns, min, clear, 2);
    let case = Case::<D>::new(params, &shapes, claims, seed);
    let committed = case.commit(&case.values);
    let proof = case.prove(&committed);
    assert_eq!(case.verify(&roots(&committed), case.claims.clone(), &proof), Ok(()));
    for k in 0..case.claims.len() {
        let mut wrong = case.claims.clone();
        wrong[k].value += element(5);
        let reason = if mode == Mode::Zk { crate::masking::EQUATIONS } else { "opening sumcheck" };
        assert_eq!(case.verify(&roots(&committed), wrong, &proof), Err(Reject::Equation(reason)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn honest_openings_pass_and_wrong_values_do_not(
        shapes in oracles(), columns in 2usize..20, min in 0usize..5, clear in 4usize..12, claims in 0usize..6, cubic: bool, seed: u32, hiding: bool,
    ) {
        let mode = if hiding { Mode::Zk } else { Mode::Plain };
        if cubic {
            round_trip::<3>(mode, shapes, columns, min, clear, claims, seed as u64);
        } else {
            round_trip::<2>(mode, shapes, columns, min, clear, claims, seed as u64);
        }
    }
}

/// Oracles of three lengths and widths that hide nothing. `clear` decides whether `g` (2^7 coefficients) is sent or committed.
fn fixed<const D: usize>(clear: usize) -> Case<D> {
    let shapes =
        [(Role::Witness, vec![(40, 24), (7, 3), (1, 5)]), (Role::Tensor, vec![(9, 2)]), (Role::Model, vec![(17, 9), (1, 9), (30, 2)])];
    let case = Case::new(Parameters::tiny(D, 8, 2, clear, 2), &shapes, 5, 3);
    assert_eq!(case.stack.log_rows, 7);
    assert_ne!(case.stack.layouts[1].log_rows, case.stack.layouts[2].log_rows);
    case
}

/// A tensor under a witness that is longer and under public weights that are longer still: the mask's coefficients are a stride apart.
fn strided<const D: usize>(clear: usize) -> Case<D> {
    let shapes =
        [(Role::Witness, vec![(40, 24), (7, 3), (1, 5)]), (Role::Tensor, vec![(9, 2)]), (Role::Model, vec![(90, 17), (1, 9), (30, 2)])];
    let mut case = Case::new(Parameters::tiny_in(Mode::Zk, D, 8, 6, clear, 2), &shapes, 5, 3);
    assert_eq!([0, 1, 2].map(|o| case.stack.layouts[o].log_rows), [7, 6, 8]);
    assert_eq!(case.stack.log_mask_stride(), 1);
    // What is claimed of each oracle, and not only of those that chance chose.
    for oracle in 0..3 {
        let (positions, channels) = case.stack.layouts[oracle].shapes[0];
        let [u, v] = [positions, channels].map(|n| (0..n as u64).map(element).collect::<Vec<K<D>>>().into());
        let functionals = vec![Functional { oracle, storage: 0, u, v }];
        let value = value(&case.stack, &case.values, &functionals[0]);
        case.claims.push(Claim { functionals, value });
    }
    case
}

/// Plain and under a mask with a stride, with a committed and with a clear combination, in both degrees.
macro_rules! in_all_modes {
    ($($name:ident: $check:ident;)*) => {
        $(#[test]
        fn $name() {
            for clear in [12, 4] {
                $check(&fixed::<2>(clear));
                $check(&fixed::<3>(clear));
                $check(&strided::<2>(clear));
                $check(&strided::<3>(clear));
            }
        })*
    };
}

in_all_modes! {
    every_flipped_byte_is_refused: flips;
    truncated_and_extended_proofs_are_refused: lengths;
    swapped_roots_are_refused: swaps;
    other_cells_than_committed_are_refused: other_cells;
    openings_can_be_interrupted: interrupts;
    claims_must_fit: misfits;
}

fn flips<const D: usize>(case: &Case<D>) {
    let committed = case.commit(&case.values);
    let proof = case.prove(&committed);
    let roots = roots(&committed);
    for i in 0..proof.len() {
        let mut other = proof.clone();
        other[i] ^= 1 << (i % 8);
        assert!(case.verify(&roots, case.claims.clone(), &other).is_err(), "byte {i} of {}", proof.len());
    }
    for o in 0..roots.len() {
        let mut other = roots.clone();
        other[o][0] ^= 1;
        assert!(case.verify(&other, case.claims.clone(), &proof).is_err());
    }
}

fn lengths<const D: usize>(case: &Case<D>) {
    let committed = case.commit(&case.values);
    let proof = case.prove(&committed);
    let roots = roots(&committed);
    for n in (0..proof.len()).step_by(13).chain([proof.len() - 1]) {
        assert!(matches!(case.verify(&roots, case.claims.clone(), &proof[..n]), Err(Reject::Truncated { .. } | Reject::Equation(_))));
    }
    let mut longer = proof;
    longer.push(0);
    assert_eq!(case.verify(&roots, case.claims.clone(), &longer), Err(Reject::Trailing { extra: 1 }));
}

fn swaps<const D: usize>(case: &Case<D>) {
    let committed = case.commit(&case.values);
    let proof = case.prove(&committed);
    let mut roots = roots(&committed);
    roots.swap(0, 2);
    assert!(case.verify(&roots, case.claims.clone(), &proof).is_err());
    roots.pop();
    assert!(matches!(case.verify(&roots, case.claims.clone(), &proof), Err(Reject::Malformed { .. })));
}

/// The cheater runs the whole opening on cells that satisfy false claims and differ from the committed ones in one cell: only a row can tell.
/// The roots that the transcript binds are the committed ones.
fn other_cells<const D: usize>(case: &Case<D>) {
    for oracle in 0..3 {
        let mut cheating = case.values.clone();
        cheating[oracle][0][1] += F::ONE;
        let honest = case.commit(&case.values);
        let mut forged = case.commit(&cheating);
        for (f, h) in forged.iter_mut().zip(case.commit(&case.values)) {
            (f.root, f.code) = (h.root, h.code);
        }
        let proof = case.prove(&forged);
        let claims: Vec<_> = case
            .claims
            .iter()
            .map(|c| Claim {
                functionals: c.functionals.clone(),
                value: c.functionals.iter().map(|f| value(&case.stack, &cheating, f)).sum(),
            })
            .collect();
        let verdict = case.verify(&roots(&honest), claims, &proof);
        // With the combination in the clear the row itself contradicts it; else the values of the rows contradict the folded claim.
        let clear = case.params.is_clear(case.stack.log_rows);
        let expected = if clear { Reject::Row { oracle: "combined polynomial" } } else { Reject::Equation("folded claim") };
        assert_eq!(verdict, Err(expected));
    }
}

fn interrupts<const D: usize>(case: &Case<D>) {
    let committed = case.commit(&case.values);
    let mut reports = Vec::new();
    let mut run = |limit: usize| {
        reports.clear();
        let claims: Vec<_> = case.claims.iter().map(|c| c.functionals.clone()).collect();
        let oracles: Vec<_> = committed.iter().collect();
        let flow = combine(&case.params, &mut Prover::default(), &case.stack, &oracles, &claims, &mut |done| {
            reports.push(done);
            if reports.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (flow, reports.clone())
    };
    let (flow, all) = run(usize::MAX);
    assert!(flow.is_continue() && all.is_sorted() && all.last() == Some(&0.9));
    for limit in 1..=all.len() {
        let (flow, reports) = run(limit);
        assert!(flow.is_break() && reports.len() == limit);
    }
}

fn misfits<const D: usize>(case: &Case<D>) {
    let committed = case.commit(&case.values);
    let proof = case.prove(&committed);
    let broken: [fn(&mut Functional<D>); 4] =
        [|f| f.u = Side::zero(f.u.size() + 1), |f| f.v = Side::zero(0), |f| f.oracle = usize::MAX, |f| f.storage = usize::MAX];
    for breaks in broken {
        let mut claims = case.claims.clone();
        breaks(&mut claims[1].functionals[0]);
        assert!(matches!(case.verify(&roots(&committed), claims, &proof), Err(Reject::Malformed { what: "functional", .. })));
    }
}

/// A short oracle's column `f` enters as `f(X^stride)`: its code word has row `i mod D_j` at row `i` of the long domain.
#[test]
fn short_oracles_repeat_along_the_long_domain() {
    let f: Vec<F> = (0..8).map(|i| element::<2>(i).0[0]).collect();
    let mut spread = vec![F::ZERO; 32];
    for (i, &x) in f.iter().enumerate() {
        spread[4 * i] = x;
    }
    let (short, long) = (crate::ntt::encode_rows(&f, 1, 3, 4), crate::ntt::encode_rows(&spread, 1, 5, 6));
    assert!((0..64).all(|i| long.row(i).eq(short.row(i % 16))));
}
