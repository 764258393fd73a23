//! Signals: what is sent to `lab run` is meant for the workload.
//!
//! They are taken by signalfd(2), so that the loop which waits for output and for the end waits for them as well, and no
//! handler runs at a moment of its own choosing. As docker's `--sig-proxy` they are passed on; the third interrupt or
//! termination kills, for a PID 1 without a handler ignores both (pid_namespaces(7)).

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Error;
use super::error::Context as _;

/// What is passed on. Left alone: those that report a fault of this very process (SIGSEGV), those of which the kernel
/// tells this process about itself (SIGCHLD, SIGPIPE, SIGTTIN, SIGTTOU).
const TAKEN: [Signal; 14] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// After so many interrupts the workload is killed.
const PATIENCE: u8 = 3;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Pass this signal on.
    Deliver(i32),
    /// The terminal has a new size.
    Resize,
}

/// The signals sent to this process, from [`Signals::take`] until dropped.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
    interrupts: u8,
}

impl Signals {
    /// Takes them. Threads made later inherit the blocked mask, so that they do not get in between.
    ///
    /// # Errors
    /// Where the process has no file descriptor left.
    pub fn take() -> Result<Self, Error> {
        let mask: SigSet = TAKEN.into_iter().collect();
        let before =
            mask.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).context("block", "signals")?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("open", "a signalfd")?;
        Ok(Self { fd, before, interrupts: 0 })
    }

    /// The next signal that arrived, if there is one.
    pub fn arrived(&mut self) -> Option<Ask> {
        let arrived = self.fd.read_signal().ok().flatten()?;
        Some(self.ask(arrived.ssi_signo as i32))
    }

    fn ask(&mut self, signal: i32) -> Ask {
        match Signal::try_from(signal) {
            Ok(Signal::SIGWINCH) => Ask::Resize,
            Ok(Signal::SIGINT | Signal::SIGTERM) => {
                self.interrupts = self.interrupts.saturating_add(1);
                if self.interrupts >= PATIENCE {
                    Ask::Deliver(Signal::SIGKILL as i32)
                } else {
                    Ask::Deliver(signal)
                }
            }
            _ => Ask::Deliver(signal),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_interrupt_kills() {
        let mut signals = Signals::take().unwrap();
        assert_eq!(signals.ask(2), Ask::Deliver(2));
        assert_eq!(signals.ask(15), Ask::Deliver(15));
        assert_eq!(signals.ask(1), Ask::Deliver(1));
        assert_eq!(signals.ask(2), Ask::Deliver(9));
    }

    #[test]
    fn a_signal_sent_to_this_thread_is_read_instead_of_acted_upon() {
        let mut signals = Signals::take().unwrap();
        assert_eq!(signals.arrived(), None);
        nix::sys::pthread::pthread_kill(nix::sys::pthread::pthread_self(), Signal::SIGHUP).unwrap();
        assert_eq!(signals.arrived(), Some(Ask::Deliver(1)));
        assert_eq!(signals.arrived(), None);
    }
}
