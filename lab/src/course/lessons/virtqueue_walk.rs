//! A split virtqueue (virtio 1.2, section 2.7), served by the student's program, then read as the driver reads it.

use std::fs;
use std::path::Path;

use super::super::Error;
use super::super::compile::{self, Tools};
use super::super::error::Context as _;
use super::super::machine::{Registers, SIZE};
use super::super::sandbox::Limit;
use super::{Cause, Seen, room, secret, unseen};

/// Entries of the queue.
const QUEUE: u16 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// The queue's parts, and what the driver expects.
struct Queue {
    descriptors: u64,
    available: u64,
    used: u64,
    last: u16,
    chains: Vec<Chain>,
}

/// A chain: its head, the buffers for the answer, the answer. A circle has none.
struct Chain {
    head: u16,
    room: Vec<(usize, usize)>,
    answer: Vec<u8>,
}

/// Lays out a queue, runs the program, compares.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let page = secret(1..0x80) * 0x1000;
    let mut queue = Queue {
        descriptors: page,
        available: page + 0x1000,
        used: page + 0x2000,
        // Near the end of the numbers, so that they wrap; never a multiple of the size.
        last: 65_536u32.wrapping_sub(secret(1..3) as u32) as u16,
        chains: Vec::new(),
    };
    let mut memory = vec![0; SIZE as usize];
    queue.offer(&mut memory);
    let room = room(program)?;
    let file = room.root().join("lesson/memory");
    fs::write(&file, &memory).at("write", &file)?;
    let mut live = room.start()?;
    live.say(&format!(
        "size={QUEUE}\ndesc={}\navail={}\nused={}\nlast={}\n\n",
        queue.descriptors, queue.available, queue.used, queue.last
    ));
    let done = live.listen().as_deref().and_then(Registers::parse).is_some();
    let after = compile::read_at_most(&live.root().join("lesson/memory"), SIZE)?;
    let ended = live.finish()?;
    let mut seen = Seen::default();
    let cause = || match ended.limit {
        Some(Limit::Time | Limit::Memory) => {
            let circle = queue.chains[1].head;
            Cause::new("circle-followed").fact("index", circle).fact("next", circle + 1)
        }
        _ => unseen(&ended, "failed"),
    };
    let whole = done && after.len() == memory.len();
    seen.judge("ends", (!whole).then(cause));
    if whole {
        queue.judge(&mut seen, &memory, &after);
    }
    seen.output = ended.output;
    Ok(seen)
}

impl Queue {
    /// Three chains: a short one, a circle, one in several parts whose answer does not quite fit.
    fn offer(&mut self, memory: &mut [u8]) {
        let data = self.used as usize + 0x1000;
        let text = |words: u64| {
            let words: Vec<String> = (0..words).map(|_| format!("w{}", secret(10_000..100_000))).collect();
            words.join(" ").into_bytes()
        };
        let (short, long) = (text(2), text(4));
        let parts: [(&[&[u8]], &[usize]); 2] = [
            (&[&short], &[short.len() + 10]),
            (&[&long[..5], &long[5..17], &long[17..]], &[9, long.len() - 12]),
        ];
        let mut place = data;
        let mut index = 0;
        for (number, (requests, rooms)) in parts.into_iter().enumerate() {
            let head = index;
            let count = requests.len() + rooms.len();
            let mut chain = Chain { head, room: Vec::new(), answer: requests.concat().to_ascii_uppercase() };
            let lengths = requests
                .iter()
                .map(|request| (request.len(), 0))
                .chain(rooms.iter().map(|&room| (room, WRITE)));
            for (step, (length, write)) in lengths.enumerate() {
                if let Some(request) = requests.get(step) {
                    memory[place..place + length].copy_from_slice(request);
                } else {
                    chain.room.push((place, length));
                }
                let more = if step + 1 < count { NEXT } else { 0 };
                self.describe(memory, index, (place, length), write | more, index + 1);
                place += length + secret(1..64) as usize;
                index += 1;
            }
            let room = chain.room.iter().map(|(_, length)| length).sum();
            chain.answer.truncate(room);
            self.chains.push(chain);
            if number == 0 {
                // Two descriptors that lead to each other.
                self.describe(memory, index, (place, 4), NEXT, index + 1);
                self.describe(memory, index + 1, (place, 4), NEXT, index);
                self.chains.push(Chain { head: index, room: Vec::new(), answer: Vec::new() });
                index += 2;
            }
        }
        for (number, chain) in self.chains.iter().enumerate() {
            let slot = self.slot(number);
            put(memory, self.available as usize + 4 + slot * 2, &chain.head.to_le_bytes());
        }
        // What an entry holds that nobody has written is no chain's head, not even that of the first, which is 0.
        let ring = self.used as usize + 4;
        memory[ring..ring + usize::from(QUEUE) * 8].fill(0xff);
        let new = self.last.wrapping_add(self.chains.len() as u16);
        put(memory, self.available as usize + 2, &new.to_le_bytes());
        put(memory, self.used as usize + 2, &self.last.to_le_bytes());
    }

