//! virtio-net: a network card (virtio 1.2, section 5.1).
//!
//! The guest's driver exchanges Ethernet frames with the device, each behind a header of 12 bytes that says what is left to
//! do: a checksum to be filled in, a long TCP segment to be cut. Where both kernels agree on such *offloads*, a frame of
//! 64 KiB passes as one, and no checksum is computed between two programs on one machine.
//!
//! ```text
//!   queue 0  from the host:  link ──▶ frame ──▶ as many of the guest's buffers as it takes
//!   queue 1  to the host:    chain ──▶ link
//! ```
//!
//! The link is a TAP device ([`tap`]), whose kernel side speaks the same header, or a stream of frames to a program that has
//! a network stack of its own ([`stream`]), for users who may not make network devices.
//!
//! **Back-pressure.** A frame for which the guest has no buffer waits here, and those behind it wait in the link, which
//! drops what gets too much, as a real cable does. A frame that the link cannot take now stays in the guest's ring.

pub mod stream;
pub mod tap;

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU};

use super::{Chain, Event, Fault, VirtioDevice, Virtqueue};

/// `struct virtio_net_hdr` with `num_buffers`, which every frame has before it (section 5.1.6).
const HEADER: usize = 12;

/// Where `num_buffers` lies in it.
const NUM_BUFFERS: usize = 10;

/// The longest frame with its header: an IP packet of 64 KiB, an Ethernet header, and a VLAN's tag.
const MOST: usize = HEADER + 14 + 4 + 65535;

/// The shortest: a frame must name whom it is for, whom it is from, and what it holds.
const LEAST: usize = HEADER + 14;

/// Descriptors in each ring. The driver fills the whole receive ring as soon as the interface is up, with 1.5 KiB each, which
/// a guest whose kernel is interpreted feels; 64 KiB in one frame must fit into it.
const QUEUE: u16 = 128;

const FROM_HOST: usize = 0;
const TO_HOST: usize = 1;

/// The other end of the card's cable. It never waits.
pub trait Link: Send + fmt::Debug {
    /// What is to be watched.
    fn descriptor(&self) -> RawFd;

    /// The offloads that it can do: feature bits of the device.
    fn offloads(&self) -> u64;

    /// The driver accepted these features: frames come, and may be sent, only as they allow.
    ///
    /// # Errors
    /// Where the host's kernel refuses them.
    fn configure(&mut self, features: u64) -> io::Result<()>;

    /// The next frame, its header before it: its whole length.
    ///
    /// # Errors
    /// `WouldBlock` where there is none now; anything else is the link's end.
    fn receive(&mut self, buffer: &mut [u8; MOST]) -> io::Result<usize>;

    /// Takes a frame, from 26 to 65565 bytes long with its header. Whether it did; else it is offered again when
    /// the descriptor is writable. A frame that it cannot send is lost, as on any cable.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    fn send(&mut self, chain: &mut Chain) -> Result<bool, Fault>;
}

/// The device.
pub struct Net {
    link: Box<dyn Link>,
    config: [u8; 12],
    /// Whether a frame may be spread over several buffers (VIRTIO_NET_F_MRG_RXBUF).
    mergeable: bool,
    /// A frame from the link, and how long it is; 0 where none waits for the guest's buffers.
    frame: Box<[u8; MOST]>,
    waiting: usize,
    /// The link is at its end: nothing comes any more.
    dead: bool,
    /// Why the link could not be set up as the driver wants it.
    refused: Option<io::Error>,
}

impl Net {
    /// A card with this address, on this link. `mtu` is the longest IP packet on it, in bytes.
    pub fn new(link: Box<dyn Link>, mac: [u8; 6], mtu: u16) -> Self {
        // struct virtio_net_config: mac, status, max_virtqueue_pairs (both unused without their features), mtu.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&mac);
        config[10..].copy_from_slice(&mtu.to_le_bytes());
        Self {
            link,
            config,
            mergeable: false,
            // Zeroes on the heap are pages that the kernel gives when they are touched.
            frame: zeroed(),
            waiting: 0,
            dead: false,
            refused: None,
        }
    }

