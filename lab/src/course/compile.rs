//! The student's program, compiled: by the rustc that is installed, with the helper, without cargo and without any network.

use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::error::Context as _;
use super::workspace::HELPER;

/// No lesson's program takes longer: one that does has the compiler compute without end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The compiler's words are shown up to here: the first errors are those that matter.
const SHOWN: usize = 3000;

/// The task that students' containers run.
const TASK: &str = include_str!("../../../book/lessons/helper/task.rs");

/// What was compiled once for all lessons.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The helper, to link with.
    helper: PathBuf,
    /// The task, to put into containers.
    pub task: PathBuf,
}

/// Why a student's program is none.
#[derive(Debug)]
pub enum Refused {
    /// What the compiler says.
    Wrong(String),
    /// It did not come to an end.
    Endless,
}

impl Tools {
    /// Compiles them, or finds them compiled by this rustc from these sources.
    ///
    /// # Errors
    /// Where there is no compiler, or no place.
    pub fn ready() -> Result<Self, Error> {
        let version = Command::new(rustc()).arg("-V").output().map_err(Error::NoCompiler)?;
        let mut hasher = Sha256::new();
        hasher.update(&version.stdout);
        for (_, text) in HELPER {
            hasher.update(text);
        }
        hasher.update(TASK);
        let key =
            hasher.finalize().iter().take(8).fold(String::new(), |key, byte| key + &format!("{byte:02x}"));
        let folder = place()?.join("tools").join(key);
        let tools = Self { helper: folder.join("liblesson.rlib"), task: folder.join("task") };
        if tools.helper.exists() && tools.task.exists() {
            return Ok(tools);
        }
        let new = folder.with_extension(std::process::id().to_string());
        make(&new)?;
        for (name, text) in HELPER {
            let path = new.join(name);
            fs::write(&path, text).at("write", &path)?;
        }
        let task = new.join("task.rs");
        fs::write(&task, TASK).at("write", &task)?;
        let rlib = ["--crate-type", "rlib", "--crate-name", "lesson"];
        for (source, output, kind) in [("lib.rs", "liblesson.rlib", &rlib[..]), ("task.rs", "task", &[])] {
            let mut command = command(&new.join(source), &new.join(output));
            command.args(kind);
            match run(command)? {
                Ok(()) => {}
                Err(Refused::Wrong(reason)) => return Err(Error::Helper(first_line(&reason))),
                Err(Refused::Endless) => return Err(Error::Helper("it takes too long".to_owned())),
            }
        }
        // Another check may have been quicker: either is as good.
        if fs::rename(&new, &folder).is_err() {
            fs::remove_dir_all(&new).at("remove", &new)?;
        }
        Ok(tools)
    }

    /// Compiles a student's program.
    ///
    /// # Errors
    /// Where the compiler cannot be run; what it says is the inner result.
    pub fn compile(&self, source: &Path, output: &Path) -> Result<Result<(), Refused>, Error> {
        let mut command = command(source, output);
        command.arg("--crate-name").arg("student").arg("--extern");
        command.arg(format!("lesson={}", self.helper.display()));
        run(command)
    }
}

/// Where the course keeps its things.
pub(super) fn place() -> Result<PathBuf, Error> {
    let place = crate::paths::data()?.join("course");
    make(&place)?;
    Ok(place)
}

/// Makes a folder that the mapped user of a sandbox can pass through.
pub(super) fn make(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o711).create(path).at("create", path)
}

fn rustc() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())
}

/// Static, so that the program runs in a root file system without anything in it; small, as it is copied there.
fn command(source: &Path, output: &Path) -> Command {
    let mut command = Command::new(rustc());
    command.args(["--edition", "2024", "--color", "never", "-C", "debuginfo=0", "-C", "strip=symbols"]);
    command.args(["-C", "target-feature=+crt-static", "-C", "codegen-units=4", "-o"]).arg(output).arg(source);
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command
}

fn run(mut command: Command) -> Result<Result<(), Refused>, Error> {
    let (mut words, theirs) = std::io::pipe().context("make", "a pipe")?;
    let mut child = command.stderr(theirs).spawn().map_err(Error::NoCompiler)?;
    drop(command); // holds the pipe's other end
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = words.read_to_end(&mut text);
        text
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().context("wait for", "rustc")? {
            Some(status) => break Some(status),
            None if begun.elapsed() > PATIENCE => {
                // rustc and the linker that it may have started.
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                child.wait().context("wait for", "rustc")?;
                break None;
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let words = String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    Ok(match status {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(Refused::Wrong(shorten(&words))),
        None => Err(Refused::Endless),
    })
}

/// The errors, without the warnings before them.
fn shorten(words: &str) -> String {
    let from = words.find("error").unwrap_or(0);
    let mut end = words.len().min(from + SHOWN);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words[from..end].trim_end().to_owned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Reads a file that a student may have made as large as the disk.
pub(super) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).at("read", path)?;
    Ok(bytes)
}
