//! `lab images`, `load`, `save`, `import`, `tag`, `history`, `rmi`, `image prune`: docker's flags and output; and what becomes
//! of the store on a full disk.

mod common;

use std::fs;
use std::process::Command;

use common::daemon::Daemon;
use common::{Lab, Wall, image, skip};
use serde_json::Value;

/// A lab with the image `box`.
fn lab(what: &str) -> Option<Lab> {
    if let Some(why) = image::missing() {
        skip(what, why);
        return None;
    }
    let lab = Lab::empty();
    let archive = image::archive(lab.home());
    let output = lab.run(&["load", "-q", "-i", archive.to_str().expect("a text")], "");
    assert_eq!(output.stdout, "Loaded image: box:latest\n", "{output:?}");
    Some(lab)
}

fn says(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.run(arguments, "");
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output.stdout.trim_end().to_owned()
}

#[test]
fn images_are_listed_filtered_and_formatted() {
    let Some(lab) = lab("lab images") else { return };
    says(&lab, &["tag", "box", "you/box:1"]);
    let id = says(&lab, &["images", "-q", "box"]);
    assert_eq!(id.len(), 12);
    assert_eq!(
        says(
            &lab,
            &["images", "--filter", "reference=you/*", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]
        ),
        format!("you/box:1 {id}")
    );
    let table = says(&lab, &["images", "--digests", "box"]);
    assert!(
        table.starts_with("REPOSITORY") && table.contains("DIGEST") && table.contains("<none>"),
        "{table}"
    );
    assert!(
        says(&lab, &["images", "--format", "table {{.ID}}\\t{{.Tag}}", "box"])
            .starts_with("IMAGE ID       TAG")
    );
    let line: Value =
        serde_json::from_str(&says(&lab, &["image", "ls", "--format", "json", "box"])).expect("JSON");
    assert_eq!((line["Repository"].as_str(), line["ID"].as_str()), (Some("box"), Some(&*id)));
    assert_eq!(says(&lab, &["images", "-q", "--no-trunc", "you/box:1"]).len(), 71);
    assert_eq!(says(&lab, &["images", "-q", "-f", "dangling=true"]), "");
    for filter in ["colour=red", "dangling=perhaps", "before=nothing"] {
        assert_eq!(lab.run(&["images", "-f", filter], "").code, 1, "{filter}");
    }
    says(&lab, &["rmi", "you/box:1"]);
    assert_eq!(says(&lab, &["image", "inspect", "-f", "{{json .RepoTags}}", "box"]), "[\"box:latest\"]");
}

#[test]
fn images_are_saved_imported_and_their_history_is_told() {
    let Some(lab) = lab("lab save and import") else { return };
    says(&lab, &["tag", "box", "second:2"]);
    says(&lab, &["save", "-o", "both.tar", "box", "second:2", "lab"]);
    let list = Command::new("tar").arg("-tf").arg(lab.home().join("both.tar")).output().expect("tar");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(["manifest.json", "index.json", "oci-layout"].iter().all(|name| list.contains(name)), "{list}");
    let id = says(&lab, &["images", "-q", "box"]);
    let said = says(&lab, &["rmi", "box", "second:2"]);
    assert!(said.contains("Untagged: second:2") && said.contains("Deleted: sha256:"), "{said}");
    assert!(says(&lab, &["load", "-i", "both.tar"]).contains("Loaded image: second:2"));
    assert_eq!(says(&lab, &["images", "-q", "box"]), id);

    let rootfs = lab.home().join("rootfs.tar.gz");
    let status = Command::new("tar")
        .arg("-czf")
        .arg(&rootfs)
        .arg("-C")
        .arg(lab.home().join("rootfs"))
        .arg(".")
        .status();
    assert!(status.expect("tar").success());
    let imported = says(
        &lab,
        &[
            "import",
            "-c",
            "CMD [\"echo\", \"imported\"]",
            "-c",
            "ENV PATH=/bin",
            "-m",
            "by hand",
            "rootfs.tar.gz",
            "imported:1",
        ],
    );
    assert!(imported.starts_with("sha256:"), "{imported}");
    let history = says(&lab, &["history", "imported:1"]);
    assert!(history.starts_with("IMAGE") && history.contains("by hand"), "{history}");
    assert_eq!(says(&lab, &["history", "-q", "--no-trunc", "imported:1"]), imported);
    if Wall::Container.missing().is_none() {
        assert_eq!(says(&lab, &["run", "imported:1"]), "imported");
    }
    fs::write(lab.home().join("nonsense"), "no tar at all").expect("a file");
    for arguments in [
        &["import", "nonsense"][..],
        &["import", "-c", "RUN x", "rootfs.tar.gz"],
        &["load", "-i", "nonsense"],
        &["load", "-i", "missing"],
    ] {
        let output = lab.run(arguments, "");
        assert!(output.code == 1 && output.stderr.lines().count() == 1, "{arguments:?}: {output:?}");
    }
    says(&lab, &["rmi", "imported:1"]);
    assert_eq!(lab.run(&["import", "-", "piped"], "").code, 1, "nothing is no tar");
}

