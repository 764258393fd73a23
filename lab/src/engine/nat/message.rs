//! What is said to nf_tables, as bytes: netlink messages of the subsystem nftables, the numbers in them
//! (Linux' include/uapi/linux/netfilter/nf_tables.h), and the conversation.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::sys::constants::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

/// The table of the lab.
pub(super) const TABLE: &str = "lab";

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DELETE_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const DELETE_RULE: u16 = 8;
/// NFNL_MSG_BATCH_BEGIN and _END: what is between them takes effect at once, or not at all.
const BATCH: [u16; 2] = [0x10, 0x11];

/// NLM_F_REQUEST with NLM_F_ACK; with NLM_F_CREATE, and for rules NLM_F_APPEND; with NLM_F_DUMP (netlink(7)).
pub(super) const ACK: u16 = 1 | 4;
pub(super) const CREATE: u16 = ACK | 0x400;
pub(super) const APPEND: u16 = CREATE | 0x800;
pub(super) const DUMP: u16 = 1 | 0x300;
/// NLMSG_ERROR, which is also an acknowledgement, and NLMSG_DONE, the end of a dump.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// NF_INET_FORWARD and NF_INET_POST_ROUTING.
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_POSTROUTING: u32 = 4;
/// NFT_META_IIFNAME and NFT_META_OIFNAME.
pub(super) const IN: u32 = 6;
pub(super) const OUT: u32 = 7;
/// NFT_CMP_EQ and NFT_CMP_NEQ.
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;
/// NFT_REG_1: where an expression leaves what the next one looks at.
const REGISTER: u32 = 1;

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// NFPROTO_IPV4.
    Four = 2,
    /// NFPROTO_IPV6.
    Six = 10,
}

