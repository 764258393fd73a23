//! Unpacking: what a layer says is what its directory has, and nothing it says reaches outside.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use lab::image::users::Accounts;
use lab::image::{Error, Rights};
use tar_core::EntryType;

use crate::fixture::{MTIME, Place, Saved, Tar, entries, gzip, is_root, zstd};

/// The only layer of an image, unpacked.
fn unpacked(place: &Place, layer: Tar) -> std::path::PathBuf {
    let image = place.image([layer]);
    place.store.layer_dirs(&image, &()).unwrap().remove(0)
}

#[test]
fn layers_come_topmost_first_however_they_are_compressed() {
    for compress in [gzip, zstd, <[u8]>::to_vec] {
        let place = Place::new();
        let layers = ["0", "1", "2"].map(|content| Tar::new().file("level", content));
        let saved = Saved { compress, ..Saved::new(layers) };
        place.load(&saved.layout("test:latest")).unwrap();
        let image = place.store.resolve("test").unwrap();
        let directories = place.store.layer_dirs(&image, &()).unwrap();
        let levels: Vec<_> =
            directories.iter().map(|at| fs::read_to_string(at.join("level")).unwrap()).collect();
        assert_eq!(levels, ["2", "1", "0"]);
        assert_eq!(place.store.layer_dirs(&image, &()).unwrap(), directories, "and stay where they are");
    }
}

#[test]
fn files_keep_mode_time_links_and_owner() {
    let place = Place::new();
    let layer = Tar::new()
        .member("shut/", EntryType::Directory, b"", |entry| entry.mode(0o555).unwrap())
        .file("shut/inside", "content")
        .member("bin/tool", EntryType::Regular, b"tool", |entry| entry.mode(0o4755).unwrap())
        .hard_link("bin/again", "bin/tool")
        .symlink("link", "/etc/../outside")
        .member("owned", EntryType::Regular, b"", |entry| entry.uid(1234).unwrap().gid(4321).unwrap())
        .member("later", EntryType::Regular, b"", |entry| entry.add_pax("mtime", "1700000000.25"))
        .member("pipe", EntryType::Fifo, b"", |entry| entry);
    let root = unpacked(&place, layer);
    assert_eq!(fs::read_to_string(root.join("shut/inside")).unwrap(), "content");
    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(stat("shut").mode() & 0o7777, 0o555);
    assert_eq!(stat("shut").mtime() as u64, MTIME, "though it was filled after it was made");
    assert_eq!(stat("bin/tool").mode() & 0o7777, 0o4755);
    assert_eq!(stat("bin/tool").ino(), stat("bin/again").ino());
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/../outside"));
    assert_eq!(stat("link").mtime() as u64, MTIME);
    assert_eq!((stat("later").mtime() as u64, stat("later").mtime_nsec()), (MTIME, 250_000_000));
    assert!(stat("pipe").file_type().is_fifo());
    if is_root() {
        assert_eq!((stat("owned").uid(), stat("owned").gid()), (1234, 4321));
    }
}

#[test]
fn whiteouts_become_overlay_s() {
    let place = Place::new();
    let layer = Tar::new()
        .file("etc/.wh.gone", "")
        .dir("new/")
        .file("new/.wh..wh..opq", "")
        .file(".wh.again", "")
        .dir("again/")
        .file("kept", "kept")
        .file(".wh.kept", "");
    let root = unpacked(&place, layer);
    let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let opaque = |name: &str| {
        let mut value = [0; 4];
        let attribute = Rights::of_process().opaque_attribute();
        rustix::fs::lgetxattr(root.join(name), attribute, &mut value)
            .is_ok_and(|length| value[..length] == *b"y")
    };
    assert!(opaque("new"));
    assert!(opaque("again"), "what was hidden below stays hidden when the name is used again");
    assert!(!opaque("etc"));
    assert_eq!(fs::read_to_string(root.join("kept")).unwrap(), "kept", "a whiteout hides lower layers only");
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let place = Place::new();
    let image =
        place.image([Tar::new().file("a", "low"), Tar::new().file(".wh..wh..opq", "").file("b", "high")]);
    assert_eq!(place.store.layer_dirs(&image, &()).unwrap().len(), 1);
}

