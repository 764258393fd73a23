//! A conversation between a machine and its host that needs no network: vsock(7).
//!
//! Inside a machine, it calls who listens on the host, or waits for one call from there. Standard input goes over the
//! connection, and what comes back to standard output, until both have said all.

use core::ffi::CStr;

use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::{self, net};
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Fd, OwnedFd};

use crate::output::{complain, failed};

/// The port that stands for any (VMADDR_PORT_ANY): nobody can be called there.
const ANY: u32 = u32::MAX;

/// Calls the host at a port; with `-l`, waits for its call.
pub fn run(args: Args) -> u8 {
    let (waits, number) = match args.get(1).map(CStr::to_bytes) {
        Some(b"-l") => (true, args.get(2)),
        _ => (false, args.get(1)),
    };
    let port = number.and_then(|text| u32::try_from(parse_number(text.to_bytes())?).ok());
    let Some(port) = port.filter(|port| *port != ANY) else {
        return complain("vsock", b"PORT", "must be a number up to 4294967294", 2);
    };
    match converse(waits, port) {
        Ok(()) => 0,
        Err(errno) => failed("vsock", number.unwrap_or_default().to_bytes(), errno),
    }
}

fn converse(waits: bool, port: u32) -> sys::Result<()> {
    let ends = Set::of(&[Signal::TERM, Signal::INT]);
    signal::set_blocked(ends)?;
    signal::set_ignored(Signal::PIPE, true)?;
    let signals = signal::signal_fd(ends)?;
    if !waits {
        return talk(&net::connect_vsock(port)?, &signals);
    }
    let socket = net::listen_vsock(port, 1)?;
    if !ready(&mut [Poll::read(*signals), Poll::read(*socket)])? {
        return Ok(());
    }
    let caller = net::accept(&socket)?;
    // Nobody else is waited for.
    drop(socket);
    talk(&caller, &signals)
}

fn talk(socket: &OwnedFd, signals: &OwnedFd) -> sys::Result<()> {
    let mut buffer = [0; 4096];
    let (mut said, mut heard) = (false, false);
    while !(said && heard) {
        let unless = |ended, fd| if ended { Poll::NONE } else { Poll::read(fd) };
        let mut polls = [Poll::read(**signals), unless(heard, **socket), unless(said, Fd::INPUT)];
        if !ready(&mut polls)? {
            return Ok(());
        }
        if polls[1].readable() {
            let count = socket.read(&mut buffer)?;
            Fd::OUTPUT.write_all(buffer.get(..count).unwrap_or(&[]))?;
            heard = count == 0;
        }
        if polls[2].readable() {
            let count = Fd::INPUT.read(&mut buffer)?;
            socket.write_all(buffer.get(..count).unwrap_or(&[]))?;
            said = count == 0;
            if said {
                net::end_output(**socket)?;
            }
        }
    }
    Ok(())
}

/// Waits until there is something to do; false where the first of them, a signal that ends us, came.
fn ready(polls: &mut [Poll]) -> sys::Result<bool> {
    loop {
        match poll(polls, None) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                return Ok(!polls.first().is_some_and(|signal| signal.readable()));
            }
        }
    }
}
