//! Runs what decides the claims.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::verdict::Sizes;
use super::{Gathered, Judged, SCHEMA, VERSION, judge};
use crate::image::{Image, Store, embedded};
use crate::kernel;
use crate::measure::inside::{self, View};
use crate::measure::plan::Wall;
use crate::measure::record::Record;
use crate::measure::session::{self, Progress, Request, WallRequest};
use crate::measure::walls::{self, Choice};

/// Measures through both walls and judges the claims. `interrupted` ends it early; claims without figures are then
/// undecided.
///
/// # Errors
/// Where not even one wall could be tried.
pub fn gather(
    runs: u32,
    seed: u64,
    kernel: Option<String>,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Judged, walls::Error> {
    let choice = Choice { kernel, accelerator: "auto".into(), with_memory: true, ..Choice::default() };
    let request = walls::request(&choice, runs, seed)?;
    let again = request.clone();
    let comparison = session::compare(request, interrupted, progress);
    let restored = restored(&again, &comparison, &choice, interrupted, progress);
    let view = |wall| view(&again, &comparison, wall, interrupted);
    let gathered = Gathered {
        restored,
        host: inside::host(),
        container: view(Wall::Container),
        vm: view(Wall::Vm),
        layers: open(&comparison.plan.image).map(|(_, image)| layers(&image)),
        sizes: sizes(&comparison.plan.image, choice.kernel.as_deref()),
        comparison,
    };
    Ok(Judged { schema: SCHEMA, version: VERSION, claims: judge(&gathered), gathered })
}

/// The same runs of the VM, but from a snapshot; the warm-up leaves the snapshot where there is none yet.
fn restored(
    request: &Request,
    comparison: &Record,
    choice: &Choice,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Option<Record> {
    if usable(comparison, Wall::Vm, interrupted).is_err() {
        return None;
    }
    let wall = request.walls.iter().find(|wall| wall.wall == Wall::Vm)?;
    let mut call = wall.call.clone().ok()?;
    call.options.push("--warm".into());
    call.idle = 0;
    let mut reproduce: Vec<String> = ["lab", "claims", "--runs"].map(Into::into).into();
    reproduce.push(request.plan.runs.to_string());
    reproduce.extend(choice.kernel.iter().flat_map(|name| ["--kernel".to_owned(), name.clone()]));
    let warm = Request {
        plan: request.plan.clone(),
        walls: vec![WallRequest { call: Ok(call), ..wall.clone() }],
        reproduce,
    };
    Some(session::compare(warm, interrupted, progress))
}

/// What a workload behind this wall sees.
fn view(
    request: &Request,
    comparison: &Record,
    wall: Wall,
    interrupted: &AtomicBool,
) -> Result<View, String> {
    usable(comparison, wall, interrupted)?;
    let asked = request.walls.iter().find(|asked| asked.wall == wall).ok_or("it was not asked for")?;
    inside::look(asked.call.as_ref().map_err(Clone::clone)?, interrupted)
}

/// A wall that the comparison could not use is not tried again, nor anything after the user has stopped it.
fn usable(comparison: &Record, wall: Wall, interrupted: &AtomicBool) -> Result<(), String> {
    if interrupted.load(Ordering::Relaxed) {
        return Err("stopped by the user".into());
    }
    match comparison.wall(wall).and_then(|record| record.unavailable.clone()) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// The image, and the store that it lies in.
fn open(image: &str) -> Result<(Store, Image), String> {
    let store = Store::open_default().map_err(|error| error.to_string())?;
    embedded::ensure(&store).map_err(|error| error.to_string())?;
    let image = store.resolve(image).map_err(|error| error.to_string())?;
    Ok((store, image))
}

fn layers(image: &Image) -> u64 {
    image.layers().iter().map(|layer| layer.size).sum()
}

/// The sizes of the files that the walls run from. The disk is built where it is not there yet.
fn sizes(image: &str, choice: Option<&str>) -> Result<Sizes, String> {
    let (store, image) = open(image)?;
    let kernel = kernel::resolve(choice).map_err(|error| error.to_string())?;
    let kernel = kernel.ok_or("no guest kernel yet; make one with: lab kernel build")?;
    let disk = store.root_disk(&image, &()).map_err(|error| error.to_string())?;
    let size = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(format!("look at {}: {error}", path.display())),
    };
    let modules: u64 = kernel.module_files.iter().map(|path| size(path)).sum::<Result<_, _>>()?;
    Ok(Sizes { layers: layers(&image), disk: size(&disk.path)?, kernel: kernel.size + modules })
}