#[test]
fn the_last_entry_of_a_name_stands() {
    let place = Place::new();
    let layer = Tar::new()
        .file("a", "first")
        .file("a", "second")
        .dir("b/")
        .file("b/inside", "")
        .file("b", "now a file")
        .file("c", "")
        .dir("c/")
        .file("c/inside", "");
    let root = unpacked(&place, layer);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "second");
    assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "now a file");
    assert!(root.join("c/inside").exists());
}

#[test]
fn long_names_and_attributes_with_any_byte_survive() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let value = b"line\nline\0\xff=";
    let layer = Tar::new().file(&long, "long").member("attributes", EntryType::Regular, b"", |entry| {
        entry.add_pax("SCHILY.xattr.user.test", value).add_pax("SCHILY.xattr.user.overlay.redirect", "/etc")
    });
    let root = unpacked(&place, layer);
    assert_eq!(fs::read_to_string(root.join(long)).unwrap(), "long");
    let mut buffer = [0; 64];
    match rustix::fs::lgetxattr(root.join("attributes"), "user.test", &mut buffer) {
        Ok(length) => assert_eq!(&buffer[..length], value),
        Err(errno) => {
            assert_eq!(errno, rustix::io::Errno::NOTSUP, "only where the file system has no attributes");
        }
    }
    assert!(rustix::fs::lgetxattr(root.join("attributes"), "user.overlay.redirect", &mut buffer).is_err());
}

#[test]
fn nothing_in_a_layer_leads_out_of_it() {
    let place = Place::new();
    let outside = place.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let outside_path = outside.to_str().unwrap();
    // Each link below would lead to `outside` for whoever follows it on the host.
    let climb = format!("{}{outside_path}", "../".repeat(40));
    let layer = Tar::new()
        .dir(&format!("{}/", &outside_path[1..]))
        .symlink("absolute", outside_path)
        .file("absolute/victim", "inside")
        .symlink("climbing", &climb)
        .file("climbing/new", "inside")
        .symlink("link", &format!("{outside_path}/victim"))
        .file("link", "a file in the link's place")
        .file(&format!("/{outside_path}/absolute-name"), "inside");
    let root = unpacked(&place, layer);
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    assert_eq!(entries(&outside), [outside.join("victim")]);
    let inside = root.join(&outside_path[1..]);
    assert_eq!(
        fs::read_to_string(inside.join("victim")).unwrap(),
        "inside",
        "it is what the container would see"
    );
    assert!(inside.join("new").exists() && inside.join("absolute-name").exists());
    assert!(fs::symlink_metadata(root.join("link")).unwrap().is_file());
}

