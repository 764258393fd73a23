//! The container's first process, from `clone3(2)` to `execve(2)`: [`first_process`] is the list of its steps.
//!
//! Nothing here allocates, locks or unwinds (`signal-safety(7)`): the process is a copy of one thread of the runtime.
//! Its memory is the plan; its only words are [`fault::Fault`]s.

mod copy_up;
mod devices;
mod fault;
mod hooks;
mod link;
mod mounts;
mod newcomer;
mod paths;
mod process;
mod root;
mod tty;

pub(crate) use fault::Fault;
pub(crate) use link::{Link, Message, parse};
pub(crate) use newcomer::{Newcomer, newcomer};

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use lab_clock::{Mark, Timeline};
use rustix::fs::{OFlags, open};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Gid, Uid, setsid, umask};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid,
};

use crate::cgroup::Entrance;
use crate::plan::Plan;
use crate::sys;
use fault::{At, Step};

/// What the first process holds beside the plan, all opened by the runtime.
#[derive(Debug)]
pub(crate) struct Belongings {
    pub(crate) link: Link,
    /// Where `start` knocks.
    pub(crate) door: OwnedFd,
    pub(crate) entrance: Entrance,
    pub(crate) streams: Option<[OwnedFd; 3]>,
    pub(crate) console: Option<OwnedFd>,
    /// The numbers of all descriptors that the process needs, in rising order.
    pub(crate) keep: Vec<RawFd>,
}

impl Belongings {
    /// Lists all descriptors that are the process's own; all others are closed first thing.
    pub(crate) fn list(&mut self, plan: &Plan) {
        let streams = self.streams.iter().flatten();
        let own = [self.link.as_fd(), self.door.as_fd()].into_iter();
        let tasks = self.entrance.tasks.iter().chain(streams).chain(&self.console).map(AsFd::as_fd);
        let joined = plan.namespaces.join.iter().map(|(fd, _)| fd.as_fd());
        let layers = plan.root.layers().iter().map(|(fd, _)| fd.as_fd());
        let inputs = plan
            .hooks_inside
            .iter()
            .flat_map(|hooks| [hooks.create_input.as_fd(), hooks.start_input.as_fd()]);
        let prepared = plan.mounts.iter().filter_map(|mount| match &mount.source {
            crate::plan::Source::Prepared { tree, .. } => Some(tree.as_fd()),
            _ => None,
        });
        let all = own
            .chain(tasks)
            .chain(joined)
            .chain(layers)
            .chain(inputs)
            .chain(prepared)
            .chain(plan.process.descriptors())
            .map(|fd| fd.as_raw_fd());
        self.keep = (0..3 + plan.process.preserve_fds as RawFd).chain(all).collect();
        self.keep.sort_unstable();
        self.keep.dedup();
    }
}

/// The whole life of the process until it becomes the workload.
pub(crate) fn first_process(plan: &Plan, mut with: Belongings, timeline: Option<&Timeline>) -> Infallible {
    let mark = |mark| {
        if let Some(timeline) = timeline {
            timeline.mark(mark);
        }
    };
    mark(Mark::Cloned);
    let label_file = match set_up(plan, &mut with, &mark) {
        Ok(label_file) => label_file,
        Err(fault) => {
            with.link.fault(fault);
            sys::exit(1);
        }
    };
    let knock = loop {
        match accept_with(&with.door, SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Ok(knock) => break knock,
            Err(_) => sys::exit(1),
        }
    };
    let fault = match last_steps(plan, label_file.as_ref(), &mark) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    link::report(&knock, fault);
    sys::exit(if fault.errno == Errno::NOENT { 127 } else { 126 })
}

/// Joins the user namespace and makes the first process from there: with the runtime as its parent too (CLONE_PARENT,
/// `clone3(2)`), which waits for a word of the runtime before its first step.
pub(crate) fn join_user_and_clone(
    user: BorrowedFd<'_>,
    plan: &Plan,
    with: Belongings,
    timeline: Option<&Timeline>,
) -> Infallible {
    let said = rustix::io::fcntl_dupfd_cloexec(with.link.as_fd(), 3).map(Link::from);
    let cloned = move_into_link_name_space(user, Some(LinkNameSpaceType::User)).and_then(|()| {
        let flags = plan.namespaces.clone_flags | libc::CLONE_PARENT as u64;
        sys::clone_child(flags, None, || first_process(plan, with, timeline))
    });
    match (said, cloned) {
        (Ok(link), Ok(cloned)) => drop(link.pid(cloned.pid)),
        (Ok(link), Err(errno)) => link.fault(Fault { step: Step::JoinUser, index: 0, errno }),
        (Err(_), _) => {}
    }
    sys::exit(0)
}

