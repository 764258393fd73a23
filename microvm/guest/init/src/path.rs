//! Paths: making folders, and finding a program by its name.

use core::ffi::CStr;

use freestanding::sys::{self, file};
use freestanding::{Errno, Text};

/// Longest path that a system call takes, its NUL included (limits.h, PATH_MAX).
pub const PATH_MAX: usize = 4096;

/// Where programs are looked for if the environment has no PATH: what docker's default is.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

/// Tries to execute a program, by path if there is a slash in its name, else in each folder of PATH, as execvp(3) does.
/// `execute` returns only when it failed.
pub fn search(name: &CStr, path: Option<&[u8]>, mut execute: impl FnMut(&CStr) -> Errno) -> Errno {
    if name.is_empty() {
        return Errno::NOENT;
    }
    if name.to_bytes().contains(&b'/') {
        return execute(name);
    }
    let mut worst = Errno::NOENT;
    for folder in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        let mut candidate = Text::<PATH_MAX>::new();
        candidate.text(if folder.is_empty() { b"." } else { folder }).text("/").text(name.to_bytes());
        let Some(candidate) = candidate.c_str() else { continue };
        match execute(candidate) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCES => worst = Errno::ACCES, // something is there, but not for us: go on looking
            errno => return errno,
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &CStr, path: Option<&[u8]>, answers: &[Errno]) -> (Vec<String>, Errno) {
        let mut tried = Vec::new();
        let result = search(name, path, |candidate| {
            tried.push(candidate.to_str().unwrap().to_owned());
            answers.get(tried.len() - 1).copied().unwrap_or(Errno::NOENT)
        });
        (tried, result)
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        assert_eq!(tried(c"./run", Some(b"/bin"), &[]), (vec!["./run".into()], Errno::NOENT));
    }

    #[test]
    fn a_name_is_looked_for_in_each_folder_of_path() {
        let (tried, result) = tried(c"ls", Some(b"/a::/b"), &[]);
        assert_eq!((tried, result), (vec!["/a/ls".into(), "./ls".into(), "/b/ls".into()], Errno::NOENT));
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_remembered() {
        assert_eq!(tried(c"ls", Some(b"/a:/b"), &[Errno::ACCES]).1, Errno::ACCES);
        assert_eq!(tried(c"ls", Some(b"/a:/b"), &[Errno::NOEXEC]), (vec!["/a/ls".into()], Errno::NOEXEC));
    }

    #[test]
    fn without_path_the_usual_folders_are_searched() {
        assert_eq!(tried(c"ls", None, &[]).0.len(), 6);
        assert_eq!(tried(c"", None, &[]), (vec![], Errno::NOENT));
    }

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
