//! The lessons grade as they promise: no skeleton passes, every solution does, every typical mistake gets its own hint, and
//! programs that misbehave get a message and leave nothing.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::leftovers::Traces;
use common::{Lab, Wall, skip};
use lab::course::report::Report;
use lab::course::{LESSONS, Lesson, workspace};
use lab::engine::Runtime;

/// What the student's folders are worth only in a lab of its own, whose way the sandboxes' mapped users can pass.
fn lab() -> Lab {
    let lab = Lab::empty();
    fs::set_permissions(lab.home(), fs::Permissions::from_mode(0o711)).expect("a directory of ours");
    lab
}

/// Why lessons of a wall cannot be checked here, if they cannot.
fn missing(wall: Runtime) -> Option<&'static str> {
    Wall::Container.missing().or_else(|| match wall {
        Runtime::Container => None,
        Runtime::Vm => fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
            .then_some("/dev/kvm cannot be opened"),
    })
}

fn program(lab: &Lab, text: &str) -> PathBuf {
    let path = lab.home().join("program.rs");
    fs::write(&path, text).expect("a file");
    path
}

fn check(lab: &Lab, lesson: &str, program: &Path) -> (Report, Duration) {
    let begun = Instant::now();
    let path = program.to_str().expect("a text");
    let output = lab.run(&["lesson", "--lang", "en", "check", lesson, path, "--format", "json"], "");
    let reports: Vec<Report> = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{lesson}: {error}: {}{}", output.stdout, output.stderr));
    let report = reports.into_iter().next().expect("a report");
    assert_eq!(output.code == 0, report.passed(), "{lesson}");
    (report, begun.elapsed())
}

fn causes(report: &Report) -> Vec<&str> {
    report.checks.iter().filter_map(|check| check.cause.as_deref()).collect()
}

/// All programs of one wall's lessons.
fn grade_all(wall: Runtime, most: Duration) {
    if let Some(why) = missing(wall) {
        return skip(&format!("lessons of the {} wall", wall.name()), why);
    }
    let lab = lab();
    let traces = Traces::of(lab.home());
    let mut faults = Vec::new();
    for lesson in LESSONS.iter().filter(|lesson| lesson.wall == wall) {
        grade(&lab, lesson, most, &mut faults);
    }
    assert!(faults.is_empty(), "{faults:#?}");
    traces.assert_unchanged();
}

fn grade(lab: &Lab, lesson: &Lesson, most: Duration, faults: &mut Vec<String>) {
    let mut fault = |what: String| faults.push(format!("{}: {what}", lesson.name));
    let (report, _) = check(lab, lesson.name, &program(lab, lesson.skeleton));
    if report.passed() || report.checks[0].passed != Some(true) {
        fault(format!("the skeleton should compile and fail: {:?}", report.checks));
    }
    let (report, first) = check(lab, lesson.name, &program(lab, lesson.solution));
    if !report.passed() {
        fault(format!("the solution should pass: {:?} {}", report.checks, report.output));
    }
    // The first check of a lab compiles the helper as well, and other builds may run: the best of three is the lesson's own.
    let again = (0..2).map(|_| check(lab, lesson.name, &program(lab, lesson.solution)).1);
    let best = again.fold(first, Duration::min);
    if best > most {
        fault(format!("a check takes {best:?}, not less than {most:?}"));
    }
    for (cause, text) in lesson.mistakes {
        let (report, _) = check(lab, lesson.name, &program(lab, text));
        if !causes(&report).contains(cause) {
            fault(format!(
                "the mistake {cause} is told as {:?}: {:?} {}",
                causes(&report),
                report.checks,
                report.output
            ));
        }
    }
}

#[test]
fn container_lessons_tell_skeleton_solution_and_each_mistake_apart() {
    grade_all(Runtime::Container, Duration::from_secs(2));
}

