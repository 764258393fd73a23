//! Do sandboxes share what they read?

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, SeedableRng as _};

use super::{LIMIT, available};
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{STOPPED, Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, VM, Way};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::{Call, Running};
use crate::measure::memory::of_sandboxes;

/// The experiment.
pub struct Sharing;

static ABOUT: About = About {
    name: "sharing",
    question: "Does a second sandbox that reads the same file of the image need memory for it again?",
    method: "An image with a file of 16 MiB of noise (4 in the short form) is built. Sandboxes are started that read it all and then idle. The drop of \
             MemAvailable from the first to the last, by their number less one, is what a further reader takes; the growth of Cached \
             is told beside it, and the PSS of one reader's processes, which other programs on the machine do not disturb.",
    blind_spot: "Containers read through one page cache, which MemAvailable counts as memory that could be given out. A guest's \
                 page cache is memory in use for its host, though the guest would give it up. Kernel same-page merging (ksm) could find the equal \
                 pages; whether it runs is told.",
    papers: &[Paper {
        source: "Arcangeli, Eidus, Wright, Linux Symposium 2009 (KSM)",
        says: "52 guests of 1 GB on a host with 16 GB, by merging equal pages",
        line: None,
    }],
};

/// Mebibytes of noise, in the short form and in the long: an interpreted guest reads but one or two a second.
const MIB: (usize, usize) = (4, 16);
const IMAGE: &str = "lab-bench-sharing";
const READY: &[u8] = b"ready\n";

impl Experiment for Sharing {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("next", "memory of a further reader", Unit::Bytes),
                Metric::less("pss", "PSS of a reader", Unit::Bytes),
                Metric::shown("cached", "growth of Cached for it", Unit::Bytes),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[CONTAINER, VM])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 4 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        let Some(Way::Lab { program, .. }) = &subject.way else {
            return Err("it takes the lab's own walls".into());
        };
        let mib = if site.quick { MIB.0 } else { MIB.1 };
        let built = Built::new(program, site.scratch, mib)?;
        let script = "cat /data >/dev/null; cat";
        let mut call = subject.call(&["--interactive"], &["sh", "-c", script])?;
        // The image is the first word after the options.
        if let Some(image) = call.after.first_mut() {
            *image = IMAGE.into();
        }
        let seen = readers(site, &call, if site.quick { 2 } else { 4 });
        drop(built);
        seen
    }
}

fn readers(site: &Site<'_>, call: &Call, count: usize) -> Result<Seen, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut seen = seen_of(call);
    let mut alive: Vec<(Running, std::process::ChildStdin)> = Vec::new();
    let mut first = (0.0, 0.0);
    for number in 0..count {
        let mut running = call.spawn(std::process::Stdio::piped()).map_err(told)?;
        let mut stdin = running.stdin().ok_or("no standard input")?;
        let _ = stdin.write_all(READY);
        if !running.says(READY, LIMIT, site.interrupted).map_err(told)? {
            drop(stdin);
            let finished = running.finish(LIMIT, site.interrupted).map_err(told)?;
            return Err(if finished.stopped.is_some() {
                STOPPED.into()
            } else {
                finished.last_words().into()
            });
        }
        alive.push((running, stdin));
        if number == 0 {
            first = memory()?;
        }
    }
    let last = memory()?;
    let roots: Vec<_> = alive.iter().map(|(running, _)| running.pid()).collect();
    seen.value("pss", of_sandboxes(&roots).0.iter().map(|process| process.pss).sum::<u64>() as f64);
    let further = count.saturating_sub(1).max(1) as f64;
    seen.value("next", (first.0 - last.0) / further);
    seen.value("cached", (last.1 - first.1) / further);
    let ksm = fs::read_to_string("/sys/kernel/mm/ksm/run").map(|text| text.trim() == "1");
    seen.fact(
        "ksm",
        match ksm {
            Ok(true) => "runs",
            Ok(false) => "off",
            Err(_) => "not in this kernel",
        },
    );
    for (running, stdin) in alive {
        drop(stdin);
        running.finish(LIMIT, site.interrupted).map_err(told)?;
    }
    Ok(seen)
}

/// `MemAvailable` and `Cached` now.
fn memory() -> Result<(f64, f64), String> {
    use procfs::Current;
    let available = available().ok_or("the kernel does not tell MemAvailable")?;
    let cached = procfs::Meminfo::current().map_err(|error| error.to_string())?.cached;
    Ok((available as f64, cached as f64))
}

/// The image with the file, until dropped.
struct Built<'a>(&'a Path);

impl<'a> Built<'a> {
    fn new(program: &'a Path, scratch: &Path, mib: usize) -> Result<Self, String> {
        let folder = scratch.join("sharing");
        let told = |error: std::io::Error| format!("write {}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(told)?;
        let mut noise = vec![0; mib << 20];
        // No file system and no merging of pages within the file can make it smaller.
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        File::create(folder.join("data")).and_then(|mut file| file.write_all(&noise)).map_err(told)?;
        fs::write(folder.join("Dockerfile"), "FROM lab\nCOPY data /data\n").map_err(told)?;
        let mut build = Command::new(program);
        build.args(["build", "--quiet", "--tag", IMAGE]).arg(&folder);
        let output = build.output().map_err(|error| format!("start lab build: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(said.lines().next_back().unwrap_or("lab build failed").to_owned());
        }
        Ok(Self(program))
    }
}

impl Drop for Built<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(["image", "rm", "--force", IMAGE]).output();
    }
}
