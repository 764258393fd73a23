//! Which kernel a machine boots: the file that is named, or one of those that `lab kernel` keeps.
//!
//! ```text
//!  kernels/4f1c…/vmlinux  meta.json  modules/00-virtio.ko …
//!  kernels/selected       the name of the folder that was chosen
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::{Error, Kernel};

/// The environment variable that names the kernel's file.
pub const VARIABLE: &str = "LAB_VM_KERNEL";

/// What is read of `meta.json`.
#[derive(Deserialize)]
struct Meta {
    /// `built`: the lean one; `fetched`: a distribution's.
    origin: String,
    release: String,
    /// In the order in which they are to be loaded, relative to the folder.
    #[serde(default)]
    modules: Vec<PathBuf>,
}

/// The kernel: of this file, or of the variable's, or the selected one, or the youngest lean one, or any other.
///
/// # Errors
/// There is none.
pub fn find(file: Option<PathBuf>) -> Result<Kernel, Error> {
    if let Some(image) = file.or_else(|| env::var_os(VARIABLE).map(PathBuf::from)) {
        fs::metadata(&image).map_err(Error::file("find the kernel", &image))?;
        return Ok(Kernel { image, modules: Vec::new(), release: String::new() });
    }
    let folders = folders();
    folders.iter().find_map(|folder| best(folder)).ok_or(Error::NoKernel { folders })
}

/// Where kernels may be kept. An engine that runs as a service may have neither variable; root's then are the system's.
fn folders() -> Vec<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let mut folders: Vec<PathBuf> = cache.into_iter().collect();
    if rustix::process::geteuid().is_root() {
        folders.extend(["/var/cache", "/root/.cache"].map(PathBuf::from));
    }
    folders.dedup();
    folders.into_iter().map(|folder| folder.join("lab/kernels")).collect()
}

/// The best kernel of a folder, if it has any. One that is damaged is none.
fn best(folder: &Path) -> Option<Kernel> {
    let selected = fs::read_to_string(folder.join("selected")).unwrap_or_default();
    let entries = fs::read_dir(folder).ok()?.flatten();
    let kernels = entries.filter_map(|entry| {
        let (path, name) = (entry.path(), entry.file_name());
        // One that begins with a dot is work in progress.
        let name = name.to_str().filter(|name| !name.starts_with('.'))?;
        let meta: Meta = serde_json::from_slice(&fs::read(path.join("meta.json")).ok()?).ok()?;
        let modified = entry.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let rank = (name == selected.trim(), meta.origin == "built", modified);
        let image = path.join("vmlinux");
        let modules = meta.modules.iter().map(|module| path.join(module)).collect();
        image.is_file().then_some((rank, Kernel { image, modules, release: meta.release }))
    });
    kernels.max_by_key(|(rank, _)| *rank).map(|(_, kernel)| kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, origin: &str) {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("vmlinux"), "ELF").unwrap();
        let modules = if origin == "built" { "[]" } else { "[\"modules/00-virtio.ko\"]" };
        let meta =
            format!(r#"{{"name": "x", "origin": "{origin}", "release": "6.1", "modules": {modules}}}"#);
        fs::write(path.join("meta.json"), meta).unwrap();
    }

    #[test]
    fn the_selected_kernel_comes_first_then_a_lean_one() {
        let folder = tempfile::tempdir().unwrap();
        let name =
            || best(folder.path()).map(|kernel| kernel.image.strip_prefix(folder.path()).unwrap().to_owned());
        assert_eq!(name(), None);
        put(folder.path(), ".new-1", "built");
        fs::create_dir(folder.path().join("damaged")).unwrap();
        assert_eq!(name(), None);
        put(folder.path(), "aaaa", "fetched");
        assert_eq!(best(folder.path()).unwrap().modules, [folder.path().join("aaaa/modules/00-virtio.ko")]);
        put(folder.path(), "bbbb", "built");
        assert_eq!(name().unwrap(), Path::new("bbbb/vmlinux"));
        fs::write(folder.path().join("selected"), "aaaa\n").unwrap();
        assert_eq!(name().unwrap(), Path::new("aaaa/vmlinux"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = find(Some("/nowhere/vmlinux".into())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/vmlinux"), "{error}");
    }
}
