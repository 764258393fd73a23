//! Mounts: from the specification's words to the kernel's flags.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::mount::MountPropagationFlags as Propagation;

use super::{Namespaces, Surroundings, inside};
use crate::error::{Error, Result};
use crate::security::lsm;
use crate::spec::{c_path, c_string};

/// One mount, made ready.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// For messages: the destination as the configuration has it.
    pub(crate) name: String,
    /// Relative to the container's root.
    pub(crate) target: CString,
    pub(crate) source: Source,
    pub(crate) attributes: Attributes,
    /// /proc and /sys must be directories themselves: through a symbolic link, masked paths would be missed.
    pub(crate) no_symlinks: bool,
    /// Whether it begins with what is in the directory that it covers.
    pub(crate) copy_up: bool,
    /// Whether it may lie over a part of a /proc: what the runtime and the kernel read there must be the kernel's own
    /// (CVE-2019-16884, CVE-2019-19921).
    pub(crate) over_proc: bool,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file system of its own: type, then its parameters as `fsconfig(2)` takes them.
    FileSystem { typ: CString, source: Option<CString>, parameters: Vec<(CString, Option<CString>)> },
    /// A part of the host's tree.
    Bind { path: CString, recursive: bool },
    /// A part of the host's tree that the runtime has prepared already, with other owners.
    Prepared { tree: OwnedFd, path: CString },
    /// A symbolic link (the alias of a cgroup v1 hierarchy), which is no mount but belongs in the same order.
    Link { to: CString },
    /// No new mount: new attributes for the one that is there.
    Remount,
}

/// Attributes of a mount, as `mount_setattr(2)` takes them: of the mount itself, and of the whole tree below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) tree_set: u64,
    pub(crate) tree_clear: u64,
    pub(crate) propagation: Option<Propagation>,
}

/// Option, the bits that it sets, the bits that it clears; with an "r" in front, for the whole tree.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    // The access time has one field for its three values (mount_setattr(2)): setting one clears the field first.
    ("relatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("norelatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("atime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
];

const PROPAGATIONS: &[(&str, Propagation)] = &[
    ("private", Propagation::PRIVATE),
    ("shared", Propagation::SHARED),
    ("slave", Propagation::DOWNSTREAM),
    ("unbindable", Propagation::UNBINDABLE),
];

/// Files of /proc that engines cover with others, as lxcfs has them for a container's own limits.
const OVER_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// Options that are no parameters of a file system and change nothing here.
const IGNORED: &[&str] =
    &["defaults", "async", "nomand", "silent", "loud", "iversion", "noiversion", "nolazytime"];

/// Options that the kernel takes for every file system beside its own parameters (vfs_parse_sb_flag, fs/fs_context.c).
const OF_ALL: &[&str] = &["sync", "dirsync", "mand", "lazytime"];

impl Attributes {
    /// Takes one option; false if it is none of these.
    fn take(&mut self, option: &str) -> bool {
        if let Some(&(_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
            self.set = (self.set & !clear) | set;
            self.clear = (self.clear & !set) | clear;
            return true;
        }
        if let Some(rest) = option.strip_prefix('r')
            && let Some(&(_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == rest)
        {
            self.tree_set = (self.tree_set & !clear) | set;
            self.tree_clear = (self.tree_clear & !set) | clear;
            return true;
        }
        match propagation(option) {
            Some(flags) => self.propagation = Some(flags),
            None => return false,
        }
        true
    }

    pub(crate) fn changes_mount(&self) -> bool {
        self.set | self.clear != 0
    }

    pub(crate) fn changes_tree(&self) -> bool {
        self.tree_set | self.tree_clear != 0
    }
}

/// Every option that is no parameter of a file system.
pub(crate) fn mount_options() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let propagations = PROPAGATIONS.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]);
    let others = ["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"];
    let others = others.iter().chain(IGNORED).chain(OF_ALL).map(|&name| name.to_owned());
    let mut all: Vec<String> = attributes.chain(propagations).chain(others).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// "private", "rprivate", ... as flags of `mount(2)`.
fn propagation(option: &str) -> Option<Propagation> {
    let find = |option: &str| PROPAGATIONS.iter().find(|(name, _)| *name == option).map(|&(_, flags)| flags);
    find(option).or_else(|| Some(find(option.strip_prefix('r')?)? | Propagation::REC))
}

/// How the copy of the host's mounts is cut off from the host's: changes there may still arrive (slave), never leave.
pub(super) fn root_propagation(value: Option<&str>) -> Result<Propagation> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(Propagation::DOWNSTREAM | Propagation::REC);
    };
    propagation(value).map(|flags| flags | Propagation::REC).ok_or_else(|| {
        let reason =
            format!("{value:?} is none of private, shared, slave, unbindable (or these with r in front)");
        Error::config("linux.rootfsPropagation", reason)
    })
}