    fn describe(
        &self,
        memory: &mut [u8],
        index: u16,
        (address, length): (usize, usize),
        flags: u16,
        next: u16,
    ) {
        let at = self.descriptors as usize + usize::from(index) * 16;
        put(memory, at, &(address as u64).to_le_bytes());
        put(memory, at + 8, &(length as u32).to_le_bytes());
        put(memory, at + 12, &flags.to_le_bytes());
        put(memory, at + 14, &next.to_le_bytes());
    }

    fn slot(&self, number: usize) -> usize {
        usize::from(self.last.wrapping_add(number as u16) % QUEUE)
    }

    fn judge(&self, seen: &mut Seen, before: &[u8], after: &[u8]) {
        let number = |at: usize, bytes: usize| {
            let mut value = [0; 4];
            value[..bytes].copy_from_slice(&after[at..at + bytes]);
            u32::from_le_bytes(value)
        };
        let wanted = self.last.wrapping_add(self.chains.len() as u16);
        let index = number(self.used as usize + 2, 2);
        let mut wrong = (index != u32::from(wanted)).then(|| {
            Cause::new("used-index").fact("index", index).fact("before", self.last).fact("wanted", wanted)
        });
        let entry = |place: usize| self.used as usize + 4 + self.slot(place) * 8;
        for (place, chain) in self.chains.iter().enumerate() {
            let id = number(entry(place), 4);
            if id != u32::from(chain.head) && wrong.is_none() {
                let cause = Cause::new("not-wrapped").fact("slot", self.slot(place)).fact("id", id);
                let cause = cause.fact("wanted", chain.head).fact("size", QUEUE);
                wrong = Some(cause.fact("index", self.last.wrapping_add(place as u16)));
            }
        }
        seen.judge("returned", wrong);
        let (mut answer, mut length) = (None, None);
        for (place, chain) in self.chains.iter().enumerate() {
            let mut found: Vec<u8> =
                chain.room.iter().flat_map(|&(at, size)| &after[at..at + size]).copied().collect();
            found.truncate(chain.answer.len());
            if found != chain.answer {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "·");
                let cause = Cause::new("answer-wrong").fact("head", chain.head).fact("found", text(&found));
                answer = answer.or(Some(cause.fact("wanted", text(&chain.answer))));
            }
            let told = number(entry(place) + 4, 4);
            if told as usize != chain.answer.len() {
                let cause = Cause::new("length-wrong").fact("head", chain.head).fact("found", told);
                length = length.or(Some(cause.fact("wanted", chain.answer.len())));
            }
        }
        seen.judge("written", answer);
        seen.judge("lengths", length);
        let used = self.used as usize..self.used as usize + 4 + usize::from(QUEUE) * 8;
        let may = |at: usize| {
            let inside = |&(start, size): &(usize, usize)| (start..start + size).contains(&at);
            used.contains(&at) || self.chains.iter().any(|chain| chain.room.iter().any(inside))
        };
        let touched = (0..before.len()).find(|&at| before[at] != after[at] && !may(at));
        seen.judge("untouched", touched.map(|at| Cause::new("touched").address("at", at as u64)));
    }
}

fn put(memory: &mut [u8], at: usize, bytes: &[u8]) {
    memory[at..at + bytes.len()].copy_from_slice(bytes);
}
