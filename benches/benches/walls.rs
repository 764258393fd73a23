//! Both walls' whole runs beside their peers: the default image's `hello`, from the command to its exit.
//!
//! `cargo bench -p benches --bench walls -- [ROUNDS [VM_ROUNDS]]`; as root. A peer that is not installed is named as absent.
//! As in the bench `container`, everything runs in a mount namespace in which cgroups are version 2, without device rules.

mod peers;

use std::error::Error;
use std::process::Command;

use benches::cgroups::own_cgroups;
use benches::programs::{own, peer};
use benches::race::{Contender, print, race};
use peers::{bundle, peer_run};

/// The seed of every shuffle and resampling here, so that a run can be repeated in the same order.
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u32>().ok());
    let (rounds, vm_rounds) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(5));
    let lab = own("lab", "lab")?;
    println!("cgroups: {}", own_cgroups());
    let place = tempfile::tempdir()?;
    let run = |runtime: &'static str| {
        let (lab, home) = (lab.clone(), place.path().to_owned());
        Contender::new(format!("lab run --runtime {runtime}"), move |_| {
            let mut command = Command::new(&lab);
            command.args(["run", "--quiet", "--runtime", runtime, "lab", "hello"]).env("LAB_HOME", &home);
            command
        })
    };

    let mut contenders = vec![run("container")];
    let bundle = bundle(place.path())?;
    for name in ["crun", "runc"] {
        match peer(name) {
            Some(program) => contenders.push(peer_run(name, program, &bundle)),
            None => println!("{name}: absent (not in PATH)"),
        }
    }
    let laps = race(&mut contenders, rounds, SEED)?;
    print(&format!("containers, {rounds} interleaved runs"), &laps, "crun", SEED);

    let laps = race(&mut [run("container"), run("vm")], vm_rounds, SEED)?;
    print(&format!("both walls, {vm_rounds} interleaved runs"), &laps, "lab run --runtime container", SEED);
    Ok(())
}
