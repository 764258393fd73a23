//! Decompressing and hashing on a thread of their own, so that they overlap with writing files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::image::compression::decompress;
use crate::image::digest::{Digest, Hasher};
use crate::image::progress::{Step, Watched};

/// Large enough that the channel's cost is not felt, small enough to stay in the second-level cache.
const BUFFER: usize = 128 * 1024;
/// How far the thread may run ahead, in buffers.
const AHEAD: usize = 4;

/// The plain content of a blob, read ahead.
pub(super) struct Pipe {
    full: Option<Receiver<io::Result<Vec<u8>>>>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    thread: Option<JoinHandle<Digest>>,
}

impl Pipe {
    pub fn new(file: File, step: Box<dyn Step>) -> Self {
        let (send_full, full) = sync_channel(AHEAD);
        let (empty, take_empty) = channel();
        let thread = thread::spawn(move || pump(file, &*step, &send_full, &take_empty));
        Self { full: Some(full), empty, buffer: Vec::new(), position: 0, thread: Some(thread) }
    }

    /// Reads to the end; the digest of all the plain content.
    pub fn finish(mut self) -> io::Result<Digest> {
        while !self.fill_buf()?.is_empty() {
            self.position = self.buffer.len();
        }
        let thread = self.thread.take().expect("finish is called once");
        thread.join().map_err(|_| io::Error::other("the decompressing thread failed"))
    }
}

/// The thread: reads, decompresses, hashes, sends, until the end or until nobody listens.
fn pump(
    file: File,
    step: &dyn Step,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Digest {
    let mut hasher = Hasher::default();
    let watched = Watched { inner: file, step };
    let mut plain = match decompress(BufReader::with_capacity(BUFFER, watched)) {
        Ok(plain) => plain,
        Err(error) => {
            let _ = full.send(Err(error));
            return hasher.finish();
        }
    };
    loop {
        let mut buffer = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        buffer.clear();
        let read = (&mut plain).take(BUFFER as u64).read_to_end(&mut buffer);
        hasher.update(&buffer);
        let done = matches!(read, Ok(0));
        if done || full.send(read.map(|_| buffer)).is_err() {
            return hasher.finish();
        }
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len()
            && let Some(Ok(next)) = self.full.as_ref().map(Receiver::recv)
        {
            let used = std::mem::replace(&mut self.buffer, next?);
            let _ = self.empty.send(used);
            self.position = 0;
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, used: usize) {
        self.position += used;
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let used = available.len().min(buffer.len());
        buffer[..used].copy_from_slice(&available[..used]);
        self.consume(used);
        Ok(used)
    }
}

/// A reader that gives up half-way leaves no thread behind.
impl Drop for Pipe {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
