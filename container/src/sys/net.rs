//! The loopback interface of a new network namespace: it is there, but down (`network_namespaces(7)`).

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Result, checked};

/// Brings `lo` of the current network namespace up, which also gives it 127.0.0.1 and ::1: `netdevice(7)`.
pub(crate) fn loopback_up() -> Result<()> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an ifreq is plain data; all zeroes is a valid one (netdevice(7)).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq through the pointer (netdevice(7)).
    let value = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::c_long,
            std::ptr::from_ref(&request),
        )
    };
    checked(value).map(drop)
}
