//! Places for mounts: folders and files that are made if missing.

use core::ffi::CStr;

use freestanding::sys::{self, file};
use freestanding::{Errno, Text};

/// Longest path that a system call takes, its NUL included (limits.h, PATH_MAX).
pub const PATH_MAX: usize = 4096;

/// Makes a folder and those above it that are missing.
///
/// # Errors
/// What mkdir(2) says of the last one.
pub fn make_folders(path: &CStr) -> sys::Result<()> {
    let bytes = path.to_bytes();
    let ends = (1..bytes.len()).filter(|&i| bytes.get(i) == Some(&b'/')).chain([bytes.len()]);
    let mut result = Ok(());
    for end in ends {
        let mut prefix = Text::<PATH_MAX>::new();
        prefix.text(bytes.get(..end).unwrap_or(&[]));
        result = file::mkdir(prefix.c_str().ok_or(Errno::NAMETOOLONG)?, 0o755);
        if result == Err(Errno::EXIST) {
            result = Ok(());
        }
    }
    result
}

/// Makes an empty file, and the folders above it, for something to be mounted on.
///
/// # Errors
/// What mkdir(2) or mknod(2) says.
pub fn make_file(path: &CStr) -> sys::Result<()> {
    let bytes = path.to_bytes();
    if let Some(end) = bytes.iter().rposition(|&byte| byte == b'/').filter(|&end| end > 0) {
        let mut folder = Text::<PATH_MAX>::new();
        make_folders(folder.text(bytes.get(..end).unwrap_or(&[])).c_str().ok_or(Errno::NAMETOOLONG)?)?;
    }
    match file::mknod(path, 0o644, None) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_made() {
        let base = std::env::temp_dir().join(format!("guest-init-path-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        let text = std::ffi::CString::new(base.join("a/b/file").to_str().unwrap()).unwrap();
        make_file(&text).unwrap();
        make_file(&text).unwrap();
        assert!(base.join("a/b/file").is_file());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
