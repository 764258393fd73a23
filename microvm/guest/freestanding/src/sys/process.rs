//! Processes: making, waiting for, ending.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use linux_raw_sys::general as c;

use super::signal::Signal;
use super::{Errno, Fd, OwnedFd, Result, at, call, int, plain};
use crate::args::Pointer;

/// A process's number, as the caller's pid namespace has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(pub i32);

/// Namespaces for [`fork`] and [`join`]: clone(2) and setns(2).
pub mod namespaces {
    use linux_raw_sys::general as c;
    /// Process numbers; the first process in it is its PID 1.
    pub const PID: u32 = c::CLONE_NEWPID;
    /// Mounts.
    pub const MOUNT: u32 = c::CLONE_NEWNS;
    /// Users and capabilities.
    pub const USER: u32 = c::CLONE_NEWUSER;
    /// Host and domain name.
    pub const NAMES: u32 = c::CLONE_NEWUTS;
    /// Network devices and what belongs to them.
    pub const NETWORK: u32 = c::CLONE_NEWNET;
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one; the new one's number.
    Parent(Pid),
}

/// clone(2) used as fork(2), the child in new [`namespaces`] where told.
///
/// Safe because these programs have one thread: the child is a copy of all of it, and no lock can be held by another.
pub fn fork(new_namespaces: u32) -> Result<Fork> {
    let flags = (new_namespaces & (namespaces::PID | namespaces::MOUNT)) | c::SIGCHLD;
    // SAFETY: without CLONE_VM the child gets a copy of the memory; a null stack means: go on on the copied one (clone(2)).
    let pid = unsafe { call(c::__NR_clone, [flags as usize]) }?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(Pid(pid as i32)) })
}

/// execve(2). Returns only if it failed. Both lists must end with [`Pointer::END`], else it is `EINVAL`.
pub fn execve(path: &CStr, arguments: &[Pointer], environment: &[Pointer]) -> Errno {
    let ends = |list: &[Pointer]| list.last().is_some_and(|last| last.is_end());
    if !ends(arguments) || !ends(environment) {
        return Errno::INVAL;
    }
    let lists = (arguments.as_ptr().expose_provenance(), environment.as_ptr().expose_provenance());
    // SAFETY: the kernel reads the path and two lists of texts; Pointer is a transparent pointer to a live text, and the
    // lists end in null (execve(2)).
    match unsafe { call(c::__NR_execve, [at(path), lists.0, lists.1]) } {
        Ok(_) => Errno::INVAL, // cannot be: a successful execve does not return
        Err(error) => error,
    }
}

/// exit_group(2).
pub fn exit(code: u8) -> ! {
    loop {
        let _ = plain(c::__NR_exit_group, [usize::from(code)]);
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit(2), with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// Not at all: its tracer is told that this signal stopped it. Only those that [`trace_me`] are told of.
    Stopped(i32),
}

impl Ended {
    /// Reads a wait status (wait(2), `WIFEXITED` and its kin).
    pub const fn from_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) as u8),
            0x7f => Self::Stopped((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }

    /// As a shell gives it: 128 + the signal's number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) | Self::Stopped(number) => 128 + number as u8,
        }
    }
}

/// Which children [`wait`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any child.
    Any,
    /// This one.
    One(Pid),
}

/// wait4(2) for a child's end. `None` if `block` is false and there is none to report.
pub fn wait(which: Which, block: bool) -> Result<Option<(Pid, Ended)>> {
    let pid = match which {
        Which::Any => -1,
        Which::One(pid) => pid.0,
    };
    let mut status = 0i32;
    let options = if block { 0 } else { c::WNOHANG as usize };
    let target = (&raw mut status).expose_provenance();
    // SAFETY: the kernel writes one int; a null rusage is allowed (wait4(2)).
    let pid = unsafe { call(c::__NR_wait4, [int(pid), target, options, 0]) }?;
    Ok((pid != 0).then(|| (Pid(pid as i32), Ended::from_status(status))))
}

/// kill(2), one process.
pub fn kill(pid: Pid, signal: Signal) -> Result<()> {
    plain(c::__NR_kill, [int(pid.0), signal.number() as usize]).map(drop)
}

