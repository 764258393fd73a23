//! What boots in the second wall: a guest kernel, or what is needed to build one; and room on the disk.

use std::path::{Path, PathBuf};

use super::{Check, install};
use crate::{kernel, paths};

/// A build unpacks some 1.3 GiB of sources and makes 0.4 GiB of objects.
const ROOM_TO_BUILD: u64 = 3 << 30;
/// Images, their root disks, results.
const ROOM_TO_RUN: u64 = 512 << 20;

pub(super) fn checks(needs_patched: bool) -> Vec<Check> {
    let guest = guest_kernel(needs_patched);
    let built = guest.fix.is_none();
    let cache = paths::cache().map_err(|error| error.to_string());
    let data = paths::data().map_err(|error| error.to_string());
    vec![
        guest,
        packages(built),
        room("room for kernels", cache, if built { ROOM_TO_RUN } else { ROOM_TO_BUILD }, "XDG_CACHE_HOME"),
        room("room for images", data, ROOM_TO_RUN, "LAB_HOME"),
    ]
}

fn guest_kernel(needs_patched: bool) -> Check {
    const NAME: &str = "guest kernel";
    const BUILD: &str = "lab kernel build";
    match kernel::resolve(None) {
        Ok(Some(kernel)) if needs_patched && !kernel.meta.works_without_vtx => Check::missing(
            NAME,
            format!(
                "{} {} runs no programs on a KVM without hardware",
                kernel.meta.name, kernel.meta.release
            ),
            BUILD,
        ),
        Ok(Some(kernel)) => {
            let meta = kernel.meta;
            Check::found(NAME, format!("{} {} ({})", meta.name, meta.release, meta.origin.name()))
        }
        Ok(None) => Check::missing(NAME, "none yet", BUILD),
        Err(error) => Check::missing(NAME, error.to_string(), BUILD),
    }
}

/// Compiler, flex, bison, bc, libelf and the kernel's source.
fn packages(built: bool) -> Check {
    const NAME: &str = "to build a kernel";
    let missing = kernel::missing_for_build();
    if missing.is_empty() {
        return Check::found(NAME, "compiler, flex, bison, bc, libelf and the kernel's source");
    }
    let names = missing.names.join(" ");
    let state = if built { Check::limited } else { Check::missing };
    state(NAME, format!("not installed: {names}"), install(&names))
}

fn room(name: &'static str, folder: Result<PathBuf, String>, least: u64, variable: &str) -> Check {
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => return Check::missing(name, error, format!("export {variable}=/some/folder")),
    };
    // The nearest folder above that is there already.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let shown = folder.display();
    let Ok(stat) = rustix::fs::statvfs(there) else {
        return Check::limited(
            name,
            format!("{shown} cannot be asked"),
            format!("export {variable}=/another/folder"),
        );
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let free_text = crate::report::figures::bytes(free as i64);
    if nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_err() {
        return Check::missing(
            name,
            format!("{shown} cannot be written"),
            format!("export {variable}=$HOME/lab"),
        );
    }
    if free < least {
        let need = crate::report::figures::bytes(least as i64);
        let fix = format!("export {variable}=/a/folder/with/room");
        return Check::missing(name, format!("{free_text} free in {shown}, {need} needed"), fix);
    }
    Check::found(name, format!("{free_text} free in {shown}"))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let folder = std::env::temp_dir().join("not/there/yet");
        assert_eq!(room("room", Ok(folder), 1, "X").state, State::Found);
    }

    #[test]
    fn too_little_room_and_no_place_at_all_name_the_variable_to_set() {
        let full = room("room", Ok(std::env::temp_dir()), u64::MAX, "XDG_CACHE_HOME");
        assert!(full.state == State::Missing && full.fix.unwrap().contains("XDG_CACHE_HOME"));
        let nowhere = room("room", Err("no place".into()), 1, "LAB_HOME");
        assert!(nowhere.state == State::Missing && nowhere.fix.unwrap().contains("LAB_HOME"));
    }
}
