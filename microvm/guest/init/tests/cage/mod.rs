//! A guest without a machine: the real PID 1 in pid, mount, network and UTS namespaces of this kernel (and a user namespace, where the
//! test is not root), with one end of a socket pair as its channel.

use std::ffi::CString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use freestanding::sys::process::{self, Ended, Fork, Which, namespaces};
use freestanding::sys::{file, identity, mount, signal};
use freestanding::{Fd, sys};
use guest_wire::{Header, Kind, Stream, Tag, Writer};

/// How long an answer may take before a test fails. It bounds a hang, it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The channel's number in PID 1.
const CHANNEL: i32 = 3;

static INIT: LazyLock<PathBuf> = LazyLock::new(|| build("guest-init"));

/// An image: the lab's workloads with their names, and a few files.
static IMAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let elf = build("lab-workloads");
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    let _ = std::fs::remove_dir_all(&image);
    for folder in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(image.join(folder)).unwrap();
    }
    std::fs::copy(elf, image.join("bin/lab-workloads")).unwrap();
    for name in [
        "sh", "cat", "hello", "sleep", "kill", "stty", "tty", "ps", "env", "id", "ls", "true", "touch", "wc",
        "hostname",
    ] {
        symlink("lab-workloads", image.join("bin").join(name)).unwrap();
    }
    std::fs::write(image.join("etc/secret"), "secret\n").unwrap();
    image
});

fn build(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    freestanding::build::for_test(program, program, folder).unwrap_or_else(|error| panic!("{error}"))
}

/// A running PID 1 and the host's end of its channel.
pub struct Guest {
    supervisor: Child,
    channel: UnixStream,
    folder: PathBuf,
}

impl Guest {
    /// Starts it, and reads its `Ready`. `None` where this machine allows no namespaces: the test is skipped, loudly.
    pub fn boot() -> Option<Self> {
        let mut guest = Self::start()?;
        let (header, payload) = guest.frame();
        assert_eq!((header.kind, header.process), (Kind::Ready, Header::SANDBOX));
        assert_eq!(payload, guest_wire::VERSION.to_le_bytes());
        Some(guest)
    }

    /// Starts it and sets up a writable sandbox with the usual mounts.
    pub fn with_sandbox() -> Option<Self> {
        let mut guest = Self::boot()?;
        guest.setup(|_| ());
        Some(guest)
    }

