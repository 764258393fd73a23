//! The kernel's source: found as the distribution's package leaves it, unpacked, patched.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::recipe::Patch;
use super::{Error, Event, Listener, packages};

/// Where linux-source-* packages put their archives.
const PLACE: &str = "/usr/src";

/// What is not unpacked, as tar's patterns: other processors' code and the documentation. Their Kconfig files stay, as
/// every configuration reads them. A third of the files.
const LEFT_OUT: &[&str] = &[
    "linux-*/arch/[a-wyz]*/boot",
    "linux-*/arch/[a-wyz]*/include",
    "linux-*/arch/[a-wyz]*/kernel",
    "linux-*/arch/[a-wyz]*/mach-*",
    "linux-*/arch/[a-wyz]*/mm",
    "linux-*/Documentation/[a-z]*",
];

/// An archive of a kernel's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The archive.
    pub archive: PathBuf,
    /// What names its content: the package's version, or the file's name and size.
    pub version: String,
    /// How tar decompresses it.
    decompress: &'static str,
    /// The version in the file's name, for comparing.
    number: Vec<u32>,
}

impl Source {
    /// The archive at this path.
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        let no = || Error::NotSource(path.to_owned());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no)?;
        let (number, decompress) = parse_name(name).ok_or_else(no)?;
        let size = fs::metadata(path).map_err(Error::file("look at", path))?.len();
        let package = name.split(".tar").next().unwrap_or(name);
        let version = packages::version(package)
            .filter(|_| path.starts_with(PLACE))
            .unwrap_or_else(|| format!("{package}, {size} bytes"));
        Ok(Self { archive: path.to_owned(), version, decompress, number })
    }
}

/// The newest source that is installed.
pub(super) fn find() -> Option<Source> {
    let entries = fs::read_dir(PLACE).ok()?;
    let sources = entries.filter_map(|entry| Source::at(&entry.ok()?.path()).ok());
    sources.max_by(|a, b| a.number.cmp(&b.number))
}

/// The version and the decompressor that a file's name tells: `linux-source-6.1.tar.xz`, `linux-6.12.3.tar.gz`.
fn parse_name(name: &str) -> Option<(Vec<u32>, &'static str)> {
    let rest = name.strip_prefix("linux-")?;
    let rest = rest.strip_prefix("source-").unwrap_or(rest);
    let (version, suffix) = rest.split_once(".tar.")?;
    let decompress = match suffix {
        "xz" => "--xz",
        "bz2" => "--bzip2",
        "gz" => "--gzip",
        _ => return None,
    };
    let number = version.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
    Some((number, decompress))
}

/// Unpacks the source into the folder `tree` and applies the patches; returns those that do not fit in any variant.
///
/// The folder appears when all is done: an interrupted unpacking starts over.
pub(super) fn unpack(
    source: &Source,
    patches: &[Patch],
    tree: &Path,
    interrupted: &AtomicBool,
    listener: Listener<'_>,
) -> Result<Vec<String>, Error> {
    let noted = tree.join(".lab-patches-left-out");
    if tree.exists() {
        let text = fs::read_to_string(&noted).map_err(Error::file("read", &noted))?;
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let partial = tree.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::file("remove", &partial))?;
    }
    fs::create_dir_all(&partial).map_err(Error::file("make the folder", &partial))?;
    listener(Event::Step(&format!("unpacking {}", source.archive.display())));
    extract(source, &partial, interrupted, listener)?;
    let mut fitted = HashSet::new();
    for patch in patches {
        if !fitted.contains(patch.idea()) && apply(patch, &partial)? {
            fitted.insert(patch.idea());
        }
    }
    let mut left_out: Vec<_> =
        patches.iter().map(Patch::idea).filter(|idea| !fitted.contains(idea)).collect();
    left_out.dedup();
    let left_out: Vec<_> = left_out.into_iter().map(str::to_owned).collect();
    let noted = partial.join(".lab-patches-left-out");
    fs::write(&noted, left_out.join("\n")).map_err(Error::file("write", &noted))?;
    fs::rename(&partial, tree).map_err(Error::file("rename to", tree))?;
    Ok(left_out)
}

/// Feeds the archive to tar, which tells how far it is by what it has read.
fn extract(
    source: &Source,
    into: &Path,
    interrupted: &AtomicBool,
    listener: Listener<'_>,
) -> Result<(), Error> {
    let mut archive = File::open(&source.archive).map_err(Error::file("open", &source.archive))?;
    let total = archive.metadata().map_err(Error::file("look at", &source.archive))?.len();
    let log = into.with_extension("log");
    let errors = File::create(&log).map_err(Error::file("write", &log))?;
    let mut tar = Command::new("tar")
        .args(["--extract", source.decompress, "--strip-components=1", "--no-same-owner", "--anchored"])
        .arg("--no-wildcards-match-slash")
        .args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")))
        .arg("--directory")
        .arg(into)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Program { program: "tar", package: "tar", source })?;
    let mut pipe = tar.stdin.take().ok_or_else(|| Error::NotSource(source.archive.clone()))?;
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    while !interrupted.load(Ordering::Relaxed) {
        let count = archive.read(&mut buffer).map_err(Error::file("read", &source.archive))?;
        // A tar that ended early has said why on its standard error.
        if count == 0 || pipe.write_all(&buffer[..count]).is_err() {
            break;
        }
        done += count as u64;
        listener(Event::Progress { done, total });
    }
    drop(pipe);
    let status = tar.wait().map_err(Error::file("wait for tar in", into))?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let message = text.lines().next().unwrap_or("tar says nothing").to_owned();
    Err(Error::Failed { step: "unpacking the source", message, log })
}

