//! `lab-container` as an engine calls it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::Bundle;

/// One call of the binary, with the bundle's own state directory.
pub fn lab(bundle: &Bundle, arguments: &[&str]) -> Command {
    bundle.write();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-container"));
    command.arg("--root").arg(bundle.state_root()).args(arguments).current_dir(&bundle.directory);
    command
}

pub fn output(bundle: &Bundle, arguments: &[&str]) -> Output {
    lab(bundle, arguments).output().unwrap()
}

pub fn ok(bundle: &Bundle, arguments: &[&str]) -> String {
    let output = output(bundle, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A call whose container outlives it: with streams that it may keep.
pub fn quietly(bundle: &Bundle, arguments: &[&str]) {
    let status = lab(bundle, arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

pub fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&ok(bundle, &["state", &bundle.id])).unwrap()
}
