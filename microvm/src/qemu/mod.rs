//! The last resort: the same guest under QEMU's translator, where there is no `/dev/kvm`.
//!
//! QEMU's machine `microvm` has what ours has: virtio-mmio devices, a serial port, a port of a virtio-console for the agent.
//! (A stock kernel, which does not find them there, gets QEMU's PC, with the same devices on PCI.) So kernel, initramfs, disk and conversation are the same, and only what executes the
//! guest's instructions differs: a translator (TCG), several times slower, on one clock with everything else. Whatever is
//! measured here must say so: [`crate::Accel::Tcg`].
//!
//! Nothing of it has a name in the file system: the initramfs is in memory (memfd), the channel is an inherited socket,
//! the console a pipe. QEMU dies with the thread that started it.

mod sys;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::Error;
use crate::devices::power::PowerRequest;
use crate::devices::serial::Console;
use crate::initramfs::Initramfs;
use crate::network::{Interface, Link};
use crate::vcpu::End;
use crate::vm::AtEnd;

/// The emulator, looked for in PATH.
const PROGRAM: &str = "qemu-system-x86_64";

/// The kernel command line. `reboot=t`: this machine has no keyboard controller, and a triple fault resets any x86.
const COMMAND_LINE: &str = "panic=-1 reboot=t quiet console=ttyS0 random.trust_cpu=on cryptomgr.notests";

/// What machine QEMU is to emulate.
pub struct Config {
    /// The kernel: a `vmlinux` with a PVH note, or a `bzImage`.
    pub kernel: PathBuf,
    /// The guest's first root file system.
    pub initramfs: Initramfs,
    /// Words for the kernel command line, behind our own.
    pub command_line: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// vCPUs.
    pub vcpus: u8,
    /// What machine its kernel needs.
    pub board: Board,
    /// The disk with the root file system; read-only.
    pub disk: PathBuf,
    /// Its network cards.
    pub interfaces: Vec<Interface>,
    /// QEMU's end of the agent's channel.
    pub channel: UnixStream,
    /// Where the kernel's console output goes.
    pub console: Console,
    /// Called at the machine's end.
    pub at_end: Option<AtEnd>,
}

/// The machine that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// `microvm`: for kernels that take virtio-mmio windows from their command line
    /// (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES), as the lean one does.
    MicroVm,
    /// `q35`, a PC: for stock kernels, with the module virtio_pci.
    Pc,
}

/// A running QEMU. Dropping it kills it.
pub struct Qemu {
    process: OwnedFd,
    ending: Arc<Ending>,
    console: Console,
    thread: Option<JoinHandle<()>>,
}

/// How it ended, once it has.
struct Ending {
    end: Mutex<Option<End>>,
    changed: Condvar,
    event: EventFd,
}

impl Qemu {
    /// Starts QEMU. Returns as soon as it runs, long before the guest does.
    ///
    /// # Errors
    /// [`Error::NoQemu`] where it is not installed.
    pub fn start(mut config: Config) -> Result<Self, Error> {
        let initramfs = archive(mem::take(&mut config.initramfs))?;
        let mut messages = memory_file("qemu-messages")?;
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments(&config))
            .args(["-initrd".into(), fd_path(&initramfs)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages.try_clone().map_err(Error::system("duplicate QEMU's message file (dup)"))?);
        let mut inherited = vec![initramfs.as_raw_fd(), config.channel.as_raw_fd()];
        inherited.extend(config.interfaces.iter().map(|card| card.link.as_raw_fd()));
        sys::inherit_and_die_with_us(&mut command, inherited);

        let ending = Arc::new(Ending {
            end: Mutex::new(None),
            changed: Condvar::new(),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(Error::system("make the end's event (eventfd)"))?,
        });
        let (report, started) = mpsc::sync_channel(1);
        let (console, shared) = (config.console.clone(), ending.clone());
        let (channel, interfaces, at_end) = (config.channel, config.interfaces, config.at_end);
        // QEMU is the child of this thread, which outlives it.
        let body = move || {
            let mut child = match spawn(&mut command) {
                Ok((child, process)) => {
                    let _ = report.send(Ok(process));
                    child
                }
                Err(error) => return drop(report.send(Err(error))),
            };
            // Now QEMU alone holds its end: the agent sees when it hangs up.
            drop((command, channel, interfaces, initramfs));
            if let Some(output) = child.stdout.take() {
                copy(output, console);
            }
            let status = child.wait();
            shared.set(end(status, &mut messages));
            if let Some(at_end) = at_end {
                at_end();
            }
        };
        let thread = thread::Builder::new()
            .name("qemu".into())
            .spawn(body)
            .map_err(Error::system("start QEMU's thread"))?;
        // The thread answers before anything else; were it to die instead, there is no QEMU either.
        let process = started.recv().unwrap_or(Err(Error::NoQemu))?;
        Ok(Self { process, ending, console: config.console, thread: Some(thread) })
    }

