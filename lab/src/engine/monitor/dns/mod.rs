//! Names in a network: a DNS server at the address of its bridge.
//!
//! The containers and machines of a network ask it, because their `/etc/resolv.conf` says so. It knows who is there, by
//! name, alias and id (`answer.rs`), and asks the host's own servers for everything else (RFC 1034, 1035). Every monitor of the network
//! has such a server at the same address, and the kernel gives each question to one of them (SO_REUSEPORT, socket(7)): so
//! there is one as long as there is somebody to ask, and no process that all depend on.

mod answer;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use simple_dns::RCODE;

use super::serve::spawn_deep;
use crate::engine::Error;
pub(crate) use answer::Names;
use answer::{Answer, answer, failure};

/// The port of DNS.
pub(crate) const PORT: u16 = 53;
/// How long another server has for its answer; there may be a second one to be asked before a client's patience ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for other servers at once. Those beyond are refused: a container must not use up the host's threads.
const MOST_WAITING: usize = 64;
/// The longest message over UDP that is taken.
const LONGEST: usize = 4096;

/// A server that has its sockets.
pub(crate) struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    /// Takes the port of DNS at an address.
    ///
    /// # Errors
    /// Where another program has it.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let shared = |kind| -> io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            Ok(socket)
        };
        let udp = shared(SocketType::DGRAM)?;
        let tcp = shared(SocketType::STREAM)?;
        listen(&tcp, 16)?;
        let server = Self { udp: udp.into(), tcp: tcp.into() };
        // Another monitor's server may be given what this one was told of.
        server.udp.set_nonblocking(true)?;
        server.tcp.set_nonblocking(true)?;
        Ok(server)
    }

    /// Serves until the other end of `end` is closed.
    pub(crate) fn serve(self, names: Arc<dyn Names>, end: OwnedFd) -> Result<(), Error> {
        spawn_deep("dns", move || self.run(&names, &end))
    }

    fn run(self, names: &Arc<dyn Names>, end: &OwnedFd) {
        let udp = Arc::new(self.udp);
        let waiting = Arc::new(AtomicUsize::new(0));
        loop {
            let mut files = [
                PollFd::new(end, PollFlags::IN),
                PollFd::new(&udp, PollFlags::IN),
                PollFd::new(&self.tcp, PollFlags::IN),
            ];
            match poll(&mut files, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let [ended, message, connection] = files.map(|file| !file.revents().is_empty());
            if ended {
                return;
            }
            let mut buffer = [0; LONGEST];
            if message && let Ok((len, from)) = udp.recv_from(&mut buffer) {
                hear(&udp, names, &waiting, &buffer[..len], from);
            }
            if connection && let Ok((stream, from)) = self.tcp.accept() {
                let names = Arc::clone(names);
                busy(&waiting, "dns client", move || drop(converse(stream, &*names, from)));
            }
        }
    }
}

