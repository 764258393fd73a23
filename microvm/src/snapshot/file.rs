//! The file of a snapshot: a header, the machine's state, and its memory.
//!
//! ```text
//!   0       header: magic, version, length and checksum of the state, place and length of the memory
//!   4096    state: the fields of `record`
//!   …       memory, from a page boundary: guest-physical, without the hole below 4 GiB. A page of zeroes is a hole in
//!           the file, so that memory which the guest never touched takes no room on disk either.
//! ```
//!
//! The state is read at once and checked whole. The memory is not read: it is mapped, and pages come as the guest touches
//! them. A checksum over it would cost what the mapping saves; that the file is as long as it says is checked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arch::layout;
use crate::{Error, memory, sys};

/// What every snapshot begins with.
const MAGIC: [u8; 8] = *b"LAB-VM\x00\x1a";

/// Raised with every change of what is in the file. Others are refused: a snapshot is made again in seconds.
const VERSION: u32 = 3;

/// Where the state begins: the header has a page of its own.
const STATE: u64 = layout::PAGE;

/// The longest state that is believed: eight vCPUs and all devices need a hundredth.
const MOST_STATE: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    /// CRC-32 of the state, then of this header with zero here.
    checksum: u32,
    state_len: u64,
    memory: u64,
    memory_len: u64,
}

/// An opened snapshot whose state was found whole.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    path: PathBuf,
    header: Header,
    pub(super) state: Vec<u8>,
}

/// Writes a snapshot beside `path` and renames it there, so that nobody ever finds half of one.
pub(super) fn write(path: &Path, state: &[u8], guest: &GuestMemoryMmap) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
    let unfinished = Unfinished(path.with_extension(format!("{}.tmp", std::process::id())));
    let write = || {
        // A guest's memory holds secrets: nobody else may read it.
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished.0)?;
        let memory = (STATE + state.len() as u64).next_multiple_of(layout::PAGE);
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            checksum: 0,
            state_len: state.len() as u64,
            memory,
            memory_len: guest.iter().map(GuestMemoryRegion::len).sum(),
        };
        header.checksum = checksum(&header, state);
        file.write_all_at(header.as_bytes(), 0)?;
        file.write_all_at(state, STATE)?;
        file.set_len(header.memory + header.memory_len)?;
        let mut at = memory;
        for region in guest.iter() {
            write_region(&file, at, region)?;
            at += region.len();
        }
        // On disk before it has its name: after a power cut there is a whole one or none.
        file.sync_data()?;
        fs::rename(&unfinished.0, path)
    };
    write().map_err(Error::file("write the snapshot", path))
}

/// Bytes looked at at once.
const CHUNK: usize = 1 << 20;

const ZEROES: [u8; layout::PAGE as usize] = [0; layout::PAGE as usize];

/// Writes the pages of a region that are not all zero, neighbours in one go.
fn write_region(file: &File, offset: u64, region: &impl GuestMemoryRegion) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    for start in (0..region.len()).step_by(CHUNK) {
        let chunk = &mut chunk[..(region.len() - start).min(CHUNK as u64) as usize];
        let slice = region.get_slice(MemoryRegionAddress(start), chunk.len()).map_err(io::Error::other)?;
        slice.copy_to(chunk);
        let mut at = 0;
        let pages = chunk.chunks(ZEROES.len()).collect::<Vec<_>>();
        for run in pages.chunk_by(|one, other| is_zero(one) == is_zero(other)) {
            let len = run.iter().map(|page| page.len()).sum::<usize>();
            if !is_zero(run[0]) {
                file.write_all_at(&chunk[at..at + len], offset + start + at as u64)?;
            }
            at += len;
        }
    }
    Ok(())
}

fn is_zero(page: &[u8]) -> bool {
    page == &ZEROES[..page.len()]
}

/// A checksum over all of a snapshot, its memory too: what a copy is compared by. Pages of zeroes do not count, so that it is
/// the same for a copy without holes.
///
/// # Errors
/// The file cannot be read.
pub fn digest(path: &Path) -> Result<u32, Error> {
    let read = || -> io::Result<u32> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let (mut crc, mut chunk, mut at) = (crc32fast::Hasher::new(), vec![0; CHUNK], 0);
        while at < len {
            // Holes are passed over at once, where the file system tells of them (lseek(2), SEEK_DATA).
            at = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => data - data % layout::PAGE,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => at,
            };
            let chunk = &mut chunk[..(len - at).min(CHUNK as u64) as usize];
            file.read_exact_at(chunk, at)?;
            for (page, offset) in chunk.chunks(ZEROES.len()).zip((at..).step_by(ZEROES.len())) {
                if !is_zero(page) {
                    crc.update(&offset.to_le_bytes());
                    crc.update(page);
                }
            }
            at += chunk.len() as u64;
        }
        crc.update(&len.to_le_bytes());
        Ok(crc.finalize())
    };
    read().map_err(Error::file("read the snapshot", path))
}

/// A file that is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn checksum(header: &Header, state: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(state);
    crc.update(Header { checksum: 0, ..*header }.as_bytes());
    crc.finalize()
}

