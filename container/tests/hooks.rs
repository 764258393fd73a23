//! Hooks run in their order, in their namespaces, with the state on their standard input.

mod common;

use std::fs;

use common::{Bundle, traces};
use container::{Container, Exit};
use serde_json::{Value, json};

/// A hook that appends its name and its namespace of host names to a file.
fn note(bundle: &Bundle, name: &str) -> Value {
    let log = bundle.directory.join("log");
    let own = "$(readlink /proc/self/ns/uts) $(pwd)";
    let script = format!("read state; echo {name} {own} \"$state\" >> {}", log.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

#[test]
fn all_kinds_run_in_order_and_where_they_belong() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    bundle.config["hooks"] = kinds.iter().map(|kind| ((*kind).to_owned(), note(&bundle, kind))).collect();
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /etc/state"]}]);
    bundle.config["hooks"]["startContainer"] = inside;
    assert_eq!(bundle.run().0, Exit::Code(0));

    let log = fs::read_to_string(bundle.directory.join("log")).unwrap();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), kinds);
    let own = fs::read_link("/proc/self/ns/uts").unwrap();
    for line in &lines {
        let outside = line[1] == own.to_str().unwrap();
        assert_eq!(outside, line[0] != "createContainer", "{line:?}");
        assert!(!outside || line[2] == bundle.directory.to_str().unwrap(), "{line:?}");
        let state: Value = serde_json::from_str(line[3]).unwrap();
        assert_eq!(state["id"], bundle.id.as_str());
    }
    let started: Value =
        serde_json::from_slice(&fs::read(bundle.rootfs().join("etc/state")).unwrap()).unwrap();
    assert_eq!(started["status"], "created");
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_hook_that_fails_or_takes_too_long_is_named_and_nothing_is_left() {
    needs_root!();
    for kind in ["createRuntime", "createContainer"] {
        for (script, timeout) in [("exit 3", 10), ("exec sleep 100", 1)] {
            let mut bundle = Bundle::new(&["true"]);
            let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": timeout}]);
            bundle.config["hooks"] = json!({ kind: hook });
            let error = bundle.create().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(&format!("hooks.{kind}")), "{error}");
            assert_eq!(traces(&bundle), [].into());
        }
    }
}

#[test]
fn hooks_after_delete_run_without_the_bundle() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"] = json!({"poststop": note(&bundle, "poststop")});
    let (container, _output) = bundle.create().unwrap();
    drop(container);
    fs::remove_file(bundle.directory.join("config.json")).unwrap();
    Container::load(&bundle.state_root(), &bundle.id).unwrap().delete(true).unwrap();
    assert!(fs::read_to_string(bundle.directory.join("log")).unwrap().starts_with("poststop "));
}