    /// A descriptor that becomes readable at the machine's end, and stays so.
    pub fn end_fd(&self) -> BorrowedFd<'_> {
        self.ending.event.as_fd()
    }

    /// How the machine ended, if it did. QEMU calls any reset of the guest an end, so a panic looks like a reboot: the
    /// console tells them apart.
    pub fn end(&self) -> Option<End> {
        self.ending.lock().clone()
    }

    /// Waits for the machine's end, at most until the deadline.
    pub fn wait_until(&self, deadline: Instant) -> Option<End> {
        let mut end = self.ending.lock();
        while end.is_none() {
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.ending.changed.wait_timeout(end, left);
            end = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        end.clone()
    }

    /// Holds the guest still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// What the guest's kernel printed.
    pub fn console(&self) -> &Console {
        &self.console
    }

    fn signal(&self, signal: Signal) {
        // Fails only where QEMU has ended.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Ending {
    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: End) {
        *self.lock() = Some(end);
        self.changed.notify_all();
        // Written once: it cannot be full.
        let _ = self.event.write(1);
    }
}

/// The command line but for what is inherited.
fn arguments(config: &Config) -> Vec<OsString> {
    // Without ACPI QEMU names the virtio-mmio windows on the kernel command line, and the kernel finds the timers of a PC.
    // With it this machine would be "hardware-reduced": Linux takes no notice of those timers then, and has no others.
    let (machine, bus, pci) = match config.board {
        Board::MicroVm => {
            ("microvm,acpi=off,pit=on,pic=on,rtc=on,x-option-roms=off,isa-serial=on", "device", "pci=off")
        }
        Board::Pc => ("q35", "pci", ""),
    };
    // No configuration files, no default devices, no window, no monitor; a reset is an end.
    let switches = ["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"];
    let mut arguments = switches.map(OsString::from).to_vec();
    let mut add = |option: &str, value: &OsStr| arguments.extend([option.into(), value.to_owned()]);
    add("-machine", machine.as_ref());
    add("-accel", "tcg,thread=multi".as_ref());
    // All that the translator can do, but for five-level page tables, which only cost time.
    add("-cpu", "max,la57=off".as_ref());
    add("-m", format!("{}M", config.memory_mib).as_ref());
    add("-smp", config.vcpus.to_string().as_ref());
    add("-chardev", "stdio,id=console,signal=off".as_ref());
    add("-serial", "chardev:console".as_ref());
    add("-global", "virtio-mmio.force-legacy=false".as_ref());
    let mut drive = OsString::from("if=none,id=root,format=raw,readonly=on,file=");
    drive.push(quote(config.disk.as_os_str()));
    add("-drive", &drive);
    add("-device", format!("virtio-blk-{bus},drive=root").as_ref());
    add("-device", format!("virtio-rng-{bus}").as_ref());
    add("-device", format!("virtio-serial-{bus}").as_ref());
    add("-chardev", format!("socket,id=agent,fd={}", config.channel.as_raw_fd()).as_ref());
    add("-device", format!("virtserialport,chardev=agent,name={}", guest_wire::PORT_NAME).as_ref());
    for (number, card) in config.interfaces.iter().enumerate() {
        let descriptor = card.link.as_raw_fd();
        let back_end = match &card.link {
            Link::Tap(_) => format!("tap,id=net{number},fd={descriptor},vhost=off"),
            Link::Stream(_) => format!("stream,id=net{number},server=off,addr.type=fd,addr.str={descriptor}"),
        };
        add("-netdev", back_end.as_ref());
        let mac = card.mac.map(|byte| format!("{byte:02x}")).join(":");
        // A card on PCI has a ROM to start a PC from the network; this one starts from a kernel.
        let rom = if bus == "pci" { ",romfile=" } else { "" };
        let device = format!("virtio-net-{bus},netdev=net{number},mac={mac},host_mtu={}{rom}", card.mtu);
        add("-device", device.as_ref());
    }
    add("-kernel", config.kernel.as_os_str());
    let words = config.command_line.iter().map(String::as_str);
    add("-append", [COMMAND_LINE, pci].into_iter().chain(words).collect::<Vec<_>>().join(" ").as_ref());
    arguments
}

