//! The container runtime beside crun and runc, driven by the same commands on the same bundle, and beside the floor: the
//! kernel's part of the work and nothing else (`benches/src/bin/container-floor.rs`).
//!
//! `cargo bench -p benches --bench container -- [ROUNDS]`; as root, with a static busybox. A peer that is not installed
//! is named as absent. Everything runs in a mount namespace of the bench's own, in which cgroups are version 2: crun
//! refuses machines with both versions. Rules for devices are left out of the bundle, since crun loads them as an eBPF
//! program under a raised memory limit, which not every root may raise.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::cgroups::own_cgroups;
use benches::programs::{own, peer};
use benches::race::{Contender, print, race};

/// The seed of every shuffle and resampling here, so that a run can be repeated in the same order.
const SEED: u64 = 1;

/// A runtime in the race.
#[derive(Clone)]
struct Runtime {
    name: &'static str,
    program: PathBuf,
    state: PathBuf,
}

impl Runtime {
    fn command(&self, bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).current_dir(bundle).stdin(Stdio::null());
        command
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(200);
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED (needs root)");
        return Ok(());
    }
    let Some(busybox) = peer("busybox") else {
        println!("SKIPPED (needs a static busybox; install the package busybox-static)");
        return Ok(());
    };
    let ours = own("container", "lab-container")?;
    let floor = own("benches", "container-floor")?;
    let cgroups = own_cgroups();
    let place = tempfile::tempdir()?;
    let bundles = Bundles::make(place.path(), &busybox)?;

    let mut runtimes =
        vec![Runtime { name: "lab-container", program: ours, state: place.path().join("lab") }];
    for name in ["crun", "runc"] {
        match peer(name) {
            Some(program) => runtimes.push(Runtime { name, program, state: place.path().join(name) }),
            None => println!("{name}: absent (not in PATH)"),
        }
    }
    println!("cgroups: {cgroups}");

    let mut contenders: Vec<Contender> =
        runtimes.iter().map(|runtime| whole_life(runtime, &bundles.short)).collect();
    let rootfs = bundles.short.join("rootfs");
    contenders.push(Contender::new("floor", move |_| {
        let mut command = Command::new(&floor);
        command.arg(&rootfs).arg("/bin/true");
        command
    }));
    let laps = race(&mut contenders, rounds, SEED)?;
    print(
        &format!("run: create + start + wait + delete of `true`, {rounds} interleaved runs"),
        &laps,
        base(&runtimes),
        SEED,
    );

    let mut contenders: Vec<Contender> =
        runtimes.iter().map(|runtime| by_steps(runtime, &bundles.short)).collect();
    let laps = race(&mut contenders, rounds / 4, SEED)?;
    print(
        &format!(
            "create, start, delete --force as an engine does: three commands (and the shell's own time), {} runs",
            rounds / 4
        ),
        &laps,
        base(&runtimes),
        SEED,
    );

    let running: Vec<Running> =
        runtimes.iter().map(|r| Running::start(r, &bundles.long)).collect::<Result<_, _>>()?;
    let mut contenders: Vec<Contender> = running.iter().map(Running::exec).collect();
    let laps = race(&mut contenders, rounds, SEED)?;
    print(&format!("exec of `true`, {rounds} interleaved runs"), &laps, base(&runtimes), SEED);

    println!("\n{:<34} {:>10} {:>12} {:>12}", "", "calls, run", "peak kB, run", "size kB");
    for (runtime, running) in runtimes.iter().zip(&running) {
        let calls =
            system_calls(runtime, &bundles.short).map_or("no strace".into(), |count| count.to_string());
        let size = fs::metadata(&runtime.program)?.len() / 1024;
        println!("{:<34} {calls:>10} {:>12} {size:>12}", runtime.name, running.peak_kilobytes()?);
    }
    println!(
        "(system calls of the whole tree with those of `true`; peers' sizes are without their shared libraries)"
    );
    Ok(())
}

/// The runtime that the others are compared with.
fn base(runtimes: &[Runtime]) -> &'static str {
    runtimes.iter().find(|runtime| runtime.name == "crun").map_or("lab-container", |runtime| runtime.name)
}

/// The same root file system with two commands.
struct Bundles {
    short: PathBuf,
    long: PathBuf,
}

