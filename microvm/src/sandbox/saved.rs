//! A sandbox whose workload runs, written down; and any number of sandboxes that go on from there.
//!
//! The guest goes on in the middle of what it did: the same memory, processes and terminal, on another host side, which gets other
//! streams, another network card's address and another name. So what the guest knows of its machine must be so again: as many
//! devices of each sort, the same root, the same size ([`Shape`]).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Sandbox;
use super::options::CreateOptions;
use crate::devices::virtio::fs::Share;
use crate::machine::Machine;
use crate::snapshot::{self, Identity};
use crate::{Error, jail};

/// What is moved by a thread of its own, such as output on its way to the host, is out of the devices soon.
const SETTLE: Duration = Duration::from_secs(1);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// A snapshot of a sandbox whose workload ran.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its file. It must not change as long as a machine lives that was made of it; removing it does no harm.
    pub path: PathBuf,
    /// What tells the root file system from all others, as it was given to [`Sandbox::snapshot`].
    pub root: Vec<u8>,
}

/// What a guest has found of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    memory_mib: u32,
    vcpus: u8,
    cards: u8,
    shares: u8,
    sockets: bool,
}

impl Shape {
    pub(super) fn of(options: &CreateOptions, shares: &[Share]) -> Self {
        let count = |len| u8::try_from(len).unwrap_or(u8::MAX);
        Self {
            memory_mib: options.memory_mib,
            vcpus: options.vcpus,
            cards: count(options.network.interfaces.len()),
            shares: count(shares.len()),
            sockets: options.vsock.is_some(),
        }
    }

    pub(super) fn identity(self, root: &[u8]) -> Identity {
        vec![
            ("protocol of PID 1", guest_wire::VERSION.to_le_bytes().to_vec()),
            ("root", root.to_vec()),
            ("memory size", self.memory_mib.to_le_bytes().to_vec()),
            ("number of vCPUs", vec![self.vcpus]),
            ("number of network cards", vec![self.cards]),
            ("number of volumes", vec![self.shares]),
            ("sockets", vec![self.sockets.into()]),
        ]
    }
}

impl Sandbox {
    /// Writes the machine down, with its workload as it runs, for [`CreateOptions::saved`]. It is held still meanwhile, and goes on
    /// afterwards. `root` is what tells its root file system from all others.
    ///
    /// # Errors
    /// The workload does not run; a device holds what is the host's, such as open files of a volume; the file cannot be written.
    pub fn snapshot(&self, path: &Path, root: &[u8]) -> Result<(), Error> {
        let Machine::Kvm(vm) = &self.machine else { return Err(super::create::no_snapshot()) };
        if jail::is_prepared() {
            let reason =
                "its process is jailed, and has no files to write; take snapshots of a machine of `lab run`";
            return Err(Error::Device { device: "machine", reason: reason.into() });
        }
        let identity = self.shape.identity(root);
        let begun = Instant::now();
        loop {
            match snapshot::take_running(vm, path, &identity, &self.session) {
                Err(Error::Device { .. }) if begun.elapsed() < SETTLE => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
    }
}
