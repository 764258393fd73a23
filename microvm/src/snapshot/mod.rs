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
//! A snapshot of a *command* goes further: its process is at its program's first instruction, so that a machine made of it runs that
//! at once. Such a machine is not given its own by its PID 1 but by us, in its memory, before it runs: see `command`.
//!
//! A snapshot of a machine whose workload *runs* has the conversation with its PID 1 in it ([`crate::Sandbox::snapshot`] takes it):
//! whoever goes on with the guest must know what was under way to it, and how much it may be sent.
//!
//! Read `record`, how state becomes bytes; `file`, the file's format; then this, and `command`.

pub(crate) mod command;
mod file;
pub(crate) mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lab_clock::{Mark, Timeline};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::agent::{Halted, Session};
use crate::arch::layout;
use crate::arch::probe::Probe;
use crate::arch::state::{self, ChipState, VcpuState};
use crate::board::{self, Board};
use crate::devices::serial::Console;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::state::NotRestored;
use crate::explain::Explain;
use crate::kvm::{self, Kvm};
use crate::vm::{AtEnd, Held, Parts, Vm};
use crate::{Error, memory};

use command::Command;
pub use command::Renew;
use file::Opened;
pub use file::digest;
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
    /// For a command's snapshot, what the machine gets of its own; its vCPUs then wait for [`Vm::resume`]. For none but that.
    pub renew: Option<Renew>,
    /// Whether its vCPUs wait for [`Vm::resume`] in any case.
    pub paused: bool,
    /// The virtio devices: the same as at the snapshot, in the same order, on whatever is theirs on the host now.
    pub devices: Vec<Box<dyn VirtioDevice>>,
    /// Where the kernel's console output goes.
    pub console: Console,
    /// Look where the first vCPU is, every millisecond.
    pub profile: bool,
    /// Where the machine is explained, as it runs.
    pub explain: Option<Explain>,
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
    let msrs = state::msr_numbers()?;
    vm.held(|held| write_down(held, &held.vcpus(&msrs)?, path, identity, None, None))
}

/// As [`take`], of a machine whose workload runs, with the conversation with its PID 1.
///
/// # Errors
/// As [`take`]; or there is no such conversation.
pub(crate) fn take_running(
    vm: &Vm,
    path: &Path,
    identity: &Identity,
    conversation: &Session,
) -> Result<(), Error> {
    let msrs = state::msr_numbers()?;
    vm.held(|held| write_down(held, &held.vcpus(&msrs)?, path, identity, None, Some(conversation)))
}

fn write_down(
    held: &Held<'_>,
    vcpus: &[VcpuState],
    path: &Path,
    identity: &Identity,
    command: Option<&Command>,
    conversation: Option<&Session>,
) -> Result<(), Error> {
    let mut record = Writer::default();
    record.value(&(identity.len() as u32 + 1));
    for (name, value) in [(CPU, state::cpu_identity(&Kvm::open()?)?)].iter().chain(identity) {
        record.bytes(name.as_bytes());
        record.bytes(value);
    }
    let mib = (held.memory.iter().map(GuestMemoryRegion::len).sum::<u64>() >> 20) as u32;
    record.value(&mib);
    record.value(&u8::from(held.probe.hardware));
    record.value(&held.probe.instruction.to_bits());
    record.value(&held.board.renewals().list());
    record.value(&u8::from(command.is_some()));
    if let Some(command) = command {
        command.write(&mut record);
    }

    record.value(&(vcpus.len() as u32));
    for vcpu in vcpus {
        vcpu.write(&mut record);
    }
    ChipState::save(held.kvm)?.write(&mut record);

    held.board.serial().save(&mut record);
    // Each device is kept still until the memory is written: what it does to a queue is part of it.
    let devices: Vec<_> = held.board.virtio().collect();
    let live: Vec<_> = devices.iter().map(|device| device.hold()).collect();
    let frozen = conversation.map(Session::freeze).transpose()?;
    record.value(&(devices.len() as u32));
    for (device, live) in devices.iter().zip(&live) {
        let busy = |reason: &str| Error::Device { device: "virtio", reason: reason.into() };
        device.save(live, &mut record).map_err(busy)?;
    }
    record.bytes(frozen.as_ref().map_or(&[][..], |frozen| &frozen.state));
    drop(frozen);
    file::write(path, &record.finish(), held.memory)
}
// ANCHOR_END: take