/// Adds what one entry of `mounts` means to the plan.
pub(crate) fn mount_plan(
    plan: &mut Vec<MountPlan>,
    index: usize,
    mount: &Mount,
    around: &Surroundings<'_>,
    namespaces: &Namespaces,
    label: Option<&str>,
) -> Result<()> {
    let field = format!("mounts[{index}]");
    let mut attributes = Attributes::default();
    let (mut bind, mut remount, mut copy_up) = (None, false, false);
    let maps = |maps: &Option<Vec<LinuxIdMapping>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
    let mut idmap = (maps(mount.uid_mappings()) || maps(mount.gid_mappings())).then_some(false);
    let mut data = Vec::new();
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "bind" => bind = bind.or(Some(false)),
            "rbind" => bind = Some(true),
            "remount" => remount = true,
            "tmpcopyup" => copy_up = true,
            "idmap" => idmap = idmap.or(Some(false)),
            "ridmap" => idmap = Some(true),
            option if attributes.take(option) || IGNORED.contains(&option) => {}
            option => data.push(option),
        }
    }
    let typ = mount.typ().as_deref().unwrap_or("none");
    let no_symlinks = matches!(typ, "proc" | "sysfs");
    if matches!(typ, "bind" | "rbind") && bind.is_none() {
        bind = Some(typ == "rbind");
    }
    let source = if remount {
        Source::Remount
    } else if let Some(recursive) = bind {
        let path =
            mount.source().as_ref().ok_or_else(|| Error::config(&*field, "a bind mount needs a source"))?;
        let path = around.bundle.join(path);
        if let Some(tree) = idmap.take() {
            let maps = super::idmap::maps(&field, mount, namespaces)?;
            let tree = super::idmap::prepare(&field, &path, recursive || tree, &maps, &mut attributes)?;
            Source::Prepared { tree, path: c_path(&field, path)? }
        } else {
            Source::Bind { path: c_path(&field, path)?, recursive }
        }
    } else if typ == "cgroup" {
        return cgroup(plan, &field, mount, attributes, around, namespaces);
    } else {
        if matches!(typ, "none" | "") {
            return Err(Error::config(
                field,
                "has no type; a bind mount needs the option \"bind\" or \"rbind\"",
            ));
        }
        let mut source = file_system(&field, typ, mount.source().as_deref(), &data)?;
        // File systems whose files have no labels of their own take the container's (mount(8), "context=").
        if let (Some(label), "tmpfs" | "mqueue" | "devpts", Source::FileSystem { parameters, .. }) =
            (label.filter(|label| !label.is_empty()), typ, &mut source)
        {
            lsm::check_selinux("linux.mountLabel")?;
            parameters.push((c"context".into(), Some(c_string("linux.mountLabel", label)?)));
        }
        source
    };
    if idmap.is_some() {
        return Err(Error::config(
            field,
            "only a bind mount can be idmapped: add the option \"bind\" or \"rbind\"",
        ));
    }
    if copy_up && !matches!(&source, Source::FileSystem { typ, .. } if typ.as_c_str() == c"tmpfs") {
        return Err(Error::config(field, "the option \"tmpcopyup\" is for a tmpfs"));
    }
    let over_proc = typ == "proc"
        || matches!(&source, Source::Remount)
        || OVER_PROC.iter().any(|file| mount.destination().as_os_str() == *file);
    let target = inside(&field, mount.destination())?;
    let name = mount.destination().display().to_string();
    plan.push(MountPlan { name, target, source, attributes, no_symlinks, copy_up, over_proc });
    Ok(())
}

