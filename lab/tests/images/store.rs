//! The store: names and ids, removal that spares what is in use, several processes at once.

use std::sync::Barrier;
use std::thread;

use lab::image::{Error, Reference, Store};

use crate::fixture::{Place, Saved, Tar};

fn saved(content: &str) -> Saved {
    Saved::new([Tar::new().file("a", content)])
}

#[test]
fn an_image_is_found_by_name_id_and_the_beginning_of_its_id() {
    let place = Place::new();
    let image = place.image([Tar::new().file("a", "1")]);
    let id = image.id();
    for name in ["test", "test:latest", "docker.io/library/test", &id.to_string(), &id.hex(), &id.hex()[..12]]
    {
        assert_eq!(place.store.resolve(name).unwrap().id(), id, "{name}");
    }
    for name in ["other", "test:1.0", "sha256:0000", "ffffffffffff"] {
        assert!(matches!(place.store.resolve(name), Err(Error::NotFound { .. })), "{name}");
    }
    let error = place.store.resolve("UPPER").unwrap_err().to_string();
    assert!(error.contains("must be lower case"), "{error}");
}

#[test]
fn a_name_that_moves_leaves_the_older_image_nameless() {
    let place = Place::new();
    place.load(&saved("1").layout("test:latest")).unwrap();
    let first = place.store.resolve("test").unwrap().id();
    place.load(&saved("2").layout("test:latest")).unwrap();
    let names: Vec<_> =
        place.store.list().unwrap().into_iter().map(|image| (image.name.is_some(), image.id)).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[1], (false, first));
    // Loading it again under its name makes one of the two entries, not a third.
    place.load(&saved("1").layout("test:latest")).unwrap();
    assert_eq!(place.store.list().unwrap().len(), 2);
}

#[test]
fn removing_the_last_name_removes_the_content_and_keeps_what_others_share() {
    let place = Place::new();
    let shared = Tar::new().file("shared", "shared");
    let other = Saved::new([shared.clone(), Tar::new().file("a", "other")]);
    place.load(&other.layout("other:latest")).unwrap();
    let only_other = place.blobs();
    let image = place.image([shared, Tar::new().file("a", "test")]);
    place.store.tag(&image, &"second:name".parse::<Reference>().unwrap()).unwrap();
    place.store.layer_dirs(&image, &()).unwrap();
    place.store.root_disk(&image, &()).unwrap();
    drop(image);

    let removed = place.store.remove("test", false).unwrap();
    assert!(removed.deleted.is_none(), "it has another name");
    let id = place.store.resolve("second:name").unwrap().id();
    let removed = place.store.remove(&id.hex()[..12], false).unwrap();
    assert_eq!(removed.untagged[0].familiar(), "second:name");
    assert!(removed.deleted.is_some());
    assert_eq!(place.blobs(), only_other);
    let other = place.store.resolve("other").unwrap();
    place.store.layer_dirs(&other, &()).unwrap();
}

#[test]
fn an_image_in_use_keeps_its_content_until_it_is_let_go() {
    let place = Place::new();
    let image = place.image([Tar::new().file("a", "1")]);
    assert!(matches!(place.store.remove("test", false), Err(Error::InUse { .. })));
    place.store.remove("test", true).unwrap();
    assert!(matches!(place.store.resolve("test"), Err(Error::NotFound { .. })));
    let directories = place.store.layer_dirs(&image, &()).unwrap();
    assert!(directories[0].join("a").exists(), "a forced removal takes the name only");
    drop(image);
    assert!(place.store.collect_garbage().unwrap().is_some());
    assert!(place.blobs().is_empty());
    place.assert_nothing_half_made();
}

#[test]
fn an_image_with_several_names_is_not_removed_by_its_id_unless_forced() {
    let place = Place::new();
    let image = place.image([Tar::new().file("a", "1")]);
    place.store.tag(&image, &"second".parse::<Reference>().unwrap()).unwrap();
    let id = image.id().hex();
    drop(image);
    let error = place.store.remove(&id, false).unwrap_err();
    assert!(matches!(error, Error::Names { count: 2, .. }), "{error}");
    assert_eq!(place.store.remove(&id, true).unwrap().untagged.len(), 2);
    assert!(place.blobs().is_empty());
}