/// Writes down a machine whose process is at its program's first instruction, and puts that back, which the guest has replaced by
/// one that holds it there; then, while the guest is still held, does what else is to be done. Whether it is written down: not
/// where the guest does not come to rest, or its kernel does not list what must be renewed.
///
/// # Errors
/// As [`take`]; or the process is not where the guest says.
pub(crate) fn take_command(
    vm: &Vm,
    path: &Path,
    identity: &Identity,
    halted: &Halted,
    then: impl FnOnce() -> Result<(), Error>,
) -> Result<bool, Error> {
    let msrs = state::msr_numbers()?;
    let (begun, mut then) = (Instant::now(), Some(then));
    loop {
        let done = vm.held(|held| {
            let vcpus = held.vcpus(&msrs)?;
            let at_rest = command::runner(&vcpus, halted);
            let late = || begun.elapsed() > SETTLE;
            let runner = at_rest.or_else(|| vcpus.iter().find(|vcpu| vcpu.is_at(halted.address) && late()));
            let Some(runner) = runner else { return Ok(None) };
            command::put_back(held.memory, runner, halted)?;
            let whole = at_rest.is_some() && command::has_renewals(held.memory, held.board.renewals().list());
            if whole {
                let clock_read = held.board.boot_timer().clock_read();
                let command =
                    Command::find(held.memory, runner, clock_read.map(|host| (host, halted.clock)))?;
                write_down(held, &vcpus, path, identity, Some(&command), None)?;
            }
            // Only now: from here on this run's input is under way, which no other run is to see.
            then.take().map_or(Ok(()), |then| then())?;
            Ok(Some(whole))
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
        if begun.elapsed() > PATIENCE {
            let reason = format!("no vCPU came to its first instruction at {:#x}", halted.address);
            return Err(Error::GuestMemory { what: "a process that is to be in a snapshot", reason });
        }
        thread::sleep(PAUSE);
    }
}

/// How long the guest may take to have nothing to do but the process that it holds.
const SETTLE: Duration = Duration::from_secs(1);

/// How long until the process must be where it is held; a busy host may take its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes a machine of a snapshot, and lets it go on. Each step is marked on the timeline.
///
/// # Errors
/// [`Error::Snapshot`] where the snapshot is none, not whole, another version's, or of something else; otherwise, the step
/// that failed. Nothing is left behind.
pub fn restore(config: Restore) -> Result<Vm, Error> {
    restore_running(config).map(|(vm, _)| vm)
}

/// As [`restore`], with the conversation that [`take_running`] put into it.
// ANCHOR: restore
pub(crate) fn restore_running(config: Restore) -> Result<(Vm, Vec<u8>), Error> {
    let timeline = &config.timeline;
    let opened = Opened::open(&config.path)?;
    let mut record = Reader::new(&opened.state);
    let damaged = |_: Malformed| opened.refuse("a field is malformed");
    let kvm = Kvm::open()?;
    check_identity(&opened, &mut record, state::cpu_identity(&kvm)?, &config.identity)?;
    timeline.mark(Mark::KvmOpened);
    let vm = kvm.create_vm()?;
    timeline.mark(Mark::VmCreated);

    let guest = opened.map_memory(record.value().map_err(damaged)?)?;
    let probe = Probe {
        hardware: record.value::<u8>().map_err(damaged)? != 0,
        instruction: f64::from_bits(record.value().map_err(damaged)?),
    };
    let renewals: u32 = record.value().map_err(damaged)?;
    let is_command = record.value::<u8>().map_err(damaged)? != 0;
    let command = is_command.then(|| Command::read(&mut record)).transpose().map_err(damaged)?;
    let count: u32 = record.value().map_err(damaged)?;
    if !(1..=layout::MAX_VCPUS.into()).contains(&count) {
        return Err(opened.refuse(format!("it has {count} vCPUs")));
    }
    let mut states = Vec::new();
    for _ in 0..count {
        states.push(VcpuState::read(&mut record).map_err(damaged)?);
    }
    let mut chips = ChipState::read(&mut record).map_err(damaged)?;
    match (&command, &config.renew) {
        // In the middle of whatever the kernel does: its random numbers can be other ones at any time, the rest is its PID 1's.
        (None, None) if config.paused => command::renew_random(&guest, renewals)?,
        (None, None) => {}
        (Some(command), Some(renew)) => {
            // The guest's time of day goes forward by what has passed, whole seconds in its memory. For the rest of one it seems to
            // have stood still.
            let behind = command.behind();
            let rest = Duration::from_nanos(behind.subsec_nanos().into());
            command.renew(&guest, renewals, renew, behind)?;
            chips.advance(rest);
            for state in &mut states {
                state.advance(rest);
            }
        }
        _ => return Err(opened.refuse("it is not of what is expected: a command, or none")),
    }

    memory::register(&vm, &guest)?;
    timeline.mark(Mark::MemoryReady);
    kvm::make_chips(&vm)?;
    let make = |index| vm.create_vcpu(index).map_err(Error::kvm("KVM_CREATE_VCPU"));
    let fds = (0..u64::from(count)).map(make).collect::<Result<Vec<_>, _>>()?;
    // The chips before the vCPUs: a local APIC looks at the I/O APIC when it is loaded.
    chips.restore(&vm)?;
    for (fd, state) in fds.iter().zip(&states) {
        state.restore(fd)?;
    }
    timeline.mark(Mark::VcpuReady);

    let mut board = Board::new(&vm, &config.console, timeline)?;
    for device in config.devices {
        board.plug(&vm, &guest, device)?;
    }
    board.plug_own(&vm, &guest, probe)?;
    board.renewals().set_list(renewals);
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
    let conversation = record.bytes().map_err(damaged)?.to_vec();
    record.finish().map_err(damaged)?;
    timeline.mark(Mark::DevicesReady);

    let mut machine = board.machine(&guest, timeline, config.profile, config.explain.clone());
    let paused = command.is_some() || config.paused;
    machine.in_program = paused;
    if let Some(explain) = &config.explain {
        explain.restored(&config.path, machine.in_program);
        fds.first().inspect(|first| explain.registers(first));
    }
    let vcpus = (0..).zip(fds).map(|(index, fd)| board::vcpu(fd, index, &machine));
    let vcpus = vcpus.collect::<Result<_, _>>()?;
    let parts = Parts {
        vm,
        memory: guest,
        vcpus,
        machine,
        board,
        console: config.console,
        probe,
        at_end: config.at_end,
        paused,
    };
    Ok((Vm::start(parts)?, conversation))
}
// ANCHOR_END: restore

/// Whether the snapshot is of what is expected; the error names the first difference.
fn check_identity(
    opened: &Opened,
    record: &mut Reader<'_>,
    cpu: Vec<u8>,
    identity: &Identity,
) -> Result<(), Error> {
    let damaged = |_: Malformed| opened.refuse("a field is malformed");
    let cpu = [(CPU, cpu)];
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