// ANCHOR: first_process
fn set_up(plan: &Plan, with: &mut Belongings, mark: &dyn Fn(Mark)) -> Result<Option<OwnedFd>, Fault> {
    sys::close_all_but(&with.keep).at(Step::Descriptors)?;
    sys::default_signals().at(Step::Signals)?;
    setsid().at(Step::Session)?;
    let mask = umask(rustix::fs::Mode::empty());

    // Namespaces: the new ones came with the clone; now ids, then those to join.
    if plan.namespaces.user {
        with.link.wait_for_go().at(Step::Parent)?;
        let (uid, gid) =
            plan.namespaces.maps.as_ref().map_or((Uid::ROOT, Gid::ROOT), crate::plan::IdMaps::first);
        set_thread_res_gid(gid, gid, gid).at(Step::MapUser)?;
        set_thread_res_uid(uid, uid, uid).at(Step::MapUser)?;
    }
    join_namespaces(plan)?;
    new_time(plan)?;
    process::oom_score(&plan.process)?;
    process::seal(&plan.process)?;
    let label_file = process::open_label(&plan.process)?;

    // The cgroup first, its namespace after: where the process is then becomes the namespace's root.
    for tasks in &with.entrance.tasks {
        rustix::io::write(tasks, b"0").at(Step::EnterCgroup)?;
    }
    if plan.namespaces.new_cgroup {
        sys::unshare(UnshareFlags::NEWCGROUP).at(Step::CgroupNamespace)?;
    }
    mark(Mark::CgroupReady);
    settings(plan)?;

    // The file system: all mounts are made in the new root while the host's files can still be reached, each target
    // resolved as if that root were the root already.
    let root = root::mount_root(plan)?;
    mark(Mark::OverlayMounted);
    make_mounts(plan, &root)?;
    devices::make(plan, root.as_fd())?;
    if let (true, Some(socket)) = (plan.process.terminal, &with.console) {
        tty::open(&plan.process, root.as_fd(), socket.as_fd(), true)?;
    }
    hide(plan, &root)?;
    // As runc does: images name working directories that no layer has made. Where it fails, chdir(2) will say why.
    let _ = paths::directory_at(root.as_fd(), &plan.process.cwd);
    mark(Mark::Mounted);
    if plan.hooks {
        with.link.hooks_please().at(Step::Parent)?;
        with.link.wait_for_go().at(Step::Parent)?;
    }
    if let Some(inside) = &plan.hooks_inside {
        hooks::run(&inside.create, &inside.create_input, Step::CreateContainerHook)?;
    }
    root::enter(plan)?;
    root::finish(plan, root.as_fd())?;
    mark(Mark::Pivoted);

    // Rights last, as every step above needs some.
    umask(mask);
    streams(with.streams.as_ref())?;
    process::take_on(&plan.process)?;
    if plan.to_start {
        process::look_up(&plan.process)?;
    }
    with.link.ready().at(Step::Parent)?;
    with.link.wait_for_go().at(Step::Parent)?;
    Ok(label_file)
}
// ANCHOR_END: first_process

/// What is left once `start` has knocked.
fn last_steps(plan: &Plan, label_file: Option<&OwnedFd>, mark: &dyn Fn(Mark)) -> Result<Infallible, Fault> {
    if let Some(inside) = &plan.hooks_inside {
        hooks::run(&inside.start, &inside.start_input, Step::StartContainerHook)?;
    }
    let program = process::look_up(&plan.process)?;
    mark(Mark::Secured);
    process::become_workload(&plan.process, program, label_file)
}

fn join_namespaces(plan: &Plan) -> Result<(), Fault> {
    for (index, (fd, typ)) in plan.namespaces.join.iter().enumerate() {
        move_into_link_name_space(fd.as_fd(), Some(*typ)).at_index(Step::JoinNamespace, index)?;
    }
    Ok(())
}

