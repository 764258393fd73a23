//! Finding a program by its name.

use core::ffi::CStr;

use crate::{Errno, Text};

/// Longest path that a system call takes, its NUL included (limits.h, PATH_MAX).
const PATH_MAX: usize = 4096;

/// Where programs are looked for if the environment has no PATH: what docker's default is.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    use std::borrow::ToOwned;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

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
}
