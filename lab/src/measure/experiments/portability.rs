//! What has to be carried to another machine, and how long until it runs there?

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lab_clock::now;

use super::LIMIT;
use crate::image::{Reference, Store};
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, DISK, QEMU, VM, Way, command_line};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::Call;
use crate::measure::phases::milliseconds;

/// The experiment.
pub struct Portability;

static ABOUT: About = About {
    name: "portability",
    question: "How large is what has to be carried to another machine, and how long until it runs there?",
    method: "The image is saved as an OCI archive, as `lab save` does. A machine that has nothing but the lab is played by an empty data folder: the \
             archive is copied there, loaded and run. A VM takes its kernel along and makes its root disk from the archive. \
             The bootable disk is what `lab image disk` writes, kernel and files in one: it is copied and booted in QEMU, which emulates \
             (TCG) on every machine.",
    blind_spot: "The copy is from disk to disk of one machine: a network's time is the size by its rate. The default image is tiny; \
                 a large application drowns the kernel's size. An image for a container runs only where its kernel's system calls \
                 are, a VM's wherever its processor is. The disk's boot is an emulated processor's; what it carries is what counts.",
    papers: &[Paper {
        source: "Manco and others, LightVM, SOSP 2017",
        says: "images of guests: a unikernel 480 kB, a minimal Linux (Tinyx) 9.5 MB, a Debian 1.1 GB",
        line: None,
    }],
};

impl Experiment for Portability {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("size", "to be carried", Unit::Bytes),
                Metric::shown("disk", "of that, or made there: root disk", Unit::Bytes),
                Metric::less("copy", "copy", Unit::Milliseconds),
                Metric::less("load", "load, unpack", Unit::Milliseconds),
                Metric::less("run", "first run there, to its end", Unit::Milliseconds),
                Metric::less("total", "in all", Unit::Milliseconds),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[CONTAINER, VM, DISK])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 5 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        if case.subject == DISK {
            return disk(site);
        }
        let Some(Way::Lab { program, .. }) = &subject.way else {
            return Err("it takes the lab's own walls".into());
        };
        let place = Place::new(site.scratch)?;
        let (archive, disk) = save(&place, case.subject == VM)?;
        let kernel = if case.subject == VM { Some(kernel()?) } else { None };
        let mut seen = seen_of(&subject.call(&[], &["hello"])?);
        let carried: Vec<&Path> =
            std::iter::once(archive.as_path()).chain(kernel.iter().flatten().map(PathBuf::as_path)).collect();
        let size: u64 =
            carried.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum();
        seen.value("size", size as f64);
        if let Some(disk) = disk {
            seen.value("disk", disk as f64);
        }

        let begun = now();
        for path in &carried {
            let name = path.file_name().unwrap_or_default();
            fs::copy(path, place.0.join("there").join(name))
                .map_err(|error| format!("copy {}: {error}", path.display()))?;
        }
        let copied = now();
        let there = |mut call: Call| {
            let home = format!("LAB_HOME={}", place.0.join("there/home").display());
            call.before.splice(0..0, [home.into(), call.program.clone().into()]);
            call.program = "/usr/bin/env".into();
            call
        };
        let load = Call {
            program: program.clone(),
            before: ["image", "load"].map(Into::into).into(),
            marks: false,
            after: vec![place.0.join("there/image.tar").into()],
        };
        site.finish(&there(load), LIMIT)?;
        let loaded = now();
        let run = there(subject.call(&[], &["hello"])?);
        let running = run.spawn(Stdio::null()).map_err(|error| told(&run, &error))?;
        let finished = running.finish(LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        if !finished.status.success() {
            return Err(finished.last_words().to_owned());
        }
        seen.value("copy", milliseconds(begun, copied));
        seen.value("load", milliseconds(copied, loaded));
        seen.value("run", milliseconds(finished.spawned, finished.ended));
        seen.value("total", milliseconds(begun, finished.ended));
        Ok(seen)
    }
}

