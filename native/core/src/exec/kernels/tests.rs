use super::*;
use crate::program::quantize::requant;
use proptest::prelude::*;

fn small() -> impl Strategy<Value = i32> {
    prop_oneof![Just(-255), Just(255), -255i32..=255]
}

proptest! {
    #[test]
    fn products((rows, depth, channels) in (1usize..40, 1usize..40, 1usize..90), seed: u64) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as i32 % 256
        };
        let weights: Vec<i32> = (0..channels * depth).map(|_| next()).collect();
        let bias: Vec<i32> = (0..channels).map(|_| next().wrapping_mul(8_000_000)).collect();
        let panels = Panels::new(&weights, &bias);
        let x: Vec<i16> = (0..rows * panels.depth()).map(|_| next() as i16).collect();
        let value = |r: usize, o: usize| {
            (0..depth).fold(bias[o], |s, k| s.wrapping_add(i32::from(x[r * panels.depth() + k]) * weights[o * depth + k]))
        };
        let want: Vec<i32> = (0..rows).flat_map(|r| (0..channels).map(move |o| (r, o))).map(|(r, o)| value(r, o)).collect();
        for &level in ALL_LEVELS {
            let mut acc = vec![7; rows * channels];
            panels.multiply_at(level, &x, &mut acc);
            prop_assert_eq!(&acc, &want, "{:?}", level);
        }
    }

    #[test]
    fn depthwise_products(channels in 1usize..100, taps in 1usize..11, weights in prop::collection::vec(small(), 1000), x in prop::collection::vec(small(), 1100)) {
        let weights = &weights[..taps * channels];
        let bias: Vec<i32> = (0..channels as i32).collect();
        let packed = Taps::new(weights, &bias);
        let x: Vec<i16> = x.iter().map(|&x| x as i16).collect();
        let rows: Vec<&[i16]> = (0..packed.rows()).map(|t| &x[t * channels..][..channels]).collect();
        let sum = |c: usize| (0..taps).map(|t| i32::from(rows[t][c]) * weights[t * channels + c]).sum::<i32>() + bias[c];
        let want: Vec<i32> = (0..channels).map(sum).collect();
        for &level in ALL_LEVELS {
            let mut acc = vec![7; channels];
            packed.accumulate_at(level, &rows, &mut acc);
            prop_assert_eq!(&acc, &want, "{:?}", level);
        }
    }

    #[test]
    fn roundings(channels in prop::collection::vec(((1 << 29)..=i32::MAX, -30i8..=31), 1..40), accs: Vec<i32>, zero in -128i32..128) {
        let n = channels.len();
        let acc: Vec<i32> = accs.iter().take(accs.len() / n * n).enumerate().map(|(i, &a)| a >> (-channels[i % n].1).max(0)).collect();
        let want: Vec<i16> = acc.iter().enumerate().map(|(i, &a)| (requant(a.into(), channels[i % n]) + i64::from(zero)).clamp(-128, 127) as i16).collect();
        let d = DoubleRounding::new(&channels, zero, (-128, 127));
        for &level in ALL_LEVELS {
            let mut out = vec![0; acc.len()];
            d.rows_at(level, &acc, &mut out);
            prop_assert_eq!(&out, &want, "{:?}", level);
        }
    }
}
