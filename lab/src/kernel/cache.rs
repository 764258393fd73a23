//! The kernels at hand: one folder each, named by its hash, below the cache.
//!
//! ```text
//!  kernels/4f1c…/vmlinux  config  meta.json  modules/00-virtio.ko …
//!  kernels/selected       the hash that `lab kernel use` wrote
//! ```
//! A folder that begins with a dot is work in progress.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::recipe::Processors;
use super::{Error, fragment, recipe};

/// Where a kernel came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The lean kernel, built here.
    Built,
    /// The distribution's own.
    Fetched,
    /// A file that the user named.
    Given,
}

impl Origin {
    /// The word for it in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Fetched => "fetched",
            Self::Given => "given",
        }
    }
}

/// What is known of a kernel beside its files; `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `lean`, or the distribution's flavour.
    pub name: String,
    /// Where it came from.
    pub origin: Origin,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Version of the package that it was made from.
    pub source: String,
    /// What compiled it, where that was done here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// The hash of the fragment and patches that it was built with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Whether programs run on a KVM without VT-x or SVM behind it.
    pub works_without_vtx: bool,
    /// Patches of ours that did not fit the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches_left_out: Vec<String>,
    /// Modules in the order in which they are to be loaded, relative to the kernel's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<PathBuf>,
}

/// A kernel that can be booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// What is known of it.
    #[serde(flatten)]
    pub meta: Meta,
    /// Its hash; empty for a file that the user named.
    pub hash: String,
    /// The vmlinux, or whatever file the user named.
    pub image: PathBuf,
    /// Size of that file in bytes.
    pub size: u64,
    /// Its modules in the order in which they are to be loaded.
    pub module_files: Vec<PathBuf>,
}

impl Kernel {
    /// The kernel as the distribution ships it and the folder of its modules, which is what the nested rig boots. Only a
    /// fetched kernel has them.
    pub fn for_rig(&self) -> Option<(PathBuf, PathBuf)> {
        let folder = self.image.parent()?;
        let files = (folder.join("vmlinuz"), folder.join("modules"));
        (self.meta.origin == Origin::Fetched && files.0.is_file() && files.1.is_dir()).then_some(files)
    }
}

impl Kernel {
    /// Whether it was built with this version's fragment and patches.
    pub fn is_current(&self) -> bool {
        self.meta.recipe.as_deref() == Some(recipe::own().as_str())
    }

    /// The options of the fragment that the kernel's configuration does not hold.
    ///
    /// # Errors
    /// Its configuration is not kept beside it.
    pub fn options_missed(&self) -> Result<Vec<String>, Error> {
        let path = self.image.with_file_name("config");
        let config = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let options = Processors::of_configuration(&config).fragment();
        let settings = fragment::parse(&options).map_err(|options| Error::NotTaken { options })?;
        let missed = fragment::not_taken(&settings, &config);
        Ok(missed.into_iter().map(|setting| setting.option.clone()).collect())
    }
}

/// The folder of all kernels.
pub(super) fn folder() -> Result<PathBuf, Error> {
    Ok(crate::paths::cache()?.join("kernels"))
}

/// All kernels at hand, the one that is booted by default first.
///
/// # Errors
/// The cache cannot be read, or a kernel in it is damaged.
pub fn list() -> Result<Vec<Kernel>, Error> {
    list_in(&folder()?, &recipe::own())
}

fn list_in(folder: &Path, current: &str) -> Result<Vec<Kernel>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::file("read the folder", folder))?,
    };
    let mut kernels = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file("read the folder", folder))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_dir() {
            let age =
                path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            kernels.extend(load(&path)?.map(|kernel| (kernel, age)));
        }
    }
    let chosen = selected_in(folder);
    kernels.sort_by_key(|(kernel, age)| {
        (
            Some(&kernel.hash) != chosen.as_ref(),
            kernel.meta.origin,
            kernel.meta.recipe.as_deref() != Some(current),
            std::cmp::Reverse(*age),
        )
    });
    Ok(kernels.into_iter().map(|(kernel, _)| kernel).collect())
}

