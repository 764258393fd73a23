//! Configurations that nobody should write: each of the corpus (`tests/corpus`), changed at random, is either planned or
//! refused with a message, and never a panic. A configuration that once broke something goes into the corpus.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Plan, Surroundings};
use crate::cgroup::Membership;
use crate::error::Error;
use crate::options::{Cgroups, RootFs};
use crate::rdt::Class;
use crate::spec;

fn corpus() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect()
}

/// Everything that is worked out of a configuration before the machine is touched.
fn plan(text: &[u8]) -> Result<(), Error> {
    let bundle = Path::new("/nonesuch-bundle");
    let spec = spec::parse_spec(text, bundle)?;
    let cgroup = Membership::plan(&spec, "hostile", Cgroups::Files)?;
    if let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources().as_ref()) {
        crate::cgroup::check(resources)?;
    }
    if let Some(rdt) = spec.linux.as_ref().and_then(|linux| linux.intel_rdt().as_ref()) {
        Class::below(Path::new("/nonesuch-resctrl"), rdt, "hostile")?;
    }
    // An overlay of a directory that exists, so that most configurations get past their root.
    let rootfs = RootFs::Overlay { lower: vec!["/".into()], upper: "/".into(), work: "/".into() };
    let state_dir = Path::new("/");
    let around = Surroundings {
        bundle,
        state_dir,
        rootfs: &rootfs,
        cgroup: &cgroup,
        pivot: true,
        preserve_fds: 0,
        new_keyring: true,
    };
    Plan::new(&spec, &around).map(drop)
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

fn tried(text: &[u8]) {
    if let Err(error) = plan(text) {
        let message = error.to_string();
        assert!(message.len() > 10 && message.contains(' '), "no message: {message:?}");
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
