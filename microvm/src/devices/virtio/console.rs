//! virtio-console: named byte streams between guest and host (virtio 1.2, section 5.3).
//!
//! Each port is one stream socket on the host's side. As in QEMU, port 0 is left to the guest kernel's console
//! (`console=hvc0`), where one is wanted, and port 1 is how the guest's PID 1 talks to us: a guest finds both VMMs alike.
//!
//! ```text
//!   queue 0, 1   port 0, console: to the guest, from the guest
//!   queue 2, 3   control messages: to the guest, from the guest
//!   queue 4, 5   port 1, agent:   to the guest, from the guest      (section 5.3.2)
//! ```
//!
//! **Back-pressure.** The device stores no data. Without a buffer from the guest it does not read the socket, so the
//! sender on the host waits; where the socket takes no more, it keeps the guest's buffer, so the guest waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::{Chain, Event, Fault, VirtioDevice, Virtqueue, sys};

/// Bit of VIRTIO_CONSOLE_F_MULTIPORT (section 5.3.3; Linux' include/uapi/linux/virtio_console.h).
const F_MULTIPORT: u64 = 1 << 1;

/// Descriptors in a port's queues. Linux fills each receive queue with pages at once: 16 of them are one window of the
/// agent's protocol, and more would only cost the guest memory and start-up time.
const PORT_QUEUE: u16 = 16;

/// Descriptors in the control queues: a handful of messages in the device's life.
const CONTROL_QUEUE: u16 = 8;

/// Control messages that wait for a buffer. A driver that asks and asks but gives none is broken.
const MOST_PENDING: usize = 64;

/// What may wait for the guest in a snapshot: more than a socket's buffers hold (unix(7), SO_SNDBUF).
const MOST_LEFT: usize = 1 << 20;

/// Descriptors in the queues of a port that is not there. The driver makes its queues all the same.
const NO_PORT_QUEUE: u16 = 2;

const CONSOLE: usize = 0;
const AGENT: usize = 1;
const CONTROL_TO_GUEST: usize = 2;
const CONTROL_FROM_GUEST: usize = 3;

/// The events of `struct virtio_console_control` (section 5.3.6.2).
mod control {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const DEVICE_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// One port.
#[derive(Debug)]
struct Port {
    name: &'static str,
    is_console: bool,
    socket: UnixStream,
    /// The socket's other end is gone, and the guest was told or will be.
    hung_up: bool,
    /// A program in the guest has the port open. Until then Linux throws away what we would send.
    open_in_guest: bool,
    /// What the guest wrote and the socket has not taken yet.
    sending: Option<Chain>,
    /// What a socket that is no more held for the guest, when the snapshot was taken of which this device is.
    left: VecDeque<u8>,
}

/// The device.
#[derive(Debug)]
pub struct Console {
    /// By their numbers.
    ports: [Option<Port>; 2],
    queue_sizes: [u16; 6],
    config: [u8; 12],
    /// Control messages for the guest, in order.
    pending: VecDeque<Vec<u8>>,
}

impl Console {
    /// A device with the agent's port and, where given, a port for the guest kernel's console.
    ///
    /// # Errors
    /// Where a socket cannot be made non-blocking.
    pub fn new(agent: UnixStream, console: Option<UnixStream>) -> io::Result<Self> {
        let console = console.map(|socket| Port::new("lab.console", true, socket)).transpose()?;
        let port_0 = if console.is_some() { PORT_QUEUE } else { NO_PORT_QUEUE };
        let ports = [console, Some(Port::new(guest_wire::PORT_NAME, false, agent)?)];
        let queue_sizes = [port_0, port_0, CONTROL_QUEUE, CONTROL_QUEUE, PORT_QUEUE, PORT_QUEUE];
        // struct virtio_console_config: cols, rows (unused without F_SIZE), max_nr_ports, emerg_wr.
        let mut config = [0; 12];
        config[4..8].copy_from_slice(&(ports.len() as u32).to_le_bytes());
        Ok(Self { ports, queue_sizes, config, pending: VecDeque::new() })
    }

