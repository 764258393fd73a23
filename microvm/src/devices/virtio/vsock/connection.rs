//! One connection: a stream socket of the host's on one side, packets of the guest's on the other, and the accounting that
//! keeps either from making us store more than [`BUFFER`] bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, VolatileSlice};

use super::super::{Chain, Fault, sys};
use super::packet::{Header, NO_RECEIVE, NO_SEND, Op};
use super::{HOST, Ports};

/// Bytes from the guest that wait for the host's program: what the guest is told to have room for.
pub(super) const BUFFER: u32 = 64 * 1024;

/// The longest first line of a program on the host: `CONNECT 4294967295`.
const LONGEST_LINE: usize = 32;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A program of the host's has connected, and not said yet to which port.
    Greeting,
    /// The guest was asked, and has not answered.
    Asked,
    /// Bytes flow.
    Open,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) stage: Stage,
    socket: UnixStream,
    /// The first line, as far as it came.
    line: Vec<u8>,
    /// The socket may have something to read. Its events are edges: this stays until it has nothing.
    pub(super) readable: bool,
    /// Packets that the guest is to get, besides data.
    pub(super) pending: VecDeque<(Op, u32)>,
    /// What of the guest's data the socket has not taken.
    unsent: VecDeque<u8>,
    /// Bytes that the socket took, and how many of them the guest knows of.
    forwarded: u32,
    told: u32,
    /// The guest's room, how many bytes of ours left it, and how many we sent (section 5.10.6.3).
    peer_room: u32,
    peer_forwarded: u32,
    sent: u32,
    asked_for_credit: bool,
    /// What the guest will not do any more, as flags of a shutdown; and whether the socket is at its end.
    guest_ended: u32,
    host_ended: bool,
    /// The program on the host has closed both directions: nobody reads what the guest sends.
    pub(super) hung_up: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream, ports: Ports, stage: Stage) -> Self {
        Self {
            ports,
            stage,
            socket,
            line: Vec::new(),
            readable: false,
            pending: VecDeque::new(),
            unsent: VecDeque::new(),
            forwarded: 0,
            told: 0,
            peer_room: 0,
            peer_forwarded: 0,
            sent: 0,
            asked_for_credit: false,
            guest_ended: 0,
            host_ended: false,
            hung_up: false,
        }
    }

    /// Reads on in the first line, never beyond it. The port, once it is whole.
    ///
    /// # Errors
    /// It is none, or there comes no more.
    pub(super) fn greet(&mut self) -> io::Result<Option<u32>> {
        let mut byte = [0];
        loop {
            match self.socket.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if self.line.len() == LONGEST_LINE => return Err(io::ErrorKind::InvalidData.into()),
                Ok(_) => self.line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let line = String::from_utf8_lossy(&self.line);
        let port = line.strip_prefix("CONNECT ").and_then(|port| port.trim_end().parse().ok());
        port.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Tells the program on the host that the guest has accepted.
    pub(super) fn accepted(&mut self) -> io::Result<()> {
        // A fresh socket has room for a line; where it has not, something is wrong with it.
        let line = format!("OK {}\n", self.ports.host);
        self.socket.write_all(line.as_bytes())
    }

    /// Takes the guest's word for its room, whatever it says.
    pub(super) fn take_credit(&mut self, header: &Header) {
        (self.peer_room, self.peer_forwarded) = (header.buf_alloc, header.fwd_cnt);
        self.asked_for_credit = false;
    }

    // ANCHOR: credit
    /// How many bytes the guest has room for.
    fn credit(&self) -> u32 {
        self.peer_room.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }
    // ANCHOR_END: credit

    /// Passes the guest's data on, and keeps what the socket does not take. False where the guest sent what it was not allowed
    /// to, or nobody is there.
    // ANCHOR: take_data
    pub(super) fn take_data(&mut self, chain: &mut Chain, len: usize) -> Result<bool, Fault> {
        if self.guest_ended & NO_SEND != 0 || self.unsent.len() + len > BUFFER as usize {
            return Ok(false);
        }
        let slices = sys::cut(&chain.readable_slices()?, 0, len);
        let mut taken = 0;
        if self.unsent.is_empty() && len > 0 {
            taken = match sys::send(&self.socket, &slices) {
                Ok(bytes) => bytes,
                Err(error) if is_again(&error) => 0,
                Err(_) => return Ok(false),
            };
        }
        for slice in sys::cut(&slices, taken, len - taken) {
            keep(&mut self.unsent, &slice)?;
        }
        self.forward(taken);
        Ok(true)
    }
    // ANCHOR_END: take_data

    /// Passes on what was kept. False where nobody is there to take it.
    pub(super) fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.socket.write(self.unsent.as_slices().0) {
                Ok(0) => return false,
                Ok(bytes) => {
                    self.unsent.drain(..bytes);
                    self.forward(bytes);
                }
                Err(error) if is_again(&error) => return true,
                Err(_) => return false,
            }
        }
        if self.guest_ended & NO_SEND != 0 {
            // One that is gone already needs not be told.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        true
    }

    fn forward(&mut self, bytes: usize) {
        self.forwarded = self.forwarded.wrapping_add(bytes as u32);
        // The guest need not know of each byte: half a buffer is soon enough.
        if self.forwarded.wrapping_sub(self.told) >= BUFFER / 2 {
            self.queue(Op::CreditUpdate, 0);
        }
    }

    /// Notes a packet for the guest, once.
    pub(super) fn queue(&mut self, op: Op, flags: u32) {
        if !self.pending.contains(&(op, flags)) {
            self.pending.push_back((op, flags));
        }
    }

    /// The guest will not do this any more. True where the connection has no purpose left.
    pub(super) fn shut_down(&mut self, flags: u32) -> bool {
        self.guest_ended |= flags & (NO_RECEIVE | NO_SEND);
        if self.guest_ended & NO_RECEIVE != 0 {
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        !self.flush() || self.is_over()
    }

    /// Whether both sides have said all, and all was passed on.
    pub(super) fn is_over(&self) -> bool {
        self.guest_ended == NO_RECEIVE | NO_SEND && self.unsent.is_empty()
    }

    /// Whether there is data to be fetched for the guest, and room for it there.
    pub(super) fn has_data(&mut self) -> bool {
        if !self.readable
            || self.stage != Stage::Open
            || self.host_ended
            || self.guest_ended & NO_RECEIVE != 0
        {
            return false;
        }
        if self.credit() == 0 && !self.asked_for_credit {
            self.asked_for_credit = true;
            self.queue(Op::CreditRequest, 0);
        }
        self.credit() > 0
    }

    /// Fetches data from the socket into a buffer of the guest's. The packet's bytes; none where there is nothing now.
    pub(super) fn deliver(&mut self, chain: &mut Chain, header: usize) -> Result<Option<u32>, Fault> {
        let most = (self.credit() as usize).min(chain.writable() as usize - header);
        let received = sys::receive(&self.socket, &sys::cut(&chain.writable_slices()?, header, most));
        match received {
            Ok(bytes) if bytes > 0 => {
                self.sent = self.sent.wrapping_add(bytes as u32);
                let packet = Header { len: bytes as u32, ..self.header(Op::Data, 0) };
                chain.write(&packet.encode())?;
                Ok(Some(bytes as u32 + header as u32))
            }
            Err(error) if is_again(&error) => {
                self.readable = false;
                Ok(None)
            }
            Ok(_) => {
                self.host_ended = true;
                self.queue(Op::Shutdown, if self.hung_up { NO_SEND | NO_RECEIVE } else { NO_SEND });
                Ok(None)
            }
            Err(_) => {
                self.host_ended = true;
                self.queue(Op::Shutdown, NO_SEND | NO_RECEIVE);
                Ok(None)
            }
        }
    }

    /// A packet's header to the guest, with the credit that it has now.
    pub(super) fn header(&mut self, op: Op, flags: u32) -> Header {
        self.told = self.forwarded;
        Header {
            src_cid: HOST,
            dst_cid: super::GUEST,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len: 0,
            kind: super::packet::STREAM,
            op: Some(op),
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: self.forwarded,
        }
    }
}

/// Copies bytes out of guest memory.
fn keep(unsent: &mut VecDeque<u8>, slice: &VolatileSlice<'_>) -> Result<(), Fault> {
    let mut bytes = vec![0; slice.len()];
    slice.read_slice(&mut bytes, 0).map_err(vm_memory::GuestMemoryError::from)?;
    unsent.extend(bytes);
    Ok(())
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
