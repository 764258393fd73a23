//! COPY, ADD and WORKDIR: layers that are made without a container.
//!
//! Files go where the merged root says, for a directory of the image may be a link (`/bin` is one to `/usr/bin` in many):
//! the layers so far are mounted as an overlay, to no place, and what is copied is unpacked into that.

use std::ffi::OsStr;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use parse_dockerfile::{AddInstruction, CopyInstruction, Flag, Source};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat2, statat};

use super::configure::unknown_flag;
use super::words::Words;
use super::{Builder, Work};
use crate::engine::error::Context as _;
use crate::engine::stored::{NewLayer, Root, host_directory, mount_overlay, unpack};
use crate::engine::{Error, glob};
use crate::image::pack::{Options, Packer};
use crate::image::tar::Archive;
use crate::image::users::Accounts;
use crate::image::{Digest, Image, plain};

/// What is to be copied.
pub(super) struct Wish {
    sources: Vec<String>,
    /// Here-documents: their content, and whether variables in it are expanded.
    documents: Vec<(String, bool)>,
    target: String,
    from: Option<String>,
    chown: Option<String>,
    chmod: Option<String>,
    unpack: bool,
}

impl Wish {
    pub(super) fn of_copy(step: &CopyInstruction<'_>) -> Result<Self, Error> {
        Self::new(&step.options, &step.src, step.dest.value.to_string(), false)
    }

    pub(super) fn of_add(step: &AddInstruction<'_>) -> Result<Self, Error> {
        Self::new(&step.options, &step.src, step.dest.value.to_string(), true)
    }

