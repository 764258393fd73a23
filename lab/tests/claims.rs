//! `lab claims` as its user meets it, on a machine that lacks a wall: real containers, and no kernel for a VM.

use std::process::Command;

#[test]
fn a_machine_without_a_vm_gives_the_container_s_evidence_and_decides_nothing() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let json = home.path().join("claims.json");
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["claims", "--runs", "1", "--kernel", "no-such-kernel", "--json"])
        .arg(&json)
        .env("LAB_HOME", home.path().join("home"))
        .output()
        .expect("lab starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("undecided here (VM by: not available)").count(), 4, "{text}");

    let stored: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(stored["gathered"]["container"]["Ok"]["boot_id"], host.trim());
    assert_eq!(stored["gathered"]["container"]["Ok"]["sees_host_process"], false);
    for claim in stored["claims"].as_array().unwrap() {
        let reason = claim["verdict"]["because"][0].as_str().unwrap();
        assert!(reason.contains("no-such-kernel"), "{reason}");
        let rows = claim["evidence"].as_array().unwrap();
        assert!(rows.iter().any(|row| !row["container"].is_null()), "{claim}");
    }
    assert_eq!(std::fs::read_dir(home.path().join("home/results")).unwrap().count(), 1, "it is stored");
}

#[test]
fn stored_experiments_decide_the_claims_without_a_run() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let lab = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let output = command.args(arguments).env("LAB_HOME", home.path().join("home")).output();
        output.expect("lab starts")
    };
    let json = home.path().join("claims.json");
    let output = lab(&["claims", "--from", "reference", "--json", json.to_str().expect("UTF-8")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("(VM by: KVM, not hardware-backed)").count(), 4, "{text}");
    assert!(!text.contains("undecided") && text.contains("lab bench --quick --seed"), "{text}");
    assert!(text.matches("flips?").count() >= 6, "{text}");
    let stored: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(stored["claims"].as_array().unwrap().len(), 4);
    assert_eq!(stored["from"]["schema"], "lab-bench", "the raw values go along");

    let none = lab(&["claims", "--from", "latest"]);
    let error = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(!none.status.success() && error.lines().count() == 1 && error.contains("lab bench"), "{error}");
    // What is stored last is judged: a bench of one experiment decides nothing that others would.
    let arguments = ["bench", "startup", "--quick", "--runs", "1", "--kernel", "no-such-kernel"];
    assert!(lab(&arguments).status.success());
    let latest = lab(&["claims", "--from", "latest"]);
    let text = String::from_utf8_lossy(&latest.stdout).into_owned();
    assert!(latest.status.success() && text.matches("undecided here").count() == 4, "{text}");
    assert!(text.contains("lab bench memory") && text.contains("no-such-kernel"), "{text}");
}