    /// Moves frames from the link to the guest, until either has no more.
    fn deliver(&mut self, queue: &mut Virtqueue) -> Result<(), Fault> {
        let mut budget = QUEUE;
        loop {
            if self.waiting == 0 {
                if self.dead {
                    break;
                }
                if budget == 0 {
                    queue.postpone()?;
                    break;
                }
                budget -= 1;
                match self.link.receive(&mut self.frame) {
                    Ok(len) if (LEAST..=MOST).contains(&len) => self.waiting = len,
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        self.dead = error.kind() != io::ErrorKind::WouldBlock;
                        break;
                    }
                }
            }
            if !self.fill(queue)? {
                break;
            }
            self.waiting = 0;
        }
        queue.notify()
    }

    /// Gives the guest the frame that waits. False where it has not given buffers enough for it.
    // ANCHOR: fill
    fn fill(&mut self, queue: &mut Virtqueue) -> Result<bool, Fault> {
        let mut chains = Vec::new();
        let mut room = 0;
        while room < self.waiting as u64 {
            let Some(chain) = queue.pop()? else {
                // All of them are for the next try.
                for _ in &chains {
                    queue.unpop();
                }
                return Ok(false);
            };
            if chain.writable() == 0 {
                return Err(Fault::Driver("a buffer for frames has no room"));
            }
            if !self.mergeable && chain.writable() < self.waiting as u64 {
                // The specification has the driver give buffers that are large enough: this frame is lost.
                queue.unpop();
                return Ok(true);
            }
            room += chain.writable();
            chains.push((chain, 0));
        }
        // Fits: the ring is not longer than its number of descriptors.
        let count = (chains.len() as u16).to_le_bytes();
        self.frame[NUM_BUFFERS..HEADER].copy_from_slice(&count);
        let mut rest = &self.frame[..self.waiting];
        for (chain, written) in &mut chains {
            let len = chain.write(rest)?;
            *written = len as u32;
            rest = &rest[len..];
        }
        queue.used_together(&chains)?;
        Ok(true)
    }
    // ANCHOR_END: fill

    /// Moves frames from the guest to the link, as far as that takes them.
    fn collect(&mut self, queue: &mut Virtqueue) -> Result<(), Fault> {
        let mut budget = QUEUE;
        while budget > 0 {
            budget -= 1;
            let Some(mut chain) = queue.pop()? else { break };
            let is_frame = (LEAST as u64..=MOST as u64).contains(&chain.readable());
            if is_frame && !self.dead && !self.link.send(&mut chain)? {
                queue.unpop();
                break;
            }
            queue.used(&chain, 0)?;
        }
        queue.notify()?;
        if budget == 0 { queue.postpone() } else { Ok(()) }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Net").field("link", &self.link).finish_non_exhaustive()
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU | 1 << VIRTIO_NET_F_MRG_RXBUF | self.link.offloads()
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE, QUEUE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::copy_config(&self.config, offset, data);
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.link.descriptor()]
    }

    fn activate(&mut self, features: u64) {
        self.mergeable = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        self.refused = self.link.configure(features).err();
    }

    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        if let Some(source) = self.refused.take() {
            return Err(Fault::Host { operation: "set up the network card's link", source });
        }
        match event {
            Event::Queue(FROM_HOST) => self.deliver(&mut queues[FROM_HOST]),
            Event::Queue(_) => self.collect(&mut queues[TO_HOST]),
            Event::Descriptor(_) => {
                self.collect(&mut queues[TO_HOST])?;
                self.deliver(&mut queues[FROM_HOST])
            }
        }
    }

    /// A frame on its way is lost, in a snapshot as well: so it may be on any network.
    fn reset(&mut self) {
        self.waiting = 0;
        self.refused = None;
    }
}

