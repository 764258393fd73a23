//! One more process in a container that runs.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use oci_spec::runtime::{Process, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::output::{Channel, Client};
use super::protocol::{Answer, Attach, say};
use super::streams::Input;
use super::{Monitor, serve};
use crate::engine::error::Context as _;
use crate::engine::sandbox::{Inside, Stdio};
use crate::engine::stored::ExecRecord;
use crate::engine::{Error, isolation, process, terminal};

/// Starts the process, answers, and copies its streams until its end.
pub(super) fn exec(monitor: &Arc<Monitor>, stream: UnixStream, id: &str, attach: Option<Attach>) {
    let begun = monitor.engine.exec_record(id).and_then(|record| Ok((begin(monitor, &record)?, record)));
    let (process, record) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // What docker notes for a command that cannot be started, whether it is missing or no program.
            let code = if error.exit_code() == 127 { 126 } else { error.exit_code() };
            let _ = monitor.engine.note_exec(id, false, 0, Some(i64::from(code)));
            let _ = say(&stream, &Answer::Failed((&error).into()));
            return;
        }
    };
    let _ = monitor.engine.note_exec(id, true, i64::from(process.inside.pid().unwrap_or(0)), None);
    let told = say(&stream, &Answer::Done);
    let container = monitor.record();
    let tell = |action: &str, more: &[(&str, &str)]| {
        // What nobody can be told of is no reason to disturb the process.
        let _ = container.as_ref().map(|container| monitor.engine.tell_container(container, action, more));
    };
    tell(
        &format!("exec_start: {}", record.config.cmd.as_deref().unwrap_or_default().join(" ")),
        &[("execID", id)],
    );
    let client = attach.filter(|_| told.is_ok()).map(|attach| (stream, attach));
    let code = attend(process, &record, client);
    tell("exec_die", &[("execID", id), ("exitCode", &code.to_string())]);
    monitor.terminals.remove(id);
}

/// A process that was added, and our ends of its streams.
pub(super) struct Added {
    pub inside: Box<dyn Inside>,
    pub outputs: [Option<OwnedFd>; 2],
    input: Arc<Input>,
    settle: Box<dyn FnOnce(i64) + Send>,
}

