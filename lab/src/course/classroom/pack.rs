//! One archive for all laptops: programs, guest kernels, the book, and a script that uses them where they are unpacked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Error;
use super::super::error::Context as _;
use crate::paths;

/// What goes beside `lab`, where it is there.
const PROGRAMS: [&str; 3] = ["lab", "lab-container", "lab-vm"];

/// `. ./start` puts the programs into PATH, and has them keep everything in the unpacked folder.
const START: &str = "\
# To be read by a shell: . ./start
here=$(cd \"$(dirname \"${BASH_SOURCE:-$0}\")\" && pwd)
export PATH=\"$here/bin:$PATH\" LAB_HOME=\"$here/data\" XDG_CACHE_HOME=\"$here/cache\"
echo 'lab lesson list'
";

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// What is in it, by folder.
    pub parts: Vec<String>,
    /// What is not, and why.
    pub missing: Vec<String>,
}

/// Writes the archive.
///
/// # Errors
/// A part cannot be read, or the archive not written; nothing is left of it then.
pub fn pack(archive: &Path, book: Option<&Path>) -> Result<Packed, Error> {
    let scratch = tempfile::Builder::new().prefix("lab-class-").tempdir().context("create", "a folder")?;
    let root = scratch.path().join("class");
    let mut packed = Packed { parts: Vec::new(), missing: Vec::new() };
    let own = std::env::current_exe().context("find", "this program")?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let bin = make(&root.join("bin"))?;
    for name in PROGRAMS {
        let from = if name == "lab" { own.clone() } else { beside.join(name) };
        if from.is_file() {
            fs::copy(&from, bin.join(name)).at("copy", &from)?;
            packed.parts.push(format!("bin/{name}"));
        } else {
            packed.missing.push(format!("{name}: not beside {}", own.display()));
        }
    }
    let kernels = paths::cache()?;
    if kernels.is_dir() {
        copy_tree(&kernels, &make(&root.join("cache"))?.join("lab"))?;
        packed.parts.push("cache/lab: guest kernels".to_owned());
    } else {
        packed.missing.push("guest kernels: `lab kernel build` or `lab kernel fetch` first".to_owned());
    }
    if let Some(book) = book.filter(|book| book.join("index.html").is_file()) {
        copy_tree(book, &root.join("book"))?;
        packed.parts.push("book".to_owned());
    } else {
        packed.missing.push("the book: `mdbook build book`, then --book book/book".to_owned());
    }
    let start = root.join("start");
    fs::write(&start, START).at("write", &start)?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).at("change the mode of", &start)?;
    tar(archive, scratch.path())?;
    Ok(packed)
}

fn make(path: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(path).at("create", path)?;
    Ok(path.to_owned())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let status = Command::new("cp").arg("-rL").arg(from).arg(to).status().context("run", "cp")?;
    done(status.success(), "copy", from)
}

fn tar(archive: &Path, folder: &Path) -> Result<(), Error> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).arg("-cf").arg(archive).args(["--owner=0", "--group=0", "class"]);
    let written =
        tar.status().context("run", "tar").and_then(|status| done(status.success(), "write", archive));
    if written.is_err() {
        let _ = fs::remove_file(archive);
    }
    written
}

fn done(good: bool, operation: &'static str, path: &Path) -> Result<(), Error> {
    if good { Ok(()) } else { Err(std::io::Error::other("see above")).at(operation, path) }
}