/// The kernel to boot: the one that is named, else the selected one, else the lean one, else a fetched one. `None` where
/// none is named and none is at hand.
///
/// A name with a slash is a file; any other is a name, a release, or the beginning of a hash.
///
/// # Errors
/// The name fits no kernel, or more than one.
pub fn resolve(choice: Option<&str>) -> Result<Option<Kernel>, Error> {
    match choice {
        Some(path) if path.contains('/') => given(Path::new(path)).map(Some),
        Some(name) => pick(list()?, name).map(Some),
        None => Ok(list()?.into_iter().next()),
    }
}

/// The kernel of this name.
fn pick(kernels: Vec<Kernel>, name: &str) -> Result<Kernel, Error> {
    let mut fitting: Vec<_> = kernels
        .into_iter()
        .filter(|kernel| {
            kernel.meta.name == name
                || kernel.meta.release == name
                || (name.len() >= 4 && kernel.hash.starts_with(name))
        })
        .collect();
    // Of kernels built by several recipes the list has the current one first.
    let same_name = fitting.iter().all(|kernel| kernel.meta.name == name);
    match fitting.len() {
        0 => Err(Error::Unknown(name.to_owned())),
        1 => Ok(fitting.remove(0)),
        _ if same_name => Ok(fitting.remove(0)),
        _ => Err(Error::Ambiguous(name.to_owned())),
    }
}

/// A kernel file of the user's own.
fn given(path: &Path) -> Result<Kernel, Error> {
    let path = path.canonicalize().map_err(Error::file("find the kernel", path))?;
    let size = fs::metadata(&path).map_err(Error::file("look at", &path))?.len();
    let meta = Meta {
        name: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        origin: Origin::Given,
        release: String::new(),
        source: path.display().to_string(),
        compiler: None,
        recipe: None,
        works_without_vtx: true,
        patches_left_out: Vec::new(),
        modules: Vec::new(),
    };
    Ok(Kernel { meta, hash: String::new(), image: path, size, module_files: Vec::new() })
}

/// Makes this kernel the one that is booted by default.
///
/// # Errors
/// The name fits no kernel, or more than one.
pub fn select(name: &str) -> Result<Kernel, Error> {
    let folder = folder()?;
    let kernel = pick(list()?, name)?;
    let path = folder.join("selected");
    let new = folder.join(".selected");
    fs::write(&new, &kernel.hash).map_err(Error::file("write", &new))?;
    fs::rename(&new, &path).map_err(Error::file("write", &path))?;
    Ok(kernel)
}

/// The hash of the selected kernel, if one was selected and is still there.
///
/// # Errors
/// There is no place for a cache.
pub fn selected() -> Result<Option<String>, Error> {
    Ok(selected_in(&folder()?))
}

fn selected_in(folder: &Path) -> Option<String> {
    let hash = fs::read_to_string(folder.join("selected")).ok()?.trim().to_owned();
    let plain = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (plain && folder.join(&hash).is_dir()).then_some(hash)
}

/// The kernel in this folder, if the folder is there.
pub(super) fn load(folder: &Path) -> Result<Option<Kernel>, Error> {
    let path = folder.join("meta.json");
    if !folder.exists() {
        return Ok(None);
    }
    let damaged = |reason: String| Error::Damaged { path: folder.to_owned(), reason };
    let text = fs::read(&path).map_err(|error| damaged(format!("meta.json: {error}")))?;
    let meta: Meta = serde_json::from_slice(&text).map_err(|error| damaged(format!("meta.json: {error}")))?;
    let image = folder.join("vmlinux");
    let size = fs::metadata(&image).map_err(|error| damaged(format!("vmlinux: {error}")))?.len();
    let module_files: Vec<_> = meta.modules.iter().map(|module| folder.join(module)).collect();
    if let Some(missing) = module_files.iter().find(|module| !module.is_file()) {
        return Err(damaged(format!("{} is missing", missing.display())));
    }
    let hash = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Some(Kernel { meta, hash, image, size, module_files }))
}

