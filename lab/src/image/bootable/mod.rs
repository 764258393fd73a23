//! An image as a disk that a machine without the lab boots: a boot sector, a guest kernel, and the image's files.
//!
//! ```text
//!   sector 0     1 … 16      17 …                      …                 up to a whole MiB
//!   loader.s     tables.rs   the kernel's segments     initramfs: the image's files, and a first process
//! ```
//!
//! Any BIOS reads the first sector of its disk and runs it, QEMU's of its `pc`, `q35` and others, and so do most clouds. Ours
//! loads the rest by BIOS calls and enters the kernel at its PVH entry. The kernel needs no driver for the disk that way, and none of a bus: the lean
//! kernel, which knows neither PCI nor disks of old, boots there as well as a distribution's. The price: all files live in memory, and what
//! the workload writes is gone at the end.
//!
//! Why not a file system and a boot loader on it: a loader such as GRUB is ten times the lean kernel's size, UEFI wants a kernel with a PE
//! header, and both want a driver for the disk in the kernel.

mod kernel;
mod tables;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::config::Image;
use super::embedded;
use super::error::{Error, Result};
use super::progress::Progress;
use super::store::Store;
use super::users::{Accounts, User};
use kernel::Kernel;
use tables::{Load, SECTOR, SECTORS};

/// The room for code in a boot sector: a partition table follows, then the mark (a "master boot record").
const CODE: usize = 440;
/// Disks are a whole number of these.
const MIB: u64 = 1 << 20;
/// Our files beside the image's.
const OWN: &str = ".lab";
/// The first process mounts what a program expects, starts the workload, and switches the machine off when it ends.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=3 reboot=k panic=-1 rdinit=/.lab/boot --";

/// A bootable image that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootable {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of memory that the machine must have, about: the files, twice while they are unpacked, and the kernel.
    pub memory: u64,
}

impl Store {
    /// Writes an image with a kernel (an ELF file with a PVH entry) as a disk that boots by itself. The command, where
    /// there is one, replaces the image's.
    ///
    /// # Errors
    /// Where the image is damaged, has nothing to run, the kernel cannot be booted so, or the disk cannot be written.
    pub fn bootable(
        &self,
        image: &Image,
        kernel: &Path,
        command: &[String],
        output: &mut File,
        progress: &dyn Progress,
    ) -> Result<Bootable> {
        let user =
            Accounts::read(&self.layer_dirs(image, progress)?)?.resolve(image.user().unwrap_or_default())?;
        let start = start_script(image, command)
            .ok_or_else(|| Error::malformed("the image", "it names no command: give one"))?;
        let mut initramfs = tempfile::tempfile_in(self.path("tmp"))
            .map_err(Error::io("making a file in", &self.path("tmp")))?;
        let own = [("boot", embedded::program()), ("sh", embedded::program()), ("start", start.as_bytes())];
        self.initramfs(image, OWN, &own, &initramfs, progress)?;
        let writing = || Error::io("making a bootable disk with the kernel", kernel);
        let mut kernel = Kernel::open(kernel).map_err(writing())?;
        write(&mut kernel, &mut initramfs, &user, output).map_err(writing())
    }
}

/// Lays all parts out, and writes them.
fn write(kernel: &mut Kernel, initramfs: &mut File, user: &User, output: &mut File) -> io::Result<Bootable> {
    let too_large = || io::Error::other("the image is too large for it: more than 2 GiB");
    let number = |value: u64| u32::try_from(value).map_err(|_| too_large());
    let mut sector = 1 + u64::from(SECTORS);
    let mut loads = Vec::new();
    let mut place = |address: u64, size: u64| -> io::Result<u64> {
        let (first, sectors) = (sector, size.div_ceil(SECTOR));
        loads.push(Load { sector: number(first)?, sectors: number(sectors)?, address: number(address)? });
        sector += sectors;
        Ok(first * SECTOR)
    };
    // Lowest first: a part's last sector may reach into the next part's place, which then overwrites it.
    kernel.segments.sort_by_key(|segment| segment.address);
    let mut parts = Vec::new();
    for segment in &kernel.segments {
        parts.push((*segment, place(segment.address, segment.size)?));
    }
    let length = initramfs.seek(SeekFrom::End(0))?;
    if length > 2 << 30 {
        return Err(too_large());
    }
    // Beyond the kernel, what it zeroes and what it needs first.
    let address = (kernel.end + 4 * MIB).next_multiple_of(2 * MIB);
    let initramfs_at = place(address, length)?;

    let command_line = format!("{COMMAND_LINE} {} {}", user.uid, user.gid);
    let table = tables::encode(kernel, (number(address)?, number(length)?), &command_line, &loads);
    output.write_all_at(&boot_sector()?, 0)?;
    output.write_all_at(&table.map_err(io::Error::other)?, SECTOR)?;
    for (segment, at) in parts {
        kernel.file.seek(SeekFrom::Start(segment.offset))?;
        output.seek(SeekFrom::Start(at))?;
        copy(&kernel.file, segment.size, output)?;
    }
    initramfs.rewind()?;
    output.seek(SeekFrom::Start(initramfs_at))?;
    copy(initramfs, length, output)?;
    let size = (sector * SECTOR).next_multiple_of(MIB);
    output.set_len(size)?;
    Ok(Bootable { size, memory: (address + 2 * length + 32 * MIB).next_multiple_of(16 * MIB) })
}

fn copy(from: &File, size: u64, to: &mut File) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let copied = io::copy(&mut from.take(size), &mut to)?;
    to.flush()?;
    if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Code, a partition that says that the disk is not empty, the mark of a boot sector.
fn boot_sector() -> io::Result<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    let code = crate::sys::boot_sector();
    sector[..CODE]
        .get_mut(..code.len())
        .ok_or_else(|| io::Error::other("the boot sector's code is too long"))?
        .copy_from_slice(code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

/// The workload as a script for the lab's shell; none where nothing is to be run.
fn start_script(image: &Image, command: &[String]) -> Option<String> {
    let rest = if command.is_empty() { image.cmd() } else { command };
    let words: Vec<String> = image.entrypoint().iter().chain(rest).map(|word| quoted(word)).collect();
    let mut script = String::new();
    for (name, value) in image.env().iter().filter_map(|pair| pair.split_once('=')) {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && !name.is_empty() {
            let _ = writeln!(script, "{name}={}; export {name}", quoted(value));
        }
    }
    let directory = if image.working_dir().is_empty() { "/" } else { image.working_dir() };
    let _ = writeln!(script, "cd {} || exit 125\nexec {}", quoted(directory), words.join(" "));
    (!words.is_empty()).then_some(script)
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