/// kill(2), pid -1: every process that this one may signal, in its pid namespace, but not itself.
pub fn kill_all(signal: Signal) -> Result<()> {
    kill(Pid(-1), signal)
}

/// getpid(2).
pub fn pid() -> Pid {
    Pid(plain(c::__NR_getpid, []).unwrap_or(0) as i32)
}

/// getppid(2).
pub fn parent() -> Pid {
    Pid(plain(c::__NR_getppid, []).unwrap_or(0) as i32)
}

/// setsid(2): a new session, without a controlling terminal.
pub fn new_session() -> Result<()> {
    plain(c::__NR_setsid, []).map(drop)
}

/// setpgid(2): makes a process (`Pid(0)`: this one) the leader of its own group.
pub fn own_group(pid: Pid) -> Result<()> {
    plain(c::__NR_setpgid, [int(pid.0), int(pid.0)]).map(drop)
}

/// sched_yield(2).
pub fn yield_now() {
    let _ = plain(c::__NR_sched_yield, []);
}

/// pidfd_open(2).
pub fn open(pid: Pid) -> Result<OwnedFd> {
    plain(c::__NR_pidfd_open, [int(pid.0), 0]).map(OwnedFd::from_result)
}

/// pidfd_getfd(2): a duplicate of a file descriptor of the process behind a pidfd.
pub fn take_fd(pidfd: Fd, theirs: Fd) -> Result<OwnedFd> {
    plain(c::__NR_pidfd_getfd, [int(pidfd.0), int(theirs.0), 0]).map(OwnedFd::from_result)
}

/// setns(2) with a pidfd: enters [`namespaces`] of that process. For `PID`, it is this process's children that do.
pub fn join(pidfd: Fd, which: u32) -> Result<()> {
    plain(c::__NR_setns, [int(pidfd.0), which as usize]).map(drop)
}

/// unshare(2).
pub fn unshare(which: u32) -> Result<()> {
    plain(c::__NR_unshare, [which as usize]).map(drop)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the path (chdir(2)).
    unsafe { call(c::__NR_chdir, [at(path)]) }.map(drop)
}

/// fchdir(2).
pub fn chdir_to(folder: Fd) -> Result<()> {
    plain(c::__NR_fchdir, [int(folder.0)]).map(drop)
}

/// close_range(2): closes the descriptors from the first to the last number, where open.
pub fn close_range(first: i32, last: i32) -> Result<()> {
    plain(c::__NR_close_range, [int(first), int(last), 0]).map(drop)
}

/// chroot(2).
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the path (chroot(2)).
    unsafe { call(c::__NR_chroot, [at(path)]) }.map(drop)
}

/// getcwd(2), without its NUL.
pub fn cwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most the buffer's length (getcwd(2)).
    let len = unsafe { call(c::__NR_getcwd, [buffer.as_mut_ptr().expose_provenance(), buffer.len()]) }?;
    buffer.get(..len.saturating_sub(1)).ok_or(Errno::IO)
}

/// umask(2): sets the file mode creation mask, returns the old one.
pub fn umask(mask: u32) -> u32 {
    plain(c::__NR_umask, [mask as usize]).unwrap_or(0) as u32
}

/// prlimit(2) on this process: sets a resource limit.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = c::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let new = (&raw const limit).expose_provenance();
    // SAFETY: the kernel reads one rlimit64; a null old limit is allowed (prlimit(2)).
    unsafe { call(c::__NR_prlimit64, [0, resource as usize, new, 0]) }.map(drop)
}

/// getrusage(2) of this process: user and system time in microseconds, peak resident set in KiB.
pub fn usage() -> Result<(u64, u64, u64)> {
    let mut out = MaybeUninit::<c::rusage>::uninit();
    // SAFETY: the kernel fills the whole structure (getrusage(2)).
    let out = unsafe {
        call(c::__NR_getrusage, [c::RUSAGE_SELF as usize, out.as_mut_ptr().expose_provenance()])?;
        out.assume_init()
    };
    let micros = |seconds: i64, micros: i64| seconds as u64 * 1_000_000 + micros as u64;
    Ok((
        micros(out.ru_utime.tv_sec, out.ru_utime.tv_usec),
        micros(out.ru_stime.tv_sec, out.ru_stime.tv_usec),
        out.ru_maxrss as u64,
    ))
}

