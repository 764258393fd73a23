//! [`create`]: how a container comes to be.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use oci_spec::runtime::LinuxIdMapping;

use crate::birth::BornElsewhere;
use crate::cgroup::{Holder, Membership};
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::init::{self, Belongings, Link, Message};
use crate::network::Moved;
use crate::options::{CreateOptions, Stdio};
use crate::plan::{IdMaps, Plan, Surroundings};
use crate::rdt::Class;
use crate::security::caps;
use crate::state::{State, StateDir, Status, start_time};
use crate::sys::{self, Cloned};
use crate::{cgroup, exec, hooks, process, spec};

// ANCHOR: create
/// Makes a container: everything is set up, and its first process waits to become the workload.
///
/// # Errors
/// Whatever step fails, its [`Error`] says which and on what, and everything made before it is removed again.
pub fn create(options: CreateOptions) -> Result<Container> {
    // The bundle: what to run, in what surroundings.
    let bundle = std::path::absolute(&options.bundle).context("make absolute", options.bundle.display())?;
    let mut spec = options.config.map_or_else(|| spec::load(&bundle), Ok)?;
    let (streams, console) = stdio(options.stdio, spec.wants_terminal())?;

    // The state directory: the name is taken now, and whatever happens, `delete` knows what to remove.
    let dir = StateDir::claim(&options.root, &options.id)?;
    let mut made =
        Made { dir: Some(dir.clone()), cgroup: None, holder: None, rdt: None, devices: None, child: None };
    let mut cgroup = Membership::plan(&spec, &options.id, options.cgroups)?;
    let mut state = State::new(&spec, &options.id, &bundle, cgroup.clone());
    state.rdt = Class::plan(spec.linux.as_ref().and_then(|linux| linux.intel_rdt().as_ref()), &options.id)?;
    dir.write(&state)?;
    dir.keep_config(std::mem::take(&mut spec.text))?;

    // The cgroup, with its limits: made before the process, so that it is never without them.
    made.cgroup = Some(cgroup.clone());
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources().as_ref());
    let result = cgroup.make(resources);
    made.cgroup = Some(cgroup.clone());
    state.cgroup = cgroup.clone();
    made.holder = result?;
    made.rdt.clone_from(&state.rdt);
    state.rdt.as_ref().map_or(Ok(()), Class::make)?;
    cgroup::owner(&spec).map_or(Ok(()), |uid| cgroup.give_to(uid))?;

    // The plan: all that the process will do, worked out while this is still an ordinary program.
    let around = Surroundings {
        bundle: &bundle,
        state_dir: dir.path(),
        rootfs: &options.rootfs,
        cgroup: &cgroup,
        pivot: !options.no_pivot,
        preserve_fds: options.preserve_fds,
        new_keyring: options.new_keyring,
    };
    let plan = Plan::new(&spec, &around)?;
    state.own_pids = plan.namespaces.new_pid();
    state.namespaces = plan.namespaces.types();
    state.chroot = !plan.namespaces.new_mounts();
    if state.chroot {
        dir.make_root()?;
    }

    // The process: one clone into all new namespaces. It sets itself up while this goes on here.
    let door = open_door(&dir)?;
    let (link, theirs) = Link::pair().context("make", "a socket pair")?;
    let mut belongings =
        Belongings { link: theirs, door, entrance: cgroup.entrance()?, streams, console, keep: Vec::new() };
    belongings.list(&plan);
    let child = made.child.insert(clone(&plan, belongings, &link, options.timeline.as_ref())?);
    if let Some(maps) = &plan.namespaces.maps {
        map_ids(child.pid, maps)?;
        link.go().context("speak to", "the first process")?;
    }
    state.rdt.as_ref().map_or(Ok(()), |class| class.enter(child.pid))?;
    if !plan.devices_of_network.is_empty() {
        let network = plan.namespaces.network(child.pid)?;
        made.devices = Some(Moved::into(network, &plan.devices_of_network, child.pid)?);
    }
    state.pid = child.pid;
    state.pid_start = start_time(child.pid).unwrap_or_default();
    dir.write(&state)?;
    if let Some(listener) = &plan.process.listener {
        listener.fill(&state, child.pid, Status::Created)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, child.pid)?;
    }

    // It says that it wants its hooks run, that all is done, or which step failed. Once it hears that the state is
    // written, it waits at its door.
    loop {
        match link.listen().context("listen to", "the first process")? {
            Message::HooksPlease => run_hooks(&spec, &plan, &state)?,
            Message::Ready => break,
            Message::Fault(fault) => return Err(fault.explain(&plan)),
            Message::Pid(_) | Message::Gone => {
                return Err(Error::Died { id: options.id, during: "its set-up" });
            }
        }
        link.go().context("speak to", "the first process")?;
    }
    link.go().context("speak to", "the first process")?;
    let mut container = made.into_container(dir, state, options.timeline);
    container.warnings = warnings(&plan);
    Ok(container)
}
// ANCHOR_END: create

