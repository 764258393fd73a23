//! One entry of a layer in the one form that both walls build from.
//!
//! Everything a hostile archive can say about names ends here: a path that climbs (`..`), an attribute that would
//! steer the overlay file system, a device that stands for a whiteout, owners that do not exist.

use tar_core::EntryType;

use crate::image::tar::Member;

/// What an entry tells to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name for an earlier entry, whose path is `target` (in the form of [`Entry::path`]).
    HardLink {
        target: Vec<u8>,
    },
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
    /// The lower layers' entry of this name is gone (OCI image specification, "Layer", section "Whiteouts").
    Whiteout,
    /// Nothing of the lower layers' directory shines through: the path is the directory's.
    Opaque,
}

/// What `stat(2)` and `listxattr(2)` are to say about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    /// A directory that an archive implies but does not list: what docker makes of it.
    pub fn implied_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }
}

/// An entry of a layer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to the layer's root, without `.`, `..` or empty parts; empty for the root itself.
    pub path: Vec<u8>,
    pub metadata: Metadata,
    pub kind: Kind,
}

/// `NAME_MAX` of `limits.h`.
const LONGEST_NAME: usize = 255;
/// `PATH_MAX` of `limits.h`, with the final NUL; the longest target of a symbolic link.
const LONGEST_TARGET: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";
/// aufs kept its own bookkeeping under this prefix; the opaque marker is the only one that means anything elsewhere.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Entry {
    /// Judges a member. None for one that means nothing to us.
    pub fn new(member: Member) -> Result<Option<Self>, String> {
        let mut path = normalize(&member.path)?;
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let kind = if name == OPAQUE {
            path.truncate(path.len().saturating_sub(OPAQUE.len() + 1));
            Kind::Opaque
        } else if name.starts_with(AUFS) {
            return Ok(None);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let hidden = hidden.to_owned();
            if matches!(&hidden[..], b"" | b"." | b"..") {
                return Err("its whiteout names no entry".to_owned());
            }
            path.truncate(path.len() - WHITEOUT.len() - hidden.len());
            path.extend_from_slice(&hidden);
            Kind::Whiteout
        } else {
            kind(&member)?
        };
        if path.is_empty() && !matches!(kind, Kind::Directory | Kind::Opaque) {
            return Err("it would replace the layer's root".to_owned());
        }
        Ok(Some(Self { path, metadata: metadata(member)?, kind }))
    }

    /// The path for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

fn kind(member: &Member) -> Result<Kind, String> {
    Ok(match member.kind {
        EntryType::Regular | EntryType::Continuous => Kind::File { size: member.size },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            if member.link.is_empty() || member.link.len() > LONGEST_TARGET || member.link.contains(&0) {
                return Err("its target is no path".to_owned());
            }
            // Kept as it is, wherever it points: it is resolved inside the sandbox, not here.
            Kind::Symlink { target: member.link.clone() }
        }
        EntryType::Link => {
            let target = normalize(&member.link).map_err(|reason| format!("its target: {reason}"))?;
            if target.is_empty() {
                return Err("it is a hard link to nothing".to_owned());
            }
            Kind::HardLink { target }
        }
        // Overlay's own form of a whiteout (Documentation/filesystems/overlayfs.rst), from a tar of an upper directory.
        EntryType::Char if member.device == (0, 0) => Kind::Whiteout,
        EntryType::Char | EntryType::Block => {
            let (major, minor) = member.device;
            // The kernel's dev_t: 12 bits of major, 20 of minor (include/linux/kdev_t.h).
            if major >= 1 << 12 || minor >= 1 << 20 {
                return Err(format!("there is no device {major}:{minor}"));
            }
            Kind::Device { block: member.kind == EntryType::Block, major, minor }
        }
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(format!("its type '{}' is unknown", char::from(other.to_byte()).escape_default()));
        }
    })
}

fn metadata(member: Member) -> Result<Metadata, String> {
    let id = |id: u64, what| match u32::try_from(id) {
        // -1 means "leave as it is" to chown(2), so it is nobody's number.
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(format!("its {what} {id} does not exist")),
    };
    Ok(Metadata {
        mode: (member.mode & 0o7777) as u16,
        uid: id(member.uid, "owner")?,
        gid: id(member.gid, "group")?,
        mtime: member.mtime,
        xattrs: member.xattrs.into_iter().filter(|(name, _)| is_wanted(name)).collect(),
    })
}

