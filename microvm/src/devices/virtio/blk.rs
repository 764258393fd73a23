//! virtio-blk: a file as the guest's disk (virtio 1.2, section 5.2).
//!
//! The image of a root file system is attached read-only and shared by every VM of that image; the host's page cache
//! holds it once. Bytes go between the file and guest memory in one system call, without a buffer in between.
//!
//! A flush is `fdatasync(2)`: when it is answered, the data would survive a power cut, as the driver was promised.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::{Chain, Event, Fault, VirtioDevice, Virtqueue, sys};
use crate::Error;

/// The unit of a request's address and length, whatever the disk's block size (section 5.2.4).
const SECTOR: u64 = 512;

/// What a discard should be aligned to: the block size of the host's file systems, below which no hole can be punched.
const BLOCK: u32 = 4096;

/// Descriptors in the ring. The driver allocates a request for each, which an instruction-emulated guest feels.
const QUEUE: u16 = 64;

/// Data buffers in a request: the ring's size without the request's header and status.
const SEGMENTS: u32 = QUEUE as u32 - 2;

/// The longest data buffer. With [`SEGMENTS`] it bounds how long one request keeps the event loop.
const SEGMENT_BYTES: u32 = 1 << 20;

/// The most sectors that one discard or write-zeroes may name: 1 GiB; a longer one comes as several.
const MOST_CLEARED: u32 = 1 << 21;

/// Ranges in one discard or write-zeroes request.
const RANGES: u32 = 16;

/// A disk.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    config: [u8; CONFIG_BYTES],
}

/// What became of a request, as its status byte says.
enum Outcome {
    /// Done; so many bytes of the driver's buffers were filled.
    Done(u64),
    /// The request makes no sense, or the host failed.
    Failed,
    /// A kind of request that this disk does not know.
    Unknown,
}

impl Block {
    /// Attaches a file or block device. `id` is what the guest sees in `/sys/block/vda/serial`, cut at 20 bytes.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be opened or is neither; [`Error::Device`] where it is empty.
    pub fn open(path: &Path, read_only: bool, id: &str) -> Result<Self, Error> {
        let open = || {
            let mut file = OpenOptions::new().read(true).write(!read_only).open(path)?;
            let kind = file.metadata()?;
            // A block device's metadata holds no size, its end does (block devices report st_size 0, stat(2)).
            match kind.file_type() {
                t if t.is_file() => Ok((file, kind.size())),
                t if t.is_block_device() => file.seek(SeekFrom::End(0)).map(|size| (file, size)),
                _ => Err(io::Error::other("neither a file nor a block device")),
            }
        };
        let (file, bytes) = open().map_err(Error::file("open the disk image", path))?;
        if bytes == 0 {
            let reason = format!("{} is empty; build the image again", path.display());
            return Err(Error::Device { device: "disk", reason });
        }
        Ok(Self::new(file, bytes, read_only, id))
    }

    fn new(file: File, bytes: u64, read_only: bool, id: &str) -> Self {
        // A last sector that the file only half fills reads as zeroes beyond its end.
        let sectors = bytes.div_ceil(SECTOR);
        let mut id_bytes = [0; VIRTIO_BLK_ID_BYTES as usize];
        for (to, from) in id_bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Self { file, sectors, read_only, id: id_bytes, config: config(sectors) }
    }

    /// Serves one request: a header, data either way, and a last byte for the status (section 5.2.6).
    // ANCHOR: serve
    fn serve(&self, chain: &mut Chain) -> Result<u32, Fault> {
        let Some(status) = chain.take_last_writable() else {
            return Err(Fault::Driver("a disk request has no room for its status"));
        };
        let Some(header) = chain.read_array::<16>()? else {
            return Err(Fault::Driver("a disk request has no header"));
        };
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64_at(&header, 8);
        let (status_value, written) = match self.execute(kind, sector, chain)? {
            Outcome::Done(written) => (VIRTIO_BLK_S_OK, written),
            Outcome::Failed => (VIRTIO_BLK_S_IOERR, 0),
            Outcome::Unknown => (VIRTIO_BLK_S_UNSUPP, 0),
        };
        chain.write_last(&status, status_value as u8)?;
        Ok(written as u32 + 1)
    }
    // ANCHOR_END: serve

