//! Traffic over TCP: a server behind the wall, and its client on the host, which alone reads a clock.
//!
//! ```text
//!   client: one byte, then                    server
//!     P   bytes                               gives each back                   round trips
//!     D   a length, again and again           sends so many bytes               out of the sandbox
//!     U   a length and so many bytes, …       one byte, once it has them        into it
//!     C   nothing                             one byte, and closes              connections
//!     G   as an HTTP client says (GET …)      a small answer, stays connected   for clients such as wrk
//! ```
//!
//! Lengths are eight bytes in the network's order. The server has one client at a time.

use freestanding::sys::memory::Array;
use freestanding::sys::net;
use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::time::monotonic;
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Fd, OwnedFd, Text, sys};

use super::{line, sample};
use crate::output::{complain, failed, say};

const BLOCK: usize = 128 << 10;
/// A transfer shorter than this is still filling the window (RFC 5681, slow start).
const ENOUGH: u64 = 40_000_000;
/// Where the card's address is asked for: the lab gives a sandbox this one card.
const CARD: &[u8] = b"eth0";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

/// `serve [PORT]`: says where it listens (`listening ADDRESS PORT`), and serves until SIGTERM or SIGINT.
pub fn serve(args: Args) -> u8 {
    let port = args.get(1).map_or(Some(0), |text| parse_number(text.to_bytes()));
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return complain("bench serve", b"PORT", "must be a number up to 65535", 2);
    };
    match served(port) {
        Ok(()) => 0,
        Err(errno) => failed("bench", b"serve", errno),
    }
}

fn served(port: u16) -> sys::Result<()> {
    let ends = Set::of(&[Signal::TERM, Signal::INT]);
    signal::set_blocked(ends)?;
    signal::set_ignored(Signal::PIPE, true)?;
    let signals = signal::signal_fd(ends)?;
    let socket = net::listen(port, 128)?;
    let mut block = Array::<u8>::new(BLOCK)?;
    say_where(*socket, net::local_port(&socket)?);
    while ready(*signals, *socket)? {
        if let Ok(client) = net::accept(&socket) {
            // What a client does wrong ends its connection, and nothing else.
            let _ = talk(&client, *signals, &mut block);
        }
    }
    Ok(())
}

/// `address PORT`: says the same for a server that is to follow.
pub fn address(args: Args) -> u8 {
    let port = args.get(1).and_then(|text| parse_number(text.to_bytes()));
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return complain("bench address", b"PORT", "must be a number up to 65535", 2);
    };
    match net::requests() {
        Ok(socket) => say_where(*socket, port),
        Err(errno) => failed("bench", b"address", errno),
    }
}

fn say_where(socket: Fd, port: u16) -> u8 {
    // Without a card of its own, it is the host, or alone.
    let own = net::address(socket, CARD).unwrap_or([127, 0, 0, 1]);
    let mut line = Text::<64>::new();
    line.text("listening ");
    for (place, byte) in own.into_iter().enumerate() {
        line.text(if place == 0 { "" } else { "." }).number(byte.into());
    }
    line.text(" ").number(port.into()).text("\n");
    say(&[line.bytes()])
}

/// Waits for something to read. False once it is asked to end.
fn ready(signals: Fd, file: Fd) -> sys::Result<bool> {
    loop {
        let mut polls = [Poll::read(signals), Poll::read(file)];
        match poll(&mut polls, None) {
            Err(Errno::INTR) => continue,
            result => drop(result?),
        }
        if polls[0].readable() {
            return Ok(false);
        }
        if polls[1].readable() {
            return Ok(true);
        }
    }
}

/// One client, to its end. A signal stays pending, so that the caller sees it too.
fn talk(client: &OwnedFd, signals: Fd, block: &mut [u8]) -> sys::Result<()> {
    let mut what = [0];
    if !ready(signals, **client)? || client.read(&mut what)? == 0 {
        return Ok(());
    }
    match &what {
        b"C" => return client.write_all(&what),
        b"P" | b"D" | b"U" | b"G" => {}
        _ => return Ok(()),
    }
    while ready(signals, **client)? {
        let more = match &what {
            b"P" => echo(client, block)?,
            b"D" | b"U" => match length(client)? {
                Some(length) if what == *b"D" => send(client, length, block).map(|()| true)?,
                Some(length) => {
                    receive(client, length, block).and_then(|()| client.write_all(b".")).map(|()| true)?
                }
                None => false,
            },
            _ => answer(client, block)?,
        };
        if !more {
            break;
        }
    }
    Ok(())
}

fn echo(client: &OwnedFd, block: &mut [u8]) -> sys::Result<bool> {
    let count = client.read(block)?;
    client.write_all(block.get(..count).unwrap_or_default())?;
    Ok(count > 0)
}

