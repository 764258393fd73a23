//! The last steps before the workload, the same for a container's first process and one that is added: limits, rights,
//! user, program.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fstat, open, stat};
use rustix::io::{Errno, pread};
use rustix::process::{DumpableBehavior, chdir, set_dumpable_behavior, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::fault::{At, Fault, Step};
use super::link::send_descriptor;
use crate::plan::ProcessPlan;
use crate::security::caps;
use crate::security::landlock::Landlock;
use crate::security::lsm::Label;
use crate::security::seccomp::listener::LONGEST;
use crate::sys;

/// Takes on the user, and gives up all rights but those of the plan. One is kept until `execve(2)`: without
/// no_new_privs, loading a seccomp filter needs CAP_SYS_ADMIN (`seccomp(2)`), and the filter must come last so that
/// it need not allow what the runtime itself still does. `execve(2)` drops it: capabilities are worked out anew there
/// from the inheritable, ambient and bounding sets, which do not have it (`capabilities(7)`).
pub(super) fn take_on(plan: &ProcessPlan) -> Result<(), Fault> {
    for (index, &(resource, limit)) in plan.limits.iter().enumerate() {
        setrlimit(resource, limit).at_index(Step::Limit, index)?;
    }
    if let Some(attributes) = &plan.turns.scheduler {
        sys::set_scheduler(attributes).at(Step::Scheduler)?;
    }
    if let Some((class, level)) = plan.turns.io {
        sys::set_io_priority(class, level).at(Step::IoPriority)?;
    }
    if let Some((mode, nodes)) = &plan.turns.memory {
        sys::set_memory_policy(*mode, nodes).at(Step::MemoryPolicy)?;
    }
    if let Some(domain) = plan.personality {
        sys::personality(domain).at(Step::Personality)?;
    }
    // A capability that the runtime does not have itself, it cannot give: it is left out (config.md).
    let have = capabilities(None).at(Step::Capabilities)?.permitted;
    bounding(plan.capabilities.bounding).at(Step::Capabilities)?;
    set_keep_capabilities(true).at(Step::Capabilities)?;
    // In a user namespace without the right to setgroups(2) there are no groups to drop either.
    match set_thread_groups(&plan.groups) {
        Err(Errno::PERM) if plan.groups.is_empty() => {}
        result => result.at(Step::User)?,
    }
    set_thread_res_gid(plan.gid, plan.gid, plan.gid).at(Step::User)?;
    set_thread_res_uid(plan.uid, plan.uid, plan.uid).at(Step::User)?;
    if let Some(mask) = plan.umask {
        umask(Mode::from_raw_mode(mask));
    }
    change_directory(plan).at(Step::Cwd)?;
    let sets = plan.capabilities;
    let last_step_needs_it = plan.seccomp.is_some() || plan.landlock.is_some();
    let for_seccomp = if last_step_needs_it && !plan.no_new_privileges {
        CapabilitySet::SYS_ADMIN
    } else {
        CapabilitySet::empty()
    };
    let all = CapabilitySets {
        effective: sets.effective | for_seccomp,
        permitted: sets.permitted | for_seccomp,
        inheritable: sets.inheritable,
    };
    let all = CapabilitySets {
        effective: all.effective & have,
        permitted: all.permitted & have,
        inheritable: all.inheritable & have,
    };
    set_capabilities(None, all).at(Step::Capabilities)?;
    clear_ambient_capability_set().at(Step::Capabilities)?;
    // Only what is both permitted and inheritable can be ambient (capabilities(7)); the rest is passed over, as runc does.
    let ambient = sets.ambient & all.permitted & all.inheritable;
    for number in (0..caps::COUNT).filter(|number| ambient.bits() & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        configure_capability_in_ambient_set(one, true).at(Step::Capabilities)?;
    }
    if plan.no_new_privileges {
        set_no_new_privs(true).at(Step::Privileges)?;
    }
    Ok(())
}

/// Drops what is not in the set. EINVAL: the kernel is older than the capability, so nobody has it.
fn bounding(keep: CapabilitySet) -> sys::Result<()> {
    for number in (0..caps::COUNT).filter(|number| keep.bits() & (1 << number) == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Goes to the working directory, as the process's user, and makes sure that it lies inside: a descriptor of the host's
/// that leaked in (`/proc/self/fd/7`) must be no way out (CVE-2024-21626).
fn change_directory(plan: &ProcessPlan) -> sys::Result<()> {
    chdir(plan.cwd.as_c_str())?;
    sys::cwd_is_inside()
}

/// The program that the command means: the first candidate that is an executable file.
pub(super) fn look_up(plan: &ProcessPlan) -> Result<&CStr, Fault> {
    let mut reason = Errno::NOENT;
    for candidate in &plan.candidates {
        match executable(candidate, plan.runtime) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => reason = error,
        }
    }
    Err(reason).at(Step::Lookup)
}

/// Whether the file can be executed, and is not the runtime itself.
///
/// An image can name `/proc/self/exe` as its command, or as the interpreter of a script: that is this process's
/// program, a file of the host. Run inside, it could be opened there and, once it has ended, be overwritten
/// (CVE-2019-5736).
fn executable(path: &CStr, runtime: (u64, u64)) -> sys::Result<()> {
    let is_runtime = |path: &CStr| stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == runtime);
    if FileType::from_raw_mode(stat(path)?.st_mode) != FileType::RegularFile || is_runtime(path) {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())?;
    // The kernel reads as much of a script's first line (BINPRM_BUF_SIZE, linux/binfmts.h). A file that may be executed
    // but not read is no script: the interpreter could not read it either.
    let mut line = [0; 257];
    let read = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let length = read.and_then(|file| rustix::io::read(&file, &mut line[..256])).unwrap_or(0);
    if !line.starts_with(b"#!") {
        return Ok(());
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = 2 + line[2..length].iter().take_while(|byte| blank(byte)).count();
    let end = line[start..length]
        .iter()
        .position(|byte| blank(byte) || *byte == b'\n')
        .map_or(length, |at| start + at);
    line[end] = 0;
    let interpreter = CStr::from_bytes_until_nul(&line[start..]).map_err(|_| Errno::NOEXEC)?;
    if is_runtime(interpreter) { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Opens the file of /proc that takes the label, while /proc is the host's: the container's own could be anything
/// (CVE-2019-16884).
pub(super) fn open_label(plan: &ProcessPlan) -> Result<Option<OwnedFd>, Fault> {
    let open = |label: &Label| open(label.file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    plan.label.as_ref().map(open).transpose().at(Step::Label)
}

/// Gives up all rights on files but those that the annotations name.
fn restrict(landlock: &Landlock) -> sys::Result<()> {
    let rules = sys::landlock::new_rules(landlock.all)?;
    for (paths, rights) in
        [(&landlock.read, sys::landlock::READ & landlock.all), (&landlock.write, landlock.all)]
    {
        for path in paths {
            let path = open(path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let directory = FileType::from_raw_mode(fstat(&path)?.st_mode) == FileType::Directory;
            let rights = if directory { rights } else { rights & sys::landlock::OF_FILES };
            sys::landlock::allow(&rules, path.as_fd(), rights)?;
        }
    }
    sys::landlock::restrict(&rules)
}

/// Becomes the workload. Returns only what went wrong.
pub(super) fn become_workload(
    plan: &ProcessPlan,
    program: &CStr,
    label_file: Option<&OwnedFd>,
) -> Result<Infallible, Fault> {
    if let (Some(label), Some(file)) = (&plan.label, label_file) {
        rustix::io::write(file, label.text.to_bytes()).at(Step::Label)?;
    }
    if let Some(landlock) = &plan.landlock {
        restrict(landlock).at(Step::Landlock)?;
    }
    if let Some(filter) = &plan.seccomp {
        let mut state = [0; LONGEST];
        let length = plan.listener.as_ref().map_or(Ok(0), |listener| pread(&listener.text, &mut state, 0));
        let length = length.at(Step::Listener)?;
        let notifications = sys::seccomp_load(&filter.program, filter.flags).at(Step::Seccomp)?;
        if let (Some(listener), Some(notifications)) = (&plan.listener, notifications) {
            let sent = send_descriptor(listener.socket.as_fd(), &state[..length], notifications.as_fd());
            sent.at(Step::Listener)?;
        }
    }
    Err(sys::execute(program, &plan.arguments, &plan.environment)).at(Step::Exec)
}

/// What must hold in the process from the start: nobody inside may look into its memory, which is a copy of the
/// runtime's, or reach the runtime's program file through /proc/PID/exe (CVE-2019-5736): not dumpable means that
/// (`PR_SET_DUMPABLE(2const)`). And the runtime's descriptors end at `execve(2)`.
pub(super) fn seal(plan: &ProcessPlan) -> Result<(), Fault> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Descriptors)?;
    sys::close_on_exec_from(3 + plan.preserve_fds).at(Step::Descriptors)
}

/// The file of /proc that says how early the kernel may kill the process when memory runs out (`proc_pid_oom_score_adj(5)`).
/// Written from outside, where /proc is the host's.
pub(super) fn oom_score(plan: &ProcessPlan) -> Result<(), Fault> {
    let Some(value) = &plan.oom_score_adj else { return Ok(()) };
    let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::OomScore)?;
    rustix::io::write(&file, value.to_bytes()).map(drop).at(Step::OomScore)
}
