//! What a container uses, and its processes.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use container::Stats;

use super::{Engine, Record};
use crate::engine::error::Context as _;
use crate::engine::monitor::protocol::{Answer, Ask, Attach};
use crate::engine::sandbox::Machine;
use crate::engine::{Error, Runtime};
use crate::kernel;
use bollard_stubs::models::ExecConfig;

/// A machine whose guest GDB may look at.
#[derive(Clone, Debug)]
pub struct Debugged {
    /// Where GDB connects: `target remote SOCKET`.
    pub socket: PathBuf,
    /// The file of the guest's kernel, where it has symbols.
    pub symbols: Option<PathBuf>,
}

impl Engine {
    /// What a container uses now; none where it does not run.
    ///
    /// # Errors
    /// Its monitor does not answer.
    pub fn usage(&self, record: &Record) -> Result<Option<Stats>, Error> {
        self.reconcile(record)?;
        let record = self.find(&record.id)?;
        if !record.status.is_live() {
            return Ok(None);
        }
        if record.runtime() == Runtime::Vm {
            let report = self.machine(&record)?.report;
            return Ok(Some(Stats {
                cpu_nanos: Some(report.cpu_nanos),
                memory: Some(report.memory_now),
                memory_peak: Some(report.memory_peak),
                memory_limit: Some(report.memory),
                ..Stats::default()
            }));
        }
        Ok(Some(container::Container::load(&self.roots.containers(), &record.id)?.stats()))
    }

    /// A virtual machine that runs: what it did, and what its kernel printed.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run; [`Error::Bad`] for a container.
    pub fn machine(&self, record: &Record) -> Result<Machine, Error> {
        self.reconcile(record)?;
        match self.ask(record, &Ask::Machine)?.1 {
            Answer::Machine(machine) => Ok(*machine),
            _ => Err(Error::conflict(format!("container {} is not running", record.id))),
        }
    }

    /// Where GDB may connect to a machine that runs: its socket is made, where it has none.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run; [`Error::Bad`] for a container.
    pub fn debug(&self, record: &Record) -> Result<Debugged, Error> {
        let open = self.machine(record)?.gdb;
        let socket = open.clone().unwrap_or_else(|| self.roots.debugger(&record.id));
        if open.is_none() {
            // A file there is of a monitor that was killed.
            let _ = fs::remove_file(&socket);
            self.ask(record, &Ask::Debug { socket: socket.clone() })?;
        }
        let choice = record.host().annotations.and_then(|all| all.get("lab.kernel").cloned());
        // A bzImage, as distributions have it, has no symbols.
        let image = kernel::resolve(choice.as_deref()).ok().flatten().map(|kernel| kernel.image);
        let symbols = image.filter(|path| path.file_name().is_some_and(|name| name == "vmlinux"));
        Ok(Debugged { socket, symbols })
    }

    /// The processes of a container as `ps` tells them: titles, then a line for each.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run; options of ps that it refuses.
    pub fn top(
        &self,
        record: &Record,
        options: Option<&str>,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), Error> {
        self.reconcile(record)?;
        let record = self.find(&record.id)?;
        if !record.status.is_live() {
            return Err(Error::conflict(format!("container {} is not running", record.id)));
        }
        if record.runtime() == Runtime::Vm {
            return self.top_in_guest(&record);
        }
        let pids = container::Container::load(&self.roots.containers(), &record.id)?.processes();
        if let Some(options) = options.filter(|options| !options.is_empty() && *options != "-ef") {
            return by_ps(options, &pids);
        }
        let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
        Ok((titles, pids.into_iter().filter_map(describe).collect()))
    }
}

impl Engine {
    /// The processes of a machine are its kernel's: the image's own `ps` asks that.
    fn top_in_guest(&self, record: &Record) -> Result<(Vec<String>, Vec<Vec<String>>), Error> {
        let config = ExecConfig {
            cmd: Some(vec!["ps".to_owned()]),
            attach_stdout: Some(true),
            ..ExecConfig::default()
        };
        let exec = self.exec_record(&self.create_exec(record, &config)?)?;
        let attach = Attach { stdout: true, ..Attach::default() };
        let stream = self.start_exec(&exec, Some(attach)).map_err(|error| match error {
            Error::Command { .. } => {
                let reason = "its processes are its kernel's, and the image has no ps to ask that";
                Error::Unsupported { flag: "top", runtime: "vm", reason }
            }
            error => error,
        })?;
        let frames = read_all(stream).context("hear", "ps in the guest")?;
        let text = String::from_utf8_lossy(&outputs(&frames)).into_owned();
        Ok(table(&text))
    }
}

fn read_all(mut stream: UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut stream).take(MOST_PROCESSES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the frames of a process without a terminal carry: a header of eight bytes, of which the last four are the length.
fn outputs(mut frames: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&[_, _, _, _, a, b, c, d], rest)) = frames.split_first_chunk() {
        let (part, after) = rest.split_at(rest.len().min(u32::from_be_bytes([a, b, c, d]) as usize));
        bytes.extend(part);
        frames = after;
    }
    bytes
}

/// The most that is read of what ps in a guest says: a guest may say anything.
const MOST_PROCESSES: u64 = 1 << 20;

/// What the host's ps(1) says with these options of the processes of a container.
fn by_ps(options: &str, pids: &[i32]) -> Result<(Vec<String>, Vec<Vec<String>>), Error> {
    let output =
        std::process::Command::new("ps").args(options.split_whitespace()).output().map_err(|error| {
            Error::bad(format!("options of ps other than -ef need ps on this machine: {error}"))
        })?;
    if !output.status.success() {
        return Err(Error::bad(format!("ps {options}: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let (titles, mut processes) = table(&text);
    let column = titles.iter().position(|title| title == "PID");
    let column =
        column.ok_or_else(|| Error::bad(format!("Couldn't find PID field in ps output: ps {options}")))?;
    processes.retain(|row| row[column].parse().is_ok_and(|pid| pids.contains(&pid)));
    Ok((titles, processes))
}

/// The titles and the rows of what ps prints. All that is left of a line is its last column, blanks and all.
fn table(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let row = |line: &str| {
        let mut rest = line.trim_start();
        let mut columns = Vec::with_capacity(titles.len());
        for _ in 1..titles.len() {
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            columns.push(word.to_owned());
            rest = after.trim_start();
        }
        columns.push(rest.trim_end().to_owned());
        columns
    };
    let rows = lines.map(row).collect();
    (titles, rows)
}

/// A line of `ps -ef`; none for a process that is gone.
fn describe(pid: i32) -> Option<Vec<String>> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let user = process.uid().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command: Vec<_> = command
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let command = if command.is_empty() { format!("[{}]", stat.comm) } else { command.join(" ") };
    // proc_pid_stat(5): in clock ticks, of which there are a hundred a second on every Linux of today.
    let seconds = (stat.utime + stat.stime) / 100;
    let started = boot_time().map(|boot| boot + (stat.starttime / 100) as i64);
    let started = started.and_then(|at| jiff::Timestamp::from_second(at).ok()).map(|at| at.to_string());
    let clock = started.as_deref().and_then(|text| text.get(11..16)).unwrap_or("?").to_owned();
    let terminal = if stat.tty_nr == 0 { "?".to_owned() } else { format!("pts/{}", stat.tty_nr & 0xff) };
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let name = if user == 0 { "root".to_owned() } else { user.to_string() };
    Some(vec![name, pid.to_string(), stat.ppid.to_string(), "0".to_owned(), clock, terminal, time, command])
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> Option<i64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
