//! virtio-fs: directories of the host in the guest (virtio 1.2, section 5.11).
//!
//! Linux has a protocol by which a kernel asks a program about a file system: FUSE. virtio-fs carries its messages over queues
//! instead of `/dev/fuse`, so that the program is the VMM. 9P would do as well and is older, but FUSE's messages are those of
//! Linux' own VFS: a removed file stays open, a rename can exchange, a hole can be punched, an append appends.
//!
//! ```text
//!   guest                                         host
//!   program ─ VFS ─ FUSE ─ queue ═══ messages ═══ Fs ─ Server ─ Nodes: one O_PATH descriptor a file
//! ```
//!
//! **As a container sees it.** Neither side believes what it knew a moment ago: every use of a name and of attributes asks the
//! host, and pages in the guest's cache go when a file's time or size changed. What the guest writes is written when its system
//! call returns, except to pages that are mapped shared, which are written by msync(2) or when the file is closed. Pages that
//! are mapped do not change under the guest when the host writes: the one difference to a container.
//!
//! **As a wall.** A message may say anything. A file is named by a number that was given out (`nodes`), never by a path; a name
//! is one step into one directory (openat2(2)), without links; only files and directories are opened; what is shared read-only is
//! checked on this side; numbers, descriptors and bytes have bounds.
//!
//! Read `protocol`, `nodes`, `caller`, then `server`, `files` and `xattr`.

mod caller;
mod files;
mod nodes;
mod protocol;
mod server;
#[cfg(test)]
mod tests;
mod xattr;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use self::nodes::Nodes;
use self::protocol::{ANSWER, Args, REQUEST, Request, WRITE_CACHE, op};
use self::server::Server;
use super::{Chain, Event, Fault, VirtioDevice, Virtqueue, sys};
use crate::Error;

pub use self::nodes::Share;

/// Descriptors in the queue for requests that do not wait, and in the one for all others.
const QUEUES: [u16; 2] = [16, 128];

/// Pages in a request: they, and the headers around them, fit into the queue.
const MAX_PAGES: u16 = 120;

/// Bytes that one request writes.
const MAX_WRITE: u32 = MAX_PAGES as u32 * 4096;

/// Bytes of a request other than a write: the longest has a name and an attribute's value.
const MOST_ARGS: u64 = 4096 + 65536 + 256;

/// Bytes of the tag (section 5.11.4).
const TAG: usize = 36;

/// What a file costs the guest's kernel at least, in bytes (an inode and a directory entry): so many files it can know, and
/// more numbers a driver that forgets none shall not have.
const GUEST_BYTES: usize = 1024;

/// The least number of files, whatever the guest's memory, and the most.
const FILES: std::ops::RangeInclusive<usize> = 1 << 15..=1 << 22;

/// The device.
#[derive(Debug)]
pub struct Fs {
    server: Server,
    config: [u8; TAG + 4],
}

