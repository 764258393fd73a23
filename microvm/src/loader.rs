//! Getting the kernel from its file into guest memory, whatever kind of file it is.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vm_memory::GuestMemoryMmap;

use crate::Error;
use crate::arch::bzimage::{self, BzImageError};
use crate::arch::elf::{self, ElfError, Loaded};
use crate::arch::layout;

/// Loads the kernel. A bzImage is decompressed into the folder `cache` first, and found there the next time; without such
/// a folder it is decompressed each time.
///
/// # Errors
/// The file cannot be read, is no kernel, or needs more memory than `mib` MiB.
pub fn load(guest: &GuestMemoryMmap, path: &Path, cache: Option<&Path>, mib: u32) -> Result<Loaded, Error> {
    let mut file = open_vmlinux(path, cache)?;
    let ram_end = (u64::from(mib) << 20).min(layout::HOLE);
    elf::load(guest, &mut file, ram_end).map_err(|error| match error {
        ElfError::NotElf => not_a_kernel(path, "it is neither ELF nor a bzImage"),
        ElfError::Bad(reason) => not_a_kernel(path, reason),
        ElfError::TooBig { end } => {
            Error::MemoryTooSmall { mib: mib.into(), needed: end.div_ceil(1 << 20).saturating_add(ROOM_MIB) }
        }
    })
}

/// What a kernel needs beside itself to come up at all: its page structures, its first allocations.
pub(crate) const ROOM_MIB: u64 = 8;

/// The `vmlinux` of a kernel file: itself, or what a bzImage contains.
///
/// # Errors
/// The file cannot be read, or is a bzImage whose kernel cannot be had.
pub fn open_vmlinux(path: &Path, cache: Option<&Path>) -> Result<File, Error> {
    let file = File::open(path).map_err(Error::file("open the kernel", path))?;
    let metadata = file.metadata().map_err(Error::file("look at", path))?;
    if !metadata.is_file() {
        return Err(not_a_kernel(path, "it is no regular file"));
    }
    if !bzimage::is_bzimage(&file) {
        return Ok(file);
    }
    let Some(cache) = cache else {
        let mut vmlinux = anonymous_file()?;
        extract(path, &file, &mut vmlinux)?;
        return Ok(vmlinux);
    };
    // Size and time of change name the content well enough: a kernel that is rebuilt in place changes both.
    let name = format!("vmlinux-{:x}-{:x}-{:x}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let cached = cache.join(name);
    if let Ok(vmlinux) = File::open(&cached) {
        return Ok(vmlinux);
    }
    // Written beside and renamed, so that nobody ever finds half a kernel; two that do it at once do the same.
    fs::create_dir_all(cache).map_err(Error::file("make the folder", cache))?;
    let unfinished = Unfinished(cached.with_extension(format!("{}.tmp", std::process::id())));
    let mut vmlinux = File::create(&unfinished.0).map_err(Error::file("create", &unfinished.0))?;
    extract(path, &file, &mut vmlinux)?;
    fs::rename(&unfinished.0, &cached).map_err(Error::file("create", &cached))?;
    File::open(&cached).map_err(Error::file("open", &cached))
}

/// A file that is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn extract(path: &Path, image: &File, vmlinux: &mut File) -> Result<(), Error> {
    let mut out = BufWriter::new(&mut *vmlinux);
    bzimage::extract(image, &mut out).map_err(|error| match error {
        BzImageError::NotBzImage => not_a_kernel(path, "it is no bzImage"),
        BzImageError::Bad(reason) => not_a_kernel(path, reason),
        BzImageError::Write(source) => Error::file("decompress", path)(source),
    })?;
    out.flush().map_err(Error::file("decompress", path))?;
    drop(out);
    vmlinux.rewind().map_err(Error::file("decompress", path))
}

fn anonymous_file() -> Result<File, Error> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let fd = memfd_create(c"vmlinux", MFdFlags::MFD_CLOEXEC).map_err(Error::system("make a memory file"))?;
    Ok(fd.into())
}

fn not_a_kernel(path: &Path, reason: impl Into<String>) -> Error {
    Error::Kernel { path: path.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::allocate;

    #[test]
    fn a_file_that_is_no_kernel_is_named_with_the_reason() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"#!/bin/sh\n").unwrap();
        let error = load(&allocate(4).unwrap(), file.path(), None, 4).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()) && error.contains("neither ELF"), "{error}");
    }

    #[test]
    fn a_missing_file_and_a_folder_are_errors_that_name_them() {
        let guest = allocate(4).unwrap();
        assert!(matches!(load(&guest, Path::new("/nowhere/vmlinux"), None, 4), Err(Error::File { .. })));
        assert!(matches!(load(&guest, Path::new("/"), None, 4), Err(Error::Kernel { .. })));
    }

    #[test]
    fn a_damaged_bzimage_leaves_nothing_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut image = vec![0; 0x1000];
        image[0x1fe..0x206].copy_from_slice(b"\x55\xaa\0\0HdrS");
        image[0x207] = 2;
        image[0x206] = 15;
        file.write_all(&image).unwrap();
        assert!(open_vmlinux(file.path(), Some(cache.path())).is_err());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
}