    fn execute(&self, kind: u32, sector: u64, chain: &mut Chain) -> Result<Outcome, Fault> {
        Ok(match kind {
            VIRTIO_BLK_T_IN => self.read(sector, chain)?,
            VIRTIO_BLK_T_OUT => self.write(sector, chain)?,
            VIRTIO_BLK_T_FLUSH => self.flush(),
            VIRTIO_BLK_T_GET_ID => Outcome::Done(chain.write(&self.id)? as u64),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if !self.read_only => self.clear(kind, chain)?,
            _ => Outcome::Unknown,
        })
    }

    // ANCHOR: read
    fn read(&self, sector: u64, chain: &Chain) -> Result<Outcome, Fault> {
        let bytes = chain.writable();
        let Some(offset) = self.range(sector, bytes) else { return Ok(Outcome::Failed) };
        let slices = chain.writable_slices()?;
        let Ok(done) = sys::read_at(&self.file, &slices, offset) else { return Ok(Outcome::Failed) };
        if done < bytes {
            sys::zero_from(&slices, done);
        }
        Ok(Outcome::Done(bytes))
    }
    // ANCHOR_END: read

    fn write(&self, sector: u64, chain: &Chain) -> Result<Outcome, Fault> {
        let bytes = chain.readable();
        if self.read_only {
            return Ok(Outcome::Failed);
        }
        let Some(offset) = self.range(sector, bytes) else { return Ok(Outcome::Failed) };
        match sys::write_at(&self.file, &chain.readable_slices()?, offset) {
            Ok(done) if done == bytes => Ok(Outcome::Done(0)),
            _ => Ok(Outcome::Failed),
        }
    }

    fn flush(&self) -> Outcome {
        if self.file.sync_data().is_ok() { Outcome::Done(0) } else { Outcome::Failed }
    }

    /// Discard and write-zeroes: ranges that shall be forgotten, or read as zeroes (section 5.2.6.2).
    fn clear(&self, kind: u32, chain: &mut Chain) -> Result<Outcome, Fault> {
        if chain.readable() == 0
            || chain.readable() > u64::from(RANGES) * 16
            || !chain.readable().is_multiple_of(16)
        {
            return Ok(Outcome::Failed);
        }
        while let Some(range) = chain.read_array::<16>()? {
            let sectors = u32::from_le_bytes([range[8], range[9], range[10], range[11]]);
            let flags = u32::from_le_bytes([range[12], range[13], range[14], range[15]]);
            let bytes = u64::from(sectors) * SECTOR;
            let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
            if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || kind == VIRTIO_BLK_T_DISCARD && unmap {
                return Ok(Outcome::Unknown);
            }
            let Some(offset) = self.place(u64_at(&range, 0), bytes) else { return Ok(Outcome::Failed) };
            if sectors > MOST_CLEARED {
                return Ok(Outcome::Failed);
            }
            if sectors == 0 {
                continue;
            }
            // A hole reads as zeroes as well, and gives the host its space back (fallocate(2)).
            let how = if kind == VIRTIO_BLK_T_DISCARD || unmap {
                FallocateFlags::FALLOC_FL_PUNCH_HOLE
            } else {
                FallocateFlags::FALLOC_FL_ZERO_RANGE
            };
            let how = how | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if fallocate(&self.file, how, offset as i64, bytes as i64).is_err() {
                return Ok(Outcome::Failed);
            }
        }
        Ok(Outcome::Done(0))
    }

    /// The offset in the file of a transfer, if it is whole sectors, not too long, and lies on the disk.
    fn range(&self, sector: u64, bytes: u64) -> Option<u64> {
        let most = u64::from(SEGMENTS) * u64::from(SEGMENT_BYTES);
        (bytes > 0 && bytes <= most && bytes.is_multiple_of(SECTOR)).then(|| self.place(sector, bytes))?
    }

