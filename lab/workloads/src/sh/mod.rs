//! A small shell, for looking around in a sandbox and for scripts of a few lines.
//!
//! It has: lists (`;` `&&` `||`), pipelines, `!`, redirections (`<` `>` `>>` `2>&1`), quotes, variables and arguments,
//! `${X:-default}`, `$(commands)`, `$((sums))`, `if`, `while`, `until`, `for`, `( )`, `{ }`, traps of TERM, INT and EXIT.
//! It has not: background jobs, patterns (`*`), functions, `case`, here-documents.
//!
//! ```text
//!  token  text → tokens          store       its memory: a stack of texts, the variables
//!  run    tokens → commands      arithmetic  $((…))
//!  expand word → texts           jobs        fork, wait, signals, redirections
//!  builtin, test: what it does itself
//! ```

mod arithmetic;
mod builtin;
mod expand;
mod jobs;
mod run;
mod store;
pub mod test;
mod token;

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::sys::memory::Array;
use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::{self, identity, process};
use freestanding::{Args, Errno, Fd, OwnedFd};

use crate::output::{complain, failed};
use store::{Stack, Variables};
use token::Syntax;

/// The longest script.
const SCRIPT: usize = 1024 * 1024;

/// How a list of commands goes on after one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// With the next.
    Next,
    /// After the loop.
    Break,
    /// With the loop's next turn.
    Continue,
    /// Not at all.
    Exit,
    /// With the next, and the redirections stay.
    Keep,
}

/// The shell.
#[derive(Debug)]
struct Shell<'a> {
    stack: Stack,
    variables: Variables,
    signals: OwnedFd,
    /// Signals that came and were not acted on.
    pending: Set,
    name: &'a CStr,
    arguments: Args<'a>,
    pid: u64,
    /// `$?`
    status: u8,
    depth: u8,
    is_interactive: bool,
    /// It is a part of a pipeline, a `( )` or a `$( )`: the traps are not its own.
    is_child: bool,
}

/// The shell's main.
pub fn run(args: Args) -> u8 {
    let collected = Set::of(&jobs::COLLECTED);
    let shell = signal::set_blocked(collected)
        .and_then(|_| signal::signal_fd(collected))
        .and_then(|signals| Shell::new(args, signals));
    let mut shell = match shell {
        Ok(shell) => shell,
        Err(errno) => return failed("sh", b"start", errno),
    };
    match (args.get(1), args.get(2)) {
        (Some(option), Some(commands)) if option == c"-c" => {
            (shell.name, shell.arguments) = (args.get(3).unwrap_or(shell.name), args.skip(4));
            shell.script(commands.to_bytes());
        }
        (Some(option), None) if option == c"-c" => return complain("sh", b"-c", "wants commands", 2),
        (Some(path), _) if !path.to_bytes().starts_with(b"-") => {
            (shell.name, shell.arguments) = (path, args.skip(2));
            match read_file(path) {
                Ok(text) => drop(shell.script(text.split(|&byte| byte == 0).next().unwrap_or(&[]))),
                Err(errno) => {
                    failed("sh", path.to_bytes(), errno);
                    return 127;
                }
            }
        }
        _ => shell.lines(),
    }
    shell.end()
}

fn read_file(path: &CStr) -> sys::Result<Array<u8>> {
    let (file, mut text) = (file::open(path, flags::READ, 0)?, Array::new(SCRIPT)?);
    let mut len = 0;
    loop {
        match file.read(text.get_mut(len..).unwrap_or(&mut []))? {
            0 if len == SCRIPT => return Err(Errno::TOOBIG),
            0 => return Ok(text),
            count => len += count,
        }
    }
}

impl<'a> Shell<'a> {
    fn new(args: Args<'a>, signals: OwnedFd) -> sys::Result<Self> {
        let mut variables = Variables::new()?;
        for entry in args.environment().iter().filter_map(|entry| entry.get()) {
            let entry = entry.to_bytes();
            let (name, value) = entry.split_at(expand::identifier_length(entry));
            // What is no name of a variable is not passed on either: POSIX leaves that open.
            if let (Some(value), false) = (value.strip_prefix(b"="), name.is_empty())
                && variables.set(name, value).is_ok()
            {
                variables.export(name);
            }
        }
        Ok(Self {
            stack: Stack::new()?,
            variables,
            signals,
            pending: Set::EMPTY,
            name: args.get(0).unwrap_or(c"sh"),
            arguments: Args::new(&[], &[]),
            pid: process::pid().0 as u64,
            status: 0,
            depth: 0,
            is_interactive: false,
            is_child: false,
        })
    }

