//! Reading tar archives as a stream: a thin layer of input over the parser of `tar-core`.
//!
//! The parser knows the formats (ustar, GNU long names, PAX records, whose values may hold any byte) and bounds what an
//! archive may make it hold in memory; this file feeds it and hands out each entry's content from the input's own
//! buffer, without a copy.

use std::io::{self, BufRead, Read};

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

/// `PATH_MAX` of `limits.h`: a longer path could not be named to the kernel.
const LONGEST_PATH: u32 = 4096;
/// One entry's names and attributes together. An attribute may have 64 KiB (`xattr(7)`), a file has a handful.
const LARGEST_METADATA: u32 = 1 << 20;
const BLOCK: u64 = 512;

/// One member of an archive, before anyone has judged whether it makes sense.
#[derive(Debug)]
pub(crate) struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive being read from front to back.
pub(crate) struct Archive<R> {
    input: R,
    parser: Parser,
    header: Vec<u8>,
    /// Bytes of the current member's content not yet read, and the padding behind them.
    content: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub fn new(input: R) -> Self {
        let limits = Limits {
            max_metadata_size: LARGEST_METADATA,
            max_path_len: Some(LONGEST_PATH),
            ..Limits::default()
        };
        Self { input, parser: Parser::new(limits), header: Vec::new(), content: 0, padding: 0 }
    }

    /// The next member; what is left of the one before is skipped. None at the archive's end.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        self.skip()?;
        self.header.clear();
        let mut need = BLOCK as usize;
        loop {
            if !self.fill_header(need)? {
                return Ok(None);
            }
            let (consumed, member) = match self.parser.parse(&self.header).map_err(invalid)? {
                ParseEvent::NeedData { min_bytes } if min_bytes > self.header.len() => {
                    need = min_bytes;
                    continue;
                }
                ParseEvent::NeedData { .. } => return Err(invalid("its headers make no sense")),
                ParseEvent::End { .. } => return Ok(None),
                // Defaults for all members that follow; git archive puts its commit there. Docker ignores them too.
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::SparseEntry { .. } => {
                    return Err(invalid("it has a sparse file (tar --sparse), which no image builder makes"));
                }
                ParseEvent::Entry { consumed, entry } => (consumed, Some(Member::new(&entry))),
            };
            // The parser asks for exactly what it needs, so nothing of the content is ever in our buffer.
            if consumed != self.header.len() {
                return Err(invalid("its headers make no sense"));
            }
            if let Some(member) = member {
                self.content = member.size;
                self.padding = member.size.next_multiple_of(BLOCK) - member.size;
                return Ok(Some(member));
            }
            self.header.clear();
            need = BLOCK as usize;
        }
    }

    /// Some of the current member's content, empty at its end. [`Self::consume`] says how much was used.
    pub fn chunk(&mut self) -> io::Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let available = fill(&mut self.input)?;
        if available.is_empty() {
            return Err(truncated());
        }
        let length = usize::try_from(self.content).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..length])
    }

    pub fn consume(&mut self, used: usize) {
        self.content -= used as u64;
        self.input.consume(used);
    }

    /// The current member's content in memory, if it has at most so many bytes.
    pub fn content(&mut self, at_most: u64) -> io::Result<Vec<u8>> {
        if self.content > at_most {
            return Err(invalid(format!("{} bytes where at most {at_most} make sense", self.content)));
        }
        let mut content = Vec::with_capacity(self.content as usize);
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Back to the input, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn skip(&mut self) -> io::Result<()> {
        self.content = self.content.checked_add(self.padding).ok_or_else(|| invalid("a size overflows"))?;
        self.padding = 0;
        loop {
            let used = self.chunk()?.len();
            if used == 0 {
                return Ok(());
            }
            self.consume(used);
        }
    }

    /// Reads on until the header buffer has so many bytes. False where the archive ends instead, without the two zero
    /// blocks that POSIX asks for: many writers leave them out.
    fn fill_header(&mut self, need: usize) -> io::Result<bool> {
        while self.header.len() < need {
            let available = fill(&mut self.input)?;
            if available.is_empty() {
                let clean = self.header.iter().all(|&byte| byte == 0);
                return if clean { Ok(false) } else { Err(truncated()) };
            }
            let used = available.len().min(need - self.header.len());
            self.header.extend_from_slice(&available[..used]);
            self.input.consume(used);
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.chunk()?;
        let used = chunk.len().min(buffer.len());
        buffer[..used].copy_from_slice(&chunk[..used]);
        self.consume(used);
        Ok(used)
    }
}

impl Member {
    fn new(entry: &ParsedEntry<'_>) -> Self {
        // Only these have content. Some writers give a hard link its file's size and no content (Go's archive/tar,
        // `isHeaderOnly`, knows the same).
        let has_content = !matches!(
            entry.entry_type,
            EntryType::Link
                | EntryType::Symlink
                | EntryType::Char
                | EntryType::Block
                | EntryType::Directory
                | EntryType::Fifo
        );
        Self {
            path: entry.path.to_vec(),
            link: entry.link_target.as_deref().unwrap_or_default().to_vec(),
            kind: entry.entry_type,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (i64::try_from(entry.mtime).unwrap_or(0), entry.pax.map_or(0, nanoseconds)),
            size: if has_content { entry.size } else { 0 },
            device: (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0)),
            xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        }
    }
}

/// The digits behind the point of PAX's `mtime` ("1700000000.123456789").
fn nanoseconds(pax: &[u8]) -> u32 {
    let mtime = PaxExtensions::new(pax).flatten().find(|record| record.key_bytes() == b"mtime");
    let Some((_, fraction)) = mtime.as_ref().and_then(|record| record.value().ok()?.split_once('.')) else {
        return 0;
    };
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().unwrap_or(0)
}

/// `fill_buf`, but a signal is no error.
fn fill<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // Asked again because of the borrow checker (a borrow returned from a loop); the buffer is full, so it costs nothing.
    input.fill_buf()
}

fn invalid(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a sound tar archive: {reason}"))
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar archive ends in the middle of a member")
}
