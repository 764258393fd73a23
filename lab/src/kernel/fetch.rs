//! The distribution's own kernel: its packages downloaded and unpacked into the cache, nothing installed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::{self, Meta, Origin};
use super::modules::{FOR_GUEST, Index};
use super::{Built, Error, Event, Listener, build, packages, recipe};

/// The packages that stand for "the current kernel", best for a guest first: Debian's and Ubuntu's for clouds, then
/// their general ones. With each, the name that the kernel goes by in the cache.
const FLAVOURS: &[(&str, &str)] = &[
    ("linux-image-cloud-amd64", "cloud"),
    ("linux-image-virtual", "virtual"),
    ("linux-image-amd64", "generic"),
    ("linux-image-generic", "generic"),
];

/// Without these a guest has no root file system and no channel.
const NEEDED: &[&str] = &["virtio_mmio", "virtio_blk", "virtio_console", "overlay"];

/// Downloads the distribution's kernel unless the cache has it. `flavour` is one of the names in the cache (`cloud`,
/// `virtual`, `generic`); without it, the first that the distribution offers.
///
/// # Errors
/// The package manager fails, or the packages do not hold what a guest needs.
pub fn fetch(
    flavour: Option<&str>,
    interrupted: &AtomicBool,
    listener: Listener<'_>,
) -> Result<Built, Error> {
    let (name, wanted) = FLAVOURS
        .iter()
        .filter(|(_, name)| flavour.is_none_or(|flavour| flavour == *name))
        .find_map(|&(package, name)| Some((name, kernel_packages(package)?)))
        .ok_or_else(|| Error::NoStock(flavour.unwrap_or("kernel").to_owned()))?;
    let versions: Vec<_> = wanted.iter().map(|package| format!("{package}={}", candidate(package))).collect();
    let hash = recipe::digest(versions.iter().map(String::as_str));
    let kernels = cache::folder()?;
    fs::create_dir_all(&kernels).map_err(Error::file("make the folder", &kernels))?;
    let _lock = build::lock(&kernels)?;
    if let Some(kernel) = cache::load(&kernels.join(&hash))? {
        return Ok(Built { kernel, cached: true });
    }

    let work = kernels.join(format!(".fetch-{hash}"));
    cache::remove(&work)?;
    let root = work.join("root");
    fs::create_dir_all(&root).map_err(Error::file("make the folder", &root))?;
    let check = || if interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) };
    listener(Event::Step(&format!("downloading {}", wanted.join(" "))));
    run("apt-get", "apt", "downloading the kernel's packages", &work, |command| {
        command.arg("download").args(&wanted)
    })?;
    check()?;
    listener(Event::Step("unpacking"));
    for package in files_with(&work, ".deb")? {
        run("dpkg-deb", "dpkg", "unpacking the kernel's packages", &work, |command| {
            command.arg("--extract").arg(&package).arg(&root)
        })?;
        check()?;
    }
    let new = kernels.join(format!(".new-{hash}"));
    cache::remove(&new)?;
    let meta = assemble(&root, &new, name, &versions.join(", "))?;
    check()?;
    cache::write_meta(&new, &meta)?;
    let kernel = cache::publish(&kernels, &new, &hash)?;
    cache::remove(&work)?;
    Ok(Built { kernel, cached: false })
}

