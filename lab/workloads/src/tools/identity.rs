//! Who and where am I: env, hostname, id, pwd, stty, tty, uname.

use core::ffi::CStr;

use freestanding::args::Pointer;
use freestanding::sys::memory::Array;
use freestanding::sys::{file, identity, machine, process};
use freestanding::{Args, Errno, Fd, Text, path};

use crate::output::{complain, failed, say};

/// Prints the environment, or runs a command with additions to it.
pub fn env(args: Args) -> u8 {
    let additions = args.iter().skip(1).take_while(|text| text.to_bytes().contains(&b'=')).count();
    let command = args.skip(1 + additions);
    let added = || args.iter().skip(1).take(additions);
    let name_of = |entry: &CStr| entry.to_bytes().iter().position(|&byte| byte == b'=');
    let replaced = |entry: &CStr| {
        let name = name_of(entry).and_then(|end| entry.to_bytes().get(..=end));
        name.is_some_and(|name| added().any(|addition| addition.to_bytes().starts_with(name)))
    };
    let old = || args.environment().iter().filter_map(|entry| entry.get()).filter(|entry| !replaced(entry));
    if command.is_empty() {
        return old().chain(added()).fold(0, |code, entry| code | say(&[entry.to_bytes(), b"\n"]));
    }
    become_command("env", command, || old().chain(added()))
}

/// Becomes a command with this process's environment. Comes back only with the exit code of its failure.
pub fn execute(own: &str, command: Args) -> u8 {
    become_command(own, command, || command.environment().iter().filter_map(|entry| entry.get()))
}

fn become_command<'a, E: Iterator<Item = &'a CStr>>(
    own: &str,
    command: Args,
    environment: impl Fn() -> E,
) -> u8 {
    let lists = (Array::new(command.len() + 1), Array::new(environment().count() + 1));
    let (Ok(mut argv), Ok(mut envp)) = lists else { return failed(own, b"mmap", Errno::NOMEM) };
    for (slot, text) in argv.iter_mut().zip(command.iter()) {
        *slot = Pointer::new(text);
    }
    for (slot, text) in envp.iter_mut().zip(environment()) {
        *slot = Pointer::new(text);
    }
    let name = command.get(0).unwrap_or(c"");
    let search = environment().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let errno = path::search(name, search, |program| process::execve(program, &argv, &envp));
    failed(own, name.to_bytes(), errno);
    if errno == Errno::NOENT { 127 } else { 126 }
}

/// Prints the host name.
pub fn hostname(_args: Args) -> u8 {
    match machine::names() {
        Ok(names) => say(&[names.host(), b"\n"]),
        Err(errno) => failed("hostname", b"uname", errno),
    }
}

/// Prints user and groups.
pub fn id(_args: Args) -> u8 {
    let mut line = Text::<512>::new();
    line.text("uid=").number(u64::from(identity::uid())).text(" gid=").number(u64::from(identity::gid()));
    let mut groups = [0; 32];
    for (index, group) in identity::groups(&mut groups).unwrap_or(&[]).iter().enumerate() {
        line.text(if index == 0 { " groups=" } else { "," }).number(u64::from(*group));
    }
    say(&[line.text("\n").bytes()])
}

/// Prints the working directory.
pub fn pwd(_args: Args) -> u8 {
    let mut buffer = [0; 4096];
    match process::cwd(&mut buffer) {
        Ok(path) => say(&[path, b"\n"]),
        Err(errno) => failed("pwd", b"getcwd", errno),
    }
}

/// Prints the terminal's size.
pub fn stty(args: Args) -> u8 {
    if args.get(1) != Some(c"size") {
        return complain("stty", b"arguments", "only `stty size` is known", 2);
    }
    match Fd::INPUT.window() {
        Ok(size) => {
            let mut line = Text::<32>::new();
            line.number(u64::from(size.rows)).text(" ").number(u64::from(size.columns)).text("\n");
            say(&[line.bytes()])
        }
        Err(errno) => failed("stty", b"standard input", errno),
    }
}

/// Prints the terminal's name.
pub fn tty(_args: Args) -> u8 {
    if Fd::INPUT.window().is_err() {
        say(&[b"not a tty\n"]);
        return 1;
    }
    let mut buffer = [0; 256];
    match file::readlink(c"/proc/self/fd/0", &mut buffer) {
        Ok(path) => say(&[path, b"\n"]),
        Err(errno) => failed("tty", b"/proc/self/fd/0", errno),
    }
}

/// Prints names of the system.
pub fn uname(args: Args) -> u8 {
    let names = match machine::names() {
        Ok(names) => names,
        Err(errno) => return failed("uname", b"uname", errno),
    };
    let letters =
        args.get(1).map_or(&b"s"[..], |option| option.to_bytes().strip_prefix(b"-").unwrap_or(b"s"));
    let letters = if letters == b"a" { &b"snrvm"[..] } else { letters };
    let mut line = Text::<400>::new();
    for letter in letters {
        let name = match letter {
            b's' => names.system(),
            b'n' => names.host(),
            b'r' => names.release(),
            b'v' => names.version(),
            b'm' => names.machine(),
            _ => return complain("uname", letters, "options are s, n, r, v, m and a", 2),
        };
        if !line.bytes().is_empty() {
            line.text(" ");
        }
        line.text(name);
    }
    say(&[line.text("\n").bytes()])
}