    /// The offset in the file of so many bytes from a sector on, if they lie on the disk.
    fn place(&self, sector: u64, bytes: u64) -> Option<u64> {
        let end = sector.checked_add(bytes / SECTOR)?;
        (end <= self.sectors).then_some(sector * SECTOR)
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let both = 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_FLUSH;
        if self.read_only {
            both | 1 << VIRTIO_BLK_F_RO
        } else {
            both | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::copy_config(&self.config, offset, data);
    }

    fn process(&mut self, _event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        queues[0].serve(|chain| self.serve(chain))
    }
}

/// Size of `struct virtio_blk_config` up to and with `write_zeroes_may_unmap` (section 5.2.4).
const CONFIG_BYTES: usize = 57;

fn config(sectors: u64) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |offset: usize, value: &[u8]| config[offset..offset + value.len()].copy_from_slice(value);
    put(0, &sectors.to_le_bytes());
    put(8, &SEGMENT_BYTES.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    put(36, &MOST_CLEARED.to_le_bytes()); // max_discard_sectors
    put(40, &RANGES.to_le_bytes()); // max_discard_seg
    put(44, &(BLOCK / SECTOR as u32).to_le_bytes()); // discard_sector_alignment
    put(48, &MOST_CLEARED.to_le_bytes()); // max_write_zeroes_sectors
    put(52, &RANGES.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[1]); // write_zeroes_may_unmap
    config
}

fn u64_at(bytes: &[u8; 16], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Buffer, Driver};
    use super::*;
    use std::os::unix::fs::FileExt;

    const STATUS: Buffer<'_> = Buffer::Write(1);
    const OK: u8 = VIRTIO_BLK_S_OK as u8;
    const FAILED: u8 = VIRTIO_BLK_S_IOERR as u8;
    const UNKNOWN: u8 = VIRTIO_BLK_S_UNSUPP as u8;

    /// A disk of so many bytes, each sector filled with its number plus one, and the file behind it.
    fn disk(bytes: usize, read_only: bool) -> (Driver, File) {
        let path = std::env::temp_dir().join(format!("lab-blk-{}-{:p}", std::process::id(), &bytes));
        let file = File::create_new(&path).unwrap();
        let content: Vec<u8> = (0..bytes).map(|at| (at / 512 + 1) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        let disk = Block::open(&path, read_only, "root").unwrap();
        std::fs::remove_file(&path).unwrap();
        let file = disk.file.try_clone().unwrap();
        (Driver::new(Box::new(disk)), file)
    }

    fn header(kind: u32, sector: u64) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
    }

    /// One request; its status, and the data it filled.
    fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[Buffer<'_>]) -> (u8, Vec<u8>) {
        let header = header(kind, sector);
        let mut buffers = vec![Buffer::Read(&header)];
        buffers.extend_from_slice(data);
        buffers.push(STATUS);
        let mut filled = driver.request(0, &buffers).expect("answered");
        (filled.pop().unwrap(), filled)
    }

    #[test]
    fn sectors_are_read_into_as_many_buffers_as_the_driver_likes() {
        let (mut driver, _file) = disk(8 * 512, true);
        let (status, data) =
            request(&mut driver, VIRTIO_BLK_T_IN, 2, &[Buffer::Write(100), Buffer::Write(924)]);
        assert_eq!(status, OK);
        assert_eq!(data, [[3; 512], [4; 512]].concat());
    }