impl Opened {
    /// Opens a snapshot and reads its state.
    ///
    /// # Errors
    /// [`Error::Snapshot`] where it is none, another version's, damaged or cut off.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Snapshot { path: path.into(), reason };
        let mut file = File::open(path).map_err(Error::file("open the snapshot", path))?;
        let mut bytes = [0; size_of::<Header>()];
        if file.read_exact(&mut bytes).is_err() {
            return Err(refuse("it is too short to be one".into()));
        }
        let header =
            Header::read_from_bytes(&bytes).map_err(|_| refuse("it is too short to be one".into()))?;
        if header.magic != MAGIC {
            return Err(refuse("it is none".into()));
        }
        if header.version != VERSION {
            return Err(refuse(format!("its format is {}, not {VERSION}", header.version)));
        }
        let len = file.metadata().map_err(Error::file("look at", path))?.len();
        let expected = header.memory.checked_add(header.memory_len);
        let in_order = header.state_len <= MOST_STATE
            && STATE + header.state_len <= header.memory
            && header.memory.is_multiple_of(layout::PAGE);
        if !in_order || expected.is_none_or(|expected| len < expected) {
            return Err(refuse(format!("it is cut off at {len} bytes, or its header is damaged")));
        }
        let mut state = vec![0; header.state_len as usize];
        file.read_exact_at(&mut state, STATE).map_err(Error::file("read the snapshot", path))?;
        if checksum(&header, &state) != header.checksum {
            return Err(refuse("its checksum is wrong: it is damaged".into()));
        }
        Ok(Self { file, path: path.into(), header, state })
    }

    /// Why it is refused, with its name.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Snapshot { path: self.path.clone(), reason: reason.into() }
    }

    /// Guest memory of `mib` MiB whose pages are the snapshot's, privately: what the guest reads comes from the page cache,
    /// once for all machines of this snapshot; what it writes becomes its own.
    pub(super) fn map_memory(&self, mib: u32) -> Result<GuestMemoryMmap, Error> {
        if self.header.memory_len != u64::from(mib) << 20 {
            return Err(self.refuse("its memory is not as long as its machine's"));
        }
        let guest = memory::allocate(mib)?;
        let mut at = self.header.memory;
        for region in guest.iter() {
            let len = region.len() as usize;
            let slice = region.get_slice(MemoryRegionAddress(0), len).map_err(|error| {
                Error::GuestMemory { what: "the snapshot's memory", reason: error.to_string() }
            })?;
            sys::map_file_over(&slice, 0, len, self.file.as_fd(), at)
                .map_err(Error::file("map the snapshot", &self.path))?;
            at += region.len();
        }
        Ok(guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use vm_memory::{Bytes, GuestAddress};

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.snapshot");
        let guest = memory::allocate(4).unwrap();
        guest.write_slice(b"near", GuestAddress(0x1ffc)).unwrap();
        guest.write_slice(b"far", GuestAddress(0x30_0000)).unwrap();
        write(&path, b"state", &guest).unwrap();
        (folder, path)
    }

    #[test]
    fn state_and_memory_come_back_and_empty_pages_take_no_room() {
        let (_folder, path) = written();
        let opened = Opened::open(&path).unwrap();
        assert_eq!(opened.state, b"state");
        let guest = opened.map_memory(4).unwrap();
        let mut bytes = [0; 4];
        guest.read_slice(&mut bytes, GuestAddress(0x1ffc)).unwrap();
        assert_eq!(&bytes, b"near");
        guest.read_slice(&mut bytes[..3], GuestAddress(0x30_0000)).unwrap();
        assert_eq!(&bytes[..3], b"far");
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20, "a sparse file");
        assert!(opened.map_memory(8).is_err());
    }

    #[test]
    fn a_copy_has_the_same_digest_and_a_changed_one_has_not() {
        let (folder, path) = written();
        let whole = fs::read(&path).unwrap();
        let copy = folder.path().join("copy");
        fs::write(&copy, &whole).unwrap();
        let before = digest(&path).unwrap();
        assert_eq!(digest(&copy).unwrap(), before, "without its holes");
        for at in [0, 4096, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&copy, &changed).unwrap();
            assert_ne!(digest(&copy).unwrap(), before, "at {at}");
        }
        fs::write(&copy, &whole[..whole.len() - 4096]).unwrap();
        assert_ne!(digest(&copy).unwrap(), before, "cut off");
    }

    #[test]
    fn what_one_machine_writes_the_next_does_not_see() {
        let (_folder, path) = written();
        let opened = Opened::open(&path).unwrap();
        let (one, other) = (opened.map_memory(4).unwrap(), opened.map_memory(4).unwrap());
        one.write_slice(b"mine", GuestAddress(0x1ffc)).unwrap();
        let mut bytes = [0; 4];
        other.read_slice(&mut bytes, GuestAddress(0x1ffc)).unwrap();
        assert_eq!(&bytes, b"near");
    }

    type Damage = fn(&mut Vec<u8>);

    #[test]
    fn a_snapshot_that_is_none_or_not_whole_is_refused_with_the_reason() {
        let (folder, path) = written();
        let whole = fs::read(&path).unwrap();
        let refused = |change: Damage| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            let path = folder.path().join("bad");
            fs::write(&path, bytes).unwrap();
            Opened::open(&path).unwrap_err().to_string()
        };
        let damages: [(Damage, &str); 8] = [
            (|bytes| bytes.truncate(20), "too short"),
            (|bytes| bytes[0] = b'X', "it is none"),
            (|bytes| bytes[8] = 9, "its format is 9"),
            (|bytes| bytes.truncate(bytes.len() - 1), "cut off"),
            (|bytes| bytes[4096] ^= 1, "checksum"),
            (|bytes| bytes[16] ^= 1, "checksum"),
            (|bytes| bytes[16..24].fill(0xff), "cut off"),
            (|bytes| bytes[24..40].fill(0xff), "cut off"),
        ];
        for (change, reason) in damages {
            let error = refused(change);
            assert!(error.contains(reason) && error.contains("bad"), "{reason}: {error}");
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"", &memory::allocate(4).unwrap()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
