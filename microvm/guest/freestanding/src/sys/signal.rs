//! Signals, without handlers: programs block those that they care about and collect them.

use core::mem::MaybeUninit;

use linux_raw_sys::general as c;

use super::time::Duration;
use super::{Errno, OwnedFd, Result, call, int};

/// A signal's number, known to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// Terminal hang-up.
    pub const HUP: Self = Self(c::SIGHUP as u8);
    /// Ctrl-C.
    pub const INT: Self = Self(c::SIGINT as u8);
    /// A breakpoint; and what a tracer is told of an execve(2).
    pub const TRAP: Self = Self(c::SIGTRAP as u8);
    /// Cannot be refused.
    pub const KILL: Self = Self(c::SIGKILL as u8);
    /// Polite request to end.
    pub const TERM: Self = Self(c::SIGTERM as u8);
    /// A child ended.
    pub const CHLD: Self = Self(c::SIGCHLD as u8);
    /// A pipe without a reader.
    pub const PIPE: Self = Self(c::SIGPIPE as u8);
    /// The window's size changed.
    pub const WINCH: Self = Self(c::SIGWINCH as u8);

    /// A signal by number: 1 to 64.
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number as u8)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// By name, with or without `SIG`, or by number in decimal.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        if let Some(number) = crate::text::parse_number(name) {
            return Self::new(u32::try_from(number).ok()?);
        }
        let name = name.strip_prefix(b"SIG").unwrap_or(name);
        let index = NAMES.iter().position(|known| known.as_bytes() == name)?;
        Self::new(index as u32 + 1)
    }

    /// Its name without `SIG`, if it is one of the 31 classic ones.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0) - 1).copied()
    }
}

/// signal(7), x86 and ARM numbering.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A set of signals: bit n - 1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// Just these.
    pub const fn of(signals: &[Signal]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i].0 - 1);
            i += 1;
        }
        Self(bits)
    }

    /// These, and another.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << (signal.0 - 1))
    }

    /// These, but not this one.
    #[must_use]
    pub const fn without(self, signal: Signal) -> Self {
        Self(self.0 & !(1 << (signal.0 - 1)))
    }

    /// Whether the signal is in it.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }
}

const SET_BYTES: usize = size_of::<u64>();

/// rt_sigprocmask(2): blocks just these signals, returns what was blocked before.
pub fn set_blocked(set: Set) -> Result<Set> {
    let mut old = Set::EMPTY;
    let pointers = ((&raw const set).expose_provenance(), (&raw mut old).expose_provenance());
    // SAFETY: the kernel reads one set of eight bytes and writes another (sigprocmask(2)).
    unsafe { call(c::__NR_rt_sigprocmask, [c::SIG_SETMASK as usize, pointers.0, pointers.1, SET_BYTES]) }?;
    Ok(old)
}

/// rt_sigaction(2): ignore a signal, or take the default action. Ignoring is inherited across execve.
pub fn set_ignored(signal: Signal, ignored: bool) -> Result<()> {
    // struct kernel_sigaction: handler (0 default, 1 ignore), flags, restorer, mask: 32 bytes (sigaction(2), "C
    // library/kernel differences"); on aarch64 without the restorer, 24 bytes, of which these are a longer form.
    let action = [u64::from(ignored), 0, 0, 0];
    let pointer = (&raw const action).expose_provenance();
    // SAFETY: the kernel reads the structure; no handler means that no code address is in it.
    unsafe { call(c::__NR_rt_sigaction, [signal.number() as usize, pointer, 0, SET_BYTES]) }.map(drop)
}

/// signalfd4(2): readable while one of these signals, which must be blocked, is pending.
pub fn signal_fd(set: Set) -> Result<OwnedFd> {
    let flags = (c::O_CLOEXEC | c::O_NONBLOCK) as usize; // SFD_CLOEXEC, SFD_NONBLOCK: the same bits (signalfd(2))
    // SAFETY: the kernel reads one set of eight bytes.
    unsafe { call(c::__NR_signalfd4, [int(-1), (&raw const set).expose_provenance(), SET_BYTES, flags]) }
        .map(OwnedFd::from_result)
}

/// Reads a signal from a [`signal_fd`], if one is pending.
pub fn next(fd: &OwnedFd) -> Option<Signal> {
    let mut info = [0u8; 128]; // struct signalfd_siginfo; its first field is the number (signalfd(2))
    match fd.read(&mut info) {
        Ok(128) => Signal::new(u32::from_le_bytes([info[0], info[1], info[2], info[3]])),
        _ => None,
    }
}

/// rt_sigtimedwait(2): waits for one of these signals, which must be blocked; at most so long, if told.
/// `None` when the time is over.
pub fn wait_for(set: Set, timeout: Option<Duration>) -> Result<Option<Signal>> {
    let time = timeout.map_or(MaybeUninit::zeroed(), |time| MaybeUninit::new(time.to_kernel()));
    let time = if timeout.is_some() { time.as_ptr().expose_provenance() } else { 0 };
    // SAFETY: the kernel reads a set and, if not null, a time; a null siginfo is allowed (sigtimedwait(2)).
    let result =
        unsafe { call(c::__NR_rt_sigtimedwait, [(&raw const set).expose_provenance(), 0, time, SET_BYTES]) };
    match result {
        Ok(number) => Ok(Signal::new(number as u32)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(Signal::from_name(b"TERM"), Some(Signal::TERM));
        assert_eq!(Signal::from_name(b"SIGKILL"), Some(Signal::KILL));
        assert_eq!(Signal::from_name(b"28"), Some(Signal::WINCH));
        for wrong in [&b""[..], b"0", b"65", b"NOPE", b"-9"] {
            assert_eq!(Signal::from_name(wrong), None);
        }
        assert_eq!(Signal::CHLD.name(), Some("CHLD"));
        assert_eq!(Signal::new(64).unwrap().name(), None);
    }

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        let set = Set::of(&[Signal::TERM, Signal::CHLD]);
        assert!(set.contains(Signal::TERM) && set.contains(Signal::CHLD) && !set.contains(Signal::INT));
    }
}