/// Requests of ptrace(2) (linux/ptrace.h).
mod trace {
    pub(super) const TRACE_ME: usize = 0;
    pub(super) const PEEK: usize = 2;
    pub(super) const POKE: usize = 5;
    pub(super) const CONTINUE: usize = 7;
    pub(super) const DETACH: usize = 17;
    pub(super) const GET_REGISTER_SET: usize = 0x4204;
    /// The set of the general registers (elf.h, NT_PRSTATUS).
    pub(super) const GENERAL: usize = 1;
}

/// ptrace(2), PTRACE_TRACEME: the parent is told of all this process's signals, and of its execve(2) as of a SIGTRAP.
pub fn trace_me() -> Result<()> {
    plain(c::__NR_ptrace, [trace::TRACE_ME]).map(drop)
}

/// ptrace(2), PTRACE_CONT: lets a stopped child go on, with the signal that stopped it.
pub fn go_on(pid: Pid, signal: i32) -> Result<()> {
    plain(c::__NR_ptrace, [trace::CONTINUE, int(pid.0), 0, int(signal)]).map(drop)
}

/// ptrace(2), PTRACE_DETACH: lets a stopped child go on, and traces it no more.
pub fn let_go(pid: Pid) -> Result<()> {
    plain(c::__NR_ptrace, [trace::DETACH, int(pid.0), 0, 0]).map(drop)
}

/// ptrace(2), PTRACE_GETREGSET: the instruction pointer of a stopped child.
pub fn instruction_pointer(pid: Pid) -> Result<usize> {
    // Longer than any processor's set; the kernel says in the list how much of it there is.
    let mut registers = [0usize; 40];
    let mut list = [registers.as_mut_ptr().expose_provenance(), size_of_val(&registers)];
    let list = list.as_mut_ptr().expose_provenance();
    // SAFETY: the list is an iovec, address and length of an array, which the kernel fills (ptrace(2), readv(2)).
    unsafe { call(c::__NR_ptrace, [trace::GET_REGISTER_SET, int(pid.0), trace::GENERAL, list]) }?;
    Ok(registers[crate::arch::INSTRUCTION_POINTER])
}

/// ptrace(2), PTRACE_PEEKTEXT: a word of a stopped child's memory.
pub fn peek(pid: Pid, address: usize) -> Result<usize> {
    let mut word = 0usize;
    let to = (&raw mut word).expose_provenance();
    // SAFETY: the kernel, unlike the C library's function, writes the word to the fourth argument (ptrace(2), "C library/
    // kernel differences").
    unsafe { call(c::__NR_ptrace, [trace::PEEK, int(pid.0), address, to]) }?;
    Ok(word)
}

/// ptrace(2), PTRACE_POKETEXT: changes a word of a stopped child's memory, even where that is not to be written.
pub fn poke(pid: Pid, address: usize, word: usize) -> Result<()> {
    plain(c::__NR_ptrace, [trace::POKE, int(pid.0), address, word]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(Ended::from_status(7 << 8), Ended::Code(7));
        assert_eq!(Ended::from_status(9), Ended::Signal(9));
        assert_eq!(Ended::from_status(0x0b | 0x80), Ended::Signal(11)); // with a core dump
        assert_eq!(Ended::Signal(15).code(), 143);
        assert_eq!(Ended::from_status(0x7f | 5 << 8), Ended::Stopped(5));
    }

    #[test]
    fn lists_without_an_end_never_reach_the_kernel() {
        assert_eq!(execve(c"/", &[], &[Pointer::END]), Errno::INVAL);
        assert_eq!(execve(c"/", &[Pointer::END], &[Pointer::new(c"x")]), Errno::INVAL);
    }

    #[test]
    fn the_kernel_refuses_to_execute_a_directory() {
        assert_eq!(execve(c"/", &[Pointer::new(c"x"), Pointer::END], &[Pointer::END]), Errno::ACCES);
    }
}
