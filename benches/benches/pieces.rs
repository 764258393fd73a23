//! The pieces of which both walls are made, each alone: namespaces, mounts, control groups, filters of system calls, page faults, exits, a
//! virtqueue, unpacking. `cargo bench -p benches --bench pieces`; criterion keeps the last run and says what changed since, so that two
//! commits can be compared: `-- --save-baseline NAME`, then `-- --baseline NAME`.
//!
//! What cannot be tried here (no root, no /dev/kvm) is skipped, and says so.

#[path = "pieces/exits.rs"]
mod exits;
#[path = "pieces/filters.rs"]
mod filters;
#[path = "pieces/queue.rs"]
mod queue;

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use lab::image::{Store, embedded};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const NOTHING: Option<&str> = None;

/// Each flag of unshare(2) in a thread of its own, which takes the namespace along when it ends; `none` is that thread alone.
fn namespaces(criterion: &mut Criterion) {
    let mut group = group(criterion, "namespace");
    let flags = [
        ("none", CloneFlags::empty()),
        ("mount", CloneFlags::CLONE_NEWNS),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("network", CloneFlags::CLONE_NEWNET),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        (
            "all of a container",
            CloneFlags::CLONE_NEWNS
                .union(CloneFlags::CLONE_NEWUTS)
                .union(CloneFlags::CLONE_NEWIPC)
                .union(CloneFlags::CLONE_NEWPID)
                .union(CloneFlags::CLONE_NEWNET)
                .union(CloneFlags::CLONE_NEWCGROUP),
        ),
    ];
    for (name, flags) in flags {
        let unshared = || thread::spawn(move || unshare(flags)).join().is_ok_and(|result| result.is_ok());
        if !unshared() {
            eprintln!("SKIPPED namespace/{name} (unshare is refused: not root?)");
            continue;
        }
        group.bench_function(name, |bencher| bencher.iter(|| black_box(unshared())));
    }
}

/// A tmpfs mounted and unmounted, and /proc, in a mount namespace of the bench's own.
fn mounts(criterion: &mut Criterion) {
    let mut group = group(criterion, "mount and unmount");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path();
    // This thread's, from here on: nothing that comes later minds.
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    let own = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| mount(NOTHING, "/", NOTHING, private, NOTHING));
    for kind in ["tmpfs", "proc"] {
        let once = || {
            mount(Some(kind), place, Some(kind), MsFlags::empty(), NOTHING)
                .and_then(|()| umount2(place, MntFlags::MNT_DETACH))
        };
        match own.and_then(|()| once()) {
            Ok(()) => {
                group.bench_function(kind, |bencher| bencher.iter(|| black_box(once())));
            }
            Err(error) => eprintln!("SKIPPED mount/{kind} ({error})"),
        }
    }
}

/// A control group made, limited and removed: the pids controller of whichever version is there.
fn control_groups(criterion: &mut Criterion) {
    let mut group = group(criterion, "cgroup");
    let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
    let name = format!("lab-pieces-{}", std::process::id());
    let Some(parent) = parents.into_iter().find(|parent| {
        let own = parent.join(&name);
        let has_limit = fs::create_dir(&own).is_ok() && own.join("pids.max").exists();
        let _ = fs::remove_dir(&own);
        has_limit
    }) else {
        eprintln!("SKIPPED cgroup (no pids controller that may be used)");
        return;
    };
    let own = parent.join(&name);
    group.bench_function("make and remove", |bencher| {
        bencher.iter(|| fs::create_dir(&own).and_then(|()| fs::remove_dir(&own)));
    });
    if fs::create_dir(&own).is_ok() {
        let limit = own.join("pids.max");
        group.bench_function("write a limit", |bencher| bencher.iter(|| fs::write(&limit, "64")));
        let _ = fs::remove_dir(&own);
    }
}

/// The first touch of a page on the host; behind a VM's wall, `lab bench faults` measures it from inside.
fn page_faults(criterion: &mut Criterion) {
    const PAGES: usize = 256;
    let mut group = group(criterion, "page");
    group.bench_function("first touch, 256 pages", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                // Above the allocator's threshold, so that it is mapped anew each time (mallopt(3), M_MMAP_THRESHOLD).
                let mut memory: Vec<u8> = vec![0; PAGES << 12];
                let begun = Instant::now();
                memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                total += begun.elapsed();
                black_box(&memory);
            }
            total
        });
    });
}

/// The default image unpacked into an empty store.
fn layers(criterion: &mut Criterion) {
    let mut group = group(criterion, "image");
    group.bench_function("store and unpack the default image", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir().expect("a temporary folder"),
            |folder| {
                let store = Store::open(folder.path()).expect("a store");
                embedded::ensure(&store).expect("the default image");
                let image = store.resolve(embedded::NAME).expect("the default image");
                black_box(store.layer_dirs(&image, &()).expect("its layer"));
                folder
            },
            criterion::BatchSize::PerIteration,
        );
    });
}

/// Short enough for all of it to be run between two commits.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    group
}

criterion_group!(
    pieces,
    namespaces,
    mounts,
    control_groups,
    filters::loading,
    page_faults,
    exits::by_kind,
    queue::operations,
    layers
);
criterion_main!(pieces);
