//! Datagrams to published ports. They have no connection, so one is made of them: whoever sends first from an address has a
//! socket inside, and what comes back to that socket is sent to this address, until nothing was said for a while.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Inside;

/// So long a conversation is remembered after its last datagram; docker's.
const IDLE: Duration = Duration::from_secs(90);
/// So many conversations are remembered; with one more, the one that was silent longest is forgotten.
const MOST: usize = 512;
/// The longest datagram (RFC 768).
const LONGEST: usize = 65536;

struct Talk {
    client: SocketAddr,
    inside: UdpSocket,
    last: Instant,
}

/// Passes datagrams on until the other end of `end` is closed. This thread may end up in the container's network: the host's
/// socket stays the host's.
pub(super) fn relay(host: &UdpSocket, end: &OwnedFd, inside: &Inside, port: u16) {
    let mut buffer = vec![0; LONGEST];
    let mut talks: Vec<Talk> = Vec::new();
    // What was looked at may be gone when it is read.
    if host.set_nonblocking(true).is_err() {
        return;
    }
    loop {
        let mut files = vec![PollFd::new(end, PollFlags::IN), PollFd::new(host, PollFlags::IN)];
        files.extend(talks.iter().map(|talk| PollFd::new(&talk.inside, PollFlags::IN)));
        let patience = Timespec { tv_sec: IDLE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut files, Some(&patience).filter(|_| !talks.is_empty())) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        if ready[0] {
            return;
        }
        for (talk, _) in talks.iter_mut().zip(&ready[2..]).filter(|(_, ready)| **ready) {
            // An error is the news that nobody listens inside; a client learns that by silence.
            if let Ok(len) = talk.inside.recv(&mut buffer) {
                let _ = host.send_to(&buffer[..len], talk.client);
                talk.last = Instant::now();
            }
        }
        if ready[1]
            && let Ok((len, client)) = host.recv_from(&mut buffer)
        {
            hear(&mut talks, inside, port, client, &buffer[..len]);
        }
        talks.retain(|talk| talk.last.elapsed() < IDLE);
    }
}

/// One datagram from a client.
fn hear(talks: &mut Vec<Talk>, inside: &Inside, port: u16, client: SocketAddr, datagram: &[u8]) {
    let known = talks.iter().position(|talk| talk.client == client);
    let at = if let Some(at) = known {
        at
    } else {
        let Ok(socket) = connect(inside, port) else { return };
        if talks.len() >= MOST
            && let Some(oldest) = (0..talks.len()).min_by_key(|at| talks[*at].last)
        {
            talks.swap_remove(oldest);
        }
        talks.push(Talk { client, inside: socket, last: Instant::now() });
        talks.len() - 1
    };
    talks[at].last = Instant::now();
    let _ = talks[at].inside.send(datagram);
}

fn connect(inside: &Inside, port: u16) -> std::io::Result<UdpSocket> {
    let address = inside.enter()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::net::Ipv4Addr;

    #[test]
    fn each_client_has_a_conversation_of_its_own() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let host = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = host.local_addr().unwrap();
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let relay = std::thread::spawn(move || {
            let inside = Inside { namespace: None, address: Box::new(|| Some(Ipv4Addr::LOCALHOST)) };
            relay(&host, &end, &inside, port);
        });
        let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let patient = |socket: &UdpSocket| socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        clients.iter().chain([&server]).for_each(patient);
        let mut buffer = [0; 16];
        for round in 0..2u8 {
            for (number, client) in (0u8..).zip(&clients) {
                client.send_to(&[round, number], to).unwrap();
                // The server turns around what it is sent.
                let (len, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&[&buffer[..len], &[7]].concat(), from).unwrap();
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (&[round, number, 7][..], to));
            }
        }
        drop(stop);
        relay.join().unwrap();
    }
}
