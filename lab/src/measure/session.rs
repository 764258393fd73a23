//! A comparison, from the first run to the last: runs interleaved, then memory.
//!
//! Nothing is lost on the way: a run that fails, a wall that cannot be used and a user who has seen enough each leave a
//! record that says so.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab_clock::Mark;

use super::child::{Call, Finished, Running, Stopped};
use super::environment::{self, Environment};
use super::memory::{Available, Memory, of_sandboxes};
use super::plan::{self, Turn, Wall};
use super::record::{
    Ended, KernelRecord, Obtained, Outcome, Plan, Record, SCHEMA, Sample, VERSION, WallRecord,
};
use super::summary::Summary;

/// A run that takes longer is stopped and counts as failed.
pub(super) const RUN_LIMIT: Duration = Duration::from_secs(300);

/// A comparison to make.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub plan: Plan,
    /// The walls, each with how it is called or why it cannot be used.
    pub walls: Vec<WallRequest>,
    /// The command line that makes such a result again.
    pub reproduce: Vec<String>,
}

/// One wall of a comparison.
#[derive(Clone, Debug)]
pub struct WallRequest {
    /// Which.
    pub wall: Wall,
    /// By what it will be run.
    pub obtained: Obtained,
    /// The kernel under the workload.
    pub kernel: Option<KernelRecord>,
    /// How to call it; or why it cannot be used here.
    pub call: Result<WallCall, String>,
}

/// How a wall's runs are called.
#[derive(Clone, Debug)]
pub struct WallCall {
    /// The `lab` binary.
    pub program: PathBuf,
    /// `run`, the runtime and its limits.
    pub options: Vec<OsString>,
    /// The image.
    pub image: OsString,
    /// The command to time; empty for the image's own.
    pub command: Vec<OsString>,
    /// How many idle sandboxes live at once while memory is measured; 0 leaves memory out.
    pub idle: usize,
}

impl WallCall {
    /// The timed run.
    fn timed(&self) -> Call {
        let after = std::iter::once(&self.image).chain(&self.command).cloned().collect();
        Call { program: self.program.clone(), before: self.options.clone(), marks: true, after }
    }

    /// The idle run: `cat`, which echoes a line and ends when its input is closed.
    fn idle(&self) -> Call {
        let before = self.options.iter().cloned().chain(["--interactive".into()]).collect();
        let after = vec![self.image.clone(), "cat".into()];
        Call { program: self.program.clone(), before, marks: true, after }
    }
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done. A run is a step, and so is a wall's memory.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// What is next.
    pub step: Step,
    /// The time left: what the steps left took so far, each its wall's median; none before there is one.
    pub left: Option<Duration>,
}

/// What a comparison is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first run of a wall, which fills the page cache.
    WarmUp(Wall),
    /// A run that counts.
    Run(Wall),
    /// Memory of idle sandboxes.
    Memory(Wall),
    /// All done.
    Done,
}

/// Makes a comparison. `interrupted` ends it early; what was measured until then is in the record.
pub fn compare(request: Request, interrupted: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Record {
    let environment = Environment::probe();
    let created = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    let mut session = Session::new(&request, interrupted, progress);
    session.time_runs(request.plan.runs, request.plan.seed);
    session.measure_memory();
    session.report(Step::Done);
    let walls = session.walls;
    let mut record = Record {
        schema: SCHEMA.into(),
        version: VERSION,
        lab: env!("CARGO_PKG_VERSION").into(),
        created,
        reproduce: request.reproduce,
        ended: if interrupted.load(Ordering::Relaxed) {
            Ended::Interrupted { reason: "stopped by the user".into() }
        } else {
            Ended::Complete
        },
        plan: request.plan,
        environment,
        walls,
        summary: None,
    };
    record.summary = Some(Summary::of(&record));
    record
}

struct Session<'a> {
    calls: Vec<(Wall, WallCall)>,
    walls: Vec<WallRecord>,
    interrupted: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Progress),
    left: Vec<Step>,
    total: usize,
}