#[test]
fn unneeded_images_are_pruned_when_asked() {
    let Some(lab) = lab("lab image prune") else { return };
    assert_eq!(says(&lab, &["image", "prune", "-f"]), "Total reclaimed space: 0B");
    let output = lab.run(&["image", "prune", "-f", "--filter", "colour=red"], "");
    assert!(output.code == 1 && output.stderr.contains("invalid filter 'colour'"), "{output:?}");
    says(&lab, &["image", "prune", "-f", "-a", "--filter", "until=1970-01-02"]);
    let said = says(&lab, &["image", "prune", "-f", "-a"]);
    assert!(said.contains("Untagged: box:latest") && said.contains("Deleted: sha256:"), "{said}");
    assert_eq!(says(&lab, &["images", "-q", "box"]), "");
}

#[test]
fn docker_imports_an_archive() {
    let Some(daemon) = Daemon::start("container: docker import") else { return };
    if let Some(why) = image::missing() {
        return skip("container: docker import", why);
    }
    image::archive(daemon.lab.home());
    let rootfs = daemon.lab.home().join("rootfs.tar");
    let status = Command::new("tar")
        .arg("-cf")
        .arg(&rootfs)
        .arg("-C")
        .arg(daemon.lab.home().join("rootfs"))
        .arg(".")
        .status();
    assert!(status.expect("tar").success());
    let id = daemon.says(&[
        "import",
        "--change",
        "CMD [\"/bin/echo\", \"hello\"]",
        rootfs.to_str().expect("a text"),
        "imported:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(daemon.says(&["run", "--rm", "imported:1"]), "hello");
    daemon.says(&["create", "--name", "one", "imported:1"]);
    daemon.says(&[
        "commit",
        "-c",
        "ENV A=b",
        "-c",
        "CMD [\"/bin/sh\", \"-c\", \"echo $A\"]",
        "one",
        "changed",
    ]);
    assert_eq!(daemon.says(&["run", "--rm", "changed"]), "b");
    let output = daemon.docker_with(&["import", "-", "bad"], "no tar");
    assert!(output.code == 1, "{output:?}");
}

#[test]
fn a_full_disk_is_told_and_leaves_the_store_as_it_was() {
    let Some(lab) = lab("a full disk") else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("a full disk", "a file system of its own needs root");
    }
    let big = lab.home().join("big");
    fs::create_dir_all(&big).expect("a directory");
    let noise: Vec<u8> = (0..12_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(big.join("noise"), noise).expect("a file");
    assert!(
        Command::new("tar")
            .arg("-cf")
            .arg(lab.home().join("big.tar"))
            .arg("-C")
            .arg(&big)
            .arg(".")
            .status()
            .expect("tar")
            .success()
    );
    says(&lab, &["import", "big.tar", "big:1"]);
    says(&lab, &["save", "-o", "big-image.tar", "big:1"]);
    // The store on a file system of 6 MB, which only these commands see.
    let script = "set -e; mount -t tmpfs -o size=6m none \"$PLACE\"; export LAB_HOME=$PLACE; \
        ! \"$LAB\" load -i big-image.tar; ! \"$LAB\" import big.tar; \"$LAB\" load -i box.tar; \
        echo images: $(\"$LAB\" images --format '{{.Repository}}'); echo left: $(ls $PLACE/images/tmp $PLACE/images/layers | grep -c . || true); \
        df -k \"$PLACE\" | tail -1";
    let place = lab.home().join("small");
    fs::create_dir_all(&place).expect("a directory");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("PLACE", &place)
        .env("LAB", env!("CARGO_BIN_EXE_lab"))
        .env("XDG_RUNTIME_DIR", lab.home().join("run"))
        .current_dir(lab.home())
        .output()
        .expect("unshare is installed");
    let (told, said) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}{told}");
    assert_eq!(told.matches("free some space").count(), 2, "{told}");
    assert!(said.contains("Loaded image: box:latest") && said.contains("box"), "{said}{told}");
}
