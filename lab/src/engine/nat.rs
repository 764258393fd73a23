//! A way out of a network, and none between networks: rules of the kernel's packet filter, nf_tables.
//!
//! A container's address means nothing outside of this machine. So what leaves is given the machine's own address, and the
//! answers the container's again (*masquerading*, a kind of network address translation). Each network has two chains of
//! its own in one table, as `nft list table ip lab` shows them:
//!
//! ```text
//!  chain lab-1234abcd-nat { type nat hook postrouting priority 100;
//!     ip saddr 10.213.0.0/24 oifname != "lab-1234abcd" masquerade }
//!  chain lab-1234abcd     { type filter hook forward priority 0;
//!     iifname "lab-1234abcd" oifname != "lab-1234abcd" ip daddr 10.213.0.0/16 drop      not to other networks
//!     oifname "lab-1234abcd" iifname != "lab-1234abcd" ct state & (established|related) == 0 drop }    answers only
//! ```
//!
//! They are said to the kernel as what `nft` would send: netlink messages of the subsystem nftables (Linux'
//! include/uapi/linux/netfilter/nf_tables.h), in one transaction. Published ports need none of it: those are a proxy's.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use rtnetlink::sys::constants::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::Error;
use super::error::Context as _;

/// The table of the lab.
const TABLE: &str = "lab";

/// Where the kernel says whether it passes packets on between its interfaces.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A network, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone<'a> {
    /// Its bridge.
    pub bridge: &'a str,
    /// Its first address; 24 bits name the network, and 16 all networks of the lab.
    pub subnet: Ipv4Addr,
    /// Whether nothing may leave it.
    pub internal: bool,
}

/// Opens the way out of a network, unless that is done; of an internal one, closes it.
///
/// # Errors
/// Where the kernel has no nf_tables, or refuses.
pub(crate) fn open(zone: Zone<'_>) -> Result<(), Error> {
    let what = || format!("the packet filter (nf_tables) for {}", zone.bridge);
    if !zone.internal && fs::read_to_string(FORWARD).context("read", FORWARD)?.trim() != "1" {
        fs::write(FORWARD, "1").context("let packets pass, by", FORWARD)?;
    }
    let known = talk(&[Message::new(GET_CHAIN, ACK).text(1, TABLE).text(3, zone.bridge)], false);
    match known {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            talk(&rules(zone), true).context("set up", what())
        }
        Err(error) => Err(error).context("ask", what()),
    }
}

/// Removes a network's rules, and the table with the last of them.
///
/// # Errors
/// Where the kernel refuses; that there are none is no error.
pub(crate) fn close(bridge: &str) -> Result<(), Error> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context("remove the packet filter's rules for", bridge),
    };
    for chain in [bridge.to_owned(), nat_chain(bridge)] {
        let flush = Message::new(DELETE_RULE, ACK).text(1, TABLE).text(2, &chain);
        let delete = Message::new(DELETE_CHAIN, ACK).text(1, TABLE).text(3, &chain);
        gone(talk(&[flush, delete], true))?;
    }
    let chains = listen(&Message::new(GET_CHAIN, DUMP)).context("list", "the packet filter's chains")?;
    // A dump is of all tables; in a message of a chain the table's name is the first attribute.
    let mut wanted = Vec::new();
    attribute(&mut wanted, 1, &terminated(TABLE));
    if !chains.iter().any(|message| message.get(4..).is_some_and(|rest| rest.starts_with(&wanted))) {
        gone(talk(&[Message::new(DELETE_TABLE, ACK).text(1, TABLE)], true))?;
    }
    Ok(())
}

/// Why networks have no way out on this machine, if they have none.
pub(crate) fn missing() -> Option<String> {
    // Asking for a table that is not there changes nothing, and every kernel with nf_tables answers.
    match talk(&[Message::new(GET_TABLE, ACK).text(1, TABLE)], false) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!(
            "this kernel's packet filter cannot be used (nf_tables: {error}): networks have no way out; published ports work"
        )),
    }
}