/// A time namespace is entered by `execve(2)`, and its offsets are set before that (`time_namespaces(7)`).
fn new_time(plan: &Plan) -> Result<(), Fault> {
    let Some(offsets) = &plan.namespaces.new_time else { return Ok(()) };
    sys::unshare(UnshareFlags::NEWTIME).at(Step::TimeNamespace)?;
    if offsets.is_empty() {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file =
        open(c"/proc/self/timens_offsets", flags, rustix::fs::Mode::empty()).at(Step::TimeNamespace)?;
    rustix::io::write(&file, offsets.to_bytes()).map(drop).at(Step::TimeNamespace)
}

/// What belongs to the new namespaces and is not a file.
fn settings(plan: &Plan) -> Result<(), Fault> {
    use rustix::system::{setdomainname, sethostname};
    if let Some(name) = &plan.hostname {
        sethostname(name.to_bytes()).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name.to_bytes()).at(Step::Domainname)?;
    }
    if plan.namespaces.new_net() {
        sys::loopback_up().at(Step::Loopback)?;
    }
    match plan.new_keyring.then(sys::new_session_keyring) {
        // ENOSYS: a kernel without keys. EPERM, EACCES: an outer seccomp filter; then the keys are as hidden as ours.
        Some(Err(error)) if ![Errno::NOSYS, Errno::PERM, Errno::ACCESS].contains(&error) => {
            return Err(error).at(Step::Keyring);
        }
        _ => {}
    }
    for (index, (path, value)) in plan.sysctls.iter().enumerate() {
        use rustix::fs::{Mode, OFlags, open};
        // Through the host's /proc/sys, which shows the caller's own namespaces: no path of the container is used.
        let file = open(path.as_c_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(|file| rustix::io::write(&file, value.to_bytes())).at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

fn make_mounts(plan: &Plan, root: &OwnedFd) -> Result<(), Fault> {
    use crate::plan::Source;
    for (index, mount) in plan.mounts.iter().enumerate() {
        match &mount.source {
            Source::Link { to } => {
                let (directory, name) =
                    paths::parent(root.as_fd(), &mount.target).at_index(Step::Target, index)?;
                rustix::fs::symlinkat(to.as_c_str(), &directory, name).at_index(Step::AttachMount, index)?;
            }
            Source::Remount => mounts::remount(root.as_fd(), mount).at_index(Step::AttachMount, index)?,
            Source::FileSystem { .. } | Source::Bind { .. } | Source::Prepared { .. } => {
                let detached = mounts::prepare(mount).at_index(Step::BuildMount, index)?;
                if !plan.namespaces.new_mounts() && !matches!(mount.source, Source::FileSystem { .. }) {
                    // A copy of the host's mount is still linked to it.
                    let cut = mounts::propagate(detached.as_fd(), plan.propagation);
                    cut.at_index(Step::AttachMount, index)?;
                }
                let target = mounts::target(root.as_fd(), mount, &detached).at_index(Step::Target, index)?;
                mounts::attach(mount, &detached, &target).at_index(Step::AttachMount, index)?;
            }
        }
    }
    Ok(())
}

/// Masked and read-only paths: parts of /proc and /sys that no namespace covers.
fn hide(plan: &Plan, root: &OwnedFd) -> Result<(), Fault> {
    for (index, path) in plan.read_only.iter().enumerate() {
        mounts::make_read_only(root.as_fd(), path).at_index(Step::ReadOnly, index)?;
    }
    if !plan.masked.is_empty() {
        let mut masks = mounts::Masks::prepare().at(Step::Mask)?;
        for (index, path) in plan.masked.iter().enumerate() {
            masks.cover(root.as_fd(), path).at_index(Step::Mask, index)?;
        }
    }
    Ok(())
}

fn streams(streams: Option<&[OwnedFd; 3]>) -> Result<(), Fault> {
    for (number, stream) in streams.into_iter().flatten().enumerate() {
        sys::install_fd(stream.as_fd(), number as i32).at(Step::Stdio)?;
    }
    Ok(())
}

/// The ids that the process takes on in a new user namespace until it becomes the workload's user.
impl crate::plan::IdMaps {
    fn first(&self) -> (Uid, Gid) {
        let root_or_first = |map: &[oci_spec::runtime::LinuxIdMapping]| {
            map.iter().map(oci_spec::runtime::LinuxIdMapping::container_id).min().unwrap_or(0)
        };
        (Uid::from_raw(root_or_first(&self.uids)), Gid::from_raw(root_or_first(&self.gids)))
    }
}
