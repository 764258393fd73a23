//! Processes beside a sandbox's own.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::EventFd;

use crate::Error;
use crate::agent::{Exit, ProcessId, Session};

/// A process that [`Sandbox::exec`](super::Sandbox::exec) started. Dropping it ends nothing but the knowledge of it.
#[derive(Debug)]
pub struct Running {
    pub(super) session: Arc<Session>,
    pub(super) id: ProcessId,
    pub(super) exit: Arc<EventFd>,
}

impl Running {
    /// Becomes readable when it has ended and all its output was passed on, or the guest has ended.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why the conversation with the guest ended before it.
    pub fn wait(&self) -> Result<Exit, Error> {
        Ok(self.session.wait(self.id)?)
    }

    /// Sends it a signal. One that has ended gets none, and that is no error.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match self.session.try_wait(self.id) {
            Some(_) => Ok(()),
            None => Ok(self.session.signal(self.id, signal)?),
        }
    }

    /// Tells its terminal its new size.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        Ok(self.session.resize(self.id, rows, columns)?)
    }

    /// What tells its terminal new sizes, wherever the process itself is kept.
    pub fn resizer(&self) -> impl Fn(u16, u16) + Send + 'static {
        let (session, id) = (self.session.clone(), self.id);
        move |rows, columns| {
            // One that has ended has no terminal any more.
            let _ = session.resize(id, rows, columns);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.session.try_wait(self.id).is_some() {
            self.session.forget(self.id);
        }
    }
}
