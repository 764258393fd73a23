//! A network without rights: a program that has a network stack of its own, in user space (package passt).
//!
//! Who may not make network devices of the host can still open sockets. `passt` reads a machine's Ethernet frames from a
//! socket, and what it finds in them, connections and datagrams, it does with sockets of its own. To the world it looks as if
//! the program itself had connected. A machine's published ports are its sockets, too. `pasta`, of the same package, does that
//! for a container: it enters the container's namespaces, where its user is root, makes a TAP device there, and reads that.
//!
//! ```text
//!   guest ── virtio-net ── frames with their lengths ──┐
//!                                                      ├── passt, pasta ── sockets ── the host's network
//!   container's namespace ── eth0, a TAP device ───────┘
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use microvm::network::{Interface, Link};

use super::Error;
use super::error::Context as _;
use super::stored::published::{Port, Protocol};
use crate::sys;

/// The word for it, as a network's name, and the program for machines.
pub(crate) const NAME: &str = "passt";
/// The program for containers, and what it calls its device there.
const FOR_CONTAINERS: &str = "pasta";
const DEVICE: &str = "eth0";
/// What the kernel makes TAP devices by; it is everybody's, except where somebody closed it.
const TUN: &str = "/dev/net/tun";

/// The place inside: the addresses that such programs have used since slirp.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Questions about names that are sent there go to the host's servers.
pub(crate) const NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX: u8 = 24;
const MTU: u16 = 1500;
/// Locally administered, and of one machine.
const MAC: [u8; 6] = [0x02, 0x42, 10, 0, 2, 15];

/// What it cannot do it says at its beginning, and ends: so long it is looked at.
const BEGINNING: Duration = Duration::from_millis(30);
/// A container's network is there within a few milliseconds. It is looked for so often, and so long at most.
const PAUSE: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(10);

/// The running program. Dropping it ends it, and with it all connections.
#[derive(Debug)]
pub(crate) struct Passt {
    program: Child,
    /// What it says.
    words: File,
}

impl Drop for Passt {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A machine's network card, whose cable leads to such a program.
///
/// # Errors
/// Where it is not installed, or does not begin.
pub(crate) fn for_machine(ports: &[Port]) -> Result<(Interface, Passt), Error> {
    let (ours, theirs) = UnixStream::pair().context("make", "a socket pair")?;
    let mut command = command(NAME);
    publish(&mut command, ports);
    command.arg("--fd").arg(theirs.as_raw_fd().to_string());
    sys::inherit(&mut command, &[theirs.as_raw_fd()]);
    let mut program = start(command)?;
    drop(theirs);
    thread::sleep(BEGINNING);
    ended(&mut program)?;
    let interface = Interface {
        link: Link::Stream(ours),
        mac: MAC,
        mtu: MTU,
        address: ADDRESS,
        prefix: PREFIX,
        gateway: Some(GATEWAY),
    };
    Ok((interface, program))
}

/// Whether a user's containers can have it here.
pub(crate) fn is_for_containers() -> bool {
    let usable = File::options().read(true).write(true).open(TUN).is_ok();
    usable && crate::doctor::find_program(FOR_CONTAINERS).is_some()
}

/// Gives the container of this process such a network; none where it has ended already. Its ports are published by the proxy,
/// as those of any container.
///
/// Until a container executes its workload's program, its processes are not even its owner's to look into (not dumpable,
/// ptrace(2)). So the network comes some milliseconds after the workload's beginning, as it does for one that waits for DHCP.
///
/// # Errors
/// Where the program is not installed, or cannot make its device.
pub(crate) fn for_container(pid: i64) -> Result<Option<Passt>, Error> {
    let begun = Instant::now();
    let late = || begun.elapsed() > PATIENCE;
    let namespace = format!("/proc/{pid}/ns/user");
    loop {
        match File::open(&namespace) {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !late() => thread::sleep(PAUSE),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Error::io("open", namespace, error));
            }
            Err(_) => return Ok(None),
        }
    }
    let mut command = command(FOR_CONTAINERS);
    command.args([
        "--config-net",
        "--tcp-ports",
        "none",
        "--udp-ports",
        "none",
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ]);
    command.args(["--ns-ifname", DEVICE]).arg(pid.to_string());
    let mut program = start(command)?;
    // The default route is what it makes last (proc(5): its destination is 0).
    let routes = format!("/proc/{pid}/net/route");
    loop {
        match fs::read_to_string(&routes) {
            Ok(text) if text.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000")) => {
                return Ok(Some(program));
            }
            // The workload has ended.
            Err(_) => return Ok(None),
            Ok(_) => {}
        }
        if let Err(error) = ended(&mut program) {
            // It may have ended for want of a workload.
            return if File::open(&namespace).is_ok() { Err(error) } else { Ok(None) };
        }
        if late() {
            return Err(Error::bad(
                "pasta, the network in user space, does not get ready: try --network none",
            ));
        }
        thread::sleep(PAUSE);
    }
}

/// What both programs are told.
fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.args(["--foreground", "--quiet", "--ipv4-only", "--no-dhcp"]);
    // The gateway's address means nobody: not, as by default, the host's own loopback.
    command.arg("--no-map-gw");
    for (option, value) in [
        ("--address", ADDRESS.to_string()),
        ("--netmask", PREFIX.to_string()),
        ("--gateway", GATEWAY.to_string()),
        ("--dns-forward", NAMES.to_string()),
        ("--mtu", MTU.to_string()),
    ] {
        command.arg(option).arg(value);
    }
    sys::die_with_parent(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Which ports of the host lead to which of the machine.
fn publish(command: &mut Command, ports: &[Port]) {
    for (protocol, option) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
        let mut any = false;
        for port in ports.iter().filter(|port| port.protocol == protocol) {
            let mut spec = String::new();
            match port.address {
                Some(IpAddr::V4(address)) => drop(write!(spec, "{address}/")),
                // The machine has no address of IPv6.
                Some(IpAddr::V6(_)) => continue,
                None => {}
            }
            let _ = write!(spec, "{}:{}", port.host.0, port.container);
            command.arg(option).arg(spec);
            any = true;
        }
        if !any {
            command.args([option, "none"]);
        }
    }
}

fn start(mut command: Command) -> Result<Passt, Error> {
    // A file without a name: a pipe that nobody reads would stop the program one day.
    let words = tempfile::tempfile().context("make", "a temporary file")?;
    command.stderr(words.try_clone().context("duplicate", "a temporary file")?);
    match command.spawn() {
        Ok(program) => Ok(Passt { program, words }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::bad("passt, the network in user space, is not installed: install the package passt"))
        }
        Err(error) => Err(Error::io("start", NAME, error)),
    }
}

/// Fails where the program has ended, with what it said.
fn ended(program: &mut Passt) -> Result<(), Error> {
    let Some(status) = program.program.try_wait().context("wait for", NAME)? else { return Ok(()) };
    let mut said = String::new();
    let _ = program.words.rewind().and_then(|()| (&program.words).take(4096).read_to_string(&mut said));
    // It also complains that there is no system log.
    let lines: Vec<&str> =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("syslog")).collect();
    Err(Error::bad(format!("passt, the network in user space, ended ({status}): {}", lines.join("; "))))
}
