//! Snapshots: a machine held still and written down, and machines made of what was written.
//!
//! ```text
//!   take     hold the vCPUs ▶ each vCPU's state ▶ chips, clock ▶ devices ▶ memory ▶ file
//!   restore  file ▶ memory, by mapping ▶ vCPUs ▶ devices ▶ chips, clock ▶ run
//! ```
//!
//! A restored machine starts in the time that it takes to make a few KVM objects, because nothing is copied: its memory *is*
//! the file, mapped privately. A page is read when the guest first touches it and shared by all machines of the snapshot
//! until one writes to it. So a snapshot is also a fork: any number of machines may start from it at once.
//!
//! They would all draw the same random numbers and show the same time. Whoever restores a guest with our PID 1 sends it
//! [`guest_wire::Kind::Renew`] first, which mends both before anything else runs ([`crate::sandbox`] does).
//!
//! Read `record`, how state becomes bytes; `file`, the file's format; then this.

mod file;
pub(crate) mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::arch::layout;
use crate::arch::probe::Probe;
use crate::arch::state::{self, ChipState, VcpuState};
use crate::board::{self, Board};
use crate::devices::serial::Console;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::state::NotRestored;
use crate::kvm::Kvm;
use crate::vm::{AtEnd, Parts, Vm};
use crate::{Error, memory};

use file::Opened;
use record::{Malformed, Reader, Writer};

