//! Loading: both kinds of archives, compressed or not; what is damaged, missing or for other machines is refused.

use std::fs;

use lab::image::{Digest, Error};
use serde_json::json;

use crate::fixture::{Place, Saved, Tar, descriptor, gzip, layout, zstd};

fn two_layers() -> Saved {
    Saved::new([Tar::new().dir("bin/").file("bin/hello", "one"), Tar::new().file("bin/hello", "two")])
}

#[test]
fn a_layout_and_both_forms_of_docker_save_give_the_same_image() {
    let saved = two_layers();
    let both = {
        // Docker since 25: an OCI layout with docker's table beside it, and names in the table only.
        let mut described = saved.described("");
        described["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let table = json!([{"Config": "blobs/sha256/x", "RepoTags": ["test:latest"], "Layers": []}]);
        let table = Tar::new().file("manifest.json", serde_json::to_vec(&table).unwrap());
        let mut archive = table.finish();
        archive.truncate(archive.len() - 1024);
        archive.extend(layout(&[described], saved.blobs()));
        archive
    };
    for (form, archive) in
        [("layout", saved.layout("test:latest")), ("docker", saved.docker("test:latest")), ("both", both)]
    {
        let place = Place::new();
        let loaded = place.load(&archive).unwrap();
        assert_eq!(loaded.len(), 1, "{form}");
        assert_eq!(loaded[0].name.as_ref().unwrap().familiar(), "test:latest", "{form}");
        let image = place.store.resolve("test").unwrap();
        assert_eq!(image.id(), Digest::of(&saved.config()), "{form}");
        let diff_ids: Vec<Digest> = image.layers().iter().map(|layer| layer.diff_id).collect();
        assert_eq!(diff_ids, [Digest::of(&saved.layers[0]), Digest::of(&saved.layers[1])], "{form}");
        assert_eq!(image.cmd(), ["/bin/hello"], "{form}");
    }
}

#[test]
fn archives_may_be_compressed() {
    for compress in [gzip, zstd] {
        let place = Place::new();
        place.load(&compress(&two_layers().docker("test:latest"))).unwrap();
        place.store.resolve("test").unwrap();
    }
}

#[test]
fn a_layout_in_a_directory_is_read_where_it_is() {
    let saved = two_layers();
    let place = Place::new();
    let folder = place.folder.path().join("app");
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let mut described = saved.described("");
    // As umoci and skopeo do: a tag without a name.
    described["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [described]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    for blob in saved.blobs() {
        fs::write(folder.join("blobs/sha256").join(Digest::of(&blob).hex()), blob).unwrap();
    }
    let loaded = place.store.load(&folder, &()).unwrap();
    assert_eq!(
        loaded[0].name.as_ref().unwrap().familiar(),
        "app:latest",
        "the folder's name is the best there is"
    );
}

#[test]
fn a_layer_that_two_images_or_places_share_is_stored_once() {
    let layer = Tar::new().file("a", "shared");
    let saved = Saved::new([layer.clone(), layer]);
    let place = Place::new();
    place.load(&saved.docker("test:latest")).unwrap();
    assert_eq!(place.blobs().len(), 3, "one layer, a configuration, a manifest");
}

#[test]
fn the_manifest_for_this_machine_is_chosen_from_an_index() {
    let ours = two_layers();
    let other = Saved { architecture: "s390x", ..Saved::new([Tar::new().file("a", "other")]) };
    let platform = |saved: &Saved| {
        let mut described = saved.described("test");
        described["platform"] = json!({"os": "linux", "architecture": saved.architecture});
        described
    };
    let attestation = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::of(b"not there").to_string(),
        "size": 9,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [platform(&other), attestation, platform(&ours)],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let mut described = descriptor(&index, "application/vnd.oci.image.index.v1+json");
    described["annotations"] = json!({"io.containerd.image.name": "docker.io/library/test:latest"});
    // The other machine's blobs are missing, as in an archive saved with --platform.
    let archive = layout(&[described], ours.blobs().into_iter().chain([index]));
    let place = Place::new();
    place.load(&archive).unwrap();
    assert_eq!(place.store.resolve("test").unwrap().id(), Digest::of(&ours.config()));
}

#[test]
fn an_image_for_other_machines_only_is_refused_by_name() {
    let saved = Saved { architecture: "s390x", ..two_layers() };
    let place = Place::new();
    let error = place.load(&saved.layout("test:latest")).unwrap_err();
    assert!(matches!(error, Error::Platform { .. }), "{error}");
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    assert!(place.blobs().is_empty(), "nothing of it is kept");
}

#[test]
fn a_damaged_blob_is_named_with_what_was_expected_and_what_was_found() {
    let saved = two_layers();
    for blob in saved.blobs() {
        let mut archive = saved.layout("test:latest");
        // The blob's own bytes in the archive, not its name.
        let at = archive.windows(blob.len()).position(|window| window == blob).unwrap();
        archive[at + blob.len() / 2] ^= 1;
        let place = Place::new();
        let error = place.load(&archive).unwrap_err();
        let Error::Mismatch { object, expected, .. } = &error else { panic!("{error}") };
        assert_eq!(*expected, Digest::of(&blob));
        assert!(object.contains(&expected.hex()), "{error}");
        assert!(place.blobs().is_empty(), "nothing of it is kept");
        place.assert_nothing_half_made();
    }
}

#[test]
fn a_damaged_layer_of_docker_s_older_form_is_found_at_once() {
    let saved = two_layers();
    let mut archive = saved.docker("test:latest");
    let layer = &saved.layers[1];
    let at = archive.windows(layer.len()).position(|window| window == &layer[..]).unwrap();
    archive[at + 512] ^= 1;
    let error = Place::new().load(&archive).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn a_missing_blob_is_named_with_its_role() {
    let saved = two_layers();
    let mut blobs = saved.blobs();
    let layer = blobs.remove(0);
    let error = Place::new().load(&layout(&[saved.described("test")], blobs)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the image lacks blob {} (a layer); save it again, completely", Digest::of(&layer))
    );
}

#[test]
fn what_is_no_image_is_told_so() {
    let place = Place::new();
    for (content, expected) in [
        (Tar::new().file("a", "b").finish(), "neither an OCI layout"),
        (b"#!/bin/sh\n".repeat(100), "not a sound tar archive"),
        (Vec::new(), "neither an OCI layout"),
        (gzip(b"hello"), "the tar archive ends in the middle"),
        (Tar::new().file("manifest.json", "[{").finish(), "manifest.json"),
        (Tar::new().file("manifest.json", "[]").finish(), "names no image"),
        (layout(&[], []), "names no image"),
    ] {
        let error = place.load(&content).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    assert!(place.store.list().unwrap().is_empty());
    let error = place.store.load(&place.folder.path().join("none.tar"), &()).unwrap_err().to_string();
    assert!(error.contains("none.tar: No such file"), "{error}");
    let error = place.store.load(place.folder.path(), &()).unwrap_err().to_string();
    assert!(error.contains("index.json is missing"), "{error}");
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let archive = two_layers().layout("test:latest");
    let place = Place::new();
    for length in (0..archive.len() - 1024).step_by(509) {
        let error = place.load(&archive[..length]).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(place.blobs().is_empty());
}
