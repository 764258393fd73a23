//! The least that a container's start can take: new namespaces, the usual mounts, a new root, a program, and the wait for
//! its end. No configuration, no cgroup, no capabilities, no state, no checks: a runtime's time is what it adds to this.
//!
//! `container-floor ROOTFS PROGRAM ARGUMENTS...`, as root.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

/// The mounts of an engine's default configuration: type, directory, parameters.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "proc", ""),
    ("tmpfs", "dev", "mode=755,size=65536k"),
    ("devpts", "dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "dev/shm", "mode=1777,size=65536k"),
    ("mqueue", "dev/mqueue", ""),
    ("sysfs", "sys", ""),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [rootfs, program, arguments @ ..] = words.as_slice() else {
        eprintln!("usage: container-floor ROOTFS PROGRAM ARGUMENTS...");
        return ExitCode::FAILURE;
    };
    let rootfs = rootfs.clone();
    let new = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET;
    if let Err(error) = unshare(new) {
        eprintln!("unshare: {error}");
        return ExitCode::FAILURE;
    }
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    // SAFETY: between fork and exec the closure only makes system calls; what it allocates is safe to, as this program has
    // one thread, so no lock is held by another (signal-safety(7)).
    unsafe { command.pre_exec(move || set_up(Path::new(&rootfs)).map_err(Into::into)) };
    match command.status() {
        Ok(status) => ExitCode::from(status.code().or(status.signal()).unwrap_or(1) as u8),
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set_up(rootfs: &Path) -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING)?;
    mount(Some(rootfs), rootfs, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    chdir(rootfs)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (typ, directory, data) in MOUNTS {
        if directory.contains('/') {
            let _ = std::fs::create_dir(directory);
        }
        mount(Some(*typ), *directory, Some(*typ), flags, Some(*data))?;
    }
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}
