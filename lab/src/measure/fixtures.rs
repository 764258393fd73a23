//! Synthetic results for tests: the shape of real ones, with round numbers.

use lab_clock::Mark;

use super::environment::Environment;
use super::memory::{Memory, ProcessMemory};
use super::plan::{self, Wall};
use super::record::{
    Backing, Ended, KernelRecord, Obtained, Outcome, Plan, Record, SCHEMA, Sample, VERSION, WallRecord,
};

/// A container's run: its marks in microseconds since the spawn, times `scale`.
pub fn container_sample(sequence: u32, scale: f64) -> Sample {
    let marks = [
        (Mark::Started, 900.0),
        (Mark::Resolved, 1500.0),
        (Mark::Cloned, 2600.0),
        (Mark::CgroupReady, 3000.0),
        (Mark::OverlayMounted, 3300.0),
        (Mark::Mounted, 4200.0),
        (Mark::Pivoted, 4400.0),
        (Mark::Secured, 5000.0),
        (Mark::Executed, 5400.0),
        (Mark::FirstByte, 5800.0),
        (Mark::Exited, 6100.0),
        (Mark::Deleted, 8200.0),
    ];
    sample(sequence, &marks, 8700.0, scale)
}

/// A VM's run.
pub fn vm_sample(sequence: u32, scale: f64) -> Sample {
    let marks = [
        (Mark::Started, 900.0),
        (Mark::Resolved, 1600.0),
        (Mark::KvmOpened, 1700.0),
        (Mark::VmCreated, 2100.0),
        (Mark::MemoryReady, 2200.0),
        (Mark::KernelLoaded, 3000.0),
        (Mark::DevicesReady, 3300.0),
        (Mark::VcpuReady, 3500.0),
        (Mark::FirstRun, 3600.0),
        (Mark::FirstExit, 9000.0),
        (Mark::KernelEntered, 12000.0),
        (Mark::KernelInitcalls, 40000.0),
        (Mark::KernelDone, 90000.0),
        (Mark::InitStarted, 95000.0),
        (Mark::AgentReady, 97000.0),
        (Mark::RootMounted, 104000.0),
        (Mark::Executed, 106000.0),
        (Mark::FirstByte, 107000.0),
        (Mark::Exited, 107500.0),
        (Mark::Deleted, 109000.0),
    ];
    sample(sequence, &marks, 110000.0, scale)
}

fn sample(sequence: u32, marks: &[(Mark, f64)], ended: f64, scale: f64) -> Sample {
    let spawned = 1_000_000_000 * (u64::from(sequence) + 1);
    let at = |micros: f64| spawned + (micros * scale * 1000.0) as u64;
    Sample {
        sequence,
        warmup: false,
        spawned,
        ended: at(ended),
        marks: marks.iter().map(|&(mark, micros)| (mark.name().to_string(), at(micros))).collect(),
        exit: Some(0),
        outcome: Outcome::Ok,
        load: 0.1,
    }
}

/// A whole result of this many runs a wall.
pub fn record(runs: u32) -> Record {
    let seed = 42;
    let mut walls = [wall(Wall::Container, Obtained::HostKernel), {
        wall(Wall::Vm, Obtained::Kvm { backing: Backing::Software })
    }];
    for (sequence, turn) in (0..).zip(plan::order(&Wall::BOTH, runs, seed)) {
        // A right-skewed spread that needs no random numbers.
        let scale = 1.0 + f64::from(sequence * 7 % 11).powi(2) / 400.0;
        let mut sample = match turn.wall {
            Wall::Container => container_sample(sequence, scale),
            Wall::Vm => vm_sample(sequence, scale),
        };
        sample.warmup = turn.warmup;
        walls[turn.wall as usize].samples.push(sample);
    }
    Record {
        schema: SCHEMA.into(),
        version: VERSION,
        lab: "0.1.0".into(),
        created: "2026-01-02T03:04:05Z".into(),
        reproduce: ["lab", "compare", "--runs", "8", "--seed", "42"].map(String::from).into(),
        ended: Ended::Complete,
        plan: Plan {
            image: "lab:latest".into(),
            digest: Some(format!("sha256:{}", "0123456789abcdef".repeat(4))),
            command: vec!["hello".into()],
            runs,
            seed,
            memory: None,
        },
        environment: Environment::synthetic(),
        walls: walls.into(),
        summary: None,
    }
}

fn wall(wall: Wall, obtained: Obtained) -> WallRecord {
    let mib = 1 << 20;
    let (kernel, memory) = match wall {
        Wall::Container => ("6.18.0", 1),
        Wall::Vm => ("6.1.0-lean", 40),
    };
    WallRecord {
        wall,
        obtained,
        unavailable: None,
        kernel: Some(KernelRecord { release: kernel.into(), origin: "synthetic".into(), digest: None }),
        samples: Vec::new(),
        memory: Some(Memory {
            instances: 3,
            failures: Vec::new(),
            available_drop: memory * 2 * mib,
            available_noise: mib / 4,
            processes: vec![ProcessMemory {
                role: "lab".into(),
                count: 1,
                pss: memory as u64 * mib as u64,
                private_dirty: memory as u64 * mib as u64 / 2,
                rss: memory as u64 * 3 * mib as u64,
            }],
            cgroup: Some(memory as u64 * mib as u64 / 4),
        }),
    }
}

/// The same, but with a wall that the machine does not have.
pub fn without(mut record: Record, wall: Wall) -> Record {
    for entry in record.walls.iter_mut().filter(|entry| entry.wall == wall) {
        entry.obtained = Obtained::Nothing;
        entry.unavailable = Some("/dev/kvm is missing".into());
        entry.samples.clear();
        entry.memory = None;
    }
    record
}
