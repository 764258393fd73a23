//! TCP over IPv4, as much as a server and its client need; vsock, which needs no network; and what sets a network card up.

use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;

use super::{Errno, Fd, OwnedFd, Result, call, int, plain};

/// A socket that listens on a port of every address: socket(2), bind(2), listen(2).
pub fn listen(port: u16, backlog: u32) -> Result<OwnedFd> {
    let kind = (n::SOCK_STREAM | c::O_CLOEXEC) as usize; // SOCK_CLOEXEC is the same bit (socket(2))
    let socket = OwnedFd::from_result(plain(c::__NR_socket, [n::AF_INET as usize, kind, 0])?);
    let (on, level) = (1i32, n::SOL_SOCKET as usize);
    let value = (&raw const on).expose_provenance();
    // SAFETY: the kernel reads an int (setsockopt(2)).
    unsafe { call(c::__NR_setsockopt, [int(socket.0), level, n::SO_REUSEADDR as usize, value, 4]) }?;
    let address = socket_address([0; 4], port);
    // SAFETY: the kernel reads 16 bytes (bind(2)).
    unsafe { call(c::__NR_bind, [int(socket.0), address.as_ptr().expose_provenance(), address.len()]) }?;
    plain(c::__NR_listen, [int(socket.0), backlog as usize])?;
    Ok(socket)
}

/// A connection to a port of another machine, or of this one: socket(2), connect(2).
pub fn connect(address: [u8; 4], port: u16) -> Result<OwnedFd> {
    let kind = (n::SOCK_STREAM | c::O_CLOEXEC) as usize;
    let socket = OwnedFd::from_result(plain(c::__NR_socket, [n::AF_INET as usize, kind, 0])?);
    let address = socket_address(address, port);
    // SAFETY: the kernel reads 16 bytes (connect(2)).
    unsafe { call(c::__NR_connect, [int(socket.0), address.as_ptr().expose_provenance(), address.len()]) }?;
    Ok(socket)
}