impl Bundles {
    fn make(place: &Path, busybox: &Path) -> Result<Self, Box<dyn Error>> {
        let make = |name: &str, command: &[&str]| -> Result<PathBuf, Box<dyn Error>> {
            let bundle = place.join(name);
            for directory in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
                fs::create_dir_all(bundle.join("rootfs").join(directory))?;
            }
            fs::copy(busybox, bundle.join("rootfs/bin/busybox"))?;
            for applet in ["true", "sleep"] {
                symlink("busybox", bundle.join("rootfs/bin").join(applet))?;
            }
            let mut spec: serde_json::Value =
                serde_json::from_str(include_str!("../../container/src/cli/example.json"))?;
            spec["ociVersion"] = "1.0.2".into(); // the newest that all peers in use accept
            spec["process"]["args"] = serde_json::json!(command);
            spec["process"]["terminal"] = false.into();
            spec["linux"]["resources"] = serde_json::json!({});
            fs::write(bundle.join("config.json"), spec.to_string())?;
            Ok(bundle)
        };
        Ok(Self { short: make("short", &["/bin/true"])?, long: make("long", &["/bin/sleep", "1000"])? })
    }
}

fn whole_life(runtime: &Runtime, bundle: &Path) -> Contender {
    let (runtime, bundle) = (runtime.clone(), bundle.to_owned());
    Contender::new(runtime.name, move |number| {
        let mut command = runtime.command(&bundle);
        command.arg("run").arg(format!("bench-{}-{number}", std::process::id()));
        command
    })
}

fn by_steps(runtime: &Runtime, bundle: &Path) -> Contender {
    let (runtime, bundle) = (runtime.clone(), bundle.to_owned());
    Contender::new(runtime.name, move |number| {
        let script = r#""$R" --root "$S" create $I && "$R" --root "$S" start $I && "$R" --root "$S" delete --force $I"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&bundle).env("R", &runtime.program).env("S", &runtime.state);
        command.env("I", format!("bench-s-{}-{number}", std::process::id()));
        command
    })
}

/// A container that runs until this is dropped.
struct Running {
    runtime: Runtime,
    bundle: PathBuf,
    id: String,
    foreground: std::process::Child,
}

impl Running {
    fn start(runtime: &Runtime, bundle: &Path) -> Result<Self, Box<dyn Error>> {
        let id = format!("bench-long-{}", std::process::id());
        let foreground = runtime.command(bundle).args(["run", &id]).stdout(Stdio::null()).spawn()?;
        let running = Self { runtime: runtime.clone(), bundle: bundle.to_owned(), id, foreground };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let output = running.runtime.command(bundle).args(["state", &running.id]).output()?;
            if String::from_utf8_lossy(&output.stdout).contains("running") {
                return Ok(running);
            }
            if Instant::now() > deadline {
                return Err(format!("{}: its container does not run", runtime.name).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn exec(&self) -> Contender {
        let (runtime, bundle, id) = (self.runtime.clone(), self.bundle.clone(), self.id.clone());
        Contender::new(runtime.name, move |_| {
            let mut command = runtime.command(&bundle);
            command.args(["exec", &id, "/bin/true"]);
            command
        })
    }

    /// The most memory that the runtime's process, which waits for its container, has had resident (`proc_pid_status(5)`).
    /// Not from wait4(2): its figure begins with that of this bench, from which the process was made.
    fn peak_kilobytes(&self) -> Result<u64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.foreground.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.runtime.command(&self.bundle).args(["kill", &self.id, "KILL"]).output();
        let _ = self.foreground.wait();
        let _ = self.runtime.command(&self.bundle).args(["delete", "--force", &self.id]).output();
    }
}

/// How many system calls one run makes, in all its processes.
fn system_calls(runtime: &Runtime, bundle: &Path) -> Option<usize> {
    let strace = peer("strace")?;
    let log = bundle.join("strace");
    let plain = runtime.command(bundle);
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-o"]).arg(&log).arg(plain.get_program()).args(plain.get_args());
    command
        .args(["run", &format!("bench-strace-{}", std::process::id())])
        .current_dir(bundle)
        .stdin(Stdio::null());
    command.stdout(Stdio::null()).status().ok().filter(std::process::ExitStatus::success)?;
    // A call that another process's interrupts has two lines.
    let text = fs::read_to_string(log).ok()?;
    Some(text.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count())
}
