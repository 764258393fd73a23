//! Other monitors, with the lab's guest kernel and 128 MiB. They boot an initramfs that holds nothing but the workload's program
//! as process 1, and talk by a serial line: less than the lab's VM does, which mounts the image's disk and talks to an agent.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Candidate, Ground, Peer, initramfs, is_elf, program};
use crate::measure::child::Call;
use crate::measure::record::Obtained;

/// `reboot=t`: a triple fault resets, and so ends, each of these machines; a dead process 1 is a panic, a panic a reboot.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests";

/// What one monitor is called with.
struct Boot<'a> {
    kernel: &'a Path,
    initramfs: &'a Path,
    command_line: String,
    scratch: &'a Path,
}

type Arguments = fn(&Boot<'_>) -> Result<Vec<OsString>, String>;

pub(super) fn candidates(ground: &Ground<'_>) -> Vec<Candidate> {
    let kvm = ground.kvm.as_ref().copied().unwrap_or(Obtained::Nothing);
    let qemu = "package qemu-system-x86";
    let list: [(&'static str, &'static str, &str, &str, Obtained, Arguments); 7] = [
        ("qemu-microvm-kvm", "QEMU microvm, KVM", "qemu-system-x86_64", qemu, kvm, |boot| {
            Ok(qemu_arguments(boot, "microvm,acpi=off", "kvm"))
        }),
        ("qemu-pc-kvm", "QEMU pc, KVM", "qemu-system-x86_64", qemu, kvm, |boot| {
            Ok(qemu_arguments(boot, "pc", "kvm"))
        }),
        ("qemu-microvm-tcg", "QEMU microvm, TCG", "qemu-system-x86_64", qemu, Obtained::Tcg, |boot| {
            Ok(qemu_arguments(boot, "microvm,acpi=off", "tcg,thread=multi"))
        }),
        ("qemu-pc-tcg", "QEMU pc, TCG", "qemu-system-x86_64", qemu, Obtained::Tcg, |boot| {
            Ok(qemu_arguments(boot, "pc", "tcg,thread=multi"))
        }),
        ("firecracker", "Firecracker", "firecracker", "from its releases", kvm, firecracker),
        ("cloud-hypervisor", "Cloud Hypervisor", "cloud-hypervisor", "from its releases", kvm, |boot| {
            Ok(cloud_hypervisor(boot))
        }),
        ("kvmtool", "kvmtool", "lkvm", "from its sources", kvm, |boot| Ok(kvmtool(boot))),
    ];
    let files = ground
        .kernel
        .clone()
        .and_then(|kernel| {
            let reason = "it takes a vmlinux, which the lab's own kernel is: lab kernel build";
            if is_elf(&kernel) { Ok(kernel) } else { Err(reason.into()) }
        })
        .and_then(|kernel| Ok((kernel, initramfs(ground)?)));
    let candidate = |(name, title, file, package, obtained, arguments): (_, _, &str, &str, _, Arguments)| {
        let found = program(file, package).and_then(|program| {
            match (obtained, &ground.kvm) {
                (Obtained::Tcg, _) | (_, Ok(_)) => {}
                (_, Err(reason)) => return Err(reason.clone()),
            }
            Ok((program, files.clone()?))
        });
        let ways = found.clone().into_iter().map(|(program, (kernel, initramfs))| {
            (way(program, kernel, initramfs, ground.scratch.join(name), arguments), "initramfs only")
        });
        Candidate { name, title, obtained, ways: ways.collect(), program: found.map(|(program, _)| program) }
    };
    list.into_iter().map(candidate).collect()
}

fn way(
    program: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
    scratch: PathBuf,
    arguments: Arguments,
) -> Peer {
    Peer::new(move |command| {
        // What stands after `--` are the arguments of process 1 (Documentation/admin-guide/kernel-parameters.rst).
        let command_line = format!("{COMMAND_LINE} -- {}", command.join(" "));
        let boot = Boot { kernel: &kernel, initramfs: &initramfs, command_line, scratch: &scratch };
        let before = arguments(&boot)?;
        Ok(Call { program: program.clone(), before, marks: false, after: Vec::new() })
    })
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn qemu_arguments(boot: &Boot<'_>, machine: &str, accelerator: &str) -> Vec<OsString> {
    let mut all = words(&["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
    // Cores that the guest's page tables of five levels would slow down, as in the lab's own call of QEMU.
    let cpu = if accelerator == "kvm" { "host" } else { "max,la57=off" };
    all.extend(words(&["-machine", machine, "-accel", accelerator, "-cpu", cpu, "-m", "128M", "-smp", "1"]));
    all.extend(words(&["-serial", "stdio", "-monitor", "none", "-kernel"]));
    all.push(boot.kernel.into());
    all.push("-initrd".into());
    all.push(boot.initramfs.into());
    all.extend(["-append".into(), OsString::from(&boot.command_line)]);
    all
}

/// Firecracker is told by a file.
fn firecracker(boot: &Boot<'_>) -> Result<Vec<OsString>, String> {
    let file = boot.scratch.join("firecracker.json");
    let told = |error: std::io::Error| format!("write {}: {error}", file.display());
    fs::create_dir_all(boot.scratch).map_err(told)?;
    let config = json!({
        "boot-source": {
            "kernel_image_path": boot.kernel, "initrd_path": boot.initramfs,
            // It ends at a keyboard controller's reset.
            "boot_args": boot.command_line.replace("reboot=t", "reboot=k"),
        },
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
    });
    fs::write(&file, config.to_string()).map_err(told)?;
    let mut all = words(&["--no-api", "--level", "Error", "--config-file"]);
    all.push(file.into());
    Ok(all)
}

fn cloud_hypervisor(boot: &Boot<'_>) -> Vec<OsString> {
    let mut all = words(&["--console", "off", "--serial", "tty", "--memory", "size=128M", "--kernel"]);
    all.push(boot.kernel.into());
    all.push("--initramfs".into());
    all.push(boot.initramfs.into());
    all.extend(["--cmdline".into(), OsString::from(&boot.command_line)]);
    all
}

fn kvmtool(boot: &Boot<'_>) -> Vec<OsString> {
    let mut all = words(&["run", "--cpus", "1", "--mem", "128", "--console", "serial", "--kernel"]);
    all.push(boot.kernel.into());
    all.push("--initrd".into());
    all.push(boot.initramfs.into());
    all.extend(["--params".into(), OsString::from(&boot.command_line)]);
    all
}
