//! virtio-vsock: stream sockets between guest and host, without addresses or a network (virtio 1.3, section 5.10; vsock(7)).
//!
//! On the host's side there are Unix sockets, by the convention that Firecracker and Cloud Hypervisor have, so that their
//! clients work here:
//!
//! ```text
//!   guest listens on port 52     host:  connect(PATH), write "CONNECT 52\n", read "OK 1073741824\n", then bytes
//!   guest connects to (2, 52)    host:  whoever listens on PATH_52 gets the connection, then bytes
//! ```
//!
//! **A hostile guest** can make at most `MOST` connections, each of which stores no more than the 64 KiB that it was told to
//! have room for; one that sends more is cut off. Answers wait for its buffers, `MOST_ANSWERS` at most: until it gives some,
//! nothing more is taken from it. And **back-pressure** is the sockets': without room in the guest they are not read.
//!
//! Read in this order: `packet`, `connection`, this file.

mod connection;
mod packet;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use self::connection::{Connection, Stage};
use self::packet::{HEADER, Header, Op, STREAM};
use super::{Chain, Event, Fault, VirtioDevice, Virtqueue};

/// The host, as guests name it (section 5.10.4), and what every guest is called: none meets another.
const HOST: u64 = 2;
const GUEST: u64 = 3;

/// Connections at once.
const MOST: usize = 128;

/// Refusals that wait for a buffer of the guest's.
const MOST_ANSWERS: usize = 64;

/// Descriptors in each queue.
const QUEUE: u16 = 128;

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const EVENTS: usize = 2;

/// Ports of the host's programs begin here: below are those that the guest's programs connect to by their numbers.
const FIRST_PORT: u32 = 1 << 30;

/// The event that all connections are gone: the guest was restored elsewhere (section 5.10.6.7).
const TRANSPORT_RESET: u32 = 0;

/// The listener's name among the descriptors' events; connections are named by their numbers.
const LISTENER: u64 = u64::MAX;

/// By what a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    host: u32,
    guest: u32,
}

/// The device.
#[derive(Debug)]
pub struct Vsock {
    listener: UnixListener,
    /// What `_PORT` is put behind to find who listens for the guest.
    path: PathBuf,
    /// What tells of all sockets: the event loop watches it alone.
    epoll: Epoll,
    connections: BTreeMap<u64, Connection>,
    /// The number of the next connection, and of the one that is served next.
    next: u64,
    turn: u64,
    next_port: u32,
    answers: VecDeque<Header>,
    /// Packets of the guest's were left because answers wait.
    held_back: bool,
    /// The guest is to be told that its connections are gone.
    is_new: bool,
}