    fn new(
        options: &[Flag<'_>],
        sources: &[Source<'_>],
        target: String,
        unpack: bool,
    ) -> Result<Self, Error> {
        let (sources_of, documents) = (Vec::new(), Vec::new());
        let mut wish =
            Self { sources: sources_of, documents, target, from: None, chown: None, chmod: None, unpack };
        for option in options {
            let value = option.value.as_ref().map(|value| value.value.to_string());
            match &*option.name.value {
                "from" if !unpack => wish.from = value,
                "chown" => wish.chown = value,
                "chmod" => wish.chmod = value,
                // Layers are independent of each other here in any case.
                "link" => {}
                known @ ("parents" | "exclude" | "checksum" | "keep-git-dir") => {
                    return Err(Error::bad(format!("--{known} is not supported by the lab; leave it out")));
                }
                other => {
                    let name = if unpack { "ADD" } else { "COPY" };
                    return Err(unknown_flag(name, other, &["from", "chown", "chmod", "link"]));
                }
            }
        }
        for source in sources {
            match source {
                Source::Path(path) => wish.sources.push(path.value.to_string()),
                Source::HereDoc(document) => {
                    wish.documents.push((document.value.to_string(), document.expand));
                }
                _ => return Err(Error::bad("a kind of source that the lab does not know")),
            }
        }
        Ok(wish)
    }
}

/// WORKDIR: the directory is made where it is missing.
pub(super) fn workdir(
    builder: &mut Builder<'_>,
    work: &mut Work,
    path: &str,
    text: &str,
) -> Result<(), Error> {
    let path = Words { escape: builder.escape, value: &|name| work.value(name) }.word(path)?;
    let path = clean(&absolute(work, &path));
    work.settings.config["WorkingDir"] = path.clone().into();
    if path == "/" {
        work.pending.push(super::one_line(text, builder.escape));
        return Ok(());
    }
    builder.layer(work, text, &["workdir", &path], |builder, work| {
        with_root(builder, work, |root| open_or_make(root, &path).map(drop))
    })
}

pub(super) fn copy(builder: &mut Builder<'_>, work: &mut Work, wish: &Wish, text: &str) -> Result<(), Error> {
    let (sources, plain_target, owner, mode) = {
        let value = |name: &str| work.value(name);
        let words = Words { escape: builder.escape, value: &value };
        let sources =
            wish.sources.iter().map(|source| words.word(source)).collect::<Result<Vec<String>, _>>()?;
        let word = |text: &Option<String>| words.word(text.as_deref().unwrap_or_default());
        (sources, words.word(&wish.target)?, word(&wish.chown)?, word(&wish.chmod)?)
    };
    if let Some(url) = sources.iter().find(|source| source.contains("://") || source.starts_with("git@")) {
        return Err(Error::bad(format!("ADD {url}: the lab fetches nothing; put the file into the context")));
    }
    let target = absolute(work, &plain_target);
    let several = sources.len() + wish.documents.len() > 1;
    let into_directory = plain_target.ends_with('/') || plain_target == "." || several;
    if several && !plain_target.ends_with('/') && plain_target != "." {
        let name = if wish.unpack { "ADD" } else { "COPY" };
        return Err(Error::bad(format!(
            "When using {name} with more than one source file, the destination must be a directory and end with a /"
        )));
    }

    let from = wish.from.as_deref().map(|name| builder.source(name, work)).transpose()?;
    let stage = from.as_ref().map(|image| builder.engine.images().layer_dirs(image, &())).transpose()?;
    let scratch = tempfile::tempdir_in(builder.engine.images().path("tmp")).context("make", "a folder")?;
    let origin = match &stage {
        None => host_directory(builder.context)?,
        Some(layers) => overlay(layers, scratch.path())?,
    };
    // What is copied is packed first: its digest is what the layer depends on.
    let mut packed = Vec::new();
    for source in &sources {
        let found = find(&origin, source)?;
        if found.is_empty() {
            let place = if wish.from.is_some() {
                ""
            } else {
                "file not found in build context or excluded by .dockerignore: "
            };
            return Err(Error::bad(format!("COPY failed: {place}stat {source}: file does not exist")));
        }
        for path in found {
            packed.push(pack(&origin, &path, wish.unpack)?);
        }
    }
    for (at, (document, expand)) in wish.documents.iter().enumerate() {
        let content = if *expand {
            let value = |name: &str| work.value(name);
            Words { escape: builder.escape, value: &value }.document(document)?
        } else {
            document.clone()
        };
        packed.push(pack_document(&document_name(text, at), &content)?);
    }
    let mut digests: Vec<String> =
        packed.iter().map(|packed| format!("{} {:?}", packed.digest, packed.name)).collect();
    digests.extend([target.clone(), owner.clone(), mode.clone()]);
    let depends: Vec<&str> = std::iter::once("copy").chain(digests.iter().map(String::as_str)).collect();
    let wrong = || Error::bad(format!("--chmod={mode}: an octal number is expected, such as 755"));
    let mode = if mode.is_empty() {
        None
    } else {
        Some(u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?)
    };
    builder.layer(work, text, &depends, |builder, work| {
        let layers = builder.engine.images().layer_dirs(&work.image, &())?;
        let user = Accounts::read(&layers)?.resolve(&owner)?;
        with_root(builder, work, |root| {
            for packed in &packed {
                place(root, packed, &target, into_directory, (user.uid, user.gid), mode)?;
            }
            Ok(())
        })
    })
}

/// A path of the Dockerfile: relative ones begin at WORKDIR. A final `/` stays.
fn absolute(work: &Work, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let base = work.settings.config["WorkingDir"].as_str().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = path.strip_prefix("./").unwrap_or(path);
    let path = if path == "." { "" } else { path };
    format!("{}/{path}", base.trim_end_matches('/'))
}

/// A path without `.`, `..` and what is empty, from the root on.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Builder<'_> {
    /// What `--from` names: a stage by its name or number, or an image.
    fn source(&mut self, name: &str, work: &Work) -> Result<Image, Error> {
        let name = Words { escape: self.escape, value: &|name| work.value(name) }.word(name)?;
        match name.parse::<usize>() {
            Ok(number) => {
                let stage = self.done.get(number).map(|(_, image)| image.clone());
                let wrong = || {
                    Error::bad(format!(
                        "invalid from flag value {name}: there is no such stage before this one"
                    ))
                };
                stage.ok_or_else(wrong)
            }
            Err(_) => self.find(&name, None, false),
        }
    }
}

/// The name of a here-document, which is that of its file: the word behind `<<`.
fn document_name(text: &str, number: usize) -> String {
    let first = text.lines().next().unwrap_or_default();
    let word =
        first.split_whitespace().filter_map(|word| word.strip_prefix("<<")).nth(number).unwrap_or("EOF");
    word.trim_start_matches('-').trim_matches(['"', '\'']).to_owned()
}

fn overlay(layers: &[PathBuf], scratch: &Path) -> Result<OwnedFd, Error> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for directory in [&upper, &work] {
        std::fs::create_dir(directory).context("create", directory.display())?;
    }
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))
        .context("open up", upper.display())?;
    if layers.is_empty() {
        // Nothing below: overlay wants something.
        return host_directory(&upper);
    }
    mount_overlay(layers, &upper, &work).context("mount", "the layers so far")
}

