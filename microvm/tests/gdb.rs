//! The real GDB before a small guest: registers, memory, breakpoints in memory and in the processor, steps, and the end.

#[path = "common/bundle.rs"]
mod bundle;
mod common;

use std::fmt::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use common::{config, elf, kvm, reset, skip};
use microvm::boot::boot;
use microvm::devices::power::PowerRequest;
use microvm::vcpu::End;

/// What GDB prints when it is told these commands, on this guest.
fn gdb(code: &[u8], commands: &[&str]) -> (String, Option<End>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gdb");
    let mut config = config(elf(code).path());
    let kernel = elf(code);
    config.kernel = kernel.path().into();
    config.gdb = Some(UnixListener::bind(&socket).unwrap());
    let vm = boot(config).unwrap();
    let mut script =
        format!("set confirm off\nset architecture i386:x86-64\ntarget remote {}\n", socket.display());
    for command in commands {
        writeln!(script, "{command}").unwrap();
    }
    let said = tell_gdb(folder.path(), &script);
    // One that GDB let go on ends by itself.
    let end = vm.wait_until(std::time::Instant::now() + std::time::Duration::from_secs(20)).unwrap();
    (said, end)
}

/// What GDB prints, started in this folder with this script.
fn tell_gdb(folder: &Path, script: &str) -> String {
    std::fs::write(folder.join("commands"), script).unwrap();
    let mut gdb = Command::new("timeout");
    let output =
        gdb.args(["120", "gdb", "--nx", "--batch", "--command", "commands"]).current_dir(folder).output();
    let output = output.unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn can_run(test: &str) -> bool {
    if Command::new("gdb").arg("--version").output().is_err() {
        return skip(test, "needs gdb; install the package gdb");
    }
    kvm(test)
}

/// `mov eax, 5; loop: dec eax; mov [rip + after], eax; jnz loop; mov ebx, 7;` and the reset. The store keeps the flags.
fn guest() -> Vec<u8> {
    let mut code = vec![0xb8, 5, 0, 0, 0]; // 100000: mov eax, 5
    code.extend([0xff, 0xc8]); //              100005: dec eax
    code.extend([0x89, 0x04, 0x25, 0x00, 0x20, 0x10, 0x00]); // 100007: mov [0x102000], eax
    code.extend([0x75, 0xf5]); //              10000e: jnz 100005
    code.extend([0xbb, 7, 0, 0, 0]); //        100010: mov ebx, 7
    code.extend(reset()); //                   100015
    code
}

#[test]
fn gdb_reads_steps_breaks_and_lets_go() {
    if !can_run("gdb_reads_steps_breaks_and_lets_go") {
        return;
    }
    let (said, end) = gdb(
        &guest(),
        &[
            "printf \"start %lx\\n\", $pc",
            "x/2xb 0x100000",
            "stepi",
            "printf \"stepped %lx eax=%d\\n\", $pc, $eax",
            "break *0x10000e",
            "continue",
            "printf \"broke %lx eax=%d\\n\", $pc, $eax",
            "x/1xb 0x10000e",
            "continue",
            "printf \"again %lx eax=%d stored=%d\\n\", $pc, $eax, *(int*)0x102000",
            "set $eax = 40",
            "set *(int*)0x102004 = 77",
            "printf \"set eax=%d memory=%d\\n\", $eax, *(int*)0x102004",
            "set $eax = 1",
            "delete",
            "hbreak *0x100010",
            "continue",
            "printf \"hardware %lx eax=%d\\n\", $pc, $eax",
            "stepi",
            "printf \"ebx=%d\\n\", $ebx",
            "info threads",
            "delete",
            "detach",
        ],
    );
    for promise in [
        "start 100000",
        "0x100000:\t0xb8\t0x05",
        "stepped 100005 eax=5",
        "broke 10000e eax=4",
        "0x10000e:\t0x75",
        "again 10000e eax=3 stored=3",
        "set eax=40 memory=77",
        "hardware 100010 eax=0",
        "ebx=7",
        "Thread 1",
    ] {
        assert!(said.contains(promise), "{promise}\n--- {said}");
    }
    assert_eq!(end, Some(End::Asked(PowerRequest::Reset)), "{said}");
}

#[test]
fn gdb_stops_a_guest_that_turns_in_circles_and_kills_it() {
    if !can_run("gdb_stops_a_guest_that_turns_in_circles_and_kills_it") {
        return;
    }
    // jmp $
    let commands = [
        "python import threading, os, signal",
        "python threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
        "continue",
        "printf \"stopped %lx\\n\", $pc",
        r#"python exec('try:\n gdb.execute("x/4xb 0x7fffffffffff")\nexcept gdb.error as e: print(e)')"#,
        "kill",
    ];
    let (said, end) = gdb(&[0xeb, 0xfe], &commands);
    assert!(said.contains("stopped 100000"), "{said}");
    assert!(said.contains("Cannot access memory"), "{said}");
    assert_eq!(end, Some(End::Stopped), "{said}");
}

#[test]
fn gdb_looks_into_the_kernel_of_a_jailed_machine_which_then_goes_on() {
    let test = "gdb_looks_into_the_kernel_of_a_jailed_machine_which_then_goes_on";
    if !can_run(test) || !bundle::can_run(test) {
        return;
    }
    let bundle = bundle::Bundle::new(&["sh", "-c", "echo went on"]);
    bundle.create(&["--gdb", "gdb.sock"]);
    let script = "set architecture i386:x86-64\ntarget remote gdb.sock\nprintf \"stack %lx\\n\", $rsp\nx/2i $pc\nstepi\ndetach\n";
    let said = tell_gdb(&bundle.folder, script);
    // An instruction, read through the page tables of the guest, wherever it was.
    assert!(said.contains("=> 0x"), "{said}");
    assert!(said.contains("detached"), "{said}");
    bundle.ok(&["start", &bundle.id]);
    bundle::until("the workload has ended", || bundle.status() == "stopped");
    assert_eq!(bundle.printed(), "went on\n");
    bundle.ok(&["delete", &bundle.id]);
    assert!(!bundle.folder.join("gdb.sock").exists());
    assert_eq!(bundle.traces(), [].into());
}
