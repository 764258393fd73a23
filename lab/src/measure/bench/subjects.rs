//! Who is measured: the bare host, both walls, a restored machine, and peers where they are installed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

use super::record::SubjectRecord;
use crate::image::{Store, embedded};
use crate::measure::child::Call;
use crate::measure::peers::{self, Ground, Peer};
use crate::measure::plan::Wall;
use crate::measure::record::Obtained;
use crate::measure::session::{Request, WallRequest};
use crate::measure::walls::{self, Choice};

/// The workload without any wall.
pub const HOST: &str = "host";
/// A container of the lab.
pub const CONTAINER: &str = "container";
/// A virtual machine of the lab, booted.
pub const VM: &str = "vm";
/// A virtual machine of the lab, restored from a snapshot.
pub const RESTORED: &str = "restored";

/// The image and its kernel as a bootable disk, in QEMU without KVM.
pub const DISK: &str = "disk";

/// One who is measured.
#[derive(Clone)]
pub struct Subject {
    /// As it is stored.
    pub record: SubjectRecord,
    /// How its workload is started; none where it is not there.
    pub way: Option<Way>,
}

/// How a workload is started.
#[derive(Clone)]
pub enum Way {
    /// As a process of the host: this file is the image's program.
    Host(PathBuf),
    /// By `lab run` with these options.
    Lab {
        /// The `lab` binary.
        program: PathBuf,
        /// `run`, the runtime and what it needs.
        options: Vec<OsString>,
        /// The image.
        image: OsString,
    },
    /// By another program.
    Peer(Peer),
}

impl Subject {
    /// The bare host.
    pub fn host(program: &Path) -> Self {
        Self {
            record: SubjectRecord {
                name: HOST.into(),
                title: "host, no wall".into(),
                obtained: Obtained::HostKernel,
                version: Some(rustix::system::uname().release().to_string_lossy().into_owned()),
                unavailable: None,
            },
            way: Some(Way::Host(program.into())),
        }
    }

    /// A wall as `lab compare` prepares it.
    pub fn wall(request: &WallRequest) -> Self {
        let (name, title) = match request.wall {
            Wall::Container => (CONTAINER, "container"),
            Wall::Vm => (VM, "VM"),
        };
        Self::of_lab(name, title, request, &[])
    }

    /// The VM's wall, from a snapshot.
    pub fn restored(request: &WallRequest) -> Self {
        Self::of_lab(RESTORED, "VM, restored", request, &["--warm"])
    }

    fn of_lab(name: &str, title: &str, request: &WallRequest, more: &[&str]) -> Self {
        let way = request.call.as_ref().ok().map(|call| Way::Lab {
            program: call.program.clone(),
            options: call.options.iter().cloned().chain(more.iter().map(Into::into)).collect(),
            image: call.image.clone(),
        });
        Self {
            record: SubjectRecord {
                name: name.into(),
                title: title.into(),
                obtained: request.obtained,
                version: request.kernel.as_ref().map(|kernel| kernel.release.clone()),
                unavailable: request.call.as_ref().err().cloned(),
            },
            way,
        }
    }

    /// A bootable disk of the image, in QEMU: always by emulation, so that it is the same on every machine.
    pub fn disk() -> Self {
        let program = crate::doctor::find_program(QEMU);
        let version = program.as_deref().and_then(peers::version);
        let missing = format!("not installed: {QEMU} (package qemu-system-x86)");
        Self {
            record: SubjectRecord {
                name: DISK.into(),
                title: "bootable disk in QEMU".into(),
                obtained: if program.is_some() { Obtained::Tcg } else { Obtained::Nothing },
                version,
                unavailable: program.is_none().then_some(missing),
            },
            way: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The call that runs this command of the image, with more options where it is `lab run`.
    ///
    /// # Errors
    /// Why there is no such call.
    pub fn call(&self, options: &[&str], command: &[&str]) -> Result<Call, String> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        match &self.way {
            None => Err(self.record.unavailable.clone().unwrap_or_else(|| "it is not there".into())),
            Some(Way::Host(program)) => {
                Ok(Call { program: program.clone(), before: words(command), marks: false, after: Vec::new() })
            }
            Some(Way::Lab { program, options: own, image }) => Ok(Call {
                program: program.clone(),
                before: own.iter().cloned().chain(words(options)).collect(),
                marks: true,
                after: std::iter::once(image.clone()).chain(words(command)).collect(),
            }),
            Some(Way::Peer(peer)) => peer.call(command),
        }
    }
}

/// The program that boots a disk.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// A call as a shell reads it, by the program's own name: where it lies is nobody else's business.
pub fn command_line(call: &Call) -> String {
    let program = call.program.file_name().unwrap_or(OsStr::new("program"));
    let words =
        std::iter::once(program).chain(call.before.iter().chain(&call.after).map(OsString::as_os_str));
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    crate::report::figures::command_line(&words)
}

/// Who can be measured on this machine, the image, and its digest.
///
/// `scratch` gets the image's program, to be run without a wall. Peers are tried, which takes some seconds.
///
/// # Errors
/// Where not even one wall could be tried.
pub fn of_machine(
    kernel: Option<String>,
    peers: bool,
    scratch: &Path,
    interrupted: &AtomicBool,
) -> anyhow::Result<(Vec<Subject>, String, Option<String>)> {
    let choice = Choice { kernel, accelerator: "auto".into(), with_memory: false, ..Choice::default() };
    let request = walls::request(&choice, 0, 0)?;
    let program = scratch.join(lab_program());
    fs::write(&program, embedded::program()).with_context(|| format!("write {}", program.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make it a program")?;
    let mut subjects = vec![Subject::host(&program)];
    for wall in &request.walls {
        subjects.push(Subject::wall(wall));
        if wall.wall == Wall::Vm {
            subjects.push(Subject::restored(wall));
        }
    }
    subjects.push(Subject::disk());
    if peers {
        subjects.extend(found_peers(&choice, &request, scratch, interrupted)?);
    }
    Ok((subjects, request.plan.image, request.plan.digest))
}

/// The program must be called by this name to be every program (its first argument then says which).
fn lab_program() -> &'static str {
    "lab-workloads"
}

fn found_peers(
    choice: &Choice,
    request: &Request,
    scratch: &Path,
    interrupted: &AtomicBool,
) -> anyhow::Result<Vec<Subject>> {
    let store = Store::open_default()?;
    embedded::ensure(&store)?;
    let image = store.resolve(&request.plan.image)?;
    let kernel = match crate::kernel::resolve(choice.kernel.as_deref()) {
        Ok(Some(kernel)) => Ok(kernel.image),
        Ok(None) => Err("no guest kernel yet; make one with: lab kernel build".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let kvm = walls::backing().map(|backing| Obtained::Kvm { backing });
    let ground = Ground { scratch, store: &store, image: &image, kernel, kvm, interrupted };
    Ok(peers::find(&ground))
}
