//! The payload of `Setup` and `Exec`: a list of tagged fields, read in place, without an allocator.
//!
//! A field is its tag (u8), its length (u32, little-endian) and its bytes. Text fields end in a NUL byte that their length
//! counts, so that the guest passes them to system calls where they lie.

use crate::frame::numbered;

numbered! {
    /// What a field means. Numbers are u32 or u64 little-endian as said; texts end in NUL.
    Tag {
        /// Setup: block device of the root file system (text, e.g. `/dev/vda`); a folder for `bind`, relative to the shares.
        RootDevice = 1,
        /// Setup: its file system (text, e.g. `erofs`), or `bind`.
        RootType = 2,
        /// Setup: the workload cannot write to the root (empty).
        RootReadOnly = 3,
        /// Setup, Renew: the sandbox's host name (text).
        HostName = 4,
        /// Setup: the sandbox's NIS domain name (text).
        DomainName = 5,
        /// Setup: a mount: flags for `mount(2)` (u64), then four texts: source, target, type, data. In order.
        Mount = 6,
        /// Setup: a path to hide (text).
        MaskedPath = 7,
        /// Setup: a path to make read-only (text).
        ReadOnlyPath = 8,
        /// Setup: two texts, a name below /proc/sys with slashes and its value.
        Sysctl = 9,
        /// Setup, Renew: seconds and nanoseconds (two u64) of the host's CLOCK_REALTIME, to set the guest's clock by.
        Time = 10,
        /// Renew: random bytes for the kernel's generator.
        Seed = 11,
        /// Setup: the tag of the virtio-fs device whose top directory holds what the host shares (text). A bind mount whose
        /// source is relative takes it from there.
        Shares = 12,
        /// Setup: the root device is itself written to, without an overlay (empty).
        RootWritable = 13,
        /// Setup, Renew: a network card: its hardware address (6 bytes), IPv4 address (4), how many of its bits name the
        /// network (1), and the gateway (4; 0.0.0.0 for none). The first is eth0.
        Interface = 16,
        /// Setup, Renew: a file of the sandbox's own, over the image's: its path (text), then what it holds.
        File = 17,

        /// Exec, Start: one argument (text). In order; at least one.
        Arg = 32,
        /// Exec, Start: one `NAME=value` of the environment (text). In order.
        Env = 33,
        /// Exec: the working directory (text).
        Cwd = 34,
        /// Exec: user id, then group id (two u32).
        User = 35,
        /// Exec: one additional group id (u32).
        Group = 36,
        /// Exec: file mode creation mask (u32).
        Umask = 37,
        /// Exec: a terminal: rows, columns (two u16); 0 where unknown.
        Terminal = 38,
        /// Exec: a resource limit: RLIMIT_ number (u32), soft, hard (two u64).
        Rlimit = 39,
        /// Exec: five u64 bit sets: bounding, effective, inheritable, permitted, ambient (capabilities(7)).
        Capabilities = 40,
        /// Exec: set no_new_privs (empty).
        NoNewPrivileges = 41,
        /// Exec: OOM score adjustment (u32, two's complement).
        OomScoreAdj = 42,
        /// Exec: no standard input: /dev/null in its place (empty).
        NoInput = 43,
    }
}

/// One field of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What it means.
    pub tag: Tag,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Field<'a> {
    /// The bytes as a text ending in NUL, if they are one and hold no other NUL.
    pub fn text(&self) -> Option<&'a core::ffi::CStr> {
        core::ffi::CStr::from_bytes_with_nul(self.bytes).ok()
    }

    /// The bytes as a u32, if there are just four.
    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.try_into().ok()?))
    }

    /// The u64 at byte `offset`, if there is one.
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Reads the fields of a payload one after another. Ends early, with `None`, at the first that is malformed;
/// [`Fields::is_done`] tells the two ends apart.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of this payload.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Whether the whole payload was read.
    pub const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (&[tag, l0, l1, l2, l3], rest) = self.rest.split_first_chunk()?;
        let tag = Tag::from_byte(tag)?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes([l0, l1, l2, l3]) as usize)?;
        self.rest = rest;
        Some(Field { tag, bytes })
    }
}

/// Writes fields to a sink, so that the host can use a `Vec` and a test an array.
#[derive(Debug)]
pub struct Writer<S> {
    sink: S,
}

impl<S: Extend<u8>> Writer<S> {
    /// A writer that appends to the sink.
    pub const fn new(sink: S) -> Self {
        Self { sink }
    }

    /// Appends a field whose bytes are the given parts, one after another.
    pub fn field(&mut self, tag: Tag, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.sink.extend([tag as u8]);
        self.sink.extend((len as u32).to_le_bytes());
        for part in parts {
            self.sink.extend(part.iter().copied());
        }
    }

    /// Appends a text field; its NUL is added here.
    pub fn text(&mut self, tag: Tag, text: &[u8]) {
        self.field(tag, &[text, b"\0"]);
    }

    /// The sink with all that was written.
    pub fn finish(self) -> S {
        self.sink
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut writer = Writer::new(Vec::new());
        writer.text(Tag::Arg, b"/bin/hello");
        writer.field(Tag::Umask, &[&0o22u32.to_le_bytes()]);
        writer.field(Tag::NoInput, &[]);
        let payload = writer.finish();

        let mut fields = Fields::new(&payload);
        assert_eq!(fields.next().unwrap().text(), Some(c"/bin/hello"));
        assert_eq!(fields.next().unwrap().u32(), Some(0o22));
        assert_eq!(fields.next(), Some(Field { tag: Tag::NoInput, bytes: b"" }));
        assert_eq!(fields.next(), None);
        assert!(fields.is_done());
    }

    #[test]
    fn a_field_that_claims_more_than_there_is_ends_the_list_unfinished() {
        let mut fields = Fields::new(&[Tag::Arg as u8, 9, 0, 0, 0, b'a']);
        assert_eq!(fields.next(), None);
        assert!(!fields.is_done());
    }

    #[test]
    fn a_text_with_a_nul_inside_is_no_text() {
        let field = Field { tag: Tag::Arg, bytes: b"a\0b\0" };
        assert_eq!(field.text(), None);
    }
}
