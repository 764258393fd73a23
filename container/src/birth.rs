//! Where this thread's children are born: `setns(2)` with a pid namespace moves only those (`pid_namespaces(7)`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::error::{Context, Result};

/// This thread's children are born in another pid namespace until it comes back.
#[derive(Debug)]
pub(crate) struct BornElsewhere(OwnedFd);

impl BornElsewhere {
    /// In the pid namespace of the process behind a pidfd.
    pub(crate) fn with_process(process: BorrowedFd<'_>) -> Result<Self> {
        let own = own()?;
        move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)
            .context("join the pid namespace of", "the container")?;
        Ok(Self(own))
    }

    /// In the pid namespace behind a link of /proc.
    pub(crate) fn behind_link(link: BorrowedFd<'_>) -> Result<Self> {
        let own = own()?;
        move_into_link_name_space(link, Some(LinkNameSpaceType::ProcessID))
            .context("join the pid namespace of", "linux.namespaces")?;
        Ok(Self(own))
    }

    pub(crate) fn come_back(self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .context("return to", "this thread's pid namespace")
    }
}

fn own() -> Result<OwnedFd> {
    open("/proc/thread-self/ns/pid_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open", "this thread's pid namespace")
}
