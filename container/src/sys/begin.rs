//! What Rust's own start does before `main` and a program cannot do without, for one that starts without it.

use std::os::fd::IntoRawFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{stderr, stdin, stdout};

/// Makes sure that the descriptors 0 to 2 are open, or the next file that is opened would be taken for standard output;
/// and makes writing to a pipe that nobody reads an error instead of the program's end (`pipe(7)`, SIGPIPE).
///
/// For a program's only thread, first of all.
pub fn begin_program() {
    let streams = [stdin(), stdout(), stderr()];
    let mut fds = streams.each_ref().map(|stream| PollFd::new(stream, PollFlags::empty()));
    let looked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let closed = fds.iter().filter(|fd| looked.is_ok() && fd.revents().contains(PollFlags::NVAL)).count();
    for _ in 0..closed {
        // Takes the lowest number that is free (open(2)).
        let _ = open(c"/dev/null", OFlags::RDWR, Mode::empty()).map(IntoRawFd::into_raw_fd);
    }
    // SAFETY: the handler is none of ours, so nothing runs in a signal's context (signal(2)).
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
