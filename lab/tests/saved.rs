//! `lab vm snapshot`, `lab vm restore` and `lab vm gdb`: a machine written down as it runs, machines that go on from there, and a
//! debugger before one.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::daemon::eventually;
use common::leftovers::Traces;
use common::{Lab, Output, Wall, image, skip};
use serde_json::Value;

/// Writes line after line to a file of the guest's memory, and ends with code 5 when it is asked to.
const COUNTER: &str = "trap 'exit 5' TERM; while :; do echo line >>/tmp/n; sleep 0.05; done";

fn missing() -> Option<&'static str> {
    Wall::Vm.missing().or_else(image::missing).or_else(|| Wall::Container.missing())
}

fn lab(lab: &Lab, words: &[&str]) -> Output {
    lab.run(words, "")
}

fn says(home: &Lab, words: &[&str]) -> String {
    let output = lab(home, words);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "lab {words:?}: {output:?}");
    output.stdout.trim_end().to_owned()
}

fn refused(home: &Lab, words: &[&str], parts: &[&str]) {
    let output = lab(home, words);
    let line = &output.stderr;
    assert!(output.code != 0 && line.lines().count() == 1, "lab {words:?}: {output:?}");
    for part in parts {
        assert!(line.contains(part), "lab {words:?}: no {part:?} in {line:?}");
    }
}

fn start(home: &Lab, name: &str, more: &[&str]) {
    let words =
        [&["run", "-d", "--runtime", "vm", "-m", "64m", "--name", name], more, &["box", "sh", "-c", COUNTER]];
    says(home, &words.concat());
}

/// How many lines there are by now; none, where the workload has only just begun.
fn count(home: &Lab, name: &str) -> usize {
    lab(home, &["exec", name, "cat", "/tmp/n"]).stdout.lines().count()
}

