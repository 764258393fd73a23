//! The folder of a sandbox.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// An id is a name of a folder, of a control group, and a word of messages: nothing in it may mean something else.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.chars().all(plain) {
        return Err(Error::BadId { id: id.into() });
    }
    Ok(())
}

/// The sandbox's folder. It makes the id unique, and holds what has a name while the guest runs.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    pub(super) fn make(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(Error::file("make the folder", root))?;
        let path = root.join(id);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(Error::file("make the sandbox's folder", &path))?;
        Ok(Self { path })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_a_folder_of_its_own_and_takes_it_along() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::make(root.path(), "one").unwrap();
        assert!(StateDir::make(root.path(), "one").is_err());
        drop(first);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_id_that_could_leave_the_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", "..", "a/b", "/etc", ".hidden", "a\nb"] {
            assert!(matches!(StateDir::make(root.path(), id), Err(Error::BadId { .. })), "{id:?}");
        }
    }
}
