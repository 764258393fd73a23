//! Another root directory, and nothing of the old one left.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use procfs::process::MountInfo;

use super::super::Error;
use super::super::compile::Tools;
use super::super::error::Context as _;
use super::super::look::Look;
use super::super::sandbox::{Live, Room};
use super::{Cause, Seen, with_task};

/// Runs the program and looks at the root of the task that it runs.
pub(in crate::course) fn grade(tools: &Tools, program: &Path) -> Result<Seen, Error> {
    with_task(tools, program, prepare, |seen, look, live| judge(seen, look, live))
}

fn prepare(room: &mut Room) -> Result<(), Error> {
    let new = room.root().join("new-root");
    for name in ["bin", "proc", "old"] {
        fs::create_dir_all(new.join(name)).at("create", &new)?;
    }
    let task = new.join("bin/task");
    // The same file at both places: whichever the program runs, it is found.
    fs::hard_link(room.root().join("bin/task"), &task).at("link", &task)
}

fn judge(seen: &mut Seen, look: &Look, live: &Live) {
    seen.judge(
        "mount-namespace",
        (look.namespace("mnt") == live.before.mount).then(|| Cause::new("mounts-shared")),
    );
    let wanted = fs::metadata(live.root().join("new-root")).ok().map(|file| (file.dev(), file.ino()));
    seen.judge("new-root", (look.file("/") != wanted).then(|| Cause::new("old-root").fact("pid", look.pid)));
    seen.judge(
        "pivoted",
        (look.namespace_root() != wanted).then(|| Cause::new("only-chroot").fact("pid", look.pid)),
    );
    // The old root is a mount of the same file system from the same folder on.
    let root = live.before.mounts.iter().find(|mount| mount.mount_point == Path::new("/"));
    let left = root.and_then(|root| {
        let same = |mount: &&MountInfo| mount.majmin == root.majmin && mount.root == root.root;
        look.mounts().iter().find(same).map(|mount| mount.mount_point.display().to_string())
    });
    seen.judge("old-root-gone", left.map(|path| Cause::new("old-root-left").fact("path", path)));
    let leaks = look.leaks();
    let numbers = leaks.join(", ");
    let leak = (!leaks.is_empty()).then(|| Cause::new("descriptor-left").fact("fds", numbers));
    seen.judge("no-descriptors", leak);
}