/// Changes the root of the layers so far; what changed is the new layer.
fn with_root(
    builder: &Builder<'_>,
    work: &Work,
    change: impl FnOnce(&OwnedFd) -> Result<(), Error>,
) -> Result<NewLayer, Error> {
    let store = builder.engine.images();
    let layers = store.layer_dirs(&work.image, &())?;
    let scratch = tempfile::tempdir_in(store.path("tmp")).context("make", "a folder")?;
    let root = overlay(&layers, scratch.path())?;
    change(&root)?;
    drop(root);
    builder.engine.store_layer(&scratch.path().join("upper"))
}

/// Opens a directory of the root, made where it is missing.
fn open_or_make(root: &OwnedFd, path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut walked = PathBuf::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = if walked.as_os_str().is_empty() { Path::new(".") } else { walked.as_path() };
        let parent = openat2(root, parent, flags, Mode::empty(), Root::INSIDE).context("open", path)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("create", path, errno)),
        }
        walked.push(part);
    }
    let walked = if walked.as_os_str().is_empty() { Path::new(".") } else { walked.as_path() };
    openat2(root, walked, flags, Mode::empty(), Root::INSIDE).context("open", path)
}

/// A source, packed: a file under its name, or what is in a directory.
struct Packed {
    file: std::fs::File,
    digest: Digest,
    /// The file's name; none for a directory, of which the content is copied.
    name: Option<Vec<u8>>,
}

fn pack(origin: &OwnedFd, path: &Path, unpacks: bool) -> Result<Packed, Error> {
    let shown = path.display().to_string();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(origin, path, flags, Mode::empty(), Root::INSIDE).context("open", &shown)?;
    let stat = statat(&found, "", AtFlags::EMPTY_PATH).context("read", &shown)?;
    let mut file = tempfile::tempfile().context("make", "a temporary file")?;
    let mut name = None;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let directory = openat2(
            origin,
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
            Root::INSIDE,
        );
        let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options::default());
        packer.add_directory(&directory.context("open", &shown)?, b"").context("read", &shown)?;
        packer.finish().context("read", &shown)?;
    } else if unpacks && unpacked(origin, path, &mut file)? {
        // ADD of an archive means what is in it.
    } else {
        let base = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = openat2(
            origin,
            parent,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
            Root::INSIDE,
        );
        let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options::default());
        packer
            .add(parent.context("open", &shown)?.as_fd(), OsStr::from_bytes(&base), &base)
            .context("read", &shown)?;
        packer.finish().context("read", &shown)?;
        name = Some(base);
    }
    let digest = Digest::of_reader(&mut file).context("read", &shown)?;
    Ok(Packed { file, digest, name })
}

/// A here-document as a file.
fn pack_document(name: &str, content: &str) -> Result<Packed, Error> {
    let mut file = tempfile::tempfile().context("make", "a temporary file")?;
    let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options::default());
    packer.add_bytes(name, content.as_bytes()).context("write", "a here-document")?;
    packer.finish().context("write", "a here-document")?;
    let digest = Digest::of_reader(&mut file).context("read", "a here-document")?;
    Ok(Packed { file, digest, name: Some(name.as_bytes().to_vec()) })
}

