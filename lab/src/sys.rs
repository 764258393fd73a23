//! The one unsafe part of this crate: what `std` lacks for child processes.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;

// The boot sector of bootable images (`image::bootable`), assembled with this crate; nothing here ever calls it.
std::arch::global_asm!(include_str!("image/bootable/loader.s"));

/// The boot sector's code.
pub(crate) fn boot_sector() -> &'static [u8] {
    unsafe extern "C" {
        static lab_boot_sector: u8;
        static lab_boot_sector_end: u8;
    }
    let (begin, end) = (&raw const lab_boot_sector, &raw const lab_boot_sector_end);
    // SAFETY: `loader.s` defines both symbols, around read-only bytes of one section, the second behind the first.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// The child is killed when the thread that started it ends, however it ends (PR_SET_PDEATHSIG, `prctl(2)`).
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one prctl(2) call, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
}

/// Makes another process of this one; true in the first of both. To be called while there is one thread.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: fork(2) copies this thread only; the caller promises that there is no other whose locks could stay held.
    Ok(matches!(unsafe { nix::unistd::fork()? }, nix::unistd::ForkResult::Parent { .. }))
}

/// Ends the process without running anything that another copy of it will run as well.
pub(crate) fn end_now(code: i32) -> ! {
    // SAFETY: _exit(2) only ends the process.
    unsafe { nix::libc::_exit(code) }
}

/// Goes on as a process of its own: in a new session, a child of init or of the nearest subreaper. The caller's child ends
/// at once. To be called while there is one thread.
pub(crate) fn detach() -> io::Result<()> {
    if fork()? {
        end_now(0);
    }
    rustix::process::setsid()?;
    Ok(())
}

/// Gives the heap's free pages back to the kernel, and has all threads share one heap from now on: each would keep some
/// hundred kilobytes for itself otherwise (mallopt(3), malloc_trim(3)).
pub(crate) fn lean_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls only tune the allocator, at any time, and take their own locks.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
        nix::libc::malloc_trim(0);
    }
}

/// Standard output becomes this file, input and error /dev/null.
pub(crate) fn stand_on(file: &OwnedFd) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(file)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Standard input, output and error become /dev/null.
pub(crate) fn close_standard_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// The child keeps these descriptors, under the same numbers. They must stay open in this process until it is spawned.
pub(crate) fn inherit(command: &mut Command, descriptors: &[RawFd]) {
    let descriptors = descriptors.to_vec();
    let keep = move || {
        for &descriptor in &descriptors {
            // SAFETY: the caller keeps the descriptor open until spawn, and the borrow ends with this call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes fcntl(2) calls only, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(keep) };
}

/// Whether the other side has not read yet all that was written to a socket (SIOCOUTQ, unix(7)).
pub(crate) fn has_unread(socket: impl std::os::fd::AsFd) -> io::Result<bool> {
    // linux/sockios.h: SIOCOUTQ is TIOCOUTQ.
    const OUTQ: rustix::ioctl::Opcode = nix::libc::TIOCOUTQ as rustix::ioctl::Opcode;
    // SAFETY: the request writes one int (unix_ioctl in the kernel's net/unix/af_unix.c), which is what the getter gives it.
    let unread: i32 = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<OUTQ, i32>::new())? };
    Ok(unread > 0)
}

/// The sockets that systemd opened for this process (sd_listen_fds(3)): they begin at descriptor 3.
pub(crate) fn activated_sockets() -> Vec<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if u32::try_from(pid) == Ok(std::process::id()) => count.clamp(0, 64),
        _ => 0,
    };
    (3..3 + count)
        .filter_map(|descriptor| {
            // SAFETY: fcntl(2) takes any number; one that is not open is an error, and nothing is borrowed after the call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
            // SAFETY: it is open, and by the protocol it is this process's to keep; each is taken once, at the start.
            Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
        })
        .collect()
}

/// Tells systemd, if it started this process, that it is ready (sd_notify(3)).
pub(crate) fn notify_ready() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").and_then(|path| path.into_string().ok()) else {
        return;
    };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    // Where nobody listens, nobody waits.
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(b"READY=1", &address);
    }
}

/// Sets what a signal does, in the whole process.
pub(crate) fn handle_signal(signal: Signal, action: &nix::sys::signal::SigAction) {
    // SAFETY: the one handler that is ever given here does nothing, which is async-signal-safe (signal-safety(7)).
    let _ = unsafe { nix::sys::signal::sigaction(signal, action) };
}
