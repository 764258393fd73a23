//! What a run may leave behind: mounts, control groups, processes, files. All must be as before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Other sandboxes may run on the machine meanwhile, and their traces come and go; ours must only not stay.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tests that look for traces take turns, or each would see the other's sandboxes.
static TURN: Mutex<()> = Mutex::new(());

/// The machine as a run could change it.
#[derive(Debug)]
pub struct Traces {
    home: PathBuf,
    before: BTreeSet<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Traces {
    /// Remembers the machine, and the lab in this directory, as they are now.
    pub fn of(home: &Path) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { home: home.to_owned(), before: traces(home), _turn: turn }
    }

    /// Fails if something is there that was not there before and does not go away.
    pub fn assert_unchanged(self) {
        let begun = Instant::now();
        let mut new: BTreeSet<String> = &traces(&self.home) - &self.before;
        while !new.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "left behind: {new:#?}");
            thread::sleep(Duration::from_millis(100));
            let now = traces(&self.home);
            new.retain(|trace| now.contains(trace));
        }
    }
}

fn traces(home: &Path) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    mounts(&mut traces);
    control_groups(&mut traces);
    processes(home, &mut traces);
    files(&home.join("run"), &mut traces);
    files(&home.join("data/sandboxes"), &mut traces);
    traces
}

fn mounts(traces: &mut BTreeSet<String>) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    traces.extend(mounts.lines().map(|line| format!("mount {line}")));
}

/// Every directory below a `lab` of any hierarchy.
fn control_groups(traces: &mut BTreeSet<String>) {
    let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    hierarchies.extend(directories(Path::new("/sys/fs/cgroup")));
    for group in hierarchies.iter().flat_map(|hierarchy| directories(&hierarchy.join("lab"))) {
        traces.insert(format!("control group {}", group.display()));
    }
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Processes in a lab's control group, and those that know this lab's directory.
fn processes(home: &Path, traces: &mut BTreeSet<String>) {
    let home = home.to_str().expect("a text");
    for process in directories(Path::new("/proc")) {
        let read =
            |name: &str| fs::read(process.join(name)).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (Ok(groups), Ok(command)) = (read("cgroup"), read("cmdline")) else { continue };
        let environment = read("environ").unwrap_or_default();
        // The test program itself and its threads know the directory, too: they are there before and after.
        if groups.contains("/lab/") || command.contains(home) || environment.contains(home) {
            traces.insert(format!("process {} {}", process.display(), command.replace('\0', " ")));
        }
    }
}

/// Every file below a directory, and every directory that is not one of the few that are made once and stay.
fn files(directory: &Path, traces: &mut BTreeSet<String>) {
    const STAYING: [&str; 5] = ["lab", "sandboxes", "names", "containers", "machines"];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !STAYING.iter().any(|name| path.ends_with(name)) {
            traces.insert(format!("file {}", path.display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&path, traces);
        }
    }
}
