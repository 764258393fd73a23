//! How the child says what went wrong: three numbers, which need no memory, and which the parent turns into words.

use rustix::io::Errno;

use crate::error::Error;
use crate::plan::{Plan, ProcessPlan};
use crate::sys;

macro_rules! steps {
    ($($variant:ident = $words:literal,)+) => {
        /// A step of the child that can fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step { $($variant,)+ }

        impl Step {
            const ALL: &[Step] = &[$(Step::$variant,)+];

            fn words(self) -> &'static str {
                match self { $(Step::$variant => $words,)+ }
            }
        }
    };
}

steps! {
    Signals = "reset signals of the new process",
    Parent = "hear from the runtime",
    Session = "make a new session",
    JoinNamespace = "join namespace",
    JoinUser = "join the user namespace of linux.namespaces, or make the others from it",
    TimeNamespace = "make a new time namespace with linux.timeOffsets for",
    MapUser = "become the first user of the user namespace",
    EnterCgroup = "enter cgroup",
    CgroupNamespace = "make a new cgroup namespace",
    Hostname = "set hostname",
    Domainname = "set domainname",
    Loopback = "bring up the interface lo",
    Keyring = "make a new session keyring",
    Sysctl = "set linux.sysctl",
    OomScore = "set process.oomScoreAdj",
    Propagation = "cut mount propagation to the host at",
    Root = "mount root file system",
    Pivot = "pivot_root into",
    Chroot = "chroot into",
    BuildMount = "prepare mounts:",
    Target = "open or make the target of mounts:",
    AttachMount = "mount",
    Device = "make device",
    DeviceLink = "make the usual links in /dev of",
    Console = "open the terminal of",
    ConsoleSocket = "send the terminal over the console socket of",
    Mask = "mask linux.maskedPaths:",
    ReadOnly = "make linux.readonlyPaths read-only:",
    RootReadOnly = "make root.readonly true for",
    RootPropagation = "set linux.rootfsPropagation of",
    CreateContainerHook = "run hooks.createContainer",
    StartContainerHook = "run hooks.startContainer",
    Stdio = "put standard streams of",
    Limit = "set process.rlimits",
    Scheduler = "set process.scheduler of",
    IoPriority = "set process.ioPriority of",
    MemoryPolicy = "set linux.memoryPolicy of",
    Affinity = "set process.execCPUAffinity of",
    Label = "set process.apparmorProfile or selinuxLabel of",
    Landlock = "restrict by the Landlock annotations, whose paths must exist,",
    Personality = "set linux.personality of",
    Capabilities = "set process.capabilities of",
    User = "become process.user of",
    Cwd = "change to process.cwd",
    Privileges = "set no_new_privs of",
    Lookup = "find",
    Seccomp = "load linux.seccomp of",
    Listener = "send the notifications of linux.seccomp to its listenerPath from",
    Descriptors = "close the runtime's descriptors in",
    Exec = "exec",
}

/// A step that failed: which, on which object of the plan's list, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: Errno,
}

/// Says which step, and which object of it, a system call's error belongs to.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Fault>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Fault>;
}

impl<T> At<T> for sys::Result<T> {
    fn at(self, step: Step) -> Result<T, Fault> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step, index: index as u32, errno })
    }
}

impl Fault {
    pub(crate) const SIZE: usize = 9;

