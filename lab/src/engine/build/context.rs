//! A build's context from a folder, without what its `.dockerignore` names.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _};
use std::path::Path;

use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::glob::matches;
use crate::engine::stored::{Engine, host_directory};
use crate::image::pack::{Options, Packer};

impl Engine {
    /// Packs a folder as a build's context.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn pack_context(&self, folder: &Path, dockerfile: &str) -> Result<File, Error> {
        let read = |name: &str| match fs::read_to_string(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some).context("read", folder.join(name).display()),
        };
        // A Dockerfile's own goes before the folder's (Dockerfile reference, ".dockerignore file").
        let own = read(&format!("{dockerfile}.dockerignore"))?;
        let text = own.map_or_else(|| read(".dockerignore"), |text| Ok(Some(text)))?.unwrap_or_default();
        let ignored = Ignored::of(&text, dockerfile);
        let mut file =
            tempfile::tempfile_in(self.images().path("tmp")).context("make", "the context's file")?;
        let mut packer = Packer::new(BufWriter::with_capacity(256 * 1024, &mut file), Options::default());
        packer.leave_out(Box::new(move |path, is_directory| ignored.hides(path, is_directory)));
        packer.add_directory(&host_directory(folder)?, b"").context("read", folder.display())?;
        packer.finish().context("read", folder.display())?;
        file.rewind().context("read", "the context's file")?;
        Ok(file)
    }
}

/// The patterns of a `.dockerignore`, each with whether it is an exception (`!`). The last that fits decides.
struct Ignored(Vec<(Vec<Vec<u8>>, bool)>);

impl Ignored {
    fn of(text: &str, dockerfile: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let exception = format!("!{dockerfile}");
        // The builder needs the Dockerfile, whatever the patterns say.
        let patterns = lines.chain([&*exception]).filter_map(|line| {
            let (line, shown) = line.strip_prefix('!').map_or((line, false), |line| (line, true));
            let parts: Vec<Vec<u8>> = line
                .split('/')
                .filter(|part| !matches!(*part, "" | "."))
                .map(|part| part.as_bytes().to_vec())
                .collect();
            (!parts.is_empty()).then_some((parts, shown))
        });
        Self(patterns.collect())
    }

    fn hides(&self, path: &[u8], is_directory: bool) -> bool {
        let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        // A pattern names a path with all that is below it.
        let fits = |pattern: &[Vec<u8>]| (1..=parts.len()).any(|end| fits(&parts[..end], pattern));
        let last = self.0.iter().rev().find(|(pattern, _)| fits(pattern));
        let hidden = last.is_some_and(|(_, shown)| !shown);
        // In a folder that is left out may be what an exception brings back: one that could lead there is looked into.
        hidden && !(is_directory && self.0.iter().any(|(pattern, shown)| *shown && leads(&parts, pattern)))
    }
}

/// Whether a path is what a pattern says; `**` stands for any number of folders.
fn fits(parts: &[&[u8]], pattern: &[Vec<u8>]) -> bool {
    match (parts, pattern) {
        ([], []) => true,
        (_, [first, rest @ ..]) if first == b"**" => (0..=parts.len()).any(|at| fits(&parts[at..], rest)),
        ([part, parts @ ..], [first, rest @ ..]) => matches(part, first) && fits(parts, rest),
        _ => false,
    }
}

/// Whether what a pattern says could be below a folder.
fn leads(parts: &[&[u8]], pattern: &[Vec<u8>]) -> bool {
    match (parts, pattern) {
        (_, [first, ..]) if first == b"**" => true,
        ([], pattern) => !pattern.is_empty(),
        ([part, parts @ ..], [first, rest @ ..]) => matches(part, first) && leads(parts, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_decides_and_the_dockerfile_stays() {
        let ignored =
            Ignored::of("# comment\n/target\n**/*.log\n*.md\n!README.md\ndeep/*\n!deep/kept\n", "Dockerfile");
        for (path, hidden) in [
            ("target", true),
            ("target/debug", true),
            ("sub/target", false),
            ("a.log", true),
            ("a/b/c.log", true),
            ("notes.md", true),
            ("README.md", false),
            ("sub/notes.md", false),
            ("deep/other", true),
            ("deep/kept", false),
            ("Dockerfile", false),
        ] {
            assert_eq!(ignored.hides(path.as_bytes(), false), hidden, "{path}");
        }
        let all = Ignored::of("*\n!src/main\n", "docker/Dockerfile");
        assert!(!all.hides(b"src", true) && !all.hides(b"src/main/x", false) && !all.hides(b"docker", true));
        assert!(all.hides(b"src/other", false) && all.hides(b"docs", true));
    }
}