/// The bootable disk, copied and booted.
fn disk(site: &Site<'_>) -> Result<Seen, String> {
    let place = Place::new(site.scratch)?;
    let store = Store::open_default().map_err(|error| error.to_string())?;
    let image = store.resolve(crate::image::embedded::NAME).map_err(|error| error.to_string())?;
    let kernel = kernel()?.into_iter().next().ok_or("there is no kernel")?;
    let (here, there) = (place.0.join("hello.img"), place.0.join("there/hello.img"));
    let mut file = File::create_new(&here).map_err(|error| format!("write {}: {error}", here.display()))?;
    let command = ["hello".to_owned()];
    let made =
        store.bootable(&image, &kernel, &command, &mut file, &()).map_err(|error| error.to_string())?;
    let begun = now();
    fs::copy(&here, &there).map_err(|error| format!("copy {}: {error}", here.display()))?;
    let copied = now();
    let program = crate::doctor::find_program(QEMU).ok_or_else(|| format!("not installed: {QEMU}"))?;
    let memory = (made.memory >> 20).to_string();
    let drive = |file: &str| format!("file={file},format=raw,if=ide");
    let options = [
        "-accel",
        "tcg",
        "-m",
        &memory,
        "-display",
        "none",
        "-serial",
        "stdio",
        "-monitor",
        "none",
        "-no-reboot",
    ];
    let call = |file: &str| {
        let before = options.iter().map(Into::into).chain(["-drive".into(), drive(file).into()]).collect();
        Call { program: program.clone(), before, marks: false, after: Vec::new() }
    };
    let finished = site.finish(&call(&there.display().to_string()), LIMIT)?;
    if !String::from_utf8_lossy(&finished.printed).contains("the workload ended with 0") {
        return Err("the disk did not come to the end of its workload".into());
    }
    let mut seen = Seen {
        command: format!("lab image disk -o hello.img lab hello; {}", command_line(&call("hello.img"))),
        ..Seen::default()
    };
    seen.value("size", made.size as f64);
    seen.value("copy", milliseconds(begun, copied));
    seen.value("load", 0.0);
    seen.value("run", milliseconds(finished.spawned, finished.ended));
    seen.value("total", milliseconds(begun, finished.ended));
    Ok(seen)
}

/// A folder for both machines, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(scratch: &Path) -> Result<Self, String> {
        let folder = scratch.join("portability");
        let _ = fs::remove_dir_all(&folder);
        let told = |error: std::io::Error| format!("make {}: {error}", folder.display());
        fs::create_dir_all(folder.join("there/home")).map_err(told)?;
        Ok(Self(folder))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Saves the default image; its root disk's size where that is asked for.
fn save(place: &Place, disk: bool) -> Result<(PathBuf, Option<u64>), String> {
    let store = Store::open_default().map_err(|error| error.to_string())?;
    let image = store.resolve(crate::image::embedded::NAME).map_err(|error| error.to_string())?;
    let name: Reference = crate::image::embedded::NAME.parse().map_err(|error| format!("{error}"))?;
    let archive = place.0.join("image.tar");
    let file = File::create(&archive).map_err(|error| format!("write {}: {error}", archive.display()))?;
    store.save(&[(image.clone(), vec![name])], &file).map_err(|error| error.to_string())?;
    let size = |path: &Path| fs::metadata(path).map(|meta| meta.len()).map_err(|error| error.to_string());
    if !disk {
        return Ok((archive, None));
    }
    let disk = store.root_disk(&image, &()).map_err(|error| error.to_string())?;
    Ok((archive, Some(size(&disk.path)?)))
}

/// The kernel's file and its modules.
fn kernel() -> Result<Vec<PathBuf>, String> {
    let kernel = crate::kernel::resolve(None).map_err(|error| error.to_string())?;
    let kernel = kernel.ok_or("no guest kernel yet; make one with: lab kernel build")?;
    Ok(std::iter::once(kernel.image).chain(kernel.module_files).collect())
}
