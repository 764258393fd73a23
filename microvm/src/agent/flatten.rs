//! From an OCI configuration to the two messages that describe it to the guest.
//!
//! A guest has a kernel of its own, so what a container needs from the host's kernel falls away: namespaces, control
//! groups (the VM's size is the limit), seccomp filters and idmapped mounts. What remains is what a program can see:
//! its root, mounts, names, user, capabilities and limits.

use std::os::unix::ffi::OsStrExt;

use guest_wire::{Fields, MAX_PAYLOAD, Tag, Writer};
use nix::libc;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Mount, PosixRlimitType, Root};

use super::AgentError;
use crate::network::Network;
use crate::shares;
use crate::snapshot::command::HOSTNAME;
use crate::spec::{Process, Spec};

/// What holds the root file system, as the guest names it.
#[derive(Clone, Copy, Debug)]
pub enum RootDevice<'a> {
    /// A disk that is never written to.
    Disk {
        /// For example `/dev/vda`.
        device: &'a str,
        /// For example `erofs`.
        fs_type: &'a str,
    },
    /// The shared directory `shares::ROOT`, which is written to.
    Shared,
}

/// A payload that grows by fields whose texts are checked.
struct Payload(Writer<Vec<u8>>);

/// The payload of `Setup`.
///
/// # Errors
/// [`AgentError::Config`] where something cannot be had in a guest.
pub fn setup(spec: &Spec, root: &RootDevice<'_>, network: &Network) -> Result<Vec<u8>, AgentError> {
    let mut payload = Payload(Writer::new(Vec::new()));
    let shared_root = matches!(root, RootDevice::Shared);
    let (device, fs_type) = match *root {
        RootDevice::Disk { device, fs_type } => (device, fs_type),
        RootDevice::Shared => (shares::ROOT, "bind"),
    };
    payload.text(Tag::RootDevice, "the root device", device)?;
    payload.text(Tag::RootType, "the root's file system", fs_type)?;
    if shared_root {
        payload.0.field(Tag::RootWritable, &[]);
    }
    if shared_root || shares::binds(spec).next().is_some() {
        payload.text(Tag::Shares, "the shares", shares::TAG)?;
    }
    if spec.root.as_ref().and_then(Root::readonly) == Some(true) {
        payload.0.field(Tag::RootReadOnly, &[]);
    }
    if let Some(name) = &spec.hostname {
        payload.text(Tag::HostName, "hostname", name)?;
    }
    if let Some(name) = &spec.domainname {
        payload.text(Tag::DomainName, "domainname", name)?;
    }
    let mut names = shares::names();
    for mount in &spec.mounts {
        // In the order in which `shares::of` gives the names out.
        let shared = if shares::is_bind(mount) { names.next() } else { None };
        payload.mount(mount, shared)?;
    }
    for path in &spec.linux.masked_paths {
        payload.text(Tag::MaskedPath, "linux.maskedPaths", path)?;
    }
    for path in &spec.linux.readonly_paths {
        payload.text(Tag::ReadOnlyPath, "linux.readonlyPaths", path)?;
    }
    for (name, value) in &spec.linux.sysctl {
        // Dots separate, unless a part has a dot itself: then slashes do, as sysctl(8) reads it.
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(AgentError::config(format!("linux.sysctl: {name} is no name of a parameter")));
        }
        payload.texts(Tag::Sysctl, "linux.sysctl", &[], &[path.as_bytes(), value.as_bytes()])?;
    }
    payload.network(network)?;
    payload.time();
    payload.finish()
}

/// The payload of `Renew`: what each machine of a snapshot is to have of its own.
///
/// # Errors
/// [`AgentError::Config`] where the host name cannot be sent.
pub fn renew(spec: &Spec, network: &Network, seed: &[u8]) -> Result<Vec<u8>, AgentError> {
    let mut payload = Payload(Writer::new(Vec::new()));
    payload.0.field(Tag::Seed, &[seed]);
    if let Some(name) = &spec.hostname {
        payload.text(Tag::HostName, "hostname", name)?;
    }
    payload.network(network)?;
    payload.time();
    payload.finish()
}

/// What of a `Setup` or `Exec` is the same for all runs that one snapshot serves: all but names, addresses, times, arguments
/// and environment, which come later anew, and the terminal's size, which `Resize` tells.
pub fn lasting(payload: &[u8]) -> Vec<u8> {
    let mut lasting = Writer::new(Vec::new());
    for field in Fields::new(payload) {
        match field.tag {
            Tag::HostName | Tag::Time | Tag::Arg | Tag::Env => {}
            // How many there are, and where, but not which.
            Tag::Terminal | Tag::Interface => lasting.field(field.tag, &[]),
            Tag::File => {
                let path = field.bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                lasting.field(Tag::File, &[path]);
            }
            tag => lasting.field(tag, &[field.bytes]),
        }
    }
    lasting.finish()
}

