//! The static programs of the embedded default image: one file without libc that is many programs, by the name it is called.
//!
//! ```text
//!  /bin/hello → lab-workloads      what is compared:   hello true false cpu memory syscalls files http bench
//!  /bin/sh    → lab-workloads      a small shell:      sh test [
//!  /bin/ls    → lab-workloads      what a class needs: echo cat ls env pwd id sleep uname hostname ps mount kill init
//!     …                                                head wc touch mkdir rm stty tty vsock
//! ```
//!
//! The same bytes run behind both walls, and nothing of the host's is needed for them: no loader, no libc, no files.
//! [`APPLETS`] is the list; an image makes a link for each name. Called by its own name, the program takes the applet's
//! name as its first argument.
//!
//! Read [`hello`] first, then the programs that measure ([`cpu`], [`memory`], [`syscalls`], [`files`], and [`mod@bench`] for series), [`http`], [`sh`].
//!
//! Each runs as PID 1 of a sandbox as well, where a signal without a handler is dropped (pid_namespaces(7)): those that
//! wait take SIGTERM and SIGINT and end by them.

#![cfg_attr(not(test), no_std)]

pub mod bench;
pub mod cpu;
pub mod files;
pub mod hello;
pub mod http;
pub mod memory;
pub mod output;
pub mod sh;
pub mod syscalls;
pub mod tools;
pub mod vsock;

use core::ffi::CStr;

use freestanding::Args;

use crate::output::{complain, say};

/// One of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Applet {
    /// The name it is called by.
    pub name: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
    /// The program: its arguments start with its name; the result is its exit code.
    pub run: fn(Args) -> u8,
}

/// Every program, for `--help` and for the links in an image.
pub const APPLETS: &[Applet] = &[
    Applet { name: "hello", help: "hello: say hello, end", run: hello::run },
    Applet { name: "true", help: "true: end with 0", run: |_| 0 },
    Applet { name: "false", help: "false: end with 1", run: |_| 1 },
    Applet { name: "cpu", help: "cpu [MILLIONS]: a fixed amount of arithmetic, timed", run: cpu::run },
    Applet {
        name: "bench",
        help: "bench cpu|syscalls|switches|processes|faults|disk [REPEATS [FOLDER [MIB]]]: loops, each batch a line",
        run: bench::run,
    },
    Applet {
        name: "memory",
        help: "memory [MIB [SECONDS]]: touch so much memory, hold it",
        run: memory::run,
    },
    Applet {
        name: "syscalls",
        help: "syscalls [COUNT]: time system calls and context switches",
        run: syscalls::run,
    },
    Applet { name: "files", help: "files [MIB [FOLDER]]: write, sync, read a file, timed", run: files::run },
    Applet { name: "http", help: "http [--port N] [--requests N]: a small web server", run: http::run },
    Applet {
        name: "vsock",
        help: "vsock [-l] PORT: call the host from a machine without a network, or wait for its call",
        run: vsock::run,
    },
    Applet { name: "sh", help: "sh [-c COMMANDS | FILE] [ARGUMENTS]: a small shell", run: sh::run },
    Applet { name: "test", help: "test EXPRESSION: end with 0 if it is true", run: sh::test::run },
    Applet { name: "[", help: "[ EXPRESSION ]: end with 0 if it is true", run: sh::test::run },
    Applet { name: "echo", help: "echo [-n] [TEXT]...: print the texts", run: tools::echo },
    Applet {
        name: "cat",
        help: "cat [FILE]...: copy files, or standard input, to standard output",
        run: tools::cat,
    },
    Applet { name: "ls", help: "ls [-a] [-l] [PATH]...: list folders", run: tools::ls },
    Applet {
        name: "env",
        help: "env [NAME=VALUE]... [COMMAND]: print the environment, or run in it",
        run: tools::env,
    },
    Applet { name: "pwd", help: "pwd: print the working directory", run: tools::pwd },
    Applet { name: "id", help: "id: print user and groups", run: tools::id },
    Applet { name: "sleep", help: "sleep SECONDS: wait; fractions allowed", run: tools::sleep },
    Applet { name: "uname", help: "uname [-snrvma]: print names of the system", run: tools::uname },
    Applet { name: "hostname", help: "hostname: print the host name", run: tools::hostname },
    Applet { name: "ps", help: "ps: list processes", run: tools::ps },
    Applet { name: "mount", help: "mount: list mounts", run: tools::mount },
    Applet { name: "init", help: "init COMMAND...: be process 1 for a command", run: tools::init },
    Applet { name: "kill", help: "kill [-SIGNAL] PID...: send a signal", run: tools::kill },
    Applet { name: "head", help: "head [-n LINES] [FILE]...: print the first lines", run: tools::head },
    Applet { name: "wc", help: "wc [-l|-w|-c] [FILE]...: count lines, words, bytes", run: tools::wc },
    Applet { name: "touch", help: "touch FILE...: make files, or set their times to now", run: tools::touch },
    Applet { name: "mkdir", help: "mkdir [-p] FOLDER...: make folders", run: tools::mkdir },
    Applet { name: "rm", help: "rm [-r] [-f] PATH...: remove files", run: tools::rm },
    Applet { name: "stty", help: "stty size: print the terminal's rows and columns", run: tools::stty },
    Applet { name: "tty", help: "tty: print the name of the terminal", run: tools::tty },
];

/// The program's own name.
pub const NAME: &str = "lab-workloads";

/// The program's main: the applet that the name, or the first argument, says.
pub fn main(args: Args) -> u8 {
    let name = base_name(args.get(0).unwrap_or(c""));
    if let Some(applet) = find(name) {
        return run(applet, args);
    }
    let args = args.skip(1);
    match args.get(0).map(CStr::to_bytes) {
        Some(name) if name != b"--help" => match find(name) {
            Some(applet) => run(applet, args),
            None => complain(NAME, name, "no such program; see --help", 127),
        },
        _ => {
            for applet in APPLETS {
                say(&[applet.help.as_bytes(), b"\n"]);
            }
            0
        }
    }
}

fn run(applet: &Applet, args: Args) -> u8 {
    if args.len() == 2 && args.get(1) == Some(c"--help") && !matches!(applet.name, "echo" | "true" | "false")
    {
        return say(&[b"usage: ", applet.help.as_bytes(), b"\n"]);
    }
    (applet.run)(args)
}

/// Not in any image: what a bootable disk starts with.
const BOOT: Applet =
    Applet { name: "boot", help: "boot UID GID: the first process of a machine", run: tools::boot };

/// The applet of this name; docker's name for `init` is one, too.
pub fn find(name: &[u8]) -> Option<&'static Applet> {
    if name == b"boot" {
        return Some(&BOOT);
    }
    let name = if name == b"docker-init" { b"init" } else { name };
    APPLETS.iter().find(|applet| applet.name.as_bytes() == name)
}

fn base_name(path: &CStr) -> &[u8] {
    path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_name_of_its_own_and_says_how_it_is_used() {
        for (index, applet) in APPLETS.iter().enumerate() {
            assert!(applet.help.starts_with(applet.name), "{}", applet.name);
            assert!(!applet.help.contains('\n'));
            assert!(APPLETS[..index].iter().all(|other| other.name != applet.name));
        }
    }

    #[test]
    fn the_folder_of_a_name_does_not_matter() {
        assert_eq!(base_name(c"/usr/bin/ls"), b"ls");
        assert_eq!(base_name(c"ls"), b"ls");
        assert_eq!(base_name(c""), b"");
    }
}
