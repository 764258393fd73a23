//! The device before a driver that plays the guest, with real sockets on the host's side.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::testing::{Buffer, Driver};
use super::connection::BUFFER;
use super::packet::{HEADER, Header, NO_RECEIVE, NO_SEND, Op, STREAM};
use crate::snapshot::record::{Reader, Writer};

use super::{EVENTS, FIRST_PORT, FROM_GUEST, GUEST, HOST, MOST, TO_GUEST, Vsock};

/// A guest's program.
const PORT: u32 = 1234;

struct World {
    driver: Driver,
    folder: TempDir,
    /// The guest's buffer for the next packet, once it has given one.
    buffer: Option<Vec<(u64, u32)>>,
}

/// Where packets from and to the guest lie.
const OUT: u64 = 0x10_0000;
const IN: u64 = 0x18_0000;

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v");
    let device = Vsock::new(UnixListener::bind(&path).unwrap(), path).unwrap();
    World { driver: Driver::new(Box::new(device)), folder, buffer: None }
}

impl World {
    fn path(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    /// The guest sends a packet.
    fn send(&mut self, header: Header, data: &[u8]) {
        let bytes = [&header.encode()[..], data].concat();
        self.driver.place_buffers(OUT);
        self.driver.add(FROM_GUEST, &[Buffer::Read(&bytes)]);
        self.driver.settle();
        self.driver.take_used(FROM_GUEST).expect("the device takes packets");
    }

    fn say(&mut self, op: Op, host: u32, data: &[u8]) {
        self.send(Header { len: data.len() as u32, ..packet(op, host) }, data);
    }

    /// The next packet for the guest.
    fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        self.driver.place_buffers(IN);
        let buffer = self.buffer.take().unwrap_or_else(|| self.driver.add(TO_GUEST, &[Buffer::Write(4096)]));
        self.driver.settle();
        let Some((_, len)) = self.driver.take_used(TO_GUEST) else {
            self.buffer = Some(buffer);
            return None;
        };
        let bytes = self.driver.bytes(&buffer)[..len as usize].to_vec();
        let (header, data) = bytes.split_first_chunk::<HEADER>().expect("a header");
        Some((Header::decode(*header), data.to_vec()))
    }

    fn expect(&mut self, op: Op) -> Header {
        let (header, _) = self.hear().expect("a packet");
        assert_eq!((header.op, header.src_cid, header.dst_cid), (Some(op), HOST, GUEST));
        header
    }

    /// A program of the host's that is connected to the guest's port.
    fn program_of_the_host(&mut self) -> (UnixStream, u32) {
        let mut program = UnixStream::connect(self.path()).unwrap();
        program.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        self.driver.settle();
        let request = self.expect(Op::Request);
        assert_eq!((request.dst_port, request.buf_alloc), (PORT, BUFFER));
        self.say(Op::Response, request.src_port, &[]);
        let mut line = [0; 14];
        program.read_exact(&mut line).unwrap();
        assert_eq!(String::from_utf8_lossy(&line), format!("OK {}\n", request.src_port));
        program.set_nonblocking(true).unwrap();
        (program, request.src_port)
    }
}

/// A packet of the guest's, which has room for 8 KiB.
fn packet(op: Op, host: u32) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST,
        src_port: PORT,
        dst_port: host,
        len: 0,
        kind: STREAM,
        op: Some(op),
        flags: 0,
        buf_alloc: 8192,
        fwd_cnt: 0,
    }
}

#[test]
fn the_driver_reads_its_address() {
    let mut world = world();
    assert_eq!(u64::from_le_bytes(world.driver.read_config(0)), GUEST);
}

#[test]
fn a_program_on_the_host_talks_to_one_in_the_guest() {
    let mut world = world();
    let (mut program, port) = world.program_of_the_host();
    assert_eq!(port, FIRST_PORT);
    program.write_all(b"to the guest").unwrap();
    let (header, data) = world.hear().unwrap();
    assert_eq!((header.op, header.len, &*data), (Some(Op::Data), 12, &b"to the guest"[..]));
    world.say(Op::Data, port, b"to the host");
    let mut buffer = [0; 64];
    let len = program.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"to the host");
    // The host's program says all and waits for the rest; the guest's has the last word.
    program.shutdown(std::net::Shutdown::Write).unwrap();
    world.driver.settle();
    assert_eq!(world.expect(Op::Shutdown).flags, NO_SEND);
    world.say(Op::Data, port, b"bye");
    world.send(Header { flags: NO_SEND | NO_RECEIVE, ..packet(Op::Shutdown, port) }, &[]);
    world.expect(Op::Reset);
    let len = program.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"bye");
    assert_eq!(program.read(&mut buffer).unwrap(), 0, "and nothing after it");
}

#[test]
fn a_program_in_the_guest_reaches_who_listens_on_the_host() {
    let mut world = world();
    let listener = UnixListener::bind(world.folder.path().join("v_99")).unwrap();
    world.say(Op::Request, 99, &[]);
    world.expect(Op::Response);
    let (mut program, _) = listener.accept().unwrap();
    world.say(Op::Data, 99, b"hello");
    let mut buffer = [0; 5];
    program.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    drop(program);
    world.driver.settle();
    assert_eq!(world.expect(Op::Shutdown).flags, NO_SEND | NO_RECEIVE);
    // Where nobody listens there is no connection.
    world.say(Op::Request, 98, &[]);
    assert_eq!(world.expect(Op::Reset).src_port, 98);
}

