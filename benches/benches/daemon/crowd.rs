//! Many clients at once: none of their containers may be lost, and nothing may be left of them.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::engines::{Engine, Failure, IMAGE};

/// What goes on behind an answer may take so long to be over.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does `work` for each number below `count`, by so many threads.
pub fn at_once(
    count: u32,
    threads: u32,
    work: impl Fn(u32) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        let one = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            work(number)?;
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread died".into())))
    })
}

/// Starts `count` containers by `clients`, looks whether all run, removes them, and looks at what is left.
pub fn crowd(engine: &Engine, count: u32, clients: u32) -> Result<(), Failure> {
    let before = traces(engine)?;
    let begun = Instant::now();
    at_once(count, clients, |_| {
        engine.says(&["run", "-d", "--network", "none", IMAGE, "sleep", "3600"]).map(drop)
    })?;
    let started = begun.elapsed();
    let running = engine.says(&["ps", "-q"])?.lines().count();
    let during = traces(engine)?;
    let begun = Instant::now();
    engine.remove_all()?;
    let removed = begun.elapsed();
    println!("\n{count} containers by {clients} clients at once, through {}", engine.name);
    println!(
        "started in {:.2} s, {running} of {count} run; removed in {:.2} s",
        started.as_secs_f64(),
        removed.as_secs_f64()
    );
    if running != count as usize {
        return Err(format!("{} of {count} containers are lost", count as usize - running).into());
    }
    let begun = Instant::now();
    let mut after = traces(engine)?;
    while after != before && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(100));
        after = traces(engine)?;
    }
    println!("{:<12} {:>8} {:>8} {:>8}", "", "before", "running", "after");
    for (index, what) in ["processes", "mounts", "cgroups", "files"].iter().enumerate() {
        println!("{what:<12} {:>8} {:>8} {:>8}", before[index], during[index], after[index]);
    }
    if after == before { Ok(()) } else { Err("something is left behind".into()) }
}

/// Processes that know the engine's folder, mounts of this namespace, control groups of the lab's, files of containers.
fn traces(engine: &Engine) -> std::io::Result<[usize; 4]> {
    let home = engine.home.as_os_str().as_encoded_bytes();
    let knows = |path: &std::path::Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.windows(home.len()).any(|part| part == home)
    };
    let processes = fs::read_dir("/proc")?.flatten().filter(|entry| knows(&entry.path())).count();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let mut groups = 0;
    for hierarchy in
        fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()])
    {
        groups += fs::read_dir(hierarchy.join("lab"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count();
    }
    let count = |folder: &str| fs::read_dir(engine.home.join(folder)).into_iter().flatten().count();
    Ok([processes, mounts, groups, count("containers") + count("volumes")])
}