#[test]
fn vm_lessons_tell_skeleton_solution_and_each_mistake_apart() {
    grade_all(Runtime::Vm, Duration::from_secs(10));
}

#[test]
fn a_container_lesson_s_sandbox_holds_whatever_the_student_s_program_does() {
    if let Some(why) = missing(Runtime::Container) {
        return skip("misbehaving programs of students", why);
    }
    let lab = lab();
    let witness = lab.home().join("witness");
    fs::write(&witness, "untouched").expect("a file");
    let outside = format!(
        "fn main() {{ let path = {witness:?}; println!(\"{{:?}} {{:?}}\", std::fs::write(path, \"x\"), std::fs::read_dir(\"/home\").is_ok()); }}"
    );
    let grader = std::process::id();
    let kill =
        format!("fn main() {{ for pid in [{grader}, 1, -1] {{ let _ = lesson::kill(pid, 9); }} loop {{}} }}");
    let programs = [
        ("fn main() { let x: i32 = \"text\"; }", "compile"),
        ("fn main() { loop { std::hint::spin_loop() } }", "endless"),
        ("fn main() { std::thread::sleep(std::time::Duration::from_secs(60)) }", "endless"),
        ("fn main() { loop { let _ = lesson::fork(); } }", "forks"),
        ("fn main() { let mut all = Vec::new(); loop { all.push(vec![1u8; 1 << 20]); } }", "memory"),
        ("fn main() { loop { println!(\"{}\", \"x\".repeat(9999)); } }", "endless"),
        (&outside, "task-missing"),
        (&kill, "endless"),
    ];
    let traces = Traces::of(lab.home());
    for (text, cause) in programs {
        let (report, time) = check(&lab, "pid-namespace", &program(&lab, text));
        assert!(causes(&report).contains(&cause), "{cause}: {:?} {}", report.checks, report.output);
        assert!(time < Duration::from_secs(60), "{cause}: {time:?}");
        assert!(report.output.len() <= 1 << 16);
    }
    assert_eq!(fs::read_to_string(&witness).expect("the witness"), "untouched");
    traces.assert_unchanged();
}

/// A student without root: nobody, in a mount namespace where the compiler lies where anybody can reach it (it may be below
/// root's home).
struct Nobody {
    home: tempfile::TempDir,
    sysroot: String,
}

impl Nobody {
    const ID: u32 = 65534;

    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("lab-test-").tempdir().expect("a temporary directory");
        let place = home.path().join("lab");
        fs::copy(env!("CARGO_BIN_EXE_lab"), &place).expect("a copy of lab");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("its rights");
        let owner = Some(Self::ID);
        std::os::unix::fs::chown(home.path(), owner, owner).expect("a home of nobody's");
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs").stdout;
        Self { home, sysroot: String::from_utf8(sysroot).expect("a path").trim().to_owned() }
    }

    fn check(&self, lesson: &str, text: &str) -> Report {
        let home = self.home.path();
        fs::write(home.join("program.rs"), text).expect("a file");
        let script = "mount --bind \"$SYSROOT\" /mnt && exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                      ./lab lesson --lang en check \"$0\" program.rs --format json";
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, lesson])
            .env_clear()
            .env("SYSROOT", &self.sysroot)
            .env("RUSTC", "/mnt/bin/rustc")
            .env("HOME", home)
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .current_dir(home)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let output = common::finish(child);
        let reports: Vec<Report> = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{lesson}: {error}: {}{}", output.stdout, output.stderr));
        reports.into_iter().next().expect("a report")
    }
}

