//! Commands that the shell does itself: those that change it, and those that are cheaper so.

use core::ffi::CStr;

use freestanding::args::Pointer;
use freestanding::sys::memory::Array;
use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::process;
use freestanding::sys::signal::Signal;
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Fd, Text};

use super::expand::identifier_length;
use super::{Flow, Shell, jobs};
use crate::output::{complain, failed};

/// Applets that run within the shell: they neither change it nor wait.
const WITHIN: [&str; 6] = ["echo", "true", "false", "pwd", "test", "["];

/// Whether this is a command of the shell's own.
pub fn is_builtin(name: &[u8]) -> bool {
    matches!(
        name,
        b":" | b"cd"
            | b"exit"
            | b"export"
            | b"unset"
            | b"shift"
            | b"trap"
            | b"break"
            | b"continue"
            | b"read"
            | b"exec"
    ) || WITHIN.iter().any(|within| within.as_bytes() == name)
}

/// Runs it: its words are on the stack from `mark` on.
pub fn run(shell: &mut Shell, mark: usize) -> Flow {
    let mut name = Text::<8>::new();
    name.text(shell.stack.text(mark).to_bytes());
    let word = |shell: &Shell, index: usize| -> Option<Text<4096>> {
        let mut copy = Text::new();
        copy.text(shell.stack.texts(mark).nth(index)?.to_bytes());
        Some(copy)
    };
    shell.status = match name.bytes() {
        b":" => 0,
        b"cd" => {
            let mut folder = word(shell, 1).unwrap_or_else(|| {
                let mut home = Text::new();
                home.text(shell.variables.get(b"HOME").unwrap_or(b"/"));
                home
            });
            let result = folder.c_str().ok_or(Errno::NAMETOOLONG).and_then(process::chdir);
            result.map_or_else(|errno| failed("cd", folder.bytes(), errno), |()| 0)
        }
        b"exit" => {
            if let Some(code) = word(shell, 1) {
                shell.status = parse_number(code.bytes()).map_or(2, |code| code as u8);
            }
            return Flow::Exit;
        }
        b"break" => return Flow::Break,
        b"continue" => return Flow::Continue,
        b"exec" => return exec(shell, mark),
        b"export" => {
            let mut code = 0;
            for index in 1.. {
                let Some(word) = word(shell, index) else { break };
                code |= export(shell, word.bytes());
            }
            code
        }
        b"unset" => {
            for index in 1.. {
                let Some(word) = word(shell, index) else { break };
                shell.variables.unset(word.bytes());
            }
            0
        }
        b"shift" => {
            let empty = shell.arguments.is_empty();
            shell.arguments = shell.arguments.skip(1);
            u8::from(empty)
        }
        b"trap" => trap(shell, mark),
        b"read" => read(shell, word(shell, 1).as_ref().map_or(b"REPLY", Text::bytes)),
        applet => within(shell, applet, mark),
    };
    Flow::Next
}

fn within(shell: &Shell, name: &[u8], mark: usize) -> u8 {
    let Some(applet) = crate::find(name) else { return 127 };
    let Ok(mut words) = Array::new(shell.stack.texts(mark).count()) else {
        return failed("sh", b"mmap", Errno::NOMEM);
    };
    for (slot, text) in words.iter_mut().zip(shell.stack.texts(mark)) {
        *slot = Pointer::new(text);
    }
    (applet.run)(Args::new(&words, &[Pointer::END]))
}

/// `exec`: without a command it keeps its redirections; with one the shell becomes it.
fn exec(shell: &mut Shell, mark: usize) -> Flow {
    let Some(first) = shell.stack.texts(mark).nth(1) else {
        shell.status = 0;
        return Flow::Keep;
    };
    // The words after `exec` begin where the first of them lies.
    let skipped = shell.stack.text(mark).count_bytes() + 1;
    debug_assert_eq!(shell.stack.text(mark + skipped), first);
    shell.status = jobs::execute(shell, mark + skipped);
    Flow::Exit
}

fn export(shell: &mut Shell, word: &[u8]) -> u8 {
    let (name, value) = word.split_at(identifier_length(word));
    match value {
        _ if name.is_empty() => return complain("export", word, "no name of a variable", 2),
        [] if shell.variables.get(name).is_some() => {}
        [b'=', value @ ..] if shell.variables.set(name, value).is_err() => {
            return complain("export", name, "no room", 2);
        }
        [b'=', ..] | [] => {}
        _ => return complain("export", word, "no name of a variable", 2),
    }
    shell.variables.export(name);
    0
}

/// `trap COMMANDS SIGNAL...`; `-` for the commands takes a trap away. Only TERM, INT and EXIT can be trapped.
fn trap(shell: &mut Shell, mark: usize) -> u8 {
    let mut words = shell.stack.texts(mark).skip(1);
    let Some(commands) = words.next() else { return 0 };
    let mut code = 0;
    for word in words {
        let name = word.to_bytes();
        let key = match Signal::from_name(name) {
            _ if name == b"EXIT" || name == b"0" => &b"trap EXIT"[..],
            Some(signal) if jobs::TRAPPABLE.contains(&signal) => trap_key(signal).to_bytes(),
            _ => {
                code = complain("trap", name, "only HUP, INT, TERM and EXIT can be trapped", 1);
                continue;
            }
        };
        // A name with a blank is no variable that a script could set.
        if commands == c"-" {
            shell.variables.unset(key);
        } else if shell.variables.set(key, commands.to_bytes()).is_err() {
            code = complain("trap", name, "no room", 1);
        }
    }
    code
}

/// Reads a line into a variable; 1 at the end of the input. Byte by byte: what follows belongs to somebody else.
fn read(shell: &mut Shell, name: &[u8]) -> u8 {
    let mut line = Text::<4096>::new();
    let code = loop {
        let mut polls = [Poll::read(Fd::INPUT), Poll::read(*shell.signals)];
        if poll(&mut polls, None).is_err() {
            continue;
        }
        if polls[1].readable() && jobs::collect(shell).iter().any(Option::is_some) {
            break 1;
        }
        if polls[0].readable() {
            let mut byte = [0];
            match Fd::INPUT.read(&mut byte) {
                Ok(1) if byte == *b"\n" => break 0,
                Ok(1) => drop(line.text(byte)),
                _ => break 1,
            }
        }
    };
    let value: &[u8] = line.bytes().trim_ascii();
    if identifier_length(name) != name.len() || name.is_empty() || shell.variables.set(name, value).is_err() {
        return complain("read", name, "no name of a variable, or no room", 2);
    }
    code
}

/// The commands of a trap, from the name that [`trap`] keeps them under.
pub fn trap_key(signal: Signal) -> &'static CStr {
    match signal {
        Signal::HUP => c"trap HUP",
        Signal::INT => c"trap INT",
        _ => c"trap TERM",
    }
}