#[test]
fn neither_side_is_given_more_than_it_has_room_for() {
    let mut world = world();
    let (mut program, port) = world.program_of_the_host();
    program.write_all(&vec![7; 20_000]).unwrap();
    let mut got = 0;
    while let Some((header, data)) = world.hear() {
        got += data.len();
        if header.op == Some(Op::CreditRequest) {
            break;
        }
    }
    assert_eq!(got, 8192);
    // The guest has read 100 bytes.
    world.send(Header { fwd_cnt: 100, ..packet(Op::CreditUpdate, port) }, &[]);
    assert_eq!(world.hear().unwrap().0.len, 100);
}

/// Sends as long as there is room, as the guest was told. How much that was.
fn fill(world: &mut World, port: u32) -> Vec<u8> {
    let (mut sent, mut known) = (Vec::new(), 0);
    loop {
        if sent.len() - known + 4096 <= BUFFER as usize {
            let piece = [(sent.len() / 4096) as u8; 4096];
            world.say(Op::Data, port, &piece);
            sent.extend(piece);
            continue;
        }
        let Some((header, _)) = world.hear() else { return sent };
        assert_eq!(header.op, Some(Op::CreditUpdate));
        known = header.fwd_cnt as usize;
    }
}

#[test]
fn what_a_slow_program_does_not_take_waits_and_comes_in_full() {
    let mut world = world();
    let (mut program, port) = world.program_of_the_host();
    let sent = fill(&mut world, port);
    assert!(sent.len() > BUFFER as usize, "the socket's own buffer, and the device's");
    let mut got: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(len) = program.read(&mut buffer) {
        got.extend(&buffer[..len]);
        world.driver.settle();
    }
    assert!(got == sent);
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_is_cut_off() {
    let mut world = world();
    let (program, port) = world.program_of_the_host();
    fill(&mut world, port);
    world.say(Op::Data, port, &[0; 4096]);
    world.expect(Op::Reset);
    drop(program);
}

#[test]
fn what_is_no_connection_is_refused() {
    let mut world = world();
    for header in [
        packet(Op::Data, 5),
        Header { op: None, ..packet(Op::Data, 5) },
        Header { kind: 2, ..packet(Op::Request, 5) },
        Header { dst_cid: 9, ..packet(Op::Request, 5) },
    ] {
        world.send(header, &[]);
        assert_eq!(world.expect_any(), Some(Op::Reset), "{header:?}");
    }
    for header in [packet(Op::Reset, 5), Header { src_cid: 77, ..packet(Op::Request, 5) }] {
        world.send(header, &[]);
        assert_eq!(world.expect_any(), None, "{header:?}");
    }
}

impl World {
    fn expect_any(&mut self) -> Option<Op> {
        self.hear().and_then(|(header, _)| header.op)
    }
}

#[test]
fn a_guest_that_fetches_no_answers_is_not_listened_to() {
    let mut world = world();
    let request = packet(Op::Data, 5).encode();
    for _ in 0..100 {
        world.driver.add(FROM_GUEST, &[Buffer::Read(&request)]);
    }
    world.driver.settle();
    let taken = std::iter::from_fn(|| world.driver.take_used(FROM_GUEST)).count();
    assert_eq!(taken, super::MOST_ANSWERS);
    for _ in 0..100 {
        world.driver.add(TO_GUEST, &[Buffer::Write(64)]);
    }
    world.driver.settle();
    assert_eq!(std::iter::from_fn(|| world.driver.take_used(FROM_GUEST)).count(), 100 - taken);
    assert_eq!(std::iter::from_fn(|| world.driver.take_used(TO_GUEST)).count(), 100);
}

#[test]
fn one_program_too_many_and_one_that_talks_nonsense_are_hung_up_on() {
    let mut world = world();
    let mut programs: Vec<_> = (0..=MOST).map(|_| UnixStream::connect(world.path()).unwrap()).collect();
    world.driver.settle();
    assert_eq!(programs.pop().unwrap().read(&mut [0]).unwrap(), 0);
    for line in ["GET / HTTP/1.1\r\n", "CONNECT x\n", "CONNECT 99999999999\n", &"C".repeat(100)] {
        let mut program = programs.pop().unwrap();
        program.write_all(line.as_bytes()).unwrap();
        world.driver.settle();
        // Unread bytes make an end a broken one.
        assert!(!matches!(program.read(&mut [0]), Ok(1..)), "{line}");
    }
    assert_eq!(world.expect_any(), None, "the guest hears of none of them");
}

#[test]
fn a_reset_and_a_restored_guest_have_no_connections() {
    let mut world = world();
    let (mut program, _) = world.program_of_the_host();
    world.driver.restart();
    assert_eq!(program.read(&mut [0]).unwrap(), 0);

    let path = world.folder.path().join("w");
    let device = Vsock::new(UnixListener::bind(&path).unwrap(), path).unwrap();
    let mut record = Writer::default();
    world.driver.mmio.save(&world.driver.mmio.hold(), &mut record).unwrap();
    let mut driver = world.driver.on_a_new_device(Box::new(device));
    driver.mmio.restore(&mut Reader::new(&record.finish())).unwrap();
    let buffer = driver.add(EVENTS, &[Buffer::Write(4)]);
    driver.settle();
    assert_eq!(driver.take_used(EVENTS).unwrap().1, 4);
    assert_eq!(driver.bytes(&buffer), [0; 4]);
}
