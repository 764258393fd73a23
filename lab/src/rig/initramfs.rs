//! What the rig boots into: busybox, a script as PID 1, the modules, and the command as a second script.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cpio::NewcBuilder;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{MODULES, RigCommand, RigError, during};

/// PID 1 of the rig. It prefers the emulated machine's devices over speed: every step that fails is seen on the console.
const INIT: &str = include_str!("init.sh");

/// Without these the rig has no files or no KVM; the others may be built in or not needed.
const NEEDED: &[&str] = &["virtiofs", "kvm-amd"];

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_644;

/// Writes the initramfs (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst) to a `memfd_create(2)`
/// file, so that there is nothing to remove.
pub(super) fn write(modules: &Path, command: &RigCommand) -> Result<File, RigError> {
    let busybox = fs::read("/bin/busybox")
        .or_else(|_| fs::read("/usr/bin/busybox"))
        .map_err(|_| RigError::Missing { program: "busybox", package: "busybox-static" })?;
    let file = memfd_create(c"rig-initramfs", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| during("make a file in memory")(errno.into()))?;
    let mut archive = Archive { out: BufWriter::new(File::from(file)), inode: 0 };
    for folder in ["bin", "modules", "dev", "proc", "sys", "host", "writable", "new"] {
        archive.add(folder, DIRECTORY, &[])?;
    }
    archive.add("bin/busybox", EXECUTABLE, &busybox)?;
    archive.add("init", EXECUTABLE, INIT.as_bytes())?;
    archive.add("command", EXECUTABLE, &script(command))?;
    for (order, module) in find_modules(modules)?.iter().enumerate() {
        let bytes = fs::read(module).map_err(during(format!("read {}", module.display())))?;
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&format!("modules/{order:02}-{name}"), REGULAR, &bytes)?;
    }
    archive.finish().map_err(during("write the initramfs"))
}

/// The files of [`MODULES`] that this kernel has, in loading order.
fn find_modules(folder: &Path) -> Result<Vec<PathBuf>, RigError> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(during(format!("list {}", next.display())))?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    let named = |name: &str| {
        let spellings = [format!("{name}.ko"), format!("{}.ko", name.replace('-', "_"))];
        files.iter().find(|file| {
            file.file_name().is_some_and(|found| spellings.iter().any(|spelling| found == spelling.as_str()))
        })
    };
    if let Some(&module) = NEEDED.iter().find(|name| named(name).is_none()) {
        return Err(RigError::NoModule { module, folder: folder.to_owned() });
    }
    Ok(MODULES.iter().filter_map(|name| named(name).cloned()).collect())
}

/// The command as a shell script, every word quoted.
fn script(command: &RigCommand) -> Vec<u8> {
    let mut text = b"#!/bin/sh\n".to_vec();
    for (name, value) in &command.env {
        // A shell cannot export names like BASH_FUNC_x%%; no program that we start in the rig needs one.
        let bytes = name.as_bytes();
        if bytes.is_empty() || !bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        text.extend_from_slice(b"export ");
        text.extend_from_slice(bytes);
        text.push(b'=');
        quote(&mut text, value);
        text.push(b'\n');
    }
    text.extend_from_slice(b"cd ");
    quote(&mut text, command.cwd.as_os_str());
    text.extend_from_slice(b" || exit 125\nexec");
    for word in &command.argv {
        text.push(b' ');
        quote(&mut text, word);
    }
    text.push(b'\n');
    text
}

/// Appends a word in single quotes (POSIX shell, 2.2.2).
fn quote(text: &mut Vec<u8>, word: &OsStr) {
    text.push(b'\'');
    for &byte in word.as_bytes() {
        if byte == b'\'' {
            text.extend_from_slice(b"'\\''");
        } else {
            text.push(byte);
        }
    }
    text.push(b'\'');
}

/// A cpio archive being written.
struct Archive {
    out: BufWriter<File>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), RigError> {
        self.inode += 1;
        let entry = NewcBuilder::new(name).ino(self.inode).mode(mode).nlink(1);
        let mut writer = entry.write(&mut self.out, bytes.len() as u32);
        writer
            .write_all(bytes)
            .and_then(|()| writer.finish().map(drop))
            .map_err(during(format!("write {name} to the initramfs")))
    }

    fn finish(self) -> io::Result<File> {
        cpio::newc::trailer(self.out)?.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_command_whatever_they_hold() {
        let command = RigCommand {
            argv: ["printf", "%s|", "a b", "it's", "$HOME", ""].map(Into::into).to_vec(),
            env: vec![("GREETING".into(), "x'y\nz".into()), ("BASH_FUNC_f%%".into(), "() { :; }".into())],
            cwd: "/".into(),
        };
        let script = script(&command);
        let output =
            std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        assert_eq!(output.stdout, b"a b|it's|$HOME||");
        assert!(script.windows(9).any(|bytes| bytes == b"'x'\\''y\nz"), "the variable is quoted");
    }

    #[test]
    fn a_folder_without_kvm_is_no_rigs_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_modules(folder.path()).unwrap_err();
        assert!(matches!(error, RigError::NoModule { module: "virtiofs", .. }), "{error}");
    }
}