/// What of an `Exec` is the same for all runs of one command: all but the value of HOSTNAME, which is renewed in place and so counts
/// by its length.
pub fn command(exec: &[u8]) -> Vec<u8> {
    let mut command = Writer::new(Vec::new());
    for field in Fields::new(exec) {
        match field.bytes.strip_prefix(HOSTNAME) {
            Some(value) if field.tag == Tag::Env => {
                command.field(field.tag, &[HOSTNAME, &(value.len() as u64).to_le_bytes()]);
            }
            _ => command.field(field.tag, &[field.bytes]),
        }
    }
    command.finish()
}

/// The size that an `Exec` gives its terminal, where it has one and knows the size.
pub(super) fn terminal_size(exec: &[u8]) -> Option<(u16, u16)> {
    let field = Fields::new(exec).find(|field| field.tag == Tag::Terminal)?;
    let &[r0, r1, c0, c1] = field.bytes else { return None };
    let size = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]));
    (size != (0, 0)).then_some(size)
}

/// The payload of `Exec`.
///
/// # Errors
/// [`AgentError::Config`] where the process cannot be described to a guest.
pub fn exec(process: &Process) -> Result<Vec<u8>, AgentError> {
    let mut payload = Payload(Writer::new(Vec::new()));
    if process.args.first().is_none_or(String::is_empty) {
        return Err(AgentError::config("process.args names no command"));
    }
    for arg in &process.args {
        payload.text(Tag::Arg, "process.args", arg)?;
    }
    for variable in &process.env {
        payload.text(Tag::Env, "process.env", variable)?;
    }
    payload.text(Tag::Cwd, "process.cwd", process.cwd.as_os_str())?;
    let user = &process.user;
    payload.0.field(Tag::User, &[&user.uid().to_le_bytes(), &user.gid().to_le_bytes()]);
    for group in user.additional_gids().iter().flatten() {
        payload.0.field(Tag::Group, &[&group.to_le_bytes()]);
    }
    if let Some(umask) = user.umask() {
        payload.0.field(Tag::Umask, &[&umask.to_le_bytes()]);
    }
    if process.terminal {
        let size = process.console_size;
        // A size that does not fit is as good as unknown.
        let field = |size: Option<u64>| u16::try_from(size.unwrap_or(0)).unwrap_or(0).to_le_bytes();
        let (rows, columns) = (size.map(|size| size.height()), size.map(|size| size.width()));
        payload.0.field(Tag::Terminal, &[&field(rows), &field(columns)]);
    }
    for limit in &process.rlimits {
        let number: u32 = resource(limit.typ());
        let (soft, hard) = (limit.soft().to_le_bytes(), limit.hard().to_le_bytes());
        payload.0.field(Tag::Rlimit, &[&number.to_le_bytes(), &soft, &hard]);
    }
    payload.0.field(Tag::Capabilities, &[&capabilities(process.capabilities.as_ref())]);
    if process.no_new_privileges {
        payload.0.field(Tag::NoNewPrivileges, &[]);
    }
    if let Some(score) = process.oom_score_adj {
        payload.0.field(Tag::OomScoreAdj, &[&score.to_le_bytes()]);
    }
    payload.finish()
}

