//! Published ports, by a proxy in user space: a connection to the host's port becomes one inside.
//!
//! The listening socket is the host's. For each connection a thread of the monitor joins the container's network
//! namespace (setns(2)) and connects to the port on *its* loopback, so that neither a bridge nor rules of a packet filter
//! are needed. A machine has no namespace: it is connected to at its address in its network. Nothing of it outlives the
//! monitor.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bollard_stubs::models::{PortBinding, PortMap};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::serve::spawn;
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::stored::{Record, plan};

/// The ports of a container that are taken on the host. Dropping it lets them go.
pub(super) struct Ports {
    listeners: Vec<(TcpListener, u16)>,
    /// What is published where, with the numbers that the host chose.
    pub map: PortMap,
    /// The same sockets once more, to be shut.
    taken: Vec<TcpListener>,
    /// The proxy ends when this is closed.
    stop: Option<OwnedFd>,
}

impl Ports {
    /// Takes the ports that a container publishes.
    pub(super) fn take(record: &Record) -> Result<Self, Error> {
        let mut ports = Self { listeners: Vec::new(), map: PortMap::new(), taken: Vec::new(), stop: None };
        for wanted in plan::ports(&record.body)? {
            let address =
                SocketAddr::new(wanted.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), wanted.host);
            let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    Error::conflict(format!("Bind for {address} failed: port is already allocated"))
                }
                _ => Error::io("listen on", address, error),
            })?;
            let taken = listener.local_addr().context("listen on", address)?;
            let binding = PortBinding {
                host_ip: Some(taken.ip().to_string()),
                host_port: Some(taken.port().to_string()),
            };
            let key = format!("{}/tcp", wanted.container);
            ports.map.entry(key).or_default().get_or_insert_default().push(binding);
            ports.listeners.push((listener, wanted.container));
        }
        Ok(ports)
    }

    /// Passes connections on to the container of this process, once that exists; or to the machine at this address.
    pub(super) fn serve(&mut self, pid: i64, address: Option<Ipv4Addr>) -> Result<(), Error> {
        if self.listeners.is_empty() {
            return Ok(());
        }
        let inside = if let Some(address) = address.filter(|_| pid == 0) {
            Inside { namespace: None, address }
        } else {
            let path = format!("/proc/{pid}/ns/net");
            let namespace = Some(File::open(&path).context("open", path)?);
            Inside { namespace, address: Ipv4Addr::LOCALHOST }
        };
        let inside = Arc::new(inside);
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
        self.stop = Some(stop);
        let again: io::Result<_> = self.listeners.iter().map(|(listener, _)| listener.try_clone()).collect();
        self.taken = again.context("duplicate", "a listening socket")?;
        let listeners = std::mem::take(&mut self.listeners);
        spawn("ports", move || accept(&listeners, &end, &inside))
    }
}

impl Ports {
    /// Lets the ports go at once: nobody connects any more when this returns.
    pub(super) fn close(&mut self) {
        for listener in self.taken.drain(..) {
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.stop = None;
        self.listeners.clear();
    }
}

/// Where a published port leads.
struct Inside {
    /// The container's network; none is the host's.
    namespace: Option<File>,
    address: Ipv4Addr,
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
            if file.revents().is_empty() {
                continue;
            }
            let Ok((client, _)) = listener.accept() else { continue };
            let (inside, port) = (Arc::clone(inside), *port);
            // Where there is no thread for it, the client is hung up on.
            let _ = spawn("connection", move || pass(client, &inside, port));
        }
    }
}

// ANCHOR: pass
/// One connection. This thread never returns to the host's network: it ends with the connection.
fn pass(client: TcpStream, inside: &Inside, port: u16) {
    if let Some(namespace) = &inside.namespace
        && move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).is_err()
    {
        return;
    }
    let Ok(server) = TcpStream::connect((inside.address, port)) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let inward = spawn("connection", move || copy(from, to));
    if inward.is_ok() {
        copy(server, client);
    }
}
// ANCHOR_END: pass

/// Copies until the end of one side, which the other is told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn both_directions_are_copied_to_their_ends() {
        let pair = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let ((mut client, from), (to, mut server)) = (pair(), pair());
        let copier = std::thread::spawn(move || copy(from, to));
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "request");
        copier.join().unwrap();
    }
}
