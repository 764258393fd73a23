//! A kernel as distributions ship it (`bzImage`): a compressed `vmlinux` behind code that decompresses it.
//!
//! That code would run in the guest, in about 40 ms on hardware, at each boot. So the VMM finds the payload by the boot
//! protocol's header and decompresses it itself, once: the caller keeps the `vmlinux` and boots that from then on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// Offset of the setup header's first field (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
const SETUP_SECTS: u64 = 0x1f1;
/// The header's last field that is read here (payload_length, at 0x24c) ends here.
const HEADER_END: usize = 0x250;
const SECTOR: u64 = 512;
/// Protocol 2.08 (Linux 2.6.26) brought payload_offset and payload_length.
const PAYLOAD_PROTOCOL: u16 = 0x0208;
/// No kernel is that big; a payload that claims to be is a bomb.
const MAX_VMLINUX: u64 = 1 << 30;

/// Why a file is no bzImage, or its kernel cannot be had from it.
#[derive(Debug)]
pub enum BzImageError {
    /// It has not the header's marks.
    NotBzImage,
    /// It is a bzImage, but something about it is wrong.
    Bad(String),
    /// The decompressed kernel cannot be written.
    Write(io::Error),
}

/// How the payload is compressed, told by its first bytes (Linux' lib/decompress.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

impl Compression {
    fn of(payload: &[u8]) -> Result<Self, BzImageError> {
        let known: [(&[u8], Self); 4] = [
            (&[0x1f, 0x8b], Self::Gzip),
            (b"\xfd7zXZ\0", Self::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
        ];
        let unknown: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (&[0x5d, 0, 0], "lzma"), (b"\x89LZO", "lzo")];
        if let Some((_, found)) = known.iter().find(|(magic, _)| payload.starts_with(magic)) {
            return Ok(*found);
        }
        let name =
            unknown.iter().find(|(magic, _)| payload.starts_with(magic)).map_or("unknown", |(_, name)| name);
        Err(BzImageError::Bad(format!(
            "its payload's compression is {name}; gzip, xz, zstd and lz4 are understood"
        )))
    }
}

/// Whether the file begins as a bzImage does.
pub fn is_bzimage(file: &File) -> bool {
    header(file).is_ok()
}

/// Decompresses the `vmlinux` in the bzImage into `out`.
///
/// # Errors
/// See [`BzImageError`].
pub fn extract(image: &File, out: &mut impl Write) -> Result<(), BzImageError> {
    let header = header(image)?;
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let version = u16::from_le_bytes([header[0x206], header[0x207]]);
    if version < PAYLOAD_PROTOCOL {
        return Err(BzImageError::Bad(format!("its boot protocol {version:#06x} is older than 2.08")));
    }
    // "if the setup_sects field contains a 0, the real value is 4"; the boot sector comes on top.
    let sectors = match header[SETUP_SECTS as usize] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + u64::from(u32_at(0x248));
    let len = u32_at(0x24c) as usize;
    let size = image.metadata().map_err(|error| BzImageError::Bad(error.to_string()))?.len();
    if start.checked_add(len as u64).is_none_or(|end| end > size) {
        return Err(BzImageError::Bad("it is cut off".into()));
    }
    let mut payload = vec![0; len];
    image.read_exact_at(&mut payload, start).map_err(|error| BzImageError::Bad(error.to_string()))?;
    decompress(&payload, out)
}

fn header(file: &File) -> Result<[u8; HEADER_END], BzImageError> {
    let mut header = [0; HEADER_END];
    file.read_exact_at(&mut header, 0).map_err(|_| BzImageError::NotBzImage)?;
    if header[0x1fe..0x200] == [0x55, 0xaa] && header[0x202..0x206] == *b"HdrS" {
        Ok(header)
    } else {
        Err(BzImageError::NotBzImage)
    }
}

fn decompress(payload: &[u8], out: &mut impl Write) -> Result<(), BzImageError> {
    match Compression::of(payload)? {
        Compression::Gzip => copy(flate2::read::GzDecoder::new(payload), out),
        Compression::Xz => copy(lzma_rust2::XzReader::new(payload, false), out),
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(payload).map_err(damaged)?;
            copy(decoder, out)
        }
        Compression::Lz4 => lz4_legacy(payload, out),
    }
}

