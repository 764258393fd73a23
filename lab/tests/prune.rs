//! Removing what is not needed, by the real docker client and by `lab`: never more than was asked for.

mod common;

use common::daemon::Daemon;
use common::image;
use common::skip;

/// A daemon whose store has an image of its own beside the default one.
fn daemon(what: &str) -> Option<Daemon> {
    let daemon = Daemon::start(what)?;
    if let Some(why) = image::missing() {
        skip(what, why);
        return None;
    }
    let archive = image::archive(daemon.lab.home());
    daemon.says(&["load", "-i", archive.to_str().expect("a text")]);
    Some(daemon)
}

#[test]
fn containers_are_pruned_by_age_and_label_and_unknown_filters_are_refused() {
    let Some(daemon) = Daemon::start("container: docker container prune") else { return };
    for (name, label) in [("one", "kind=a"), ("two", "kind=b"), ("three", "keep=yes")] {
        daemon.says(&["create", "--name", name, "--label", label, "lab", "true"]);
    }
    let names = || {
        let mut names: Vec<String> =
            daemon.says(&["ps", "-a", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    daemon.says(&["container", "prune", "-f", "--filter", "until=1h"]);
    assert_eq!(names(), ["one", "three", "two"], "none is an hour old");
    for filter in ["colour=red", "until=yesterday"] {
        let output = daemon.docker(&["container", "prune", "-f", "--filter", filter]);
        assert!(output.code == 1 && output.stderr.contains("invalid"), "{filter}: {output:?}");
    }
    assert_eq!(names().len(), 3);
    daemon.says(&["container", "prune", "-f", "--filter", "label=kind=a"]);
    assert_eq!(names(), ["three", "two"]);
    daemon.says(&["container", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(names(), ["three"]);
    daemon.says(&["container", "prune", "-f", "--filter", "until=2020-01-01T00:00:00"]);
    assert_eq!(names(), ["three"]);
    // The same by the lab itself.
    let output = daemon.lab.run(&["prune", "--force", "--filter", "until=10m"], "");
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(names(), ["three"]);
    let output = daemon.lab.run(&["prune", "--force", "--filter", "age=10m"], "");
    assert!(output.code == 1 && output.stderr.contains("invalid filter 'age'"), "{output:?}");
    daemon.says(&["container", "prune", "-f"]);
    assert!(names().is_empty());
}

#[test]
fn volumes_and_networks_are_pruned_by_label_and_age() {
    let Some(daemon) = Daemon::start("container: docker volume prune") else { return };
    daemon.says(&["volume", "create", "--label", "kind=a", "first"]);
    daemon.says(&["volume", "create", "second"]);
    let refused = daemon.docker(&["volume", "prune", "-f", "--filter", "until=1h"]);
    assert!(refused.code == 1 && refused.stderr.contains("until"), "{refused:?}");
    daemon.says(&["volume", "prune", "-f", "-a", "--filter", "label=kind=a"]);
    assert_eq!(daemon.says(&["volume", "ls", "-q"]), "second");
    daemon.says(&["network", "create", "--label", "kind=a", "net"]);
    daemon.says(&["network", "prune", "-f", "--filter", "until=1h"]);
    daemon.says(&["network", "prune", "-f", "--filter", "label!=kind"]);
    assert!(daemon.says(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "net"));
    let refused = daemon.docker(&["network", "prune", "-f", "--filter", "colour=red"]);
    assert!(refused.code == 1 && refused.stderr.contains("invalid filter"), "{refused:?}");
    daemon.says(&["network", "prune", "-f", "--filter", "label=kind=a"]);
    assert!(!daemon.says(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "net"));
}

#[test]
fn images_are_pruned_unless_they_have_a_tag_a_user_or_are_too_young() {
    let Some(daemon) = daemon("container: docker image prune") else { return };
    daemon.says(&["image", "prune", "-f", "-a", "--filter", "until=2000-01-01"]);
    daemon.says(&["image", "prune", "-f"]);
    assert_eq!(daemon.says(&["images", "-q", "box"]).len(), 12, "it has a tag");
    let refused = daemon.docker(&["image", "prune", "-f", "--filter", "dangling=perhaps"]);
    assert!(refused.code == 1 && refused.stderr.contains("dangling"), "{refused:?}");
    daemon.says(&["create", "--name", "user", "box"]);
    daemon.says(&["image", "prune", "-f", "-a"]);
    assert_eq!(daemon.says(&["images", "-q", "box"]).len(), 12, "a container needs it");
    daemon.says(&["rm", "user"]);
    let said = daemon.says(&["image", "prune", "-f", "-a"]);
    assert!(said.contains("untagged: box:latest") && !said.contains("Total reclaimed space: 0B"), "{said}");
    assert_eq!(daemon.says(&["images", "-q", "box"]), "");
}

#[test]
fn an_image_that_a_container_needs_is_not_removed_and_by_force_stays_for_the_container_alone() {
    let Some(daemon) = daemon("container: docker rmi of an image in use") else { return };
    let id = daemon.says(&["create", "--name", "user", "box"]);
    for output in [
        daemon.docker(&["rmi", "box"]),
        daemon.lab.run(&["image", "rm", "box"], ""),
        daemon.docker(&["rmi", &daemon.says(&["images", "-q", "box"])]),
    ] {
        let told = output.code == 1 && output.stderr.contains("must") && output.stderr.contains(&id[..12]);
        assert!(told, "{output:?}");
    }
    // A second name may go.
    daemon.says(&["tag", "box", "other"]);
    assert_eq!(daemon.says(&["rmi", "other"]), "Untagged: other:latest");
    let said = daemon.says(&["rmi", "-f", "box"]);
    assert!(said.contains("Untagged: box:latest") && said.contains("Deleted: sha256:"), "{said}");
    assert_eq!(daemon.says(&["images", "-q", "box"]), "");
    assert_eq!(daemon.says(&["start", "-a", "user"]), "the image's command");
    daemon.says(&["rm", "user"]);
    let left = std::fs::read_dir(daemon.lab.home().join("data/images/layers")).expect("a directory").count();
    assert!(left <= 1, "nothing but the default image's layer");
}

#[test]
fn an_image_from_which_a_container_runs_cannot_be_removed_by_its_id() {
    let Some(daemon) = daemon("container: docker rmi of an image that runs") else { return };
    daemon.says(&["run", "-d", "--name", "user", "box", "sleep", "1000"]);
    let id = daemon.says(&["images", "-q", "box"]);
    let output = daemon.docker(&["rmi", "-f", &id]);
    assert!(output.code == 1 && output.stderr.contains("cannot be forced"), "{output:?}");
    assert_eq!(daemon.says(&["rmi", "-f", "box"]), "Untagged: box:latest");
    assert_eq!(daemon.says(&["images", "-q", "--filter", "dangling=true"]), id);
    daemon.says(&["rm", "-f", "user"]);
    daemon.says(&["image", "prune", "-f"]);
    assert_eq!(daemon.says(&["images", "-q", "--filter", "dangling=true"]), "");
}
