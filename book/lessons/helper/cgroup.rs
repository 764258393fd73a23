//! Where this program may make control groups (`cgroups(7)`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the group that this container was given, in which it may make others. On cgroup version 2 a group that hands
/// limits on to its children must not have processes of its own: so this process moves into a child, `own`, first.
pub fn folder() -> io::Result<PathBuf> {
    let v1 = Path::new("/sys/fs/cgroup/pids");
    if v1.is_dir() {
        return Ok(v1.to_owned());
    }
    let folder = Path::new("/sys/fs/cgroup");
    let own = folder.join("own");
    if !own.is_dir() {
        fs::create_dir(&own)?;
        fs::write(own.join("cgroup.procs"), "0")?;
        fs::write(folder.join("cgroup.subtree_control"), "+pids")?;
    }
    Ok(folder.to_owned())
}
