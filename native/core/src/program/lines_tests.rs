use super::*;
use crate::program::quantize::Multiplier;
use proptest::prelude::*;

/// The value that the two range checks and the clamp table accept: exactly one candidate may pass.
fn accepted(line: &Line, zero: i64, acc: i64, candidates: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    let passes = |v: i64| {
        let lower = acc * line.a + if v <= zero { line.b_neg } else { line.b_pos } - line.d * v;
        let upper = line.d - 1 - (acc * line.a + if v < zero { line.b_neg } else { line.b_pos } - line.d * v);
        lower >= 0 && upper >= 0
    };
    candidates.filter(|&v| passes(v)).collect()
}

fn assert_exact(channel: &Channel) {
    let rule = channel.find().expect("a line");
    assert_rule_exact(channel, &rule);
}

fn assert_rule_exact(channel: &Channel, rule: &Rule) {
    channel.check(rule).expect("its own check");
    let (low, high) = channel.reach;
    let line = match *rule {
        Rule::Constant(c) => return assert!([low, high].iter().all(|&acc| channel.output(acc) == i64::from(c))),
        Rule::Line { line, .. } => line,
    };
    let (v0, v1) = channel.span().unwrap().unwrap();
    let near = (v0 - 2..=v1 + 2).flat_map(|v| {
        let t = channel.staircase.threshold(v);
        t - 3..=t + 3
    });
    for acc in near.chain([low, low + 1, high - 1, high]).filter(|acc| (low..=high).contains(acc)) {
        let v = line.value(acc, channel.zero);
        assert_eq!(v.clamp(channel.clamp.0, channel.clamp.1), channel.output(acc), "{channel:?} {line:?} {acc}");
        assert_eq!(accepted(&line, channel.zero, acc, v - 300..=v + 300), [v], "{channel:?} {line:?} {acc}");
    }
}

fn multiplier() -> impl Strategy<Value = Multiplier> {
    (prop_oneof![Just(1 << 30), Just(i32::MAX), (1 << 30)..=i32::MAX], -3i8..=16)
}