/// A netlink message of the subsystem.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    pub(super) fn new(family: Family, kind: u16, flags: u16) -> Self {
        // `struct nfgenmsg`: the family, version 0, no resource.
        Self { kind: SUBSYSTEM << 8 | kind, flags, body: vec![family as u8, 0, 0, 0] }
    }

    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &terminated(text))
    }

    pub(super) fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        attribute(&mut self.body, kind, payload);
        self
    }

    /// As bytes: `struct nlmsghdr`, then the body.
    fn encode(&self, number: u32) -> Vec<u8> {
        let mut bytes = (16 + self.body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}

pub(super) fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// An attribute: its length, its kind, what it holds, and zeroes up to a multiple of four (netlink(7)).
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    out.extend((4 + payload.len() as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// An attribute that holds attributes (NLA_F_NESTED).
fn nested(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
    let (mut inside, mut out) = (Vec::new(), Vec::new());
    for (kind, payload) in parts {
        attribute(&mut inside, *kind, payload);
    }
    attribute(&mut out, kind | 0x8000, &inside);
    out
}

/// What nested attributes hold, without the outer one's head.
fn parts(parts: &[(u16, &[u8])]) -> Vec<u8> {
    nested(0, parts).split_off(4)
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A chain of a hook (NF_INET_FORWARD, ...), at its place among the hook's others.
pub(super) fn chain(family: Family, name: &str, kind: &str, hook: u32, priority: u32) -> Message {
    let hook = parts(&[(1, &number(hook)), (2, &number(priority))]);
    Message::new(family, NEW_CHAIN, CREATE).text(1, TABLE).text(3, name).with(4 | 0x8000, &hook).text(7, kind)
}

/// A rule at the end of a chain.
pub(super) fn rule(family: Family, chain: &str, expressions: &[&Vec<u8>]) -> Message {
    let all: Vec<u8> = expressions.iter().flat_map(|expression| expression.iter().copied()).collect();
    Message::new(family, NEW_RULE, APPEND).text(1, TABLE).text(2, chain).with(4 | 0x8000, &all)
}

/// An expression in a rule's list.
pub(super) fn expression(name: &str, fields: &[(u16, &[u8])]) -> Vec<u8> {
    nested(1, &[(1, &terminated(name)), (2 | 0x8000, &parts(fields))])
}

/// Goes on where what is in the register compares so.
fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    let data = parts(&[(1, value)]);
    expression("cmp", &[(1, &number(REGISTER)), (2, &number(operation)), (3 | 0x8000, &data)])
}

/// Goes on where the packet comes in, or goes out, by this interface; or where it does not.
pub(super) fn interface(which: u32, name: &str, operation: u32) -> Vec<u8> {
    let load = expression("meta", &[(1, &number(REGISTER)), (2, &number(which))]);
    // All of IFNAMSIZ, so that no longer name begins like this one.
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    [load, compare(operation, &padded)].concat()
}

/// Goes on where the packet comes from an address of this block.
pub(super) fn source(block: IpNet) -> Vec<u8> {
    /// NFT_PAYLOAD_NETWORK_HEADER.
    const BASE: u32 = 1;
    // Where the headers have their source addresses (RFC 791, section 3.1; RFC 8200, section 3).
    let offset = if block.addr().is_ipv4() { 12 } else { 8 };
    let [network, mask] = [block.network(), block.netmask()].map(bytes);
    let fields = [number(REGISTER), number(BASE), number(offset), number(mask.len() as u32)];
    let load = expression("payload", &[(1, &fields[0]), (2, &fields[1]), (3, &fields[2]), (4, &fields[3])]);
    [load, only(&mask), compare(EQUAL, &network)].concat()
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Leaves only these bits of what is in the register.
fn only(bits: &[u8]) -> Vec<u8> {
    let (mask, zero) = (parts(&[(1, bits)]), parts(&[(1, &vec![0; bits.len()])]));
    let fields: [(u16, &[u8]); 5] = [
        (1, &number(REGISTER)),
        (2, &number(REGISTER)),
        (3, &number(bits.len() as u32)),
        (4 | 0x8000, &mask),
        (5 | 0x8000, &zero),
    ];
    expression("bitwise", &fields)
}

/// Goes on where nobody on the other side asked for the packet: its connection is not known.
pub(super) fn unasked() -> Vec<u8> {
    /// NFT_CT_STATE; the bits of the states established and related (nf_conntrack_common.h, NF_CT_STATE_BIT).
    const STATE: u32 = 0;
    const KNOWN: u32 = 2 | 4;
    let load = expression("ct", &[(1, &number(REGISTER)), (2, &number(STATE))]);
    [load, only(&KNOWN.to_ne_bytes()), compare(EQUAL, &[0; 4])].concat()
}

/// The packet goes no further: the verdict NF_DROP, in the register for verdicts.
pub(super) fn drop_it() -> Vec<u8> {
    let verdict = parts(&[(1, &number(0))]);
    let data = parts(&[(2 | 0x8000, &verdict)]);
    expression("immediate", &[(1, &number(0)), (2 | 0x8000, &data)])
}

// ---- the conversation ----

/// Says the messages, as one transaction where they change something, and hears whether all were done.
pub(super) fn talk(messages: &[Message], change: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    let edge = |number: usize| {
        /// `struct nfgenmsg` with the subsystem as the resource.
        const BODY: [u8; 4] = [0, 0, 0, SUBSYSTEM as u8];
        Message { kind: BATCH[number], flags: 1, body: BODY.to_vec() }.encode(0)
    };
    if change {
        bytes.extend(edge(0));
    }
    for (message, number) in messages.iter().zip(1..) {
        bytes.extend(message.encode(number));
    }
    if change {
        bytes.extend(edge(1));
    }
    let socket = connect(&bytes)?;
    let mut left = messages.len();
    while left > 0 {
        for (kind, body) in receive(&socket)? {
            if kind == ERROR {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                left -= 1;
            }
        }
    }
    Ok(())
}

/// Asks for a list: the bodies of its messages.
pub(super) fn listen(message: &Message) -> io::Result<Vec<Vec<u8>>> {
    let socket = connect(&message.encode(1))?;
    let mut list = Vec::new();
    loop {
        for (kind, body) in receive(&socket)? {
            match kind {
                DONE => return Ok(list),
                ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(list) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => list.push(body),
            }
        }
    }
}

fn connect(bytes: &[u8]) -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(bytes, 0)?;
    Ok(socket)
}

/// The messages of one datagram: kind and body.
fn receive(socket: &Socket) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let (bytes, _) = socket.recv_from_full()?;
    let mut rest = &bytes[..];
    let mut messages = Vec::new();
    while let Some((head, _)) = rest.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = rest.get(16..len) else { return Err(io::ErrorKind::InvalidData.into()) };
        messages.push((u16::from_ne_bytes([head[4], head[5]]), body.to_vec()));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut out = Vec::new();
        attribute(&mut out, 1, b"lab\0x");
        assert_eq!(out, [&9u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), b"lab\0x\0\0\0"].concat());
    }
}