    fn start() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cage-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (channel, theirs) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(PATIENCE)).unwrap();
        let cage = Cage::new(&folder);
        let fd = Fd(theirs.as_raw_fd());
        let mut command = Command::new("/init");
        command.args(["--channel", &CHANNEL.to_string()]).env_clear();
        // SAFETY: between fork and exec the closure makes system calls only, on values made before; it does not allocate.
        unsafe {
            command
                .pre_exec(move || cage.enter(fd).map_err(|e| std::io::Error::from_raw_os_error(e.0 as i32)))
        };
        match command.spawn() {
            Ok(supervisor) => Some(Self { supervisor, channel, folder }),
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::StorageFull) => {
                println!("SKIPPED (no namespaces: {error}; run as root, or raise user.max_user_namespaces)");
                assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
                let _ = std::fs::remove_dir(&folder);
                None
            }
            Err(error) => panic!("make the cage: {error}"),
        }
    }

    /// Sends `Setup` with the usual mounts, and more.
    pub fn setup(&mut self, more: impl FnOnce(&mut Writer<Vec<u8>>)) {
        let mut writer = Writer::new(Vec::new());
        writer.text(Tag::RootDevice, b"/image-source");
        writer.text(Tag::RootType, b"bind");
        writer.text(Tag::HostName, b"sandbox");
        let nosuid = mount::flags::NO_SUID | mount::flags::NO_EXEC;
        for texts in [
            "proc\0/proc\0proc\0\0",
            "tmpfs\0/dev\0tmpfs\0mode=755\0",
            "devpts\0/dev/pts\0devpts\0newinstance,ptmxmode=0666\0",
            "shm\0/dev/shm\0tmpfs\0mode=1777\0",
        ] {
            writer.field(Tag::Mount, &[&nosuid.to_le_bytes(), texts.as_bytes()]);
        }
        more(&mut writer);
        self.send(Kind::Setup, Header::SANDBOX, &writer.finish());
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: Kind, process: u16, payload: &[u8]) {
        let header = Header::new(kind, process, payload.len() as u32);
        self.bytes(&header.encode());
        self.bytes(payload);
    }

    /// Sends bytes that may be no frame.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.channel.write_all(bytes).unwrap();
    }

    /// Sends bytes to a guest that may hang up meanwhile. Whether it took them all.
    pub fn try_bytes(&mut self, bytes: &[u8]) -> bool {
        self.channel.write_all(bytes).is_ok()
    }

    /// Sends `Exec` for a command, and more.
    pub fn exec(&mut self, process: u16, command: &[&str], more: impl FnOnce(&mut Writer<Vec<u8>>)) {
        let mut writer = Writer::new(Vec::new());
        for argument in command {
            writer.text(Tag::Arg, argument.as_bytes());
        }
        writer.text(Tag::Env, b"PATH=/bin");
        more(&mut writer);
        self.send(Kind::Exec, process, &writer.finish());
    }

    /// The next frame.
    pub fn frame(&mut self) -> (Header, Vec<u8>) {
        self.try_frame().expect("the guest hung up")
    }

    /// The next frame, or `None` when PID 1 is gone.
    pub fn try_frame(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut head = [0; Header::SIZE];
        match self.channel.read_exact(&mut head) {
            Ok(()) => {}
            // Reset: it went with bytes of ours unread.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(error) => panic!("no answer within {PATIENCE:?}: {error}"),
        }
        let header = Header::decode(head).unwrap_or_else(|error| panic!("{error:?}"));
        let mut payload = vec![0; header.len as usize];
        self.channel.read_exact(&mut payload).unwrap();
        Some((header, payload))
    }

    /// Runs a command to its end, giving credit for its output.
    pub fn run(&mut self, process: u16, command: &[&str]) -> Outcome {
        self.exec(process, command, |_| ());
        self.send(Kind::Start, process, &[]);
        self.send(Kind::Closed, process, &[]);
        self.outcome(process)
    }

    /// Reads frames until this process has ended or failed.
    pub fn outcome(&mut self, process: u16) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let (header, payload) = self.frame();
            assert_eq!(header.process, process, "{header:?}");
            match header.kind {
                Kind::Started => outcome.pid = Some(number(&payload)),
                Kind::Data => {
                    let all = if header.stream == Stream::Output {
                        &mut outcome.stdout
                    } else {
                        &mut outcome.stderr
                    };
                    all.push_str(std::str::from_utf8(&payload).unwrap());
                    let credit = Header { kind: Kind::Credit, stream: header.stream, process, len: 4 };
                    self.bytes(&credit.encode());
                    self.bytes(&header.len.to_le_bytes());
                }
                Kind::Closed => outcome.closed += 1,
                Kind::Credit => {}
                Kind::Exited => {
                    outcome.status = Some(number(&payload));
                    return outcome;
                }
                Kind::Failed => {
                    outcome.failed = Some(failure(&payload));
                    return outcome;
                }
                _ => panic!("{header:?}"),
            }
        }
    }

    /// Says `PowerOff` and waits for the end, as [`Self::gone`].
    pub fn power_off(mut self) {
        self.send(Kind::PowerOff, Header::SANDBOX, &[]);
        self.gone();
    }

    /// Waits for PID 1's end. It must have restarted "the machine", which for a pid namespace the kernel shows as SIGHUP
    /// (reboot(2), "Behavior inside PID namespaces").
    pub fn gone(mut self) {
        while self.try_frame().is_some() {}
        let status: ExitStatus = self.supervisor.wait().unwrap();
        assert_eq!(status.code(), Some(128 + 1), "PID 1 did not end by reboot(2)");
    }

    /// Closes the host's end of the channel.
    pub fn hang_up(&self) {
        self.channel.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Whatever the test came to: without its channel PID 1 ends, and with it everything in its namespaces.
        let _ = self.channel.shutdown(std::net::Shutdown::Both);
        let _ = self.supervisor.wait();
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// What became of a process.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its pid in the sandbox.
    pub pid: Option<u32>,
    /// Its output.
    pub stdout: String,
    /// Its errors.
    pub stderr: String,
    /// How many streams were closed before its end.
    pub closed: u32,
    /// How it ended, as on the wire.
    pub status: Option<u32>,
    /// Or why it did not begin.
    pub failed: Option<(u32, String)>,
}