/// The port a socket is bound to: the one the kernel chose, where it was asked for port 0. getsockname(2).
pub fn local_port(socket: &OwnedFd) -> Result<u16> {
    let mut address = [0u8; 16]; // struct sockaddr_in, as above
    let mut len = address.len() as u32;
    let (to, size) = (address.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    // SAFETY: the kernel writes at most the 16 bytes that the length says, and the length (getsockname(2)).
    unsafe { call(c::__NR_getsockname, [int(socket.0), to, size]) }?;
    Ok(u16::from_be_bytes([address[2], address[3]]))
}

/// accept4(2): the next connection.
pub fn accept(socket: &OwnedFd) -> Result<OwnedFd> {
    plain(c::__NR_accept4, [int(socket.0), 0, 0, c::O_CLOEXEC as usize]).map(OwnedFd::from_result)
}

/// shutdown(2): the other side reads the end, and can still be heard.
pub fn end_output(socket: Fd) -> Result<()> {
    /// SHUT_WR.
    const OUTPUT: usize = 1;
    plain(c::__NR_shutdown, [int(socket.0), OUTPUT]).map(drop)
}

/// A socket of a machine that waits for its host on a port, 4294967295 excepted (vsock(7)).
pub fn listen_vsock(port: u32, backlog: u32) -> Result<OwnedFd> {
    /// VMADDR_CID_ANY: whatever this machine is called.
    const ANY: u32 = u32::MAX;
    let socket = vsock()?;
    let address = vsock_address(ANY, port);
    // SAFETY: the kernel reads 16 bytes (bind(2)).
    unsafe { call(c::__NR_bind, [int(socket.0), address.as_ptr().expose_provenance(), address.len()]) }?;
    plain(c::__NR_listen, [int(socket.0), backlog as usize])?;
    Ok(socket)
}

/// A connection from a machine to a port of its host (vsock(7)).
pub fn connect_vsock(port: u32) -> Result<OwnedFd> {
    /// VMADDR_CID_HOST.
    const HOST: u32 = 2;
    let socket = vsock()?;
    let address = vsock_address(HOST, port);
    // SAFETY: the kernel reads 16 bytes (connect(2)).
    unsafe { call(c::__NR_connect, [int(socket.0), address.as_ptr().expose_provenance(), address.len()]) }?;
    Ok(socket)
}

fn vsock() -> Result<OwnedFd> {
    let kind = (n::SOCK_STREAM | c::O_CLOEXEC) as usize;
    plain(c::__NR_socket, [n::AF_VSOCK as usize, kind, 0]).map(OwnedFd::from_result)
}

/// `struct sockaddr_vm`: family, reserved, port, machine, flags and padding, all in the host's order (vsock(7)).
fn vsock_address(machine: u32, port: u32) -> [u8; 16] {
    let [f0, f1] = (n::AF_VSOCK as u16).to_ne_bytes();
    let ([p0, p1, p2, p3], [m0, m1, m2, m3]) = (port.to_ne_bytes(), machine.to_ne_bytes());
    [f0, f1, 0, 0, p0, p1, p2, p3, m0, m1, m2, m3, 0, 0, 0, 0]
}

/// A socket for requests about network cards, which any will do for (netdevice(7)).
pub fn requests() -> Result<OwnedFd> {
    let kind = (n::SOCK_DGRAM | c::O_CLOEXEC) as usize;
    plain(c::__NR_socket, [n::AF_INET as usize, kind, 0]).map(OwnedFd::from_result)
}

/// `struct ifreq`: a card's name, and what the request is about.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

/// Asks, and gives back what the kernel left in the value's place.
fn request(socket: Fd, number: u32, name: &[u8], value: &[u8]) -> Result<[u8; 24]> {
    let mut request = Request { name: [0; 16], value: [0; 24] };
    // The name ends in NUL.
    request
        .name
        .get_mut(..name.len())
        .filter(|room| room.len() < 16)
        .ok_or(Errno::NODEV)?
        .copy_from_slice(name);
    request.value.get_mut(..value.len()).ok_or(Errno::INVAL)?.copy_from_slice(value);
    let pointer = (&raw mut request).expose_provenance();
    // SAFETY: the kernel reads the structure, and may write to it; it is as long as netdevice(7) says.
    unsafe { call(c::__NR_ioctl, [int(socket.0), number as usize, pointer]) }?;
    Ok(request.value)
}

/// `struct sockaddr_in`: family in the host's order, port and address in the network's, padding (ip(7)).
fn socket_address(address: [u8; 4], port: u16) -> [u8; 16] {
    let [a, b, c, d] = address;
    let [p0, p1] = port.to_be_bytes();
    let [f0, f1] = (n::AF_INET as u16).to_ne_bytes();
    [f0, f1, p0, p1, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// `struct sockaddr_in` of an address, without a port.
fn address_bytes(address: [u8; 4]) -> [u8; 16] {
    socket_address(address, 0)
}

/// A card's IPv4 address: `SIOCGIFADDR`.
pub fn address(socket: Fd, name: &[u8]) -> Result<[u8; 4]> {
    let answer = request(socket, i::SIOCGIFADDR, name, &[])?;
    let [_, _, _, _, a, b, c, d, ..] = answer;
    Ok([a, b, c, d])
}

/// Switches a card on or off: `SIOCSIFFLAGS`.
pub fn switch(socket: Fd, name: &[u8], on: bool) -> Result<()> {
    let flags = if on { n::net_device_flags::IFF_UP as u16 } else { 0 };
    request(socket, i::SIOCSIFFLAGS, name, &flags.to_ne_bytes()).map(drop)
}

/// Gives a card another hardware address: `SIOCSIFHWADDR`.
pub fn set_hardware_address(socket: Fd, name: &[u8], address: [u8; 6]) -> Result<()> {
    /// ARPHRD_ETHER (linux/if_arp.h).
    const ETHERNET: u16 = 1;
    let [f0, f1] = ETHERNET.to_ne_bytes();
    let [a0, a1, a2, a3, a4, a5] = address;
    request(socket, i::SIOCSIFHWADDR, name, &[f0, f1, a0, a1, a2, a3, a4, a5]).map(drop)
}

/// Gives a card an IPv4 address, of which so many bits name the network: `SIOCSIFADDR`, `SIOCSIFNETMASK`.
pub fn set_address(socket: Fd, name: &[u8], address: [u8; 4], prefix: u8) -> Result<()> {
    request(socket, i::SIOCSIFADDR, name, &address_bytes(address))?;
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
    request(socket, i::SIOCSIFNETMASK, name, &address_bytes(mask.to_be_bytes())).map(drop)
}

/// Sends what is for elsewhere to a neighbour: `SIOCADDRT` (route(8)).
pub fn add_gateway(socket: Fd, gateway: [u8; 4]) -> Result<()> {
    /// RTF_UP and RTF_GATEWAY (linux/route.h).
    const FLAGS: u16 = 1 | 2;
    /// `struct rtentry` on machines of 64 bits.
    #[repr(C)]
    struct Route {
        pad: u64,
        to: [u8; 16],
        gateway: [u8; 16],
        mask: [u8; 16],
        flags: u16,
        rest: [u64; 7],
    }
    const _: () = assert!(size_of::<Route>() == 120 && size_of::<usize>() == 8);
    let everywhere = address_bytes([0; 4]);
    let route = Route {
        pad: 0,
        to: everywhere,
        gateway: address_bytes(gateway),
        mask: everywhere,
        flags: FLAGS,
        rest: [0; 7],
    };
    let pointer = (&raw const route).expose_provenance();
    // SAFETY: the kernel reads the structure, whose last parts, a device's name among them, are null.
    unsafe { call(c::__NR_ioctl, [int(socket.0), i::SIOCADDRT as usize, pointer]) }.map(drop)
}
