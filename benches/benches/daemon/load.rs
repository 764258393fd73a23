//! Loading a large image beside `tar x` of the same layers: what the store does for digests, safety and durability is
//! the difference. The store unpacks a layer when it is first needed; so what counts is loading and a first run together.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::race::{Contender, print, race};
use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, SeedableRng as _};

use super::engines::Failure;

/// So often each is done; a round unpacks the image some four times.
const ROUNDS: u32 = 5;
/// How many layers the image has.
const LAYERS: u64 = 5;

/// Prints how long it takes, for layers that are plain and for compressed ones.
pub fn load(lab: &Path, place: &Path, megabytes: u64) -> Result<(), Failure> {
    for compressed in [false, true] {
        let folder = place.join(if compressed { "gzip" } else { "plain" });
        let archive = make(&folder, megabytes, compressed)?;
        let home = folder.join("home");
        let (lab, layers, target) = (lab.to_owned(), folder.join("save"), folder.join("unpacked"));
        let (old_home, old_target) = (home.clone(), target.clone());
        let mut contenders = [
            Contender::new("lab load, then a first run", move |_| {
                let _ = fs::remove_dir_all(&old_home);
                // The image has no program: what is not found (127) is looked for in what was unpacked.
                let script =
                    r#""$0" load --quiet -i "$1" && { "$0" run --quiet large nothing; test $? = 127; }"#;
                let mut command = Command::new("sh");
                command.args(["-c", script]).arg(&lab).arg(&archive).env("LAB_HOME", &home);
                command
            }),
            Contender::new("tar x", move |_| {
                let _ = fs::remove_dir_all(&old_target);
                let mut command = Command::new("sh");
                let script = r#"for layer in "$0"/layer-*; do mkdir -p "$1" && tar -x -f "$layer" -C "$1" || exit 1; done"#;
                command.args(["-c", script]).arg(&layers).arg(&target);
                command
            }),
        ];
        let kind = if compressed { "gzip" } else { "plain" };
        let laps = race(&mut contenders, ROUNDS, super::SEED)?;
        print(
            &format!("an image of {megabytes} MB in {LAYERS} {kind} layers, {ROUNDS} interleaved rounds"),
            &laps,
            "tar x",
            super::SEED,
        );
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// An archive as `docker save` writes it, of files of many sizes, and its layers one by one beside it.
fn make(folder: &Path, megabytes: u64, compressed: bool) -> Result<PathBuf, Failure> {
    let save = folder.join("save");
    fs::create_dir_all(&save)?;
    let mut random = ChaCha8Rng::seed_from_u64(super::SEED);
    let (mut names, mut digests) = (Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        let tree = folder.join("tree");
        let mut left = megabytes * 1_000_000 / LAYERS;
        let mut number = 0;
        while left > 0 {
            // From 1 kB to 1 MB, as many of each order of magnitude: what a distribution's image looks like.
            let size = (1000 << (random.next_u32() % 11)).min(left);
            let directory = tree.join(format!("layer-{layer}/{}", number % 50));
            fs::create_dir_all(&directory)?;
            let mut content = vec![0; size as usize];
            random.fill_bytes(&mut content);
            // Half of it compresses, as programs and texts do.
            for pair in content.chunks_mut(64).step_by(2) {
                pair.fill(b'x');
            }
            BufWriter::new(File::create(directory.join(number.to_string()))?).write_all(&content)?;
            left -= size;
            number += 1;
        }
        let plain = save.join(format!("layer-{layer}.tar"));
        run(Command::new("tar")
            .args(["--owner=0", "--group=0", "-cf"])
            .arg(&plain)
            .arg("-C")
            .arg(&tree)
            .arg("."))?;
        fs::remove_dir_all(&tree)?;
        digests.push(format!("sha256:{}", sha256(&plain)?));
        if compressed {
            run(Command::new("gzip").arg("-1").arg(&plain))?;
        }
        names.push(format!("layer-{layer}.tar{}", if compressed { ".gz" } else { "" }));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    fs::write(save.join("config.json"), config.to_string())?;
    let name = format!("{}.json", sha256(&save.join("config.json"))?);
    fs::rename(save.join("config.json"), save.join(&name))?;
    let manifest = serde_json::json!([{"Config": name, "RepoTags": ["large:latest"], "Layers": names}]);
    fs::write(save.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("image.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&save).arg("."))?;
    Ok(archive)
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn sha256(file: &Path) -> Result<String, Failure> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().ok_or("sha256sum says nothing")?.to_owned())
}