    /// Takes what the guest said on the control queue.
    fn control(&mut self, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let mut opened = Vec::new();
        let Self { ports, pending, .. } = self;
        queues[CONTROL_FROM_GUEST].serve(|chain| {
            let Some([i0, i1, i2, i3, e0, e1, v0, v1]) = chain.read_array()? else {
                return Err(Fault::Driver("a console control message is too short"));
            };
            let id = u32::from_le_bytes([i0, i1, i2, i3]);
            let (event, value) = (u16::from_le_bytes([e0, e1]), u16::from_le_bytes([v0, v1]));
            if pending.len() > MOST_PENDING {
                return Err(Fault::Driver("the console's control messages are not fetched"));
            }
            let port = ports.get_mut(id as usize).and_then(Option::as_mut);
            match (event, port) {
                (control::DEVICE_READY, _) if value == 1 => {
                    // The agent's first: its user waits for it.
                    let there = [AGENT, CONSOLE].into_iter().filter(|&number| ports[number].is_some());
                    pending.extend(there.map(|number| message(number as u32, control::DEVICE_ADD, 1, "")));
                }
                (control::PORT_READY, Some(port)) if value == 1 => {
                    if port.is_console {
                        pending.push_back(message(id, control::CONSOLE_PORT, 1, ""));
                    }
                    pending.push_back(message(id, control::PORT_NAME, 1, port.name));
                    pending.push_back(message(id, control::PORT_OPEN, u16::from(!port.hung_up), ""));
                }
                (control::PORT_OPEN, Some(port)) => {
                    port.open_in_guest = value == 1;
                    opened.push(id as usize);
                }
                _ => {}
            }
            Ok(0)
        })?;
        self.send_pending(queues)?;
        for number in opened {
            self.deliver(number, queues)?;
        }
        Ok(())
    }

    /// Gives the guest the control messages that wait, as far as it gave buffers.
    fn send_pending(&mut self, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let queue = &mut queues[CONTROL_TO_GUEST];
        while let Some(message) = self.pending.front() {
            let Some(mut chain) = queue.pop()? else { break };
            if chain.writable() < message.len() as u64 {
                return Err(Fault::Driver("a buffer for console control messages is too small"));
            }
            let written = chain.write(message)?;
            queue.used(&chain, written as u32)?;
            self.pending.pop_front();
        }
        queue.notify()
    }

    /// Moves bytes from the socket to the guest, until either has no more to give.
    fn deliver(&mut self, number: usize, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
        let queue = &mut queues[first_queue(number)];
        let mut budget = PORT_QUEUE;
        while port.open_in_guest && !port.hung_up {
            if budget == 0 {
                queue.postpone()?;
                break;
            }
            budget -= 1;
            let Some(mut chain) = queue.pop()? else { break };
            if !port.left.is_empty() {
                let most = chain.writable().min(port.left.len() as u64) as usize;
                let left: Vec<u8> = port.left.drain(..most).collect();
                let written = chain.write(&left)?;
                queue.used(&chain, written as u32)?;
                continue;
            }
            match sys::receive(&port.socket, &chain.writable_slices()?) {
                // A buffer of no bytes would look like the end of the stream.
                Ok(0) if chain.writable() == 0 => queue.used(&chain, 0)?,
                Ok(bytes) if bytes > 0 => queue.used(&chain, bytes as u32)?,
                Err(error) if is_again(&error) => {
                    queue.unpop();
                    break;
                }
                Ok(_) | Err(_) => {
                    queue.unpop();
                    port.hung_up = true;
                    self.pending.push_back(message(number as u32, control::PORT_OPEN, 0, ""));
                }
            }
        }
        queue.notify()?;
        self.send_pending(queues)
    }