pub(super) fn begin(monitor: &Arc<Monitor>, record: &ExecRecord) -> Result<Added, Error> {
    let path = monitor.engine.roots.sandbox(&monitor.id).join("config.json");
    let spec = Spec::load(&path)?;
    let process = process(monitor, &spec, record)?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe");
    let input = Arc::new(Input::default());
    let (stdio, mut outputs, console) = if record.terminal() {
        let (theirs, ours) = UnixStream::pair().context("make", "the console socket")?;
        (Stdio::Console(theirs), [None, None], Some(ours))
    } else {
        // Of a pipe, the reading end comes first.
        let ((stdin, ours), (out, stdout), (err, stderr)) = (pipe()?, pipe()?, pipe()?);
        if record.config.attach_stdin.unwrap_or(false) {
            input.open(ours, true);
        }
        (Stdio::Fds { stdin, stdout, stderr }, [Some(out), Some(err)], None)
    };
    let inside = match monitor.sandbox().as_mut() {
        Some(sandbox) => sandbox.exec(process, stdio)?,
        None => return Err(Error::conflict(format!("container {} is not running", monitor.id))),
    };
    if let Some(socket) = console {
        let master = terminal::receive_master(&socket)?;
        let again = || master.try_clone().context("duplicate", "the terminal");
        if let Some(&[rows, columns]) = record.config.console_size.as_deref() {
            let size = rustix::termios::Winsize {
                ws_row: rows as u16,
                ws_col: columns as u16,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(&master, size);
            if let Some(resizer) = inside.resizer() {
                resizer(size);
            }
        }
        input.open(again()?, false);
        monitor.terminals.add(&record.id, again()?, inside.resizer());
        outputs[0] = Some(master);
    }
    let (server, id) = (Arc::clone(monitor), record.id.clone());
    let settle = Box::new(move |code| {
        let _ = server.engine.note_exec(&id, false, 0, Some(code));
    });
    Ok(Added { inside, outputs, input, settle })
}

/// The container's process, with what the user changes of it.
fn process(monitor: &Monitor, spec: &Spec, record: &ExecRecord) -> Result<Process, Error> {
    let config = &record.config;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(config.cmd.clone());
    process.set_terminal(Some(record.terminal()));
    process.set_console_size(None);
    let mut env = process.env().clone().unwrap_or_default();
    if record.terminal() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for given in config.env.iter().flatten() {
        let name = given.split('=').next().unwrap_or_default();
        env.retain(|variable| variable.split('=').next() != Some(name));
        env.push(given.clone());
    }
    if let Some(directory) = config.working_dir.as_deref().filter(|directory| !directory.is_empty()) {
        process.set_cwd(directory.into());
    }
    if let Some(user) = config.user.as_deref().filter(|user| !user.is_empty()) {
        let user = monitor.terminals.accounts().resolve(user)?;
        let rootless = spec.linux().as_ref().is_some_and(|linux| linux.uid_mappings().is_some());
        process.set_user(process::user(&user, rootless)?);
        let bounding =
            process.capabilities().as_ref().and_then(|all| all.bounding().clone()).unwrap_or_default();
        process.set_capabilities(Some(isolation::capabilities(user.uid, bounding)?));
        env.retain(|variable| !variable.starts_with("HOME="));
        env.push(format!("HOME={}", user.home));
    }
    if config.privileged.unwrap_or(false) {
        let all =
            isolation::bounding(&crate::engine::request::Choices { privileged: true, ..Default::default() })?;
        process.set_capabilities(Some(isolation::capabilities(0, all)?));
    }
    process.set_env(Some(env));
    Ok(process)
}

/// Copies its outputs to the client, if there is one, until its end.
fn attend(mut process: Added, record: &ExecRecord, client: Option<(UnixStream, Attach)>) -> i64 {
    let mut sink = None;
    if let Some((stream, attach)) = client {
        if attach.stdin
            && let Ok(from) = stream.try_clone()
        {
            let input = Arc::clone(&process.input);
            let _ = serve::spawn("input", move || {
                if input.copy_from(&from, &attach.detach) {
                    let _ = from.shutdown(std::net::Shutdown::Both);
                }
            });
        }
        sink = Some(Client {
            socket: stream,
            stdout: attach.stdout,
            stderr: attach.stderr,
            raw: attach.raw.unwrap_or(record.terminal()),
        });
    }
    let mut buffer = [0; 16 * 1024];
    // The outputs may outlive the process, in the hands of its children: what counts is its end, then what is there.
    let mut ended = false;
    while process.outputs.iter().any(Option::is_some) {
        let mut files = vec![];
        files.extend(process.outputs.iter().flatten().map(|file| PollFd::new(file, PollFlags::IN)));
        if !ended {
            files.push(PollFd::from_borrowed_fd(process.inside.exit_fd(), PollFlags::IN));
        }
        let timeout = ended.then_some(rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut files, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) | Ok(0) => break,
            Ok(_) => {}
        }
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        let mut flags = ready.iter().copied();
        for (output, channel) in process.outputs.iter_mut().zip([Channel::Stdout, Channel::Stderr]) {
            if output.is_none() || !flags.next().unwrap_or(false) {
                continue;
            }
            match output.as_ref().map(|file| rustix::io::read(file, &mut buffer)) {
                Some(Ok(read)) if read > 0 => {
                    if sink.as_mut().is_some_and(|client| !client.send(channel, &buffer[..read])) {
                        sink = None;
                    }
                }
                Some(Err(rustix::io::Errno::INTR)) | None => {}
                _ => *output = None,
            }
        }
        ended |= flags.next().unwrap_or(false);
    }
    let code = process.inside.wait().map_or(255, |exit| i64::from(exit.code()));
    process.input.close();
    // Stored before the streams end: the client asks for it then.
    (process.settle)(code);
    if let Some(mut client) = sink {
        let _ = client.socket.flush();
        let _ = client.socket.shutdown(std::net::Shutdown::Both);
    }
    code
}
