//! Writes a file, makes the kernel put it on the disk, reads it again.

use freestanding::sys::file::{self, flags};
use freestanding::sys::memory::Array;
use freestanding::sys::time::monotonic;
use freestanding::text::parse_number;
use freestanding::{Args, OwnedFd, Text, sys};

use crate::output::{complain, failed, say};

const MIB: u64 = 8;
const BLOCK: usize = 64 * 1024;

/// Runs and reports; the file is removed whatever happens.
pub fn run(args: Args) -> u8 {
    let Some(mib) =
        args.get(1).map_or(Some(MIB), |text| parse_number(text.to_bytes())).filter(|&mib| mib > 0)
    else {
        return complain("files", b"MIB", "must be a number, at least 1", 2);
    };
    let mut path = Text::<4096>::new();
    path.text(args.get(2).map_or(&b"/tmp"[..], |folder| folder.to_bytes())).text("/lab-files.");
    path.number(process_number());
    let Some(path) = path.c_str() else { return complain("files", b"FOLDER", "is too long", 2) };
    let how = flags::READ_WRITE | flags::CREATE | flags::TRUNCATE;
    let file = match file::open(path, how, 0o600) {
        Ok(file) => file,
        Err(errno) => return failed("files", path.to_bytes(), errno),
    };
    let result = measure(&file, mib);
    let _ = file::unlink(path, false);
    match result {
        Ok(()) => 0,
        Err(errno) => failed("files", path.to_bytes(), errno),
    }
}

fn process_number() -> u64 {
    sys::process::pid().0 as u64
}

fn measure(file: &OwnedFd, mib: u64) -> sys::Result<()> {
    let mut block = Array::<u8>::new(BLOCK)?;
    for (index, byte) in block.iter_mut().enumerate() {
        *byte = index as u8; // not zeros: some file systems do not store them
    }
    let blocks = mib * ((1 << 20) / BLOCK as u64);
    let start = monotonic();
    for _ in 0..blocks {
        file.write_all(&block)?;
    }
    let written = monotonic();
    file.sync()?;
    let synced = monotonic();
    file.seek(0)?;
    while file.read(&mut block)? > 0 {}
    let read = monotonic();
    report("write(2)", mib, written - start);
    report("write(2) and fsync(2)", mib, synced - start);
    report("read(2) from the cache", mib, read - synced);
    Ok(())
}

fn report(what: &str, mib: u64, nanos: u64) {
    let mut line = Text::<128>::new();
    let rate = u128::from(mib) * 1_000_000_000 / u128::from(nanos.max(1));
    line.text("files: ").text(what).text(": ").number(mib).text(" MiB in ");
    crate::output::millis(&mut line, nanos);
    line.text(", ").number(rate as u64).text(" MiB/s\n");
    say(&[line.bytes()]);
}