    /// Moves what the guest wrote to the socket, as far as it takes it.
    fn collect(&mut self, number: usize, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { return Ok(()) };
        let queue = &mut queues[first_queue(number) + 1];
        let mut budget = PORT_QUEUE;
        loop {
            let mut chain = match port.sending.take() {
                Some(chain) => chain,
                None if budget == 0 => {
                    queue.postpone()?;
                    break;
                }
                None => match queue.pop()? {
                    Some(chain) => chain,
                    None => break,
                },
            };
            budget = budget.saturating_sub(1);
            if !port.send(&mut chain)? {
                port.sending = Some(chain);
                break;
            }
            queue.used(&chain, 0)?;
        }
        queue.notify()
    }
}

impl Port {
    fn new(name: &'static str, is_console: bool, socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let left = VecDeque::new();
        Ok(Self { name, is_console, socket, hung_up: false, open_in_guest: false, sending: None, left })
    }

    /// What waits for the guest on the host's side.
    fn unread(&self) -> Result<Vec<u8>, &'static str> {
        let mut bytes = vec![0; MOST_LEFT];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        // A socket without anything, or at its end, has nothing.
        let (_, waiting) = recv(&self.socket, &mut bytes, flags).unwrap_or_default();
        bytes.truncate(waiting);
        bytes.splice(0..0, self.left.iter().copied());
        if bytes.len() < MOST_LEFT {
            Ok(bytes)
        } else {
            Err("the guest does not take what the host sends it")
        }
    }

    /// Sends a chain to the socket. Whether all of it went out; where nobody listens any more, it is dropped.
    fn send(&self, chain: &mut Chain) -> Result<bool, Fault> {
        while chain.readable() > 0 {
            match sys::send(&self.socket, &chain.readable_slices()?) {
                Ok(bytes) => chain.skip_readable(bytes as u64),
                Err(error) if is_again(&error) => return Ok(false),
                Err(_) => break,
            }
        }
        Ok(true)
    }
}

impl VirtioDevice for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::copy_config(&self.config, offset, data);
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.ports.iter().flatten().map(|port| port.socket.as_raw_fd()).collect()
    }

    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        match event {
            Event::Queue(CONTROL_TO_GUEST) => self.send_pending(queues),
            Event::Queue(CONTROL_FROM_GUEST) => self.control(queues),
            Event::Queue(queue) => {
                let number = if queue < CONTROL_TO_GUEST { 0 } else { queue / 2 - 1 };
                if queue % 2 == 0 { self.deliver(number, queues) } else { self.collect(number, queues) }
            }
            Event::Descriptor(place) => {
                // Without a console the agent's socket is the only one.
                let number = if self.ports[CONSOLE].is_some() { place } else { AGENT };
                self.collect(number, queues)?;
                self.deliver(number, queues)
            }
        }
    }

    fn reset(&mut self) {
        self.pending.clear();
        for port in self.ports.iter_mut().flatten() {
            port.open_in_guest = false;
            port.sending = None;
            port.left.clear();
        }
    }

    /// Which ports are open; the control messages that wait: how many, and each with its length before it; what waits for the
    /// agent's port.
    fn save(&self) -> Result<Vec<u8>, &'static str> {
        if self.ports.iter().flatten().any(|port| port.sending.is_some()) {
            return Err("the host has not taken all that the guest wrote to a console port");
        }
        let open = |port: &Option<Port>| u8::from(port.as_ref().is_some_and(|port| port.open_in_guest));
        let mut state: Vec<u8> = self.ports.iter().map(open).collect();
        state.push(self.pending.len() as u8);
        for message in &self.pending {
            state.push(message.len() as u8);
            state.extend(message);
        }
        state.extend(self.ports[AGENT].as_ref().map_or_else(|| Ok(Vec::new()), Port::unread)?);
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> bool {
        let Some((open, mut rest)) = state.split_first_chunk::<2>() else { return false };
        for (port, open) in self.ports.iter_mut().zip(open) {
            if let Some(port) = port {
                port.open_in_guest = *open != 0;
            }
        }
        self.pending.clear();
        let Some((messages, after)) = rest.split_first() else { return false };
        rest = after;
        for _ in 0..*messages {
            let Some((len, after)) = rest.split_first() else { return false };
            let Some((message, after)) = after.split_at_checked(usize::from(*len)) else { return false };
            self.pending.push_back(message.to_vec());
            rest = after;
        }
        if let Some(port) = &mut self.ports[AGENT] {
            port.left = rest.iter().copied().collect();
        }
        self.pending.len() <= MOST_PENDING && rest.len() < MOST_LEFT
    }
}

