//! The root disk: the kernel mounts it, and it shows what overlay shows of the same layers, byte by byte.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tar_core::EntryType;

use crate::fixture::{Place, Tar, is_root, skip};

/// What `stat`, `readlink`, `getxattr` and `read` say about one path.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = match fs::symlink_metadata(&path) {
            // Overlay lists a directory that only one layer has as it is, with whiteouts that hide nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            stat => stat.unwrap(),
        };
        let content = match stat.mode() & 0o170_000 {
            0o100_000 => fs::read(&path).unwrap(),
            0o120_000 => fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let mut names = vec![0; 65536];
        let length = rustix::fs::llistxattr(&path, &mut names).unwrap_or(0);
        let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let xattrs = names.filter(|name| !name.windows(9).any(|part| part == b".overlay."));
        let xattrs = xattrs.map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(&path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        });
        let fact = Facts {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            device: stat.rdev(),
            content,
            xattrs: xattrs.collect(),
        };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), fact);
    }
    // The root's own attributes are those of the sandbox's writable layer.
    all.remove(Path::new(""));
    all
}

/// Mounts both in a namespace of a thread's own, which takes them along when it ends, and hands them to `look`.
fn mounted(place: &Place, layers: Vec<Tar>, look: impl FnOnce(&Path, &Path) + Send) {
    let image = place.image(layers);
    let directories = place.store.layer_dirs(&image, &()).unwrap();
    let disk = place.store.root_disk(&image, &()).unwrap();
    assert_eq!(fs::metadata(&disk.path).unwrap().len() % 4096, 0);
    assert_eq!(place.store.root_disk(&image, &()).unwrap(), disk, "and is built once");
    let [empty, overlay, erofs] = ["empty", "overlay", "erofs"].map(|name| {
        let path = place.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    });
    thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let mount = |arguments: &[OsString]| {
                let output = Command::new("mount").args(arguments).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            };
            mount(&["--make-rprivate", "/"].map(OsString::from));
            // Overlay without an upper directory wants two lower ones.
            let mut lower = OsString::from("ro,lowerdir=");
            for directory in &directories {
                lower.push(directory);
                lower.push(":");
            }
            lower.push(&empty);
            mount(&["-t".into(), "overlay".into(), "-o".into(), lower, "lab".into(), overlay.clone().into()]);
            mount(&[
                "-t".into(),
                disk.fs_type.into(),
                "-o".into(),
                "ro,loop".into(),
                disk.path.into(),
                erofs.clone().into(),
            ]);
            look(&overlay, &erofs);
        });
    });
}

fn assert_same(layers: Vec<Tar>) {
    let place = Place::new();
    mounted(&place, layers, |overlay, erofs| {
        let (container, machine) = (facts(overlay), facts(erofs));
        let paths = |facts: &BTreeMap<PathBuf, Facts>| facts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&container), paths(&machine));
        for (path, fact) in &container {
            assert_eq!(fact, &machine[path], "{}", path.display());
        }
        assert!(!container.is_empty());
    });
}

#[test]
fn the_kernel_shows_the_disk_as_overlay_shows_the_layers() {
    if !is_root() {
        return skip("the_kernel_shows_the_disk_as_overlay_shows_the_layers", "mounting needs root");
    }
    let lower = Tar::new()
        .dir("etc/")
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        .file("etc/gone", "gone")
        .dir("opaque/")
        .file("opaque/gone", "gone")
        .dir("replaced/")
        .file("replaced/gone", "gone")
        .file("exactly-one-block", vec![1; 4096])
        .file("large", vec![7; 3 * 4096 + 5])
        .file("empty", "")
        .member("tmp/", EntryType::Directory, b"", |entry| entry.mode(0o1777).unwrap())
        .member("su", EntryType::Regular, b"su", |entry| entry.mode(0o4755).unwrap())
        .member("owned", EntryType::Regular, b"", |entry| entry.uid(70000).unwrap().gid(80000).unwrap())
        .member("time", EntryType::Regular, b"", |entry| entry.add_pax("mtime", "1700000000.123456789"))
        .member("capable", EntryType::Regular, b"", |entry| {
            // cap_net_raw+ep, revision 2 (include/uapi/linux/capability.h).
            let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            entry.add_pax("SCHILY.xattr.security.capability", value)
        })
        .member("attributes/", EntryType::Directory, b"", |entry| {
            entry.add_pax("SCHILY.xattr.user.a", "1").add_pax("SCHILY.xattr.trusted.b", "two\n")
        })
        .device("null", EntryType::Char, 1, 3)
        .device("disk", EntryType::Block, 8, 300)
        .member("pipe", EntryType::Fifo, b"", |entry| entry)
        .symlink("link", "etc/passwd")
        .symlink("long-link", &"x/".repeat(2000))
        .symlink("usr-bin", "etc")
        .file("usr-bin/through", "written through a link");
    let upper = Tar::new()
        .file("etc/.wh.gone", "")
        .file("etc/new", "new")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/kept", "kept")
        .file(".wh.replaced", "")
        .dir("replaced/")
        .file("replaced/kept", "kept")
        .file("large", "small now")
        .file("link", "no link any more")
        .file("deep/.wh.nothing", "")
        .file("deep/a/b/c/d", "implied directories");
    assert_same(vec![
        lower,
        upper,
        Tar::new().file(".wh.empty", "").dir("etc/new/").file("etc/new/inside", ""),
    ]);
}