#[test]
fn an_ordinary_user_s_container_lessons_need_no_root_but_where_they_say_so() {
    let switched_off = fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone");
    if !rustix::process::geteuid().is_root() {
        return skip("an ordinary user's lessons", "becoming another user needs root");
    } else if switched_off.is_ok_and(|text| text.trim() == "0") {
        return skip("an ordinary user's lessons", "user namespaces are switched off");
    }
    let user = Nobody::new();
    for lesson in LESSONS.iter().filter(|lesson| lesson.wall == Runtime::Container) {
        let (skeleton, solution) =
            (user.check(lesson.name, lesson.skeleton), user.check(lesson.name, lesson.solution));
        assert!(!skeleton.passed(), "{}: the skeleton passes", lesson.name);
        if lesson.name == "cgroup-limit" {
            assert_eq!(causes(&solution), ["needs-root"], "{:?}", solution.checks);
        } else {
            assert!(solution.passed(), "{}: {:?} {}", lesson.name, solution.checks, solution.output);
        }
    }
    // Without control groups, limits hold all the same.
    let programs = [
        ("fn main() { loop { std::hint::spin_loop() } }", "endless"),
        ("fn main() { loop { let _ = lesson::fork(); } }", "forks"),
        ("fn main() { let mut all = Vec::new(); loop { all.push(vec![1u8; 1 << 20]); } }", "memory"),
    ];
    for (text, cause) in programs {
        let report = user.check("pid-namespace", text);
        assert!(causes(&report).contains(&cause), "{cause}: {:?} {}", report.checks, report.output);
    }
}

#[test]
fn a_student_s_folder_starts_fails_passes_and_is_exported_in_spanish_too() {
    if let Some(why) = missing(Runtime::Container) {
        return skip("a student's folder", why);
    }
    let lab = lab();
    let run = |arguments: &[&str]| lab.run(arguments, "");
    let started = run(&["lesson", "start", "pid-namespace", "--lang", "es"]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    assert!(started.stdout.contains("namespace de montajes"), "{}", started.stdout);
    let again = run(&["lesson", "start", "pid-namespace"]);
    assert!(again.code != 0 && again.stderr.contains("is there already"), "{}", again.stderr);
    let failed = run(&["lesson", "check", "pid-namespace", "--lang", "es"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stdout.contains("✗ vive en un namespace de PID nuevo"), "{}", failed.stdout);
    assert!(failed.stdout.contains("Nadie pidió uno nuevo"), "{}", failed.stdout);
    assert!(failed.stdout.contains("omitida"), "{}", failed.stdout);
    // Hints grow clearer, and the last check's is told with them.
    let hints: Vec<String> = (0..4).map(|_| run(&["lesson", "hint", "pid-namespace"]).stdout).collect();
    assert!(hints[0].starts_with("1/3") && hints[1].starts_with("2/3") && hints[3].starts_with("3/3"));

    // Watching: the check runs again when the file is saved.
    let mut watch = lab.command(&["lesson", "watch", "pid-namespace", "--lang", "en"]);
    let child = watch.stdout(std::process::Stdio::piped()).spawn().expect("lab starts");
    let solution = lab.run(&["lesson", "solution", "pid-namespace"], "").stdout;
    std::thread::sleep(Duration::from_millis(300));
    fs::write(lab.home().join("pid-namespace").join(workspace::PROGRAM), &solution).expect("a file");
    let watched = common::finish(child);
    assert_eq!(watched.code, 0, "{}", watched.stderr);
    assert!(watched.stdout.contains("All 7 checks passed"), "{}", watched.stdout);

    let exported: Vec<Report> =
        serde_json::from_str(&run(&["lesson", "export"]).stdout).expect("reports as JSON");
    assert!(exported[0].passed() && exported[0].hints == 3 && exported[0].tries >= 2, "{exported:?}");
    assert!(run(&["lesson", "export", "--format", "junit"]).stdout.contains("failures=\"0\""));
    assert!(run(&["lesson", "export", "--format", "csv"]).stdout.contains("pid-namespace,container,"));
    assert!(run(&["lesson", "list"]).stdout.contains("✓ 7/7"));
    let unknown = run(&["lesson", "check", "flying"]);
    assert!(unknown.code != 0 && unknown.stderr.contains("lab lesson list"), "{}", unknown.stderr);
}
