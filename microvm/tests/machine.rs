//! The machine, tried by guests of a few bytes: what they find at their first instruction, and how they end.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{config, elf, kvm, out, reset, run};
use guest_wire::{BOOT_TIMER_PORT, GuestMark};
use lab_clock::Mark;
use microvm::Error;
use microvm::boot::boot;
use microvm::devices::power::PowerRequest;
use microvm::devices::virtio::rng::Rng;
use microvm::explain::Explain;
use microvm::vcpu::End;

/// `jmp .`
const FOREVER: [u8; 2] = [0xeb, 0xfe];

#[test]
fn a_guest_prints_on_the_serial_console_and_resets() {
    if !kvm("a_guest_prints_on_the_serial_console_and_resets") {
        return;
    }
    let vm = run(&[out(0x3f8, b'O'), out(0x3f8, b'K'), reset()].concat()).unwrap();
    assert_eq!(vm.wait().unwrap(), End::Asked(PowerRequest::Reset));
    assert_eq!(vm.console().last_lines(1), ["OK"]);
}

#[test]
fn a_guest_powers_off_by_acpi() {
    if !kvm("a_guest_powers_off_by_acpi") {
        return;
    }
    let vm = run(&out(0x600, 5 << 2 | 0x20)).unwrap();
    assert_eq!(vm.wait().unwrap(), End::Asked(PowerRequest::Off));
}

#[test]
fn a_triple_fault_is_no_clean_end() {
    if !kvm("a_triple_fault_is_no_clean_end") {
        return;
    }
    // ud2, and there is no interrupt table to find a handler in.
    let vm = run(&[0x0f, 0x0b]).unwrap();
    assert_eq!(vm.wait().unwrap(), End::TripleFault);
}

#[test]
fn a_64_bit_kernel_finds_the_zero_page_in_rsi() {
    if !kvm("a_64_bit_kernel_finds_the_zero_page_in_rsi") {
        return;
    }
    // mov eax, [rsi + 0x202]; mov dx, 0x3f8; four times: out dx, al; shr eax, 8
    let mut code = vec![0x8b, 0x86, 0x02, 0x02, 0, 0, 0x66, 0xba, 0xf8, 0x03];
    code.extend([0xee, 0xc1, 0xe8, 8].repeat(4));
    code.extend(reset());
    let vm = run(&code).unwrap();
    vm.wait().unwrap();
    assert_eq!(vm.console().last_lines(1), ["HdrS"]);
}

#[test]
fn a_pvh_kernel_finds_the_start_info_in_ebx_and_a_virtio_device_in_its_window() {
    if !kvm("a_pvh_kernel_finds_the_start_info_in_ebx_and_a_virtio_device_in_its_window") {
        return;
    }
    // mov eax, [ebx]; mov dx, 0x3f8; out dx, al: the magic's first byte
    let mut code = vec![0x8b, 0x03, 0x66, 0xba, 0xf8, 0x03, 0xee];
    // mov eax, [0xd0000000] and its four bytes; there is no paging, so the window is where it is
    code.extend([0xa1, 0, 0, 0, 0xd0]);
    code.extend([0xee, 0xc1, 0xe8, 8].repeat(4));
    code.extend(reset());
    let kernel = elf(&code);
    let mut config = config(kernel.path());
    config.pvh = true;
    config.devices = vec![Box::new(Rng)];
    let vm = boot(config).unwrap();
    vm.wait().unwrap();
    assert_eq!(vm.console().last_lines(1), ["xvirt"]);
    assert_eq!(vm.stats().exits().find(|(name, _)| *name == "memory-read"), Some(("memory-read", 1)));
}

#[test]
fn the_steps_of_a_boot_are_marked_in_their_order() {
    if !kvm("the_steps_of_a_boot_are_marked_in_their_order") {
        return;
    }
    let kernel = elf(&[out(BOOT_TIMER_PORT, GuestMark::InitStarted as u8), reset()].concat());
    let config = config(kernel.path());
    let timeline = config.timeline.clone();
    boot(config).unwrap().wait().unwrap();
    let marks: Vec<_> = timeline.marks().into_iter().map(|(mark, _)| mark).collect();
    assert_eq!(
        marks,
        [
            Mark::KvmOpened,
            Mark::VmCreated,
            Mark::MemoryReady,
            Mark::KernelLoaded,
            Mark::DevicesReady,
            Mark::VcpuReady,
            Mark::FirstRun,
            Mark::FirstExit,
            Mark::InitStarted
        ]
    );
}

