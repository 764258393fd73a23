//! Published ports, by a proxy in user space: a connection to the host's port becomes one inside, and so does a
//! conversation of datagrams.
//!
//! The listening socket is the host's. For each connection a thread of the monitor connects to the container's or the
//! machine's address in its network. A container without a network has its loopback: then the thread joins the container's
//! network namespace (setns(2)) first. So no rules of a packet filter are needed, and nothing of it outlives the monitor.
//!
//! Here ports are taken and let go; `tcp.rs` and `udp.rs` pass on what comes.

mod tcp;
mod udp;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bollard_stubs::models::{PortBinding, PortMap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::serve::spawn_deep;
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::stored::Record;
use crate::engine::stored::published::{self, Port, Protocol};

/// How many connections wait to be taken.
const BACKLOG: i32 = 128;
/// How often another number is tried where any will do, and is free for one family of addresses only.
const TRIES: usize = 16;

/// The ports of a container that are taken on the host. Dropping it lets them go.
pub(super) struct Ports {
    taken: Vec<(Taken, u16)>,
    /// What is published where, with the numbers that the host chose.
    pub map: PortMap,
    /// The listening sockets once more, to be shut.
    again: Vec<TcpListener>,
    /// The proxy ends when this is closed.
    stop: Option<OwnedFd>,
}

/// A socket of the host's.
enum Taken {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Taken {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

impl AsFd for Taken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

impl Ports {
    /// Takes the ports that a container publishes; at `default` those that name no address.
    pub(super) fn take(record: &Record, default: Option<IpAddr>) -> Result<Self, Error> {
        let mut ports = Self { taken: Vec::new(), map: PortMap::new(), again: Vec::new(), stop: None };
        for wanted in published::ports(&record.body)? {
            let key = format!("{}/{}", wanted.container, wanted.protocol);
            for taken in take(&wanted, default)? {
                let address = taken.address().context("listen on", "a published port")?;
                let binding = PortBinding {
                    host_ip: Some(address.ip().to_string()),
                    host_port: Some(address.port().to_string()),
                };
                ports.map.entry(key.clone()).or_default().get_or_insert_default().push(binding);
                ports.taken.push((taken, wanted.container));
            }
        }
        Ok(ports)
    }

