//! What a container uses, and its processes.

use std::fs;

use container::Stats;

use super::{Engine, Record};
use crate::engine::monitor::protocol::{Answer, Ask};
use crate::engine::sandbox::Machine;
use crate::engine::{Error, Runtime};

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
            let reason = "its processes are the guest kernel's";
            return Err(Error::Unsupported { flag: "top", runtime: "vm", reason });
        }
        if options.is_some_and(|options| !options.is_empty() && options != "-ef") {
            return Err(Error::bad("options of ps other than -ef are not supported"));
        }
        let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
        let pids = container::Container::load(&self.roots.containers(), &record.id)?.processes();
        Ok((titles, pids.into_iter().filter_map(describe).collect()))
    }
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
