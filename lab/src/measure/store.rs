//! Results on disk: written whole or not at all, and read with suspicion.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::plan::Wall;
use super::record::{Obtained, Record, SCHEMA, VERSION};
use super::summary::Summary;

/// A result of 10,000 runs a wall has some 12 MB.
const LIMIT: u64 = 256 << 20;

/// Why a result cannot be stored or read.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be written.
    #[error("writing the result {path}: {source}; choose another place with --json FILE")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("reading the result {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what this version of the lab reads.
    #[error("{path} is no result that can be read: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not, and what would help.
        reason: String,
    },
}

/// Writes a result into the folder under a name made of its time and seed.
///
/// # Errors
/// What the file system says.
pub fn save(record: &Record, folder: &Path) -> Result<PathBuf, Error> {
    let path = path_of("compare", record, folder);
    write(&path, &json_text(record))?;
    Ok(path)
}

/// The file of a result of this kind: its time and seed are its name.
pub fn path_of(kind: &str, record: &Record, folder: &Path) -> PathBuf {
    let time: String = record.created.chars().filter(char::is_ascii_alphanumeric).collect();
    folder.join(format!("{kind}-{time}-{}.json", record.plan.seed))
}

/// A record as its file has it.
///
/// # Panics
/// Never: a record has no maps with keys other than strings.
pub fn json_text(record: &Record) -> String {
    let mut text = serde_json::to_string_pretty(record).expect("a record is plain data");
    text.push('\n');
    text
}

/// Writes a file whole or not at all: under another name first, then renamed (rename(2)).
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let error = |source| Error::Write { path: path.into(), source };
    // A pipe or a device (`--json /dev/stdout`) cannot be replaced, only written to.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return fs::write(path, text).map_err(error);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&partial);
        error(source)
    })
}

/// Reads a result.
///
/// # Errors
/// Where the file cannot be read, is too large, is of another version, or contradicts itself.
pub fn load(path: &Path) -> Result<Record, Error> {
    let error = |source| Error::Read { path: path.into(), source };
    let mut text = String::new();
    File::open(path).map_err(error)?.take(LIMIT + 1).read_to_string(&mut text).map_err(error)?;
    parse(&text).map_err(|reason| Error::Unreadable { path: path.into(), reason })
}

