//! A real kernel: it comes up to PID 1 and powers off, and its panic is told. The kernel is the first lean one found in the
//! lab's cache (`lab kernel build` puts one there), or the file that LAB_TEST_KERNEL names.

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{config, kvm, skip};
use lab_clock::Mark;
use microvm::agent::Session;
use microvm::boot::boot;
use microvm::devices::power::PowerRequest;
use microvm::devices::virtio::console::Console;
use microvm::devices::virtio::rng::Rng;
use microvm::sandbox::GUEST_INIT;
use microvm::vcpu::End;

/// On a KVM that interprets the kernel, on a machine that runs all tests at once.
const PATIENCE: Duration = Duration::from_secs(400);

fn kernel(test: &str) -> Option<PathBuf> {
    if !kvm(test) {
        return None;
    }
    if let Some(path) = std::env::var_os("LAB_TEST_KERNEL") {
        return Some(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let kernels = cache.and_then(|cache| std::fs::read_dir(cache.join("lab/kernels")).ok());
    let mut found = kernels.into_iter().flatten().flatten().map(|entry| entry.path().join("vmlinux"));
    // The distribution's kernel has its modules beside it, and cannot run where KVM interprets it.
    let found = found.find(|path| path.is_file() && !path.with_file_name("modules").exists());
    if found.is_none() {
        skip(test, "no lean kernel in the lab's cache: lab kernel build makes one");
    }
    found
}

#[test]
fn a_kernel_comes_up_to_pid_1_and_powers_off_when_asked() {
    let Some(kernel) = kernel("a_kernel_comes_up_to_pid_1_and_powers_off_when_asked") else { return };
    let (host, port) = UnixStream::pair().unwrap();
    let mut config = config(kernel);
    config.memory_mib = 64;
    config.initramfs.add_executable("init", GUEST_INIT);
    config.plain = true;
    config.devices = vec![Box::new(Console::new(port, None).unwrap()), Box::new(Rng)];
    let timeline = config.timeline.clone();
    let vm = boot(config).unwrap();
    let session = Session::new(OwnedFd::from(host), None).unwrap();
    session
        .wait_ready(PATIENCE)
        .unwrap_or_else(|error| panic!("{error}: {:#?}", vm.console().last_lines(40)));
    session.power_off().unwrap();
    let end = vm.wait_until(Instant::now() + PATIENCE).unwrap();
    assert!(matches!(end, Some(End::Asked(_))), "{end:?} {:#?}", vm.console().last_lines(40));
    let (up, ready) = (timeline.get(Mark::InitStarted), timeline.get(Mark::AgentReady));
    assert!(up.is_some() && ready > up, "PID 1 marked its start");
}

#[test]
fn a_kernel_without_a_root_panics_and_says_so() {
    let Some(kernel) = kernel("a_kernel_without_a_root_panics_and_says_so") else { return };
    let mut config = config(kernel);
    config.memory_mib = 64;
    let vm = boot(config).unwrap();
    let end = vm.wait_until(Instant::now() + PATIENCE).unwrap();
    let console = vm.console().last_lines(100);
    assert_eq!(end, Some(End::Asked(PowerRequest::Reset)), "{console:#?}");
    assert!(console.iter().any(|line| line.contains("Kernel panic")), "{console:#?}");
}