/// Runs it on a thread of its own, unless there are too many. Whether it does.
fn busy(waiting: &Arc<AtomicUsize>, name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    if waiting.fetch_add(1, Ordering::AcqRel) >= MOST_WAITING {
        waiting.fetch_sub(1, Ordering::AcqRel);
        return false;
    }
    let counter = Arc::clone(waiting);
    let spawned = spawn_deep(name, move || {
        work();
        counter.fetch_sub(1, Ordering::AcqRel);
    });
    if spawned.is_err() {
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
    spawned.is_ok()
}

/// One question over UDP.
fn hear(
    socket: &Arc<UdpSocket>,
    names: &Arc<dyn Names>,
    waiting: &Arc<AtomicUsize>,
    question: &[u8],
    from: SocketAddr,
) {
    let IpAddr::V4(asker) = from.ip() else { return };
    match answer(question, &**names, asker, true) {
        Answer::Nothing => {}
        // One who is gone needs no answer.
        Answer::Known(reply) => drop(socket.send_to(&reply, from)),
        Answer::Elsewhere => {
            let (own, names) = (question.to_vec(), Arc::clone(names));
            let to = Arc::clone(socket);
            let asked = busy(waiting, "dns forward", move || {
                let reply = names.servers(asker).into_iter().find_map(|server| ask(&own, server).ok());
                let reply = reply.or_else(|| failure(&own, RCODE::ServerFailure));
                reply.map(|reply| to.send_to(&reply, from));
            });
            if !asked && let Some(reply) = failure(question, RCODE::Refused) {
                let _ = socket.send_to(&reply, from);
            }
        }
    }
}

/// Asks another server over UDP.
fn ask(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected, it hears that server only.
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = [0; LONGEST];
    loop {
        let len = socket.recv(&mut buffer)?;
        // What is no answer to this question is not for us.
        if buffer.get(..2) == question.get(..2) && len > 12 {
            return Ok(buffer[..len].to_vec());
        }
    }
}

/// Questions over TCP: each message with its length before it (RFC 1035, section 4.2.2).
fn converse(mut client: TcpStream, names: &dyn Names, from: SocketAddr) -> io::Result<()> {
    let IpAddr::V4(asker) = from.ip() else { return Ok(()) };
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE * 5))?;
    client.set_write_timeout(Some(PATIENCE))?;
    loop {
        let question = read_message(&mut client)?;
        let reply = match answer(&question, names, asker, false) {
            Answer::Nothing => return Ok(()),
            Answer::Known(reply) => Some(reply),
            Answer::Elsewhere => {
                let asked = names.servers(asker).into_iter().find_map(|server| {
                    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).ok()?;
                    stream.set_read_timeout(Some(PATIENCE)).ok()?;
                    write_message(&mut stream, &question).ok()?;
                    read_message(&mut stream).ok()
                });
                asked.or_else(|| failure(&question, RCODE::ServerFailure))
            }
        };
        let Some(reply) = reply else { return Ok(()) };
        write_message(&mut client, &reply)?;
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

/// The servers of a resolv.conf(5).
pub(crate) fn servers_of(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::answer::tests::{Two, question};
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use simple_dns::rdata::{A, RData};
    use simple_dns::{CLASS, Packet, QTYPE, ResourceRecord, TYPE};
    use std::net::Ipv4Addr;

    #[test]
    fn a_server_answers_over_both_and_asks_others_for_what_it_does_not_know() {
        // The other server knows one address for everything.
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = other.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (len, from) = other.recv_from(&mut buffer).unwrap();
            let packet = Packet::parse(&buffer[..len]).unwrap();
            let mut reply = packet.clone().into_reply();
            let name = packet.questions[0].qname.clone();
            let record = RData::A(A { address: Ipv4Addr::new(192, 0, 2, 1).into() });
            reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, record));
            other.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
        });
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (udp, tcp) = (server.udp.local_addr().unwrap(), server.tcp.local_addr().unwrap());
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // A server that is not there is asked first, and passed over.
        server.serve(Arc::new(Two(vec!["127.0.0.1:9".parse().unwrap(), there])), end).unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 512];
        for (name, address) in [("web", [10, 0, 0, 2]), ("example.org", [192, 0, 2, 1])] {
            client.send_to(&question(name, QTYPE::TYPE(TYPE::A)), udp).unwrap();
            let len = client.recv(&mut buffer).unwrap();
            let reply = Packet::parse(&buffer[..len]).unwrap();
            let RData::A(a) = &reply.answers[0].rdata else { panic!("{reply:?}") };
            assert_eq!(Ipv4Addr::from(a.address), Ipv4Addr::from(address), "{name}");
        }
        thread.join().unwrap();
        let mut stream = TcpStream::connect(tcp).unwrap();
        write_message(&mut stream, &question("many", QTYPE::TYPE(TYPE::A))).unwrap();
        let reply = read_message(&mut stream).unwrap();
        assert_eq!(Packet::parse(&reply).unwrap().answers.len(), 200);
        drop(stop);
    }

    #[test]
    fn the_hosts_servers_are_those_of_resolv_conf() {
        let text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nsearch lan\nnameserver ::1\nnameserver x\n";
        let servers: Vec<SocketAddr> = ["127.0.0.53:53", "[::1]:53"].map(|text| text.parse().unwrap()).into();
        assert_eq!(servers_of(text), servers);
    }
}
