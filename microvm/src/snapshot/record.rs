//! A snapshot's state as bytes: fields one after another, each with its length before it.
//!
//! Written and read in the same order, by this version only, so fields need no names. But the reader believes nothing: a
//! length that leaves the record, or is not that of what is expected, is an error, never a panic.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Collects fields.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Appends bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend((bytes.len() as u32).to_le_bytes());
        self.bytes.extend(bytes);
    }

    /// Appends a plain value: an integer, or a structure of KVM's interface.
    pub(crate) fn value<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.bytes(value.as_bytes());
    }

    /// All that was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads fields back.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// A field is not what it should be: the record is damaged in spite of its checksum, or another version wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Reader<'a> {
    /// The fields of these bytes.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let (len, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        let (field, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or(Malformed)?;
        self.rest = rest;
        Ok(field)
    }

    /// The next field as a plain value. Any bytes are one, if there are as many as it has.
    pub(crate) fn value<T: FromBytes>(&mut self) -> Result<T, Malformed> {
        T::read_from_bytes(self.bytes()?).map_err(|_| Malformed)
    }

    /// The next field as a list of plain values.
    pub(crate) fn list<T: FromBytes>(&mut self) -> Result<Vec<T>, Malformed> {
        let chunks = self.bytes()?.chunks(size_of::<T>());
        chunks.map(|chunk| T::read_from_bytes(chunk).map_err(|_| Malformed)).collect()
    }

    /// The next field as text.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// The end: nothing may follow.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_their_order() {
        let mut writer = Writer::default();
        writer.value(&7u32);
        writer.bytes(b"text");
        writer.bytes([1u64, 2].as_bytes());
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.value(), Ok(7u32));
        assert_eq!(reader.text(), Ok("text"));
        assert_eq!(reader.list(), Ok(vec![1u64, 2]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn what_was_not_written_is_not_read() {
        let mut writer = Writer::default();
        writer.value(&7u32);
        let bytes = writer.finish();
        assert_eq!(Reader::new(&bytes).value::<u64>(), Err(Malformed));
        assert_eq!(Reader::new(&bytes).list::<u64>(), Err(Malformed));
        assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).bytes(), Err(Malformed));
        assert_eq!(Reader::new(&[255; 4]).bytes(), Err(Malformed));
        assert_eq!(Reader::new(&bytes).finish(), Err(Malformed));
    }
}
