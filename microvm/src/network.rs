//! A machine's network: its cards, where their cables lead, and the files by which its programs find others.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::Error;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::net::Net;
use crate::devices::virtio::net::stream::Stream;
pub use crate::devices::virtio::net::tap::Tap;

/// What a machine has of the network. The default is its loopback and nothing else.
#[derive(Debug, Default)]
pub struct Network {
    /// Its cards: the first is `eth0`.
    pub interfaces: Vec<Interface>,
    /// Files that lie over the image's, by their absolute paths, as `/etc/hosts`.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A network card.
#[derive(Debug)]
pub struct Interface {
    /// Where its cable leads.
    pub link: Link,
    /// Its hardware address: of one machine only (bit 0 of the first byte clear), best of nobody's making (bit 1 set).
    pub mac: [u8; 6],
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of it that name the network, from 0 to 32.
    pub prefix: u8,
    /// Who passes on what is for elsewhere.
    pub gateway: Option<Ipv4Addr>,
}

/// Where a card's cable leads.
#[derive(Debug)]
pub enum Link {
    /// To an interface of the host.
    Tap(Tap),
    /// To a program with a network stack of its own, as passt: frames with their lengths before them.
    Stream(UnixStream),
}

impl Network {
    /// The cards as devices. Only their places tell their hardware addresses apart: machines of one snapshot have the same devices,
    /// and PID 1 gives each card the address that it is told, in every machine.
    pub(crate) fn devices(&self) -> Result<Vec<Box<dyn VirtioDevice>>, Error> {
        let failed = Error::system("set up a network card");
        let devices = self.interfaces.iter().zip(0..).map(|(interface, number)| {
            let link: Box<dyn crate::devices::virtio::net::Link> = match &interface.link {
                Link::Tap(tap) => Box::new(tap.try_clone()?),
                Link::Stream(socket) => Box::new(Stream::new(socket.try_clone()?)?),
            };
            Ok(Box::new(Net::new(link, [2, 0, 0, 0, 0, number], interface.mtu)) as Box<dyn VirtioDevice>)
        });
        devices.collect::<io::Result<_>>().map_err(failed)
    }

    /// The cards once more, on the same cables.
    pub(crate) fn copies(&self) -> Result<Vec<Interface>, Error> {
        let copy = |interface: &Interface| {
            let link = match &interface.link {
                Link::Tap(tap) => Link::Tap(tap.try_clone()?),
                Link::Stream(socket) => Link::Stream(socket.try_clone()?),
            };
            Ok(Interface { link, ..*interface })
        };
        let copies = self.interfaces.iter().map(copy).collect::<io::Result<_>>();
        copies.map_err(Error::system("duplicate a network card's descriptor (dup)"))
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tap(tap) => tap.as_raw_fd(),
            Self::Stream(socket) => socket.as_raw_fd(),
        }
    }
}
