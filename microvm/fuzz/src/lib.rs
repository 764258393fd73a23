//! What a hostile guest, kernel file or PID 1 can say, made of any bytes: the fuzz targets call these functions, and so does an
//! ordinary test (`microvm/tests/corpus.rs`) with the corpus that the fuzzer found.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use microvm::agent::Session;
use microvm::bus::BusDevice as _;
use microvm::devices::virtio::balloon::Balloon;
use microvm::devices::virtio::blk::Block;
use microvm::devices::virtio::console::Console;
use microvm::devices::virtio::fs::{Fs, Share};
use microvm::devices::virtio::net::Net;
use microvm::devices::virtio::net::stream::Stream;
use microvm::devices::virtio::rng::Rng;
use microvm::devices::virtio::vsock::Vsock;
use microvm::devices::virtio::{VirtioDevice, VirtioMmio};
use microvm::event_loop::EventHandler as _;
use microvm::{loader, memory};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The guest's memory; its rings lie at its start, where short addresses reach them.
const MEMORY: usize = 1 << 20;

/// The devices, by their names as targets.
pub const DEVICES: [&str; 7] = ["balloon", "blk", "console", "fs", "net", "rng", "vsock"];

/// A device with all that it has on the host, which goes when the folder does.
fn device(name: &str, memory: &GuestMemoryMmap, folder: &std::path::Path) -> Option<Box<dyn VirtioDevice>> {
    let pair = || UnixStream::pair().ok();
    Some(match name {
        "balloon" => Box::new(Balloon::new(memory.clone())),
        "blk" => {
            let path = folder.join("disk");
            std::fs::File::create(&path).ok()?.set_len(64 << 9).ok()?;
            Box::new(Block::open(&path, false, "fuzz").ok()?)
        }
        "console" => Box::new(Console::new(pair()?.0, Some(pair()?.0)).ok()?),
        "fs" => Box::new(Fs::new("lab", vec![Share::open("share", folder, false).ok()?], 64).ok()?),
        "net" => Box::new(Net::new(Box::new(Stream::new(pair()?.0).ok()?), [2, 0, 0, 0, 0, 1], 1500)),
        "vsock" => {
            let path = folder.join("v");
            Box::new(Vsock::new(UnixListener::bind(&path).ok()?, path).ok()?)
        }
        _ => Box::new(Rng),
    })
}

/// A guest that writes what it likes to a device's registers and to its memory. The device is up, with its queues where the
/// bytes can reach them; then each command is one byte and what it needs:
///
/// | byte, modulo 4 | the guest |
/// |---|---|
/// | 0 | writes a register: offset (2), value (4) |
/// | 1 | writes memory: address (2, times 16), length (1), bytes |
/// | 2 | offers descriptor `n` (1) of queue `q` (1), and rings the bell |
/// | 3 | waits for the device's turn |
pub fn virtio(name: &str, data: &[u8]) {
    let Ok(memory) = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]) else { return };
    let Ok(folder) = tempfile::tempdir() else { return };
    let Some(device) = device(name, &memory, folder.path()) else { return };
    let queues = device.queue_sizes().len();
    let Ok(irq) = EventFd::new(EFD_NONBLOCK) else { return };
    let Ok(mut mmio) = VirtioMmio::new(memory.clone(), device, irq) else { return };
    let mut back_end = mmio.back_end();
    start(&mut mmio, queues);

    let mut available = vec![0u16; queues];
    let mut rest = data;
    let mut turns = 0;
    while let Some((command, after)) = rest.split_first() {
        rest = after;
        match command % 4 {
            0 => {
                let Some(([o0, o1, value @ ..], after)) = rest.split_first_chunk::<6>() else { break };
                mmio.write(u64::from(u16::from_le_bytes([*o0, *o1]) & 0x1ff), value);
                rest = after;
            }
            1 => {
                let Some(([a0, a1, len], after)) = rest.split_first_chunk::<3>() else { break };
                let (bytes, after) = after.split_at(usize::from(*len).min(after.len()));
                let at = u64::from(u16::from_le_bytes([*a0, *a1])) * 16;
                // Beyond the end there is nothing to write to.
                let _ = memory.write_slice(bytes, GuestAddress(at));
                rest = after;
            }
            2 => {
                let Some(([queue, head], after)) = rest.split_first_chunk::<2>() else { break };
                let queue = usize::from(*queue) % queues;
                let ring = ring(queue) + 0x1000;
                let slot = ring + 4 + 2 * u64::from(available[queue] % 8);
                available[queue] = available[queue].wrapping_add(1);
                let _ = memory.write_obj(u16::from(*head), GuestAddress(slot));
                let _ = memory.write_obj(available[queue], GuestAddress(ring + 2));
                mmio.write(0x50, &(queue as u32).to_le_bytes());
                rest = after;
            }
            _ if turns < 8 => {
                turns += 1;
                settle(&mmio, &mut back_end, queues);
            }
            _ => {}
        }
    }
    settle(&mmio, &mut back_end, queues);
    start(&mut mmio, queues);
}

fn ring(queue: usize) -> u64 {
    0x4000 * queue as u64
}

/// From reset to DRIVER_OK, with eight descriptors in each queue.
fn start(mmio: &mut VirtioMmio, queues: usize) {
    let mut write = |register: u64, value: u32| mmio.write(register, &value.to_le_bytes());
    for (register, value) in [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 0xb)] {
        write(register, value);
    }
    for queue in 0..queues {
        write(0x30, queue as u32);
        write(0x38, 8);
        for (register, place) in [(0x80, 0), (0x90, 0x1000), (0xa0, 0x2000)] {
            write(register, (ring(queue) + place) as u32);
        }
        write(0x44, 1);
    }
    write(0x70, 0xf);
}

/// The event loop's turn.
fn settle(mmio: &VirtioMmio, back_end: &mut microvm::devices::virtio::BackEnd, queues: usize) {
    let descriptors = microvm::event_loop::EventHandler::descriptors(back_end).len();
    for index in 0..descriptors {
        if index >= queues || mmio.queue_events().nth(index).is_some_and(|event| event.read().is_ok()) {
            back_end.ready(index);
        }
    }
}

/// A file that says it is a kernel.
pub fn kernel(data: &[u8]) {
    let (Ok(memory), Ok(mut file)) = (memory::allocate(16), tempfile::NamedTempFile::new()) else { return };
    if file.write_all(data).is_ok() {
        let _ = loader::load(&memory, file.path(), None, 16);
    }
}

/// A PID 1 that says what it likes.
pub fn agent(data: &[u8]) {
    let Ok((host, mut guest)) = UnixStream::pair() else { return };
    let Ok(session) = Session::new(host.into(), None) else { return };
    // What is too much for the socket is left out.
    let _ = guest.set_nonblocking(true).and_then(|()| guest.write_all(data));
    drop(guest);
    let _ = session.wait_ready(Duration::from_secs(5));
}