fn nat_chain(bridge: &str) -> String {
    format!("{bridge}-nat")
}

/// The transaction that sets a network up.
fn rules(zone: Zone<'_>) -> Vec<Message> {
    let (bridge, nat) = (zone.bridge, nat_chain(zone.bridge));
    let octets = zone.subnet.octets();
    let leaves = [interface(IN, bridge, EQUAL), interface(OUT, bridge, NOT_EQUAL)];
    let enters = [interface(OUT, bridge, EQUAL), interface(IN, bridge, NOT_EQUAL)];
    let mut rules = vec![
        Message::new(NEW_TABLE, CREATE).text(1, TABLE),
        chain(bridge, "filter", HOOK_FORWARD, 0),
        chain(&nat, "nat", HOOK_POSTROUTING, 100),
    ];
    if zone.internal {
        rules.push(rule(bridge, &[&leaves.concat(), &drop_it()]));
        rules.push(rule(bridge, &[&enters.concat(), &drop_it()]));
        return rules;
    }
    let elsewhere = [address(DESTINATION, &octets[..2])].concat();
    rules.push(rule(bridge, &[&leaves.concat(), &elsewhere, &drop_it()]));
    rules.push(rule(bridge, &[&enters.concat(), &unasked(), &drop_it()]));
    let ours = [address(SOURCE, &octets[..3]), interface(OUT, bridge, NOT_EQUAL)].concat();
    rules.push(rule(&nat, &[&ours, &expression("masq", &[])]));
    rules
}

// ---- nf_tables.h: messages, and the numbers in them ----

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
/// NFNL_MSG_BATCH_BEGIN and _END: what is between them takes effect at once, or not at all.
const BATCH: [u16; 2] = [0x10, 0x11];

/// NLM_F_REQUEST with NLM_F_ACK; with NLM_F_CREATE, and for rules NLM_F_APPEND; with NLM_F_DUMP (netlink(7)).
const ACK: u16 = 1 | 4;
const CREATE: u16 = ACK | 0x400;
const APPEND: u16 = CREATE | 0x800;
const DUMP: u16 = 1 | 0x300;
/// NLMSG_ERROR, which is also an acknowledgement, and NLMSG_DONE, the end of a dump.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// NF_INET_FORWARD and NF_INET_POST_ROUTING.
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
/// NFT_META_IIFNAME and NFT_META_OIFNAME.
const IN: u32 = 6;
const OUT: u32 = 7;
/// NFT_CMP_EQ and NFT_CMP_NEQ.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// Where IPv4's header has its addresses (RFC 791, section 3.1).
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// NFT_REG_1: where an expression leaves what the next one looks at.
const REGISTER: u32 = 1;