    #[cfg(test)]
    fn for_test(arguments: &[&'static CStr]) -> Shell<'static> {
        let pointers: Vec<_> = arguments.iter().map(|text| freestanding::args::Pointer::new(text)).collect();
        let signals = signal::signal_fd(Set::EMPTY).unwrap();
        let mut shell = Shell::new(Args::new(&[], &[]), signals).unwrap();
        shell.arguments = Args::new(pointers.leak(), &[]);
        shell
    }

    /// Runs a whole script.
    fn script(&mut self, text: &[u8]) -> Flow {
        match run::check(self, text).and_then(|()| run::script(self, text)) {
            Ok(flow) => flow,
            Err(syntax) => {
                let message = match syntax {
                    Syntax::Incomplete => "a quote or a compound command has no end",
                    Syntax::Unexpected => "something stands where it cannot",
                };
                self.depth = 0;
                self.status = complain("sh", b"syntax", message, 2);
                Flow::Next
            }
        }
    }

    /// Runs standard input line by line, with a prompt on a terminal.
    fn lines(&mut self) {
        self.is_interactive = Fd::INPUT.window().is_ok();
        let Ok(mut text) = Array::<u8>::new(SCRIPT) else { return };
        let mut len = 0;
        loop {
            if self.is_interactive {
                let sign: &[u8] = if identity::uid() == 0 { b"# " } else { b"$ " };
                let _ = Fd::ERROR.write(if len == 0 { sign } else { b"> " });
            }
            let ended = !self.line(&mut text, &mut len);
            let script = text.get(..len).unwrap_or(&[]);
            // A line that leaves something open goes on with the next.
            if ended || len == SCRIPT || run::check(self, script) != Err(Syntax::Incomplete) {
                if self.script(script) == Flow::Exit {
                    return;
                }
                len = 0;
            }
            self.depth = 0;
            if ended || self.act_on_signals() == Flow::Exit {
                return;
            }
        }
    }

    /// Reads one line, byte by byte: what follows may be for the command in it. False at the end.
    fn line(&mut self, text: &mut [u8], len: &mut usize) -> bool {
        while let Some(byte) = text.get_mut(*len..*len + 1) {
            let mut polls = [Poll::read(Fd::INPUT), Poll::read(*self.signals)];
            let _ = poll(&mut polls, None);
            if polls[1].readable() && jobs::collect(self).iter().any(Option::is_some) {
                *len = 0; // Ctrl-C takes back what was typed
                let _ = Fd::ERROR.write(b"\n");
                return true;
            }
            if polls[0].readable() {
                match Fd::INPUT.read(byte) {
                    Ok(1) => *len += 1,
                    Err(Errno::INTR) => continue,
                    _ => return false,
                }
                if *byte == *b"\n" {
                    return true;
                }
            }
        }
        true
    }

    /// The commands that a signal is trapped with.
    fn trap_of(&self, signal: Signal) -> Option<&[u8]> {
        if self.is_child { None } else { self.variables.get(builtin::trap_key(signal).to_bytes()) }
    }

    /// Does what signals that came ask for: their trap; or the shell's end.
    fn act_on_signals(&mut self) -> Flow {
        jobs::collect(self);
        for signal in jobs::TRAPPABLE {
            if !self.pending.contains(signal) {
                continue;
            }
            self.pending = self.pending.without(signal);
            let status = self.status;
            if self.trap_of(signal).is_some() {
                if self.trapped(builtin::trap_key(signal)) == Flow::Exit {
                    return Flow::Exit;
                }
                self.status = status;
            } else if !self.is_interactive {
                self.status = 128 + signal.number() as u8;
                return Flow::Exit;
            }
        }
        Flow::Next
    }

    /// Runs the commands of a trap, from a copy: they may set it anew.
    fn trapped(&mut self, key: &CStr) -> Flow {
        let commands = self.variables.get(key.to_bytes()).unwrap_or(&[]);
        let Ok(mut copy) = Array::<u8>::new(commands.len()) else { return Flow::Next };
        copy.copy_from_slice(commands);
        self.script(&copy)
    }

    /// The shell's exit code, after the trap of EXIT.
    fn end(&mut self) -> u8 {
        if !self.is_child && self.variables.get(b"trap EXIT").is_some() {
            let status = self.status;
            if self.trapped(c"trap EXIT") != Flow::Exit {
                self.status = status;
            }
        }
        self.status
    }
}
