//! Every device against a guest that writes whatever it likes, wherever it likes. None may panic, hang, or touch memory
//! that is not the guest's; and after a reset each must work again.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::balloon::Balloon;
use super::blk::Block;
use super::console::Console;
use super::fs::{Fs, Share};
use super::net::Net;
use super::net::stream::Stream;
use super::rng::Rng;
use super::testing::{Driver, MEMORY};
use super::vsock::Vsock;
use crate::bus::BusDevice;

/// One thing that a guest does.
#[derive(Clone, Debug)]
enum Act {
    /// Writes a register, or the configuration space, with any width.
    Register { offset: u64, value: u32, width: usize },
    /// Writes a descriptor.
    Descriptor { queue: usize, index: u16, address: u64, len: u32, flags: u16, next: u16 },
    /// Makes a chain available and rings the bell.
    Offer { queue: usize, head: u16 },
    /// Sets the available index, whatever the ring holds.
    Available { queue: usize, index: u16 },
    /// Scribbles over a piece of memory, the rings among it.
    Scribble { address: u64, bytes: Vec<u8> },
    /// The event loop has its turn.
    Settle,
}

fn act() -> impl Strategy<Value = Act> {
    let queue = 0..6usize;
    // Buffers that lie in memory, at its end, far outside; and requests that look like a disk's or a console's.
    let address = prop_oneof![0x10_0000..MEMORY, MEMORY - 64..MEMORY + 64, any::<u64>()];
    let len = prop_oneof![0..64u32, Just(512), Just(4096), any::<u32>()];
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        (0..16u32, 0..16u64).prop_map(|(kind, sector)| {
            [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
        }),
        // and like a socket's, between the guest's port 7 and the first of the host's.
        (0..9u16, 0..4u32, any::<[u32; 3]>()).prop_map(|(op, flags, [len, room, read])| {
            let cids = [3u64, 2].map(u64::to_le_bytes).concat();
            let ports = [7u32, 1 << 30].map(u32::to_le_bytes).concat();
            let kind = [1u16, op].map(u16::to_le_bytes).concat();
            [
                cids,
                ports,
                (len % 100).to_le_bytes().to_vec(),
                kind,
                [flags, room, read].map(u32::to_le_bytes).concat(),
            ]
            .concat()
        }),
        (0..3u32, 0..9u16, 0..3u16).prop_map(|(id, event, value)| {
            [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
        }),
    ];
    prop_oneof![
        1 => (0..0x200u64, any::<u32>(), 0..9usize)
            .prop_map(|(offset, value, width)| Act::Register { offset, value, width }),
        4 => (queue.clone(), 0..20u16, address, len, 0..8u16, 0..20u16).prop_map(
            |(queue, index, address, len, flags, next)| Act::Descriptor { queue, index, address, len, flags, next }
        ),
        4 => (queue.clone(), 0..20u16).prop_map(|(queue, head)| Act::Offer { queue, head }),
        1 => (queue, any::<u16>()).prop_map(|(queue, index)| Act::Available { queue, index }),
        2 => (0..MEMORY, bytes).prop_map(|(address, bytes)| Act::Scribble { address, bytes }),
        3 => Just(Act::Settle),
    ]
}

/// Does all of it, then resets the device and sees whether its driver can bring it up again.
fn survive(mut driver: Driver, acts: &[Act]) {
    for act in acts {
        match act {
            Act::Register { offset, value, width } => {
                let bytes = [value.to_le_bytes(), value.to_le_bytes()].concat();
                driver.mmio.write(*offset, &bytes[..*width]);
                driver.mmio.read(*offset, &mut [0; 8][..*width]);
            }
            &Act::Descriptor { queue, index, address, len, flags, next } => {
                driver.descriptor(queue, index, address, len, flags, next);
            }
            &Act::Offer { queue, head } => {
                if queue < driver.queue_count() {
                    driver.offer(queue, head);
                }
            }
            &Act::Available { queue, index } => driver.set_available(queue, index),
            Act::Scribble { address, bytes } => {
                // Beyond the end there is nothing to write to.
                let _ = driver.memory.write_slice(bytes, GuestAddress(*address));
            }
            Act::Settle => driver.settle(),
        }
    }
    driver.settle();
    driver.restart();
    assert!(!driver.needs_reset());
}

fn file(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("lab-hostile-{name}-{}", std::process::id()));
    File::create(&path).unwrap().set_len(64 * 512).unwrap();
    path
}

/// Frames as they come over a stream, of any length, and then anything.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..3000usize).prop_map(|len| [&(len as u32).to_be_bytes()[..], &vec![7; len]].concat());
    let any = proptest::collection::vec(any::<u8>(), 0..64);
    (proptest::collection::vec(frame, 0..8), any).prop_map(|(frames, any)| [frames.concat(), any].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_survives(acts in proptest::collection::vec(act(), 0..60), read_only: bool) {
        let path = file("disk");
        let disk = Block::open(&path, read_only, "root").unwrap();
        std::fs::remove_file(&path).unwrap();
        survive(Driver::new(Box::new(disk)), &acts);
    }

    #[test]
    fn a_console_survives(acts in proptest::collection::vec(act(), 0..60)) {
        let (agent, _agent_host) = UnixStream::pair().unwrap();
        let (console, _console_host) = UnixStream::pair().unwrap();
        survive(Driver::new(Box::new(Console::new(agent, Some(console)).unwrap())), &acts);
    }

    #[test]
    fn a_balloon_survives(acts in proptest::collection::vec(act(), 0..60)) {
        survive(Driver::with(|memory| Box::new(Balloon::new(memory.clone()))), &acts);
    }

    #[test]
    fn a_network_card_survives(acts in proptest::collection::vec(act(), 0..60), incoming in frames()) {
        let (socket, mut host) = UnixStream::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        // Frames to deliver; at last also what is none. What does not fit into the socket is left out.
        let _ = host.write_all(&incoming);
        let card = Net::new(Box::new(Stream::new(socket).unwrap()), [2, 0, 0, 0, 0, 7], 1500);
        survive(Driver::new(Box::new(card)), &acts);
    }

    #[test]
    fn shared_directories_survive(acts in proptest::collection::vec(act(), 0..60), read_only: bool) {
        let folder = tempfile::tempdir().unwrap();
        let share = Share::open("share", folder.path(), read_only).unwrap();
        survive(Driver::new(Box::new(Fs::new("lab", vec![share], 64).unwrap())), &acts);
    }

    #[test]
    fn sockets_survive(acts in proptest::collection::vec(act(), 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let device = Vsock::new(UnixListener::bind(&path).unwrap(), path.clone()).unwrap();
        let mut program = UnixStream::connect(&path).unwrap();
        program.write_all(b"CONNECT 7\n").unwrap();
        survive(Driver::new(Box::new(device)), &acts);
    }

    #[test]
    fn an_entropy_source_survives(acts in proptest::collection::vec(act(), 0..60)) {
        survive(Driver::new(Box::new(Rng)), &acts);
    }
}
