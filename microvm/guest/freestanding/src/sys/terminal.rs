//! Terminals: the size of the window, and pseudo-terminals (pty(7)).

use core::mem::MaybeUninit;

use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;

use super::{Fd, OwnedFd, Result, call, int, plain};

/// Rows and columns; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Fd {
    /// The window's size: ioctl_tty(2), `TIOCGWINSZ`. Fails with `ENOTTY` where this is no terminal.
    pub fn window(self) -> Result<Size> {
        let mut out = MaybeUninit::<c::winsize>::uninit();
        // SAFETY: the kernel fills the structure.
        let out = unsafe {
            call(c::__NR_ioctl, [int(self.0), i::TIOCGWINSZ as usize, out.as_mut_ptr().expose_provenance()])?;
            out.assume_init()
        };
        Ok(Size { rows: out.ws_row, columns: out.ws_col })
    }

    /// Sets the window's size: `TIOCSWINSZ`. The terminal's foreground process group gets SIGWINCH.
    pub fn set_window(self, size: Size) -> Result<()> {
        let size = c::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel reads the structure.
        unsafe {
            call(c::__NR_ioctl, [int(self.0), i::TIOCSWINSZ as usize, (&raw const size).expose_provenance()])
        }
        .map(drop)
    }

    /// Makes this terminal the session's controlling one: `TIOCSCTTY`.
    pub fn control(self) -> Result<()> {
        plain(c::__NR_ioctl, [int(self.0), i::TIOCSCTTY as usize, 0]).map(drop)
    }

    /// Lets the slave of this pty master be opened: `TIOCSPTLCK`.
    pub fn unlock_pty(self) -> Result<()> {
        let unlocked = 0i32;
        let pointer = (&raw const unlocked).expose_provenance();
        // SAFETY: the kernel reads an int.
        unsafe { call(c::__NR_ioctl, [int(self.0), i::TIOCSPTLCK as usize, pointer]) }.map(drop)
    }

    /// Opens the slave of this pty master without going through a path: `TIOCGPTPEER`.
    pub fn pty_peer(self) -> Result<OwnedFd> {
        let flags = (c::O_RDWR | c::O_NOCTTY | c::O_CLOEXEC) as usize;
        plain(c::__NR_ioctl, [int(self.0), i::TIOCGPTPEER as usize, flags]).map(OwnedFd::from_result)
    }

    /// The number of the slave below /dev/pts: `TIOCGPTN`.
    pub fn pty_number(self) -> Result<u32> {
        let mut number = 0u32;
        let pointer = (&raw mut number).expose_provenance();
        // SAFETY: the kernel writes an unsigned int.
        unsafe { call(c::__NR_ioctl, [int(self.0), i::TIOCGPTN as usize, pointer]) }?;
        Ok(number)
    }
}