#[test]
fn directories_of_any_size_are_searched_right() {
    if !is_root() {
        return skip("directories_of_any_size_are_searched_right", "mounting needs root");
    }
    // Around every boundary: one block, several, names before and after `.` and `..` in the order of bytes.
    let mut layer = Tar::new().file("!before", "").file("-before", "").file("~after", "").file(".hidden", "");
    for count in [1, 2, 100, 130, 131, 250, 1000] {
        for number in 0..count {
            layer = layer
                .file(&format!("d{count}/{number:0width$}", width = 20 + number % 7), number.to_string());
        }
    }
    for length in 1..=200 {
        layer = layer.file(&format!("names/{}", "n".repeat(length)), "");
    }
    assert_same(vec![layer]);
}

#[test]
fn metadata_of_any_size_is_read_right() {
    if !is_root() {
        return skip("metadata_of_any_size_is_read_right", "mounting needs root");
    }
    // Links and attributes that push the tails of their inodes over every boundary of a block.
    let mut layer = Tar::new();
    for length in (1..4090).step_by(61) {
        layer = layer.symlink(&format!("link{length}"), &"t".repeat(length));
        let value = vec![b'v'; length % 900];
        layer = layer.member(&format!("file{length}"), EntryType::Regular, b"content", |entry| {
            entry.add_pax("SCHILY.xattr.user.one", &value).add_pax("SCHILY.xattr.user.two", &value)
        });
    }
    assert_same(vec![layer]);
}

#[test]
fn hard_links_are_one_file_with_as_many_names_as_are_left() {
    if !is_root() {
        return skip("hard_links_are_one_file_with_as_many_names_as_are_left", "mounting needs root");
    }
    let lower = Tar::new().file("a", "one").hard_link("b", "a").hard_link("c", "b");
    mounted(&Place::new(), vec![lower, Tar::new().file(".wh.c", "")], |_, erofs| {
        let stat = |name: &str| fs::metadata(erofs.join(name)).unwrap();
        assert_eq!(stat("a").ino(), stat("b").ino());
        assert_eq!(stat("a").nlink(), 2);
        assert_eq!(fs::read(erofs.join("b")).unwrap(), b"one");
    });
}

#[test]
fn a_disk_has_true_owners_and_devices_whoever_builds_it_and_is_the_same_each_time() {
    let build = || {
        let place = Place::new();
        let layer = Tar::new()
            .member("owned", EntryType::Regular, b"x", |entry| entry.uid(70000).unwrap())
            .device("null", EntryType::Char, 1, 3);
        let image = place.image([layer]);
        fs::read(place.store.root_disk(&image, &()).unwrap().path).unwrap()
    };
    let disk = build();
    assert_eq!(disk, build());
    // 70000 as EROFS writes an owner; no file of the host has to have it.
    assert!(disk.windows(4).any(|bytes| bytes == 70000_u32.to_le_bytes()));
}

#[test]
fn room_of_files_that_an_upper_layer_replaces_is_given_back() {
    let place = Place::new();
    let image = place.image([Tar::new().file("big", vec![1; 8 << 20]), Tar::new().file(".wh.big", "")]);
    let disk = fs::metadata(place.store.root_disk(&image, &()).unwrap().path).unwrap();
    assert!(disk.len() > 8 << 20);
    // Some file systems (not those of any usual Linux) cannot give back room.
    assert!(disk.blocks() * 512 < 8 << 20, "{} bytes are in use", disk.blocks() * 512);
}
