//! Building the lean kernel: unpack, patch, configure, compile, keep.
//!
//! Each step leaves what the next call can go on from: the unpacked tree appears whole or not at all, make keeps what it
//! compiled, and the finished kernel enters the cache by one rename.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::{self, Meta, Origin};
use super::recipe::{self, PATCHES, Processors, SYSCALL_PATCH};
use super::source::{self, Source};
use super::{Error, Event, Kernel, Listener, fragment, packages};

/// Object files of a build, counted with Linux 6.1. Another version has some more or fewer; the bar takes it.
const OBJECTS: u64 = 1180;

/// What a build came to.
#[derive(Debug)]
pub struct Built {
    /// The kernel.
    pub kernel: Kernel,
    /// It was there already.
    pub cached: bool,
}

/// Builds the lean kernel from the archive, or from the newest source package, unless the cache has it.
///
/// `interrupted` is looked at between steps and while files are read; whoever sets it (on Ctrl-C, which reaches the
/// compilers as well) gets [`Error::Interrupted`], and the next call goes on.
///
/// # Errors
/// What is missing, or the step that failed with its first message.
pub fn build(
    archive: Option<&Path>,
    interrupted: &AtomicBool,
    listener: Listener<'_>,
) -> Result<Built, Error> {
    let source = match archive {
        Some(path) => Source::at(path)?,
        None => source::find().ok_or(Error::NoSource)?,
    };
    let compiler = compiler()?;
    let processors = Processors::of_this_machine();
    let hash = recipe::hash(&source.version, &compiler, processors);
    let kernels = cache::folder()?;
    fs::create_dir_all(&kernels).map_err(Error::file("make the folder", &kernels))?;
    let _lock = lock(&kernels)?;
    if let Some(kernel) = cache::load(&kernels.join(&hash))? {
        return Ok(Built { kernel, cached: true });
    }

    let work = kernels.join(format!(".build-{hash}"));
    fs::create_dir_all(&work).map_err(Error::file("make the folder", &work))?;
    let tree = work.join("tree");
    let left_out = source::unpack(&source, PATCHES, &tree, interrupted, listener)?;
    for name in &left_out {
        listener(Event::Step(&format!("left out: patch {name} does not fit this source")));
    }
    listener(Event::Step("configuring"));
    let config = configure(&work, &tree, &processors.fragment())?;
    listener(Event::Step("compiling"));
    compile(&work, &tree, interrupted, listener)?;

    let release = fs::read_to_string(tree.join("include/config/kernel.release"))
        .map_err(Error::file("read include/config/kernel.release in", &tree))?;
    let meta = Meta {
        name: "lean".to_owned(),
        origin: Origin::Built,
        release: release.trim().to_owned(),
        source: source.version,
        compiler: Some(compiler),
        recipe: Some(recipe::own()),
        works_without_vtx: !left_out.iter().any(|name| name == SYSCALL_PATCH),
        patches_left_out: left_out,
        modules: Vec::new(),
    };
    let kernel = cache::install(&kernels, &hash, &meta, &tree.join("vmlinux"), Some(&config))?;
    fs::remove_dir_all(&work).map_err(Error::file("remove", &work))?;
    Ok(Built { kernel, cached: false })
}