fn file_system(field: &str, typ: &str, source: Option<&Path>, options: &[&str]) -> Result<Source> {
    let mut parameters = Vec::new();
    for option in options.iter().flat_map(|option| option.split(',')).filter(|option| !option.is_empty()) {
        parameters.push(match option.split_once('=') {
            Some((key, value)) => (c_string(field, key)?, Some(c_string(field, value)?)),
            None => (c_string(field, option)?, None),
        });
    }
    let source = source.map(|source| c_path(field, source)).transpose()?;
    Ok(Source::FileSystem { typ: c_string(field, typ)?, source, parameters })
}

/// The container's own cgroups: one tree on v2; on v1 a directory of one tree for each hierarchy. They are bound from
/// the host's mounts, which shows the same as mounting them anew and takes fewer steps.
fn cgroup(
    plan: &mut Vec<MountPlan>,
    field: &str,
    mount: &Mount,
    attributes: Attributes,
    around: &Surroundings<'_>,
    namespaces: &Namespaces,
) -> Result<()> {
    let target = mount.destination();
    let mut add = |path: &Path, source, attributes| -> Result<()> {
        let name = path.display().to_string();
        let target = inside(field, path)?;
        plan.push(MountPlan {
            name,
            target,
            source,
            attributes,
            no_symlinks: false,
            copy_up: false,
            over_proc: false,
        });
        Ok(())
    };
    let bind = |path: PathBuf| Ok::<_, Error>(Source::Bind { path: c_path(field, path)?, recursive: false });
    let views = around.cgroup.views();
    match views.as_slice() {
        // Without cgroups of its own the container sees the host's, as other rootless engines do.
        [] => {
            let path = c_path(field, "/sys/fs/cgroup")?;
            let attributes = Attributes { tree_set: attributes.set, ..attributes };
            add(target, Source::Bind { path, recursive: true }, attributes)
        }
        [(None, _)] if namespaces.new_cgroup => {
            let source =
                Source::FileSystem { typ: c_string(field, "cgroup2")?, source: None, parameters: vec![] };
            add(target, source, attributes)
        }
        [(None, path)] => add(target, bind(path.clone())?, attributes),
        views => {
            let writable = Attributes { set: attributes.set & !libc::MOUNT_ATTR_RDONLY, ..attributes };
            add(target, file_system(field, "tmpfs", None, &["mode=755"])?, writable)?;
            let mut aliases = HashSet::new();
            for (name, path) in views {
                let name = name.as_deref().unwrap_or("unified");
                add(&target.join(name), bind(path.clone())?, attributes)?;
                if name.contains(',') {
                    for alias in name.split(',').filter(|alias| aliases.insert(alias.to_string())) {
                        let to = c_string(field, name)?;
                        add(&target.join(alias), Source::Link { to }, Attributes::default())?;
                    }
                }
            }
            if attributes.set & libc::MOUNT_ATTR_RDONLY != 0 {
                add(target, Source::Remount, attributes)?;
            }
            Ok(())
        }
    }
}

impl MountPlan {
    /// Whether something of the host's is mounted exactly there.
    pub(crate) fn binds(&self, target: &CStr) -> bool {
        matches!(self.source, Source::Bind { .. } | Source::Prepared { .. })
            && self.target.as_c_str() == target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(options: &[&str]) -> Attributes {
        let mut attributes = Attributes::default();
        for option in options {
            assert!(attributes.take(option), "{option} is an option");
        }
        attributes
    }

    #[test]
    fn of_two_contrary_options_the_last_wins() {
        let attributes = attributes(&["ro", "rw"]);
        assert_eq!((attributes.set, attributes.clear), (0, libc::MOUNT_ATTR_RDONLY));
    }

    #[test]
    fn an_access_time_option_clears_the_whole_field() {
        let attributes = attributes(&["noatime"]);
        assert_eq!((attributes.set, attributes.clear), (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME));
    }

    #[test]
    fn an_r_in_front_means_the_whole_tree() {
        let attributes = attributes(&["rro", "rslave"]);
        assert_eq!((attributes.set, attributes.tree_set), (0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(attributes.propagation, Some(Propagation::DOWNSTREAM | Propagation::REC));
    }

    #[test]
    fn options_of_file_systems_are_left_to_them() {
        let Source::FileSystem { parameters, .. } =
            file_system("x", "tmpfs", None, &["mode=755,noswap"]).unwrap()
        else {
            panic!("a file system")
        };
        assert_eq!(parameters, [(c"mode".into(), Some(c"755".into())), (c"noswap".into(), None)]);
        assert!(!Attributes::default().take("mode=755"));
    }
}