#[test]
fn hostile_entries_are_refused_and_nothing_is_left() {
    let refused = [
        (Tar::new().file("../escape", ""), "leads out of the layer"),
        (Tar::new().file("a/../../escape", ""), "leads out of the layer"),
        (Tar::new().hard_link("shadow", "/etc/shadow"), "not in this layer"),
        (Tar::new().hard_link("shadow", "../../../etc/shadow"), "leads out of the layer"),
        (Tar::new().symlink("l", "/etc/shadow").hard_link("shadow", "l/x"), "not in this layer"),
        (Tar::new().dir("d/").hard_link("e", "d"), "hard link to a directory"),
        (Tar::new().symlink("l", "/nowhere").file("l/a", ""), "leads through something"),
        (Tar::new().file("f", "").file("f/a", ""), "leads through something"),
        (Tar::new().file(".wh...", ""), "names no entry"),
        (Tar::new().file("/", ""), "replace the layer's root"),
        (Tar::new().device("x", EntryType::Block, 5000, 0), "there is no device"),
        (Tar::new().member("x", EntryType::Other(b'Z'), b"", |entry| entry), "is unknown"),
        (Tar::new().member("x", EntryType::Regular, b"", |entry| entry.uid(1 << 40).unwrap()), "owner"),
    ];
    for (layer, expected) in refused {
        let error = Place::refuses(layer);
        assert!(error.contains(expected), "{error}");
    }
    let circle = Place::refuses(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", ""));
    assert!(circle.contains("links"), "{circle}");
}

#[test]
fn a_size_that_lies_ends_the_layer_without_filling_memory() {
    let huge = Tar::new().member("x", EntryType::Regular, b"", |entry| entry.size(1 << 50).unwrap());
    assert!(Place::refuses(huge).contains("ends in the middle"));
    // A header that announces gigabytes of names.
    let names = Tar::new().member("x", EntryType::GnuLongName, b"", |entry| entry.size(1 << 33).unwrap());
    assert!(Place::refuses(names).contains("not a sound tar archive"));
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused_after_reading_it() {
    let place = Place::new();
    let saved = Saved::new([Tar::new().file("a", "promised")]);
    let other = Saved::new([Tar::new().file("a", "given")]);
    // The manifest's digests all fit; only the configuration knows the true content.
    let mut blobs = other.blobs();
    let manifest: serde_json::Value = serde_json::from_slice(&blobs.pop().unwrap()).unwrap();
    let config = saved.config();
    let mut lying = manifest;
    lying["config"] = crate::fixture::descriptor(&config, "application/vnd.oci.image.config.v1+json");
    let lying = serde_json::to_vec(&lying).unwrap();
    let mut described = crate::fixture::descriptor(&lying, "application/vnd.oci.image.manifest.v1+json");
    described["annotations"] = serde_json::json!({"io.containerd.image.name": "test:latest"});
    let archive = crate::fixture::layout(&[described], [blobs.remove(0), config, lying]);
    place.load(&archive).unwrap();
    let image = place.store.resolve("test").unwrap();
    let error = place.store.layer_dirs(&image, &()).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(matches!(place.store.root_disk(&image, &()), Err(Error::Mismatch { .. })));
    place.assert_nothing_half_made();
}

#[test]
fn random_damage_never_does_more_than_fail() {
    let layer =
        Tar::new().dir("d/").file("d/f", "content".repeat(100)).symlink("l", "d").hard_link("h", "d/f");
    let plain = layer.clone().finish();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        // xorshift64: the same damage in every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for _ in 0..200 {
        let mut damaged = Saved::new([layer.clone()]);
        damaged.layers[0] = plain.clone();
        for _ in 0..=(random() % 4) {
            let at = random() % plain.len();
            damaged.layers[0][at] = random() as u8;
        }
        let place = Place::new();
        place.load(&damaged.layout("test:latest")).unwrap();
        let image = place.store.resolve("test").unwrap();
        // Whatever comes of it, both walls agree on whether it is a layer.
        let unpacked = place.store.layer_dirs(&image, &()).map(drop).map_err(|error| error.to_string());
        let disk = place.store.root_disk(&image, &()).map(drop).map_err(|error| error.to_string());
        assert_eq!(unpacked, disk);
    }
}

#[test]
fn users_are_looked_up_in_the_topmost_layer_that_has_them_and_never_on_the_host() {
    let place = Place::new();
    let image = place.image([
        Tar::new().file("etc/passwd", "low:x:1:1::/:\n").file("etc/group", "low:x:1:\n"),
        Tar::new().file("etc/passwd", "high:x:2:3::/home/high:\n").symlink("etc/group", "../../../etc/group"),
    ]);
    let accounts = Accounts::read(&place.store.layer_dirs(&image, &()).unwrap()).unwrap();
    assert_eq!(accounts.resolve("high").unwrap().home, "/home/high");
    assert!(accounts.resolve("low").is_err());
    assert!(
        accounts.resolve("0:daemon").is_err(),
        "the link leads to the image's own file, not to the host's"
    );
}