fn zeroed() -> Box<[u8; MOST]> {
    // From a vector, because an array would be made on the stack first.
    vec![0; MOST].into_boxed_slice().try_into().unwrap_or_else(|_| unreachable!("it is that long"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::testing::{Buffer, Driver};
    use super::*;

    /// A cable whose other end is a socket: one message a frame, header and all.
    #[derive(Debug)]
    pub(in super::super) struct Cable(pub UnixDatagram);

    impl Link for Cable {
        fn descriptor(&self) -> RawFd {
            self.0.as_raw_fd()
        }
        fn offloads(&self) -> u64 {
            0
        }
        fn configure(&mut self, _features: u64) -> io::Result<()> {
            Ok(())
        }
        fn receive(&mut self, buffer: &mut [u8; MOST]) -> io::Result<usize> {
            self.0.recv(buffer)
        }
        fn send(&mut self, chain: &mut Chain) -> Result<bool, Fault> {
            let mut frame = vec![0; chain.readable() as usize];
            chain.read(&mut frame)?;
            Ok(self.0.send(&frame).is_ok())
        }
    }

    fn card() -> (Driver, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).unwrap();
        }
        let card = Net::new(Box::new(Cable(ours)), [2, 0, 0, 0, 0, 7], 1500);
        (Driver::new(Box::new(card)), theirs)
    }

    fn frame(len: usize) -> Vec<u8> {
        [vec![0; HEADER], (0..len).map(|byte| byte as u8).collect()].concat()
    }

    #[test]
    fn the_driver_reads_the_address_and_the_mtu() {
        let (mut driver, _cable) = card();
        assert_eq!(driver.read_config::<6>(0), [2, 0, 0, 0, 0, 7]);
        assert_eq!(u16::from_le_bytes(driver.read_config(10)), 1500);
    }

    #[test]
    fn frames_go_out_as_they_are_and_what_is_none_is_lost() {
        let (mut driver, cable) = card();
        let sent = frame(60);
        for bytes in [&sent[..20], &sent, &[0; HEADER]] {
            driver.add(
                TO_HOST,
                &[Buffer::Read(&bytes[..HEADER.min(bytes.len())]), Buffer::Read(&bytes[HEADER..])],
            );
        }
        driver.settle();
        let mut buffer = [0; 100];
        assert_eq!(cable.recv(&mut buffer).unwrap(), sent.len());
        assert_eq!(&buffer[..sent.len()], sent);
        assert!(cable.recv(&mut buffer).is_err());
        for _ in 0..3 {
            assert_eq!(driver.take_used(TO_HOST).unwrap().1, 0);
        }
    }

    #[test]
    fn a_frame_that_no_buffer_holds_is_spread_over_several_and_their_number_told() {
        let (mut driver, cable) = card();
        let sent = frame(200);
        cable.send(&sent).unwrap();
        let mut places = driver.add(FROM_HOST, &[Buffer::Write(100)]);
        driver.settle();
        assert_eq!(driver.take_used(FROM_HOST), None, "not before the whole frame fits");
        places.extend(driver.add(FROM_HOST, &[Buffer::Write(100)]));
        driver.settle();
        assert_eq!(driver.take_used(FROM_HOST), None);
        places.extend(driver.add(FROM_HOST, &[Buffer::Write(100)]));
        driver.settle();
        let lens: Vec<u32> = (0..3).map(|_| driver.take_used(FROM_HOST).unwrap().1).collect();
        assert_eq!(lens, [100, 100, 12]);
        let got = driver.bytes(&places);
        assert_eq!((&got[..NUM_BUFFERS], &got[NUM_BUFFERS..HEADER]), (&[0; 10][..], &[3, 0][..]));
        assert_eq!(got[HEADER..sent.len()], sent[HEADER..]);
    }

    #[test]
    fn frames_wait_for_buffers_in_their_order() {
        let (mut driver, cable) = card();
        for len in [60, 61, 62] {
            cable.send(&frame(len)).unwrap();
        }
        driver.settle();
        for len in [60, 61, 62] {
            driver.add(FROM_HOST, &[Buffer::Write(1526)]);
            driver.settle();
            assert_eq!(driver.take_used(FROM_HOST).unwrap().1 as usize, HEADER + len);
        }
    }

    #[test]
    fn a_buffer_without_room_stops_the_device() {
        let (mut driver, cable) = card();
        cable.send(&frame(60)).unwrap();
        driver.add(FROM_HOST, &[Buffer::Read(b"to read?")]);
        driver.settle();
        assert!(driver.needs_reset());
    }
}
