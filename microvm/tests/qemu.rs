//! QEMU in place of our VMM: what does not take a kernel to try. A guest that boots is tried where there is one to boot,
//! with both walls.

mod common;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use microvm::devices::serial::Console;
use microvm::initramfs::Initramfs;
use microvm::qemu::{Board, Config, Qemu};
use microvm::vcpu::End;

fn qemu(test: &str) -> bool {
    let found = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    found || common::skip(test, "qemu-system-x86_64 is not installed; install the package qemu-system-x86")
}

#[test]
fn a_file_that_is_no_kernel_is_an_end_with_qemus_own_words_and_a_hang_up() {
    if !qemu("a_file_that_is_no_kernel_is_an_end_with_qemus_own_words_and_a_hang_up") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no kernel").unwrap();
    let (mut host, channel_end) = UnixStream::pair().unwrap();
    let (ended, end_seen) = channel();
    let machine = Qemu::start(Config {
        kernel: file.path().into(),
        initramfs: Initramfs::new(),
        command_line: Vec::new(),
        memory_mib: 64,
        vcpus: 1,
        board: Board::MicroVm,
        disk: file.path().into(),
        interfaces: Vec::new(),
        channel: channel_end,
        console: Console::default(),
        at_end: Some(Box::new(move || ended.send(()).unwrap())),
    })
    .unwrap();
    let end = machine.wait_until(Instant::now() + Duration::from_secs(60));
    assert!(matches!(&end, Some(End::Refused(why)) if why.contains("QEMU")), "{end:?}");
    end_seen.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(host.read(&mut [0]).unwrap(), 0, "QEMU's end of the channel is closed");
}