#[test]
fn vm_machines_go_on_from_a_snapshot_of_a_running_one_each_as_its_own() {
    let what = "vm_machines_go_on_from_a_snapshot_of_a_running_one_each_as_its_own";
    if let Some(why) = missing() {
        return skip(what, why);
    }
    let home = Lab::own();
    start(&home, "first", &["-p", "127.0.0.1:0:80"]);
    says(&home, &["exec", "first", "sh", "-c", "echo kept >/tmp/state"]);
    eventually("its workload counts", || count(&home, "first") > 2);
    let told: Value =
        serde_json::from_str(&says(&home, &["vm", "snapshot", "--json", "first", "snapshot"])).expect("JSON");
    assert_eq!((told["memory"].as_u64(), &told["name"]), (Some(64 << 20), &Value::from("first")), "{told}");
    assert!(told["size"].as_u64() < Some(64 << 20), "pages that nobody touched take no room: {told}");
    // The original goes on.
    let then = count(&home, "first");
    eventually("the original goes on", || count(&home, "first") > then);

    let ids = says(&home, &["vm", "restore", "snapshot", "--name", "clone", "--count", "2"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2);
    says(&home, &["rm", "-f", "first"]);
    let mut random = Vec::new();
    for (name, id) in ["clone-1", "clone-2"].into_iter().zip(ids) {
        assert_eq!(says(&home, &["exec", name, "cat", "/tmp/state"]), "kept");
        let then = count(&home, name);
        assert!(then > 2, "it goes on where the first one was, not at the beginning");
        eventually("its workload goes on", || count(&home, name) > then);
        assert_eq!(says(&home, &["exec", name, "hostname"]), id[..12]);
        random.push(says(&home, &["exec", name, "sh", "-c", "head -c 16 /dev/urandom | md5sum"]));
        assert!(says(&home, &["port", name]).starts_with("80/tcp -> 127.0.0.1:"));
    }
    assert_ne!(random[0], random[1]);
    let address =
        |name| says(&home, &["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name]);
    assert_ne!(address("clone-1"), address("clone-2"));
    for name in ["clone-1", "clone-2"] {
        let inside = says(&home, &["exec", name, "sh", "-c", "cat /proc/net/fib_trie"]);
        assert!(inside.contains(&address(name)), "its card has its own address: {inside}");
    }

    // Signals reach the workload, and its exit code comes back; started again it goes on from the snapshot once more.
    says(&home, &["stop", "clone-1"]);
    assert_eq!(says(&home, &["wait", "clone-1"]), "5");
    says(&home, &["start", "clone-1"]);
    assert_eq!(says(&home, &["exec", "clone-1", "cat", "/tmp/state"]), "kept");
    // A snapshot of a clone is one.
    says(&home, &["exec", "clone-2", "sh", "-c", "echo changed >/tmp/state"]);
    says(&home, &["vm", "snapshot", "clone-2", "second"]);
    let json: Value =
        serde_json::from_str(&says(&home, &["vm", "restore", "second", "--json"])).expect("JSON");
    let third = json[0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(says(&home, &["exec", &third, "cat", "/tmp/state"]), "changed");
    says(&home, &["rm", "-f", "clone-1", "clone-2", &third]);
}

/// CRC-32 as in zip files.
fn crc(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, fold)
}

/// Changes a snapshot's file, and makes all its checksums right again, as a file of another host or version would have them.
fn forge(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    const STATE: usize = 4096;
    let (machine, description) = (folder.join("machine.snapshot"), folder.join("machine.json"));
    let mut bytes = fs::read(&machine).expect("the snapshot");
    change(&mut bytes);
    let len = u64::from_le_bytes(bytes[16..24].try_into().expect("eight")) as usize;
    bytes[12..16].fill(0);
    let sum = crc(&[&bytes[STATE..STATE + len], &bytes[..40]].concat());
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(&machine, bytes).expect("the snapshot");
    let mut told: Value =
        serde_json::from_slice(&fs::read(&description).expect("machine.json")).expect("JSON");
    told["checksum"] = microvm::snapshot::digest(&machine).expect("its digest").into();
    fs::write(&description, told.to_string()).expect("machine.json");
}

#[test]
fn vm_snapshots_that_cannot_be_taken_or_used_are_refused_by_name_and_leave_nothing() {
    let what = "vm_snapshots_that_cannot_be_taken_or_used_are_refused_by_name_and_leave_nothing";
    if let Some(why) = missing() {
        return skip(what, why);
    }
    let home = Lab::own();
    let shared = home.home().join("shared");
    fs::create_dir(&shared).expect("a folder");
    fs::write(shared.join("file"), "x").expect("a file");
    let volume = format!("{}:/data", shared.display());
    says(&home, &["run", "-d", "--name", "contained", "box", "sleep", "1000"]);
    start(&home, "good", &[]);
    let held = "exec 3</data/file; while :; do sleep 1; done";
    says(&home, &["run", "-d", "--runtime", "vm", "--name", "open", "-v", &volume, "box", "sh", "-c", held]);
    eventually("the file is open", || {
        says(&home, &["exec", "open", "ls", "-l", "/proc/1/fd"]).contains("/data/file")
    });

    refused(&home, &["vm", "snapshot", "nobody", "s"], &["No such container", "nobody"]);
    refused(&home, &["vm", "snapshot", "contained", "s"], &["a container, and no virtual machine"]);
    refused(&home, &["vm", "snapshot", "good", "shared"], &["shared", "no empty folder"]);
    refused(&home, &["vm", "snapshot", "open", "s"], &["files of the host open", "leave out the volumes"]);
    refused(&home, &["vm", "snapshot", "good", "no/folder/s"], &["no/folder/s"]);
    assert!(!home.home().join("s").exists(), "nothing is left of a snapshot that was not taken");
    says(&home, &["vm", "snapshot", "good", "s"]);
    says(&home, &["rm", "-f", "contained", "open"]);

    let folder = home.home().join("s");
    let whole = fs::read(folder.join("machine.snapshot")).expect("the snapshot");
    let before = Traces::of(home.home());
    let restore = ["vm", "restore", "s", "--name", "again"];
    refused(&home, &["vm", "restore", "nowhere"], &["nowhere", "lab vm snapshot"]);
    refused(&home, &["vm", "restore", "shared"], &["shared", "machine.json"]);
    refused(&home, &["vm", "restore", "s", "--name", "good"], &["/good", "already in use"]);
    refused(&home, &["vm", "restore", "s", "--count", "0"], &["--count"]);

    let memory = whole.iter().rposition(|&byte| byte != 0).expect("a byte");
    let machine = folder.join("machine.snapshot");
    for (at, part) in [(memory, "checksum"), (5000, "checksum")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&machine, bytes).expect("the snapshot");
        refused(&home, &restore, &["machine.snapshot", part]);
    }
    fs::write(&machine, &whole[..whole.len() / 2]).expect("the snapshot");
    refused(&home, &restore, &["checksum"]);
    let forged = |change: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        fs::write(&machine, &whole).expect("the snapshot");
        forge(&folder, change);
        refused(&home, &restore, parts);
    };
    forged(&|bytes| bytes[8] = 99, &["its format is 99"]);
    // The first field is how many things it tells of its origin, then the name of the first, then that: the CPU's.
    let cpu = |bytes: &[u8]| bytes.windows(3).position(|three| three == b"CPU").expect("the CPU") + 40;
    forged(
        &|bytes| {
            let at = cpu(bytes);
            bytes[at] ^= 1;
        },
        &["taken with another CPU"],
    );
    forged(&|bytes| bytes.truncate(bytes.len() - 4096), &["cut off"]);
    assert!(!says(&home, &["ps", "-a"]).contains("again"), "no machine is left of what was refused");
    before.assert_unchanged();

    // Whole again, it can be used.
    fs::write(&machine, &whole).expect("the snapshot");
    forge(&folder, |_| ());
    says(&home, &restore);
    says(&home, &["rm", "-f", "again", "good"]);
    says(&home, &["vm", "restore", "s", "--name", "again"]);
    says(&home, &["rm", "-f", "again"]);
    refused(&home, &["vm", "snapshot", "again", "t"], &["again"]);
}

#[test]
fn vm_gdb_looks_into_the_kernel_of_a_machine_that_runs_and_lets_it_go_on() {
    let what = "vm_gdb_looks_into_the_kernel_of_a_machine_that_runs_and_lets_it_go_on";
    let no_gdb = || Command::new("gdb").arg("--version").output().is_err().then_some("apt-get install gdb");
    if let Some(why) = missing().or_else(no_gdb) {
        return skip(what, why);
    }
    let home = Lab::own();
    start(&home, "looked-at", &[]);
    let told: Value =
        serde_json::from_str(&says(&home, &["vm", "gdb", "--json", "looked-at"])).expect("JSON");
    let socket = told["socket"].as_str().expect("a socket").to_owned();
    assert!(Path::new(&socket).exists());
    assert!(
        says(&home, &["vm", "gdb", "--print", "looked-at"]).contains(&format!("'target remote {socket}'"))
    );
    let words = ["--nx", "--batch", "-ex", "info threads", "-ex", "x/i $pc", "-ex", "detach"];
    // Twice: one GDB after the other may look at it.
    for _ in 0..2 {
        let output = lab(&home, &[&["vm", "gdb", "looked-at", "--"][..], &words].concat());
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("Thread 1") && text.contains("=> 0x") && text.contains("detached"), "{text}");
        // Where a program of the guest's runs, the kernel's symbols name nothing; so only that they were read.
        if let Some(symbols) = told["symbols"].as_str() {
            assert!(Path::new(symbols).exists());
        }
    }
    let then = count(&home, "looked-at");
    eventually("it goes on", || count(&home, "looked-at") > then);
    says(&home, &["rm", "-f", "looked-at"]);
    assert!(!Path::new(&socket).exists(), "the socket goes with the machine");
    refused(&home, &["vm", "gdb", "looked-at"], &["looked-at"]);
}

#[test]
fn the_shell_completes_what_copies_machines() {
    let home = Lab::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = says(&home, &["completion", shell]);
        for word in ["snapshot", "restore", "gdb"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
