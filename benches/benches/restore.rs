//! How soon a restored machine's workload begins, phase by phase, beside a container of crun's that has come and gone.
//!
//! `cargo bench -p benches --bench restore -- [ROUNDS]`; as root. The runs alternate. Three ways to the same `hello`:
//!
//! - *command*: a snapshot of this very command; the first instruction is the program's.
//! - *kind*: a snapshot of this kind of machine, whose process has yet to be told its command; each run has another one, so that
//!   none finds a snapshot of its command.
//! - *crun run*: the whole of a container, from spawn to its end.

mod peers;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use benches::cgroups::own_cgroups;
use benches::programs::{own, peer};
use benches::race::Contender;
use lab::measure::child::Call;
use lab::measure::stats::Stats;
use lab_clock::now;
use peers::{bundle, peer_run};

/// The seed of every resampling here.
const SEED: u64 = 1;

/// No run takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// So many phases are named.
const PHASES: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(20);
    let lab = own("lab", "lab")?;
    println!("cgroups: {}", own_cgroups());
    let place = tempfile::tempdir()?;
    let home = place.path().join("home");
    std::fs::create_dir(&home)?;
    let bundle = bundle(place.path())?;
    let mut crun = peer("crun").map(|program| peer_run("crun", program, &bundle));

    // The first runs leave the snapshots.
    let mut command = Way { name: "command", program: &lab, home: &home, runs: Vec::new() };
    let mut kind = Way { name: "kind", program: &lab, home: &home, runs: Vec::new() };
    command.run("the same")?;
    command.run("the same")?;
    command.runs.clear();
    let mut peers = Vec::new();
    for round in 0..=rounds {
        command.run("the same")?;
        kind.run(&format!("number {round}"))?;
        if let Some(crun) = &mut crun {
            peers.push(whole(crun, round)?);
        }
        if round == 0 {
            // What warmed the caches is not counted.
            command.runs.clear();
            kind.runs.clear();
            peers.clear();
        }
    }
    command.print();
    kind.print();
    match Stats::of(&peers, SEED) {
        Some(stats) => println!("crun run, spawn to end: {:.2} ms ({rounds} runs)", stats.median),
        None => println!("crun: absent (not in PATH)"),
    }
    Ok(())
}

/// A way to the workload's first instruction, and its runs: each phase's milliseconds.
struct Way<'a> {
    name: &'static str,
    program: &'a Path,
    home: &'a Path,
    runs: Vec<Vec<(String, f64)>>,
}

impl Way<'_> {
    fn run(&mut self, word: &str) -> Result<(), Box<dyn Error>> {
        let (home, variable) = (format!("LAB_HOME={}", self.home.display()), format!("WORD={word}"));
        let program = self.program.as_os_str();
        // The snapshots of this bench must not meet those of the user: a home of its own.
        let lab = ["run", "--quiet", "--runtime", "vm", "--warm", "-e", &variable].map(OsStr::new);
        let before = [OsStr::new(&home), program].into_iter().chain(lab).map(Into::into).collect();
        let after = ["lab", "hello"].map(Into::into).into();
        let call = Call { program: "/usr/bin/env".into(), before, marks: true, after };
        let finished = call.spawn(Stdio::null())?.finish(PATIENCE, &AtomicBool::new(false))?;
        if !finished.status.success() {
            return Err(format!("{}: {}", self.name, finished.said).into());
        }
        self.runs.push(phases(finished.spawned, &finished.marks?));
        Ok(())
    }

    fn print(&self) {
        let total = |run: &Vec<(String, f64)>| run.iter().map(|(_, time)| time).sum::<f64>();
        let totals: Vec<f64> = self.runs.iter().map(total).collect();
        let Some(stats) = Stats::of(&totals, SEED) else { return };
        println!("{}: spawn of `lab run` to the first instruction {:.2} ms", self.name, stats.median);
        let mut by_phase = BTreeMap::<&str, Vec<f64>>::new();
        for (phase, time) in self.runs.iter().flatten() {
            by_phase.entry(phase).or_default().push(*time);
        }
        let medians =
            by_phase.iter().filter_map(|(phase, times)| Some((*phase, Stats::of(times, SEED)?.median)));
        let mut medians: Vec<_> = medians.collect();
        medians.sort_by(|one, other| other.1.total_cmp(&one.1));
        for (phase, time) in medians.iter().take(PHASES) {
            println!("  {time:8.2} ms  {phase}");
        }
    }
}

/// What lies between two marks, up to the program's first instruction.
fn phases(spawned: u64, marks: &BTreeMap<String, u64>) -> Vec<(String, f64)> {
    let mut all: Vec<_> = marks.iter().map(|(name, at)| (*at, name.as_str())).collect();
    all.sort_unstable();
    let (mut phases, mut last) = (Vec::new(), (spawned, "spawn"));
    for mark in all {
        phases.push((format!("{} to {}", last.1, mark.1), (mark.0 - last.0) as f64 / 1e6));
        last = mark;
        if mark.1 == "executed" {
            break;
        }
    }
    phases
}

fn whole(contender: &mut Contender, number: u32) -> Result<f64, Box<dyn Error>> {
    let mut command = (contender.command)(number);
    command.stdout(Stdio::null());
    let began = now();
    let status = command.status()?;
    let time = (now() - began) as f64 / 1e6;
    if status.success() { Ok(time) } else { Err(format!("{} ended with {status}", contender.name).into()) }
}