    #[test]
    fn what_is_written_is_in_the_file_and_a_flush_is_answered() {
        let (mut driver, file) = disk(8 * 512, false);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 7, &[Buffer::Read(&[9; 512])]).0, OK);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]).0, OK);
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 7 * 512).unwrap();
        assert_eq!(sector, [9; 512]);
    }

    #[test]
    fn a_read_only_disk_says_so_and_refuses_writes() {
        let (mut driver, file) = disk(8 * 512, true);
        assert_ne!(driver.features() & 1 << VIRTIO_BLK_F_RO, 0);
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, 0, &[Buffer::Read(&[9; 512])]).0, FAILED);
        let range = [0; 16];
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_DISCARD, 0, &[Buffer::Read(&range)]).0, UNKNOWN);
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 0).unwrap();
        assert_eq!(sector, [1; 512]);
    }

    #[test]
    fn a_transfer_that_leaves_the_disk_or_splits_a_sector_fails() {
        let (mut driver, file) = disk(8 * 512, false);
        for (sector, bytes) in [(8, 512), (7, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511), (0, 0)]
        {
            let data = vec![7; bytes];
            for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
                let buffer =
                    if kind == VIRTIO_BLK_T_IN { Buffer::Write(bytes as u32) } else { Buffer::Read(&data) };
                assert_eq!(request(&mut driver, kind, sector, &[buffer]).0, FAILED, "{sector} {bytes}");
            }
        }
        assert_eq!(file.metadata().unwrap().len(), 8 * 512);
    }

    #[test]
    fn the_end_of_a_file_that_is_no_whole_sector_reads_as_zeroes() {
        let (mut driver, _file) = disk(700, true);
        let (status, data) = request(&mut driver, VIRTIO_BLK_T_IN, 1, &[Buffer::Write(512)]);
        assert_eq!(status, OK);
        assert_eq!(data, [vec![2; 700 - 512], vec![0; 1024 - 700]].concat());
    }

    #[test]
    fn discarded_and_zeroed_ranges_read_as_zeroes() {
        let (mut driver, _file) = disk(64 * 512, false);
        for (kind, sector, flags) in [
            (VIRTIO_BLK_T_DISCARD, 8, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 16, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 24, 1),
        ] {
            let range = |sector: u64, count: u32, flags: u32| {
                [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
            };
            let status = request(&mut driver, kind, 0, &[Buffer::Read(&range(sector, 8, flags))]).0;
            assert_eq!(status, OK, "{kind} (a file system without fallocate(2)?)");
            let data = request(&mut driver, VIRTIO_BLK_T_IN, sector, &[Buffer::Write(4096)]).1;
            assert_eq!(data, [0; 4096]);
            assert_eq!(request(&mut driver, kind, 0, &[Buffer::Read(&range(60, 5, 0))]).0, FAILED);
            assert_eq!(request(&mut driver, kind, 0, &[Buffer::Read(&range(0, 1, 2))]).0, UNKNOWN);
            assert_eq!(request(&mut driver, kind, 0, &[Buffer::Read(&[0; 15])]).0, FAILED);
        }
    }

    #[test]
    fn the_disk_tells_its_name_and_size_and_knows_no_other_requests() {
        let (mut driver, _file) = disk(8 * 512, true);
        let (status, id) = request(&mut driver, VIRTIO_BLK_T_GET_ID, 0, &[Buffer::Write(20)]);
        assert_eq!((status, &id[..5]), (OK, &b"root\0"[..]));
        assert_eq!(driver.read_config::<8>(0), 8u64.to_le_bytes());
        assert_eq!(request(&mut driver, 99, 0, &[]).0, UNKNOWN);
    }

    #[test]
    fn a_request_without_room_for_a_status_stops_the_disk_and_nothing_else() {
        let (mut driver, _file) = disk(8 * 512, true);
        assert_eq!(driver.request(0, &[Buffer::Read(&header(VIRTIO_BLK_T_IN, 0))]), None);
        assert!(driver.needs_reset());
        driver.restart();
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]).0, OK);
    }

    #[test]
    fn what_is_no_disk_is_refused_by_name() {
        let error = Block::open(Path::new("/dev/null"), true, "").unwrap_err().to_string();
        assert!(
            error.contains("/dev/null") && error.contains("neither a file nor a block device"),
            "{error}"
        );
        assert!(Block::open(Path::new("/does/not/exist"), true, "").is_err());
    }
}
