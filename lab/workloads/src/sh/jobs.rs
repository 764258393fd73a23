//! Children of the shell, the signals it takes, and the descriptors it moves.

use core::ffi::CStr;

use freestanding::args::Pointer;
use freestanding::sys::file::{self, flags};
use freestanding::sys::memory::Array;
use freestanding::sys::poll::wait_readable;
use freestanding::sys::process::{self, Ended, Fork, Pid, Which};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::{Errno, Fd, OwnedFd, path, sys};

use super::Shell;
use super::token::How;
use crate::output::{complain, failed};

/// Signals that can be trapped, in the order in which they are acted on.
pub const TRAPPABLE: [Signal; 3] = [Signal::HUP, Signal::INT, Signal::TERM];

/// Signals that the shell blocks and collects.
pub const COLLECTED: [Signal; 4] = [Signal::CHLD, Signal::HUP, Signal::INT, Signal::TERM];

/// The most output of `$(…)` that is kept.
const OUTPUT: usize = 64 * 1024;

/// Forks; the child is a shell that takes no traps with it.
pub fn fork(shell: &mut Shell) -> sys::Result<Option<Pid>> {
    match process::fork(0)? {
        Fork::Parent(pid) => Ok(Some(pid)),
        Fork::Child => {
            shell.is_child = true;
            shell.pending = Set::EMPTY;
            Ok(None)
        }
    }
}

/// Waits for a child, and passes on what asks the shell to end: as PID 1 it is the one that is asked.
pub fn wait(shell: &mut Shell, child: Pid) -> Ended {
    loop {
        match process::wait(Which::One(child), false) {
            Ok(Some((_, ended))) => return ended,
            Ok(None) => {}
            Err(_) => return Ended::Code(127),
        }
        let _ = wait_readable(*shell.signals);
        for signal in collect(shell).into_iter().flatten() {
            // A trap waits for the child's end, as POSIX has it.
            if shell.trap_of(signal).is_none() && !shell.is_interactive {
                let _ = process::kill(child, signal);
            }
        }
    }
}

/// Takes the signals that came; they stay pending until [`Shell::act_on_signals`].
pub fn collect(shell: &mut Shell) -> [Option<Signal>; 3] {
    let mut came = Set::EMPTY;
    while let Some(signal) = signal::next(&shell.signals) {
        came = came.with(signal);
    }
    TRAPPABLE.map(|signal| {
        came.contains(signal).then(|| {
            shell.pending = shell.pending.with(signal);
            signal
        })
    })
}

/// Executes the program whose words are on the stack from `mark` on. Comes back only with the exit code of its failure.
pub fn execute(shell: &Shell, mark: usize) -> u8 {
    let _ = signal::set_blocked(Set::EMPTY);
    let count = shell.stack.texts(mark).count();
    let lists = Array::new(count + 1).and_then(|list| Ok((list, shell.variables.environment()?)));
    let Ok((mut argv, envp)) = lists else { return failed("sh", b"mmap", Errno::NOMEM) };
    for (slot, text) in argv.iter_mut().zip(shell.stack.texts(mark)) {
        *slot = Pointer::new(text);
    }
    let name = shell.stack.text(mark);
    match path::search(name, shell.variables.get(b"PATH"), |program| process::execve(program, &argv, &envp)) {
        Errno::NOENT | Errno::NOTDIR => complain("sh", name.to_bytes(), "not found", 127),
        errno => {
            failed("sh", name.to_bytes(), errno);
            126
        }
    }
}

/// Runs commands in a child and gives what they print.
///
/// # Errors
/// No memory, no pipe, no process, or more output than is kept.
pub fn output_of(shell: &mut Shell, commands: &[u8]) -> sys::Result<Array<u8>> {
    let mut output = Array::new(OUTPUT)?;
    let (from, to) = file::pipe()?;
    let Some(child) = fork(shell)? else {
        drop(from);
        let code = match to.duplicate_to(Fd::OUTPUT) {
            Ok(()) => {
                shell.script(commands);
                shell.status
            }
            Err(errno) => failed("sh", b"dup", errno),
        };
        process::exit(code)
    };
    drop(to);
    let mut len = 0;
    let result = loop {
        match from.read(output.get_mut(len..).unwrap_or(&mut [])) {
            Ok(0) if len == OUTPUT => break Err(Errno::TOOBIG),
            Ok(0) => break Ok(()),
            Ok(count) => len += count,
            Err(Errno::INTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    drop(from);
    shell.status = wait(shell, child).code();
    result.map(|()| output)
}

/// A descriptor that a redirection replaced.
#[derive(Debug, Default)]
pub struct Saved([Option<(Fd, Option<OwnedFd>)>; 8]);

impl Saved {
    /// Redirects a descriptor and keeps what it was.
    ///
    /// # Errors
    /// The file cannot be opened; or too many redirections.
    pub fn redirect(&mut self, fd: Fd, how: How, target: &CStr) -> sys::Result<()> {
        let slot = self.0.iter_mut().find(|slot| slot.is_none()).ok_or(Errno::TOOBIG)?;
        // From 10 on, out of the way of the numbers that a script may name.
        *slot = Some((fd, fd.duplicate_above(10).ok()));
        if how == How::Duplicate {
            let from = freestanding::text::parse_number(target.to_bytes()).filter(|&number| number < 10);
            let from = Fd(from.ok_or(Errno::BADF)? as i32);
            return if from.is_open() { from.duplicate_to(fd) } else { Err(Errno::BADF) };
        }
        let how = match how {
            How::Read => flags::READ,
            How::Append => flags::WRITE | flags::CREATE | flags::APPEND,
            _ => flags::WRITE | flags::CREATE | flags::TRUNCATE,
        };
        let file = file::open(target, how | flags::NOCTTY, 0o666)?;
        if *file == fd {
            // Opened as the very number: only inheriting it is missing. dup3 would do nothing.
            let away = fd.duplicate_above(10)?;
            return away.duplicate_to(fd).map(|()| core::mem::forget(file));
        }
        file.duplicate_to(fd)
    }

    /// Puts everything back, the last first.
    pub fn restore(&mut self) {
        for slot in self.0.iter_mut().rev() {
            if let Some((fd, old)) = slot.take() {
                let _ = old.map_or_else(|| fd.close(), |old| old.duplicate_to(fd));
            }
        }
    }
}