/// A netlink message of the subsystem.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        /// `struct nfgenmsg`: NFPROTO_IPV4, version 0, no resource.
        const IPV4: [u8; 4] = [2, 0, 0, 0];
        Self { kind: SUBSYSTEM << 8 | kind, flags, body: IPV4.to_vec() }
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &terminated(text))
    }

    fn with(mut self, kind: u16, payload: &[u8]) -> Self {
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

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// An attribute: its length, its kind, what it holds, and zeroes up to a multiple of four (netlink(7)).
fn attribute(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
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

fn chain(name: &str, kind: &str, hook: u32, priority: u32) -> Message {
    let hook = parts(&[(1, &number(hook)), (2, &number(priority))]);
    Message::new(NEW_CHAIN, CREATE).text(1, TABLE).text(3, name).with(4 | 0x8000, &hook).text(7, kind)
}

fn rule(chain: &str, expressions: &[&Vec<u8>]) -> Message {
    let all: Vec<u8> = expressions.iter().flat_map(|expression| expression.iter().copied()).collect();
    Message::new(NEW_RULE, APPEND).text(1, TABLE).text(2, chain).with(4 | 0x8000, &all)
}

/// An expression in a rule's list.
fn expression(name: &str, fields: &[(u16, &[u8])]) -> Vec<u8> {
    nested(1, &[(1, &terminated(name)), (2 | 0x8000, &parts(fields))])
}

/// Goes on where what is in the register compares so.
fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    let data = parts(&[(1, value)]);
    expression("cmp", &[(1, &number(REGISTER)), (2, &number(operation)), (3 | 0x8000, &data)])
}

/// Goes on where the packet comes in, or goes out, by this interface; or where it does not.
fn interface(which: u32, name: &str, operation: u32) -> Vec<u8> {
    let load = expression("meta", &[(1, &number(REGISTER)), (2, &number(which))]);
    // All of IFNAMSIZ, so that no longer name begins like this one.
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    [load, compare(operation, &padded)].concat()
}

/// Goes on where an address of the packet begins so.
fn address(offset: u32, beginning: &[u8]) -> Vec<u8> {
    /// NFT_PAYLOAD_NETWORK_HEADER.
    const BASE: u32 = 1;
    let fields = [number(REGISTER), number(BASE), number(offset), number(beginning.len() as u32)];
    let load = expression("payload", &[(1, &fields[0]), (2, &fields[1]), (3, &fields[2]), (4, &fields[3])]);
    [load, compare(EQUAL, beginning)].concat()
}

/// Goes on where nobody on the other side asked for the packet: its connection is not known.
fn unasked() -> Vec<u8> {
    /// NFT_CT_STATE; the bits of the states established and related (nf_conntrack_common.h, NF_CT_STATE_BIT).
    const STATE: u32 = 0;
    const KNOWN: u32 = 2 | 4;
    let load = expression("ct", &[(1, &number(REGISTER)), (2, &number(STATE))]);
    let (mask, zero) = (parts(&[(1, &KNOWN.to_ne_bytes())]), parts(&[(1, &[0; 4])]));
    let fields: [(u16, &[u8]); 5] = [
        (1, &number(REGISTER)),
        (2, &number(REGISTER)),
        (3, &number(4)),
        (4 | 0x8000, &mask),
        (5 | 0x8000, &zero),
    ];
    [load, expression("bitwise", &fields), compare(EQUAL, &[0; 4])].concat()
}

/// The packet goes no further: the verdict NF_DROP, in the register for verdicts.
fn drop_it() -> Vec<u8> {
    let verdict = parts(&[(1, &number(0))]);
    let data = parts(&[(2 | 0x8000, &verdict)]);
    expression("immediate", &[(1, &number(0)), (2 | 0x8000, &data)])
}

// ---- the conversation ----

/// Says the messages, as one transaction where they change something, and hears whether all were done.
fn talk(messages: &[Message], change: bool) -> io::Result<()> {
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
fn listen(message: &Message) -> io::Result<Vec<Vec<u8>>> {
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

    #[test]
    fn a_networks_rules_come_and_go_as_one_and_the_last_takes_the_table_along() {
        let ran = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return false;
            }
            let zone =
                |bridge, last, internal| Zone { bridge, subnet: Ipv4Addr::new(10, 213, last, 0), internal };
            let has_table = || talk(&[Message::new(GET_TABLE, ACK).text(1, TABLE)], false).is_ok();
            assert_eq!(missing(), None);
            close("lab-one").unwrap();
            open(zone("lab-one", 1, false)).unwrap();
            open(zone("lab-one", 1, false)).unwrap();
            open(zone("lab-two", 2, true)).unwrap();
            let count = |chain: &str| {
                let rules = listen(&Message::new(7, DUMP).text(1, TABLE).text(2, chain)).unwrap();
                rules.len()
            };
            assert_eq!((count("lab-one"), count("lab-one-nat")), (2, 1));
            assert_eq!((count("lab-two"), count("lab-two-nat")), (2, 0));
            close("lab-one").unwrap();
            assert!(has_table());
            close("lab-two").unwrap();
            assert!(!has_table());
            true
        });
        if !ran.join().unwrap() {
            println!("SKIPPED (needs root for a network namespace): rules of the packet filter");
            assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        }
    }
}
