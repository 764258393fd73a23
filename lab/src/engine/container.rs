//! The first wall behind the trait: crate `container`, namespaces and control groups of the host's kernel.

use std::os::fd::BorrowedFd;

use container::{CreateOptions, RootFs};
use oci_spec::runtime::{LinuxResources, Process};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Error;
use super::error::Context as _;
use super::place::Roots;
use super::run::Creation;
use super::sandbox::{Exit, Inside, Sandbox, Stdio};

/// A workload in a container.
pub struct Container(container::Container);

impl Container {
    /// Sets the container up over the image's layers; its command waits to be started.
    pub fn create(creation: Creation<'_>) -> Result<Self, Error> {
        let (upper, work) = creation.place.writable_layer()?;
        let mut options =
            CreateOptions::new(creation.roots.containers(), creation.id, creation.place.bundle());
        options.stdio = streams(creation.stdio);
        options.rootfs = RootFs::Overlay { lower: creation.layers.to_owned(), upper, work };
        options.timeline = creation.timeline;
        let created = container::create(options)?;
        Ok(Self(created))
    }
}

impl Sandbox for Container {
    fn start(&mut self) -> Result<(), Error> {
        Ok(self.0.start()?)
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.0.exit_fd()
    }

    fn wait(&mut self) -> Result<Exit, Error> {
        Ok(exit(self.0.wait()?))
    }

    fn kill(&mut self, signal: i32) -> Result<(), Error> {
        match self.0.kill(signal) {
            // It has ended by itself meanwhile: what the signal was to bring about.
            Err(container::Error::State { .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    fn resize(&mut self, master: BorrowedFd<'_>, size: Winsize) -> Result<(), Error> {
        tcsetwinsize(master, size).context("set the size of", "the container's terminal")
    }

    fn pause(&mut self) -> Result<(), Error> {
        Ok(self.0.pause()?)
    }

    fn resume(&mut self) -> Result<(), Error> {
        Ok(self.0.resume()?)
    }

    fn exec(&mut self, process: Process, stdio: Stdio) -> Result<Box<dyn Inside>, Error> {
        let mut options = container::ExecOptions::new(process);
        options.stdio = streams(stdio);
        Ok(Box::new(Joined(self.0.exec(options)?)))
    }

    fn update(&mut self, resources: &LinuxResources) -> Result<(), Error> {
        Ok(self.0.update(resources)?)
    }

    fn pid(&self) -> Option<i32> {
        self.0.pid()
    }

    fn delete(self: Box<Self>) -> Result<(), Error> {
        Ok(self.0.delete(true)?)
    }
}

/// A process that joined a container.
struct Joined(container::Running);

impl Inside for Joined {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.0.exit_fd()
    }

    fn wait(&mut self) -> Result<Exit, Error> {
        Ok(exit(self.0.wait()?))
    }

    fn pid(&self) -> Option<i32> {
        Some(self.0.pid())
    }
}

fn streams(stdio: Stdio) -> container::Stdio {
    match stdio {
        Stdio::Fds { stdin, stdout, stderr } => container::Stdio::Fds { stdin, stdout, stderr },
        Stdio::Console(socket) => container::Stdio::Console(socket),
    }
}

fn exit(exit: container::Exit) -> Exit {
    match exit {
        container::Exit::Code(code) => Exit::Code(code),
        container::Exit::Signal(signal) => Exit::Signal(signal),
    }
}

/// Ends and removes a container that a killed process left, if there is one.
pub fn clear(roots: &Roots, id: &str) {
    if let Ok(container) = container::Container::load(&roots.containers(), id) {
        let _ = container.delete(true);
    }
}
