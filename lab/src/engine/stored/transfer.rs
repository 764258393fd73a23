//! `lab cp`: files between the host and a container, without a client in between.
//!
//! The archive that docker's client and daemon exchange goes through a pipe here, and both ends follow docker's rules for
//! names (docker container cp, "Description").

use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, statat};

use super::files::unpack;
use super::root::{Root, clean, missing};
use super::{Engine, Record};
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::image::pack::{Options, Packer};
use crate::image::tar::Archive;

impl Engine {
    /// Copies a path of a container to the host.
    ///
    /// # Errors
    /// Where one of them is missing or is not what the other needs.
    pub fn copy_to_host(&self, record: &Record, path: &str, host: &Path) -> Result<(), Error> {
        transfer(&self.root(record)?, path, &Root::host()?, &absolute(host)?)
    }

    /// Copies a path of the host into a container.
    ///
    /// # Errors
    /// Where one of them is missing or is not what the other needs.
    pub fn copy_from_host(&self, host: &Path, record: &Record, path: &str) -> Result<(), Error> {
        transfer(&Root::host()?, &absolute(host)?, &self.root(record)?, path)
    }
}

fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path).context("find", path.display())?;
    let mut text = absolute
        .into_os_string()
        .into_string()
        .map_err(|path| Error::bad(format!("{}: the path is no text", path.display())))?;
    // Which the above takes away, and which says what is meant: the folder, or what is in it.
    let given = path.as_os_str().as_bytes();
    if given.ends_with(b"/.") || given == b"." {
        text.push_str("/.");
    } else if given.ends_with(b"/") && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

pub(super) fn transfer(from: &Root, source: &str, to: &Root, target: &str) -> Result<(), Error> {
    let found = from.find(source)?;
    let stat = statat(&found.parent, found.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|_| missing(source))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let (source_clean, target_clean) = (clean(source), clean(target));
    let name = |path: &Path| path.file_name().map_or_else(Vec::new, |name| name.as_bytes().to_vec());

    // Into a folder that is there, or under a new name into the one above.
    let (directory, top) = if let Ok(directory) = to.open_directory(&target_clean, target) {
        let only_content = is_directory && source.ends_with("/.");
        (directory, if only_content { Vec::new() } else { name(&source_clean) })
    } else {
        let parent = target_clean.parent().unwrap_or(Path::new(""));
        let directory = to.open_directory(parent, target)?;
        let there =
            statat(&directory, target_clean.file_name().unwrap_or_default(), AtFlags::empty()).is_ok();
        if there && is_directory {
            return Err(Error::bad(format!("cannot copy the directory {source} to the file {target}")));
        }
        if target.ends_with('/') && !is_directory {
            return Err(Error::bad(format!("{target}: no such directory")));
        }
        (directory, name(&target_clean))
    };

    let (reader, writer) = io::pipe().context("make", "a pipe")?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || -> io::Result<()> {
            let mut packer = Packer::new(BufWriter::with_capacity(64 * 1024, writer), Options::default());
            if is_directory {
                packer.add_directory_at(found.parent.as_fd(), OsStr::from_bytes(&found.name), &top)?;
            } else {
                packer.add(found.parent.as_fd(), OsStr::from_bytes(&found.name), &top)?;
            }
            packer.finish().map(drop)
        });
        let unpacked = (|| -> io::Result<()> {
            let mut archive = Archive::new(BufReader::with_capacity(64 * 1024, reader));
            while let Some(member) = archive.next().map_err(io::Error::other)? {
                unpack(&directory, &member, &mut archive)?;
            }
            Ok(())
        })();
        let packed = packing.join().unwrap_or_else(|_| Err(io::Error::other("the packing thread died")));
        // A reader that gave up is why a writer finds its pipe broken.
        match packed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("read", source),
            _ => unpacked.context("copy to", target),
        }
    })
}
