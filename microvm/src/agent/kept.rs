//! A conversation in a snapshot of a machine whose workload runs: what host and guest have agreed upon by then.
//!
//! ```text
//!   freeze   all that the guest said is taken ▶ what is under way to it, and each stream's window, become bytes ▶ the snapshot
//!   go on    the same windows, with other streams of the host's ▶ what was under way ▶ all else that is to be said
//! ```
//!
//! The sandbox's own process goes on with the new streams. Those that were added belong to whoever added them, who has no part in
//! the new machine: their streams are closed, as if that one had hung up.

use std::sync::mpsc::{Receiver, SyncSender};

use guest_wire::{Kind, Stream};

use super::channel::Channel;
use super::process::{Phase, Process, Windows};
use super::stdio::Streams;
use super::{AgentError, ProcessId};
use crate::snapshot::record::{Malformed, Reader, Writer};

/// The conversation of the sandbox's own process, and who else there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// All processes have lower numbers.
    pub(super) next_id: ProcessId,
    /// The beginning of a frame from the guest.
    incoming: Vec<u8>,
    /// What was to be sent.
    outgoing: Vec<u8>,
    first: Windows,
    /// Processes that were added and have not ended.
    added: Vec<ProcessId>,
}

/// How a frozen conversation is told, and how it learns that it may go on: by the other end's being dropped.
#[derive(Debug)]
pub(super) struct Freeze {
    pub(super) state: SyncSender<Result<Vec<u8>, AgentError>>,
    pub(super) thaw: Receiver<()>,
}

impl Kept {
    /// What is to be kept of these processes.
    ///
    /// # Errors
    /// The sandbox's own does not run.
    pub(super) fn of<'a>(
        next_id: ProcessId,
        channel: &Channel,
        processes: impl Iterator<Item = &'a Process>,
    ) -> Result<Self, AgentError> {
        let (incoming, outgoing) = channel.under_way();
        let mut kept = Self { next_id, incoming, outgoing, ..Self::default() };
        let mut runs = false;
        for process in processes {
            match (process.id, &process.phase) {
                (0, Phase::Running) => {
                    runs = true;
                    kept.first = process.windows();
                }
                (0, _) | (_, Phase::Ended(_)) => {}
                (id, _) => kept.added.push(id),
            }
        }
        if runs { Ok(kept) } else { Err(AgentError::config("the workload does not run; start it first")) }
    }

    /// The conversation goes on over a new channel, and the first process with new streams.
    pub(super) fn go_on(&self, channel: &mut Channel, command: String, streams: Streams) -> Process {
        channel.set_under_way(&self.incoming, &self.outgoing);
        for &id in &self.added {
            for stream in [Stream::Input, Stream::Output, Stream::Error] {
                channel.send(Kind::Closed, stream, id, &[]);
            }
        }
        Process::going_on(command, streams, &self.first, channel)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut record = Writer::default();
        record.value(&self.next_id);
        record.bytes(&self.incoming);
        record.bytes(&self.outgoing);
        record.value(&self.first.input);
        record.value(&u8::from(self.first.is_input_open));
        for (uncredited, is_open) in self.first.outputs {
            record.value(&uncredited);
            record.value(&u8::from(is_open));
        }
        record.bytes(&self.added.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        record.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut record = Reader::new(bytes);
        let next_id = record.value()?;
        let (incoming, outgoing) = (record.bytes()?.to_vec(), record.bytes()?.to_vec());
        let (input, is_input_open) = (record.value()?, record.value::<u8>()? != 0);
        let mut outputs = [(0, false); 2];
        for output in &mut outputs {
            *output = (record.value()?, record.value::<u8>()? != 0);
        }
        let added = record.list()?;
        record.finish()?;
        let first = Windows { input, is_input_open, outputs };
        let kept = Self { next_id, incoming, outgoing, first, added };
        if kept.next_id == 0 || !kept.first.are_possible() { Err(Malformed) } else { Ok(kept) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_noticed_or_harmless() {
        let first = Windows { input: 7, is_input_open: true, outputs: [(9, true), (0, false)] };
        let (incoming, outgoing) = (b"half a".to_vec(), b"frame".to_vec());
        let kept = Kept { next_id: 3, incoming, outgoing, first, added: vec![1, 2] };
        let bytes = kept.to_bytes();
        assert_eq!(Kept::from_bytes(&bytes).unwrap(), kept);
        for at in 0..bytes.len() {
            assert!(Kept::from_bytes(&bytes[..at]).is_err());
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Kept::from_bytes(&damaged);
        }
        let more = Kept { first: Windows { input: u32::MAX, ..Windows::default() }, ..Kept::default() };
        assert!(Kept::from_bytes(&more.to_bytes()).is_err());
    }
}