    /// Lets the ports go for another program to take: with the numbers that were chosen.
    pub(super) fn give_away(&mut self) -> Vec<Port> {
        let given = std::mem::take(&mut self.taken).into_iter().filter_map(|(taken, container)| {
            let address = taken.address().ok()?;
            let protocol = if matches!(taken, Taken::Tcp(_)) { Protocol::Tcp } else { Protocol::Udp };
            let ip = Some(address.ip()).filter(|ip| *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            Some(Port { container, protocol, address: ip, host: (address.port(), address.port()) })
        });
        given.collect()
    }

    /// Passes on what comes: to the container of this process, once that exists, or to the machine, at the address that is
    /// found when somebody comes.
    pub(super) fn serve(
        &mut self,
        pid: i64,
        address: impl Fn() -> Option<Ipv4Addr> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/net");
        let namespace = if pid == 0 { None } else { Some(File::open(&path).context("open", path)?) };
        let inside = Arc::new(Inside { namespace, address: Box::new(address) });
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
        self.stop = Some(stop);
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for (taken, port) in self.taken.drain(..) {
            match taken {
                Taken::Tcp(listener) => {
                    self.again.push(listener.try_clone().context("duplicate", "a listening socket")?);
                    listeners.push((listener, port));
                }
                Taken::Udp(socket) => sockets.push((socket, port)),
            }
        }
        for (socket, port) in sockets {
            let end = end.try_clone().context("duplicate", "a pipe")?;
            let inside = Arc::clone(&inside);
            spawn_deep("datagrams", move || udp::relay(&socket, &end, &inside, port))?;
        }
        spawn_deep("ports", move || accept(&listeners, &end, &inside))
    }

    /// Lets the ports go at once: nobody connects any more when this returns.
    pub(super) fn close(&mut self) {
        for listener in self.again.drain(..) {
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.stop = None;
        self.taken.clear();
    }
}

/// Takes one port: one socket, or two where it names no address, for each family's.
fn take(wanted: &Port, default: Option<IpAddr>) -> Result<Vec<Taken>, Error> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = wanted.address.or(default).unwrap_or(any);
    let both = wanted.address.is_none() && default.is_none() && fs::metadata("/proc/net/if_inet6").is_ok();
    let (from, to) = wanted.host;
    let mut refused = None;
    // Of 0 the kernel makes any number, whose twin may be taken.
    let numbers: Vec<u16> = if from == 0 { vec![0; TRIES] } else { (from..=to).collect() };
    for number in numbers {
        let result = socket(wanted.protocol, SocketAddr::new(address, number)).and_then(|first| {
            let mut all = vec![first];
            if both {
                let same = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), all[0].address()?.port());
                match socket(wanted.protocol, same) {
                    // IPv6 is off, though the kernel has it.
                    Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                    second => all.push(second?),
                }
            }
            Ok(all)
        });
        match result {
            Ok(all) => return Ok(all),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = Some(error),
            Err(error) => return Err(Error::io("listen on", SocketAddr::new(address, number), error)),
        }
    }
    let last = if from == to { from.to_string() } else { format!("{from}-{to}") };
    let why = refused.map_or("no such port", |_| "port is already allocated");
    Err(Error::conflict(format!("Bind for {address}:{last} failed: {why}")))
}

fn socket(protocol: Protocol, address: SocketAddr) -> io::Result<Taken> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // Else it would take IPv4's port of this number as well (ipv6(7)).
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections that have ended and are waited for do not count (socket(7)).
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(match protocol {
        Protocol::Tcp => {
            listen(&socket, BACKLOG)?;
            Taken::Tcp(socket.into())
        }
        Protocol::Udp => Taken::Udp(socket.into()),
    })
}

/// Where a published port leads.
struct Inside {
    /// The container's network namespace; a machine has none.
    namespace: Option<File>,
    /// Its address in its first network, which may have become another.
    address: Box<dyn Fn() -> Option<Ipv4Addr> + Send + Sync>,
}

impl Inside {
    /// The address to speak to. Where it is the container's loopback, this thread is in the container's network from here on.
    fn enter(&self) -> io::Result<Ipv4Addr> {
        if let Some(address) = (self.address)() {
            return Ok(address);
        }
        let namespace = self.namespace.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(Ipv4Addr::LOCALHOST)
    }
}

fn accept(listeners: &[(TcpListener, u16)], end: &OwnedFd, inside: &Arc<Inside>) {
    loop {
        let mut files = vec![PollFd::new(end, PollFlags::IN)];
        files.extend(listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        // The writing end is closed: the container's run is over.
        if !files[0].revents().is_empty() {
            return;
        }
        for (file, (listener, port)) in files[1..].iter().zip(listeners) {
            if !file.revents().is_empty() {
                tcp::accept(listener, inside, *port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host: (u16, u16)) -> Port {
        Port { container: 80, protocol, address: Some(Ipv4Addr::LOCALHOST.into()), host }
    }

    #[test]
    fn of_a_range_the_first_free_port_is_taken_and_then_none_is_left() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = take(&port(protocol, (0, 0)), None).unwrap();
            let number = first[0].address().unwrap().port();
            let error = take(&port(protocol, (number, number)), None).err().unwrap().to_string();
            assert!(error.contains("already allocated"), "{error}");
            let next = take(&port(protocol, (number, number.saturating_add(200))), None).unwrap();
            assert_ne!(next[0].address().unwrap().port(), number);
        }
    }

    #[test]
    fn a_port_without_an_address_is_every_ones_with_one_number() {
        let anywhere = Port { address: None, ..port(Protocol::Tcp, (0, 0)) };
        let all = take(&anywhere, None).unwrap();
        let first = all[0].address().unwrap();
        assert!(all.iter().all(|taken| taken.address().unwrap().port() == first.port()));
        assert_eq!(take(&anywhere, Some(Ipv4Addr::LOCALHOST.into())).unwrap().len(), 1, "a network's choice");
    }
}
