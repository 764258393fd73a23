//! Warm starts: a snapshot for each kind of sandbox, from which the next of that kind starts.
//!
//! The snapshot is taken where the guest has done all that is the same for every run: its kernel is up, the root is mounted,
//! the bundle's mounts are made, and its first process has its user, limits and capabilities and waits for its start. What
//! differs from run to run comes after the restore: random numbers, time, host name (`Renew`), then arguments and
//! environment (`Start`). So one snapshot serves any command of an image.
//!
//! The first run of a command leaves a second one, taken when the command is at its first instruction
//! ([`crate::snapshot`], `command`). The next run of the same command with the same environment goes on from there: what the guest's
//! kernel did to prepare and to execute it is not done again. That is for machines with nothing of the host's but their disk: a
//! network card's address, or a shared directory's files, only the guest's kernel could change.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Error;
use crate::agent::{Halted, flatten};
use crate::devices::virtio::fs::Share;
use crate::sandbox::{CreateOptions, GUEST_INIT, RootFs};
use crate::snapshot::{self, Identity};
use crate::vm::Vm;

/// Snapshots that are kept in a folder: those used last. Each has the size of what its guest touched, some 20 MiB.
const KEPT: usize = 8;

/// What snapshots' files end with: those of kinds, and those of commands.
const SUFFIX: &str = "snapshot";
const COMMAND_SUFFIX: &str = "command";

/// How long the guest may take to have nothing more to do before it is written down. What it still has to do then is done
/// again in every machine made of the snapshot, which costs time and nothing else.
const SETTLE: Duration = Duration::from_secs(1);

/// The snapshot of one kind of sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    /// That of its command, where one can be.
    pub(crate) command: Option<Box<Warm>>,
}

impl Warm {
    /// The place, below `folder`, of the snapshot that serves sandboxes of these options; `setup` and `exec` are what their
    /// guests are told.
    pub(crate) fn of(
        folder: &Path,
        options: &CreateOptions,
        shares: &[Share],
        command_line: &[String],
        setup: &[u8],
        exec: &[u8],
    ) -> Result<Self, Error> {
        let mut modules = Vec::new();
        for module in &options.kernel.modules {
            modules.extend(file_identity(module)?);
        }
        let root = match &options.root_fs {
            RootFs::Disk(disk) => file_identity(&disk.path)?,
            RootFs::Directory(path) => path.as_os_str().as_bytes().to_vec(),
        };
        let identity = vec![
            ("guest init", crc32fast::hash(GUEST_INIT).to_le_bytes().to_vec()),
            ("kernel", file_identity(&options.kernel.image)?),
            ("kernel modules", modules),
            ("kernel command line", command_line.join(" ").into_bytes()),
            ("root", root),
            ("kinds of shares", shares.iter().map(|share| share.is_directory().into()).collect()),
            ("sockets", vec![options.vsock.is_some().into()]),
            ("memory size", options.memory_mib.to_le_bytes().to_vec()),
            ("number of vCPUs", vec![options.vcpus]),
            ("set-up", flatten::lasting(setup)),
            ("process", flatten::lasting(exec)),
        ];
        let bare = options.vsock.is_none()
            && shares.is_empty()
            && options.network.interfaces.is_empty()
            && options.network.files.is_empty();
        let command = bare.then(|| {
            let mut identity = identity.clone();
            identity.push(("command", flatten::command(exec)));
            Box::new(Self { path: place(folder, &identity, COMMAND_SUFFIX), identity, command: None })
        });
        Ok(Self { path: place(folder, &identity, SUFFIX), identity, command })
    }

    /// Takes the snapshot, and removes the oldest ones of the folder.
    pub(crate) fn take(&self, vm: &Vm) -> Result<(), Error> {
        vm.wait_idle(SETTLE)?;
        snapshot::take(vm, &self.path, &self.identity)?;
        self.forget_others();
        Ok(())
    }

    /// Takes the snapshot of a command, whose process is halted, and does `then` before it goes on; and removes the oldest ones.
    pub(crate) fn take_command(
        &self,
        vm: &Vm,
        halted: &Halted,
        then: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if snapshot::take_command(vm, &self.path, &self.identity, halted, then)? {
            self.forget_others();
        }
        Ok(())
    }

    fn forget_others(&self) {
        let suffix = self.path.extension().unwrap_or_default();
        if let Some(folder) = self.path.parent() {
            forget_all_but(folder, suffix, KEPT);
        }
    }

    /// It was used: others are forgotten before it.
    pub(crate) fn touch(&self) {
        // A snapshot that cannot be touched is only forgotten earlier.
        let _ = File::open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// The file of a snapshot of this identity. Only a name: whether it is the right one, its own identity tells.
fn place(folder: &Path, identity: &Identity, suffix: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    folder.join(format!("{:016x}.{suffix}", hasher.finish()))
}

/// What tells a file from any other and from itself after a change, without reading it.
fn file_identity(path: &Path) -> Result<Vec<u8>, Error> {
    let file = fs::metadata(path).map_err(Error::file("look at", path))?;
    let numbers = [file.dev(), file.ino(), file.size(), file.mtime() as u64, file.mtime_nsec() as u64];
    Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
}

/// Removes all but the youngest snapshots of one sort. Machines that run from a removed one keep its file until they end.
fn forget_all_but(folder: &Path, suffix: &OsStr, count: usize) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut snapshots: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    snapshots.sort_unstable();
    let excess = snapshots.len().saturating_sub(count);
    for (_, path) in &snapshots[..excess] {
        // One that another process has just removed is gone, too.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshots_used_last_are_kept_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        for (name, age) in [("a.snapshot", 30), ("b.snapshot", 10), ("c.snapshot", 20), ("other", 99)] {
            make(name, age);
        }
        forget_all_but(folder.path(), SUFFIX.as_ref(), 2);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.snapshot", "c.snapshot", "other"]);
    }

    #[test]
    fn a_file_that_changed_is_another_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = file_identity(file.path()).unwrap();
        assert_eq!(before, file_identity(file.path()).unwrap());
        fs::write(file.path(), "longer").unwrap();
        assert_ne!(before, file_identity(file.path()).unwrap());
    }
}
