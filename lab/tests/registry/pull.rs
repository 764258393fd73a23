//! Pull: whatever form an image has in the registry, and nothing twice.

use std::time::Duration;

use lab::image::Digest;
use serde_json::{Value, json};

use crate::common::{Lab, Wall, image, skip};
use crate::fixture::{Saved, Tar, descriptor, gzip, zstd};
use crate::server::{Plan, Proxy, Registry};

pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Puts an image into a registry by hand, as OCI's or docker's kind; its manifest.
pub fn put(registry: &Registry, repository: &str, tag: &str, saved: &Saved, media: &str) -> Vec<u8> {
    let mut blobs = saved.blobs();
    let manifest = blobs.pop().expect("a manifest");
    for blob in &blobs {
        registry.put_blob(repository, blob);
    }
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["mediaType"] = media.into();
    if media == DOCKER {
        manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        for layer in manifest["layers"].as_array_mut().expect("layers") {
            layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        }
    }
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    registry.put_manifest(repository, tag, media, &manifest);
    manifest
}

/// How a layer is compressed.
type Compress = fn(&[u8]) -> Vec<u8>;

fn saved(content: &str, compress: Compress) -> Saved {
    Saved { compress, ..Saved::new([Tar::new().file("shared", "shared"), Tar::new().file("own", content)]) }
}

/// What `lab image inspect` says of an image.
pub fn inspect(lab: &Lab, name: &str) -> Value {
    let output = lab.run(&["image", "inspect", name], "");
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str::<Value>(&output.stdout).expect("JSON")[0].clone()
}

#[test]
fn images_of_every_kind_are_pulled_and_known_by_tag_and_digest() {
    let Some(registry) = Registry::start("registry: pull") else { return };
    let lab = Lab::empty();
    let kinds: [(&str, &str, Compress); 4] =
        [("plain", OCI, <[u8]>::to_vec), ("gzip", OCI, gzip), ("zstd", OCI, zstd), ("docker", DOCKER, gzip)];
    for (repository, media, compress) in kinds {
        let manifest = put(&registry, repository, "1", &saved(repository, compress), media);
        let name = registry.name(&format!("{repository}:1"));
        let output = lab.run(&["pull", &name], "");
        assert_eq!(output.code, 0, "{output:?}");
        let digest = Digest::of(&manifest);
        for words in [
            format!("1: Pulling from {repository}\n"),
            format!("Digest: {digest}\n"),
            format!("Status: Downloaded newer image for {name}\n"),
        ] {
            assert!(output.stdout.contains(&words), "{words} in {output:?}");
        }
        assert!(output.stdout.ends_with(&format!("{name}\n")), "{output:?}");
        let described = inspect(&lab, &name);
        assert_eq!(described["RepoTags"], json!([name]));
        assert_eq!(described["RepoDigests"], json!([format!("{}@{digest}", registry.name(repository))]));
        let store = lab::image::Store::open(&lab.home().join("data/images")).expect("a store");
        let image = store.resolve(&name).expect("the image");
        let layers = store.layer_dirs(&image, &()).expect("layers");
        assert_eq!(std::fs::read_to_string(layers[0].join("own")).expect("a file"), repository);
        let again = lab.run(&["pull", &name], "");
        assert!(again.stdout.contains("Status: Image is up to date for"), "{again:?}");
        assert!(again.stdout.matches("Already exists").count() == 2, "{again:?}");
        // By its digest, in a lab that does not know it yet.
        let (other, by_digest) = (Lab::empty(), format!("{}@{digest}", registry.name(repository)));
        assert_eq!(other.run(&["pull", "-q", &by_digest], "").stdout, format!("{by_digest}\n"));
        let described = inspect(&other, &by_digest);
        assert_eq!((&described["RepoTags"], &described["RepoDigests"]), (&json!([]), &json!([by_digest])));
    }
}

