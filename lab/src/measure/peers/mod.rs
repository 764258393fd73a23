//! Other programs that build the same walls, measured in the same run: on the same image, with the same guest kernel, to the
//! same end mark (the first byte that the workload prints reaches whoever started it).
//!
//! - `runtimes`: runc, crun, youki: one process in namespaces from a bundle, as `lab-container` has it.
//! - [`engines`]: docker and podman, with images and a daemon or a monitor of their own.
//! - `vmms`: QEMU (KVM and TCG, its microvm and its PC), Firecracker, Cloud Hypervisor, kvmtool.
//!
//! Nobody is taken on trust: each runs the workload once before the bench, and who cannot is listed with what it said.

pub mod engines;
mod runtimes;
mod vmms;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::image::{Image, Store, embedded};
use crate::measure::bench::record::SubjectRecord;
use crate::measure::bench::subjects::{Subject, Way};
use crate::measure::child::Call;
use crate::measure::record::Obtained;

/// A VM under an interpreter may need this long to say hello; nobody here needs longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How one peer's workload is started.
#[derive(Clone)]
pub struct Peer(Arc<Caller>);

/// From a command of the image to the call that runs it.
type Caller = dyn Fn(&[&str]) -> Result<Call, String> + Send + Sync;

impl Peer {
    fn new(call: impl Fn(&[&str]) -> Result<Call, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// The call that runs this command of the image.
    ///
    /// # Errors
    /// Where its files cannot be written.
    pub fn call(&self, command: &[&str]) -> Result<Call, String> {
        (self.0)(command)
    }
}

/// What peers are given.
pub struct Ground<'a> {
    /// A folder of the bench's own.
    pub scratch: &'a Path,
    /// The image's store.
    pub store: &'a Store,
    /// The image.
    pub image: &'a Image,
    /// The guest kernel, or why there is none.
    pub kernel: Result<PathBuf, String>,
    /// What stands behind `/dev/kvm`, or why it cannot be used.
    pub kvm: Result<Obtained, String>,
    /// Set once the user has seen enough.
    pub interrupted: &'a AtomicBool,
}

/// A peer before it was tried.
struct Candidate {
    name: &'static str,
    title: &'static str,
    obtained: Obtained,
    /// The program's file, or why there is none.
    program: Result<PathBuf, String>,
    /// Ways to call it, the best first, each with what a reader must know of it.
    ways: Vec<(Peer, &'static str)>,
}

/// All peers that this lab knows, those that are not here too.
pub fn find(ground: &Ground<'_>) -> Vec<Subject> {
    let mut candidates = runtimes::candidates(ground);
    candidates.extend(engines::candidates(ground));
    candidates.extend(vmms::candidates(ground));
    candidates.into_iter().map(|candidate| candidate.tried(ground.interrupted)).collect()
}

impl Candidate {
    /// Runs the workload once.
    fn tried(self, interrupted: &AtomicBool) -> Subject {
        let mut record = SubjectRecord {
            name: self.name.into(),
            title: self.title.into(),
            obtained: self.obtained,
            version: self.program.as_ref().ok().and_then(|program| version(program)),
            unavailable: self.program.as_ref().err().cloned(),
        };
        let mut way = None;
        if record.unavailable.is_none() {
            let mut reasons = Vec::new();
            for (peer, remark) in self.ways {
                match says_hello(&peer, interrupted) {
                    Ok(()) => {
                        if !remark.is_empty() {
                            record.title = format!("{}, {remark}", record.title);
                        }
                        way = Some(Way::Peer(peer));
                        break;
                    }
                    Err(reason) => reasons.push(reason),
                }
            }
            if way.is_none() {
                let reason =
                    reasons.into_iter().next().unwrap_or_else(|| "there is no way to call it".into());
                record.unavailable = Some(format!("it does not run the workload here: {reason}"));
                record.obtained = Obtained::Nothing;
            }
        } else {
            record.obtained = Obtained::Nothing;
        }
        Subject { record, way }
    }
}

/// Tries `hello`.
fn says_hello(peer: &Peer, interrupted: &AtomicBool) -> Result<(), String> {
    let call = peer.call(&["hello"])?;
    let running = call.spawn(Stdio::null()).map_err(|error| error.to_string())?;
    let finished = running.finish(PATIENCE, interrupted).map_err(|error| error.to_string())?;
    if finished.printed.windows(5).any(|window| window == b"hello") {
        return Ok(());
    }
    let said = finished.last_words();
    let printed = String::from_utf8_lossy(&finished.printed);
    let last = printed.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Err(match (said, finished.stopped) {
        ("", Some(_)) => format!("nothing was said within {} s", PATIENCE.as_secs()),
        ("", None) => crate::report::figures::plain(last),
        (said, _) => said.to_owned(),
    })
}

/// The first line of `--version`.
pub(crate) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.trim().to_owned()).filter(|line| !line.is_empty())
}

/// The program of this name, or where it would come from.
fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    crate::doctor::find_program(name).ok_or_else(|| format!("not installed ({package})"))
}

/// A guest's first root file system with nothing but the workload's program, which the kernel runs as process 1: what other
/// monitors boot, since the lab's agent is the lab's own.
fn initramfs(ground: &Ground<'_>) -> Result<PathBuf, String> {
    let path = ground.scratch.join("peers-initramfs");
    if path.exists() {
        return Ok(path);
    }
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&path)?);
        let entries: [(&str, u32, &[u8]); 2] =
            [("dev", 0o040_755, &[]), ("init", 0o100_755, embedded::program())];
        for (inode, (name, mode, bytes)) in (1..).zip(entries) {
            let entry = cpio::NewcBuilder::new(name).ino(inode).mode(mode).nlink(1);
            let mut writer = entry.write(&mut out, bytes.len() as u32);
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        // The kernel opens /dev/console for process 1 (Documentation/admin-guide/devices.txt: 5, 1).
        let console = cpio::NewcBuilder::new("dev/console").ino(3).mode(0o020_600).nlink(1);
        console.rdev_major(5).rdev_minor(1).write(&mut out, 0).finish()?;
        cpio::newc::trailer(out)?.flush()
    };
    write().map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}

/// Whether a file begins as an ELF file does.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}
