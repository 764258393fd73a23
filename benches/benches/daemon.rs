//! `lab daemon` beside dockerd, and `lab run` beside podman and the runtime alone: speed, memory, a crowd of clients, and
//! the unpacking of a large image.
//!
//! `cargo bench -p benches --bench daemon -- [WORD=NUMBER...]`; as root. The words and their defaults are `rounds=40`,
//! `many=500` (containers that `docker ps` lists), `crowd=200` (started by 20 clients), `megabytes=500` (the image), and
//! 0 leaves a part out. What is not installed is named as absent. As in the other benches,
//! everything runs in a mount namespace in which cgroups are version 2. Nothing is asserted about a time; a container that is
//! lost, or anything that is left behind, is an error.

#[path = "daemon/crowd.rs"]
mod crowd;
#[path = "daemon/engines.rs"]
mod engines;
#[path = "daemon/load.rs"]
mod load;
#[path = "daemon/weigh.rs"]
mod weigh;

use std::path::Path;
use std::process::Command;

use benches::cgroups::own_cgroups;
use benches::programs::{own, peer};
use benches::race::{Contender, print, race};
use engines::{Engine, Failure};
use lab::image::{Store, embedded};

/// The seed of every shuffle and resampling here, so that a run can be repeated in the same order.
const SEED: u64 = 1;

fn main() -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED (needs root)");
        return Ok(());
    }
    let Some(docker) = peer("docker") else {
        println!("SKIPPED (needs the docker client; install the package docker.io)");
        return Ok(());
    };
    let rounds = number("rounds", 40);
    let lab = own("lab", "lab")?;
    let runtime = own("container", "lab-container")?;
    println!("cgroups: {}", own_cgroups());
    let place = tempfile::tempdir()?;
    let archive = image(place.path())?;
    let ours = Engine::lab(&lab, &docker, place.path(), &archive)?;
    let theirs = if peer("dockerd").is_some() {
        Some(Engine::dockerd(&docker, place.path(), &archive)?)
    } else {
        println!("dockerd: absent (not in PATH)");
        None
    };
    let both: Vec<&Engine> = std::iter::once(&ours).chain(&theirs).collect();

    if rounds > 0 {
        races(&both, rounds, place.path(), &lab, &runtime)?;
    }
    weigh::weigh(&both, 20)?;
    let many = number("many", 500);
    if many > 0 {
        list(&both, many, rounds.max(10))?;
    }
    let crowd = number("crowd", 200);
    if crowd > 0 {
        crowd::crowd(&ours, crowd, 20)?;
    }
    let megabytes = number("megabytes", 500);
    if megabytes > 0 {
        load::load(&lab, place.path(), u64::from(megabytes))?;
    }
    Ok(())
}

/// The number that follows `word=` on the command line.
fn number(word: &str, default: u32) -> u32 {
    let given = std::env::args().find_map(|argument| {
        argument.strip_prefix(word)?.strip_prefix('=').and_then(|text| text.parse().ok())
    });
    given.unwrap_or(default)
}

/// The default image as an archive that every engine loads.
fn image(place: &Path) -> Result<std::path::PathBuf, Failure> {
    let store = Store::open(&place.join("images"))?;
    embedded::ensure(&store)?;
    let archive = place.join("image.tar");
    let file = std::fs::File::create(&archive)?;
    store.save(&[(store.resolve(embedded::NAME)?, vec![engines::IMAGE.parse()?])], &file)?;
    Ok(archive)
}

/// Whole commands of the same client against each engine; and the lab without a daemon beside the runtime alone.
fn races(engines: &[&Engine], rounds: u32, place: &Path, lab: &Path, runtime: &Path) -> Result<(), Failure> {
    let base = engines.last().map(|engine| engine.name).unwrap_or_default();
    let words = ["run", "--rm", "--network", "none", engines::IMAGE, "hello"];
    let mut contenders: Vec<Contender> = engines.iter().map(|engine| engine.contender(&words)).collect();
    if let Some(podman) = peer("podman") {
        contenders.push(engines::podman(&podman, place)?);
    } else {
        println!("podman: absent (not in PATH)");
    }
    let laps = race(&mut contenders, rounds, SEED)?;
    print(&format!("docker run --rm --network none, {rounds} interleaved runs"), &laps, base, SEED);

    for engine in engines {
        engine.says(&[
            "run",
            "-d",
            "--name",
            "target",
            "--network",
            "none",
            engines::IMAGE,
            "sleep",
            "3600",
        ])?;
    }
    let mut contenders: Vec<Contender> =
        engines.iter().map(|engine| engine.contender(&["exec", "target", "hello"])).collect();
    let laps = race(&mut contenders, rounds, SEED)?;
    print(&format!("docker exec, {rounds} interleaved runs"), &laps, base, SEED);
    for engine in engines {
        engine.says(&["rm", "-f", "target"])?;
    }

    let bundle = engines::bundle(place)?;
    let (home, lab, runtime) = (place.join("own"), lab.to_owned(), runtime.to_owned());
    let state = place.join("runtime");
    let mut contenders = [
        Contender::new("lab run", move |_| {
            let mut command = Command::new(&lab);
            command.args(["run", "--quiet", "lab", "hello"]).env("LAB_HOME", &home);
            command
        }),
        Contender::new("lab-container run", move |number| {
            let mut command = Command::new(&runtime);
            command
                .arg("--root")
                .arg(&state)
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(format!("b{number}"));
            command
        }),
    ];
    let laps = race(&mut contenders, rounds, SEED)?;
    print(&format!("without a daemon, {rounds} interleaved runs"), &laps, "lab-container run", SEED);
    Ok(())
}

/// `docker ps -a` where there are many containers.
fn list(engines: &[&Engine], many: u32, rounds: u32) -> Result<(), Failure> {
    for engine in engines {
        crowd::at_once(many, 20, |number| {
            let name = format!("many-{number}");
            engine.says(&["create", "--name", &name, "--network", "none", engines::IMAGE, "hello"]).map(drop)
        })?;
        let listed = engine.says(&["ps", "-aq"])?.lines().count();
        if listed != many as usize {
            return Err(format!("{} lists {listed} of {many} containers", engine.name).into());
        }
    }
    let mut contenders: Vec<Contender> =
        engines.iter().map(|engine| engine.contender(&["ps", "-a"])).collect();
    let mut client = Contender::new("the client alone", {
        let docker = engines[0].docker.clone();
        move |_| {
            let mut command = Command::new(&docker);
            command.arg("--version");
            command
        }
    });
    client.name = "the client alone (--version)".into();
    contenders.push(client);
    let laps = race(&mut contenders, rounds, SEED)?;
    let base = engines.last().map(|engine| engine.name).unwrap_or_default();
    print(&format!("docker ps -a with {many} containers, {rounds} interleaved runs"), &laps, base, SEED);
    for engine in engines {
        engine.remove_all()?;
    }
    Ok(())
}