    pub(crate) fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0] = self.step as u8;
        bytes[1..5].copy_from_slice(&self.index.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.errno.raw_os_error().to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let index = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let errno = i32::from_le_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let step = *Step::ALL.get(usize::from(bytes[0]))?;
        // An errno is from 1 to 4095 (errno(3)); the child cannot make us panic with another.
        (1..4096).contains(&errno).then(|| Fault { step, index, errno: Errno::from_raw_os_error(errno) })
    }

    /// The fault in words, with the name of the object from the plan.
    pub(crate) fn explain(self, plan: &Plan) -> Error {
        let text = |string: Option<&std::ffi::CString>| string.map(|s| s.to_string_lossy().into_owned());
        let index = self.index as usize;
        let object = match self.step {
            Step::Hostname => text(plan.hostname.as_ref()),
            Step::Domainname => text(plan.domainname.as_ref()),
            Step::Sysctl => text(plan.sysctls.get(index).map(|(path, _)| path)),
            Step::Propagation => Some("/".to_owned()),
            Step::Root | Step::Pivot | Step::Chroot | Step::RootReadOnly | Step::RootPropagation => {
                Some(plan.root.name())
            }
            Step::BuildMount | Step::Target | Step::AttachMount => {
                plan.mounts.get(index).map(|mount| match &mount.source {
                    crate::plan::Source::Bind { path, .. } | crate::plan::Source::Prepared { path, .. } => {
                        format!("{} (from {})", mount.name, path.to_string_lossy())
                    }
                    crate::plan::Source::FileSystem { typ, .. } => {
                        format!("{} ({})", mount.name, typ.to_string_lossy())
                    }
                    _ => mount.name.clone(),
                })
            }
            Step::CreateContainerHook | Step::StartContainerHook => {
                let hooks = plan.hooks_inside.as_ref();
                let hooks =
                    hooks.map(|h| if self.step == Step::StartContainerHook { &h.start } else { &h.create });
                text(hooks.and_then(|hooks| hooks.get(index)).map(|hook| &hook.path))
            }
            Step::Device => text(plan.devices.get(index).map(|device| &device.host)),
            Step::Mask => text(plan.masked.get(index)).map(|path| format!("/{path}")),
            Step::ReadOnly => text(plan.read_only.get(index)).map(|path| format!("/{path}")),
            _ => return self.explain_process(&plan.process),
        };
        self.error(object.unwrap_or_default())
    }

    /// The fault of a process that was added to a container.
    pub(crate) fn explain_process(self, process: &ProcessPlan) -> Error {
        let command = process.command.clone();
        match (self.step, self.errno) {
            (Step::Lookup | Step::Exec, _) => exec_error(command, self.errno),
            (Step::Limit, _) => {
                let limit = process.limits.get(self.index as usize);
                self.error(limit.map(|(resource, _)| format!("{resource:?}")).unwrap_or_default())
            }
            (Step::Cwd, _) => self.error(process.cwd.to_string_lossy().into_owned()),
            (Step::JoinNamespace | Step::EnterCgroup | Step::OomScore, _) => self.error(String::new()),
            _ => self.error(format!("{command:?}")),
        }
    }

    /// The fault of a process that was already waiting when this runtime came: only its last steps are left.
    pub(crate) fn explain_command(self, command: &str) -> Error {
        match self.step {
            Step::Lookup | Step::Exec => exec_error(command.to_owned(), self.errno),
            _ => self.error(format!("{command:?}")),
        }
    }

    fn error(self, object: String) -> Error {
        let hint = match (self.step, self.errno) {
            (Step::Limit, Errno::PERM) => {
                "; raising a hard limit needs CAP_SYS_RESOURCE: lower it in process.rlimits"
            }
            (Step::OomScore, Errno::ACCESS) => {
                "; lowering it needs CAP_SYS_RESOURCE: raise process.oomScoreAdj"
            }
            (Step::Pivot, Errno::INVAL) => "; is the host's root a ramfs? then use --no-pivot",
            (Step::BuildMount, Errno::PERM) => {
                "; in a user namespace the kernel allows this type only in new namespaces"
            }
            (Step::BuildMount, Errno::NODEV) => "; this kernel does not have the file system type",
            (Step::BuildMount, Errno::INVAL) => {
                "; does the file system know all its options, and the user namespace the ids in them?"
            }
            (Step::BuildMount, Errno::NOENT) => "; does the source exist?",
            (Step::AttachMount, Errno::ROFS) => {
                "; nothing may be mounted over a part of /proc but what lxcfs covers"
            }
            (Step::Target, Errno::LOOP) => "; /proc and /sys must be directories, not symbolic links",
            (Step::Label, Errno::NOENT | Errno::INVAL) => {
                "; is the profile loaded, or the label one of the policy?"
            }
            (Step::User, Errno::INVAL) => "; is the id mapped in linux.uidMappings and gidMappings?",
            (Step::CreateContainerHook | Step::StartContainerHook, Errno::PROTO) => {
                "; it exited with an error of its own"
            }
            (Step::Cwd, Errno::NOENT) => "; make the directory in the image, or choose another",
            _ => "",
        };
        Error::Step { step: self.step.words(), object, source: self.errno.into(), hint }
    }
}

/// The classes of `execve(2)`'s errors that engines tell apart.
pub(crate) fn exec_error(command: String, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::NotFound { command },
        errno => Error::NotExecutable { command, source: errno.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_pipe() {
        for &step in Step::ALL {
            let fault = Fault { step, index: 70_000, errno: Errno::NOENT };
            assert_eq!(Fault::decode(&fault.encode()), Some(fault));
        }
    }

    #[test]
    fn rubbish_from_the_pipe_is_no_fault() {
        assert_eq!(Fault::decode(&[255; Fault::SIZE]), None);
        assert_eq!(Fault::decode(&[0; Fault::SIZE]), None);
        assert_eq!(Fault::decode(&[]), None);
    }
}
