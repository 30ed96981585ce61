//! Many proofs under the same challenges: every coordinate is uniform and no classifier tells two inputs apart.
//!
//! All seeds are fixed, so that the outcome is too. The controls are provers that fail to draw something anew.

use super::support::{Random, dense};
use super::{Subject, small_key};
use crate::proof::ProvingKey;
use crate::random::Weakness;

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
