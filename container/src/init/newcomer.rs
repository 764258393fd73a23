//! A process that joins a container, from `clone3(2)` to `execve(2)`. The rules of [`super`] hold here too.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{chroot, fchdir, setsid};
use rustix::thread::{ThreadNameSpaceType as Namespace, move_into_thread_name_spaces, sched_setaffinity};

use super::fault::{At, Fault, Step};
use super::link::Link;
use super::{process, streams, tty};
use crate::cgroup::Entrance;
use crate::plan::ProcessPlan;
use crate::sys;

/// What the process holds beside its plan.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) link: Link,
    pub(crate) streams: Option<[OwnedFd; 3]>,
    pub(crate) console: Option<OwnedFd>,
    /// The container's root, where joining its mount namespace does not lead there.
    pub(crate) root: Option<OwnedFd>,
    /// The numbers of all descriptors that it needs, in rising order.
    pub(crate) keep: Vec<RawFd>,
}

/// Joins the container and becomes the workload: itself, where it was born in the container's pid namespace; else by a
/// child, with the runtime as its parent too (CLONE_PARENT, `clone3(2)`), since only children enter that namespace.
pub(crate) fn newcomer(
    container: BorrowedFd<'_>,
    namespaces: Namespace,
    entrance: &Entrance,
    with: &Newcomer,
    plan: &ProcessPlan,
    by_child: bool,
) -> Infallible {
    let joined = join(container, namespaces, entrance, with, plan);
    let become_it = |label_file: Option<OwnedFd>| match become_it(with, plan, label_file.as_ref()) {
        Ok(never) => match never {},
        Err(fault) => fail(with, fault),
    };
    match joined {
        Err(fault) => fail(with, fault),
        Ok(label_file) if !by_child => become_it(label_file),
        Ok(label_file) => match sys::clone_child(libc::CLONE_PARENT as u64, None, || become_it(label_file)) {
            Ok(cloned) => {
                let _ = with.link.pid(cloned.pid);
                sys::exit(0)
            }
            Err(errno) => fail(with, Fault { step: Step::JoinNamespace, index: 0, errno }),
        },
    }
}

fn fail(with: &Newcomer, fault: Fault) -> ! {
    with.link.fault(fault);
    sys::exit(1)
}

fn join(
    container: BorrowedFd<'_>,
    namespaces: Namespace,
    entrance: &Entrance,
    with: &Newcomer,
    plan: &ProcessPlan,
) -> Result<Option<OwnedFd>, Fault> {
    sys::close_all_but(&with.keep).at(Step::Descriptors)?;
    sys::default_signals().at(Step::Signals)?;
    if let Some(processors) = &plan.turns.processors.0 {
        sched_setaffinity(None, processors).at(Step::Affinity)?;
    }
    for tasks in &entrance.tasks {
        rustix::io::write(tasks, b"0").at(Step::EnterCgroup)?;
    }
    process::oom_score(plan)?;
    // Before anybody inside can see this process.
    process::seal(plan)?;
    let label_file = process::open_label(plan)?;
    move_into_thread_name_spaces(container, namespaces).at(Step::JoinNamespace)?;
    if let Some(root) = &with.root {
        fchdir(root).and_then(|()| chroot(c".")).at(Step::Chroot)?;
    }
    Ok(label_file)
}

fn become_it(with: &Newcomer, plan: &ProcessPlan, label_file: Option<&OwnedFd>) -> Result<Infallible, Fault> {
    setsid().at(Step::Session)?;
    if let (true, Some(socket)) = (plan.terminal, &with.console) {
        let root = open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        tty::open(plan, root.at(Step::Console)?.as_fd(), socket.as_fd(), false)?;
    }
    streams(with.streams.as_ref())?;
    process::take_on(plan)?;
    if let Some(processors) = &plan.turns.processors.1 {
        sched_setaffinity(None, processors).at(Step::Affinity)?;
    }
    let program = process::look_up(plan)?;
    if plan.listener.is_some() {
        with.link.wait_for_go().at(Step::Parent)?; // until its state is written
    }
    process::become_workload(plan, program, label_file)
}
