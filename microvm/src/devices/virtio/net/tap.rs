//! A TAP device: an Ethernet interface of the host whose cable ends in this process (Linux' networking/tuntap.rst).
//!
//! What the host's kernel sends out of the interface is read here, and what is written here arrives at it. With
//! IFF_VNET_HDR each frame has virtio's own header before it, so offloads pass untouched from one kernel to the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
};

use super::{HEADER, Link, MOST};
use crate::Error;
use crate::devices::virtio::{Chain, Fault, sys};

/// What asks the kernel for such a device.
const DEVICE: &str = "/dev/net/tun";

// ANCHOR: offloads
/// What either kernel can leave to the other: each line a feature of the device, and the flag of TUNSETOFFLOAD by which the
/// host's kernel is told that the guest can finish such frames.
const TO_GUEST: [(u32, libc::c_uint); 4] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
];

/// And what the host's kernel can always finish for the guest.
const TO_HOST: [u32; 4] =
    [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN];
// ANCHOR_END: offloads

/// A TAP device, open. It goes away with the last descriptor of it.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes a device of this name in the network namespace of this thread. It is down and belongs to nothing yet.
    ///
    /// # Errors
    /// [`Error::Tap`]: without CAP_NET_ADMIN, or where the name is taken or longer than 15 bytes.
    pub fn create(name: &str) -> Result<Self, Error> {
        let failed = |source| Error::Tap { name: name.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(DEVICE).map_err(failed)?;
        sys::make_tap(&file, name).map_err(failed)?;
        let tap = Self::from_open(file.into()).map_err(failed)?;
        Ok(tap)
    }

    /// Takes over a TAP device that is open without blocking, with IFF_NO_PI and IFF_VNET_HDR.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_open(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        sys::set_tap_header(&file, HEADER as libc::c_int)?;
        Ok(Self(file))
    }

    /// The same device once more.
    ///
    /// # Errors
    /// Where the process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Link for Tap {
    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn offloads(&self) -> u64 {
        TO_GUEST.iter().map(|(feature, _)| feature).chain(&TO_HOST).fold(0, |all, feature| all | 1 << feature)
    }

    fn configure(&mut self, features: u64) -> io::Result<()> {
        let accepted = TO_GUEST.iter().filter(|(feature, _)| features & 1 << feature != 0);
        sys::set_tap_offloads(&self.0, accepted.fold(0, |all, (_, flag)| all | flag))
    }

    fn receive(&mut self, buffer: &mut [u8; MOST]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, chain: &mut Chain) -> Result<bool, Fault> {
        match sys::write_once(&self.0, &chain.readable_slices()?) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // EINVAL: the guest's header makes no sense. EIO: the interface is down. Either way the frame is lost.
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Buffer, Driver};
    use super::super::Net;
    use super::*;
    use std::thread;

    /// Runs in a network namespace of its own; without the right to one, the test is skipped loudly.
    fn alone(test: &str, work: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(move || match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                work();
                true
            }
            Err(_) => false,
        });
        let ran = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if !ran {
            println!("SKIPPED (needs root for a network namespace): {test}");
            assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        }
    }

    #[test]
    fn the_hosts_interface_and_the_guests_driver_exchange_frames() {
        alone("the_hosts_interface_and_the_guests_driver_exchange_frames", || {
            let tap = Tap::create("lab-test").unwrap();
            sys::test_interface_up("lab-test");
            let mut driver = Driver::new(Box::new(Net::new(Box::new(tap), [2, 0, 0, 0, 0, 7], 1500)));
            assert_eq!(driver.features() & (1 << VIRTIO_NET_F_HOST_TSO4), 1 << VIRTIO_NET_F_HOST_TSO4);
            // An ARP request to everyone, which the host answers with nothing, but counts.
            let mut frame = vec![0; HEADER];
            frame.extend([0xff; 6]);
            frame.extend([2, 0, 0, 0, 0, 7, 8, 6]);
            frame.extend([0; 46]);
            driver.add(1, &[Buffer::Read(&frame)]);
            // A header that asks for a checksum beyond the frame's end: lost, and nothing else.
            frame[..12].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]);
            driver.add(1, &[Buffer::Read(&frame)]);
            driver.settle();
            assert!(driver.take_used(1).is_some() && driver.take_used(1).is_some());
            let counters = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let line = counters.lines().find(|line| line.contains("lab-test")).unwrap();
            let received: u64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
            assert_eq!(received, 1, "{line}");
            assert!(!driver.needs_reset());
        });
    }

    #[test]
    fn a_name_that_is_taken_or_too_long_is_an_error_that_says_it() {
        alone("a_name_that_is_taken_or_too_long_is_an_error_that_says_it", || {
            let _first = Tap::create("lab-test").unwrap();
            assert!(Tap::create("lab-test").unwrap_err().to_string().contains("lab-test"));
            assert!(Tap::create("sixteen-letters.").is_err());
        });
    }
}
