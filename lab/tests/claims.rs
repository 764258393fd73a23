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