impl Vsock {
    /// A device for whom programs of the host connect to `listener`; those of the guest's connect to the socket whose name is
    /// `path`, an underscore and the port, looked up at that moment.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(listener: UnixListener, path: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        let events = EpollEvent::new(EventSet::IN, LISTENER);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), events)?;
        Ok(Self {
            listener,
            path,
            epoll,
            connections: BTreeMap::new(),
            next: 0,
            turn: 0,
            next_port: FIRST_PORT,
            answers: VecDeque::new(),
            held_back: false,
            is_new: false,
        })
    }

    /// Takes a socket in, which must not block. None where there are connections enough, or no descriptors.
    fn add(&mut self, socket: UnixStream, ports: Ports, stage: Stage) -> Option<&mut Connection> {
        if self.connections.len() >= MOST {
            return None;
        }
        let number = self.next;
        let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(ControlOperation::Add, socket.as_raw_fd(), EpollEvent::new(events, number)).ok()?;
        self.next += 1;
        Some(self.connections.entry(number).or_insert(Connection::new(socket, ports, stage)))
    }

    fn find(&self, ports: Ports) -> Option<u64> {
        let mut all = self.connections.iter().filter(|(_, one)| one.stage != Stage::Greeting);
        all.find(|(_, one)| one.ports == ports).map(|(number, _)| *number)
    }

    /// Drops a connection, and tells the guest if it knows of it.
    fn cut(&mut self, number: u64) {
        let Some(mut connection) = self.connections.remove(&number) else { return };
        if connection.stage != Stage::Greeting {
            let refusal = connection.header(Op::Reset, 0);
            self.answers.push_back(refusal);
        }
    }

    /// Looks which sockets have news.
    fn look(&mut self) {
        const BATCH: usize = 32;
        let mut events = [EpollEvent::default(); BATCH];
        loop {
            let count = match self.epoll.wait(0, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept(),
                    number => self.news(number, event.event_set()),
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn accept(&mut self) {
        // Until there are no more; what else can go wrong (no descriptors) leaves them waiting for the next time.
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            // One too many is hung up on.
            let _ = self.add(socket.into(), Ports { host: 0, guest: 0 }, Stage::Greeting);
        }
    }

    fn news(&mut self, number: u64, events: EventSet) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP | EventSet::HANG_UP);
        connection.hung_up |= events.contains(EventSet::HANG_UP);
        if connection.stage == Stage::Greeting {
            match connection.greet() {
                Ok(None) => {}
                Ok(Some(port)) => self.ask(number, port),
                Err(_) => self.cut(number),
            }
        } else if !connection.flush() || connection.is_over() {
            self.cut(number);
        }
    }

    /// Asks the guest to accept a connection.
    fn ask(&mut self, number: u64, guest: u32) {
        // There are more ports than connections, so one is free.
        let host = loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_PORT);
            if self.find(Ports { host, guest }).is_none() {
                break host;
            }
        };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.ports = Ports { host, guest };
            connection.stage = Stage::Asked;
            connection.queue(Op::Request, 0);
        }
    }

    /// Takes the guest's packets, as long as there is room for what they may need as an answer.
    fn collect(&mut self, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let mut budget = QUEUE;
        while budget > 0 {
            self.held_back = self.answers.len() >= MOST_ANSWERS;
            if self.held_back {
                break;
            }
            budget -= 1;
            let Some(mut chain) = queues[FROM_GUEST].pop()? else { break };
            let header =
                chain.read_array()?.ok_or(Fault::Driver("a vsock packet is shorter than its header"))?;
            self.take(Header::decode(header), &mut chain)?;
            queues[FROM_GUEST].used(&chain, 0)?;
        }
        queues[FROM_GUEST].notify()?;
        if budget == 0 { queues[FROM_GUEST].postpone() } else { Ok(()) }
    }

    /// Does what a packet of the guest's asks.
    fn take(&mut self, header: Header, chain: &mut Chain) -> Result<(), Fault> {
        // "The guest_cid of the driver": whoever else it says it is, is not here to be answered.
        if header.src_cid != GUEST {
            return Ok(());
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let to_us = header.dst_cid == HOST && header.kind == STREAM;
        let found = self.find(ports).filter(|_| to_us);
        let Some(number) = found else {
            match header.op {
                Some(Op::Request) if to_us => self.connect(&header, ports),
                // A reset is not answered by one.
                Some(Op::Reset) => {}
                _ => self.answers.push_back(header.refusal()),
            }
            return Ok(());
        };
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        connection.take_credit(&header);
        let is_fine = match (header.op, connection.stage) {
            (Some(Op::Response), Stage::Asked) => {
                connection.stage = Stage::Open;
                connection.accepted().is_ok()
            }
            (Some(Op::Data), Stage::Open) => {
                u64::from(header.len) <= chain.readable()
                    && connection.take_data(chain, header.len as usize)?
            }
            (Some(Op::Shutdown), Stage::Open) => !connection.shut_down(header.flags),
            (Some(Op::CreditUpdate), _) => true,
            (Some(Op::CreditRequest), _) => {
                connection.queue(Op::CreditUpdate, 0);
                true
            }
            (Some(Op::Reset), _) => {
                self.connections.remove(&number);
                return Ok(());
            }
            _ => false,
        };
        if !is_fine {
            self.cut(number);
        }
        Ok(())
    }

    /// Connects to whoever listens for the guest.
    // ANCHOR: connect
    fn connect(&mut self, header: &Header, ports: Ports) {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{}", ports.host));
        match dial(&path).ok().and_then(|socket| self.add(socket, ports, Stage::Open)) {
            Some(connection) => {
                connection.take_credit(header);
                connection.queue(Op::Response, 0);
            }
            None => self.answers.push_back(header.refusal()),
        }
    }
    // ANCHOR_END: connect

    /// Gives the guest what is for it, each connection in its turn, until it has no buffers left.
    fn deliver(&mut self, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let queue = &mut queues[TO_GUEST];
        let mut budget = QUEUE;
        while budget > 0 {
            budget -= 1;
            let number = if self.answers.is_empty() { self.next_in_turn() } else { None };
            if number.is_none() && self.answers.is_empty() {
                break;
            }
            let Some(mut chain) = queue.pop()? else { break };
            if chain.writable() <= HEADER as u64 {
                return Err(Fault::Driver("a buffer for vsock packets has no room"));
            }
            let written = match number {
                None => self.answers.pop_front().map(|answer| chain.write(&answer.encode())).transpose()?,
                Some(number) => {
                    self.turn = number + 1;
                    let Some(connection) = self.connections.get_mut(&number) else { continue };
                    match connection.pending.pop_front() {
                        Some((op, flags)) => Some(chain.write(&connection.header(op, flags).encode())?),
                        None => connection.deliver(&mut chain, HEADER)?.map(|bytes| bytes as usize),
                    }
                }
            };
            match written {
                Some(written) => queue.used(&chain, written as u32)?,
                None => queue.unpop(),
            }
        }
        queue.notify()?;
        if budget == 0 {
            queue.postpone()?;
        }
        if self.held_back && self.answers.len() < MOST_ANSWERS {
            queues[FROM_GUEST].postpone()
        } else {
            Ok(())
        }
    }

    /// The connection that has something for the guest and was not served for the longest time.
    fn next_in_turn(&mut self) -> Option<u64> {
        let wants = |one: &mut Connection| one.has_data() || !one.pending.is_empty();
        let mut after = self.connections.range_mut(self.turn..);
        let found = after.find_map(|(number, one)| wants(one).then_some(*number));
        let mut before = self.connections.range_mut(..self.turn);
        found.or_else(|| before.find_map(|(number, one)| wants(one).then_some(*number)))
    }

    /// Tells a restored guest that it is somewhere else.
    fn tell(&mut self, queue: &mut Virtqueue) -> Result<(), Fault> {
        if self.is_new
            && let Some(mut chain) = queue.pop()?
        {
            let written = chain.write(&TRANSPORT_RESET.to_le_bytes())?;
            queue.used(&chain, written as u32)?;
            self.is_new = false;
        }
        queue.notify()
    }
}

impl VirtioDevice for Vsock {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// None: streams only, which is what a device without a feature has (section 5.10.3).
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE, QUEUE, 8]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::copy_config(&GUEST.to_le_bytes(), offset, data);
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.epoll.as_raw_fd()]
    }

    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        if event == Event::Queue(EVENTS) {
            return self.tell(&mut queues[EVENTS]);
        }
        // Whatever happened: news from before there was a driver are here, too.
        self.look();
        self.collect(queues)?;
        self.deliver(queues)
    }

    fn reset(&mut self) {
        self.connections.clear();
        self.answers.clear();
        (self.held_back, self.is_new) = (false, false);
    }

    /// Connections are the host's: a restored guest has none, and is told so.
    fn restore(&mut self, state: &[u8]) -> bool {
        self.is_new = true;
        state.is_empty()
    }
}

/// Connects to a socket, without waiting for one that is busy (connect(2), EAGAIN).
fn dial(path: &OsStr) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(socket.into())
}
