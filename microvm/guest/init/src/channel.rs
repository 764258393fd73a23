//! Frames in both directions over the channel, which never blocks.

use freestanding::sys::memory::Array;
use freestanding::{Errno, Fd, Text};
use guest_wire::{Header, Kind, MAX_DATA, Stream};

use crate::failure::Failure;

/// Why the conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The host closed the channel.
    Closed,
    /// The host sent what no host sends, or the kernel refused the channel.
    Broken,
}

/// Received bytes that fit here are handled where they lie: any frame but a large `Setup` or `Exec`.
const RECEIVE: usize = Header::SIZE + MAX_DATA as usize;

/// Reads frames.
#[derive(Debug)]
pub struct Receiver {
    buffer: Array<u8>,
    /// The buffer holds bytes from here …
    start: usize,
    /// … to here.
    end: usize,
    /// How many of them the frame given out last takes.
    given: usize,
    large: Option<Large>,
}

/// A frame that does not fit the buffer.
#[derive(Debug)]
struct Large {
    header: Header,
    payload: Array<u8>,
    filled: usize,
    given: bool,
}

impl Receiver {
    /// A receiver that has received nothing.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> freestanding::sys::Result<Self> {
        Ok(Self { buffer: Array::new(RECEIVE)?, start: 0, end: 0, given: 0, large: None })
    }

    /// Reads what there is from the channel, once. Call after [`Self::frame`] said that there is no whole frame.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn fill(&mut self, channel: Fd) -> Result<(), Over> {
        let (target, filled) = if let Some(large) = &mut self.large {
            (large.payload.get_mut(large.filled..), &mut large.filled)
        } else {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            (self.buffer.get_mut(self.end..), &mut self.end)
        };
        match channel.read(target.ok_or(Over::Broken)?) {
            Ok(0) => Err(Over::Closed),
            Ok(count) => {
                *filled += count;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Over::Broken),
        }
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// The host sent a header that no host sends.
    pub fn frame(&mut self) -> Result<Option<(Header, &[u8])>, Over> {
        self.start += self.given;
        self.given = 0;
        if self.large.as_ref().is_some_and(|large| large.given) {
            self.large = None;
        }
        if self.large.is_none() {
            let received = self.buffer.get(self.start..self.end).ok_or(Over::Broken)?;
            let Some((head, rest)) = received.split_first_chunk::<{ Header::SIZE }>() else {
                return Ok(None);
            };
            let header = Header::decode(*head).map_err(|_| Over::Broken)?;
            let len = header.len as usize;
            if len <= RECEIVE - Header::SIZE {
                if rest.len() < len {
                    return Ok(None);
                }
                self.given = Header::SIZE + len;
                let first = self.start + Header::SIZE;
                return Ok(self.buffer.get(first..first + len).map(|payload| (header, payload)));
            }
            let mut payload = Array::new(len).map_err(|_| Over::Broken)?;
            payload.get_mut(..rest.len()).ok_or(Over::Broken)?.copy_from_slice(rest);
            let filled = rest.len();
            self.large = Some(Large { header, payload, filled, given: false });
            (self.start, self.end) = (0, 0);
        }
        match &mut self.large {
            Some(large) if large.filled == large.payload.len() => {
                large.given = true;
                Ok(Some((large.header, &large.payload)))
            }
            _ => Ok(None),
        }
    }
}

/// Bytes on their way to the host.
const SEND: usize = 64 * 1024;

/// Kept free for frames other than `Data`, so that a workload's output cannot keep its exit code from being sent.
const RESERVE: usize = 4096;

/// The longest frame that is no `Data`, header included: a `Failed` with its text.
pub const MESSAGE: usize = 512;

/// Collects frames and writes them as the channel takes them.
#[derive(Debug)]
pub struct Sender {
    buffer: Array<u8>,
    start: usize,
    end: usize,
}

