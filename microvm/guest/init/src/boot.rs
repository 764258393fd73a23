//! From the kernel's last step to an open channel.

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::sys::machine::Port;
use freestanding::sys::mount::{self, flags as mount_flags};
use freestanding::sys::time::{Duration, sleep};
use freestanding::text::parse_number;
use freestanding::{Errno, Fd, OwnedFd, Text};
use guest_wire::{BOOT_TIMER_PORT, GuestMark, PORT_NAME};

use crate::failure::{During, Failure};
use crate::modules;

/// How long the port may take to appear: the driver learns of it by messages from the host after its own start.
const PATIENCE: Duration = Duration::from_millis(10_000);

/// How long to sleep between two looks for it.
const PAUSE: Duration = Duration::from_millis(2);

/// An open channel to the host, and the boot timer if there is one.
#[derive(Debug)]
pub struct Host {
    /// The port, not blocking.
    pub channel: OwnedFd,
    /// The boot timer.
    pub timer: Timer,
    /// Whether there is a machine, whose devices may be made anew. A user namespace does not allow that
    /// (user_namespaces(7)); there, those of PID 1 are bound.
    pub has_machine: bool,
}

/// The boot timer's port. On a machine without it, or a kernel without ioperm(2), marks are lost and nothing else.
#[derive(Debug)]
pub struct Timer(Option<Port>);

impl Timer {
    /// Marks this moment on the host's clock.
    pub fn mark(&self, mark: GuestMark) {
        if let Some(port) = &self.0 {
            port.write(mark as u8);
        }
    }

    /// Takes the port from this process and from what it will execute.
    pub fn close(&self) {
        if let Some(port) = &self.0 {
            port.close();
        }
    }
}

/// Boots: devices, modules, the port.
///
/// # Errors
/// The step that failed, for the console: there is no channel to send it over.
// ANCHOR: boot
pub fn boot() -> Result<Host, Failure<'static>> {
    let timer = Timer(Port::open(BOOT_TIMER_PORT).ok());
    timer.mark(GuestMark::InitStarted);
    modules::load_all();
    mount_at(c"devtmpfs", c"/dev")?;
    // Without a console the kernel gives PID 1 no descriptors; the workload's must not land on 0, 1 and 2 by accident.
    while !Fd::ERROR.is_open() {
        core::mem::forget(file::open(c"/dev/null", flags::READ_WRITE, 0).during("open", b"/dev/null")?);
    }
    let channel = wait_for_port()?;
    timer.mark(GuestMark::AgentReady);
    Ok(Host { channel, timer, has_machine: true })
}
// ANCHOR_END: boot

/// Takes over an inherited descriptor as the channel: there is no machine.
///
/// # Errors
/// It is no open descriptor.
pub fn inherited(number: &'static [u8]) -> Result<Host, Failure<'static>> {
    let number = parse_number(number).and_then(|number| i32::try_from(number).ok());
    let channel = OwnedFd::new(Fd(number.ok_or(Failure::new(Errno::BADF, "--channel", b""))?));
    channel.set_nonblocking().during("fcntl", b"--channel")?;
    Ok(Host { channel, timer: Timer(None), has_machine: false })
}

fn mount_at(kind: &'static CStr, target: &'static CStr) -> Result<(), Failure<'static>> {
    let mount = || mount::mount(kind, target, kind, mount_flags::NO_SUID | mount_flags::NO_EXEC, c"");
    match mount() {
        // Mounted already: a kernel with CONFIG_DEVTMPFS_MOUNT, or an earlier look at sysfs.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(Errno::NOENT) => {
            file::mkdir(target, 0o755).during("mkdir", target.to_bytes())?;
            mount().during("mount", target.to_bytes())
        }
        Err(errno) => Err(Failure::new(errno, "mount", target.to_bytes())),
    }
}

/// Opens the port: the first port of the first device under its usual name, else the one that sysfs says is ours.
fn wait_for_port() -> Result<OwnedFd, Failure<'static>> {
    let mut waited = Duration::default();
    let mut sysfs = false;
    loop {
        // Our VMM has this one port; port 0 of a device is the kernel's console, if any (drivers/char/virtio_console.c).
        match open_port(c"/dev/vport0p1") {
            Err(Errno::NOENT) => {}
            result => return result.during("open", b"/dev/vport0p1"),
        }
        // Not there at once: it comes later, or under another number. Sysfs is mounted for that case only.
        if waited > Duration::from_millis(20) {
            if !sysfs {
                mount_at(c"sysfs", c"/sys")?;
                sysfs = true;
            }
            if let Some(port) = find_port() {
                return Ok(port);
            }
        }
        if waited >= PATIENCE {
            return Err(Failure::new(Errno::NODEV, "find virtio port", PORT_NAME.as_bytes()));
        }
        sleep(PAUSE);
        waited = Duration::from_nanos(waited.nanos() + PAUSE.nanos());
    }
}

fn open_port(path: &CStr) -> freestanding::sys::Result<OwnedFd> {
    file::open(path, flags::READ_WRITE | flags::NONBLOCK | flags::NOCTTY, 0)
}

/// Looks for our port by its name in `/sys/class/virtio-ports/*/name`.
fn find_port() -> Option<OwnedFd> {
    let class = file::open(c"/sys/class/virtio-ports", flags::READ | flags::DIRECTORY, 0).ok()?;
    let mut buffer = [0; 1024];
    loop {
        let part = class.directory(&mut buffer).ok()?;
        if part.is_empty() {
            return None;
        }
        for entry in file::entries(part) {
            let mut path = Text::<128>::new();
            path.text("/sys/class/virtio-ports/").text(entry.to_bytes()).text("/name");
            let Some(Ok(file)) = path.c_str().map(|path| file::open(path, flags::READ, 0)) else { continue };
            let mut name = [0; 64];
            let len = file.read(&mut name).unwrap_or(0);
            if name.get(..len).is_some_and(|name| name.trim_ascii_end() == PORT_NAME.as_bytes()) {
                let mut node = Text::<128>::new();
                return open_port(node.text("/dev/").text(entry.to_bytes()).c_str()?).ok();
            }
        }
    }
}
