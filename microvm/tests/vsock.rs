//! Sockets between host and guest, through the virtio-vsock device of a machine that an engine's command made: both directions,
//! more data than any buffer holds, and nothing left.

#[path = "common/bundle.rs"]
mod bundle;
mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use bundle::{Bundle, can_run, until};

/// As long as a machine may take whose kernel is interpreted on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

/// The guest's program, linked statically: the guest has no libraries.
fn build(bundle: &Bundle) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/vsock.rs");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cpanic=abort", "-o"])
        .arg(bundle.rootfs().join("bin/vsock"))
        .arg(source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn programs_on_both_sides_of_the_wall_talk_by_sockets() {
    if !can_run("programs_on_both_sides_of_the_wall_talk_by_sockets") {
        return;
    }
    let bundle = Bundle::new(&["/bin/vsock"]);
    let id = bundle.id.clone();
    build(&bundle);
    let path = bundle.folder.join("v.sock");
    let listener = UnixListener::bind(bundle.folder.join("v.sock_6000")).unwrap();
    bundle.create(&["--vsock", "v.sock"]);
    assert!(path.exists());
    bundle.ok(&["start", &id]);

    let (guest, _) = listener.accept().unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(&guest).read_line(&mut line).unwrap();
    assert_eq!(line, "hello from the guest\n");
    (&guest).write_all(b"hello from the host").unwrap();
    drop(guest);

    let mut program = UnixStream::connect(&path).unwrap();
    program.set_read_timeout(Some(PATIENCE)).unwrap();
    program.write_all(b"CONNECT 5000\n").unwrap();
    let mut reader = BufReader::new(program.try_clone().unwrap());
    let mut answer = String::new();
    reader.read_line(&mut answer).unwrap();
    assert!(answer.starts_with("OK "), "{answer:?}");
    // More than all buffers on the way hold together.
    let sent: Vec<u8> = (0..600_000u32).map(|number| (number / 7) as u8).collect();
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            program.write_all(&sent).unwrap();
            program.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut echo = Vec::new();
    reader.read_to_end(&mut echo).unwrap();
    writer.join().unwrap();
    assert!(echo == sent, "{} of {} bytes", echo.len(), sent.len());

    until("the guest's program has ended", || bundle.status() == "stopped");
    assert_eq!(bundle.printed(), "nobody: -1\nheard: hello from the host\n");
    bundle.ok(&["delete", &id]);
    assert!(!path.exists());
    fs::remove_file(bundle.folder.join("v.sock_6000")).unwrap();
    assert_eq!(bundle.traces(), [].into());
}

#[test]
fn a_path_that_is_taken_is_not_another_machines_to_remove() {
    if !can_run("a_path_that_is_taken_is_not_another_machines_to_remove") {
        return;
    }
    let bundle = Bundle::new(&["/bin/true"]);
    let path = bundle.folder.join("precious");
    fs::write(&path, "mine").unwrap();
    let output = bundle.output(&["run", "--vsock", "precious", &bundle.id]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("exists already"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(bundle.traces(), [].into());
}
