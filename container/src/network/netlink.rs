//! A socket to the kernel's network configuration (`netlink(7)`, `rtnetlink(7)`): just what moving a device needs.
//!
//! `rtnetlink`, which the rest of the lab uses, brings an asynchronous runtime, more than this whole program.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::sys::Result;

// Types and flags of messages (linux/netlink.h, linux/rtnetlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

// Attributes (linux/if_link.h, linux/if_addr.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// Lengths of `struct nlmsghdr`, `struct ifinfomsg`, `struct ifaddrmsg`, `struct rtattr`.
const HEADER: usize = 16;
const ADDRESS: usize = 8;
const ATTRIBUTE: usize = 4;

/// A socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

/// An address of a device, as the kernel tells it: `struct ifaddrmsg` and attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    header: [u8; ADDRESS],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// A device's number.
    pub(super) fn index_of(&self, name: &str) -> Result<u32> {
        name_to_index(&self.0, name)
    }

    /// Moves a device to another network namespace, under a name that is free there.
    pub(super) fn move_link(&self, index: u32, to: BorrowedFd<'_>, name: &str) -> Result<()> {
        let mut message = Message::link(index, 0);
        message.attribute(IFLA_NET_NS_FD, &to.as_raw_fd().to_ne_bytes());
        message.text(IFLA_IFNAME, name);
        self.request(message)
    }

    /// Gives a device another name, in which `%d` is a number that the kernel chooses.
    pub(super) fn rename(&self, index: u32, name: &str) -> Result<()> {
        let mut message = Message::link(index, 0);
        message.text(IFLA_IFNAME, name);
        self.request(message)
    }

    /// Switches a device on.
    pub(super) fn up(&self, index: u32) -> Result<()> {
        self.request(Message::link(index, libc::IFF_UP as u32))
    }

    /// The lasting addresses of a device that are valid everywhere, of any family.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut message = Message::new(GET_ADDRESS, DUMP);
        message.0.extend([0; ADDRESS]);
        let mut addresses = Vec::new();
        self.exchange(message, |body| addresses.extend(Address::parse(body, index)))?;
        Ok(addresses)
    }

    /// Gives a device an address.
    pub(super) fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let mut message = Message::new(NEW_ADDRESS, ACK | CREATE);
        message.0.extend(&address.header[..4]);
        message.0.extend(index.to_ne_bytes());
        for (typ, value) in &address.attributes {
            message.attribute(*typ, value);
        }
        self.request(message)
    }

    fn request(&self, message: Message) -> Result<()> {
        self.exchange(message, |_| ())
    }

    /// Sends a message and takes in the answers, up to the last.
    fn exchange(&self, message: Message, mut take: impl FnMut(&[u8])) -> Result<()> {
        send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut buffer = vec![0; 32 << 10]; // as much as the kernel puts into one answer
        loop {
            let (_, length) = match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let mut rest = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            while let Some(header) = rest.first_chunk::<HEADER>() {
                let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let body = rest.get(HEADER..length).ok_or(Errno::BADMSG)?;
                match u16::from_ne_bytes([header[4], header[5]]) {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code)) };
                    }
                    _ => take(body),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

impl Address {
    fn parse(body: &[u8], index: u32) -> Option<Self> {
        let header = *body.first_chunk::<ADDRESS>()?;
        let own = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let (mut flags, mut attributes) = (u32::from(header[2]), Vec::new());
        let mut rest = &body[ADDRESS..];
        while let Some(&[a, b, c, d]) = rest.first_chunk::<ATTRIBUTE>() {
            let (length, typ) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
            let value = rest.get(ATTRIBUTE..length)?;
            if typ == IFA_FLAGS {
                flags = value.first_chunk().map_or(flags, |flags| u32::from_ne_bytes(*flags));
            }
            // Its times are for ever, and its label begins with the name that the device may lose.
            if !matches!(typ, IFA_CACHEINFO | IFA_LABEL) {
                attributes.push((typ, value.to_vec()));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        let wanted = own == index && flags & IFA_F_PERMANENT != 0 && header[3] == RT_SCOPE_UNIVERSE;
        wanted.then_some(Self { header, attributes })
    }
}

/// A message in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(typ: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&typ.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    /// About a device, some of whose flags are to be set.
    fn link(index: u32, flags: u32) -> Self {
        let mut message = Self::new(SET_LINK, ACK);
        message.0.extend([0; 4]); // any family, any type
        for field in [index, flags, flags] {
            message.0.extend(field.to_ne_bytes());
        }
        message
    }

    fn attribute(&mut self, typ: u16, value: &[u8]) {
        self.0.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
        self.0.extend(typ.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, typ: u16, text: &str) {
        self.attribute(typ, &[text.as_bytes(), b"\0"].concat());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_off_is_no_address() {
        let mut message = Message(vec![2, 24, 0x80, 0, 7, 0, 0, 0]);
        message.attribute(1, &[10, 0, 0, 1]);
        message.attribute(IFA_CACHEINFO, &[0; 16]);
        let address = Address::parse(&message.0, 7).unwrap();
        assert_eq!(address.attributes, [(1, vec![10, 0, 0, 1])]);
        assert_eq!(Address::parse(&message.0, 8), None);
        for length in 0..ADDRESS {
            assert_eq!(Address::parse(&message.0[..length], 7), None);
        }
        message.0[8] = 200; // an attribute longer than the message
        assert_eq!(Address::parse(&message.0, 7), None);
    }

    #[test]
    fn loopback_is_found_with_its_address_elsewhere() {
        let socket = Netlink::open().unwrap();
        let index = socket.index_of("lo").unwrap();
        // Its scope is "host": not one that a moved device would keep.
        assert_eq!(socket.addresses(index).unwrap(), []);
        assert_eq!(socket.rename(u32::MAX >> 1, "x"), Err(Errno::NODEV));
    }
}