/// The attributes that belong to the file. Overlay's own would let a layer say where the overlay is to look for a file
/// (`redirect`, `metacopy`); names outside the four namespaces of `xattr(7)` exist on no Linux file system.
fn is_wanted(name: &[u8]) -> bool {
    const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let known = ACLS.contains(&name)
        || NAMESPACES.iter().any(|namespace| name.len() > namespace.len() && name.starts_with(namespace));
    known && !overlay && name.len() <= LONGEST_NAME && !name.contains(&0)
}

/// A path relative to the layer's root: leading slashes and `.` go, `..` is refused.
fn normalize(path: &[u8]) -> Result<Vec<u8>, String> {
    if path.contains(&0) {
        return Err("its path has a NUL byte".to_owned());
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path leads out of the layer ('..')".to_owned()),
            _ if part.len() > LONGEST_NAME => return Err("a part of its path is too long".to_owned()),
            _ => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, kind: EntryType) -> Member {
        Member {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn file(path: &str) -> Result<Option<Entry>, String> {
        Entry::new(member(path, EntryType::Regular))
    }

    #[test]
    fn paths_are_relative_to_the_layer_whatever_they_say() {
        for (given, path) in
            [("a/b", "a/b"), ("./a//b", "a/b"), ("/etc/passwd", "etc/passwd"), ("a/./b/", "a/b")]
        {
            assert_eq!(file(given).unwrap().unwrap().path, path.as_bytes());
        }
    }

    #[test]
    fn a_path_that_climbs_or_replaces_the_root_is_refused() {
        for given in ["../a", "a/../../b", "a/..", "/", ".", "a\0b"] {
            assert!(file(given).is_err(), "{given:?}");
        }
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        let entry = file("etc/.wh.passwd").unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.kind), (&b"etc/passwd"[..], Kind::Whiteout));
        let entry = file("etc/.wh..wh..opq").unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.kind), (&b"etc"[..], Kind::Opaque));
        let entry = file(".wh..wh..opq").unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.kind), (&b""[..], Kind::Opaque));
        assert!(file("etc/.wh..wh.plnk").unwrap().is_none(), "aufs's bookkeeping is skipped");
        for given in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(file(given).is_err(), "{given:?} would hide a directory or its parent");
        }
    }

    #[test]
    fn overlay_s_own_whiteout_is_a_whiteout_and_other_devices_are_devices() {
        assert_eq!(Entry::new(member("a", EntryType::Char)).unwrap().unwrap().kind, Kind::Whiteout);
        let null = Member { device: (1, 3), ..member("null", EntryType::Char) };
        assert_eq!(
            Entry::new(null).unwrap().unwrap().kind,
            Kind::Device { block: false, major: 1, minor: 3 }
        );
        let nonsense = Member { device: (4096, 0), ..member("x", EntryType::Block) };
        assert!(Entry::new(nonsense).is_err());
    }

    #[test]
    fn a_layer_cannot_steer_the_overlay() {
        let name = |name: &str| (name.as_bytes().to_vec(), b"value".to_vec());
        let hostile = Member {
            xattrs: vec![
                name("trusted.overlay.redirect"),
                name("user.overlay.opaque"),
                name("security.capability"),
                name("system.other"),
                name("user."),
            ],
            ..member("a", EntryType::Directory)
        };
        let entry = Entry::new(hostile).unwrap().unwrap();
        assert_eq!(entry.metadata.xattrs, [name("security.capability")]);
    }

    #[test]
    fn owners_that_do_not_exist_are_refused() {
        for uid in [u64::from(u32::MAX), 1 << 32] {
            assert!(Entry::new(Member { uid, ..member("a", EntryType::Regular) }).is_err());
        }
    }

    #[test]
    fn a_hard_link_s_target_obeys_the_same_rules() {
        let link = |target: &str| {
            Entry::new(Member { link: target.into(), ..member("a", EntryType::Link) })
                .map(|entry| entry.unwrap().kind)
        };
        assert_eq!(link("/bin/x").unwrap(), Kind::HardLink { target: b"bin/x".to_vec() });
        assert!(link("../../etc/shadow").is_err());
        assert!(link("").is_err());
    }
}
