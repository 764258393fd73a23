//! The default image: there when it is asked for, the same each time, and nobody's name is taken from them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use lab::image::embedded;

use crate::fixture::{Place, Tar};

#[test]
fn it_is_stored_once_and_is_the_same_in_every_store() {
    let [one, other] = [(), ()].map(|()| {
        let place = Place::new();
        embedded::ensure(&place.store).unwrap();
        let blobs = place.blobs();
        embedded::ensure(&place.store).unwrap();
        assert_eq!(place.blobs(), blobs);
        place.store.resolve(embedded::NAME).unwrap().id()
    });
    assert_eq!(one, other);
}

#[test]
fn its_programs_run_and_are_one_file() {
    let place = Place::new();
    embedded::ensure(&place.store).unwrap();
    let image = place.store.resolve("lab").unwrap();
    assert_eq!(image.cmd(), ["/bin/hello"]);
    let root = place.store.layer_dirs(&image, &()).unwrap().remove(0);
    let hello = Command::new(root.join("bin/hello")).output().unwrap();
    assert!(hello.status.success());
    assert!(!hello.stdout.is_empty());
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("bin/hello"), inode("bin/sh"));
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn removed_it_comes_back_and_another_image_of_its_name_stays() {
    let place = Place::new();
    embedded::ensure(&place.store).unwrap();
    let id = place.store.resolve("lab").unwrap().id();
    place.store.remove("lab", false).unwrap();
    embedded::ensure(&place.store).unwrap();
    let other = place.image([Tar::new().file("a", "mine")]);
    place.store.tag(&other, &embedded::NAME.parse().unwrap()).unwrap();
    embedded::ensure(&place.store).unwrap();
    let named = place.store.resolve("lab").unwrap().id();
    assert_eq!(named, other.id());
    assert_ne!(named, id);
}