impl Payload {
    fn network(&mut self, network: &Network) -> Result<(), AgentError> {
        for card in &network.interfaces {
            let gateway = card.gateway.map_or([0; 4], |gateway| gateway.octets());
            let parts = [&card.mac[..], &card.address.octets(), &[card.prefix], &gateway];
            self.0.field(Tag::Interface, &parts);
        }
        for (path, content) in &network.files {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(AgentError::config(format!("{path:?} is no absolute path of a file")));
            }
            self.0.field(Tag::File, &[path.as_bytes(), b"\0", content]);
        }
        Ok(())
    }

    /// The host's time, now.
    fn time(&mut self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = (now.as_secs(), u64::from(now.subsec_nanos()));
        self.0.field(Tag::Time, &[&seconds.to_le_bytes(), &nanoseconds.to_le_bytes()]);
    }

    fn text(&mut self, tag: Tag, what: &str, text: impl AsRef<std::ffi::OsStr>) -> Result<(), AgentError> {
        self.texts(tag, what, &[], &[text.as_ref().as_bytes()])
    }

    /// A field of some bytes and then texts, each with its NUL.
    fn texts(&mut self, tag: Tag, what: &str, first: &[u8], texts: &[&[u8]]) -> Result<(), AgentError> {
        if texts.iter().any(|text| text.contains(&0)) {
            return Err(AgentError::config(format!("{what} contains a NUL character")));
        }
        let mut parts = vec![first];
        for text in texts {
            parts.extend([*text, b"\0"]);
        }
        self.0.field(tag, &parts);
        Ok(())
    }

    /// A mount; of something that the host shares under this name, or of a file system of the guest's kernel.
    fn mount(&mut self, mount: &Mount, shared: Option<String>) -> Result<(), AgentError> {
        let target = mount.destination();
        let kind = mount.typ().as_deref().unwrap_or_default();
        let options = mount.options().as_deref().unwrap_or_default();
        // Control groups limit what shares a kernel; here nobody shares it.
        if kind == "cgroup" || kind == "cgroup2" {
            return Ok(());
        }
        let (flags, data) = mount_options(options);
        let target = target.as_os_str().as_bytes();
        if let Some(name) = shared {
            // What is mounted below a directory on the host is part of the share anyway.
            let flags = flags | libc::MS_BIND;
            let texts = [name.as_bytes(), target, b"bind", b""];
            return self.texts(Tag::Mount, "mounts", &flags.to_le_bytes(), &texts);
        }
        let source = mount.source().as_ref().map_or(kind.as_bytes(), |path| path.as_os_str().as_bytes());
        let texts = [source, target, kind.as_bytes(), data.as_bytes()];
        self.texts(Tag::Mount, "mounts", &flags.to_le_bytes(), &texts)
    }

    fn finish(self) -> Result<Vec<u8>, AgentError> {
        let payload = self.0.finish();
        if payload.len() > MAX_PAYLOAD as usize {
            return Err(AgentError::config(format!(
                "arguments, environment and mounts are {} bytes; {MAX_PAYLOAD} are the most that fit",
                payload.len()
            )));
        }
        Ok(payload)
    }
}

/// The options of mount(8) that are understood; all others go to the file system.
pub const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "lazytime",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "unbindable",
    "bind",
    "rbind",
];

/// The names of all capabilities that a guest's process can have.
pub fn capability_names() -> Vec<String> {
    CAPABILITIES.iter().map(|capability| format!("CAP_{capability}")).collect()
}

/// Options of mount(8) as flags of mount(2), and those left for the file system itself.
fn mount_options(options: &[String]) -> (u64, String) {
    let (mut flags, mut data) = (0, Vec::new());
    for option in options {
        match option.as_str() {
            "ro" | "rro" => flags |= libc::MS_RDONLY,
            "nosuid" => flags |= libc::MS_NOSUID,
            "nodev" => flags |= libc::MS_NODEV,
            "noexec" => flags |= libc::MS_NOEXEC,
            "sync" => flags |= libc::MS_SYNCHRONOUS,
            "dirsync" => flags |= libc::MS_DIRSYNC,
            "mand" => flags |= libc::MS_MANDLOCK,
            "noatime" => flags |= libc::MS_NOATIME,
            "nodiratime" => flags |= libc::MS_NODIRATIME,
            "relatime" => flags |= libc::MS_RELATIME,
            "strictatime" => flags |= libc::MS_STRICTATIME,
            "lazytime" => flags |= libc::MS_LAZYTIME,
            "rw" => flags &= !libc::MS_RDONLY,
            "suid" => flags &= !libc::MS_NOSUID,
            "dev" => flags &= !libc::MS_NODEV,
            "exec" => flags &= !libc::MS_NOEXEC,
            // The defaults; and propagation, which means nothing where there is no other mount namespace.
            "defaults" | "async" | "atime" | "diratime" | "norelatime" | "nostrictatime" | "nolazytime"
            | "nomand" | "bind" | "rbind" | "private" | "rprivate" | "slave" | "rslave" | "shared"
            | "rshared" | "unbindable" | "runbindable" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// The number of a resource (getrlimit(2)).
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// The five sets, as bits. None given means none kept, as the other runtimes read it.
fn capabilities(sets: Option<&LinuxCapabilities>) -> [u8; 40] {
    let bits = |set: Option<&Capabilities>| {
        let known = set
            .into_iter()
            .flatten()
            .filter_map(|wanted| CAPABILITIES.iter().position(|capability| capability == wanted));
        known.fold(0u64, |bits, bit| bits | 1 << bit)
    };
    let mut bytes = [0; 40];
    let Some(sets) = sets else { return bytes };
    let five = [sets.bounding(), sets.effective(), sets.inheritable(), sets.permitted(), sets.ambient()];
    for (to, set) in bytes.chunks_exact_mut(8).zip(five) {
        to.copy_from_slice(&bits(set.as_ref()).to_le_bytes());
    }
    bytes
}

/// In the order of their numbers (linux/capability.h).
const CAPABILITIES: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];
