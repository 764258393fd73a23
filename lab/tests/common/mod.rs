//! What the tests of `lab run` share: a lab of their own, an image with a shell, and a look at what is left behind.

#![allow(dead_code, reason = "every test program uses a part of it")]

pub mod daemon;
pub mod image;
pub mod leftovers;

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// No run takes longer, on the slowest machine and behind the slower wall; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// The two walls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    Container,
    Vm,
}

impl Wall {
    pub const ALL: [Self; 2] = [Self::Container, Self::Vm];

    /// As `--runtime` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }

    /// Why this wall cannot be tried here, if it cannot.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::Container => {
                (!rustix::process::geteuid().is_root()).then_some("control groups and overlay need root")
            }
            Self::Vm if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() => {
                Some("/dev/kvm cannot be opened")
            }
            Self::Vm => (!matches!(lab::kernel::resolve(None), Ok(Some(_))))
                .then_some("no guest kernel: `lab kernel fetch` or `lab kernel build`"),
        }
    }
}

/// Says loudly that something did not run. In CI that is a failure: nothing passes by not running.
pub fn skip(what: &str, why: &str) {
    // Not by a macro: the test harness would keep its output to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what} ({why})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED {what} ({why}), which CI does not accept");
}

/// Checks a promise behind each wall; a wall that cannot be tried here is skipped loudly.
pub fn for_each_wall(what: &str, check: impl Fn(Wall)) {
    for wall in Wall::ALL {
        match wall.missing().or_else(image::missing) {
            Some(why) => skip(&format!("{}: {what}", wall.name()), why),
            None => check(wall),
        }
    }
}

/// A lab with directories of its own, so that tests see only their own sandboxes. Kernels come from the usual cache.
pub struct Lab {
    home: PathBuf,
    _temporary: Option<TempDir>,
}

/// How a run of `lab` ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    /// The lab that the tests of this program share; its image is loaded once.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Lab> = OnceLock::new();
        SHARED.get_or_init(|| {
            // A static value is never dropped, so its place is one that stays: below the target directory.
            let program = std::env::current_exe().expect("this program");
            let name = program.file_stem().expect("a name").to_owned();
            let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            let _ = std::fs::remove_dir_all(&home);
            std::fs::create_dir_all(&home).expect("a directory");
            let lab = Self { home, _temporary: None };
            lab.load_image();
            lab
        })
    }

    /// A lab with the image, for one test.
    pub fn own() -> Self {
        let lab = Self::empty();
        lab.load_image();
        lab
    }

    fn load_image(&self) {
        let archive = image::archive(self.home());
        let store = lab::image::Store::open(&self.home().join("data/images")).expect("a store");
        store.load(&archive, &()).expect("the image loads");
    }

    /// A lab without any image.
    pub fn empty() -> Self {
        let directory =
            tempfile::Builder::new().prefix("lab-test-").tempdir().expect("a temporary directory");
        Self { home: directory.path().to_owned(), _temporary: Some(directory) }
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `lab` with these arguments, in this lab.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(arguments);
        command.env("LAB_HOME", self.home().join("data")).env("XDG_RUNTIME_DIR", self.home().join("run"));
        command.env("NO_COLOR", "1").current_dir(self.home());
        command
    }

    /// Runs `lab` to its end with this on standard input.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>], stdin: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lab starts");
        let mut input = child.stdin.take().expect("a pipe");
        let text = stdin.to_owned();
        thread::spawn(move || input.write_all(text.as_bytes()));
        finish(child)
    }
}

/// Collects the output of a child until its end.
pub fn finish(mut child: Child) -> Output {
    let collect = |stream: Option<Box<dyn std::io::Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut text).expect("a pipe reads");
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = collect(child.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = collect(child.stderr.take().map(|stream| Box::new(stream) as _));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                child.kill().expect("a child of ours");
                panic!("lab did not end within {PATIENCE:?}");
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let (stdout, stderr) = (stdout.join().expect("text"), stderr.join().expect("text"));
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    Output { code, stdout, stderr }
}
