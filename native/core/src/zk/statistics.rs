//! Many proofs under the same challenges: every coordinate is uniform and no classifier tells two inputs apart.
//!
//! All seeds are fixed, so that the outcome is too. The controls are provers that fail to draw something anew.

use super::support::private::private_form;
use super::support::{Random, dense, dense_with, nets};
use super::{Subject, coordinates, small_key, taped};
use crate::parameters::{Mode, Parameters};
use crate::program::Program;
use crate::proof::{ProvingKey, prove_taped, weight_conversation};
use crate::random::{Randomness, Seed, Weakness};

const TAPE: [u8; 32] = [11; 32];
/// Proofs of each input.
const PROOFS: usize = 120;
const CONTROLS: [Weakness; 4] = [Weakness::NoPads, Weakness::SameMasks, Weakness::SameMask, Weakness::Unmasked(3)];

/// The coordinates of some proofs.
type Sample = Vec<Vec<f64>>;

fn sample(subject: &Subject<'_>, proofs: usize, salt: u8, weakness: Weakness) -> Sample {
    let one = |k: usize| {
        let mut seed = [salt; 32];
        seed[..8].copy_from_slice(&k.to_le_bytes());
        let shown = subject.proof(TAPE, seed, weakness);
        if k == 0 {
            assert_eq!(subject.verify(TAPE, &shown), Ok(()));
        }
        subject.coordinates(TAPE, &shown)
    };
    (0..proofs).map(one).collect()
}

/// Two inputs with one output.
fn pair(key: &ProvingKey) -> [Subject<'_>; 2] {
    let subject = |seed: u64| Subject::new(key, &[true, false], &Random(seed).int8(3));
    let first = subject(1);
    let second = (2..).map(subject).find(|s| s.output() == first.output() && s.ports[0] != first.ports[0]);
    [first, second.expect("few outputs")]
}

fn key() -> ProvingKey {
    small_key(dense(1, 3, 1), true, 12)
}

/// The p-value of the Kolmogorov-Smirnov distance from the uniform distribution.
fn p_value(mut xs: Vec<f64>) -> f64 {
    xs.sort_unstable_by(f64::total_cmp);
    let n = xs.len() as f64;
    let distance = xs.iter().enumerate().map(|(i, &x)| ((i + 1) as f64 / n - x).max(x - i as f64 / n)).fold(0.0, f64::max);
    let lambda = distance * (n.sqrt() + 0.12 + 0.11 / n.sqrt());
    let terms = (1..40).map(|k| (if k % 2 == 1 { 2.0 } else { -2.0 }) * (-2.0 * (f64::from(k) * lambda).powi(2)).exp());
    terms.sum::<f64>().clamp(0.0, 1.0)
}

/// The smallest p-value times the number of tests: of each coordinate, and of sums of pairs, which see dependence.
fn uniformity(sample: &Sample) -> f64 {
    let (coordinates, mut random) = (sample[0].len(), Random(5));
    let single = (0..coordinates).map(|i| p_value(sample.iter().map(|x| x[i]).collect()));
    let pairs = (0..2000).map(|_| {
        let i = random.next() as usize % coordinates;
        let j = (i + 1 + random.next() as usize % (coordinates - 1)) % coordinates;
        p_value(sample.iter().map(|x| (x[i] + x[j]).fract()).collect())
    });
    single.chain(pairs).fold(1.0, f64::min) * (coordinates + 2000) as f64
}

fn mean(sample: &[Vec<f64>], i: usize) -> f64 {
    sample.iter().map(|x| x[i]).sum::<f64>() / sample.len() as f64
}