/// Whether a file is an archive, which is then copied plain.
fn unpacked(origin: &OwnedFd, path: &Path, into: &mut std::fs::File) -> Result<bool, Error> {
    let shown = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || {
        openat2(origin, path, flags, Mode::empty(), Root::INSIDE)
            .map(std::fs::File::from)
            .context("open", &shown)
    };
    let mut head = [0; 4];
    let magic = std::io::Read::read(&mut open()?, &mut head).unwrap_or(0);
    // bzip2's format, "Header": a level from 1 to 9 behind these.
    if magic == 4 && head.starts_with(b"BZh") && head[3].is_ascii_digit() {
        return Err(Error::bad(format!(
            "ADD {shown}: archives by bzip2 are not unpacked here; pack it by gzip, xz or zstd"
        )));
    }
    let Ok(first) = plain(open()?) else { return Ok(false) };
    let mut archive = Archive::new(std::io::BufReader::new(first));
    if !matches!(archive.next(), Ok(Some(_))) {
        return Ok(false);
    }
    let mut again = plain(open()?).context("read", &shown)?;
    std::io::copy(&mut again, into).context("read", &shown)?;
    into.flush().context("write", "a temporary file")?;
    Ok(true)
}

/// Unpacks a source at its target.
fn place(
    root: &OwnedFd,
    packed: &Packed,
    target: &str,
    into_directory: bool,
    (uid, gid): (u32, u32),
    mode: Option<u32>,
) -> Result<(), Error> {
    let is_directory = |path: &str| {
        let path = path.trim_matches('/');
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        openat2(root, if path.is_empty() { "." } else { path }, flags, Mode::empty(), Root::INSIDE).is_ok()
    };
    // A file's target is its new name, unless it is a directory.
    let rename = packed.name.is_some() && !into_directory && !is_directory(target);
    let (directory, name) = if rename {
        let (parent, name) = target.rsplit_once('/').unwrap_or(("", target));
        (open_or_make(root, parent)?, Some(name.as_bytes().to_vec()))
    } else {
        (open_or_make(root, target)?, None)
    };
    let mut file = packed.file.try_clone().context("read", "a temporary file")?;
    file.rewind().context("read", "a temporary file")?;
    let mut archive = Archive::new(std::io::BufReader::with_capacity(256 * 1024, file));
    while let Some(mut member) = archive.next().context("read", "what is copied")? {
        // What comes from a context belongs to root, or whom --chown says; also what comes from a stage, as docker has it.
        (member.uid, member.gid) = (u64::from(uid), u64::from(gid));
        member.mode = mode.unwrap_or(member.mode);
        if let Some(name) = &name {
            member.path.clone_from(name);
        }
        unpack(&directory, &member, &mut archive).context("copy to", target)?;
    }
    Ok(())
}

/// The paths that a pattern means.
fn find(origin: &OwnedFd, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = vec![PathBuf::new()];
    let mut any = false;
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..") {
        any = true;
        let mut next = Vec::new();
        for base in found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(base.join(part));
                continue;
            }
            let here = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let Ok(directory) = openat2(origin, here, flags, Mode::empty(), Root::INSIDE) else { continue };
            for entry in rustix::fs::Dir::read_from(&directory).context("list", base.display())? {
                let entry = entry.context("list", base.display())?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") && glob::matches(name, part.as_bytes()) {
                    next.push(base.join(OsStr::from_bytes(name)));
                }
            }
        }
        next.sort();
        found = next;
    }
    if !any {
        return Ok(vec![PathBuf::from(".")]);
    }
    let exists = |path: &PathBuf| {
        openat2(origin, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), Root::INSIDE)
            .is_ok()
    };
    Ok(found.into_iter().filter(exists).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_finds_what_is_there_and_cannot_climb() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        for name in ["src/b.rs", "src/a.rs", "src/c.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let origin = host_directory(folder.path()).unwrap();
        let found = |pattern: &str| find(&origin, pattern).unwrap();
        assert_eq!(found("src/*.rs"), [PathBuf::from("src/a.rs"), PathBuf::from("src/b.rs")]);
        assert_eq!(found("."), [PathBuf::from(".")]);
        assert!(found("nothing").is_empty());
        assert!(found("../../etc/passwd").is_empty());
    }
}
