//! Health checks: a command that is run beside the workload again and again, and what its ends mean.
//!
//! ```text
//!            0: healthy                                  retries × not 0
//!  starting ───────────► healthy ◄──────── 0 ──────── unhealthy ◄────────┐
//!     │                     └────────────────────────────────────────────┤
//!     └── not 0 in the start period: does not count;  after it ──────────┘
//! ```

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bollard_stubs::models::{ExecConfig, HealthConfig};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exec::{Added, begin};
use super::{Monitor, serve};
use crate::engine::Error;
use crate::engine::stored::{ExecRecord, Health, Probe, Record, Status};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;

/// So many results are kept, each with so many bytes of output; docker's.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;

/// What is run, and how often.
struct Check {
    command: Vec<String>,
    interval: Duration,
    start_interval: Duration,
    timeout: Duration,
    start_period: Duration,
    retries: i64,
}

impl Check {
    /// The check of a configuration; none where it has none, or says NONE.
    fn of(config: &HealthConfig, shell: Option<&Vec<String>>) -> Option<Self> {
        let test = config.test.as_deref().unwrap_or_default();
        let command = match test.split_first() {
            Some((kind, rest)) if kind == "CMD" => rest.to_vec(),
            Some((kind, rest)) if kind == "CMD-SHELL" => {
                let plain = || ["/bin/sh", "-c"].map(str::to_owned).to_vec();
                let mut words = shell.filter(|words| !words.is_empty()).cloned().unwrap_or_else(plain);
                words.extend(rest.first().cloned());
                words
            }
            _ => return None,
        };
        let time = |nanos: Option<i64>, default| match nanos.and_then(|nanos| u64::try_from(nanos).ok()) {
            None | Some(0) => default,
            Some(nanos) => Duration::from_nanos(nanos),
        };
        Some(Self {
            command,
            interval: time(config.interval, INTERVAL),
            start_interval: time(config.start_interval, START_INTERVAL),
            timeout: time(config.timeout, TIMEOUT),
            start_period: time(config.start_period, Duration::ZERO),
            retries: config.retries.filter(|&retries| retries > 0).unwrap_or(RETRIES),
        })
    }
}

/// Begins to check a run that has just begun, where its configuration says so.
pub(super) fn watch(monitor: &Arc<Monitor>, record: &Record) -> Result<(), Error> {
    let check = record.body.healthcheck.as_ref();
    let Some(check) = check.and_then(|config| Check::of(config, record.body.shell.as_ref())) else {
        return Ok(());
    };
    monitor.engine.note_health(&monitor.id, &Health::default())?;
    let run = monitor.gate().ended.0;
    let monitor = Arc::clone(monitor);
    serve::spawn("health", move || run_checks(&monitor, &check, run))
}

fn run_checks(monitor: &Arc<Monitor>, check: &Check, run: u64) {
    let begun = Instant::now();
    let mut health = Health::default();
    loop {
        let starting = health.status == Health::STARTING && begun.elapsed() < check.start_period;
        if run_ends_within(monitor, run, if starting { check.start_interval } else { check.interval }) {
            break;
        }
        let Ok(record) = monitor.record() else { return };
        if record.status == Status::Paused {
            continue;
        }
        let probe = probe(monitor, check, &record);
        // The end of the workload ends its checks, too: that says nothing about its health.
        if monitor.gate().ended.0 != run {
            break;
        }
        let before = health.status.clone();
        let counts = health.status != Health::STARTING || begun.elapsed() >= check.start_period;
        health.take(probe, check.retries, counts);
        let noted = monitor.engine.note_health(&monitor.id, &health);
        if before != health.status && noted.is_ok() {
            let _ = monitor.engine.tell_container(&record, &format!("health_status: {}", health.status), &[]);
        }
    }
    // What is not checked any more is not healthy; docker's reading.
    health.status = Health::UNHEALTHY;
    let _ = monitor.engine.note_health(&monitor.id, &health);
}

