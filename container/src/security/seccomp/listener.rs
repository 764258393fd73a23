//! SCMP_ACT_NOTIFY: system calls that another program decides on. The kernel gives their notifications out at a descriptor,
//! which is sent to that program, at `listenerPath`, with the process's state (config-linux.md, "Seccomp").
//!
//! The process loads the filter as its last step and sends the descriptor itself, over a socket that the runtime has
//! connected before. So the filter must let it: `sendmsg` cannot be one of the calls that wait for the listener.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::state::{State, Status};

/// The longest state that is sent: the process reads it onto its stack.
pub(crate) const LONGEST: usize = 16 << 10;

/// Where the notifications go.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// The state, in memory that the process shares; written when its id is known.
    pub(crate) text: OwnedFd,
    metadata: Option<String>,
}

impl Listener {
    /// None where no rule asks for it.
    pub(crate) fn new(profile: &LinuxSeccomp) -> Result<Option<Self>> {
        let notifying = profile.syscalls().iter().flatten().enumerate();
        let mut notifying = notifying.filter(|(_, rule)| rule.action() == Action::ScmpActNotify).peekable();
        let reason = "the runtime's own sendmsg, which hands the listener over, would wait for that listener";
        if profile.default_action() == Action::ScmpActNotify {
            return Err(Error::config(
                "linux.seccomp.defaultAction",
                format!("cannot be SCMP_ACT_NOTIFY: {reason}"),
            ));
        }
        if notifying.peek().is_none() {
            return Ok(None);
        }
        if let Some((index, _)) =
            notifying.find(|(_, rule)| rule.names().iter().any(|name| name == "sendmsg"))
        {
            let field = format!("linux.seccomp.syscalls[{index}].names");
            return Err(Error::config(field, format!("sendmsg cannot be SCMP_ACT_NOTIFY: {reason}")));
        }
        let field = "linux.seccomp.listenerPath";
        let path = profile.listener_path().as_ref();
        let path =
            path.ok_or_else(|| Error::config(field, "is missing: SCMP_ACT_NOTIFY needs a socket to notify"))?;
        let socket = UnixStream::connect(path).map_err(|error| {
            Error::config(field, format!("{}: {error}; does somebody listen there?", path.display()))
        })?;
        let text = memfd_create(c"seccomp", MemfdFlags::CLOEXEC).context("make", "a file in memory")?;
        Ok(Some(Self { socket: socket.into(), text, metadata: profile.listener_metadata().clone() }))
    }

    /// Writes the "container process state" for the process to send.
    pub(crate) fn fill(&self, state: &State, pid: i32, status: Status) -> Result<()> {
        let text = json!({
            "ociVersion": state.oci_version, "fds": ["seccompFd"], "pid": pid,
            "metadata": self.metadata.as_deref().unwrap_or_default(), "state": hooks::state(state, status),
        });
        let text = text.to_string();
        if text.len() > LONGEST {
            return Err(Error::config(
                "annotations",
                "are too long to be sent to the seccomp listener (16 KiB)",
            ));
        }
        let write = || {
            let mut file = File::from(self.text.try_clone()?);
            file.write_all(text.as_bytes())?;
            file.rewind()
        };
        write().context("write", "the state for the seccomp listener")
    }
}
