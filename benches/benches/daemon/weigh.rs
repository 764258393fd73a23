//! Memory: what an engine's processes hold, idle and for each container that runs.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use super::engines::{Engine, Failure, IMAGE};

/// Proportional set size and private dirty memory in kB, of all processes of one name.
#[derive(Clone, Copy, Default)]
struct Weight {
    count: usize,
    pss: u64,
    dirty: u64,
}

/// Prints the weight of the daemons, and of what stands beside each of `count` idle containers.
pub fn weigh(engines: &[&Engine], count: usize) -> Result<(), Failure> {
    println!("\nmemory, /proc/PID/smaps_rollup, after the races above");
    println!("{:<34} {:>6} {:>12} {:>16}", "", "count", "PSS kB each", "private dirty kB");
    for engine in engines {
        let idle = of_engine(engine);
        for (name, weight) in &idle {
            line(&format!("{}: {name}, idle", engine.name), *weight);
        }
        for _ in 0..count {
            engine.says(&["run", "-d", "--network", "none", IMAGE, "sleep", "3600"])?;
        }
        for (name, weight) in of_engine(engine) {
            if name != "sleep" && weight.count > 1 {
                line(&format!("{}: {name} of a container", engine.name), weight);
            }
        }
        engine.remove_all()?;
    }
    Ok(())
}

fn line(what: &str, weight: Weight) {
    let count = weight.count.max(1) as u64;
    println!("{what:<34} {:>6} {:>12} {:>16}", weight.count, weight.pss / count, weight.dirty / count);
}

/// The processes of an engine by their names: its own, their children, and those that know its folder.
fn of_engine(engine: &Engine) -> BTreeMap<String, Weight> {
    let mut parents: HashMap<u32, u32> = HashMap::new();
    let mut own: Vec<u32> = vec![engine.pid()];
    let home = engine.home.to_string_lossy().into_owned();
    for pid in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
        };
        let stat = read("stat");
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        parents.insert(pid, parent.unwrap_or(0));
        if read("environ").contains(&home) || read("cmdline").contains(&home) {
            own.push(pid);
        }
    }
    let is_own = |pid: u32| {
        let mut at = pid;
        while at > 1 {
            if own.contains(&at) {
                return true;
            }
            at = parents.get(&at).copied().unwrap_or(0);
        }
        false
    };
    let mut weights: BTreeMap<String, Weight> = BTreeMap::new();
    for &pid in parents.keys().filter(|&&pid| is_own(pid)) {
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // The monitor goes by the name of its program; what it does is told by its arguments.
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let second = words.split(|&byte| byte == 0).nth(1).unwrap_or_default();
        let name = if second == b"monitor" { "monitor".to_owned() } else { name.trim().to_owned() };
        let weight = weights.entry(name).or_default();
        weight.count += 1;
        weight.pss += field("Pss:");
        weight.dirty += field("Private_Dirty:");
    }
    weights
}