impl Sender {
    /// A sender with nothing to send.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> freestanding::sys::Result<Self> {
        Ok(Self { buffer: Array::new(SEND)?, start: 0, end: 0 })
    }

    /// Whether something waits for the channel.
    pub const fn is_waiting(&self) -> bool {
        self.start < self.end
    }

    /// Whether a frame that is no `Data` has room.
    pub const fn takes_message(&self) -> bool {
        SEND - self.end >= MESSAGE
    }

    /// Whether a `Data` frame has room, however long.
    pub const fn takes_data(&self) -> bool {
        SEND - self.end >= Header::SIZE + MAX_DATA as usize + RESERVE
    }

    /// Adds a frame that is no `Data`. Callers ask [`Self::takes_message`] first.
    pub fn message(&mut self, kind: Kind, stream: Stream, process: u16, payload: &[u8]) {
        let header = Header { kind, stream, process, len: payload.len() as u32 }.encode();
        for part in [&header[..], payload] {
            if let Some(room) = self.buffer.get_mut(self.end..self.end + part.len()) {
                room.copy_from_slice(part);
                self.end += part.len();
            }
        }
    }

    /// Adds a frame whose payload is one number.
    pub fn number(&mut self, kind: Kind, stream: Stream, process: u16, number: u32) {
        self.message(kind, stream, process, &number.to_le_bytes());
    }

    /// Adds a `Failed` frame.
    pub fn failed(&mut self, process: u16, failure: &Failure) {
        let mut text = Text::<{ MESSAGE - Header::SIZE }>::new();
        text.text(failure.errno.0.to_le_bytes());
        failure.write(&mut text);
        self.message(Kind::Failed, Stream::Input, process, text.bytes());
    }

    /// Reads at most `most` bytes from `from` right into a `Data` frame; how many there were. Callers ask
    /// [`Self::takes_data`] first.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn data(
        &mut self,
        stream: Stream,
        process: u16,
        from: Fd,
        most: u32,
    ) -> freestanding::sys::Result<usize> {
        let most = most.min(MAX_DATA) as usize;
        let first = self.end + Header::SIZE;
        let count = from.read(self.buffer.get_mut(first..first + most).ok_or(Errno::AGAIN)?)?;
        if count > 0 {
            let header = Header { kind: Kind::Data, stream, process, len: count as u32 }.encode();
            self.buffer.get_mut(self.end..first).ok_or(Errno::AGAIN)?.copy_from_slice(&header);
            self.end = first + count;
        }
        Ok(count)
    }

    /// Writes what the channel takes.
    ///
    /// # Errors
    /// The conversation is over.
    pub fn flush(&mut self, channel: Fd) -> Result<(), Over> {
        while self.is_waiting() {
            match channel.write(self.buffer.get(self.start..self.end).ok_or(Over::Broken)?) {
                Ok(count) => self.start += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Make room at the end: what is left moves to the front.
                    self.buffer.copy_within(self.start..self.end, 0);
                    self.end -= self.start;
                    self.start = 0;
                    return Ok(());
                }
                Err(_) => return Err(Over::Closed),
            }
        }
        (self.start, self.end) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (host, guest)
    }

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&Header::new(kind, 0, payload.len() as u32).encode()[..], payload].concat()
    }

    /// All frames that arrive until the conversation is over.
    fn receive(guest: &UnixStream) -> (Vec<(Kind, Vec<u8>)>, Over) {
        let mut receiver = Receiver::new().unwrap();
        let mut frames = Vec::new();
        loop {
            match receiver.frame() {
                Ok(Some((header, payload))) => frames.push((header.kind, payload.to_vec())),
                Ok(None) => {
                    if let Err(over) = receiver.fill(Fd(guest.as_raw_fd())) {
                        return (frames, over);
                    }
                }
                Err(over) => return (frames, over),
            }
        }
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let (mut host, guest) = pair();
        let large = vec![7; 300_000];
        let sent = [frame(Kind::Start, b""), frame(Kind::Exec, &large), frame(Kind::Data, b"in")].concat();
        let writer = std::thread::spawn(move || {
            for part in sent.chunks(9973) {
                host.write_all(part).unwrap();
            }
        });
        let (frames, over) = receive(&guest);
        writer.join().unwrap();
        let expected = [(Kind::Start, vec![]), (Kind::Exec, large), (Kind::Data, b"in".to_vec())];
        assert!(frames == expected);
        assert_eq!(over, Over::Closed);
    }

    #[test]
    fn a_header_that_no_host_sends_ends_the_conversation() {
        for bad in [[0u8; 8], [1, 0, 0, 0, 255, 255, 255, 255], [32, 9, 0, 0, 0, 0, 0, 0]] {
            let (mut host, guest) = pair();
            host.write_all(&bad).unwrap();
            assert_eq!(receive(&guest).1, Over::Broken);
        }
    }

    #[test]
    fn output_waits_for_a_slow_host_and_none_is_lost() {
        let (mut host, guest) = pair();
        let channel = Fd(guest.as_raw_fd());
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let copy = bytes.clone();
        let source = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let sink = std::thread::spawn(move || {
            let mut all = Vec::new();
            host.read_to_end(&mut all).unwrap();
            all
        });
        let mut sender = Sender::new().unwrap();
        loop {
            if sender.takes_data()
                && sender.data(Stream::Output, 3, Fd(reader.as_raw_fd()), u32::MAX).unwrap() == 0
            {
                break;
            }
            sender.flush(channel).unwrap();
        }
        while sender.is_waiting() {
            sender.flush(channel).unwrap();
        }
        drop(guest);
        source.join().unwrap();
        let (mut rest, mut got) = (&sink.join().unwrap()[..], Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let header = Header::decode(*head).unwrap();
            assert_eq!((header.kind, header.stream, header.process), (Kind::Data, Stream::Output, 3));
            let (payload, after) = after.split_at(header.len as usize);
            got.extend_from_slice(payload);
            rest = after;
        }
        assert!(got == bytes);
    }

    #[test]
    fn a_full_buffer_still_takes_a_message() {
        let mut sender = Sender::new().unwrap();
        let (mut writer, reader) = UnixStream::pair().unwrap();
        while sender.takes_data() {
            writer.write_all(&[0; MAX_DATA as usize]).unwrap();
            sender.data(Stream::Output, 0, Fd(reader.as_raw_fd()), MAX_DATA).unwrap();
        }
        assert!(sender.takes_message());
        let before = sender.end;
        sender.failed(1, &Failure::new(Errno::NOENT, "execve", b"/bin/nope"));
        assert_eq!(&sender.buffer[before + 8..sender.end], b"\x02\0\0\0execve /bin/nope");
    }
}
