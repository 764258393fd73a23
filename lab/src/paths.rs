//! Where everything lies: images and other data, run-time state, caches.
//!
//! The places follow the XDG Base Directory Specification; root gets the system's places of the Filesystem Hierarchy
//! Standard instead, so that `sudo lab` and a root shell agree. Nothing is created here: who writes to a place makes it.
//!
//! | what | for a user | for root | overridden by |
//! |---|---|---|---|
//! | data: images by digest, snapshots | `$XDG_DATA_HOME/lab`, `~/.local/share/lab` | `/var/lib/lab` | `LAB_HOME` |
//! | cache: kernels | `$XDG_CACHE_HOME/lab`, `~/.cache/lab` | the same | `XDG_CACHE_HOME` |
//! | run: state of sandboxes | `$XDG_RUNTIME_DIR/lab`, `/run/user/UID/lab`, `/tmp/lab-UID` | `$XDG_RUNTIME_DIR/lab`, `/run/lab` | `XDG_RUNTIME_DIR` |

use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::{env, io};

use thiserror::Error;

/// Why there is no place.
#[derive(Debug, Error)]
pub enum Error {
    /// Neither the XDG variable nor HOME is set to an absolute path.
    #[error("no place for {what}: neither {variable} nor HOME is an absolute path; set {variable}")]
    NoPlace {
        /// What was to be stored.
        what: &'static str,
        /// The variable that would settle it.
        variable: &'static str,
    },
    /// The folder in `/tmp` exists, and is not this user's alone.
    #[error("{} is not a folder of this user's alone, so the state of running sandboxes is not safe there; set XDG_RUNTIME_DIR", .0.display())]
    NotOurs(PathBuf),
    /// The folder in `/tmp` cannot be made.
    #[error("make the folder {}: {source}; set XDG_RUNTIME_DIR", .path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What must last: images, their unpacked layers and root disks.
///
/// # Errors
/// Where no variable names a place.
pub fn data() -> Result<PathBuf, Error> {
    Environment::of_process().data()
}

/// What can be fetched or built again: kernels and their sources.
///
/// # Errors
/// Where no variable names a place.
pub fn cache() -> Result<PathBuf, Error> {
    Environment::of_process().cache()
}

/// What ends with the machine's next start: the state of the sandboxes that run now.
///
/// # Errors
/// Where no variable names a place and the one in `/tmp` is somebody else's.
pub fn run() -> Result<PathBuf, Error> {
    match Environment::of_process().run() {
        Some(place) => Ok(place),
        // No session manager gave this user a folder: after su(1), in cron, in a container.
        None => of_this_user(&format!("/tmp/lab-{}", rustix::process::geteuid().as_raw())),
    }
}

/// A folder in a place where everyone may make one: made with no rights for others, or found to be like that already. Who made
/// one of this name before us could otherwise look into our sandboxes.
fn of_this_user(path: &str) -> Result<PathBuf, Error> {
    let path = PathBuf::from(path);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::Make { path, source: error });
        }
        _ => {}
    }
    match path.symlink_metadata() {
        Ok(found) if is_ours(&found) => Ok(path),
        _ => Err(Error::NotOurs(path)),
    }
}

/// Whether it is a folder of this user's that nobody else may enter or change.
fn is_ours(found: &Metadata) -> bool {
    let alone = found.mode() & 0o777 == 0o700;
    found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && alone
}

/// The part of the process's surroundings that decides; a value of its own so that tests need not change theirs.
#[derive(Default)]
struct Environment {
    root: bool,
    lab_home: Option<PathBuf>,
    home: Option<PathBuf>,
    data_home: Option<PathBuf>,
    cache_home: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    /// What `XDG_RUNTIME_DIR` would say, had it survived.
    session: Option<PathBuf>,
}

impl Environment {
    fn of_process() -> Self {
        // The specification: "All paths set in these environment variables must be absolute. If an implementation
        // encounters a relative path ... it should consider the path invalid and ignore it."
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            root: rustix::process::geteuid().is_root(),
            // LAB_HOME is ours: a relative one is meant from where the command was given.
            lab_home: env::var_os("LAB_HOME")
                .filter(|path| !path.is_empty())
                .and_then(|path| std::path::absolute(path).ok()),
            home: absolute("HOME"),
            data_home: absolute("XDG_DATA_HOME"),
            cache_home: absolute("XDG_CACHE_HOME"),
            runtime_dir: absolute("XDG_RUNTIME_DIR"),
            session: Some(format!("/run/user/{}", rustix::process::geteuid().as_raw()).into())
                .filter(|path: &PathBuf| path.symlink_metadata().is_ok_and(|found| is_ours(&found))),
        }
    }

    fn data(self) -> Result<PathBuf, Error> {
        if let Some(place) = self.lab_home {
            return Ok(place);
        }
        if self.root {
            return Ok("/var/lib/lab".into());
        }
        let base = self.data_home.or_else(|| self.home.map(|home| home.join(".local/share")));
        base.map(|base| base.join("lab")).ok_or(Error::NoPlace { what: "images", variable: "XDG_DATA_HOME" })
    }

    fn cache(self) -> Result<PathBuf, Error> {
        let base = self.cache_home.or_else(|| self.home.map(|home| home.join(".cache")));
        match base {
            Some(base) => Ok(base.join("lab")),
            // A service of the system may run as root without HOME.
            None if self.root => Ok("/var/cache/lab".into()),
            None => Err(Error::NoPlace { what: "kernels", variable: "XDG_CACHE_HOME" }),
        }
    }

    fn run(self) -> Option<PathBuf> {
        match self.runtime_dir {
            Some(base) => Some(base.join("lab")),
            None if self.root => Some("/run/lab".into()),
            None => self.session.map(|base| base.join("lab")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn user() -> Environment {
        Environment { home: Some("/home/eva".into()), ..Environment::default() }
    }

    #[test]
    fn a_user_without_xdg_variables_gets_the_specification_s_defaults() {
        assert_eq!(user().data().unwrap(), Path::new("/home/eva/.local/share/lab"));
        assert_eq!(user().cache().unwrap(), Path::new("/home/eva/.cache/lab"));
    }

    #[test]
    fn root_gets_the_system_s_places() {
        let root = || Environment { root: true, ..user() };
        assert_eq!(root().data().unwrap(), Path::new("/var/lib/lab"));
        assert_eq!(root().run().unwrap(), Path::new("/run/lab"));
    }

    #[test]
    fn lab_home_overrides_the_place_of_data_for_everyone() {
        for root in [false, true] {
            let environment = Environment { root, lab_home: Some("/tmp/try".into()), ..user() };
            assert_eq!(environment.data().unwrap(), Path::new("/tmp/try"));
        }
    }

    #[test]
    fn without_any_variable_the_error_names_the_one_to_set() {
        let error = Environment::default().data().unwrap_err();
        assert!(error.to_string().ends_with("set XDG_DATA_HOME"), "{error}");
    }

    #[test]
    fn a_folder_in_tmp_is_taken_only_if_it_is_this_user_s_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let path = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
        assert!(of_this_user(&path("new")).is_ok());
        assert!(of_this_user(&path("new")).is_ok(), "a second time");
        std::os::unix::fs::symlink(path("new"), path("link")).unwrap();
        std::fs::create_dir(path("open")).unwrap();
        std::fs::set_permissions(path("open"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["link", "open"] {
            assert!(matches!(of_this_user(&path(name)), Err(Error::NotOurs(_))), "{name}");
        }
    }
}