#[test]
fn a_guest_that_never_exits_is_stopped() {
    if !kvm("a_guest_that_never_exits_is_stopped") {
        return;
    }
    let vm = run(&FOREVER).unwrap();
    assert_eq!(vm.wait_until(Instant::now() + Duration::from_millis(20)).unwrap(), None);
    vm.stop();
    assert_eq!(vm.wait().unwrap(), End::Stopped);
}

#[test]
fn a_paused_guest_does_nothing_until_it_is_resumed() {
    if !kvm("a_paused_guest_does_nothing_until_it_is_resumed") {
        return;
    }
    // again: out 0x80, al; jmp again
    let vm = run(&[0xe6, 0x80, 0xeb, 0xfc]).unwrap();
    let count = || vm.stats().exits().find(|(name, _)| *name == "port-write").map_or(0, |(_, count)| count);
    let settle = || std::thread::sleep(Duration::from_millis(50));
    settle();
    vm.pause();
    settle();
    let paused = count();
    assert!(paused > 0);
    settle();
    assert_eq!(count(), paused);
    vm.resume();
    settle();
    assert!(count() > paused);
}

/// Keeps what is written for whoever has a copy.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_explained_machine_tells_its_memory_its_registers_and_its_exits() {
    if !kvm("an_explained_machine_tells_its_memory_its_registers_and_its_exits") {
        return;
    }
    let kernel = elf(&[out(0x3f8, b'K'), reset()].concat());
    let mut config = config(kernel.path());
    config.devices = vec![Box::new(Rng)];
    let kept = Kept::default();
    config.explain = Some(Explain::new(Box::new(kept.clone())));
    let vm = boot(config).unwrap();
    vm.wait().unwrap();
    let report = vm.report();
    assert_eq!((report.vcpus, report.memory, report.exits["port-write"]), (1, 16 << 20, 2));
    assert_eq!((&*report.devices[0].name, &report.devices[0].fault), ("entropy", &None));
    assert!(report.page_faults > 0 && report.cpu_nanos > 0, "{report:?}");
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    for word in [
        "0x0000100000 … 0x0000100",
        "  kernel",
        "0x00d0000000 … 0x00d0000fff",
        "virtio device: entropy, interrupt 5",
        "   rip 0x0000000000100000",
        "64-bit mode",
        "vCPU 0  port 0x03f8 ← 0x4b 'K'",
        "vCPU 0  port 0x0064 ← 0xfe",
    ] {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn a_profile_tells_where_the_guest_was() {
    if !kvm("a_profile_tells_where_the_guest_was") {
        return;
    }
    let kernel = elf(&FOREVER);
    let mut config = config(kernel.path());
    config.profile = true;
    let vm = boot(config).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    vm.stop();
    vm.wait().unwrap();
    let text = vm.profile().unwrap().by_function("");
    assert!(text.contains("100.00 %"), "{text}");
}

#[test]
fn what_cannot_be_a_machine_is_refused() {
    if !kvm("what_cannot_be_a_machine_is_refused") {
        return;
    }
    let kernel = elf(&FOREVER);
    for vcpus in [0, 9] {
        let mut config = config(kernel.path());
        config.vcpus = vcpus;
        assert!(boot(config).is_err(), "{vcpus} vCPUs");
    }
    let mut config = config(kernel.path());
    config.memory_mib = 1;
    assert!(matches!(boot(config).err(), Some(Error::MemoryTooSmall { mib: 1, .. })));
}

#[test]
fn a_command_line_that_does_not_fit_is_refused() {
    if !kvm("a_command_line_that_does_not_fit_is_refused") {
        return;
    }
    let kernel = elf(&FOREVER);
    let mut config = config(kernel.path());
    config.command_line = vec!["x".repeat(2048)];
    assert!(matches!(boot(config).err(), Some(Error::CommandLine { .. })));
}