/// What a snapshot is of: names and values, for example of the kernel and the disk. It is restored only for the same.
pub type Identity = Vec<(&'static str, Vec<u8>)>;

/// The CPU's part of the identity, which every snapshot has.
const CPU: &str = "CPU, or its KVM";

/// What to restore, and the host's side of its devices.
pub struct Restore {
    /// The snapshot's file. It must not change as long as the machine lives; removing it does no harm.
    pub path: PathBuf,
    /// What it must be of.
    pub identity: Identity,
    /// The virtio devices: the same as at the snapshot, in the same order, on whatever is theirs on the host now.
    pub devices: Vec<Box<dyn VirtioDevice>>,
    /// Where the kernel's console output goes.
    pub console: Console,
    /// Look where the first vCPU is, every millisecond.
    pub profile: bool,
    /// Called at the machine's end.
    pub at_end: Option<AtEnd>,
    /// Where the steps are marked.
    pub timeline: Arc<Timeline>,
}

/// Writes the machine down. It is held still meanwhile, and goes on afterwards.
///
/// # Errors
/// [`Error::Device`] where a device is busy with what belongs to the host; otherwise, what could not be read or written.
// ANCHOR: take
pub fn take(vm: &Vm, path: &Path, identity: &Identity) -> Result<(), Error> {
    vm.held(|held| {
        let mut record = Writer::default();
        record.value(&(identity.len() as u32 + 1));
        for (name, value) in [(CPU, state::cpu_identity()?)].iter().chain(identity) {
            record.bytes(name.as_bytes());
            record.bytes(value);
        }
        let mib = (held.memory.iter().map(GuestMemoryRegion::len).sum::<u64>() >> 20) as u32;
        record.value(&mib);
        record.value(&u8::from(held.probe.hardware));
        record.value(&held.probe.instruction.to_bits());

        let vcpus = held.vcpus(&state::msr_numbers()?)?;
        record.value(&(vcpus.len() as u32));
        for vcpu in &vcpus {
            vcpu.write(&mut record);
        }
        ChipState::save(held.kvm)?.write(&mut record);

        held.board.serial().save(&mut record);
        // Each device is kept still until the memory is written: what it does to a queue is part of it.
        let devices: Vec<_> = held.board.virtio().collect();
        let live: Vec<_> = devices.iter().map(|device| device.hold()).collect();
        record.value(&(devices.len() as u32));
        for (device, live) in devices.iter().zip(&live) {
            let busy = |reason: &str| Error::Device { device: "virtio", reason: reason.into() };
            device.save(live, &mut record).map_err(busy)?;
        }
        file::write(path, &record.finish(), held.memory)
    })
}
// ANCHOR_END: take

/// Makes a machine of a snapshot, and lets it go on. Each step is marked on the timeline.
///
/// # Errors
/// [`Error::Snapshot`] where the snapshot is none, not whole, another version's, or of something else; otherwise, the step
/// that failed. Nothing is left behind.
// ANCHOR: restore
pub fn restore(config: Restore) -> Result<Vm, Error> {
    let timeline = &config.timeline;
    let opened = Opened::open(&config.path)?;
    let mut record = Reader::new(&opened.state);
    let damaged = |_: Malformed| opened.refuse("a field is malformed");
    check_identity(&opened, &mut record, &config.identity)?;

    let kvm = Kvm::open()?;
    timeline.mark(Mark::KvmOpened);
    let vm = kvm.create_vm()?;
    timeline.mark(Mark::VmCreated);

    let guest = opened.map_memory(record.value().map_err(damaged)?)?;
    memory::register(&vm, &guest)?;
    timeline.mark(Mark::MemoryReady);

    let probe = Probe {
        hardware: record.value::<u8>().map_err(damaged)? != 0,
        instruction: f64::from_bits(record.value().map_err(damaged)?),
    };
    let count: u32 = record.value().map_err(damaged)?;
    if !(1..=layout::MAX_VCPUS.into()).contains(&count) {
        return Err(opened.refuse(format!("it has {count} vCPUs")));
    }
    let mut fds = Vec::new();
    for index in 0..u64::from(count) {
        let fd = vm.create_vcpu(index).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        fds.push((fd, VcpuState::read(&mut record).map_err(damaged)?));
    }
    // The chips before the vCPUs: a local APIC looks at the I/O APIC when it is loaded.
    ChipState::read(&mut record).map_err(damaged)?.restore(&vm)?;
    for (fd, state) in &fds {
        state.restore(fd)?;
    }
    timeline.mark(Mark::VcpuReady);

    let mut board = Board::new(&vm, &config.console, timeline)?;
    for device in config.devices {
        board.plug(&vm, &guest, device)?;
    }
    board.plug_own(&vm, &guest, probe)?;
    board.serial().restore(&mut record).map_err(damaged)?;
    let devices: u32 = record.value().map_err(damaged)?;
    if devices as usize != board.virtio().count() {
        return Err(opened.refuse(format!("it has {devices} virtio devices")));
    }
    for (number, mut device) in board.virtio().enumerate() {
        device.restore(&mut record).map_err(|error| match error {
            NotRestored::Malformed => opened.refuse("a field is malformed"),
            NotRestored::OtherDevice => opened.refuse(format!("its virtio device {number} was another one")),
        })?;
    }
    record.finish().map_err(damaged)?;
    timeline.mark(Mark::DevicesReady);

    let machine = board.machine(&guest, timeline, config.profile, None);
    let vcpus = (0..).zip(fds).map(|(index, (fd, _))| board::vcpu(fd, index, &machine));
    let vcpus = vcpus.collect::<Result<_, _>>()?;
    Vm::start(Parts {
        vm,
        memory: guest,
        vcpus,
        machine,
        board,
        console: config.console,
        probe,
        at_end: config.at_end,
    })
}
// ANCHOR_END: restore

/// Whether the snapshot is of what is expected; the error names the first difference.
fn check_identity(opened: &Opened, record: &mut Reader<'_>, identity: &Identity) -> Result<(), Error> {
    let damaged = |_: Malformed| opened.refuse("a field is malformed");
    let cpu = [(CPU, state::cpu_identity()?)];
    let expected = cpu.iter().chain(identity);
    if record.value::<u32>().map_err(damaged)? as usize != identity.len() + 1 {
        return Err(opened.refuse("it tells other things of its origin"));
    }
    for (name, value) in expected {
        if record.text().map_err(damaged)? != *name {
            return Err(opened.refuse(format!("it does not tell its {name}")));
        }
        if record.bytes().map_err(damaged)? != value {
            return Err(opened.refuse(format!("it was taken with another {name}")));
        }
    }
    Ok(())
}
