//! Owners of private models whose weights are not what their public programs assume.
//!
//! An owner commits to anything at all under an honest program; the honest registration prover does its best with it. Each attack names the
//! checks that stop it: with them taken away on both sides the same forgery is accepted.

use nexus_edge_core::field::{F, from_i64};
use nexus_edge_core::layout::{Home, StorageId};
use nexus_edge_core::parameters::Mode;
use nexus_edge_core::program::check::load;
use nexus_edge_core::program::error::Fault;
use nexus_edge_core::program::quantize::Multiplier;
use nexus_edge_core::program::{PrivateForm, Program, Weights};
use nexus_edge_core::proof::{ProvingKey, VerifyingKey, verify_registration};
use p3_field::{Field, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::forge::LOOKUPS;
use crate::ideal::is_satisfied;
use crate::owners::{Check, Owner, key, line, registered};
use crate::support::{Random, nets};

#[test]
fn honest_owners_are_accepted() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        assert_eq!(owner.outcome(), Ok(()));
        // What the library commits to and proves.
        let key = key(nets::private_layer(depthwise, 1));
        let plain =
            ProvingKey::new(Program::clone(&owner.program), Weights::clone(&key.weights), false, 100, Mode::Plain).expect("provable");
        assert_eq!(owner.commit(Mode::Plain).0.digest(), plain.verifying.digest());
        let proof = registered(&key);
        let read = VerifyingKey::from_bytes(&key.verifying.to_bytes()).expect("own key");
        let registered = verify_registration(&read, &proof).expect("honest");
        assert_eq!(registered.digest(), key.verifying.digest());
        assert_eq!(owner.witness(&owner.layout).storages, owner.cells.storages);
    }
}

#[test]
fn a_weight_is_int8() {
    for depthwise in [false, true] {
        for value in [128, -129, 1 << 20] {
            let owner = Owner::new(nets::private_layer(depthwise, 1)).weight(5, value);
            assert_eq!(owner.outcome(), LOOKUPS);
        }
        Owner::new(nets::private_layer(depthwise, 1)).weight(5, 128).is_stopped_by(&[Check::Int8]);
        for value in [127, -128] {
            assert_eq!(Owner::new(nets::private_layer(depthwise, 1)).weight(5, value).outcome(), Ok(()));
        }
    }
}

#[test]
fn positive_parts_are_exact() {
    for (depthwise, by) in [(false, 1), (false, -1), (true, 1), (true, -1)] {
        let mut owner = Owner::new(nets::private_layer(depthwise, 1));
        let positive = owner.positive();
        owner.cells.storages[positive][7] += from_i64(by);
        owner.is_stopped_by(&[Check::Int8]);
    }
}

/// A multiplier so small that no accumulator leaves `V`.
const TINY: Multiplier = (1 << 30, 24);

#[test]
fn accumulators_stay_inside_int32() {
    const END: i64 = (1 << 31) - 1;
    for depthwise in [false, true] {
        // Inputs in [-128, 127]: weight 1 reaches [-128, 127], weight -2 reaches [-254, 256].
        let at = |weights, bias: i64| {
            let private =
                |bias: i64| nets::private_channels(depthwise, &[([3, -4], 9, TINY), (weights, bias as i32, TINY)], 8, (-128, 127));
            (private(bias).map(drop).map_err(|e| e.fault), Owner::new(private(0).expect("small")).bias(1, bias))
        };
        for (weights, bias) in [([1, 0], END - 127), ([1, 0], 128 - END), ([-2, 0], END - 256), ([0, -2], 254 - END)] {
            let (loaded, owner) = at(weights, bias);
            assert_eq!((loaded, owner.outcome()), (Ok(()), Ok(())), "{weights:?} {bias}");
            let beyond = bias + bias.signum();
            let (loaded, owner) = at(weights, beyond);
            assert_eq!(loaded, Err(Fault::Wrap));
            owner.is_stopped_by(&[if bias > 0 { Check::Top } else { Check::Bottom }]);
        }
    }
}

#[test]
fn biases_are_int32() {
    for depthwise in [false, true] {
        let owner =
            |bias| Owner::new(nets::private_channels(depthwise, &[([0, 0], 5, TINY)], 8, (-128, 127)).expect("small")).bias(0, bias);
        // Each check alone stops it.
        owner(1 << 31).is_stopped_by(&[Check::Bias, Check::Top]);
        owner(-(1 << 31) - 1).is_stopped_by(&[Check::Bias, Check::Top, Check::Bottom]);
        // The field's own -1 / 2 is no integer of any size.
        assert_eq!(owner(-1).outcome(), Ok(()));
        let mut half = owner(0);
        let bias = half.constant(1);
        half.cells.storages[bias][0] = -F::TWO.inverse();
        assert_eq!(half.outcome(), LOOKUPS);
    }
}

#[test]
fn a_left_shift_narrows_the_limits() {
    // One output only, so that no V stands before the shift's own limit; M 2^-(31+e) = 4 shifts by 3.
    const END: i64 = (1 << 28) - 1;
    for depthwise in [false, true] {
        let private = nets::private_channels(depthwise, &[([1, 0], 0, (1 << 30, -3))], 8, (5, 5)).expect("constant");
        let owner = |bias| Owner::new(private.clone()).bias(0, bias);
        for (bias, check) in [(END - 127, Check::Top), (128 - END, Check::Bottom)] {
            assert_eq!(owner(bias).outcome(), Ok(()));
            let beyond = owner(bias + bias.signum());
            assert_eq!(beyond.outcome(), LOOKUPS);
            assert_eq!(beyond.without(&[check]), Ok(()));
        }
    }
}