/// To the end of a request's head; then the answer.
fn answer(client: &OwnedFd, block: &mut [u8]) -> sys::Result<bool> {
    let mut len = 0;
    loop {
        let count = client.read(block.get_mut(len..).unwrap_or_default())?;
        len += count;
        if count == 0 {
            return Ok(false);
        }
        if block.get(..len).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            return client.write_all(ANSWER).map(|()| true);
        }
    }
}

/// The next length; nothing at the end.
fn length(client: &OwnedFd) -> sys::Result<Option<u64>> {
    let mut bytes = [0; 8];
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match client.read(rest)? {
            0 => return Ok(None),
            count => len += count,
        }
    }
    Ok(Some(u64::from_be_bytes(bytes)))
}

fn send(to: &OwnedFd, mut length: u64, block: &[u8]) -> sys::Result<()> {
    while length > 0 {
        let part = block.get(..length.min(block.len() as u64) as usize).unwrap_or(block);
        to.write_all(part)?;
        length -= part.len() as u64;
    }
    Ok(())
}

fn receive(from: &OwnedFd, mut length: u64, block: &mut [u8]) -> sys::Result<()> {
    while length > 0 {
        let most = length.min(block.len() as u64) as usize;
        match from.read(block.get_mut(..most).unwrap_or_default())? {
            0 => return Err(Errno::PIPE),
            count => length -= count as u64,
        }
    }
    Ok(())
}

/// `net REPEATS ADDRESS PORT`: samples of round trips, transfers both ways, connections.
pub fn client(args: Args) -> u8 {
    let repeats = args.get(1).and_then(|text| parse_number(text.to_bytes()));
    let Some(repeats) = repeats.filter(|repeats| (1..=100_000).contains(repeats)) else {
        return complain("bench net", b"REPEATS", "must be a number from 1 to 100000", 2);
    };
    let Some(address) = args.get(2).and_then(|text| parse_address(text.to_bytes())) else {
        return complain("bench net", b"ADDRESS", "must be an IPv4 address", 2);
    };
    let port = args.get(3).and_then(|text| parse_number(text.to_bytes()));
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return complain("bench net", b"PORT", "must be a number up to 65535", 2);
    };
    match measured(repeats, address, port) {
        Ok(()) => 0,
        Err(errno) => failed("bench", b"net", errno),
    }
}

fn measured(repeats: u64, address: [u8; 4], port: u16) -> sys::Result<()> {
    let begin = |what: &[u8]| -> sys::Result<OwnedFd> {
        let socket = net::connect(address, port)?;
        socket.write_all(what)?;
        Ok(socket)
    };
    let mut block = Array::<u8>::new(BLOCK)?;
    {
        let socket = begin(b"P")?;
        let mut byte = [0];
        sample("round-trip", repeats, u64::MAX, |rounds| {
            let start = monotonic();
            for _ in 0..rounds {
                socket.write_all(b".")?;
                receive(&socket, 1, &mut byte)?;
            }
            Ok(monotonic() - start)
        })?;
    }
    for (what, name) in [(b"D", "out-rate"), (b"U", "in-rate")] {
        let socket = begin(what)?;
        let mut transfer = |length: u64| {
            let start = monotonic();
            socket.write_all(&length.to_be_bytes())?;
            if what == b"D" {
                receive(&socket, length, &mut block)?;
            } else {
                send(&socket, length, &block)?;
                receive(&socket, 1, &mut [0])?;
            }
            Ok(monotonic() - start)
        };
        let mut length = BLOCK as u64;
        while length < 1 << 32 && transfer(length)? < ENOUGH {
            length *= 2;
        }
        for _ in 0..repeats {
            let nanos = transfer(length)?;
            line(name, (u128::from(length) * 1_000_000_000_000 / u128::from(nanos.max(1))) >> 20)?;
        }
    }
    let connections = |rounds: u64| {
        let start = monotonic();
        for _ in 0..rounds {
            let socket = begin(b"C")?;
            // To its end: who closes first has the port in TIME-WAIT (RFC 9293, 3.6), and that is to be the server.
            while socket.read(&mut [0; 8])? > 0 {}
        }
        Ok(monotonic() - start)
    };
    let mut rounds = 1;
    while rounds < 256 && connections(rounds)? < super::ENOUGH {
        rounds *= 2;
    }
    for _ in 0..repeats {
        let nanos = connections(rounds)?;
        line("connections", u128::from(rounds) * 1_000_000_000_000 / u128::from(nanos.max(1)))?;
    }
    Ok(())
}

/// Four numbers with dots between them.
fn parse_address(text: &[u8]) -> Option<[u8; 4]> {
    let mut parts = text.split(|&byte| byte == b'.');
    let mut address = [0; 4];
    for byte in &mut address {
        *byte = u8::try_from(parse_number(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_four_bytes() {
        assert_eq!(parse_address(b"10.213.0.2"), Some([10, 213, 0, 2]));
        for wrong in [&b"10.213.0"[..], b"10.213.0.2.1", b"256.0.0.1", b"1.2.3.", b"name"] {
            assert_eq!(parse_address(wrong), None);
        }
    }
}
