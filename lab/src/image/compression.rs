//! Compressed input is recognised by its first bytes, as containerd does: media types and file names lie too often.

use std::io::{self, BufRead, Cursor, Read};

/// RFC 1952, section 2.3.1.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// RFC 8878, section 3.1.1.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The .xz file format, section 2.1.1.1.
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// How a blob or archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    /// What these first bytes announce.
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(GZIP) {
            Self::Gzip
        } else if head.starts_with(ZSTD) {
            Self::Zstd
        } else if head.starts_with(XZ) {
            Self::Xz
        } else {
            Self::None
        }
    }
}

/// The plain content of an input that may be compressed.
pub(crate) fn decompress<'a, R: BufRead + Send + 'a>(mut input: R) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::with_capacity(XZ.len());
    (&mut input).take(XZ.len() as u64).read_to_end(&mut head)?;
    let compression = Compression::of(&head);
    let input = Cursor::new(head).chain(input);
    Ok(match compression {
        Compression::None => Box::new(input),
        // Several members in a row are one stream (RFC 1952, section 2.2); pigz and eStargz write such.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(input, true)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn gzip_of_several_members_zstd_and_plain_bytes_are_told_apart() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(plain(&[gzip(b"two "), gzip(b"walls")].concat()), b"two walls");
        assert_eq!(plain(&zstd::encode_all(&b"two walls"[..], 1).unwrap()), b"two walls");
        assert_eq!(plain(b"two walls"), b"two walls");
        assert_eq!(plain(b""), b"");
    }
}
