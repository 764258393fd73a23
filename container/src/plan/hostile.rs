//! Configurations that nobody should write: each of the corpus (`tests/corpus`), changed at random, is either planned or
//! refused with a message, and never a panic. A configuration that once broke something goes into the corpus.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::rehearsal::{plan, tried};
use crate::error::Error;

fn corpus() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// Values that have broken parsers.
fn odd() -> impl Strategy<Value = Value> {
    let long = "x".repeat(70_000);
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(""),
        json!("\u{0}"),
        json!("a\u{0}b"),
        json!("/../../etc/passwd"),
        json!("/proc/self/exe"),
        json!("/proc/self/ns/user"),
        json!("%s%n"),
        json!("9999999999999999999999"),
        json!("0-99999999"),
        json!("SCMP_ACT_NOTIFY"),
        json!("sendmsg"),
        json!("cgroup"),
        json!(long),
        json!([]),
        json!({}),
        json!([[[[[[[[]]]]]]]]),
        json!({"": {"": [null]}}),
    ])
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), all));
        }
        Value::Object(map) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), all));
        }
        _ => {}
    }
}

#[test]
fn the_corpus_is_planned() {
    for configuration in corpus() {
        match plan(configuration.to_string().as_bytes()) {
            // Idmapped mounts, for one, are not for everybody; then the message names the field.
            Err(Error::Config { field, .. }) => assert!(!field.is_empty()),
            Err(error @ Error::Bundle { .. }) => panic!("{error}"),
            _ => {}
        }
    }
}

/// What the fuzzer found worth keeping (`container/fuzz`): whatever broke something once is among it.
#[test]
fn the_fuzzers_corpus_is_planned_or_refused() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    let files =
        std::fs::read_dir(directory).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let count = files.inspect(|text| tried(text)).count();
    assert!(count > 100, "{count} files");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn odd_values_are_planned_or_refused(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4),
    ) {
        let corpus = corpus();
        let mut configuration = which.get(&corpus).clone();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&configuration, "", &mut all);
            if let Some(old) = configuration.pointer_mut(&all[place.index(all.len())]) {
                *old = value;
            }
        }
        tried(configuration.to_string().as_bytes());
    }

    #[test]
    fn broken_text_is_refused(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let corpus = corpus();
        let mut text = which.get(&corpus).to_string().into_bytes();
        let at = at.index(text.len());
        text.splice(at..(at + bytes.len() / 2).min(text.len()), bytes);
        tried(&text);
    }
}
