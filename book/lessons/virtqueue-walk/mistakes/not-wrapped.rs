//! Virtqueues: walk what the driver offers.

use std::io;

use lesson::vm::{build, read, write};

const NEXT: u16 = 1;
const WRITE: u16 = 2;

struct Queue {
    size: u64,
    descriptors: u64,
    available: u64,
    used: u64,
}

/// What a chain asks for: the bytes that it brings, and the room that it has for an answer.
struct Chain {
    request: Vec<u8>,
    room: Vec<(u64, usize)>,
}

impl Queue {
    /// Follows a chain. None where it has more descriptors than the queue: then it leads in a circle.
    fn walk(&self, memory: &[u8], head: u16) -> io::Result<Option<Chain>> {
        let mut chain = Chain { request: Vec::new(), room: Vec::new() };
        let mut index = head;
        for _ in 0..self.size {
            let at = self.descriptors + u64::from(index) * 16;
            let address = u64::from_le_bytes(read(memory, at)?);
            let length = u32::from_le_bytes(read(memory, at + 8)?) as usize;
            let flags = u16::from_le_bytes(read(memory, at + 12)?);
            if flags & WRITE != 0 {
                chain.room.push((address, length));
            } else {
                for offset in 0..length as u64 {
                    chain.request.extend(read::<1>(memory, address + offset)?);
                }
            }
            if flags & NEXT == 0 {
                return Ok(Some(chain));
            }
            index = u16::from_le_bytes(read(memory, at + 14)?);
        }
        Ok(None)
    }

    /// Serves a chain; returns how many bytes were written.
    fn serve(&self, memory: &mut [u8], head: u16) -> io::Result<u32> {
        let Some(chain) = self.walk(memory, head)? else { return Ok(0) };
        let answer = chain.request.to_ascii_uppercase();
        let mut left = &answer[..];
        for (address, length) in chain.room {
            let (now, later) = left.split_at(length.min(left.len()));
            write(memory, address, now)?;
            left = later;
        }
        Ok((answer.len() - left.len()) as u32)
    }
}

fn main() -> io::Result<()> {
    build(|given, memory, _| {
        let queue = Queue {
            size: given.number("size"),
            descriptors: given.number("desc"),
            available: given.number("avail"),
            used: given.number("used"),
        };
        let new = u16::from_le_bytes(read(memory, queue.available + 2)?);
        let mut last = given.number("last") as u16;
        while last != new {
            let slot = u64::from(last.wrapping_sub(given.number("last") as u16));
            let head = u16::from_le_bytes(read(memory, queue.available + 4 + slot * 2)?);
            let length = queue.serve(memory, head)?;
            let entry = queue.used + 4 + slot * 8;
            write(memory, entry, &u32::from(head).to_le_bytes())?;
            write(memory, entry + 4, &length.to_le_bytes())?;
            last = last.wrapping_add(1);
        }
        // Last of all: what the driver sees by it is whole.
        write(memory, queue.used + 2, &last.to_le_bytes())
    })
}
