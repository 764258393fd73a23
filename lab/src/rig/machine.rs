//! The rig's two processes: virtiofsd, which serves the host's tree, and QEMU, which is the machine.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::{Rig, RigError, during};
use crate::sys;

/// Lines of the console kept for an error message.
const CONSOLE_TAIL: usize = 25;

/// A child process that does not outlive its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the machine and waits for its report.
pub(super) fn run(
    rig: &Rig,
    initramfs: &File,
    stdout: &mut (dyn Write + Send),
    stderr: &mut (dyn Write + Send),
) -> Result<u8, RigError> {
    let (_files, files) = serve_files()?;
    let [out, err, status] = [pipe()?, pipe()?, pipe()?];
    let mut qemu = start_qemu(rig, initramfs, &files, [&out.1, &err.1, &status.1])?;
    for end in [out.1, err.1, status.1] {
        drop(end);
    }
    let console = qemu.0.stdout.take().map(BufReader::new);

    thread::scope(|scope| {
        scope.spawn(move || copy(out.0, stdout));
        scope.spawn(move || copy(err.0, stderr));
        let console = scope.spawn(move || tail(console, rig.verbose));
        let (report, reported) = mpsc::channel();
        scope.spawn(move || {
            let mut text = String::new();
            let _ = { status.0 }.read_to_string(&mut text);
            let _ = report.send(text);
        });
        let report = reported.recv_timeout(rig.timeout);
        // Once the report is in, nothing in the machine is of use; ending it closes every pipe that the threads read.
        drop(qemu);
        let console = console.join().unwrap_or_default();
        match report.map(|text| text.trim().parse()) {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(_)) => Err(RigError::Died { console }),
            Err(_) => Err(RigError::TimedOut { after: rig.timeout, console }),
        }
    })
}

/// Starts virtiofsd and connects to it. The socket listens before the daemon starts, so there is nothing to wait for, and
/// its name is an abstract one (`unix(7)`), so there is nothing to remove.
fn serve_files() -> Result<(Owned, OwnedFd), RigError> {
    let program = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/bin/virtiofsd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or(RigError::Missing {
            program: "virtiofsd",
            package: "virtiofsd (Debian 12: qemu-system-common)",
        })?;
    let (listener, connection) = abstract_socket().map_err(during("make a socket for virtiofsd"))?;
    // The daemon confines itself to the shared folder; without root that takes a user namespace.
    let sandbox = if nix::unistd::geteuid().is_root() { "sandbox=chroot" } else { "sandbox=namespace" };
    let mut command = Command::new(program);
    command
        .arg(format!("--fd={}", listener.as_raw_fd()))
        .args(["-o", "source=/", "-o", "cache=always", "-o", sandbox])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::die_with_parent(&mut command);
    sys::inherit(&mut command, &[listener.as_raw_fd()]);
    let daemon = command.spawn().map(Owned).map_err(during(format!("start {program}")))?;
    Ok((daemon, connection.into()))
}

/// A listening socket under a name of its own, and one connected to it.
fn abstract_socket() -> io::Result<(UnixListener, UnixStream)> {
    let name = format!("lab-rig-{}-{}", std::process::id(), lab_clock::now());
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    Ok((listener, UnixStream::connect_addr(&address)?))
}

/// Starts QEMU: an emulated AMD machine whose processor has SVM, with the three control ports on pipes.
fn start_qemu(rig: &Rig, initramfs: &File, files: &OwnedFd, ports: [&OwnedFd; 3]) -> Result<Owned, RigError> {
    let memory = format!("{}M", rig.memory_mib.max(512));
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC-v3,+svm,+npt"])
        .args(["-smp", &rig.cpus.to_string(), "-m", &memory])
        // vhost-user shares the guest's memory with virtiofsd.
        .args(["-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on")])
        .args(["-numa", "node,memdev=ram"])
        .arg("-kernel")
        .arg(&rig.kernel)
        .args(["-initrd", &format!("/dev/fd/{}", initramfs.as_raw_fd())])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .args(["-serial", "stdio"])
        .args(["-chardev", &format!("socket,id=files,fd={}", files.as_raw_fd())])
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"])
        .args(["-device", "virtio-serial-pci"]);
    for (name, port) in ["stdout", "stderr", "status"].into_iter().zip(ports) {
        command
            .args(["-chardev", &format!("file,id={name},path=/dev/fd/{}", port.as_raw_fd())])
            .args(["-device", &format!("virtserialport,chardev={name},name=rig.{name}")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::die_with_parent(&mut command);
    let [out, err, status] = ports.map(AsRawFd::as_raw_fd);
    sys::inherit(&mut command, &[out, err, status, initramfs.as_raw_fd(), files.as_raw_fd()]);
    command.spawn().map(Owned).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            RigError::Missing { program: "qemu-system-x86_64", package: "qemu-system-x86" }
        }
        _ => during("start qemu-system-x86_64")(error),
    })
}

/// A pipe: our end to read, QEMU's to write.
fn pipe() -> Result<(PipeReader, OwnedFd), RigError> {
    let (reader, writer) = io::pipe().map_err(during("make a pipe"))?;
    Ok((reader, writer.into()))
}

/// Passes on what the command writes, as it comes.
fn copy(mut from: PipeReader, to: &mut (dyn Write + Send)) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Reads the console to its end and keeps the last lines.
fn tail(console: Option<impl BufRead>, verbose: bool) -> String {
    let mut lines = VecDeque::new();
    for line in console.into_iter().flat_map(|console| console.split(b'\n')).map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if verbose {
            eprintln!("rig: {line}");
        }
        if lines.len() == CONSOLE_TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    Vec::from(lines).join("\n")
}
