//! `lab compare` as its user meets it: real containers, real virtual machines where the machine has them.
//!
//! No test here asserts how long anything takes: only that what was measured is whole, ordered and labelled.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::measure::plan::Wall;
use lab::measure::record::{Obtained, Record};
use lab::measure::summary::{Metric, values};
use lab::measure::{phases, store};

/// A folder that goes with the test; images and results of the test are in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lab(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(arguments)
            .env("LAB_HOME", self.path("home"))
            .output()
            .expect("lab starts")
    }

    fn compare(&self, arguments: &[&str]) -> (Output, Record) {
        let json = self.path("result.json");
        let output = self.lab(&[&["compare", "--json", path(&json)], arguments].concat());
        let record = store::load(&json).unwrap_or_else(|error| {
            panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        (output, record)
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Says loudly that a test did not run; in CI that is a failure.
fn skipped(reason: &str) {
    println!("SKIPPED ({reason})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED ({reason}), and CI must run everything");
}

/// A guest kernel that cannot be: the VM's wall is then missing, which makes a test of the container alone quick.
const NO_VM: [&str; 2] = ["--kernel", "no-such-kernel"];

#[test]
fn a_machine_without_one_wall_gives_the_other_and_says_why() {
    let home = Home::new();
    let (output, record) = home.compare(&[&NO_VM[..], &["--runs", "6", "--seed", "7"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("No figures for the VM: no kernel no-such-kernel"), "{text}");
    assert!(text.contains("start → first instruction") && text.contains("clone into namespaces"), "{text}");

    let container = record.wall(Wall::Container).unwrap();
    assert_eq!(container.samples.len(), 7, "a warm-up and six runs");
    assert_eq!(container.counted().count(), 6);
    assert!(record.plan.digest.as_ref().unwrap().starts_with("sha256:"));
    for sample in container.counted() {
        // Every step of a run is there, in order, and they add up to the whole.
        let steps = phases::of(sample);
        assert!(steps.len() > 8, "{steps:?}");
        assert!(steps.windows(2).all(|two| two[0].to <= two[1].to));
    }
    let first = values(&record, Wall::Container, Metric::ToFirstInstruction);
    let exit = values(&record, Wall::Container, Metric::ToExit);
    assert!(first.iter().zip(&exit).all(|(first, exit)| 0.0 < *first && first <= exit));

    let memory = container.memory.as_ref().expect("memory of idle containers");
    assert!(memory.failures.is_empty(), "{:?}", memory.failures);
    assert!(memory.processes.len() >= 2, "the lab's process and the workload: {:?}", memory.processes);
    assert!(memory.pss() > 0 && memory.pss() <= memory.rss());
    let stored = std::fs::read_dir(home.path("home/results")).unwrap().count();
    assert_eq!(stored, 1, "the result is stored without being asked for");
}

#[test]
fn a_stored_result_gives_the_same_report_again() {
    let home = Home::new();
    let (first, _) = home.compare(&[&NO_VM[..], &["--runs", "2", "--no-memory"]].concat());
    let json = home.path("result.json");
    let (html, csv) = (home.path("a.html"), home.path("a.csv"));
    let again = home.lab(&["compare", "--from", path(&json), "--html", path(&html), "--csv", path(&csv)]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&first.stdout));
    assert!(std::fs::read_to_string(html).unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 1 + 3);
}

#[test]
fn a_file_that_is_no_result_is_one_line_that_names_it() {
    let home = Home::new();
    let file = home.path("broken.json");
    std::fs::write(&file, "{\"schema\": \"lab-comparison\", \"version\": 99}").unwrap();
    let output = home.lab(&["compare", "--from", path(&file)]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.lines().count() == 1 && error.contains("broken.json") && error.contains("99"), "{error}");
}

#[test]
fn a_command_that_does_not_exist_is_reported_and_not_measured() {
    let home = Home::new();
    let (output, record) = home.compare(&[&NO_VM[..], &["--runs", "3", "lab", "no-such-command"]].concat());
    assert!(!output.status.success());
    let container = record.wall(Wall::Container).unwrap();
    assert_eq!(container.samples.len(), 1, "the warm-up told all there is to know");
    assert!(container.unavailable.as_ref().unwrap().contains("no-such-command"));
}

#[test]
fn both_walls_are_compared_where_the_machine_has_both() {
    let (obtained, accelerator) = match lab::measure::walls::accelerator("kvm") {
        Ok(found) => found,
        Err(reason) => return skipped(&reason),
    };
    if !matches!(lab::kernel::resolve(None), Ok(Some(_))) {
        return skipped("no guest kernel; `lab kernel build` makes one");
    }
    let home = Home::new();
    let (output, record) = home.compare(&["--runs", "1", "--no-memory", "--accel", accelerator]);
    let text = String::from_utf8_lossy(&output.stdout);
    let vm = record.wall(Wall::Vm).unwrap();
    assert_eq!(vm.unavailable, None, "{text}");
    assert_eq!(vm.obtained, obtained);
    assert!(!matches!(vm.obtained, Obtained::HostKernel | Obtained::Nothing));
    assert_eq!(vm.counted().count(), 1, "{:?}", vm.samples);
    assert!(text.contains(obtained.label()), "{text}");
    assert!(text.contains("VM / container") && text.contains("run to first exit"), "{text}");
}
