//! The shell's memory, without an allocator: a stack of texts, and the variables.

use core::ffi::CStr;

use freestanding::args::Pointer;
use freestanding::sys;
use freestanding::sys::memory::Array;

/// There is no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

const STACK: usize = 256 * 1024;
const VARIABLES: usize = 128 * 1024;

/// Texts ending in NUL, one after another. A command puts its words here and takes them off when it is done.
#[derive(Debug)]
pub struct Stack {
    bytes: Array<u8>,
    len: usize,
}

impl Stack {
    /// An empty one.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> sys::Result<Self> {
        Ok(Self { bytes: Array::new(STACK)?, len: 0 })
    }

    /// The place of the next byte.
    pub const fn mark(&self) -> usize {
        self.len
    }

    /// Takes off everything from this place on.
    pub fn reset(&mut self, mark: usize) {
        self.len = self.len.min(mark);
    }

    /// Adds a byte.
    ///
    /// # Errors
    /// No room.
    pub fn push(&mut self, byte: u8) -> Result<(), Full> {
        *self.bytes.get_mut(self.len).ok_or(Full)? = byte;
        self.len += 1;
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// No room.
    pub fn push_all(&mut self, bytes: &[u8]) -> Result<(), Full> {
        bytes.iter().try_for_each(|&byte| self.push(byte))
    }

    /// What was added since.
    pub fn since(&self, mark: usize) -> &[u8] {
        self.bytes.get(mark..self.len).unwrap_or(&[])
    }

    /// The texts added since.
    pub fn texts(&self, mark: usize) -> impl Iterator<Item = &CStr> {
        let mut rest = self.since(mark);
        core::iter::from_fn(move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(text.count_bytes() + 1..)?;
            Some(text)
        })
    }

    /// The text at this place.
    pub fn text(&self, mark: usize) -> &CStr {
        self.texts(mark).next().unwrap_or(c"")
    }
}

/// Before each variable: whether programs get it.
const EXPORTED: u8 = b'+';
const OWN: u8 = b'-';

/// Variables: `+NAME=value NUL` one after another, a new value at the end.
#[derive(Debug)]
pub struct Variables {
    bytes: Array<u8>,
    len: usize,
}

impl Variables {
    /// None.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> sys::Result<Self> {
        Ok(Self { bytes: Array::new(VARIABLES)?, len: 0 })
    }

    fn entries(&self) -> impl Iterator<Item = (usize, u8, &CStr)> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let (flag, rest) = self.bytes.get(at..self.len)?.split_first()?;
            let entry = CStr::from_bytes_until_nul(rest).ok()?;
            let start = at;
            at += entry.count_bytes() + 2;
            Some((start, *flag, entry))
        })
    }

    fn find(&self, name: &[u8]) -> Option<(usize, u8, &CStr)> {
        self.entries().find(|(_, _, entry)| {
            entry.to_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
        })
    }

    /// A variable's value.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).and_then(|(_, _, entry)| entry.to_bytes().get(name.len() + 1..))
    }

    /// Sets a variable; it stays exported if it was.
    ///
    /// # Errors
    /// No room: the old value is gone then.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Full> {
        let flag = self.find(name).map_or(OWN, |(_, flag, _)| flag);
        self.unset(name);
        let parts: [&[u8]; 5] = [&[flag], name, b"=", value, b"\0"];
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut room = self.bytes.get_mut(self.len..).filter(|room| room.len() >= len).ok_or(Full)?;
        for part in parts {
            let (place, rest) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
            room = rest;
        }
        self.len += len;
        Ok(())
    }

    /// Gives the variable to programs.
    pub fn export(&mut self, name: &[u8]) {
        if let Some((at, ..)) = self.find(name)
            && let Some(flag) = self.bytes.get_mut(at)
        {
            *flag = EXPORTED;
        }
    }

    /// Removes a variable.
    pub fn unset(&mut self, name: &[u8]) {
        if let Some((at, _, entry)) = self.find(name) {
            let end = at + entry.count_bytes() + 2;
            self.bytes.copy_within(end..self.len, at);
            self.len -= end - at;
        }
    }

    /// The exported ones, as programs get them.
    pub fn exported(&self) -> impl Iterator<Item = &CStr> {
        self.entries().filter(|(_, flag, _)| *flag == EXPORTED).map(|(_, _, entry)| entry)
    }

    /// The same as a list for execve(2).
    ///
    /// # Errors
    /// No memory.
    pub fn environment(&self) -> sys::Result<Array<Pointer<'_>>> {
        let mut list = Array::new(self.exported().count() + 1)?;
        for (slot, entry) in list.iter_mut().zip(self.exported()) {
            *slot = Pointer::new(entry);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_replaced_and_removed() {
        let mut variables = Variables::new().unwrap();
        for (name, value) in [("A", "1"), ("AB", "2"), ("A", "3")] {
            variables.set(name.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!((variables.get(b"A"), variables.get(b"AB")), (Some(&b"3"[..]), Some(&b"2"[..])));
        variables.unset(b"A");
        assert_eq!((variables.get(b"A"), variables.get(b"AB")), (None, Some(&b"2"[..])));
    }

    #[test]
    fn only_exported_variables_reach_programs_and_stay_exported() {
        let mut variables = Variables::new().unwrap();
        variables.set(b"A", b"1").unwrap();
        variables.set(b"B", b"2").unwrap();
        variables.export(b"A");
        variables.set(b"A", b"3").unwrap();
        assert_eq!(variables.exported().collect::<Vec<_>>(), [c"A=3"]);
        assert_eq!(variables.environment().unwrap().len(), 2);
    }

    #[test]
    fn a_full_store_says_so() {
        let mut variables = Variables::new().unwrap();
        assert_eq!(variables.set(b"A", &vec![b'x'; VARIABLES]), Err(Full));
        let mut stack = Stack::new().unwrap();
        assert_eq!(stack.push_all(&vec![b'x'; STACK + 1]), Err(Full));
    }
}
