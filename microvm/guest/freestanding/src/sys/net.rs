//! TCP over IPv4, as much as a server needs.

use linux_raw_sys::general as c;
use linux_raw_sys::net as n;

use super::{OwnedFd, Result, call, int, plain};

/// A socket that listens on a port of every address: socket(2), bind(2), listen(2).
pub fn listen(port: u16, backlog: u32) -> Result<OwnedFd> {
    let kind = (n::SOCK_STREAM | c::O_CLOEXEC) as usize; // SOCK_CLOEXEC is the same bit (socket(2))
    let socket = OwnedFd::from_result(plain(c::__NR_socket, [n::AF_INET as usize, kind, 0])?);
    let (on, level) = (1i32, n::SOL_SOCKET as usize);
    let value = (&raw const on).expose_provenance();
    // SAFETY: the kernel reads an int (setsockopt(2)).
    unsafe { call(c::__NR_setsockopt, [int(socket.0), level, n::SO_REUSEADDR as usize, value, 4]) }?;
    // struct sockaddr_in: family in the host's order, port and address in the network's, padding (ip(7)).
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&(n::AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    // SAFETY: the kernel reads 16 bytes (bind(2)).
    unsafe { call(c::__NR_bind, [int(socket.0), address.as_ptr().expose_provenance(), address.len()]) }?;
    plain(c::__NR_listen, [int(socket.0), backlog as usize])?;
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