/// Puts a kernel into the cache: all of it, or nothing.
pub(super) fn install(
    kernels: &Path,
    hash: &str,
    meta: &Meta,
    image: &Path,
    config: Option<&Path>,
) -> Result<Kernel, Error> {
    let new = kernels.join(format!(".new-{hash}"));
    remove(&new)?;
    fs::create_dir_all(&new).map_err(Error::file("make the folder", &new))?;
    let vmlinux = new.join("vmlinux");
    fs::copy(image, &vmlinux).map_err(Error::file("copy the kernel to", &vmlinux))?;
    if let Some(config) = config {
        let to = new.join("config");
        fs::copy(config, &to).map_err(Error::file("copy the configuration to", &to))?;
    }
    write_meta(&new, meta)?;
    publish(kernels, &new, hash)
}

/// Removes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Writes `meta.json`.
pub(super) fn write_meta(folder: &Path, meta: &Meta) -> Result<(), Error> {
    let path = folder.join("meta.json");
    let text =
        serde_json::to_vec_pretty(meta).map_err(std::io::Error::from).map_err(Error::file("write", &path))?;
    let mut file = File::create(&path).map_err(Error::file("write", &path))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::file("write", &path))
}

/// Renames the finished folder to its hash.
pub(super) fn publish(kernels: &Path, new: &Path, hash: &str) -> Result<Kernel, Error> {
    let path = kernels.join(hash);
    fs::rename(new, &path).map_err(Error::file("rename to", &path))?;
    load(&path)?.ok_or_else(|| Error::Unknown(hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, origin: Origin) -> Meta {
        Meta {
            name: name.to_owned(),
            origin,
            release: "6.1.0".to_owned(),
            source: "6.1-1".to_owned(),
            compiler: None,
            recipe: None,
            works_without_vtx: true,
            patches_left_out: Vec::new(),
            modules: Vec::new(),
        }
    }

    /// A cache with a stock kernel and two lean ones; `c0de…` is the current recipe's.
    fn cache() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, "ELF").unwrap();
        for (hash, name, origin) in [
            ("aaaa0000", "cloud", Origin::Fetched),
            ("c0de0000", "lean", Origin::Built),
            ("bbbb0000", "lean", Origin::Built),
        ] {
            let meta = Meta { recipe: Some(hash.to_owned()), ..meta(name, origin) };
            install(folder.path(), hash, &meta, &image, None).unwrap();
        }
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        list_in(folder, "c0de0000").unwrap().into_iter().map(|kernel| kernel.hash).collect()
    }

    #[test]
    fn the_lean_kernel_of_the_current_recipe_comes_first_and_stock_ones_last() {
        let folder = cache();
        assert_eq!(names(folder.path()), ["c0de0000", "bbbb0000", "aaaa0000"]);
    }

    #[test]
    fn the_selected_kernel_comes_first_as_long_as_it_is_there() {
        let folder = cache();
        fs::write(folder.path().join("selected"), "aaaa0000\n").unwrap();
        assert_eq!(names(folder.path())[0], "aaaa0000");
        fs::remove_dir_all(folder.path().join("aaaa0000")).unwrap();
        assert_eq!(names(folder.path())[0], "c0de0000");
        fs::write(folder.path().join("selected"), "../..").unwrap();
        assert_eq!(selected_in(folder.path()), None);
    }

    #[test]
    fn a_kernel_is_found_by_name_release_and_hash() {
        let folder = cache();
        let kernels = || list_in(folder.path(), "c0de0000").unwrap();
        assert_eq!(pick(kernels(), "lean").unwrap().hash, "c0de0000");
        assert_eq!(pick(kernels(), "aaaa").unwrap().meta.name, "cloud");
        assert!(matches!(pick(kernels(), "6.1.0"), Err(Error::Ambiguous(_))));
        assert!(matches!(pick(kernels(), "windows"), Err(Error::Unknown(_))));
    }

    #[test]
    fn work_in_progress_is_no_kernel_and_damage_is_told() {
        let folder = cache();
        fs::create_dir(folder.path().join(".build-1")).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        fs::remove_file(folder.path().join("bbbb0000/vmlinux")).unwrap();
        let error = list_in(folder.path(), "").unwrap_err().to_string();
        assert!(error.contains("bbbb0000 is damaged (vmlinux:"), "{error}");
    }

    #[test]
    fn no_cache_is_no_kernels() {
        assert!(list_in(Path::new("/nonexistent/kernels"), "").unwrap().is_empty());
    }
}