#[test]
fn values_before_the_clamp_stay_inside_the_bound() {
    const SLOPES: [Multiplier; 3] = [(1 << 30, 7), (1_690_499_128, 6), (1_400_000_001, 11)];
    for depthwise in [false, true] {
        for slope in SLOPES {
            let channels = |bias| [([1, 1], 0, slope), ([5, -3], bias, slope)];
            let small = nets::private_channels(depthwise, &channels(0), 9, (-128, 127)).expect("small");
            let l = line(&small.0, 1);
            let (high, low) = (127 * 5 + 128 * 3, -128 * 5 - 127 * 3);
            let top = (l.d * 512 - 1 - l.b_pos.max(l.b_neg)).div_euclid(l.a) - high;
            let bottom = -(l.d * 512 + l.b_pos.min(l.b_neg)).div_euclid(l.a) - low;
            for (bias, check) in [(top, Check::Above), (bottom, Check::Below)] {
                let loaded =
                    |bias: i64| nets::private_channels(depthwise, &channels(bias as i32), 9, (-128, 127)).map(drop).map_err(|e| e.fault);
                assert_eq!((loaded(bias), Owner::new(small.clone()).bias(1, bias).outcome()), (Ok(()), Ok(())));
                let beyond = bias + bias.signum();
                assert_eq!(loaded(beyond), Err(Fault::Weights));
                Owner::new(small.clone()).bias(1, beyond).is_stopped_by(&[check]);
            }
        }
    }
}

#[test]
fn long_values_take_four_limbs() {
    for depthwise in [false, true] {
        let private = nets::private_channels(depthwise, &[([3, -4], 0, (1 << 30, 30))], 20, (-128, 127)).expect("small");
        let owner = |bias| Owner::new(private.clone()).bias(0, bias);
        assert_eq!(owner(0).layout.range_bits, 15);
        assert_eq!(owner(0).limbs().iter().map(|r| r.limbs.len()).collect::<Vec<_>>(), [2, 2, 2, 3, 3]);
        assert_eq!(owner((1 << 31) - 1 - 127 * 3 - 128 * 4).outcome(), Ok(()));
        owner((1 << 31) - 127 * 3 - 128 * 4).is_stopped_by(&[Check::Top]);
    }
}

#[test]
fn half_the_bound_is_not_kept() {
    for depthwise in [false, true] {
        let (program, weights) = nets::private_layer(depthwise, 1);
        // The least bound that these weights keep, and half of it.
        let declared = |bits: u8| Program { private: Some(PrivateForm { log_bounds: vec![bits] }), ..Program::clone(&program) };
        let kept = |bits: &u8| load(declared(*bits), Some(&weights)).is_ok();
        let least = (8..=23).find(kept).expect("some bound");
        assert!(least > 8, "weights too small to tell");
        let owner = |bits| Owner::new((load(declared(bits), None).expect("no weights are looked at"), weights.clone()));
        assert_eq!(owner(least).outcome(), Ok(()));
        let half = owner(least - 1);
        assert_eq!(half.outcome(), LOOKUPS);
        assert_eq!(half.without(&[Check::Above, Check::Below]), Ok(()));
    }
}

/// All cells, against the constraints themselves: this covers every choice of multiplicities.
#[test]
fn no_cell_is_free() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        assert!(is_satisfied(&owner.layout, &owner.cells, &[]));
        let free = |s: &StorageId| {
            let multiplicity = owner.layout.tables.iter().any(|t| t.multiplicities == *s);
            owner.layout.storages[*s].home == Home::Witness && !multiplicity
        };
        let cells: Vec<(StorageId, usize)> =
            (0..owner.layout.storages.len()).filter(free).flat_map(|s| (0..owner.cells.storages[s].len()).map(move |at| (s, at))).collect();
        let mut random = Random(19);
        let changes: Vec<_> =
            cells.iter().flat_map(|&(s, at)| [(s, at, F::ONE), (s, at, -F::ONE), (s, at, F::from_u64(random.next() >> 1))]).collect();
        let passing: Vec<_> = changes
            .into_par_iter()
            .filter(|&(s, at, by)| {
                let mut w = owner.cells.clone();
                w.storages[s][at] += by;
                is_satisfied(&owner.layout, &w, &[])
            })
            .collect();
        assert_eq!(passing, []);
    }
}

#[test]
fn costs_are_as_designed() {
    for depthwise in [false, true] {
        let owner = Owner::new(nets::private_layer(depthwise, 1));
        let (weights, channels) = if depthwise { (54, 6) } else { (108, 4) };
        let rows: usize = owner.layout.tables.iter().map(|t| 1 << t.log_rows).sum();
        assert_eq!(owner.layout.cells(), weights + 5 * channels + rows);
        assert_eq!(owner.layout.lookup_count(), weights + 10 * channels);
        assert_eq!(rows, (1 << 16) + 256);
    }
}