impl Fs {
    /// A device that shows these shares, each under its name, to a guest that mounts the tag. The guest's memory, in MiB,
    /// bounds how many files it may know.
    ///
    /// # Errors
    /// [`Error::System`] where /proc is not mounted, or a share cannot be looked at.
    pub fn new(tag: &str, shares: Vec<Share>, memory_mib: u32) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::system("share directories (/proc/self/fd)")(errno);
        let files = ((memory_mib as usize) << 20) / GUEST_BYTES;
        let budget = descriptors();
        let nodes =
            Nodes::new(shares, budget / 4, files.clamp(*FILES.start(), *FILES.end())).map_err(failed)?;
        let mut config = [0; TAG + 4];
        for (to, from) in config[..TAG].iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        config[TAG] = 1; // num_request_queues
        Ok(Self { server: Server::new(nodes, budget / 4), config })
    }

    /// Answers one request. How many bytes were written.
    fn serve(&mut self, chain: &mut Chain) -> Result<u32, Fault> {
        let Some(header) = chain.read_array::<REQUEST>()? else {
            return Err(Fault::Driver("a file system's request has no header"));
        };
        let request = Request::read(header);
        match request.opcode {
            op::READ => return self.read(request, chain),
            op::WRITE => return self.write(request, chain),
            _ => {}
        }
        if chain.readable() > MOST_ARGS {
            return answer(chain, request, Err(Errno::TOOBIG));
        }
        let mut bytes = vec![0; chain.readable() as usize];
        chain.read(&mut bytes)?;
        let mut args = Args(&bytes);
        match request.opcode {
            // These two have no answer.
            op::FORGET => {
                self.server.nodes.forget(request.node, args.u64().unwrap_or(0));
                Ok(0)
            }
            op::BATCH_FORGET => {
                let (count, _) = (args.u32().unwrap_or(0), args.u32());
                for _ in 0..count {
                    let (Ok(node), Ok(uses)) = (args.u64(), args.u64()) else { break };
                    self.server.nodes.forget(node, uses);
                }
                Ok(0)
            }
            _ => {
                let result = self.server.answer(request, &mut args);
                answer(chain, request, result.as_ref().map(|answer| &answer.0[..]).map_err(|&errno| errno))
            }
        }
    }

    /// Reads from a file straight into the guest's pages.
    fn read(&mut self, request: Request, chain: &mut Chain) -> Result<u32, Fault> {
        let wanted = match chain.read_array::<40>()? {
            Some(args) => {
                let mut args = Args(&args);
                // All are there.
                let (handle, offset, size) = (args.u64(), args.u64(), args.u32());
                handle.and_then(|handle| Ok((self.server.file(request.node, handle)?, offset?, size?)))
            }
            None => Err(Errno::INVAL),
        };
        let room = chain.writable().saturating_sub(ANSWER as u64);
        let result = match wanted {
            Ok((file, offset, size)) if offset <= i64::MAX as u64 - u64::from(u32::MAX) => {
                let slices = chain.writable_slices()?;
                let pages = sys::cut(&slices, ANSWER, room.min(size.into()) as usize);
                sys::read_at(&file, &pages, offset).map_err(|error| errno_of(&error))
            }
            Ok(_) => Err(Errno::INVAL),
            Err(errno) => Err(errno),
        };
        match result {
            Ok(read) => {
                head(chain, request, 0, read as usize)?;
                Ok(ANSWER as u32 + read as u32)
            }
            Err(errno) => answer(chain, request, Err(errno)),
        }
    }

    /// Writes the guest's pages straight to a file.
    fn write(&mut self, request: Request, chain: &mut Chain) -> Result<u32, Fault> {
        let result = match chain.read_array::<40>()? {
            Some(args) => {
                let mut args = Args(&args);
                let mut wanted = || {
                    let (handle, offset, size, flags) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
                    let (_lock, open_flags) = (args.u64()?, args.u32()?);
                    let file = self.server.file(request.node, handle)?;
                    if chain.readable() < size.into() || offset > i64::MAX as u64 - u64::from(u32::MAX) {
                        return Err(Errno::INVAL);
                    }
                    // Only a program's own write appends; a page of the cache has its place.
                    let append =
                        open_flags & rustix::fs::OFlags::APPEND.bits() != 0 && flags & WRITE_CACHE == 0;
                    Ok((file, offset, size, append))
                };
                match wanted() {
                    Ok((file, offset, size, append)) => {
                        let slices = chain.readable_slices()?;
                        let pages = sys::cut(&slices, 0, size as usize);
                        sys::write_or_append(&file, &pages, offset, append).map_err(|error| errno_of(&error))
                    }
                    Err(errno) => Err(errno),
                }
            }
            None => Err(Errno::INVAL),
        };
        let written = result.map(|written| [(written as u32).to_le_bytes(), [0; 4]].concat());
        answer(chain, request, written.as_deref().map_err(|&errno| errno))
    }
}

/// The header of an answer: an error, or so many bytes behind it (`struct fuse_out_header`).
fn head(chain: &mut Chain, request: Request, error: i32, len: usize) -> Result<(), Fault> {
    let len = (ANSWER + len) as u32;
    let bytes = [&len.to_le_bytes()[..], &error.to_le_bytes(), &request.unique.to_le_bytes()].concat();
    if chain.write(&bytes)? < ANSWER {
        return Err(Fault::Driver("a file system's request has no room for its answer"));
    }
    Ok(())
}

fn answer(chain: &mut Chain, request: Request, result: Result<&[u8], Errno>) -> Result<u32, Fault> {
    let bytes = match result {
        // A driver that has no room for what it asked for gets none of it.
        Ok(bytes) if chain.writable() < (ANSWER + bytes.len()) as u64 => Err(Errno::RANGE),
        other => other,
    };
    match bytes {
        Ok(bytes) => {
            head(chain, request, 0, bytes.len())?;
            chain.write(bytes)?;
            Ok((ANSWER + bytes.len()) as u32)
        }
        Err(errno) => {
            head(chain, request, -errno.raw_os_error(), 0)?;
            Ok(ANSWER as u32)
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// How many descriptors this process may have, after it allowed itself as many as it can (getrlimit(2)).
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    // No bound at all is more than enough.
    limit.current.map_or(1 << 20, |most| most as usize)
}

impl VirtioDevice for Fs {
    fn id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::copy_config(&self.config, offset, data);
    }

    fn waits(&self) -> bool {
        true
    }

    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let Event::Queue(number) = event else { return Ok(()) };
        let Some(queue) = queues.get_mut(number) else { return Ok(()) };
        queue.serve(|chain| self.serve(chain))
    }

    fn reset(&mut self) {
        self.server.reset();
    }

    fn save(&self) -> Result<Vec<u8>, &'static str> {
        if self.server.nodes.is_fresh() && self.server.handles.is_empty() {
            Ok(Vec::new())
        } else {
            Err(
                "the guest has files of the host open, which no other machine can have; leave out the volumes",
            )
        }
    }
}
