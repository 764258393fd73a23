//! Cgroups that a container made below its own, for processes that are added to it.

use std::path::{Component, Path};

use super::{Group, Membership};
use crate::error::{Error, Result};

impl Membership {
    /// The cgroups of a process that is added: the container's, or those that are named, as `path` or
    /// `controller,...:path`.
    pub(crate) fn below(&self, asked: &[String]) -> Result<Self> {
        let mut this = self.clone();
        for text in asked {
            let refused = |reason: &str| Err(Error::config(format!("--cgroup {text}"), reason));
            let (names, path) =
                text.split_once(':').map_or((None, text.as_str()), |(names, path)| (Some(names), path));
            let path = Path::new(path.trim_start_matches('/'));
            if path.components().any(|part| part == Component::ParentDir) {
                return refused("must not contain \"..\": it is below the container's own");
            }
            let mut chosen: Vec<&mut Group> = match names {
                None => this.groups.iter_mut().collect(),
                Some(names) => {
                    let group = |group: &&mut Group| {
                        let own = group.name.as_deref().unwrap_or_default();
                        own.split(',').any(|own| names.split(',').any(|name| name == own && !name.is_empty()))
                    };
                    this.groups.iter_mut().filter(group).collect()
                }
            };
            if chosen.is_empty() {
                return refused(
                    "the container has no cgroup of these controllers; version 2 takes a path alone",
                );
            }
            for group in &mut chosen {
                group.path.push(path);
                if !group.path.is_dir() {
                    let reason = format!("there is no {}; make it first", group.path.display());
                    return refused(&reason);
                }
            }
        }
        Ok(this)
    }

    /// Version 2: the cgroup that a process of the container is in now. A container that makes cgroups below its own, and
    /// hands controllers on to them, must leave its own (cgroup-v2.rst, "No Internal Process Constraint").
    pub(crate) fn of_process(&self, pid: i32) -> Option<Self> {
        let [group] = self.groups.as_slice() else { return None };
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let path = group.mount.join(path);
        let inside = group.name.is_none() && path != group.path && path.starts_with(&group.path);
        inside.then(|| Self { groups: vec![Group { path, ..group.clone() }], scope: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(below: &Path, asked: &[&str]) -> Result<Vec<String>> {
        let group = |name: Option<&str>| Group {
            name: name.map(str::to_owned),
            mount: below.to_owned(),
            path: below.to_owned(),
            made: None,
        };
        let all = Membership { groups: vec![group(Some("cpu,cpuacct")), group(Some("memory"))], scope: None };
        let asked: Vec<String> = asked.iter().map(|&text| text.to_owned()).collect();
        let all = all.below(&asked)?.groups.into_iter();
        Ok(all.map(|group| group.path.strip_prefix(below).unwrap().display().to_string()).collect())
    }

    #[test]
    fn a_cgroup_below_is_named_for_all_trees_or_some() {
        let directory = std::env::temp_dir().join(format!("lab-below-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("a/b")).unwrap();
        let of = |asked: &[&str]| groups(&directory, asked);
        assert_eq!(of(&[]).unwrap(), ["", ""]);
        assert_eq!(of(&["/a"]).unwrap(), ["a", "a"]);
        assert_eq!(of(&["cpuacct:a/b", "memory:a"]).unwrap(), ["a/b", "a"]);
        for wrong in ["x", "../a", "a/../..", "pids:a", ":a"] {
            assert!(
                of(&[wrong]).unwrap_err().to_string().starts_with(&format!("--cgroup {wrong}: ")),
                "{wrong}"
            );
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