/// What the process goes without: a user namespace has all capabilities to give, the runtime only its own.
fn warnings(plan: &Plan) -> Vec<String> {
    let beyond = if plan.namespaces.user { Vec::new() } else { caps::beyond_own(&plan.process.capabilities) };
    let warning =
        |name| format!("process.capabilities: {name} cannot be granted, the runtime does not have it itself");
    beyond.into_iter().map(warning).collect()
}

/// The hooks that run while the first process waits in its namespaces, and what it needs to run the others.
fn run_hooks(spec: &spec::Spec, plan: &Plan, state: &State) -> Result<()> {
    let Some(configured) = &spec.hooks else { return Ok(()) };
    hooks::run("prestart", hooks::prestart(configured), state, Status::Creating)?;
    hooks::run("createRuntime", configured.create_runtime().as_ref(), state, Status::Creating)?;
    plan.hooks_inside.as_ref().map_or(Ok(()), |inside| inside.fill(state))
}

/// The descriptors for the workload's streams, or the socket for its terminal.
#[allow(clippy::type_complexity)]
pub(crate) fn stdio(stdio: Stdio, terminal: bool) -> Result<(Option<[OwnedFd; 3]>, Option<OwnedFd>)> {
    match (stdio, terminal) {
        (Stdio::Console(socket), true) => Ok((None, Some(socket.into()))),
        (Stdio::Console(_), false) => Err(Error::config(
            "process.terminal",
            "is not true, but a console socket was given; set it, or leave the socket out",
        )),
        (_, true) => Err(Error::config(
            "process.terminal",
            "is true: a console socket is needed to send the terminal to",
        )),
        (Stdio::Inherit, false) => Ok((None, None)),
        (Stdio::Fds { stdin, stdout, stderr }, false) => {
            // Above 2, or installing one as descriptor 0, 1 or 2 could overwrite the next.
            let above = |fd: OwnedFd| {
                rustix::io::fcntl_dupfd_cloexec(&fd, 3).context("duplicate", "a standard stream")
            };
            Ok((Some([above(stdin)?, above(stdout)?, above(stderr)?]), None))
        }
    }
}

