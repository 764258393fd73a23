//! `lab bench` and what becomes of its results, as their user meets them: real containers, real virtual machines where the
//! machine has them. Nothing here asserts how long anything takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lab::measure::bench::record::Bench;
use lab::measure::bench::store;
use lab::measure::record::{Ended, Obtained};

/// A folder that goes with the test; images and results of the test are in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(arguments).env("LAB_HOME", self.path("home"));
        command
    }

    fn lab(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("lab starts")
    }

    fn bench(&self, arguments: &[&str]) -> (String, Bench) {
        let json = self.path("result.json");
        let output = self.lab(&[&["bench", "--json", text(&json)], arguments].concat());
        let bench = store::load(&json).unwrap_or_else(|error| {
            panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        (String::from_utf8_lossy(&output.stdout).into_owned(), bench.into_bench())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A guest kernel that cannot be: the VM's wall is then missing, which makes a test of the container alone quick.
const NO_VM: [&str; 2] = ["--kernel", "no-such-kernel"];

#[test]
fn a_machine_without_one_wall_gives_the_other_with_every_raw_value_and_its_command() {
    let home = Home::new();
    let names = ["startup", "cpu", "syscalls", "disk", "creation", "network"];
    let (report, bench) = home.bench(&[&names[..], &NO_VM, &["--quick", "--seed", "7"]].concat());
    assert_eq!(bench.ended, Ended::Complete);
    assert_eq!(bench.experiments.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), names);
    assert!(bench.subject("vm").unwrap().unavailable.as_ref().unwrap().contains("no-such-kernel"));
    assert!(bench.baseline.len() > 20 && bench.baseline.iter().all(|value| *value > 0.0));
    for experiment in &bench.experiments {
        let failures: Vec<_> = experiment.runs.iter().filter(|run| !run.counts() && !run.warmup).collect();
        assert!(failures.is_empty(), "{failures:?}");
        let absent: Vec<_> = experiment.absent.iter().map(|absent| absent.subject.as_str()).collect();
        assert!(absent.contains(&"vm") || absent.contains(&"restored"), "{}: {absent:?}", experiment.name);
        for subject in ["host", "container"] {
            let runs: Vec<_> = experiment.runs.iter().filter(|run| run.subject == subject).collect();
            assert!(
                !runs.is_empty() && runs.iter().all(|run| !run.command.is_empty()),
                "{}",
                experiment.name
            );
            let values = runs.iter().flat_map(|run| &run.values).flat_map(|values| &values.samples);
            assert!(
                values.clone().count() > 0 && values.clone().all(|value| *value > 0.0),
                "{}",
                experiment.name
            );
        }
    }
    // Every metric of a program inside was printed by it.
    for (experiment, metric) in [
        ("syscalls", "open-close"),
        ("disk", "random-read"),
        ("cpu", "round"),
        ("network", "round-trip"),
        ("network", "in-rate"),
        ("network", "out-rate"),
        ("network", "connections"),
    ] {
        let experiment = bench.experiment(experiment).unwrap();
        let seen = |run: &lab::measure::bench::record::Run| run.values.iter().any(|it| it.metric == metric);
        // Those with a name of another program are that program's.
        assert!(experiment.runs.iter().filter(|run| run.variant.is_empty()).all(seen), "{metric}");
    }
    assert!(report.contains("start → first output") && report.contains("absent"), "{report}");
    let stored = std::fs::read_dir(home.path("home/results")).unwrap().count();
    assert_eq!(stored, 1, "the result is stored without being asked for");
}

#[test]
fn memory_limits_density_and_isolation_are_measured_on_containers() {
    let home = Home::new();
    let names = ["minimum", "density", "isolation", "neighbours", "sharing", "portability"];
    let (report, bench) = home.bench(&[&names[..], &NO_VM, &["--quick"]].concat());
    let value = |experiment: &str, metric: &str| {
        let runs = bench.experiment(experiment).unwrap().counted("container", "");
        let values = runs.flat_map(|run| &run.values).filter(|values| values.metric == metric);
        values
            .flat_map(|values| values.samples.clone())
            .next()
            .unwrap_or_else(|| panic!("{metric}: {report}"))
    };
    let least = value("minimum", "least");
    assert!((64.0 * 1024.0..=64e6).contains(&least), "{least}");
    assert!(value("isolation", "processes") >= 1.0);
    assert!(value("portability", "size") > 10_000.0 && value("portability", "total") > 0.0);
    // The disk is booted where there is a kernel for it, and says why not where there is none.
    let carried = bench.experiment("portability").unwrap();
    let booted = carried.runs.iter().find(|run| run.subject == "disk").expect("QEMU is installed");
    match lab::kernel::resolve(None) {
        Ok(Some(_)) => {
            assert!(booted.counts() && booted.values.iter().any(|it| it.metric == "run"), "{booted:?}");
        }
        _ => assert!(!booted.counts(), "{booted:?}"),
    }
    assert_eq!(bench.subject("disk").unwrap().obtained, Obtained::Tcg);
    assert!(value("sharing", "pss") > 0.0);
    assert!(report.contains("PSS of so many: container (host kernel)"), "{report}");
    let isolation = bench.experiment("isolation").unwrap();
    let kernel = |subject| &isolation.counted(subject, "").next().unwrap().facts["the host's kernel"];
    assert_eq!((kernel("host").as_str(), kernel("container").as_str()), ("yes", "yes"));
    let facts = &isolation.counted("container", "").next().unwrap().facts;
    assert_eq!((facts["opens for writing"].as_str(), facts["the kernel's log"].as_str()), ("none", "hidden"));
    let neighbours = bench.experiment("neighbours").unwrap();
    let hog = |what| neighbours.counted("container", what).next().unwrap().facts["hog"].clone();
    assert_eq!(hog("memory"), "was killed", "by its limit of 64 MiB");
    let forks: f64 = hog("forks").split(' ').nth(2).unwrap().parse().unwrap();
    assert!(forks < 64.0, "{forks} processes within a limit of 64");
}

#[test]
fn a_vm_is_measured_and_marked_where_the_machine_has_one() {
    let (obtained, _) = match lab::measure::walls::accelerator("auto") {
        Ok(found) => found,
        Err(reason) => return skipped(&reason),
    };
    if !matches!(lab::kernel::resolve(None), Ok(Some(_))) {
        return skipped("no guest kernel; `lab kernel build` makes one");
    }
    let home = Home::new();
    let (report, bench) = home.bench(&["cpu", "--quick", "--runs", "1"]);
    let vm = bench.subject("vm").unwrap();
    assert_eq!((vm.obtained, &vm.unavailable), (obtained, &None));
    assert_ne!(vm.obtained, Obtained::HostKernel);
    let runs: Vec<_> = bench.experiment("cpu").unwrap().counted("vm", "").collect();
    assert_eq!(runs.len(), 1, "{report}");
    assert!(runs[0].values[0].samples.len() == 20 && report.contains(obtained.label()), "{report}");
}

#[test]
fn an_interrupted_bench_keeps_what_it_has_and_says_so() {
    let home = Home::new();
    let json = home.path("result.json");
    let arguments = [&["bench", "--json", text(&json), "--runs", "2000"], &NO_VM[..], &["startup"]].concat();
    let mut child =
        home.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("lab starts");
    std::thread::sleep(std::time::Duration::from_secs(4));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child of ours");
    let mut report = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut report).expect("text");
    child.wait().expect("a child of ours");
    let bench = store::load(&json).expect("a result").into_bench();
    assert!(matches!(bench.ended, Ended::Interrupted { .. }));
    let runs = bench.experiment("startup").unwrap().runs.len();
    assert!((1..4000).contains(&runs), "{runs}");
    assert!(report.contains("stopped by the user"), "{report}");
}

#[test]
fn processes_are_held_to_the_processors_that_were_asked_for_and_the_result_says_so() {
    let home = Home::new();
    let pins = ["--pin", "0", "--pin-vcpus", "0", "--pin-load", "0"];
    let (report, bench) = home.bench(&[&["cpu", "--quick", "--runs", "1"], &pins[..], &NO_VM[..]].concat());
    assert_eq!((bench.pinned, bench.pinned_vcpus, bench.pinned_load), (vec![0], vec![0], vec![0]));
    let again = bench.reproduce.join(" ");
    assert!(again.contains("--pin 0 --pin-vcpus 0 --pin-load 0"), "{again}");
    assert!(
        report.contains("held to") && report.contains("vCPUs to") && report.contains("load to"),
        "{report}"
    );
    let output = home.lab(&["bench", "cpu", "--pin-vcpus", "4000"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.lines().count() == 1 && error.contains("4000"), "{error}");
}

#[test]
fn results_are_listed_shown_compared_pooled_replayed_and_exported_without_any_wall() {
    let home = Home::new();
    let (_, first) = home.bench(&[&["cpu", "startup", "--quick", "--runs", "4"], &NO_VM[..]].concat());
    let path = home.path("result.json");
    let list = home.lab(&["results", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("bench: cpu startup") && list.contains("not available"), "{list}");

    let run = |arguments: &[&str]| {
        let output = home.lab(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let file = text(&path);
    let diff = run(&["results", "diff", file, file]);
    assert!(diff.contains("0 better, 0 worse") && diff.contains("no difference"), "{diff}");
    let replay = run(&["replay", file]);
    assert!(
        replay.contains("nothing is measured now") && replay.contains("start → first output"),
        "{replay}"
    );
    assert!(run(&["replay", "reference"]).contains("nothing is measured now"));
    let folder = home.path("class");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..5 {
        let mut copy = first.clone();
        copy.seed = number;
        store::save(&copy, &folder).unwrap();
    }
    std::fs::write(folder.join("broken.json"), "{\"schema\": \"lab-bench\", \"version\": 99}").unwrap();
    let pool = home.lab(&["pool", text(&folder)]);
    assert!(String::from_utf8_lossy(&pool.stdout).contains("5 results"));
    assert!(String::from_utf8_lossy(&pool.stderr).contains("version is 99"));
    let (page, plots, csv) = (home.path("a.html"), home.path("plots"), home.path("a.csv"));
    run(&["results", "export", file, "--html", text(&page), "--svg", text(&plots), "--csv", text(&csv)]);
    assert!(std::fs::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
    assert!(std::fs::read_dir(plots).unwrap().count() >= 2);
    assert!(std::fs::read_to_string(csv).unwrap().lines().count() > 20);

    let missing = home.lab(&["results", "show", "no-such-result"]);
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        !missing.status.success() && error.lines().count() == 1 && error.contains("no-such-result"),
        "{error}"
    );
}

#[test]
fn experiments_are_listed_and_explained_and_a_wrong_name_is_one_line() {
    let home = Home::new();
    let list = home.lab(&["bench", "--list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for experiment in lab::measure::experiments::ALL {
        let name = experiment.about().name;
        assert!(list.contains(name), "{name}");
        let output = home.lab(&["bench", name, "--explain"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("blind to") && text.contains("paper"), "{text}");
    }
    let output = home.lab(&["bench", "speed"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.lines().count() == 1, "{error}");
    assert!(error.contains("speed") && error.contains("startup"), "{error}");
}

/// Says loudly that a test did not run; in CI that is a failure.
fn skipped(reason: &str) {
    println!("SKIPPED ({reason})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED ({reason}), and CI must run everything");
}