fn channel(single: bool) -> impl Strategy<Value = Channel> {
    let quant = (prop_oneof![Just((-128i64, 127i64)), Just((0, 255))], any::<prop::sample::Index>(), any::<[bool; 2]>());
    (multiplier(), 0f64..400.0, 0f64..400.0, quant).prop_map(move |(m, up, down, ((lo, hi), zero, relu))| {
        let scale = 2f64.powi(31 + i32::from(m.1)) / f64::from(m.0);
        let domain = Staircase::Double(m).domain() as f64 - 1.0;
        let reach = (-(scale * down).min(domain) as i64, (scale * up).min(domain) as i64);
        let zero = lo + zero.index(256) as i64;
        let clamp = (if relu[0] { zero } else { lo }, if relu[1] { zero.max(lo + 200) } else { hi });
        let staircase = if single { Staircase::Single(m) } else { Staircase::Double(m) };
        Channel { staircase, reach, zero, clamp }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn exactly_one_value_is_accepted(c in channel(false)) {
        assert_exact(&c);
    }

    #[test]
    fn also_with_single_rounding(c in channel(true)) {
        assert_exact(&c);
    }

    #[test]
    fn averages(n in 1i64..600, uint8: bool) {
        let dtype = if uint8 { DType::UInt8 } else { DType::Int8 };
        let (lo, hi) = (i64::from(dtype.range().0), i64::from(dtype.range().1));
        let c = Channel { staircase: Staircase::Average(n), reach: (n * lo, n * hi), zero: 0, clamp: (lo, hi) };
        let line = average_line(n, dtype);
        c.check(&Rule::Line { low: n * lo, high: n * hi, line }).unwrap();
        for s in n * lo..=n * hi {
            prop_assert_eq!(line.value(s, 0).clamp(lo, hi), c.output(s));
        }
    }

    #[test]
    fn simplest_fraction_has_no_simpler_rival(x in (0i64..400, 1i64..60), y in (0i64..400, 1i64..60)) {
        prop_assume!(less(x, y) || less(y, x));
        let ((p, q), (r, s)) = if less(x, y) { (x, y) } else { (y, x) };
        let (n, d) = simplest((p, q), (r, s));
        prop_assert!(less((p, q), (n, d)) && less((n, d), (r, s)));
        for rival in 1..d {
            let above = p * rival / q + 1;
            prop_assert!(above * s >= r * rival, "{above}/{rival}");
        }
        prop_assert!(n == 1 || !less((p, q), (n - 1, d)));
    }

    #[test]
    fn every_change_of_a_line_is_noticed(c in channel(false), field in 0usize..4, by in prop_oneof![Just(-1i64), Just(1)]) {
        let Ok(Rule::Line { low, high, line }) = c.find() else { return Ok(()) };
        let mut l = line;
        match field {
            0 => l.a += by * line.a.max(2) / 2,
            1 => l.b_pos += by * line.d.max(line.a),
            2 => l.b_neg += by * line.d.max(line.a),
            _ => l.d += by * line.d.max(2) / 2,
        }
        let (changed, moved) = (Rule::Line { low, high, line: l }, Rule::Line { low: low - 1, high, line });
        // Another slope may be exact as well where few thresholds are reachable; another offset never.
        match c.check(&changed) {
            Ok(()) if field % 3 == 0 => assert_rule_exact(&c, &changed),
            other => prop_assert!(other.is_err()),
        }
        prop_assert!(c.check(&moved).is_err());
    }

    #[test]
    fn planes(scales in (0.02f64..0.2, 0.02f64..0.2, 0.03f64..0.3), zeros in (-128i32..128, -128i32..128), zero in -128i32..128, subtract: bool) {
        let twice = 2.0 * scales.0.max(scales.1);
        let m = |x: f64| {
            let e = -(x.log2().floor() as i32 + 1);
            ((x * 2f64.powi(31 + e)).round() as i32, e as i8)
        };
        let add = Addition { first: m(scales.0 / twice), second: m(scales.1 / twice), output: m(twice / scales.2 / 2f64.powi(20)), zeros, subtract };
        prop_assume!(add.is_valid());
        let (dtypes, clamp) = ((DType::Int8, DType::Int8), (zero.max(-100), 127));
        let table = add.table(dtypes, zero, clamp);
        if let Some(p) = find_plane(&add, dtypes, clamp, &table) {
            let line = Line { a: 1, b_pos: p.offset, b_neg: p.offset, d: p.d };
            prop_assert!(plane_is_exact(p.slopes, &line, dtypes, clamp, &table));
            prop_assert!(!plane_is_exact((p.slopes.0, p.slopes.1 + p.d / 64), &line, dtypes, clamp, &table));
            let moved = Line { b_pos: p.offset + p.d, ..line };
            prop_assert!(!plane_is_exact(p.slopes, &moved, dtypes, clamp, &table));
        }
    }
}

/// The runtime's shift of an int32 would overflow: no rule, whatever it says.
#[test]
fn overflow_is_refused() {
    let c = Channel { staircase: Staircase::Double((1 << 30, -4)), reach: (-(1 << 27), 1 << 26), zero: 0, clamp: (-128, 127) };
    assert_eq!(c.find(), Err(LineError::Overflow(c.reach)));
    assert!(Channel { reach: (1 - (1 << 27), 1 << 26), ..c }.find().is_ok());
}

#[test]
fn underflow_is_constant() {
    let c = Channel { staircase: Staircase::Double((0, 0)), reach: (-5, 5), zero: 7, clamp: (-128, 5) };
    assert_eq!(c.find(), Ok(Rule::Constant(5)));
    assert!(c.check(&Rule::Constant(6)).is_err());
}

/// A clamp of two values has one threshold.
#[test]
fn one_threshold() {
    let c = Channel { staircase: Staircase::Double((1 << 30, 8)), reach: (-60000, 60000), zero: 0, clamp: (0, 1) };
    assert_exact(&c);
    let Ok(Rule::Line { line, .. }) = c.find() else { panic!("a line") };
    assert!((line.value(60000, 0) - 117).abs() <= 1);
}

/// A line whose clamp hides the value beyond must still be exact one beyond a reachable end.
#[test]
fn one_beyond_the_reachable_end() {
    let c = Channel { staircase: Staircase::Double((1 << 30, 3)), reach: (-100, 100), zero: 0, clamp: (-128, 127) };
    assert_eq!(c.span(), Ok(Some((-6, 7))));
    assert_exact(&c);
}

// A line exists for every channel that load can meet. With `a = M 2^max(-e,0)` and `d = 2^(31 + max(e,0))` the formulas are affine before
// they round: `t_v = ceil((d v - b) / a)` with one `b` for `v >= 1` and one for `v <= 0` (double rounding, `e > 0`) or for all `v`. Hence
// `t_u - t_v = (d/a)(u - v) + f` with `|f| < 1` within a group: the slope `d/a` lies in the open interval of all pairs, which is not empty;
// and any slope in it has an offset, because all differences of `d v - a t_v` are then below `a`. Two offsets always suffice.
//
// The line is small, too. The ends of the interval are `p/q` with `q` a difference of two of at most 255 thresholds, so at most 254, and the
// mediant of the ends lies inside: the simplest fraction has `a <= 508`, and `d <= p + p'`, differences of thresholds and at most one more.

/// What [`Staircase`] and the clamps allow: every exponent, mantissas at both ends and everywhere between, reaches from nothing to all.
fn any_channel() -> impl Strategy<Value = Channel> {
    let mantissa = prop_oneof![
        Just(1 << 30),
        Just((1 << 30) + 1),
        Just(i32::MAX),
        (1 << 30)..=i32::MAX,
        (0u32..31).prop_map(|k| 1 << k),
        1..=i32::MAX
    ];
    let clamp = prop_oneof![Just((-128i64, 127i64)), Just((0, 255))];
    (mantissa, -30i8..=31, any::<bool>(), any::<[i64; 2]>(), 0u32..63, clamp, any::<[prop::sample::Index; 3]>()).prop_map(
        |(m, e, single, ends, shift, (lo, hi), at)| {
            let staircase = if single { Staircase::Single((m, e)) } else { Staircase::Double((m, e)) };
            let (least, most) = staircase.whole_domain();
            let end = |v: i64| if shift == 0 { v.rem_euclid(2) * (most - least) + least } else { (v >> shift).clamp(least, most) };
            let (x, y) = (end(ends[0]), end(ends[1]));
            let (c, d) = (lo + at[0].index(256) as i64, lo + at[1].index(256) as i64);
            let clamp = if at[2].index(2) == 0 { (lo, hi) } else { (c.min(d), c.max(d)) };
            Channel { staircase, reach: (x.min(y), x.max(y)), zero: lo + at[2].index(256) as i64, clamp }
        },
    )
}

fn assert_small_and_exact(channel: &Channel) {
    let rule = channel.find().unwrap_or_else(|e| panic!("{e}: {channel:?}"));
    channel.check(&rule).expect("its own check");
    let Rule::Line { line, .. } = rule else { return };
    assert!(line.a <= 508 && line.d < 1 << 36, "{line:?} {channel:?}");
    assert!(line.b_pos.abs().max(line.b_neg.abs()) < 1 << 46, "{line:?} {channel:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_channel_has_a_small_line(c in any_channel()) {
        assert_small_and_exact(&c);
    }
}

/// Where the interval of slopes is narrowest: slopes next to a fraction of small numbers, which two pairs of thresholds nearly reach from
/// both sides. Every exponent, on the whole domain and every threshold.
#[test]
fn slopes_next_to_small_fractions_have_lines() {
    for e in -30i8..=31 {
        for q in 1i64..=24 {
            for p in q..2 * q {
                for off in [-1i64, 0, 1] {
                    // `2^31 / M` is about `p/q` or its double.
                    let m = ((1i64 << 31) * q / p + off).clamp(1 << 30, i64::from(i32::MAX)) as i32;
                    for staircase in [Staircase::Double((m, e)), Staircase::Single((m, e))] {
                        for (zero, clamp) in [(0, (-128, 127)), (-128, (-128, 127)), (17, (0, 255))] {
                            assert_small_and_exact(&Channel { staircase, reach: staircase.whole_domain(), zero, clamp });
                        }
                    }
                }
            }
        }
    }
}