/// The socket in the state directory that `start` connects to, by whatever process.
fn open_door(dir: &StateDir) -> Result<OwnedFd> {
    let path = dir.door();
    let directory = rustix::fs::open(
        dir.path(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .context("open", dir.path().display())?;
    // A socket's address holds 107 bytes (unix(7)); through the descriptor every path is short.
    let short = process::short_path(&directory, &path);
    UnixListener::bind(short).map(OwnedFd::from).context("bind", path.display())
}

fn clone(
    plan: &Plan,
    mut belongings: Belongings,
    link: &Link,
    timeline: Option<&Arc<Timeline>>,
) -> Result<Cloned> {
    let unified = belongings.entrance.unified.take();
    let into = unified.as_ref().map(AsFd::as_fd);
    let timeline = timeline.map(Arc::as_ref);
    let flags = plan.namespaces.clone_flags;
    let elsewhere = plan.namespaces.join_pid.as_ref().map(|link| BornElsewhere::behind_link(link.as_fd()));
    let elsewhere = elsewhere.transpose()?;
    let cloned = if let Some(user) = &plan.namespaces.join_user {
        // New namespaces belong to the user namespace they are made from: a first child joins it and makes the process.
        let first =
            sys::clone_child(0, into, || init::join_user_and_clone(user.as_fd(), plan, belongings, timeline));
        first.map_err(explain_clone).and_then(|first| {
            let said = link.listen().context("listen to", "the process that joins the user namespace")?;
            process::reap(&first.pidfd).context("wait for", "the process that joined the user namespace")?;
            match said {
                Message::Pid(pid) => {
                    let cloned = exec::adopt(pid)?;
                    link.go().context("speak to", "the first process")?;
                    Ok(cloned)
                }
                Message::Fault(fault) => Err(fault.explain(plan)),
                _ => Err(Error::config("linux.namespaces", "the user namespace cannot be joined")),
            }
        })
    } else {
        sys::clone_child(flags, into, move || init::first_process(plan, belongings, timeline))
            .map_err(explain_clone)
    };
    elsewhere.map_or(Ok(()), BornElsewhere::come_back)?;
    cloned
}

fn explain_clone(error: rustix::io::Errno) -> Error {
    let hint = match error {
        rustix::io::Errno::PERM => "; without root, add a namespace of type \"user\" to linux.namespaces",
        rustix::io::Errno::NOSPC | rustix::io::Errno::USERS => {
            "; a limit below /proc/sys/user is reached (namespaces(7))"
        }
        rustix::io::Errno::AGAIN => "; a limit on processes is reached: pids.max of the cgroup, or ulimit -u",
        _ => "",
    };
    Error::Step { step: "clone into", object: "new namespaces".into(), source: error.into(), hint }
}

/// Writes what the ids of a new user namespace mean outside (`user_namespaces(7)`).
fn map_ids(pid: i32, maps: &IdMaps) -> Result<()> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, text).map_err(|error| {
            let hint = "; are the host's ids mapped in this user namespace too?";
            let step = "write the id map";
            Error::Step { step, object: format!("{path} ({:?})", text.trim_end()), source: error, hint }
        })
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let only =
        |map: &[LinuxIdMapping], own: u32| matches!(map, [one] if one.size() == 1 && one.host_id() == own);
    let own_only = only(&maps.uids, uid.as_raw()) && only(&maps.gids, gid.as_raw());
    if !(uid.is_root() || own_only) {
        id_helper("newuidmap", "linux.uidMappings", pid, &maps.uids)?;
        return id_helper("newgidmap", "linux.gidMappings", pid, &maps.gids);
    }
    if !uid.is_root() {
        // Or a process could drop a group that denies it a file (user_namespaces(7), "setgroups").
        write("setgroups", "deny")?;
    }
    write("uid_map", &IdMaps::text(&maps.uids))?;
    write("gid_map", &IdMaps::text(&maps.gids))
}

/// Has a program with the right to write the map of more ids than one's own, as /etc/subuid allows (`newuidmap(1)`).
fn id_helper(program: &str, field: &str, pid: i32, map: &[LinuxIdMapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.container_id(), m.host_id(), m.size()]);
    let mut command = std::process::Command::new(program);
    command.arg(pid.to_string()).args(numbers.map(|number| number.to_string()));
    let reason = match command.output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("{program}: {error}; it is in the package uidmap"),
    };
    let fix = "the ranges must be yours in /etc/subuid and /etc/subgid (subuid(5)); or map your own id only";
    Err(Error::config(field, format!("{reason}; {fix}")))
}

/// Whole or not at all: an engine may look at any moment.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    std::fs::write(&new, pid.to_string()).context("write", new.display())?;
    std::fs::rename(&new, path).context("write", path.display())
}

/// What exists already; dropped on the way to success, it is all removed again.
struct Made {
    dir: Option<StateDir>,
    cgroup: Option<Membership>,
    holder: Option<Holder>,
    rdt: Option<Class>,
    devices: Option<Moved>,
    child: Option<Cloned>,
}

impl Made {
    fn into_container(mut self, dir: StateDir, state: State, timeline: Option<Arc<Timeline>>) -> Container {
        let child = self.child.take().expect("create made the process");
        self.dir = None;
        self.cgroup = None;
        self.rdt = None;
        if let Some(devices) = self.devices.take() {
            devices.keep();
        }
        Container::new(dir, state, Some(child.pidfd), true, timeline)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        drop(self.devices.take()); // while their namespace is there
        if let Some(child) = self.child.take() {
            let _ = sys::pidfd_signal(&child.pidfd, libc::SIGKILL);
            let _ = process::reap(&child.pidfd);
        }
        drop(self.holder.take());
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.remove();
        }
        if let Some(class) = self.rdt.take() {
            let _ = class.remove();
        }
        if let Some(dir) = self.dir.take() {
            let _ = dir.remove();
        }
    }
}

/// Marks a moment, where somebody wants to know.
pub(crate) fn mark(timeline: Option<&Arc<Timeline>>, mark: Mark) {
    if let Some(timeline) = timeline {
        timeline.mark(mark);
    }
}