/// Share of proofs that a classifier assigns to the right input: it learns both means from one half and judges the other half by the nearest
/// one, over the `kept` coordinates whose means are furthest apart for their spread.
fn classified([a, b]: [&Sample; 2], kept: usize) -> f64 {
    let half = a.len() / 2;
    let spread = |s: &Sample, i: usize, m: f64| s[..half].iter().map(|x| (x[i] - m).powi(2)).sum::<f64>();
    let mut features: Vec<(f64, usize, f64, f64)> = (0..a[0].len())
        .map(|i| {
            let (x, y) = (mean(&a[..half], i), mean(&b[..half], i));
            ((x - y).powi(2) / (spread(a, i, x) + spread(b, i, y) + 1e-30), i, x, y)
        })
        .collect();
    features.sort_unstable_by(|x, y| y.0.total_cmp(&x.0));
    features.truncate(kept);
    let nearer_a = |v: &[f64]| features.iter().map(|&(_, i, x, y)| (v[i] - y).powi(2) - (v[i] - x).powi(2)).sum::<f64>() > 0.0;
    let right = a[half..].iter().filter(|v| nearer_a(v)).count() + b[half..].iter().filter(|v| !nearer_a(v)).count();
    right as f64 / (a.len() + b.len() - 2 * half) as f64
}

#[test]
fn every_coordinate_is_uniform() {
    let key = key();
    let [subject, _] = pair(&key);
    let honest = uniformity(&sample(&subject, PROOFS, 1, Weakness::None));
    assert!(honest > 1e-3, "{honest:e}");
    for weakness in CONTROLS {
        let weak = uniformity(&sample(&subject, 40, 1, weakness));
        assert!(weak < 1e-9, "{weakness:?}: {weak:e}");
    }
}

#[test]
fn two_inputs_cannot_be_told_apart() {
    let key = key();
    let [first, second] = pair(&key);
    let share = |proofs: usize, weakness: Weakness, kept: usize| {
        let (a, b) = (sample(&first, proofs, 1, weakness), sample(&second, proofs, 2, weakness));
        classified([&a, &b], kept)
    };
    for kept in [usize::MAX, 1, 16] {
        let honest = share(PROOFS, Weakness::None, kept);
        // Four standard deviations.
        assert!((honest - 0.5).abs() < 4.0 * (0.25 / PROOFS as f64).sqrt(), "{honest} of all by {kept} coordinates");
    }
    for weakness in CONTROLS {
        let weak = share(40, weakness, 1);
        assert!(weak > 0.9, "{weakness:?}: {weak}");
    }
}

#[test]
fn two_proofs_of_one_witness_differ_in_every_coordinate() {
    let key = key();
    let [subject, _] = pair(&key);
    let equal = |weakness| {
        let s = sample(&subject, 2, 3, weakness);
        s[0].iter().zip(&s[1]).filter(|(x, y)| x == y).count()
    };
    assert_eq!(equal(Weakness::None), 0);
    for weakness in CONTROLS {
        assert!(equal(weakness) > 0, "{weakness:?}");
    }
}

/// Public weights in a longer oracle than the witness and its mask: what they do not decide is uniform, and shows neither input nor output.
#[test]
fn two_inputs_cannot_be_told_apart_under_longer_public_weights() {
    let key = small_key(dense_with(1, 300, 300, 9), false, 13);
    let compiled = key.verifying.compiled(&[true, true]).expect("a layout");
    assert!(compiled.stack.log_mask_stride() > 0);
    let [first, second] = [1, 2].map(|seed| Subject::new(&key, &[true, true], &Random(seed).int8(300)));
    assert_ne!(first.output(), second.output());
    let samples = |proofs, weakness| [sample(&first, proofs, 1, weakness), sample(&second, proofs, 2, weakness)];
    let proofs = 80;
    let [a, b] = samples(proofs, Weakness::None);
    let uniform = uniformity(&a);
    assert!(uniform > 1e-3, "{uniform:e}");
    for kept in [usize::MAX, 1, 16] {
        let honest = classified([&a, &b], kept);
        assert!((honest - 0.5).abs() < 4.0 * (0.25 / proofs as f64).sqrt(), "{honest} of all by {kept} coordinates");
    }
    for weakness in CONTROLS {
        let [a, b] = samples(40, weakness);
        let (share, uniform) = (classified([&a, &b], 1), uniformity(&a));
        assert!(share > 0.9 && uniform < 1e-9, "{weakness:?}: {share}, {uniform:e}");
    }
}

/// What an owner of private weights proves about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Inference,
    Registration,
    Link,
}

