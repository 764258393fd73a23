//! A file: written in one go, flushed, read in order and at random.

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::sys::memory::Array;
use freestanding::sys::time::monotonic;
use freestanding::{Errno, OwnedFd, Text, sys};

use super::{fact, line, sample};

const BLOCK: usize = 64 << 10;
const SMALL: usize = 4 << 10;

/// In this folder, with a file of so many mebibytes, which is removed whatever happens.
pub fn run(repeats: u64, folder: &CStr, mib: u64) -> sys::Result<()> {
    let mut path = Text::<4096>::new();
    path.text(folder.to_bytes()).text("/lab-bench.").number(sys::process::pid().0 as u64);
    let path = path.c_str().ok_or(Errno::NAMETOOLONG)?;
    let file = file::open(path, flags::READ_WRITE | flags::CREATE | flags::TRUNCATE, 0o600)?;
    let result = measure(&file, path, repeats, mib << 20);
    let _ = file::unlink(path, false);
    result
}

fn measure(file: &OwnedFd, path: &CStr, repeats: u64, size: u64) -> sys::Result<()> {
    let mut block = Array::<u8>::new(BLOCK)?;
    for (index, byte) in block.iter_mut().enumerate() {
        *byte = index as u8; // not zeros: some file systems do not store them
    }
    for _ in 0..repeats {
        let start = monotonic();
        file.seek(0)?;
        for _ in 0..size / BLOCK as u64 {
            file.write_all(&block)?;
        }
        let written = monotonic();
        file.sync()?;
        rate("write-rate", size, written - start)?;
        rate("write-sync-rate", size, monotonic() - start)?;
    }
    sample("fsync", repeats, 8, |rounds| {
        let start = monotonic();
        for round in 0..rounds {
            file.seek(round * BLOCK as u64)?;
            file.write_all(&block[..SMALL])?;
            file.sync()?;
        }
        Ok(monotonic() - start)
    })?;
    for _ in 0..repeats {
        let start = monotonic();
        file.seek(0)?;
        while file.read(&mut block)? > 0 {}
        rate("cached-read-rate", size, monotonic() - start)?;
    }
    // Past the page cache of this kernel, where the file system can do that; tmpfs has nothing behind its pages.
    let direct = file::open(path, flags::READ | flags::DIRECT, 0);
    fact("O_DIRECT", if direct.is_ok() { b"yes" } else { b"no: read from the page cache" })?;
    let direct = match direct {
        Ok(direct) => direct,
        Err(_) => file::open(path, flags::READ, 0)?,
    };
    let mut place = 0x2545_f491_4f6c_dd1d_u64;
    sample("random-read", repeats, 1 << 10, |rounds| {
        let start = monotonic();
        for _ in 0..rounds {
            place ^= place << 13;
            place ^= place >> 7;
            place ^= place << 17;
            direct.seek(place % (size / SMALL as u64) * SMALL as u64)?;
            direct.read(&mut block[..SMALL])?;
        }
        Ok(monotonic() - start)
    })
}

/// Prints MiB/s of the whole file.
fn rate(name: &str, size: u64, nanos: u64) -> sys::Result<()> {
    line(name, (u128::from(size) * 1_000_000_000_000 / u128::from(nanos.max(1))) >> 20)
}
