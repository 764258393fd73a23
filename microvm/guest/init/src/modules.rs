//! Kernel modules that the VMM put into the initramfs, for kernels that have virtio as modules.

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::sys::machine;
use freestanding::{Errno, Fd, Text};

/// Where they lie: `/modules/NN-name.ko`, to be loaded in the order of their names.
const FOLDER: &CStr = c"/modules";

/// The longest name of a file (limits.h, NAME_MAX).
const NAME_MAX: usize = 255;

/// Loads all, in order. A failure goes to the console, whose tail the host shows if the guest then comes no further.
pub fn load_all() {
    let mut last = Text::<NAME_MAX>::new();
    // Each round finds the next name by reading the folder again: it is short, and there is no allocator to sort in.
    while let Some(name) = next_after(last.bytes()) {
        load(name.bytes());
        last = name;
    }
}

fn next_after(last: &[u8]) -> Option<Text<NAME_MAX>> {
    let folder = file::open(FOLDER, flags::READ | flags::DIRECTORY, 0).ok()?;
    let mut best = Text::<NAME_MAX>::new();
    let mut buffer = [0; 2048];
    loop {
        let part = folder.directory(&mut buffer).ok()?;
        if part.is_empty() {
            return (!best.bytes().is_empty()).then_some(best);
        }
        for name in file::entries(part).map(CStr::to_bytes) {
            if is_next(name, last, best.bytes()) {
                best.clear();
                best.text(name);
            }
        }
    }
}

/// Whether the name comes after the last one, and before the best candidate so far (empty: none yet).
fn is_next(name: &[u8], last: &[u8], best: &[u8]) -> bool {
    name > last && (best.is_empty() || name < best)
}

fn load(name: &[u8]) {
    let mut path = Text::<300>::new();
    path.text(FOLDER.to_bytes()).text("/").text(name);
    let result = path
        .c_str()
        .ok_or(Errno::NAMETOOLONG)
        .and_then(|path| file::open(path, flags::READ, 0))
        .and_then(|file| machine::load_module(*file, c""));
    match result {
        Ok(()) | Err(Errno::EXIST) => {} // there already, as a part of the kernel or loaded before
        Err(errno) => {
            let mut line = Text::<360>::new();
            line.text("guest-init: cannot load module ").text(name).text(": errno ");
            line.number(u64::from(errno.0)).text("\n");
            let _ = Fd::ERROR.write_all(line.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_in_the_order_of_their_names() {
        let folder = [&b"20-virtio_blk.ko"[..], b"00-virtio.ko", b"10-virtio_mmio.ko"];
        let mut order: Vec<&[u8]> = Vec::new();
        loop {
            let last = order.last().copied().unwrap_or_default();
            let mut best: &[u8] = b"";
            for name in folder {
                if is_next(name, last, best) {
                    best = name;
                }
            }
            if best.is_empty() {
                break;
            }
            order.push(best);
        }
        assert_eq!(order, [&b"00-virtio.ko"[..], b"10-virtio_mmio.ko", b"20-virtio_blk.ko"]);
    }
}