fn copy(from: impl Read, out: &mut impl Write) -> Result<(), BzImageError> {
    let mut from = from.take(MAX_VMLINUX);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer).map_err(damaged)? {
            0 if from.limit() == 0 => {
                return Err(BzImageError::Bad("its kernel is bigger than 1 GiB".into()));
            }
            0 => return Ok(()),
            len => out.write_all(&buffer[..len]).map_err(BzImageError::Write)?,
        }
    }
}

/// The kernel's lz4 payloads are in lz4's *legacy* frame: the magic, then blocks, each its compressed length and its bytes,
/// each of 8 MiB when decompressed but the last. Behind the last block the kernel's build appends the decompressed size.
fn lz4_legacy(payload: &[u8], out: &mut impl Write) -> Result<(), BzImageError> {
    const BLOCK: usize = 8 << 20;
    let mut rest = &payload[4..];
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    // What is left when no length and no block follow is the appended size.
    while let Some((&length, body)) = rest.split_first_chunk::<4>()
        && !body.is_empty()
    {
        let length = u32::from_le_bytes(length) as usize;
        let (compressed, behind) =
            body.split_at_checked(length).ok_or_else(|| damaged("a block is cut off"))?;
        let len = lz4_flex::block::decompress_into(compressed, &mut block).map_err(damaged)?;
        total += len as u64;
        if total > MAX_VMLINUX {
            return Err(BzImageError::Bad("its kernel is bigger than 1 GiB".into()));
        }
        out.write_all(&block[..len]).map_err(BzImageError::Write)?;
        rest = behind;
    }
    Ok(())
}

fn damaged(reason: impl std::fmt::Display) -> BzImageError {
    BzImageError::Bad(format!("its compressed kernel is damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &[u8] = b"\x7fELF and the rest of a kernel, kernel, kernel, kernel";

    fn gzip() -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(KERNEL).unwrap();
        encoder.finish().unwrap()
    }

    fn lz4() -> Vec<u8> {
        let block = lz4_flex::block::compress(KERNEL);
        let size = (KERNEL.len() as u32).to_le_bytes();
        [&[0x02, 0x21, 0x4c, 0x18][..], &(block.len() as u32).to_le_bytes(), &block, &size].concat()
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; HEADER_END];
        image[0x1f1] = 1;
        image[0x1fe..0x206].copy_from_slice(b"\x55\xaa\0\0HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.resize(2 * 512 + 16, 0);
        image.extend(payload);
        image
    }

    fn try_extract(image: &[u8]) -> Result<Vec<u8>, BzImageError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        let mut out = Vec::new();
        extract(&file, &mut out).map(|()| out)
    }

    #[test]
    fn the_kernel_comes_out_as_it_went_in() {
        for payload in [gzip(), lz4()] {
            assert_eq!(try_extract(&bzimage(&payload)).unwrap(), KERNEL);
        }
    }

    #[test]
    fn what_is_no_bzimage_is_said_to_be_none() {
        for image in [&b""[..], &[0; 4096], b"\x7fELF"] {
            assert!(matches!(try_extract(image), Err(BzImageError::NotBzImage)));
        }
    }

    #[test]
    fn a_compression_that_is_not_understood_is_named() {
        let Err(BzImageError::Bad(reason)) = try_extract(&bzimage(b"BZh91AY")) else { panic!() };
        assert!(reason.contains("bzip2"), "{reason}");
    }

    #[test]
    fn an_image_cut_off_or_damaged_anywhere_is_an_error_or_at_least_no_panic() {
        for payload in [gzip(), lz4(), b"\xfd7zXZ\0garbage".to_vec(), b"\x28\xb5\x2f\xfdgarbage".to_vec()] {
            let image = bzimage(&payload);
            for len in 0..image.len() {
                assert!(try_extract(&image[..len]).is_err(), "{len}");
            }
            for at in 0..image.len() {
                let mut changed = image.clone();
                changed[at] ^= 0xff;
                let _ = try_extract(&changed);
            }
        }
    }
}