/// In an option's value a comma is written twice (qemu(1), "-drive").
fn quote(value: &OsStr) -> OsString {
    let doubled =
        value.as_bytes().iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

/// The initramfs as a file in memory.
fn archive(initramfs: Initramfs) -> Result<File, Error> {
    let file = memory_file("initramfs")?;
    let len = initramfs.len();
    file.set_len(len).map_err(Error::system("make room for the initramfs (ftruncate)"))?;
    let copy = file.try_clone().map_err(Error::system("duplicate the initramfs (dup)"))?;
    let range = (GuestAddress(0), len as usize, Some(FileOffset::new(copy, 0)));
    let memory = GuestMemoryMmap::from_ranges_with_files([range])
        .map_err(|error| Error::Memory { mib: (len >> 20) as u32, reason: error.to_string() })?;
    initramfs.write(&memory, 0)?;
    Ok(file)
}

fn memory_file(name: &str) -> Result<File, Error> {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC);
    file.map(File::from).map_err(Error::system("make a file in memory (memfd_create)"))
}

/// A path by which a child that inherits the descriptor opens its file.
fn fd_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn spawn(command: &mut Command) -> Result<(Child, OwnedFd), Error> {
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoQemu,
        _ => Error::System { operation: "start qemu-system-x86_64", source: error },
    })?;
    // The child cannot be reaped before we do it, so the number is still its own.
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(process) => Ok((child, process)),
        Err(errno) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Error::system("watch QEMU (pidfd_open)")(errno))
        }
    }
}

/// Passes the console on until QEMU closes it.
fn copy(mut output: impl Read, mut console: Console) {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => drop(console.write_all(&buffer[..bytes])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What its exit status means. Only where QEMU itself failed are its messages the reason.
fn end(status: io::Result<ExitStatus>, messages: &mut File) -> End {
    match status {
        Ok(status) if status.success() => End::Asked(PowerRequest::Reset),
        Ok(status) if status.code().is_none() => End::Stopped,
        Ok(status) => {
            let mut text = Vec::new();
            let read = messages.rewind().and_then(|()| messages.take(4096).read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            match (read, lines.is_empty()) {
                (Ok(_), false) => End::Refused(format!("QEMU: {}", lines.join("; "))),
                _ => End::Refused(format!("QEMU: {status}")),
            }
        }
        Err(error) => End::Refused(format!("QEMU was lost: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_disks_path_does_not_end_it() {
        let arguments = arguments(&Config {
            kernel: "/k".into(),
            initramfs: Initramfs::new(),
            command_line: Vec::new(),
            memory_mib: 64,
            vcpus: 1,
            board: Board::MicroVm,
            disk: "/a,readonly=off".into(),
            interfaces: Vec::new(),
            channel: UnixStream::pair().unwrap().0,
            console: Console::default(),
            at_end: None,
        });
        let drive = arguments.iter().find(|argument| argument.as_bytes().starts_with(b"if=none")).unwrap();
        assert!(drive.as_bytes().ends_with(b"file=/a,,readonly=off"));
    }

    #[test]
    fn the_initramfs_is_a_file_without_a_name() {
        let mut initramfs = Initramfs::new();
        initramfs.add_executable("init", b"#!");
        let len = initramfs.len();
        let mut file = archive(initramfs).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, len);
        assert!(bytes.starts_with(b"070701"));
    }
}