#[test]
fn an_index_gives_the_image_for_the_platform_that_is_wanted() {
    let Some(registry) = Registry::start("registry: indexes") else { return };
    for (list_media, media, repository) in [(OCI_INDEX, OCI, "oci"), (DOCKER_LIST, DOCKER, "docker")] {
        let mut entries = Vec::new();
        for (architecture, variant) in [("arm64", Some("v8")), ("amd64", None), ("s390x", None)] {
            let image = Saved { architecture, ..saved(architecture, gzip) };
            let manifest = put(&registry, repository, architecture, &image, media);
            let mut entry = descriptor(&manifest, media);
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            if let Some(variant) = variant {
                entry["platform"]["variant"] = variant.into();
            }
            entries.push(entry);
        }
        let list = json!({"schemaVersion": 2, "mediaType": list_media, "manifests": entries});
        let list = serde_json::to_vec(&list).expect("JSON");
        registry.put_manifest(repository, "all", list_media, &list);
        let name = registry.name(&format!("{repository}:all"));
        let lab = Lab::empty();
        let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        for (flags, architecture) in [(&[][..], own), (&["--platform", "linux/s390x"], "s390x")] {
            let mut arguments = vec!["pull", &name];
            arguments.extend(flags);
            let output = lab.run(&arguments, "");
            assert_eq!(output.code, 0, "{output:?}");
            // The digest is the list's, whichever image was taken.
            assert!(output.stdout.contains(&format!("Digest: {}\n", Digest::of(&list))), "{output:?}");
            let described = inspect(&lab, &name);
            assert_eq!(described["Architecture"], architecture);
            assert_eq!(
                described["RepoDigests"],
                json!([format!("{}@{}", registry.name(repository), Digest::of(&list))])
            );
        }
        let output = lab.run(&["pull", "--platform", "linux/riscv64", &name], "");
        let told = output.code == 1
            && output.stderr.contains("linux/riscv64")
            && output.stderr.contains("linux/s390x");
        assert!(told, "{output:?}");
        let output = lab.run(&["pull", "--platform", "a/b/c/d", &name], "");
        assert!(output.code == 1 && output.stderr.contains("OS/ARCHITECTURE"), "{output:?}");
    }
}

#[test]
fn what_is_here_is_not_fetched_again_and_two_pulls_at_once_share_the_work() {
    let Some(registry) = Registry::start("registry: shared layers") else { return };
    for (tag, content) in [("1", "one"), ("2", "two")] {
        put(&registry, "app", tag, &saved(content, gzip), OCI);
    }
    let proxy = Proxy::before(&registry, Plan { delay: Duration::from_millis(20), ..Plan::default() });
    let lab = Lab::empty();
    let name = |tag: &str| proxy.name(&format!("app:{tag}"));
    let pulls: Vec<_> = (0..3)
        .map(|_| {
            let mut command = lab.command(&["pull", &name("1")]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("lab starts")
        })
        .collect();
    for pull in pulls {
        let output = crate::common::finish(pull);
        assert_eq!(output.code, 0, "{output:?}");
    }
    assert_eq!(proxy.count("GET /v2/app/blobs/", ""), 3, "two layers and a configuration, once each");
    let output = lab.run(&["pull", &name("2")], "");
    assert!(output.code == 0 && output.stdout.contains("Already exists"), "{output:?}");
    assert_eq!(proxy.count("GET /v2/app/blobs/", ""), 5, "the shared layer was here");
    let output = lab.run(&["pull", "-a", &proxy.name("app")], "");
    assert!(output.code == 0 && output.stdout.matches("up to date").count() == 2, "{output:?}");
}

#[test]
fn an_image_that_is_not_here_is_pulled_by_run_and_create() {
    let Some(registry) = Registry::start("registry: run pulls") else { return };
    if let Some(why) = Wall::Container.missing().or_else(image::missing) {
        return skip("registry: run pulls", why);
    }
    let name = registry.name("box:1");
    let source = Lab::empty();
    let archive = image::archive(source.home());
    source.run(&["image", "load", archive.to_str().expect("a text"), "--tag", &name], "");
    let output = source.run(&["push", &name], "");
    assert_eq!(output.code, 0, "{output:?}");
    for arguments in [&["run", &name][..], &["run", &name, "echo", "again"]] {
        let lab = Lab::empty();
        let output = lab.run(arguments, "");
        assert!(output.code == 0 && output.stdout.len() < 25, "{output:?}");
        assert!(output.stderr.starts_with(&format!("Unable to find image '{name}' locally\n")), "{output:?}");
        let again = lab.run(arguments, "");
        assert!(again.code == 0 && again.stderr.is_empty(), "{again:?}");
    }
    let lab = Lab::empty();
    let output = lab.run(&["create", &name], "");
    assert!(output.code == 0 && output.stdout.len() == 65, "{output:?}");
    let output = lab.run(&["run", &registry.name("nothing")], "");
    assert!(output.code == 125 && output.stderr.contains("manifest unknown"), "{output:?}");
}