impl<'a> Session<'a> {
    fn new(request: &Request, interrupted: &'a AtomicBool, progress: &'a mut dyn FnMut(Progress)) -> Self {
        let walls = request.walls.iter().map(|wall| WallRecord {
            wall: wall.wall,
            obtained: wall.obtained,
            unavailable: wall.call.as_ref().err().cloned(),
            kernel: wall.kernel.clone(),
            samples: Vec::new(),
            memory: None,
        });
        let calls = request.walls.iter().filter_map(|wall| Some((wall.wall, wall.call.clone().ok()?)));
        Self {
            walls: walls.collect(),
            calls: calls.collect(),
            interrupted,
            progress,
            left: Vec::new(),
            total: 0,
        }
    }

    fn stop(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn record(&mut self, wall: Wall) -> &mut WallRecord {
        self.walls.iter_mut().find(|record| record.wall == wall).expect("a call has a record")
    }

    fn time_runs(&mut self, runs: u32, seed: u64) {
        let walls: Vec<_> = self.calls.iter().map(|&(wall, _)| wall).collect();
        let order = plan::order(&walls, runs, seed);
        let step = |turn: &Turn| if turn.warmup { Step::WarmUp(turn.wall) } else { Step::Run(turn.wall) };
        self.left = order.iter().map(step).collect();
        self.left
            .extend(self.calls.iter().filter(|(_, call)| call.idle > 0).map(|&(wall, _)| Step::Memory(wall)));
        self.total = self.left.len();
        for (sequence, turn) in (0..).zip(order) {
            if self.stop() {
                return;
            }
            let Some((_, call)) = self.calls.iter().find(|(wall, _)| *wall == turn.wall) else { continue };
            let call = call.timed();
            self.report(step(&turn));
            let sample = run(&call, sequence, turn.warmup, self.interrupted);
            self.left.remove(0);
            let failed = match &sample.outcome {
                Outcome::Failed { message } => Some(message.clone()),
                _ => None,
            };
            let record = self.record(turn.wall);
            record.samples.push(sample);
            // A wall whose warm-up fails (no such command, no permission) would fail each time in the same way.
            if let Some(message) = failed.filter(|_| turn.warmup) {
                record.unavailable = Some(message);
                self.give_up(turn.wall);
            }
        }
    }

    fn give_up(&mut self, wall: Wall) {
        self.calls.retain(|(other, _)| *other != wall);
        let before = self.left.len();
        self.left.retain(|step| ![Step::WarmUp(wall), Step::Run(wall), Step::Memory(wall)].contains(step));
        self.total -= before - self.left.len();
    }

    fn measure_memory(&mut self) {
        for (wall, call) in self.calls.clone() {
            if call.idle == 0 || self.stop() {
                continue;
            }
            self.report(Step::Memory(wall));
            let memory = memory(&call, self.interrupted);
            self.record(wall).memory = memory;
            self.left.retain(|&step| step != Step::Memory(wall));
        }
    }

    fn report(&mut self, step: Step) {
        let cost = |step: &Step| match *step {
            Step::WarmUp(wall) | Step::Run(wall) => self.typical(wall),
            Step::Memory(wall) => {
                let idle =
                    self.calls.iter().find(|(other, _)| *other == wall).map_or(0, |(_, call)| call.idle);
                Some(self.typical(wall)? * idle as u32 + Duration::from_secs(3))
            }
            Step::Done => Some(Duration::ZERO),
        };
        let left = self.left.iter().map(cost).sum();
        let done = self.total - self.left.len();
        (self.progress)(Progress { done, total: self.total, step, left });
    }

    /// How long a wall's runs take, by those made so far.
    fn typical(&self, wall: Wall) -> Option<Duration> {
        let record = self.walls.iter().find(|record| record.wall == wall)?;
        let mut took: Vec<_> = record.samples.iter().map(|sample| sample.ended - sample.spawned).collect();
        took.sort_unstable();
        took.get(took.len() / 2).map(|&nanos| Duration::from_nanos(nanos))
    }
}

/// Makes one timed run.
fn run(call: &Call, sequence: u32, warmup: bool, interrupted: &AtomicBool) -> Sample {
    let load = environment::load_now();
    let finished = call.spawn(Stdio::null()).and_then(|running| running.finish(RUN_LIMIT, interrupted));
    match finished {
        Ok(finished) => sample(finished, sequence, warmup, load),
        Err(error) => Sample {
            sequence,
            warmup,
            spawned: 0,
            ended: 0,
            marks: [].into(),
            exit: None,
            outcome: Outcome::Failed { message: format!("{}: {error}", call.program.display()) },
            load,
        },
    }
}

fn sample(finished: Finished, sequence: u32, warmup: bool, load: f64) -> Sample {
    let outcome = outcome(&finished);
    Sample {
        sequence,
        warmup,
        spawned: finished.spawned,
        ended: finished.ended,
        marks: finished.marks.unwrap_or_default(),
        exit: finished.status.code(),
        outcome,
        load,
    }
}

/// A run counts if the workload began and ended, whatever its exit code; all its marks must lie within the run.
fn outcome(finished: &Finished) -> Outcome {
    let failed = |message: String| Outcome::Failed { message };
    match finished.stopped {
        Some(Stopped::Interrupted) => return Outcome::Interrupted,
        Some(Stopped::TimedOut) => return failed(format!("did not end within {} s", RUN_LIMIT.as_secs())),
        None => {}
    }
    let said = finished.last_words();
    let marks = match &finished.marks {
        Ok(marks) => marks,
        Err(_) if !said.is_empty() => return failed(said.into()),
        Err(error) => return failed(format!("lab run {error} ({})", finished.status)),
    };
    let reached = |mark: Mark| marks.contains_key(mark.name());
    if !reached(Mark::Executed) || !reached(Mark::Exited) {
        return failed(match said {
            "" => format!("the workload did not run ({})", finished.status),
            said => said.into(),
        });
    }
    let within = |&at: &u64| (finished.spawned..=finished.ended).contains(&at);
    match marks.iter().find(|(_, at)| !within(at)) {
        Some((name, _)) => failed(format!("the mark {name} lies outside the run")),
        None => Outcome::Ok,
    }
}

/// Measures the memory of a wall's idle sandboxes; none where the user stopped it.
fn memory(call: &WallCall, interrupted: &AtomicBool) -> Option<Memory> {
    memory_of(&call.idle(), call.idle, interrupted)
}

/// The memory of so many idle sandboxes of this kind; each runs `cat`.
pub(super) fn memory_of(call: &Call, count: usize, interrupted: &AtomicBool) -> Option<Memory> {
    let before = Available::read()?;
    let mut sandboxes: Vec<(Running, std::process::ChildStdin)> = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..count {
        match idle(call, interrupted) {
            Ok(sandbox) => sandboxes.push(sandbox),
            Err(message) => {
                failures.push(message);
                break;
            }
        }
    }
    let instances = sandboxes.len();
    let during = Available::read()?;
    let roots: Vec<_> = sandboxes.iter().map(|(running, _)| running.pid()).collect();
    let (processes, cgroup) = of_sandboxes(&roots);
    let deadline = Instant::now() + RUN_LIMIT;
    for (running, stdin) in sandboxes {
        drop(stdin);
        if let Err(error) = running.finish(deadline.saturating_duration_since(Instant::now()), interrupted) {
            failures.push(error.to_string());
        }
    }
    if interrupted.load(Ordering::Relaxed) {
        return None;
    }
    let divisor = instances.max(1) as i64;
    Some(Memory {
        instances,
        failures,
        available_drop: (before.bytes as i64 - during.bytes as i64) / divisor,
        available_noise: before.noise.max(during.noise) as i64 / divisor,
        processes,
        cgroup,
    })
}

/// Starts one idle sandbox and waits until its workload runs.
pub(super) fn idle(
    call: &Call,
    interrupted: &AtomicBool,
) -> Result<(Running, std::process::ChildStdin), String> {
    const LINE: &[u8] = b"ready\n";
    let told = |error: std::io::Error| error.to_string();
    let mut running = call.spawn(Stdio::piped()).map_err(told)?;
    let mut stdin = running.stdin().ok_or("no standard input")?;
    // A run that has already failed closes its input: its own message, below, says more than EPIPE.
    let _ = stdin.write_all(LINE);
    if running.says(LINE, RUN_LIMIT, interrupted).map_err(told)? {
        return Ok((running, stdin));
    }
    drop(stdin);
    let finished = running.finish(Duration::from_secs(5), interrupted).map_err(told)?;
    Err(match finished.last_words() {
        "" => "the idle workload `cat` did not answer".to_owned(),
        said => said.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script in the place of `lab`: marks as `lab run` writes them; `cat` where it is asked for.
    const LAB: &str = r#"
        for last; do :; done
        [ "$last" = cat ] && exec cat
        now() { read up rest </proc/uptime; echo "${up%.*}${up#*.}0000000"; }
        # /proc/uptime counts from the same start as CLOCK_MONOTONIC, in hundredths: round into the run.
        sleep 0.03; at=$(now); sleep 0.03
        echo "{\"executed\": $at, \"exited\": $at}" >/proc/self/fd/$1
    "#;

    fn call(script: &str, idle: usize) -> WallCall {
        WallCall {
            program: "/bin/sh".into(),
            // The script sees `FD IMAGE …` after `--marks` took the place of $0.
            options: ["-c", script].map(Into::into).into(),
            image: "image".into(),
            command: vec!["hello".into()],
            idle,
        }
    }

    fn request(container: Result<WallCall, String>, vm: Result<WallCall, String>) -> Request {
        let wall = |wall, obtained, call| WallRequest { wall, obtained, kernel: None, call };
        let fixture = super::super::fixtures::record(0);
        Request {
            plan: Plan { runs: 3, ..fixture.plan },
            walls: vec![
                wall(Wall::Container, Obtained::HostKernel, container),
                wall(Wall::Vm, Obtained::Tcg, vm),
            ],
            reproduce: fixture.reproduce,
        }
    }

    fn compare_now(request: Request) -> Record {
        compare(request, &AtomicBool::new(false), &mut |_| {})
    }

    #[test]
    fn both_walls_give_their_samples_and_their_memory() {
        let record = compare_now(request(Ok(call(LAB, 2)), Ok(call(LAB, 0))));
        assert_eq!(record.ended, Ended::Complete);
        for wall in &record.walls {
            assert_eq!(wall.failures().next(), None);
            assert_eq!((wall.samples.len(), wall.counted().count()), (4, 3));
        }
        let memory = record.walls[0].memory.as_ref().unwrap();
        assert_eq!((memory.instances, memory.failures.len()), (2, 0));
        assert!(memory.pss() > 0);
        assert_eq!(record.walls[1].memory, None);
    }

    #[test]
    fn a_wall_that_is_missing_or_fails_at_once_does_not_take_the_other_with_it() {
        let broken = call("echo 'lab: error: no such command' >&2; exit 127", 1);
        let record = compare_now(request(Ok(call(LAB, 0)), Ok(broken)));
        assert_eq!(record.walls[0].counted().count(), 3);
        assert_eq!(record.walls[1].unavailable.as_deref(), Some("no such command"));
        assert_eq!(record.walls[1].samples.len(), 1, "the failed warm-up is kept");

        let record = compare_now(request(Ok(call(LAB, 0)), Err("no /dev/kvm".into())));
        assert_eq!(record.walls[0].counted().count(), 3);
        assert_eq!(record.walls[1].unavailable.as_deref(), Some("no /dev/kvm"));
    }

    #[test]
    fn an_interruption_keeps_what_there_is_and_says_so() {
        let interrupted = AtomicBool::new(false);
        let record = compare(request(Ok(call(LAB, 1)), Ok(call(LAB, 1))), &interrupted, &mut |progress| {
            if progress.done == 4 {
                interrupted.store(true, Ordering::Relaxed);
            }
        });
        assert!(matches!(record.ended, Ended::Interrupted { .. }));
        let samples: usize = record.walls.iter().map(|wall| wall.samples.len()).sum();
        assert!((4..=5).contains(&samples));
        assert!(record.walls.iter().all(|wall| wall.memory.is_none()));
    }

    #[test]
    fn progress_counts_up_to_the_end_and_knows_the_time_left_once_each_wall_has_run() {
        let mut seen = Vec::new();
        let never = AtomicBool::new(false);
        compare(request(Ok(call(LAB, 0)), Ok(call(LAB, 0))), &never, &mut |progress| seen.push(progress));
        assert!(seen.windows(2).all(|two| two[1].done == two[0].done + 1 && two[1].total == two[0].total));
        assert!(seen[0].left.is_none() && seen[2].left.is_some());
        let last = seen.last().unwrap();
        assert_eq!((last.done, last.step), (last.total, Step::Done));
    }

    #[test]
    fn marks_from_another_time_are_not_believed() {
        let liar = "echo '{\"executed\": 1, \"exited\": 2}' >/proc/self/fd/$1";
        let record = compare_now(request(Ok(call(liar, 0)), Err("none".into())));
        assert!(record.walls[0].unavailable.as_ref().unwrap().contains("outside the run"));
    }
}
