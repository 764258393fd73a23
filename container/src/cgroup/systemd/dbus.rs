//! As much of D-Bus as one program needs to speak to systemd (D-Bus Specification, "Message Protocol"): calls with a few
//! types of values, their answers, and the signal that a job has ended.
//!
//! systemd answers on a socket of its own, without the bus, for root: no names, no routing. `zbus`, the library that one
//! would take, brings an asynchronous runtime and is larger than this whole program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long systemd may take to answer, or to end a job: as long as other programs wait for it.
const PATIENCE: Duration = Duration::from_secs(25);

/// Longer answers than this are none of those that we ask for.
const LONGEST: usize = 1 << 20;

// Types of messages, codes of header fields.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const SIGNATURE: u8 = 8;

/// A value whose type travels with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

/// A message's body in the making. Every value begins at a multiple of its own alignment.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array, whose length in bytes does not count the padding before its first element.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.flag(*flag);
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |w| numbers.iter().for_each(|number| w.number(*number)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |w| w.0.extend(bytes));
            }
        }
    }

    /// Names with values: `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.value(value);
            }
        });
    }

    /// The empty list of further units: `a(sa(sv))`.
    pub(super) fn no_units(&mut self) {
        self.array(8, |_| ());
    }
}

/// A message's parts, read in order; none where it is too short.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn ending_in_nul(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        self.ending_in_nul(length as usize)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.ending_in_nul(length.into())
    }
}

/// A message that arrived.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    typ: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<u8>,
}

/// The fields of a header that matter here; none where it is malformed.
fn header(typ: u8, fields: &[u8], body: Vec<u8>) -> Option<Message> {
    let mut message = Message { typ, body, ..Message::default() };
    let mut reader = Reader { bytes: fields, at: 0 };
    while reader.at < fields.len() {
        reader.align(8);
        let Some(code) = reader.byte() else { break };
        match (reader.signature()?.as_str(), code) {
            ("u", REPLY_SERIAL) => message.reply_to = reader.number()?,
            ("u", _) => drop(reader.number()?),
            ("g", _) => drop(reader.signature()?),
            (_, MEMBER) => message.member = reader.text()?,
            (_, ERROR_NAME) => message.error = reader.text()?,
            _ => drop(reader.text()?),
        }
    }
    Some(message)
}

/// A conversation with systemd.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Jobs that have ended: unit, result.
    ended: Vec<(String, String)>,
}

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

impl Connection {
    /// Connects and says who we are; the kernel has told systemd already ("Authentication Protocol", EXTERNAL).
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        // The number's digits, each as two hexadecimal ones: '0' is 30.
        let hex: String = uid.chars().flat_map(|digit| ['3', digit]).collect();
        // All at once, as systemd's own programs do: a call that arrives together with BEGIN would lie unread.
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") && answer.len() < 1024 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).trim().to_owned()));
        }
        Ok(Self { stream, serial: 0, ended: Vec::new() })
    }

    /// Calls a method of systemd's manager.
    pub(super) fn call(&mut self, member: &str, signature: &str, body: Writer) -> io::Result<()> {
        self.exchange(MANAGER, member, signature, body).map(drop)
    }

    /// A property of systemd's manager that is text.
    pub(super) fn manager_property(&mut self, name: &str) -> io::Result<String> {
        let mut body = Writer::default();
        body.text(MANAGER);
        body.text(name);
        let answer = self.exchange("org.freedesktop.DBus.Properties", "Get", "ss", body)?;
        let mut reader = Reader { bytes: &answer, at: 0 };
        let text = reader.signature().filter(|signature| signature == "s").and_then(|_| reader.text());
        text.ok_or_else(|| io::Error::other(format!("{name} is no text")))
    }

    /// Waits until a unit's job has ended; how it ended.
    pub(super) fn job(&mut self, unit: &str) -> io::Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(name, _)| name == unit) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.receive()?;
        }
    }

    fn exchange(
        &mut self,
        interface: &str,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> io::Result<Vec<u8>> {
        self.serial += 1;
        let mut message = Writer(vec![b'l', CALL, 0, 1]);
        message.number(body.0.len() as u32);
        message.number(self.serial);
        message.array(8, |fields| {
            for (code, typ, value) in
                [(PATH, "o", "/org/freedesktop/systemd1"), (INTERFACE, "s", interface), (MEMBER, "s", member)]
            {
                fields.align(8);
                fields.0.push(code);
                fields.signature(typ);
                fields.text(value);
            }
            fields.align(8);
            fields.0.push(SIGNATURE);
            fields.signature("g");
            fields.signature(signature);
        });
        message.align(8);
        message.0.extend(body.0);
        self.stream.write_all(&message.0)?;
        loop {
            let answer = self.receive()?;
            match answer.typ {
                RETURN if answer.reply_to == self.serial => return Ok(answer.body),
                ERROR if answer.reply_to == self.serial => {
                    let text = Reader { bytes: &answer.body, at: 0 }.text().unwrap_or_default();
                    return Err(io::Error::other(format!("{} ({})", text, answer.error)));
                }
                _ => {}
            }
        }
    }

    /// The next message; of signals, the ends of jobs are kept.
    fn receive(&mut self) -> io::Result<Message> {
        let malformed = || io::Error::other("systemd sent what is no message of D-Bus");
        let mut start = [0; 16];
        self.stream.read_exact(&mut start)?;
        let word =
            |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if start[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(malformed());
        }
        let padded = fields.next_multiple_of(8);
        let mut rest = vec![0; padded + body];
        self.stream.read_exact(&mut rest)?;
        let body = rest.split_off(padded);
        let message = header(start[1], &rest[..fields], body).ok_or_else(malformed)?;
        if (message.typ, message.member.as_str()) == (SIGNAL, "JobRemoved") {
            let mut reader = Reader { bytes: &message.body, at: 0 };
            let ended = reader.number().and_then(|_| reader.text()).and_then(|_| reader.text());
            self.ended.extend(ended.zip(reader.text()));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_at_multiples_of_their_alignment() {
        let mut writer = Writer::default();
        writer.properties(&[("A", Value::Flag(true)), ("B", Value::Number(7))]);
        let mut expected = vec![40, 0, 0, 0, 0, 0, 0, 0]; // length, padding to the first structure
        expected.extend([1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(writer.0, expected);
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        let mut fields = Writer::default();
        for (code, typ) in [(MEMBER, "s"), (ERROR_NAME, "s")] {
            fields.align(8);
            fields.0.push(code);
            fields.signature(typ);
            fields.text("Word");
        }
        let whole = header(ERROR, &fields.0, Vec::new()).unwrap();
        assert_eq!((whole.member.as_str(), whole.error.as_str()), ("Word", "Word"));
        for length in 1..13 {
            assert_eq!(header(ERROR, &fields.0[..length], Vec::new()), None, "{length}");
        }
    }
}
