//! From fork to execve: what a process does to itself before it becomes the workload. The order is that of runc.

use freestanding::args::Pointer;
use freestanding::sys::file::{self, flags};
use freestanding::sys::identity::{self, Capabilities};
use freestanding::sys::memory::Array;
use freestanding::sys::mount::{self, flags as mount_flags};
use freestanding::sys::process::{self, namespaces};
use freestanding::sys::signal::{self, Set};
use freestanding::sys::terminal::Size;
use freestanding::{Errno, Fd, OwnedFd, Text};
use guest_wire::MAX_PAYLOAD;

use crate::boot::Timer;
use crate::failure::{During, Failure};
use crate::path;
use crate::process::{Ends, Report};
use crate::spec::{Exec, Setup};
use crate::world;

/// The last capability that a 64-bit set can name; the kernel says `EINVAL` past its own last one.
const CAPABILITIES: u32 = 64;

/// Which world the process enters.
#[derive(Clone, Copy, Debug)]
pub enum World<'a> {
    /// It makes it: the sandbox's first process.
    Make {
        /// What it looks like.
        setup: &'a Setup<'a>,
        /// See [`world::enter`].
        has_machine: bool,
    },
    /// It joins that of the first process, given by its pidfd.
    Join(Fd),
}

/// Becomes the workload, or reports why not.
pub fn run(exec: &Exec, world: World, ends: &Ends, timer: &Timer) -> ! {
    let report = *ends.report;
    match prepare(exec, world, ends, timer) {
        Ok(terminal) => {
            let prepared =
                Report::Prepared { pid: process::pid(), terminal: terminal.as_ref().map(|fd| **fd) };
            if report.write_all(&prepared.encode()).is_err() {
                process::exit(0);
            }
            let Some((start, halt)) = wait_for_start(*ends.gate) else { process::exit(0) };
            if halt && let Err(errno) = process::trace_me() {
                fail(report, &Failure::new(errno, "ptrace", b""));
            }
            // What `Start` says of arguments and environment counts; all else is done already.
            let said = if start.is_empty() { Ok(*exec) } else { Exec::read(&start) };
            match said {
                Ok(exec) => fail(report, &execute(&exec)),
                Err(failure) => fail(report, &failure),
            }
        }
        Err(failure) => fail(report, &failure),
    }
}

fn fail(report: Fd, failure: &Failure) -> ! {
    let _ = report.write_all(&Report::failed(failure).encode());
    process::exit(127)
}

/// Beside the length of `Start`'s payload: the process is to be held at its program's first instruction.
pub const HALT: u32 = 1 << 31;

const _: () = assert!(MAX_PAYLOAD < HALT);

/// Waits for PID 1's word: the payload of `Start`, its length before it, and whether to be held. PID 1's end of the pipe closed
/// instead means that the process is not wanted any more.
fn wait_for_start(gate: Fd) -> Option<(Array<u8>, bool)> {
    let mut len = [0; 4];
    read_all(gate, &mut len)?;
    let len = u32::from_le_bytes(len);
    let mut start = Array::new((len & !HALT) as usize).ok()?;
    read_all(gate, &mut start)?;
    Some((start, len & HALT != 0))
}

fn read_all(from: Fd, mut buffer: &mut [u8]) -> Option<()> {
    while !buffer.is_empty() {
        match from.read(buffer) {
            Ok(0) => return None,
            Ok(count) => buffer = buffer.get_mut(count..)?,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// All steps but the last. Gives back the master of the terminal, if there is one: PID 1 fetches it.
// ANCHOR: prepare
fn prepare<'a>(
    exec: &Exec<'a>,
    world: World<'a>,
    ends: &Ends,
    timer: &Timer,
) -> Result<Option<OwnedFd>, Failure<'a>> {
    timer.close();
    signal::set_blocked(Set::EMPTY).during("sigprocmask", b"")?;
    let first = match world {
        World::Make { setup, has_machine } => {
            world::enter(setup, has_machine)?;
            true
        }
        World::Join(first) => {
            process::join(first, namespaces::MOUNT).during("setns", b"")?;
            false
        }
    };
    process::new_session().during("setsid", b"")?;
    let (uid, gid) = exec.user;
    let terminal = if let Some(size) = exec.terminal {
        Some(terminal(size, uid, first)?)
    } else {
        pipes(ends)?;
        None
    };
    if !first {
        close_all_but([*ends.report, *ends.gate, terminal.as_ref().map_or(*ends.gate, |fd| **fd)]);
    }
    if uid != 0 {
        for fd in [Fd::INPUT, Fd::OUTPUT, Fd::ERROR] {
            // So that the workload may open /dev/stdout again. /dev/null on a read-only /dev may refuse, and need not.
            let _ = fd.change_owner(uid, u32::MAX);
        }
    }
    if let Some(score) = exec.oom_score_adj {
        let mut text = Text::<16>::new();
        text.text(if score < 0 { "-" } else { "" }).number(u64::from(score.unsigned_abs()));
        file::open(c"/proc/self/oom_score_adj", flags::WRITE, 0)
            .and_then(|file| file.write_all(text.bytes()))
            .during("write", b"/proc/self/oom_score_adj")?;
    }
    for (resource, soft, hard) in exec.limits() {
        process::set_limit(resource, soft, hard).during("setrlimit", b"")?;
    }
    let mut entered = process::chdir(exec.cwd);
    if entered == Err(Errno::NOENT) && first {
        entered = path::make_folders(exec.cwd).and_then(|()| process::chdir(exec.cwd));
    }
    entered.during("chdir", exec.cwd.to_bytes())?;
    become_user(exec, uid, gid)?;
    process::umask(exec.umask);
    if exec.no_new_privileges {
        identity::no_new_privileges().during("prctl no_new_privs", b"")?;
    }
    Ok(terminal)
}
// ANCHOR_END: prepare

/// Closes PID 1's descriptors of other processes. They would be closed by execve(2), but that may be long in coming, and
/// until then they would keep the ends of those processes' pipes from being seen.
fn close_all_but(mut kept: [Fd; 3]) {
    kept.sort_unstable_by_key(|fd| fd.0);
    let mut first = 3;
    for fd in kept {
        if fd.0 > first {
            let _ = process::close_range(first, fd.0 - 1);
        }
        first = first.max(fd.0 + 1);
    }
    let _ = process::close_range(first, i32::MAX);
}

/// Makes the pipes standard input, output and error.
fn pipes(ends: &Ends) -> Result<(), Failure<'static>> {
    let null = match ends.input {
        Some(_) => None,
        None => Some(file::open(c"/dev/null", flags::READ, 0).during("open", b"/dev/null")?),
    };
    for (from, to) in
        [(ends.input.as_ref().or(null.as_ref()), 0), (ends.output.as_ref(), 1), (ends.error.as_ref(), 2)]
    {
        from.ok_or(Errno::BADF).and_then(|fd| fd.duplicate_to(Fd(to))).during("dup3", b"")?;
    }
    Ok(())
}

