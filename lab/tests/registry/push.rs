//! Push: what the registry has is not sent again, and comes back as it was.

use serde_json::json;

use crate::common::{Lab, Output};
use crate::fixture::{Saved, Tar, gzip};
use crate::pull::inspect;
use crate::server::{Plan, Proxy, Registry};

/// A lab with an image of two layers under these names.
fn lab_with(names: &[&str]) -> Lab {
    let lab = Lab::empty();
    let saved = Saved {
        compress: gzip,
        ..Saved::new([Tar::new().file("a", "lower"), Tar::new().file("b", vec![7; 300_000])])
    };
    let archive = lab.home().join("image.tar");
    std::fs::write(&archive, saved.layout("image:latest")).expect("a file");
    assert_eq!(lab.run(&["image", "load", archive.to_str().expect("a text")], "").code, 0);
    for name in names {
        assert_eq!(lab.run(&["image", "tag", "image", name], "").code, 0);
    }
    lab
}

fn went_well(output: &Output) {
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn a_pushed_image_comes_back_as_it_was_and_has_its_digest() {
    let Some(registry) = Registry::start("registry: push") else { return };
    let name = registry.name("you/app:1");
    let lab = lab_with(&[&name]);
    assert_eq!(inspect(&lab, "image")["RepoDigests"], json!([]));
    let output = lab.run(&["push", &name], "");
    went_well(&output);
    let first = format!("The push refers to repository [{}]\n", registry.name("you/app"));
    assert!(
        output.stdout.starts_with(&first) && output.stdout.matches(": Pushed\n").count() == 2,
        "{output:?}"
    );
    let last = output.stdout.lines().last().expect("a line");
    let (digest, size) =
        last.strip_prefix("1: digest: ").and_then(|rest| rest.split_once(" size: ")).expect(last);
    assert!(size.parse::<u64>().is_ok_and(|size| size > 300), "{last}");
    let own = inspect(&lab, "image");
    assert_eq!(own["RepoDigests"], json!([format!("{}@{digest}", registry.name("you/app"))]));
    let other = Lab::empty();
    went_well(&other.run(&["pull", &name], ""));
    assert_eq!(inspect(&other, &name)["Id"], own["Id"]);
    let again = lab.run(&["push", &name], "");
    assert_eq!(again.stdout.matches("Layer already exists").count(), 2, "{again:?}");
}

#[test]
fn layers_are_mounted_from_other_repositories_and_all_tags_are_pushed() {
    let Some(registry) = Registry::start("registry: mounts") else { return };
    let proxy = Proxy::before(&registry, Plan::default());
    let (first, second) = (proxy.name("first:1"), proxy.name("second"));
    let lab = lab_with(&[&first, &format!("{second}:a"), &format!("{second}:b")]);
    went_well(&lab.run(&["push", &first], ""));
    let (uploads, sent) = (proxy.count("POST ", "/uploads/"), proxy.count("PUT ", "/blobs/uploads/"));
    let output = lab.run(&["push", "-a", &second], "");
    went_well(&output);
    assert_eq!(output.stdout.matches("Mounted from first").count(), 2, "{output:?}");
    assert_eq!(
        proxy.count("POST ", "/uploads/"),
        uploads + 3,
        "a mount for each layer and the configuration"
    );
    assert_eq!(proxy.count("PUT ", "/blobs/uploads/"), sent, "nothing was sent");
    let tags = registry.tags("second");
    assert!(tags == json!(["a", "b"]) || tags == json!(["b", "a"]), "{tags}");
}

#[test]
fn what_is_not_here_cannot_be_pushed() {
    let Some(registry) = Registry::start("registry: push of nothing") else { return };
    let lab = lab_with(&[]);
    for arguments in [&["push", &registry.name("nothing:1")][..], &["push", "-a", &registry.name("nothing")]]
    {
        let output = lab.run(arguments, "");
        assert!(output.code == 1 && output.stderr.contains("nothing"), "{output:?}");
    }
}