/// A u32 payload.
pub fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload.try_into().unwrap())
}

/// A `Failed` payload: errno, step and object.
pub fn failure(payload: &[u8]) -> (u32, String) {
    let (errno, text) = payload.split_at(4);
    (number(errno), String::from_utf8(text.to_vec()).unwrap())
}

/// Everything that the cage needs, made before the fork.
struct Cage {
    root: CString,
    places: Vec<(CString, CString, bool)>,
    old: CString,
    /// For a user namespace: what to write to `uid_map` and `gid_map`.
    maps: Option<[String; 2]>,
}

impl Cage {
    fn new(folder: &Path) -> Self {
        let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
        // What PID 1 finds in its initramfs, or would: itself, devices, the image. /proc is there because a user namespace
        // may mount a new one only where one is to be seen (mount_namespaces(7)).
        let places = [
            (Path::new("/dev"), "dev", true),
            (Path::new("/proc"), "proc", true),
            (&IMAGE, "image-source", true),
            (&INIT, "init", false),
        ];
        let (uid, gid) = (identity::uid(), identity::gid());
        Self {
            root: text(folder),
            places: places
                .map(|(from, to, is_folder)| (text(from), text(&folder.join(to)), is_folder))
                .into(),
            old: text(&folder.join("old")),
            maps: (uid != 0).then(|| [format!("0 {uid} 1"), format!("0 {gid} 1")]),
        }
    }

    /// In the child: becomes PID 1 in the cage; the process in between waits for it.
    fn enter(&self, channel: Fd) -> sys::Result<()> {
        if let Some([uids, gids]) = &self.maps {
            process::unshare(namespaces::USER)?;
            for (path, text) in [
                (c"/proc/self/setgroups", "deny"),
                (c"/proc/self/uid_map", uids),
                (c"/proc/self/gid_map", gids),
            ] {
                file::open(path, file::flags::WRITE, 0)?.write_all(text.as_bytes())?;
            }
        }
        process::unshare(namespaces::PID | namespaces::MOUNT | namespaces::NAMES | namespaces::NETWORK)?;
        if let Fork::Parent(child) = process::fork(0)? {
            // Nothing of the test's may stay open here: std waits for its own pipe to be closed by exec.
            let _ = process::close_range(3, i32::MAX);
            let _ = signal::set_blocked(signal::Set::of(&[signal::Signal::INT]));
            let ended = process::wait(Which::One(child), true);
            process::exit(ended.ok().flatten().map_or(255, |(_, ended): (_, Ended)| ended.code()))
        }
        mount::mount(c"", c"/", c"", mount::flags::PRIVATE | mount::flags::RECURSIVE, c"")?;
        mount::mount(c"cage", &self.root, c"tmpfs", 0, c"mode=755")?;
        for (from, to, is_folder) in &self.places {
            if *is_folder {
                file::mkdir(to, 0o755)?;
            } else {
                file::mknod(to, 0o755, None)?;
            }
            mount::mount(from, to, c"", mount::flags::BIND | mount::flags::RECURSIVE, c"")?;
        }
        file::mkdir(&self.old, 0o755)?;
        mount::pivot_root(&self.root, &self.old)?;
        process::chdir(c"/")?;
        mount::detach(c"/old")?;
        channel.duplicate_to(Fd(CHANNEL))
    }
}