/// Waits; true as soon as the run is over.
fn run_ends_within(monitor: &Monitor, run: u64, time: Duration) -> bool {
    let until = Instant::now() + time;
    let mut gate = monitor.gate();
    while gate.ended.0 == run && !gate.closed {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
        gate = monitor.changed.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// Runs the command once.
fn probe(monitor: &Arc<Monitor>, check: &Check, record: &Record) -> Probe {
    let start = Timestamp::now();
    let words = check.command.join(" ");
    let tell = |action: String, more: &[(&str, &str)]| {
        let _ = monitor.engine.tell_container(record, &action, more);
    };
    let config = ExecConfig { cmd: Some(check.command.clone()), ..ExecConfig::default() };
    let exec = ExecRecord::unstored(&monitor.id, config);
    tell(format!("exec_create: {words}"), &[("execID", &exec.id)]);
    let (exit_code, output) = match begin(monitor, &exec) {
        Ok(process) => {
            tell(format!("exec_start: {words}"), &[("execID", &exec.id)]);
            let (code, output) = collect(process, check.timeout);
            tell("exec_die".to_owned(), &[("execID", &exec.id), ("exitCode", &code.to_string())]);
            (code, output)
        }
        Err(error) => (i64::from(error.exit_code()), error.to_string()),
    };
    Probe { start: start.to_string(), end: Timestamp::now().to_string(), exit_code, output }
}

/// The exit code and the beginning of the output; -1 for a command that took too long, which is killed.
fn collect(mut process: Added, timeout: Duration) -> (i64, String) {
    let until = Instant::now() + timeout;
    let mut output = Vec::new();
    let mut buffer = [0; 1024];
    let mut late = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut files = vec![PollFd::from_borrowed_fd(process.inside.exit_fd(), PollFlags::IN)];
        files.extend(process.outputs.iter().flatten().map(|file| PollFd::new(file, PollFlags::IN)));
        match poll(&mut files, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
            Ok(0) => {
                late = true;
                if let Some(pid) = process.inside.pid().and_then(rustix::process::Pid::from_raw) {
                    // It leads a session of its own: with it goes what a shell started for it.
                    if rustix::process::getpgid(Some(pid)) == Ok(pid) {
                        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                    }
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                break;
            }
            Ok(_) => {}
        }
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        let mut read_some = false;
        let mut flags = ready[1..].iter();
        for file in &mut process.outputs {
            if file.is_none() || !flags.next().copied().unwrap_or(false) {
                continue;
            }
            match file.as_ref().map(|file| rustix::io::read(file, &mut buffer)) {
                Some(Ok(read)) if read > 0 => {
                    read_some = true;
                    output.extend(&buffer[..read.min(OUTPUT.saturating_sub(output.len()))]);
                }
                Some(Err(rustix::io::Errno::INTR)) | None => {}
                _ => *file = None,
            }
        }
        // The outputs may stay open in the hands of children: what counts is the end, then what is there.
        if ready[0] && !read_some {
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&output).into_owned();
    if late {
        let mut message = format!("Health check exceeded timeout ({timeout:?})");
        if !text.is_empty() {
            let _ = write!(message, ": {text}");
        }
        text = message;
        if process.inside.pid().is_none() {
            return (-1, text);
        }
    }
    let code = process.inside.wait().map_or(255, |exit| i64::from(exit.code()));
    (if late { -1 } else { code }, text)
}

impl Health {
    /// What a result means; one that does not count changes nothing unless it is good.
    fn take(&mut self, probe: Probe, retries: i64, counts: bool) {
        let good = probe.exit_code == 0;
        self.log.push(probe);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
        if good {
            self.failing_streak = 0;
            self.status = Self::HEALTHY;
        } else if counts {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = Self::UNHEALTHY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(codes: &[i64], counts: bool) -> Health {
        let mut health = Health::default();
        for &exit_code in codes {
            let probe = Probe { start: String::new(), end: String::new(), exit_code, output: String::new() };
            health.take(probe, 3, counts);
        }
        health
    }

    #[test]
    fn three_failures_in_a_row_are_unhealthy_and_one_success_heals() {
        assert_eq!(after(&[], true).status, Health::STARTING);
        assert_eq!(after(&[0], true).status, Health::HEALTHY);
        assert_eq!(after(&[0, 1, 1], true).status, Health::HEALTHY);
        assert_eq!(after(&[0, 1, 1, 1], true).status, Health::UNHEALTHY);
        let healed = after(&[1, 1, 1, 1, 0], true);
        assert_eq!((healed.status, healed.failing_streak, healed.log.len()), (Health::HEALTHY, 0, 5));
        assert_eq!(after(&[1; 9], true).log.len(), KEPT);
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_but_a_success_does() {
        assert_eq!(after(&[1; 9], false).status, Health::STARTING);
        assert_eq!(after(&[1, 0], false).status, Health::HEALTHY);
    }

    #[test]
    fn a_check_is_a_command_or_a_line_for_the_shell() {
        let check = |words: &[&str]| {
            let test = Some(words.iter().map(|&word| word.to_owned()).collect());
            Check::of(&HealthConfig { test, ..HealthConfig::default() }, None)
        };
        assert_eq!(check(&["CMD", "a", "b"]).unwrap().command, ["a", "b"]);
        assert_eq!(check(&["CMD-SHELL", "a b"]).unwrap().command, ["/bin/sh", "-c", "a b"]);
        assert!(check(&["NONE"]).is_none() && check(&[]).is_none());
    }
}