#[test]
fn a_digest_is_a_name_of_its_own_and_goes_with_the_last_tag_of_its_repository() {
    let place = Place::new();
    let image = place.image([Tar::new().file("a", "1")]);
    let index = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    place.store.tag(&image, &format!("test@{index}").parse().unwrap()).unwrap();
    place.store.tag(&image, &"other".parse().unwrap()).unwrap();
    drop(image);
    // By the digest of the index that it was pulled by, and by that of its own manifest.
    let image = place.store.resolve(&format!("test@{index}")).unwrap();
    assert_eq!(place.store.resolve(&format!("test@{}", image.manifest())).unwrap().id(), image.id());
    drop(image);
    let removed = place.store.remove("test", false).unwrap();
    let mut gone: Vec<String> = removed.untagged.iter().map(Reference::familiar).collect();
    gone.sort();
    assert_eq!(gone, ["test:latest".to_owned(), format!("test@{index}")]);
    assert!(removed.deleted.is_none() && place.store.resolve("other").is_ok());
}

#[test]
fn one_image_with_its_layers_in_two_forms_is_found_and_removed_by_its_id() {
    let place = Place::new();
    place.load(&saved("1").layout("plain:latest")).unwrap();
    let packed = Saved { compress: crate::fixture::gzip, ..saved("1") };
    place.load(&packed.layout("packed:latest")).unwrap();
    let id = place.store.resolve("plain").unwrap().id();
    assert_eq!(place.store.resolve("packed").unwrap().id(), id);
    assert_eq!(place.store.resolve(&id.hex()[..12]).unwrap().id(), id);
    let removed = place.store.remove(&id.to_string(), true).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (2, Some(id)));
    assert!(removed.freed > 0 && place.blobs().is_empty());
}

#[test]
fn many_at_once_load_unpack_name_and_remove_without_losing_anything() {
    const WORKERS: usize = 8;
    let place = Place::new();
    let archive = place.write("shared.tar", &saved("shared").layout("shared:latest"));
    let root = place.folder.path().join("images");
    let start = Barrier::new(WORKERS);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (place, archive, root, start) = (&place, &archive, &root, &start);
            scope.spawn(move || {
                // A store of its own, as another process would have.
                let store = Store::open(root).unwrap();
                let own = place.write(
                    &format!("{worker}.tar"),
                    &saved(&worker.to_string()).layout(&format!("own:{worker}")),
                );
                start.wait();
                for _ in 0..5 {
                    store.load(archive, &()).unwrap();
                    store.load(&own, &()).unwrap();
                    let image = store.resolve("shared").unwrap();
                    assert!(store.layer_dirs(&image, &()).unwrap()[0].join("a").exists());
                    assert!(store.root_disk(&image, &()).unwrap().path.exists());
                    let image = store.resolve(&format!("own:{worker}")).unwrap();
                    store.layer_dirs(&image, &()).unwrap();
                    drop(image);
                    store.remove(&format!("own:{worker}"), false).unwrap();
                }
                store.load(&own, &()).unwrap();
            });
        }
    });
    assert!(place.store.collect_garbage().unwrap().is_some());
    assert_eq!(place.store.list().unwrap().len(), WORKERS + 1);
    for worker in 0..WORKERS {
        let image = place.store.resolve(&format!("own:{worker}")).unwrap();
        let directories = place.store.layer_dirs(&image, &()).unwrap();
        assert_eq!(std::fs::read_to_string(directories[0].join("a")).unwrap(), worker.to_string());
    }
}

#[test]
fn a_stored_manifest_that_was_tampered_with_is_refused() {
    let place = Place::new();
    let image = place.image([Tar::new().file("a", "1")]);
    let path = place.folder.path().join("images/blobs/sha256").join(image.manifest().hex());
    drop(image);
    std::fs::write(path, "{}").unwrap();
    assert!(matches!(place.store.resolve("test"), Err(Error::Mismatch { .. })));
}
