//! How much space things take on disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Engine, Record};
use crate::engine::Error;

impl Engine {
    /// Bytes of the files that a container wrote over its image's.
    pub fn written(&self, record: &Record) -> u64 {
        bytes_below(&self.roots.stored(&record.id).join("upper"))
    }

    /// Bytes of a container's files with those of its image.
    ///
    /// # Errors
    /// Where its image is gone.
    pub fn size_with_image(&self, record: &Record) -> Result<u64, Error> {
        Ok(self.images().resolve(&record.image_id)?.size() + self.written(record))
    }

    /// Bytes of the files in a volume.
    pub fn volume_size(&self, name: &str) -> u64 {
        bytes_below(&self.volume_path(name))
    }
}

/// The sizes of the files below a directory, each once however many names it has. What vanishes meanwhile counts nothing.
fn bytes_below(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut open = vec![directory.to_owned()];
    let mut sum = 0;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of a link itself, not of what it points at (lstat(2)).
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                sum += metadata.len();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/b");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("one"), [0; 100]).unwrap();
        fs::hard_link(inside.join("one"), directory.path().join("two")).unwrap();
        assert_eq!(bytes_below(directory.path()), 100);
        assert_eq!(bytes_below(&directory.path().join("nothing")), 0);
    }
}
