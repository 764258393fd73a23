//! A process seen from outside: nothing here asks the student's program anything (`proc(5)`, `namespaces(7)`).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use procfs::process::{MountInfo, Process, Status};

use super::sandbox::Live;

/// How often is looked for a process that is to come.
const PAUSE: Duration = Duration::from_millis(2);

/// A process.
#[derive(Debug)]
pub struct Look {
    /// Its id, as the grader sees it.
    pub pid: i32,
}

impl Look {
    /// At a process by its id.
    pub fn at(pid: i32) -> Self {
        Self { pid }
    }

    /// Waits until the program runs somewhere below the sandbox's first process; none where it never does.
    pub fn wait_for(live: &Live, program: &Path) -> Option<Self> {
        let file = fs::metadata(program).ok()?;
        loop {
            let found = family(live.pid()).into_iter().find(|pid| {
                fs::metadata(format!("/proc/{pid}/exe"))
                    .is_ok_and(|exe| (exe.dev(), exe.ino()) == (file.dev(), file.ino()))
            });
            if found.is_some() || !live.runs() {
                return found.map(Self::at);
            }
            live.pause(PAUSE);
        }
    }

    /// A path below `/proc/PID`.
    pub fn path(&self, rest: &str) -> PathBuf {
        format!("/proc/{}/{rest}", self.pid).into()
    }

    /// The number of one of its namespaces, as `pid` or `mnt`. None where the kernel has none to show: so it is with
    /// `pid_for_children` as long as there is no child.
    pub fn namespace(&self, kind: &str) -> Option<u64> {
        fs::metadata(self.path("ns").join(kind)).ok().map(|metadata| metadata.ino())
    }

    /// `/proc/PID/status`.
    pub fn status(&self) -> Option<Status> {
        Process::new(self.pid).ok()?.status().ok()
    }

    /// Its id in its own PID namespace: the last of `NSpid`.
    pub fn inner_pid(&self) -> Option<i32> {
        self.status()?.nspid?.last().copied()
    }

    /// What is mounted where it lives.
    pub fn mounts(&self) -> Vec<MountInfo> {
        let mounts = Process::new(self.pid).and_then(|process| process.mountinfo());
        mounts.map(|mounts| mounts.0).unwrap_or_default()
    }

    /// The file behind a path of its own: device and inode.
    pub fn file(&self, path: &str) -> Option<(u64, u64)> {
        fs::metadata(self.path("root").join(path.trim_start_matches('/'))).ok().map(|m| (m.dev(), m.ino()))
    }

    /// The root directory of its mount namespace: not that of the process, which chroot(2) changes too.
    pub fn namespace_root(&self) -> Option<(u64, u64)> {
        if !rustix::process::geteuid().is_root() {
            return self.root_from_within();
        }
        let namespace = fs::File::open(self.path("ns/mnt")).ok()?;
        // A thread of its own, which the kernel lets go elsewhere once it shares its directories with no other (setns(2)).
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS).ok()?;
            setns(namespace, CloneFlags::CLONE_NEWNS).ok()?;
            fs::metadata("/").ok().map(|root| (root.dev(), root.ino()))
        })
        .join()
        .ok()?
    }

    /// The same for an ordinary user, whose rights are those in the process's user namespace: and that can be entered only by a
    /// process with one thread (setns(2)). So this program is run again, see [`enter_and_look`].
    fn root_from_within(&self) -> Option<(u64, u64)> {
        let mut again = std::process::Command::new("/proc/self/exe");
        let output = again.args(["lesson", "look", &self.pid.to_string()]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let (device, inode) = text.trim().split_once(' ')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    }

    /// The folder of its control group for a controller: on version 1 in that controller's tree, else in the one tree.
    pub fn group(&self, controller: &str) -> Option<PathBuf> {
        let text = fs::read_to_string(self.path("cgroup")).ok()?;
        let lines: Vec<(&str, &str)> =
            text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
        let root = Path::new("/sys/fs/cgroup");
        let v1 = lines.iter().find(|(names, _)| names.split(',').any(|name| name == controller));
        let (tree, path) = match v1 {
            Some((names, path)) => (root.join(names), path),
            None => (root.to_owned(), &lines.iter().find(|(names, _)| names.is_empty())?.1),
        };
        Some(tree.join(path.trim_start_matches('/')))
    }

    /// Descriptors of files and folders that lie on mounts which it cannot reach by any path: leaks.
    pub fn leaks(&self) -> Vec<String> {
        let mounts: Vec<i32> = self.mounts().iter().map(|mount| mount.mnt_id).collect();
        let entries = fs::read_dir(self.path("fd")).into_iter().flatten().flatten();
        entries
            .filter(|entry| fs::metadata(entry.path()).is_ok_and(|file| file.is_dir() || file.is_file()))
            .filter_map(|entry| {
                let number = entry.file_name().into_string().ok()?;
                let info = fs::read_to_string(self.path("fdinfo").join(&number)).ok()?;
                let mount: i32 =
                    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())?;
                (!mounts.contains(&mount)).then_some(number)
            })
            .collect()
    }
}

/// Joins the user and mount namespaces of a process; the device and inode of the root there. Only for a process with one
/// thread, which then has nothing else to do.
///
/// # Errors
/// It is not this user's.
pub fn enter_and_look(pid: i32) -> std::io::Result<(u64, u64)> {
    let open = |kind: &str| fs::File::open(format!("/proc/{pid}/ns/{kind}"));
    let (user, mount) = (open("user")?, open("mnt")?);
    setns(user, CloneFlags::CLONE_NEWUSER)?;
    setns(mount, CloneFlags::CLONE_NEWNS)?;
    fs::metadata("/").map(|root| (root.dev(), root.ino()))
}

/// A process and all below it (`/proc/PID/task/TID/children`).
pub fn family(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    // A program that forks without end makes no more than its sandbox allows.
    while let Some(&parent) = all.get(next) {
        next += 1;
        for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    all
}