/// The compiler's version: another compiler makes another kernel.
fn compiler() -> Result<String, Error> {
    let text = packages::output("gcc", &["--version"]).unwrap_or_default();
    text.lines().next().map(str::to_owned).ok_or_else(|| Error::Program {
        program: "gcc",
        package: "gcc",
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// One build at a time: two would compile in the same tree.
pub(super) fn lock(kernels: &Path) -> Result<File, Error> {
    let path = kernels.join(".lock");
    let file = File::create(&path).map_err(Error::file("open", &path))?;
    file.try_lock().map_err(|_| Error::Busy(kernels.to_owned()))?;
    Ok(file)
}

/// A make in the tree, with the same words and names on every machine.
fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .current_dir(tree)
        .env("LC_ALL", "C")
        // Settings of an outer make or of the user must not leak into the kernel.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("ARCH")
        .env_remove("CROSS_COMPILE")
        .env("KBUILD_BUILD_USER", "lab")
        .env("KBUILD_BUILD_HOST", "lab")
        .stdin(Stdio::null());
    command
}

fn no_make(source: std::io::Error) -> Error {
    Error::Program { program: "make", package: "make", source }
}

/// Makes `.config`: everything off but the fragment (KCONFIG_ALLCONFIG, Documentation/kbuild/kconfig.rst), and what
/// that needs. Then every line of the fragment must be found in it.
fn configure(work: &Path, tree: &Path, options: &str) -> Result<PathBuf, Error> {
    let wanted = work.join("fragment");
    fs::write(&wanted, options).map_err(Error::file("write", &wanted))?;
    let log = work.join("configure.log");
    let output = make(tree).arg("allnoconfig").env("KCONFIG_ALLCONFIG", &wanted).output().map_err(no_make)?;
    fs::write(&log, [output.stdout, output.stderr].concat()).map_err(Error::file("write", &log))?;
    if !output.status.success() {
        return Err(Error::Failed { step: "configuring the kernel", message: first_error(&log), log });
    }
    let config = tree.join(".config");
    let text = fs::read_to_string(&config).map_err(Error::file("read", &config))?;
    let settings = fragment::parse(options).map_err(|line| Error::NotTaken { options: line })?;
    let missed: Vec<_> =
        fragment::not_taken(&settings, &text).into_iter().map(|setting| setting.option.as_str()).collect();
    if !missed.is_empty() {
        return Err(Error::NotTaken { options: missed.join(", ") });
    }
    Ok(config)
}

/// Runs make, and tells how many of the object files are there.
fn compile(work: &Path, tree: &Path, interrupted: &AtomicBool, listener: Listener<'_>) -> Result<(), Error> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let log = work.join("make.log");
    let errors = File::create(&log).map_err(Error::file("write", &log))?;
    let mut done = count_objects(tree);
    listener(Event::Progress { done, total: OBJECTS.max(done) });
    let mut child = make(tree)
        .args([&format!("-j{jobs}"), "vmlinux"])
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(no_make)?;
    for line in
        child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok)
    {
        if is_object(&line) {
            done += 1;
            listener(Event::Progress { done: done.min(OBJECTS), total: OBJECTS });
        }
    }
    let status = child.wait().map_err(Error::file("wait for make in", tree))?;
    if status.success() {
        listener(Event::Progress { done: OBJECTS, total: OBJECTS });
        return Ok(());
    }
    // Ctrl-C goes to make as well, which removes the file it was making and ends.
    if interrupted.load(Ordering::Relaxed) || status.signal() == Some(nix::libc::SIGINT) {
        return Err(Error::Interrupted);
    }
    Err(Error::Failed { step: "compiling the kernel", message: first_error(&log), log })
}

/// A line of make's that announces an object file: `  CC      init/main.o`.
fn is_object(line: &str) -> bool {
    line.strip_prefix("  ").and_then(|rest| rest.strip_suffix(".o")).is_some()
}

/// How many object files an earlier call left.
fn count_objects(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_objects(&entry.path()),
            Ok(kind) if kind.is_file() => {
                u64::from(entry.path().extension().is_some_and(|suffix| suffix == "o"))
            }
            _ => 0,
        })
        .sum()
}

/// The first line of a log that tells of an error, else its last.
fn first_error(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let found = lines
        .clone()
        .find(|line| line.contains("error") || line.contains("not found") || line.contains("***"));
    found.or_else(|| lines.next_back()).unwrap_or("it says nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_announce_an_object_count() {
        assert!(is_object("  CC      init/main.o"));
        assert!(is_object("  AS      arch/x86/lib/memcpy_64.o"));
        for other in
            ["  SYNC    include/config/auto.conf", "init/main.c:3: warning: x.o", "  LD      vmlinux"]
        {
            assert!(!is_object(other), "{other}");
        }
    }

    #[test]
    fn a_continued_build_starts_its_bar_at_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        for file in ["kernel/fork.o", "kernel/exit.o", "kernel/fork.c", "vmlinux.o"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(count_objects(folder.path()), 3);
    }

    #[test]
    fn a_failed_build_is_told_by_its_first_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "a.c:1: warning: odd\n/bin/sh: 1: bison: not found\nmake: *** [x] Error 127\n")
            .unwrap();
        assert_eq!(first_error(&log), "/bin/sh: 1: bison: not found");
    }
}
