//! The header of a frame.

use crate::{MAX_DATA, MAX_PAYLOAD};

macro_rules! numbered {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $number:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant = $number,)+ }

        impl $name {
            /// The value of this number, if there is one.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// What a frame says. Below 64 the host speaks, from 64 on the guest; `Data`, `Closed` and `Credit` go both ways.
    Kind {
        /// Host: fields that describe the root file system, the mounts and the names of the sandbox. Once.
        Setup = 1,
        /// Host: fields that describe a process. It is prepared but waits for `Start`.
        Exec = 2,
        /// Host: start the prepared process. No payload; or fields: arguments and environment in place of those of `Exec`.
        Start = 3,
        /// Host: deliver a signal; payload: number as u32. To process 0, the first one, or one started by `Exec`.
        Signal = 4,
        /// Host: the terminal's new size; payload: rows as u16, columns as u16.
        Resize = 5,
        /// Host: end all processes, flush file systems, power off. No payload.
        PowerOff = 6,
        /// Host: the guest was restored from a snapshot; fields say what is to be different from all others of it.
        Renew = 7,
        /// Host: say `Prepared` as soon as the process is. No payload.
        Await = 8,
        /// Host, before `Start`: hold the process at its program's first instruction and say `Halted`. No payload.
        Halt = 9,
        /// Bytes of a stream: standard input from the host, output and error from the guest.
        Data = 32,
        /// The stream has ended. No payload.
        Closed = 33,
        /// So many bytes of the stream were passed on; payload: u32.
        Credit = 34,
        /// Guest: PID 1 is up; payload: the protocol's version as u32.
        Ready = 64,
        /// Guest: the process's `execve(2)` succeeded; payload: its pid in the sandbox as u32.
        Started = 65,
        /// Guest: the process ended; payload: u32, the exit code, or 128 + the signal's number with bit 31 set.
        Exited = 66,
        /// Guest: a step failed. Payload: errno as u32, then the step and its object as text. For process 0xffff: the set-up.
        Failed = 67,
        /// Guest: the process is set up and waits for `Start`; said only to `Await`. No payload.
        Prepared = 68,
        /// Guest: the process is at its program's first instruction, and stays: in place of that is a jump to itself. Payload:
        /// the address as u64, PID 1's CLOCK_REALTIME in nanoseconds at its mark [`ClockRead`](crate::GuestMark::ClockRead) as u64,
        /// then the [`SPIN`](crate::SPIN)`.len()` bytes that belong there.
        Halted = 69,
    }
}

numbered! {
    /// The three streams of a process. A process with a terminal uses `Input` and `Output` only.
    Stream {
        /// Standard input, host to guest.
        Input = 0,
        /// Standard output, guest to host.
        Output = 1,
        /// Standard error, guest to host.
        Error = 2,
    }
}

/// The eight bytes before each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// Which stream it is about; `Input` where it is about none.
    pub stream: Stream,
    /// Which process it is about, numbered by the host; 0 is the sandbox's own.
    pub process: u16,
    /// Length of the payload in bytes.
    pub len: u32,
}

/// Why eight bytes are no header. Each ends the conversation: a byte stream that lost its frame cannot find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first byte is no [`Kind`].
    Kind(u8),
    /// The second byte is no [`Stream`].
    Stream(u8),
    /// The payload is longer than the kind allows.
    Length(u32),
}

impl Header {
    /// The process number of frames that are about the sandbox as a whole.
    pub const SANDBOX: u16 = 0xffff;

    /// Size of an encoded header in bytes.
    pub const SIZE: usize = 8;

    /// A header about no particular stream.
    pub const fn new(kind: Kind, process: u16, len: u32) -> Self {
        Self { kind, stream: Stream::Input, process, len }
    }

    /// The header as bytes on the wire.
    pub const fn encode(self) -> [u8; Self::SIZE] {
        let [p0, p1] = self.process.to_le_bytes();
        let [l0, l1, l2, l3] = self.len.to_le_bytes();
        [self.kind as u8, self.stream as u8, p0, p1, l0, l1, l2, l3]
    }

    /// Reads a header from the wire.
    ///
    /// # Errors
    /// Any byte that no version-1 peer sends.
    pub const fn decode(bytes: [u8; Self::SIZE]) -> Result<Self, HeaderError> {
        let [kind, stream, p0, p1, l0, l1, l2, l3] = bytes;
        let Some(kind) = Kind::from_byte(kind) else { return Err(HeaderError::Kind(kind)) };
        let Some(stream) = Stream::from_byte(stream) else { return Err(HeaderError::Stream(stream)) };
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let most = match kind {
            Kind::Data => MAX_DATA,
            _ => MAX_PAYLOAD,
        };
        if len > most {
            return Err(HeaderError::Length(len));
        }
        Ok(Self { kind, stream, process: u16::from_le_bytes([p0, p1]), len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header { kind: Kind::Data, stream: Stream::Error, process: 7, len: MAX_DATA };
        assert_eq!(Header::decode(header.encode()), Ok(header));
    }

    #[test]
    fn what_no_peer_sends_is_refused() {
        assert_eq!(Header::decode([0, 0, 0, 0, 0, 0, 0, 0]), Err(HeaderError::Kind(0)));
        assert_eq!(Header::decode([1, 3, 0, 0, 0, 0, 0, 0]), Err(HeaderError::Stream(3)));
        let long = Header { kind: Kind::Data, stream: Stream::Input, process: 0, len: MAX_DATA + 1 };
        assert_eq!(Header::decode(long.encode()), Err(HeaderError::Length(MAX_DATA + 1)));
    }
}
