//! What a workload writes, to everyone who is attached.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A client that takes nothing for so long is let go: the workload must not hang on it for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of a workload's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output; a terminal's only one.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The header of a frame: the stream, three zero bytes, the length (Docker Engine API, "Stream format").
    pub(crate) fn header(self, length: usize) -> [u8; 8] {
        let mut header = [0; 8];
        header[0] = if self == Self::Stdout { 1 } else { 2 };
        header[4..].copy_from_slice(&(length as u32).to_be_bytes());
        header
    }
}

/// A client's end of the streams.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: UnixStream,
    /// Whether it wants standard output.
    pub stdout: bool,
    /// Whether it wants standard error.
    pub stderr: bool,
    /// Whether the workload has a terminal: then bytes are sent as they are.
    pub raw: bool,
}

impl Client {
    /// Sends what the workload wrote; false where the client is gone.
    pub fn send(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        if !(if channel == Channel::Stdout { self.stdout } else { self.stderr }) {
            return true;
        }
        let result = if self.raw {
            self.socket.write_all(bytes)
        } else {
            // One write, so that a frame is one packet for most clients.
            let mut frame = Vec::with_capacity(8 + bytes.len());
            frame.extend(channel.header(bytes.len()));
            frame.extend(bytes);
            self.socket.write_all(&frame)
        };
        result.is_ok()
    }
}

/// Everyone who is attached.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Vec<Client>>);

impl Hub {
    /// One more client.
    pub fn join(&self, client: Client) {
        let _ = client.socket.set_write_timeout(Some(PATIENCE));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    /// Sends to all. Those that are gone are forgotten.
    pub fn send(&self, channel: Channel, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain_mut(|client| client.send(channel, bytes));
    }

    /// The workload has ended: so do all connections.
    pub fn close(&self) {
        for client in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = client.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn clients_get_frames_and_those_that_left_are_forgotten() {
        let hub = Hub::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (gone, _) = UnixStream::pair().unwrap();
        hub.join(Client { socket: ours, stdout: true, stderr: false, raw: false });
        hub.join(Client { socket: gone, stdout: true, stderr: true, raw: true });
        hub.send(Channel::Stderr, b"not wanted");
        hub.send(Channel::Stdout, b"hi");
        assert_eq!(hub.0.lock().unwrap().len(), 1);
        hub.close();
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        assert_eq!(all, [1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    }
}
