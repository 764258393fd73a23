//! A guest's program: it says hello to the host's port 6000, prints the answer, and then echoes what it hears on port 5000.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

/// vsock(7), linux/vm_sockets.h.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

const AF_VSOCK: i32 = 40;
const SOCK_STREAM: i32 = 1;
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn connect(fd: i32, address: *const Address, len: u32) -> i32;
    fn bind(fd: i32, address: *const Address, len: u32) -> i32;
    fn listen(fd: i32, backlog: i32) -> i32;
    fn accept(fd: i32, address: *mut Address, len: *mut u32) -> i32;
}

fn check(what: &str, result: i32) -> i32 {
    if result < 0 {
        println!("{what}: {}", std::io::Error::last_os_error());
        std::process::exit(1);
    }
    result
}

fn address(cid: u32, port: u32) -> Address {
    Address { family: AF_VSOCK as u16, reserved: 0, port, cid, zero: [0; 4] }
}

fn main() {
    let len = size_of::<Address>() as u32;
    // SAFETY: the calls get descriptors of this process and an address that lives on this stack (vsock(7)).
    unsafe {
        // First, so that the host finds it once it has heard from us.
        let server = check("socket", socket(AF_VSOCK, SOCK_STREAM, 0));
        check("bind", bind(server, &address(ANY, 5000), len));
        check("listen", listen(server, 1));

        let client = check("socket", socket(AF_VSOCK, SOCK_STREAM, 0));
        let refused = connect(client, &address(HOST, 6001), len);
        println!("nobody: {refused}");
        let client = check("socket", socket(AF_VSOCK, SOCK_STREAM, 0));
        check("connect", connect(client, &address(HOST, 6000), len));
        let mut client = File::from_raw_fd(client);
        client.write_all(b"hello from the guest\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        println!("heard: {answer}");
        drop(client);

        let mut peer = File::from_raw_fd(check("accept", accept(server, std::ptr::null_mut(), std::ptr::null_mut())));
        let mut buffer = vec![0; 64 << 10];
        loop {
            match peer.read(&mut buffer).unwrap() {
                0 => break,
                bytes => peer.write_all(&buffer[..bytes]).unwrap(),
            }
        }
    }
}