/// The queue to the guest of a port; the one from the guest is next (section 5.3.2).
fn first_queue(number: usize) -> usize {
    if number == 0 { 0 } else { 2 + 2 * number }
}

/// A control message: `struct virtio_console_control`, and a port's name after it.
fn message(id: u32, event: u16, value: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_le_bytes().to_vec();
    message.extend(event.to_le_bytes());
    message.extend(value.to_le_bytes());
    message.extend(name.bytes());
    message
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Buffer, Driver};
    use super::*;
    use std::io::{Read, Write};

    /// A device with both ports, and the host's ends of them.
    fn console() -> (Driver, UnixStream, UnixStream) {
        let (agent, agent_host) = UnixStream::pair().unwrap();
        let (console, console_host) = UnixStream::pair().unwrap();
        for host in [&agent_host, &console_host] {
            host.set_nonblocking(true).unwrap();
        }
        let device = Console::new(agent, Some(console)).unwrap();
        (Driver::new(Box::new(device)), agent_host, console_host)
    }

    fn say(driver: &mut Driver, id: u32, event: u16, value: u16) {
        let message = message(id, event, value, "");
        driver.add(CONTROL_FROM_GUEST, &[Buffer::Read(&message)]);
        driver.settle();
        driver.take_used(CONTROL_FROM_GUEST).expect("the device takes control messages");
    }

    /// The next control message that the device sends.
    fn hear(driver: &mut Driver) -> Vec<u8> {
        let buffer = driver.add(CONTROL_TO_GUEST, &[Buffer::Write(64)]);
        driver.settle();
        let (_, len) = driver.take_used(CONTROL_TO_GUEST).expect("a control message");
        driver.bytes(&buffer)[..len as usize].to_vec()
    }

    /// As Linux does it: both ports are found, and the agent's is opened.
    fn open_agent_port(driver: &mut Driver) {
        say(driver, 0, control::DEVICE_READY, 1);
        assert_eq!(hear(driver), message(1, control::DEVICE_ADD, 1, ""));
        assert_eq!(hear(driver), message(0, control::DEVICE_ADD, 1, ""));
        say(driver, 1, control::PORT_READY, 1);
        assert_eq!(hear(driver), message(1, control::PORT_NAME, 1, "lab.agent"));
        assert_eq!(hear(driver), message(1, control::PORT_OPEN, 1, ""));
        say(driver, 1, control::PORT_OPEN, 1);
    }

    #[test]
    fn the_guest_finds_the_agents_port_by_name_and_the_console_by_its_kind() {
        let (mut driver, _agent, _console) = console();
        assert_eq!(driver.read_config::<4>(4), 2u32.to_le_bytes());
        open_agent_port(&mut driver);
        say(&mut driver, 0, control::PORT_READY, 1);
        assert_eq!(hear(&mut driver), message(0, control::CONSOLE_PORT, 1, ""));
    }

    #[test]
    fn bytes_go_both_ways() {
        let (mut driver, mut agent, mut console) = console();
        open_agent_port(&mut driver);
        driver.add(5, &[Buffer::Read(b"from "), Buffer::Read(b"guest")]);
        driver.add(1, &[Buffer::Read(b"dmesg")]);
        driver.settle();
        let mut bytes = [0; 16];
        assert_eq!(agent.read(&mut bytes).unwrap(), 10);
        assert_eq!(&bytes[..10], b"from guest");
        assert_eq!(console.read(&mut bytes).unwrap(), 5);

        let buffer = driver.add(4, &[Buffer::Write(16)]);
        agent.write_all(b"from host").unwrap();
        driver.settle();
        assert_eq!(driver.take_used(4).unwrap().1, 9);
        assert_eq!(&driver.bytes(&buffer)[..9], b"from host");
    }

    #[test]
    fn nothing_is_sent_to_a_port_that_the_guest_has_not_opened() {
        let (mut driver, mut agent, _console) = console();
        driver.add(4, &[Buffer::Write(16)]);
        agent.write_all(b"early").unwrap();
        driver.settle();
        assert_eq!(driver.take_used(4), None);
        open_agent_port(&mut driver);
        assert_eq!(driver.take_used(4).unwrap().1, 5);
    }

    #[test]
    fn a_guest_that_gives_no_buffers_makes_the_host_wait() {
        let (mut driver, mut agent, _console) = console();
        open_agent_port(&mut driver);
        while agent.write(&[7; 4096]).is_ok() {
            driver.settle();
        }
        driver.add(4, &[Buffer::Write(4096)]);
        driver.settle();
        assert_eq!(driver.take_used(4).unwrap().1, 4096);
        assert_eq!(driver.take_used(4), None);
    }

    #[test]
    fn a_host_that_does_not_read_makes_the_guest_wait_and_loses_nothing() {
        let (mut driver, mut agent, _console) = console();
        open_agent_port(&mut driver);
        let chunk = vec![7; 64 * 1024];
        let mut given = chunk.len();
        while driver.request(5, &[Buffer::Read(&chunk)]).is_some() {
            given += chunk.len();
            assert!(given < 64 << 20, "the socket never fills up");
        }
        let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
        while let Ok(bytes) = agent.read(&mut buffer) {
            got += bytes;
            driver.settle();
        }
        assert_eq!(got, given);
        assert!(driver.take_used(5).is_some(), "the buffer that waited is given back");
    }

    #[test]
    fn the_guest_learns_that_the_host_hung_up_and_may_go_on_writing() {
        let (mut driver, agent, _console) = console();
        open_agent_port(&mut driver);
        drop(agent);
        driver.add(4, &[Buffer::Write(16)]);
        driver.settle();
        assert_eq!(hear(&mut driver), message(1, control::PORT_OPEN, 0, ""));
        driver.add(5, &[Buffer::Read(b"anybody?")]);
        driver.settle();
        assert!(driver.take_used(5).is_some());
        assert!(!driver.needs_reset());
    }

    #[test]
    fn a_driver_that_only_asks_and_never_listens_is_stopped() {
        let (mut driver, _agent, _console) = console();
        for _ in 0..MOST_PENDING {
            driver.add(CONTROL_FROM_GUEST, &[Buffer::Read(&message(0, control::DEVICE_READY, 1, ""))]);
            driver.settle();
        }
        assert!(driver.needs_reset());
        driver.restart();
        open_agent_port(&mut driver);
    }

    #[test]
    fn what_waits_for_the_guest_comes_to_a_machine_of_the_snapshot_too_and_before_all_else() {
        let (mut driver, mut agent, _console) = console();
        open_agent_port(&mut driver);
        agent.write_all(b"before").unwrap();
        let saved = || {
            let mut record = crate::snapshot::record::Writer::default();
            driver.mmio.save(&driver.mmio.hold(), &mut record).unwrap();
            record.finish()
        };
        let state = saved();
        assert_eq!(saved(), state, "a snapshot takes nothing away");

        let (socket, mut host) = UnixStream::pair().unwrap();
        let (other, _other_host) = UnixStream::pair().unwrap();
        host.write_all(b" and after").unwrap();
        let mut driver = driver.on_a_new_device(Box::new(Console::new(socket, Some(other)).unwrap()));
        driver.mmio.restore(&mut crate::snapshot::record::Reader::new(&state)).unwrap();
        let mut all = Vec::new();
        for _ in 0..2 {
            let buffer = driver.add(4, &[Buffer::Write(16)]);
            driver.settle();
            let Some((_, len)) = driver.take_used(4) else { break };
            all.extend_from_slice(&driver.bytes(&buffer)[..len as usize]);
        }
        assert_eq!(String::from_utf8(all).unwrap(), "before and after");
    }
}
