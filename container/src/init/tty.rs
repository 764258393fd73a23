//! The terminal: a pseudo-terminal of the container's own devpts (`pty(7)`), its master sent to whoever holds the
//! console socket.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fchown};
use rustix::io::Errno;
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::fault::{At, Fault, Step};
use super::paths;
use super::{devices, link};
use crate::plan::ProcessPlan;
use crate::sys;

/// Makes the terminal, sends its master away, and makes it the standard streams and the controlling terminal of this
/// session. For a container's first process it becomes /dev/console too.
pub(super) fn open(
    plan: &ProcessPlan,
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    is_console: bool,
) -> Result<(), Fault> {
    let (master, slave) = pair(root).at(Step::Console)?;
    if let Some((rows, columns)) = plan.console_size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).at(Step::Console)?;
    }
    // The user must be able to reopen /dev/tty's file, and programs check its owner. A read-only or foreign-owned
    // file system may refuse; the open descriptors work all the same.
    let _ = fchown(&slave, Some(plan.uid), None);
    if is_console {
        let mut name = [0; 32];
        let name = slave_name(&master, &mut name).at(Step::Console)?;
        devices::console(root, name).at(Step::Console)?;
    }
    link::send_descriptor(socket, b"/dev/ptmx", master.as_fd()).at(Step::ConsoleSocket)?;
    ioctl_tiocsctty(&slave).at(Step::Console)?;
    for number in 0..=2 {
        sys::install_fd(slave.as_fd(), number).at(Step::Stdio)?;
    }
    Ok(())
}

/// Opens a pair from the container's devpts. The slave comes from the master (TIOCGPTPEER), not from a path.
fn pair(root: BorrowedFd<'_>) -> sys::Result<(OwnedFd, OwnedFd)> {
    let master = paths::open(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((master, slave))
}

/// "dev/pts/N", written into the buffer: `ptsname(3)` would allocate.
fn slave_name<'a>(master: &OwnedFd, buffer: &'a mut [u8; 32]) -> sys::Result<&'a CStr> {
    let number = sys::pty_number(master)?;
    let (prefix, rest) = buffer.split_at_mut(8);
    prefix.copy_from_slice(b"dev/pts/");
    let mut digits = [0; 10];
    let mut length = 0;
    let mut left = number;
    loop {
        digits[length] = b'0' + (left % 10) as u8;
        length += 1;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    for (to, from) in rest.iter_mut().zip(digits[..length].iter().rev()) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::INVAL)
}