fn parse(text: &str) -> Result<Record, String> {
    if text.len() as u64 > LIMIT {
        return Err(format!("it is larger than {} MiB", LIMIT >> 20));
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON, or was cut off: {error}"))?;
    of_value(value)
}

/// A result from its JSON.
pub(super) fn of_value(value: serde_json::Value) -> Result<Record, String> {
    // Schema and version first: a file of another version is told apart from a broken one.
    if value["schema"] != SCHEMA {
        return Err(format!("it has no \"schema\": \"{SCHEMA}\""));
    }
    if value["version"] != VERSION {
        return Err(format!(
            "its version is {}, this lab reads version {VERSION}; use the lab that wrote it ({})",
            value["version"], value["lab"]
        ));
    }
    let mut record: Record =
        serde_json::from_value(value).map_err(|error| format!("a field is missing or wrong: {error}"))?;
    check(&record)?;
    // Figures come from the samples, whatever the file says they are.
    record.summary = Some(Summary::of(&record));
    Ok(record)
}

/// What the types cannot say.
fn check(record: &Record) -> Result<(), String> {
    /// More than any machine has, and little enough that sums cannot overflow.
    const MOST_BYTES: u64 = 1 << 50;
    for (index, wall) in record.walls.iter().enumerate() {
        let name = wall.wall.name();
        if record.walls[..index].iter().any(|other| other.wall == wall.wall) {
            return Err(format!("the wall {name} is in it twice"));
        }
        let fits = match wall.obtained {
            Obtained::HostKernel => wall.wall == Wall::Container,
            Obtained::Kvm { .. } | Obtained::Tcg => wall.wall == Wall::Vm,
            Obtained::Nothing => wall.counted().next().is_none() && wall.memory.is_none(),
        };
        if !fits {
            return Err(format!("the wall {name} cannot have been obtained by: {}", wall.obtained.label()));
        }
        for sample in &wall.samples {
            let within = |at: &u64| (sample.spawned..=sample.ended).contains(at);
            if sample.ended < sample.spawned || sample.counts() && !sample.marks.values().all(within) {
                return Err(format!("run {} of the wall {name} ends before it begins", sample.sequence));
            }
        }
        if let Some(memory) = &wall.memory {
            let processes = memory.processes.iter().flat_map(|p| [p.pss, p.private_dirty, p.rss]);
            let available = [memory.available_drop.unsigned_abs(), memory.available_noise.unsigned_abs()];
            if memory.processes.len() > 1000
                || processes.chain(available).chain(memory.cgroup).any(|bytes| bytes > MOST_BYTES)
            {
                return Err(format!("the wall {name} has more memory than any machine"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::super::record::Backing;
    use super::*;
    use serde_json::{Value, json};

    fn with(change: impl FnOnce(&mut Value)) -> Result<Record, String> {
        let mut value = serde_json::to_value(fixtures::record(3)).unwrap();
        change(&mut value);
        parse(&value.to_string())
    }

    #[test]
    fn a_result_comes_back_as_it_was_stored() {
        let mut record = fixtures::record(5);
        record.summary = Some(Summary::of(&record));
        let folder = std::env::temp_dir().join(format!("lab-store-{}", std::process::id()));
        let path = save(&record, &folder.join("results")).unwrap();
        let read = load(&path).unwrap();
        let left: Vec<_> = fs::read_dir(folder.join("results")).unwrap().collect();
        assert_eq!(left.len(), 1, "no partial file is left");
        fs::remove_dir_all(&folder).unwrap();
        assert!(read == record);
    }

    #[test]
    fn figures_are_computed_from_the_samples_and_never_read() {
        let lie =
            with(|value| value["summary"] = json!({"metrics": [], "phases": [], "warnings": []})).unwrap();
        assert_eq!(lie.summary, Some(Summary::of(&fixtures::record(3))));
    }

    #[test]
    fn a_file_cut_off_at_any_place_is_refused_without_a_panic() {
        let text = json_text(&fixtures::record(1));
        for end in (0..text.len() - 2).step_by(97) {
            assert!(parse(&text[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let error = with(|value| value["version"] = json!(7)).unwrap_err();
        assert!(error.contains("version is 7"), "{error}");
        assert!(with(|value| value["schema"] = json!("other")).is_err());
    }

    #[test]
    fn a_vm_result_cannot_lose_or_change_what_it_was_obtained_by() {
        assert!(with(|value| drop(value["walls"][1].as_object_mut().unwrap().remove("obtained"))).is_err());
        assert!(
            with(|value| drop(value["walls"][1]["obtained"].as_object_mut().unwrap().remove("backing")))
                .is_err()
        );
        assert!(with(|value| value["walls"][1]["obtained"] = json!({"by": "host-kernel"})).is_err());
        assert!(with(|value| value["walls"][1]["obtained"] = json!({"by": "nothing"})).is_err());
        let read = with(|_| {}).unwrap();
        assert_eq!(read.walls[1].obtained, Obtained::Kvm { backing: Backing::Software });
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        assert!(with(|value| value["walls"][0]["samples"][0]["ended"] = json!(0)).is_err());
        assert!(
            with(|value| value["walls"][0]["samples"][2]["marks"]["executed"] = json!(u64::MAX)).is_err()
        );
        assert!(with(|value| value["walls"][0]["samples"][2]["marks"]["executed"] = json!(-4)).is_err());
        assert!(with(|value| value["walls"][0]["memory"]["processes"][0]["pss"] = json!(u64::MAX)).is_err());
        assert!(with(|value| value["walls"][1]["wall"] = json!("container")).is_err());
        assert!(with(|value| value["walls"] = json!([])).is_ok(), "nothing measured is no contradiction");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = write(Path::new("/proc/no/result.json"), "").unwrap_err().to_string();
        assert!(error.contains("/proc/no/result.json"), "{error}");
    }
}