/// Picks out of the unpacked packages what the cache keeps: the kernel as it ships and unpacked, its configuration, and
/// the modules that a guest or the nested rig loads, decompressed.
fn assemble(root: &Path, new: &Path, name: &str, source: &str) -> Result<Meta, Error> {
    let boot = root.join("boot");
    let image = files_with(&boot, "")?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-")))
        .ok_or_else(|| Error::Incomplete { package: source.to_owned(), what: "boot/vmlinuz-*".to_owned() })?;
    let file_name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let release = file_name.trim_start_matches("vmlinuz-").to_owned();
    let folder = ["lib/modules", "usr/lib/modules"]
        .map(|place| root.join(place).join(&release))
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| Error::Incomplete {
            package: source.to_owned(),
            what: format!("lib/modules/{release}"),
        })?;

    let into = new.join("modules");
    fs::create_dir_all(&into).map_err(Error::file("make the folder", &into))?;
    let copy = |from: &Path, to: PathBuf| -> Result<(), Error> {
        fs::copy(from, &to).map(drop).map_err(Error::file("copy the kernel to", &to))
    };
    copy(&image, new.join("vmlinuz"))?;
    copy(&boot.join(format!("config-{release}")), new.join("config"))?;
    let vmlinux = new.join("vmlinux");
    let mut unpacked = microvm::loader::open_vmlinux(&image, None)?;
    let mut out = File::create(&vmlinux).map_err(Error::file("write", &vmlinux))?;
    io::copy(&mut unpacked, &mut out).map_err(Error::file("write", &vmlinux))?;

    let index = Index::read(&folder)?;
    if let Some(&missing) = NEEDED.iter().find(|name| !index.has(name)) {
        return Err(Error::Incomplete { package: source.to_owned(), what: format!("module {missing}") });
    }
    let guest = index.load_order(FOR_GUEST)?;
    for module in guest.iter().chain(&index.load_order(crate::rig::MODULES)?) {
        let path = into.join(format!("{}.ko", module.name));
        fs::write(&path, &module.bytes).map_err(Error::file("write", &path))?;
    }
    Ok(Meta {
        name: name.to_owned(),
        origin: Origin::Fetched,
        release,
        source: source.to_owned(),
        compiler: None,
        recipe: None,
        works_without_vtx: false,
        patches_left_out: Vec::new(),
        modules: guest
            .iter()
            .map(|module| Path::new("modules").join(format!("{}.ko", module.name)))
            .collect(),
    })
}

/// The packages with files behind a package that only depends on them: the image, and on Ubuntu its modules.
fn kernel_packages(meta: &str) -> Option<Vec<String>> {
    let image =
        dependencies(&packages::output("apt-cache", &["depends", meta])?).into_iter().find(|name| {
            name.strip_prefix("linux-image-")
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })?;
    let modules = dependencies(&packages::output("apt-cache", &["depends", &image])?)
        .into_iter()
        .filter(|name| name.starts_with("linux-modules-"));
    Some([image.clone()].into_iter().chain(modules).collect())
}

/// The names after `Depends:` in what `apt-cache depends` prints.
fn dependencies(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect()
}

/// The version that apt would download.
fn candidate(package: &str) -> String {
    let text = packages::output("apt-cache", &["policy", package]).unwrap_or_default();
    let found = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    found.unwrap_or_default().to_owned()
}

/// The files of a folder whose names end so.
fn files_with(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    Ok(files)
}

/// Runs a program in the folder, its output in a log beside.
fn run(
    program: &'static str,
    package: &'static str,
    step: &'static str,
    folder: &Path,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<(), Error> {
    let mut command = Command::new(program);
    arguments(&mut command).current_dir(folder).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().map_err(|source| Error::Program { program, package, source })?;
    if output.status.success() {
        return Ok(());
    }
    let log = folder.with_extension("log");
    fs::write(&log, [&output.stdout[..], &output.stderr].concat()).map_err(Error::file("write", &log))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text
        .lines()
        .find(|line| line.starts_with("E: "))
        .or(text.lines().next())
        .unwrap_or("no reason given");
    Err(Error::Failed { step, message: message.trim_start_matches("E: ").to_owned(), log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_as_apt_cache_prints_them() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-37-cloud-amd64\n  Suggests: linux-doc\n |Depends: x\n";
        assert_eq!(dependencies(text), ["linux-image-6.1.0-37-cloud-amd64"]);
    }

    #[test]
    fn a_package_without_a_kernel_is_told_by_what_it_lacks() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        let error = assemble(root.path(), &root.path().join("new"), "cloud", "linux-image-1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "linux-image-1 has no boot/vmlinuz-*: another flavour may, see `lab kernel fetch --help`"
        );
    }
}
