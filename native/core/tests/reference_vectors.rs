//! Compares formulas and lines with the reference vectors, where the shared folder is at hand (`NEXUS_EDGE_SHARED` or `../shared`).

use std::path::PathBuf;

use nexus_edge_core::program::lines::{Channel, average_line};
use nexus_edge_core::program::quantize::{Staircase, requant};
use nexus_edge_core::program::softmax::Exponentials;
use nexus_edge_core::program::{DType, Line, Rule};
use serde_json::Value;

/// The vectors that follow from the design alone, or null.
fn determined() -> Value {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("NEXUS_EDGE_SHARED").map_or_else(beside, PathBuf::from);
    let text = std::fs::read_to_string(root.join("reference/vectors.json")).unwrap_or_else(|_| "{}".into());
    serde_json::from_str::<Value>(&text).expect("vectors are JSON")["determined"].clone()
}

fn items(v: &Value, key: &str) -> Vec<Value> {
    v[key].as_array().cloned().unwrap_or_default()
}

fn integer(v: &Value, key: &str) -> i64 {
    v[key].as_i64().unwrap_or_else(|| panic!("{key} of {v}"))
}

fn multiplier(v: &Value) -> (i32, i8) {
    (integer(v, "M") as i32, integer(v, "e") as i8)
}

#[test]
fn requantisation() {
    for v in items(&determined(), "requantisation") {
        let m = multiplier(&v);
        for (acc, value) in items(&v, "acc").iter().zip(items(&v, "value")) {
            assert_eq!(Some(requant(acc.as_i64().unwrap(), m)), value.as_i64());
        }
        for (value, threshold) in items(&v, "threshold_of").iter().zip(items(&v, "threshold")) {
            assert_eq!(Some(Staircase::Double(m).threshold(value.as_i64().unwrap())), threshold.as_i64());
        }
    }
}

#[test]
fn crafted_lines() {
    for v in items(&determined(), "crafted_lines") {
        let c = Channel {
            staircase: Staircase::Double(multiplier(&v)),
            reach: (integer(&v, "acc_min"), integer(&v, "acc_max")),
            zero: integer(&v, "zero_point"),
            clamp: (integer(&v, "lo"), integer(&v, "hi")),
        };
        let want = match v.get("constant") {
            Some(c) => Rule::Constant(c.as_i64().unwrap() as i32),
            None => {
                let line = Line { a: integer(&v, "a"), b_pos: integer(&v, "b_pos"), b_neg: integer(&v, "b_neg"), d: integer(&v, "d") };
                Rule::Line { low: c.reach.0, high: c.reach.1, line }
            }
        };
        assert_eq!(c.find(), Ok(want), "{v}");
        assert_eq!(c.check(&want), Ok(()), "{v}");
    }
}

#[test]
fn average_pools() {
    for (n, v) in determined()["average_pool_lines"].as_object().cloned().unwrap_or_default() {
        let l = average_line(n.parse().unwrap(), DType::Int8);
        assert_eq!(serde_json::json!([l.a, l.b_pos, l.d]), v);
    }
}

#[test]
fn softmax_exponentials() {
    // 0.18 * 2^26
    let e = Exponentials::new(1546188227, 24);
    for (d, v) in determined()["softmax_exp_scale_0.18"].as_object().cloned().unwrap_or_default() {
        let d: usize = d.parse().unwrap();
        assert_eq!(serde_json::json!([e.fine[d], e.coarse[d]]), v, "{d}");
    }
}
