//! ls, mkdir, rm, touch: tools that work on folders.

use core::ffi::CStr;

use freestanding::sys::file::{self, Status, flags};
use freestanding::{Args, Errno, Text, sys};

use crate::output::{failed, say};

/// Longest path of a system call (limits.h, PATH_MAX).
const PATH_MAX: usize = 4096;

/// How deep `rm -r` goes: its stack holds a buffer a level.
const DEPTH: usize = 64;

/// The letters of options at the front, and the arguments after them.
fn options(args: Args) -> (impl Fn(u8) -> bool, Args) {
    let is_option = |text: &CStr| text.count_bytes() > 1 && text.to_bytes().starts_with(b"-");
    let count = args.iter().skip(1).take_while(|text| is_option(text)).count();
    let has = move |letter| args.iter().skip(1).take(count).any(|text| text.to_bytes().contains(&letter));
    (has, args.skip(1 + count))
}

/// Joins a folder and a name.
fn join<'a>(path: &'a mut Text<PATH_MAX>, folder: &CStr, name: &CStr) -> sys::Result<&'a CStr> {
    path.clear();
    path.text(folder.to_bytes());
    if !folder.to_bytes().ends_with(b"/") {
        path.text("/");
    }
    path.text(name.to_bytes()).c_str().ok_or(Errno::NAMETOOLONG)
}

/// Calls `work` for each entry of a folder.
fn each_entry(folder: &CStr, mut work: impl FnMut(&CStr) -> sys::Result<()>) -> sys::Result<()> {
    let open = file::open(folder, flags::READ | flags::DIRECTORY, 0)?;
    let mut buffer = [0; 4096];
    loop {
        let part = open.directory(&mut buffer)?;
        if part.is_empty() {
            return Ok(());
        }
        for name in file::entries(part) {
            work(name)?;
        }
    }
}

/// Lists folders, in the order that the file system has them.
pub fn ls(args: Args) -> u8 {
    let (has, paths) = options(args);
    let (all, long) = (has(b'a'), has(b'l'));
    let list = |path: &CStr| -> sys::Result<()> {
        let status = file::status(path, !long)?;
        if !status.is_directory() {
            line(path, path, long);
            return Ok(());
        }
        each_entry(path, |name| {
            if name.to_bytes().starts_with(b".") && !all {
                return Ok(());
            }
            let mut full = Text::new();
            line(join(&mut full, path, name)?, name, long);
            Ok(())
        })
    };
    let mut code = 0;
    let here = [c"."];
    for path in here.into_iter().take(usize::from(paths.is_empty())).chain(paths.iter()) {
        if let Err(errno) = list(path) {
            code = failed("ls", path.to_bytes(), errno);
        }
    }
    code
}

fn line(path: &CStr, name: &CStr, long: bool) {
    let mut line = Text::<{ 2 * PATH_MAX }>::new();
    if long {
        // What vanished since the folder was read, as in /proc, is left out.
        let Ok(status) = file::status(path, false) else { return };
        describe(&mut line, &status);
    }
    line.text(name.to_bytes());
    if long {
        let mut buffer = [0; PATH_MAX];
        if let Ok(target) = file::readlink(path, &mut buffer) {
            line.text(" -> ").text(target);
        }
    }
    say(&[line.text("\n").bytes()]);
}

fn describe<const N: usize>(line: &mut Text<N>, status: &Status) {
    line.text(mode_text(status.mode)).text(" ").padded(u64::from(status.links), 3);
    line.text(" ").padded(u64::from(status.uid), 5).text(" ").padded(u64::from(status.gid), 5).text(" ");
    if matches!(status.mode >> 12, 2 | 6) {
        line.padded(u64::from(status.device.0), 4).text(",").padded(u64::from(status.device.1), 5);
    } else {
        line.padded(status.size, 10);
    }
    line.text(" ");
}

/// Type and permissions as ls prints them: inode(7).
fn mode_text(mode: u32) -> [u8; 10] {
    let kind = match mode >> 12 {
        1 => b'p',
        2 => b'c',
        4 => b'd',
        6 => b'b',
        10 => b'l',
        12 => b's',
        _ => b'-',
    };
    let mut text = [kind; 10];
    for (index, letter) in text.iter_mut().skip(1).enumerate() {
        *letter = if mode & (0o400 >> index) == 0 { b'-' } else { [b'r', b'w', b'x'][index % 3] };
    }
    // Set-user-ID, set-group-ID, sticky: in place of the x they stand on.
    for (bit, index, letter) in [(0o4000, 3, b's'), (0o2000, 6, b's'), (0o1000, 9, b't')] {
        if mode & bit != 0 {
            text[index] = if text[index] == b'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    text
}

/// Makes folders.
pub fn mkdir(args: Args) -> u8 {
    let (has, paths) = options(args);
    let parents = has(b'p');
    let mut code = 0;
    for path in paths.iter() {
        if let Err(errno) = make(path, parents) {
            code = failed("mkdir", path.to_bytes(), errno);
        }
    }
    code
}

fn make(path: &CStr, parents: bool) -> sys::Result<()> {
    if parents {
        let bytes = path.to_bytes();
        for end in (1..bytes.len()).filter(|&end| bytes.get(end) == Some(&b'/')) {
            let mut prefix = Text::<PATH_MAX>::new();
            let prefix = prefix.text(bytes.get(..end).unwrap_or(&[])).c_str().ok_or(Errno::NAMETOOLONG)?;
            match file::mkdir(prefix, 0o777) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    match file::mkdir(path, 0o777) {
        Err(Errno::EXIST) if parents && file::status(path, true)?.is_directory() => Ok(()),
        result => result,
    }
}

/// Removes files, with `-r` folders and what is in them.
pub fn rm(args: Args) -> u8 {
    let (has, paths) = options(args);
    let (recursive, force) = (has(b'r'), has(b'f'));
    let mut code = 0;
    for path in paths.iter() {
        match remove(path, recursive, DEPTH) {
            Ok(()) => {}
            Err(Errno::NOENT) if force => {}
            Err(errno) => code = failed("rm", path.to_bytes(), errno),
        }
    }
    code
}

fn remove(path: &CStr, recursive: bool, depth: usize) -> sys::Result<()> {
    if !file::status(path, false)?.is_directory() {
        return file::unlink(path, false);
    }
    if !recursive {
        return Err(Errno::ISDIR);
    }
    if depth == 0 {
        return Err(Errno::NAMETOOLONG);
    }
    each_entry(path, |name| {
        let mut full = Text::new();
        remove(join(&mut full, path, name)?, true, depth - 1)
    })?;
    file::unlink(path, true)
}

/// Makes files, or sets their times to now.
pub fn touch(args: Args) -> u8 {
    let mut code = 0;
    for path in args.iter().skip(1) {
        let how = flags::WRITE | flags::CREATE | flags::NOCTTY | flags::NONBLOCK;
        let result = match file::touch(path) {
            Err(Errno::NOENT) => file::open(path, how, 0o666).map(drop),
            result => result,
        };
        if let Err(errno) = result {
            code = failed("touch", path.to_bytes(), errno);
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_the_manual() {
        assert_eq!(&mode_text(0o100644), b"-rw-r--r--");
        assert_eq!(&mode_text(0o041777), b"drwxrwxrwt");
        assert_eq!(&mode_text(0o104711), b"-rws--x--x");
        assert_eq!(&mode_text(0o020620), b"crw--w----");
        assert_eq!(&mode_text(0o120777), b"lrwxrwxrwx");
    }
}