/// Makes a new terminal standard input, output and error, and the session's controlling terminal: pty(7).
fn terminal(size: Size, uid: u32, first: bool) -> Result<OwnedFd, Failure<'static>> {
    let how = flags::READ_WRITE | flags::NOCTTY | flags::NONBLOCK;
    let master = file::open(c"/dev/ptmx", how, 0).during("open", b"/dev/ptmx")?;
    master.unlock_pty().during("unlock", b"/dev/ptmx")?;
    let slave = master.pty_peer().during("open slave of", b"/dev/ptmx")?;
    master.set_window(size).during("set size of", b"/dev/ptmx")?;
    slave.control().during("make controlling terminal", b"/dev/ptmx")?;
    if first {
        console(&master);
    }
    for to in 0..3 {
        slave.duplicate_to(Fd(to)).during("dup3", b"")?;
    }
    if uid != 0 {
        slave.change_owner(uid, u32::MAX).during("chown", b"terminal")?;
    }
    Ok(master)
}

/// The terminal is /dev/console as well (OCI runtime specification, config-linux, "Default Devices"). What has no /dev of
/// its own goes without.
fn console(master: &OwnedFd) {
    let mut slave = Text::<32>::new();
    if let Ok(number) = master.pty_number() {
        slave.text("/dev/pts/").number(u64::from(number));
        if let Some(slave) = slave.c_str()
            && path::make_file(c"/dev/console").is_ok()
        {
            let _ = mount::mount(slave, c"/dev/console", c"", mount_flags::BIND, c"");
        }
    }
}

/// Takes on the user, the groups and the capabilities: capabilities(7), "Effect of user ID changes on capabilities".
fn become_user(exec: &Exec, uid: u32, gid: u32) -> Result<(), Failure<'static>> {
    if let Some(sets) = exec.capabilities {
        for capability in (0..CAPABILITIES).filter(|number| sets.bounding & (1 << number) == 0) {
            match identity::drop_from_bounding(capability) {
                Ok(()) => {}
                Err(Errno::INVAL) => break, // past the kernel's last capability
                Err(errno) => return Err(Failure::new(errno, "drop capability", b"")),
            }
        }
        if uid != 0 {
            identity::keep_capabilities().during("prctl keepcaps", b"")?;
        }
    }
    let mut groups = Array::<u32>::new(exec.groups().count()).during("mmap", b"")?;
    for (slot, group) in groups.iter_mut().zip(exec.groups()) {
        *slot = group;
    }
    // Root without additional groups is what PID 1 is already. (A user namespace without a mapping refuses even that.)
    if !groups.is_empty() || uid != 0 || gid != 0 {
        identity::set_groups(&groups).during("setgroups", b"")?;
        identity::set_gid(gid).during("setgid", b"")?;
        identity::set_uid(uid).during("setuid", b"")?;
    }
    if let Some(sets) = exec.capabilities {
        identity::set_capabilities(Capabilities {
            effective: sets.effective,
            permitted: sets.permitted,
            inheritable: sets.inheritable,
        })
        .during("capset", b"")?;
        // Only what is both permitted and inheritable can be ambient (capabilities(7)); the rest is passed over, as runc does.
        let ambient = sets.ambient & sets.permitted & sets.inheritable;
        for capability in (0..CAPABILITIES).filter(|number| ambient & (1 << number) != 0) {
            identity::raise_ambient(capability).during("raise ambient capability", b"")?;
        }
    }
    Ok(())
}

/// Executes the workload. Comes back only with the reason why it could not.
fn execute<'a>(exec: &Exec<'a>) -> Failure<'a> {
    let Some(name) = exec.arguments().next() else { return Failure::new(Errno::INVAL, "execve", b"") };
    let mut pointers = match Array::<Pointer>::new(exec.pointers) {
        Ok(pointers) => pointers,
        Err(errno) => return Failure::new(errno, "mmap", b""),
    };
    let arguments = exec.arguments().count() + 1;
    // The array starts as null pointers, which are the ends of both lists.
    let (argv, envp) = pointers.split_at_mut(arguments.min(exec.pointers));
    for (slot, text) in argv.iter_mut().zip(exec.arguments()) {
        *slot = Pointer::new(text);
    }
    for (slot, text) in envp.iter_mut().zip(exec.environment()) {
        *slot = Pointer::new(text);
    }
    let errno = freestanding::path::search(name, exec.path(), |program| process::execve(program, argv, envp));
    Failure::new(errno, "execve", name.to_bytes())
}
