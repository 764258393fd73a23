//! The system calls that the devices need and no safe library offers for guest memory.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::{io, mem};

use nix::libc;
use vm_memory::{Bytes, VolatileSlice};

/// Fills the buffer with random bytes (getrandom(2)).
pub(super) fn random(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel writes at most the given length to the buffer, which we hold exclusively (getrandom(2)).
    let got = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match usize::try_from(got) {
        Ok(got) if got == buffer.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Reads from the file at `offset` straight into guest memory, until the slices are full or the file ends (preadv(2)).
pub(super) fn read_at(file: &File, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<u64> {
    transfer(slices, |iovecs, done| {
        // SAFETY: see `transfer`; the kernel writes to the buffers, which are guest memory and mapped writable.
        unsafe { libc::preadv64(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as _, (offset + done) as _) }
    })
}

/// Writes guest memory straight to the file at `offset` (pwritev(2)). Fewer bytes than given only where the file is full.
pub(super) fn write_at(file: &File, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<u64> {
    transfer(slices, |iovecs, done| {
        // SAFETY: see `transfer`; the kernel reads the buffers.
        unsafe { libc::pwritev64(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as _, (offset + done) as _) }
    })
}

/// As [`write_at`], or to the file's end, wherever that is by then (RWF_APPEND, pwritev2(2)).
pub(super) fn write_or_append(
    file: &File,
    slices: &[VolatileSlice<'_>],
    offset: u64,
    append: bool,
) -> io::Result<u64> {
    let flags = if append { libc::RWF_APPEND } else { 0 };
    transfer(slices, |iovecs, done| {
        let offset = (offset + done) as _;
        // SAFETY: see `transfer`; the kernel reads the buffers.
        unsafe { libc::pwritev2(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as _, offset, flags) }
    })
}

/// Lets nothing be a device, or be written to, in a tree of mounts (mount_setattr(2)).
pub(super) fn restrict_mounts(tree: &OwnedFd, read_only: bool) -> io::Result<()> {
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV | read_only,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is NUL-terminated, and `change` a whole mount_attr of the size given (mount_setattr(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of_val(&change),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives what a stream socket has, straight into guest memory, without waiting (recvmsg(2)). 0 is its end.
pub(super) fn receive(socket: &UnixStream, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    once(slices, |message| {
        // SAFETY: see `once`; the kernel writes to the buffers, which are guest memory and mapped writable.
        unsafe { libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT) }
    })
}

/// Sends guest memory to a stream socket, as much as it takes without waiting, and without SIGPIPE (sendmsg(2)).
pub(super) fn send(socket: &UnixStream, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    once(slices, |message| {
        // SAFETY: see `once`; the kernel reads the buffers.
        unsafe { libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
}

/// Writes guest memory as one message: all of it, or none (writev(2)). What is behind the descriptor takes frames.
pub(super) fn write_once(file: &File, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let iovecs = iovecs(slices);
    // SAFETY: as in `transfer`; the kernel reads the buffers.
    let written = unsafe { libc::writev(file.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as _) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Makes an open /dev/net/tun a TAP device of this name, whose frames have virtio's header and nothing else before them
/// (TUNSETIFF; Linux' networking/tuntap.rst and include/uapi/linux/if_tun.h).
pub(super) fn make_tap(file: &File, name: &str) -> io::Result<()> {
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the kernel reads the structure, and writes the name into it (netdevice(7)).
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// So many bytes are the header of each frame (TUNSETVNETHDRSZ).
pub(super) fn set_tap_header(file: &File, bytes: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads an int.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

/// What the reader of frames can finish itself (TUNSETOFFLOAD).
pub(super) fn set_tap_offloads(file: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// A request about an interface (netdevice(7)).
fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a plain C structure, for which all zeroes are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The name ends in NUL.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Switches an interface on (netdevice(7), SIOCSIFFLAGS).
#[cfg(test)]
pub(super) fn test_interface_up(name: &str) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut request = interface_request(name).unwrap();
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads the structure.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }).unwrap();
}

/// Fills the slices with zeroes from a byte on.
pub(super) fn zero_from(slices: &[VolatileSlice<'_>], done: u64) {
    const ZEROES: [u8; 4096] = [0; 4096];
    for slice in rest(slices, done as usize) {
        for offset in (0..slice.len()).step_by(ZEROES.len()) {
            // Stops at the slice's end by itself.
            let _ = slice.write(&ZEROES, offset);
        }
    }
}

/// Gives the whole pages of a slice back to the host; the guest finds others there when it touches them: empty ones, or, in a
/// machine of a snapshot, the snapshot's (MADV_DONTNEED, madvise(2)).
pub(super) fn give_back(slice: &VolatileSlice<'_>) -> io::Result<()> {
    const PAGE: usize = 4096;
    let guard = slice.ptr_guard_mut();
    let start = guard.as_ptr().addr();
    let first = start.next_multiple_of(PAGE) - start;
    let Some(len) = slice.len().checked_sub(first).map(|len| len / PAGE * PAGE).filter(|&len| len > 0) else {
        return Ok(());
    };
    let pages = guard.as_ptr().wrapping_add(first).cast();
    // SAFETY: the pages lie in the slice, hence in guest memory, which holds no Rust object; all access to it is volatile, and
    // the guest may change it at any time anyway.
    if unsafe { libc::madvise(pages, len, libc::MADV_DONTNEED) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The most buffers that the kernel takes in one call (UIO_MAXIOV, readv(2)).
const MOST_BUFFERS: usize = 1024;

/// The slices as the kernel wants them. They stay valid as long as the slices' lifetime: guest memory is not unmapped
/// while a slice borrows it. The guest may change the bytes meanwhile, which is the kernel's normal case.
fn iovecs(slices: &[VolatileSlice<'_>]) -> Vec<libc::iovec> {
    let base = |slice: &VolatileSlice<'_>| slice.ptr_guard_mut().as_ptr().cast();
    slices
        .iter()
        .take(MOST_BUFFERS)
        .map(|slice| libc::iovec { iov_base: base(slice), iov_len: slice.len() })
        .collect()
}

/// Repeats a vectored call until all bytes went through or it returns 0. It gets the buffers that are left, and how
/// many bytes are done.
fn transfer(
    slices: &[VolatileSlice<'_>],
    mut call: impl FnMut(&[libc::iovec], u64) -> libc::ssize_t,
) -> io::Result<u64> {
    let (mut left, mut done) = (slices.to_vec(), 0);
    while !left.is_empty() {
        let moved = match usize::try_from(call(&iovecs(&left), done)) {
            Ok(0) => break,
            Ok(moved) => moved,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            },
        };
        done += moved as u64;
        left = rest(&left, moved);
    }
    Ok(done)
}

/// Of the slices, `len` bytes from byte `from` on.
pub(super) fn cut<'m>(slices: &[VolatileSlice<'m>], from: usize, mut len: usize) -> Vec<VolatileSlice<'m>> {
    let mut cut = Vec::new();
    for slice in rest(slices, from) {
        let part = len.min(slice.len());
        len -= part;
        cut.extend(slice.subslice(0, part).ok().filter(|part| !part.is_empty()));
    }
    cut
}

/// The slices without their first `bytes`.
fn rest<'m>(slices: &[VolatileSlice<'m>], mut bytes: usize) -> Vec<VolatileSlice<'m>> {
    let mut rest = Vec::new();
    for slice in slices {
        let skip = bytes.min(slice.len());
        bytes -= skip;
        rest.extend(slice.offset(skip).ok().filter(|slice| !slice.is_empty()));
    }
    rest
}

/// One message to or from a socket.
fn once(
    slices: &[VolatileSlice<'_>],
    call: impl FnOnce(&mut libc::msghdr) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut iovecs = iovecs(slices);
    // SAFETY: msghdr is a plain C struct for which all zeroes mean: no address, no buffers, no control data (recvmsg(2)).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = iovecs.as_mut_ptr();
    message.msg_iovlen = iovecs.len() as _;
    usize::try_from(call(&mut message)).map_err(|_| io::Error::last_os_error())
}
