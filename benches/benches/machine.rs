//! What the monitor of a machine weighs: the program's file, and the memory of its process without the guest's.
//!
//! `cargo bench -p benches --bench machine`; as root, with a kernel (`lab kernel list`) and a static busybox. A machine of 64 MiB
//! is created and started with `sleep`, by `lab-vm` as an engine does it; when its monitor idles, `proc_pid_smaps(5)` tells
//! what each mapping has resident. The guest's memory is left out: the mapping that the kernel's file lies over, with all that
//! is joined to it and was mapped without reservation (`nr`), as guest memory is.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use benches::programs::{own, peer};
use serde_json::json;

/// How long a machine may come to rest.
const REST: Duration = Duration::from_secs(2);

/// One mapping, in kilobytes.
#[derive(Debug)]
struct Mapping {
    start: u64,
    end: u64,
    is_kernel: bool,
    no_reserve: bool,
    rss: u64,
    pss: u64,
    private_dirty: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED (needs root)");
        return Ok(());
    }
    let Some(busybox) = peer("busybox") else {
        println!("SKIPPED (needs a static busybox; install the package busybox-static)");
        return Ok(());
    };
    let program = own("microvm", "lab-vm")?;
    let place = tempfile::tempdir()?;
    let bundle = bundle(place.path(), &busybox)?;
    let state = place.path().join("state");
    let id = format!("bench-weight-{}", std::process::id());
    let lab = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(&state).args(words).current_dir(&bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()
    };
    let weighed = (|| {
        if !lab(&["create", "--pid-file", "pid", &id])?.success() || !lab(&["start", &id])?.success() {
            return Err("the machine does not start".into());
        }
        std::thread::sleep(REST);
        let pid = fs::read_to_string(bundle.join("pid"))?;
        Ok::<_, Box<dyn Error>>(mappings(&fs::read_to_string(format!("/proc/{pid}/smaps"))?))
    })();
    lab(&["delete", "--force", &id])?;
    let all = weighed?;
    let guest = guest(&all).ok_or("no mapping of the kernel's file: is it a bzImage that was copied?")?;
    let sum = |of: fn(&Mapping) -> u64| -> u64 {
        let others = all.iter().enumerate().filter(|(at, _)| !guest.contains(at));
        others.map(|(_, mapping)| of(mapping)).sum()
    };
    println!("program              {:>8} kB", fs::metadata(&program)?.len() / 1000);
    println!("resident             {:>8} KiB", sum(|mapping| mapping.rss));
    println!("PSS                  {:>8} KiB", sum(|mapping| mapping.pss));
    println!("private dirty        {:>8} KiB", sum(|mapping| mapping.private_dirty));
    let of_guest: u64 = all[guest].iter().map(|mapping| mapping.rss).sum();
    println!("(guest memory, resident, left out: {of_guest} KiB)");
    Ok(())
}

fn bundle(place: &Path, busybox: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let bundle = place.join("bundle");
    fs::create_dir_all(bundle.join("rootfs/bin"))?;
    fs::create_dir(bundle.join("rootfs/proc"))?;
    fs::copy(busybox, bundle.join("rootfs/bin/sleep"))?;
    let config = json!({
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "1000"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "annotations": {"lab.vm.memory": "64"},
        "linux": {"namespaces": [{"type": "network"}]},
    });
    fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(bundle)
}

/// The file `smaps`: for each mapping a line of addresses, protection and file, then lines of names and values.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let hex = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            let is_kernel = line.ends_with("/vmlinux");
            let (start, end) = (hex(start), hex(end));
            all.push(Mapping { start, end, is_kernel, no_reserve: false, rss: 0, pss: 0, private_dirty: 0 });
            continue;
        }
        let Some(last) = all.last_mut() else { continue };
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match first {
            "Rss:" => last.rss = number(),
            "Pss:" => last.pss = number(),
            "Private_Dirty:" => last.private_dirty = number(),
            "VmFlags:" => last.no_reserve = words.any(|flag| flag == "nr"),
            _ => {}
        }
    }
    all
}

/// Which mappings are the guest's memory.
fn guest(all: &[Mapping]) -> Option<std::ops::Range<usize>> {
    let kernel = all.iter().position(|mapping| mapping.is_kernel)?;
    let is_guest = |mapping: &Mapping| mapping.is_kernel || mapping.no_reserve;
    let joined = |at: usize| all[at - 1].end == all[at].start;
    let (mut first, mut end) = (kernel, kernel + 1);
    while first > 0 && joined(first) && is_guest(&all[first - 1]) {
        first -= 1;
    }
    while end < all.len() && joined(end) && is_guest(&all[end]) {
        end += 1;
    }
    Some(first..end)
}