/// Applies one patch; false where it does not fit, and then nothing of it is applied.
fn apply(patch: &Patch, tree: &Path) -> Result<bool, Error> {
    let run = |dry: bool| -> Result<bool, Error> {
        let mut command = Command::new("patch");
        command.args(["--strip=1", "--batch", "--forward", "--silent", "--no-backup-if-mismatch"]);
        if dry {
            command.arg("--dry-run");
        }
        let mut child = command
            .current_dir(tree)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| Error::Program { program: "patch", package: "patch", source })?;
        if let Some(mut pipe) = child.stdin.take() {
            // Where patch gives up before it has read all, its status says so.
            let _ = pipe.write_all(patch.text.as_bytes());
        }
        Ok(child.wait().map_err(Error::file("wait for patch in", tree))?.success())
    };
    Ok(run(true)? && run(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: Patch = Patch {
        name: "1.patch",
        text: "Subject: x\n---\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n",
    };

    /// An archive as the package leaves it, with one file of each kind.
    fn archive(folder: &Path) -> Source {
        let tree = folder.join("linux-source-6.1");
        for (file, text) in [
            ("f", "one\ntwo\n"),
            ("arch/x86/a", ""),
            ("arch/arm64/mm/a", ""),
            ("arch/arm64/Kconfig", ""),
            ("Documentation/Kconfig", ""),
            ("Documentation/mm/a", ""),
        ] {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let path = folder.join("linux-source-6.1.tar.gz");
        let status =
            Command::new("tar").arg("-czf").arg(&path).arg("-C").arg(folder).arg("linux-source-6.1").status();
        assert!(status.unwrap().success());
        Source::at(&path).unwrap()
    }

    #[test]
    fn names_tell_version_and_compression() {
        assert_eq!(parse_name("linux-source-6.12.tar.xz"), Some((vec![6, 12], "--xz")));
        assert_eq!(parse_name("linux-source-6.8.0.tar.bz2"), Some((vec![6, 8, 0], "--bzip2")));
        for other in ["linux-source-6.1", "linux-patch-6.1-rt.patch.xz", "linux-headers-6.1.tar.xz"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert!(vec![6, 12] > vec![6, 2], "versions are compared as numbers");
    }

    #[test]
    fn unpacking_leaves_out_what_no_build_here_reads_and_applies_what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let source = archive(folder.path());
        let tree = folder.path().join("tree");
        let variant = Patch { name: "1.since-7", text: PATCH.text };
        let misfit = Patch { name: "2.patch", text: "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-x\n+y\n" };
        let run = || unpack(&source, &[PATCH, variant, misfit], &tree, &AtomicBool::new(false), &mut |_| ());
        assert_eq!(run().unwrap(), ["2"]);
        assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "one\n2\n");
        for (file, there) in [
            ("arch/x86/a", true),
            ("arch/arm64/Kconfig", true),
            ("arch/arm64/mm", false),
            ("Documentation/Kconfig", true),
            ("Documentation/mm", false),
        ] {
            assert_eq!(tree.join(file).exists(), there, "{file}");
        }
        // The second time the tree is taken as it is, and what was left out is remembered.
        fs::write(tree.join("f"), "compiled").unwrap();
        assert_eq!(run().unwrap(), ["2"]);
        assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "compiled");
    }

    #[test]
    fn an_interrupted_unpacking_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let source = archive(folder.path());
        let tree = folder.path().join("tree");
        let interrupted = AtomicBool::new(true);
        assert!(matches!(
            unpack(&source, &[PATCH], &tree, &interrupted, &mut |_| ()),
            Err(Error::Interrupted)
        ));
        assert!(!tree.exists());
        interrupted.store(false, Ordering::Relaxed);
        assert!(unpack(&source, &[PATCH], &tree, &interrupted, &mut |_| ()).unwrap().is_empty());
    }

    #[test]
    fn an_archive_that_is_none_is_refused_with_tar_s_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("linux-source-6.1.tar.xz");
        fs::write(&path, "not xz").unwrap();
        let source = Source::at(&path).unwrap();
        let error = unpack(&source, &[], &folder.path().join("tree"), &AtomicBool::new(false), &mut |_| ());
        assert!(error.unwrap_err().to_string().starts_with("unpacking the source failed: "));
    }
}