/// The coordinates of one proof about private weights, whose commitment and secrets are functions of two seeds. The combination of the columns is
/// sent, however long a registration makes it.
fn about_weights(about: About, weights: [i32; 2], commitment: [u8; 32], seed: [u8; 32], weakness: Weakness) -> Vec<f64> {
    let (program, weights) = nets::scaled(&weights.map(|w| (w, 0.25)));
    let (program, weights) = private_form(&program, &weights).expect("a private form");
    let parameters = Parameters::tiny_in(Mode::Zk, 2, 16, 8, 13, 4);
    let first = Seed::from_bytes(commitment);
    let key = ProvingKey::with_parameters(Program::clone(&program), weights, false, parameters, Some(first)).expect("provable");
    if about == About::Inference {
        let subject = Subject::new(&key, &[true, true], &[77]);
        let shown = subject.proof(TAPE, seed, weakness);
        assert_eq!(subject.verify(TAPE, &shown), Ok(()));
        return subject.coordinates(TAPE, &shown);
    }
    let second = key.committed_again(Seed::from_bytes(commitment.map(|b| !b))).expect("private");
    let keys = if about == About::Link { vec![&key, &second] } else { vec![&key] };
    let (compiled, proof) = prove_taped(&keys, Randomness::chosen(seed).weakened(weakness), taped(TAPE));
    let parameters = key.verifying.parameters();
    coordinates(TAPE, parameters, &compiled, &proof, |reader| {
        weight_conversation(reader, parameters, &compiled, &vec![[0; 32]; compiled.oracles.len()]).map(drop)
    })
}

/// Proofs, each under a commitment of its own unless `one`.
fn sample_of_weights(about: About, weights: [i32; 2], proofs: u8, salt: u8, weakness: Weakness, one: bool) -> Sample {
    let seed = |first: u8, k: u8| {
        let mut seed = [salt; 32];
        (seed[0], seed[1]) = (first, k);
        seed
    };
    (0..proofs).map(|k| about_weights(about, weights, seed(1, if one { 0 } else { k }), seed(2, k), weakness)).collect()
}

/// Weights of one program.
const WEIGHTS: [[i32; 2]; 2] = [[100, -3], [-97, 50]];

/// Two sets of private weights: neither in proofs of inference with everything committed, nor in registrations, nor in links.
#[test]
fn two_sets_of_weights_cannot_be_told_apart() {
    let program = |weights: [i32; 2]| {
        let (program, weights) = nets::scaled(&weights.map(|w| (w, 0.25)));
        private_form(&program, &weights).expect("a private form").0.to_bytes()
    };
    assert_eq!(program(WEIGHTS[0]), program(WEIGHTS[1]));
    for (about, proofs) in [(About::Inference, 80), (About::Registration, 40), (About::Link, 80)] {
        let samples = |proofs: u8, weakness, one| [0, 1].map(|k| sample_of_weights(about, WEIGHTS[k], proofs, k as u8, weakness, one));
        let [a, b] = samples(proofs, Weakness::None, false);
        assert_eq!(a[0].len(), b[0].len());
        assert!(a.iter().chain(&b).all(|x| x.len() == a[0].len()), "{about:?}: another length");
        let uniform = uniformity(&a);
        assert!(uniform > 1e-3, "{about:?}: {uniform:e}");
        for kept in [usize::MAX, 1, 16] {
            let honest = classified([&a, &b], kept);
            assert!((honest - 0.5).abs() < 4.0 * (0.25 / f64::from(proofs)).sqrt(), "{about:?}: {honest} of all by {kept} coordinates");
        }
        // Nothing of a link is looked up or contracted: its witness has no cells that pads would hide.
        let pads = (about != About::Link).then_some((Weakness::NoPads, false));
        let others = [(Weakness::SameMasks, false), (Weakness::SameMask, false), (Weakness::Unmasked(3), false), (Weakness::None, true)];
        for (weakness, one) in pads.into_iter().chain(others) {
            let [a, b] = samples(40, weakness, one);
            let (share, uniform) = (classified([&a, &b], 1), uniformity(&a));
            assert!(share > 0.9 || uniform < 1e-9, "{about:?} {weakness:?}, one commitment {one}: {share}, {uniform:e}");
        }
    }
}
