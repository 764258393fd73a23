//! Virtual machines written down as they run, and any number of new ones that go on from there.
//!
//! ```text
//!   FOLDER/machine.snapshot   the machine: memory, processors, devices (crate microvm, `snapshot`)
//!   FOLDER/machine.json       what it was made of here: image, configuration, size, and a checksum over the other file
//! ```
//!
//! A machine made of it is a stored container as any other, with a name, addresses and random numbers of its own. Started again, it
//! goes on from the snapshot again. It shares the image and named volumes with the one that was written down, and no file of a
//! volume may be open then: the host knows that file by the old machine only.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bollard_stubs::models::{ContainerCreateBody, EndpointSettings};
use serde::{Deserialize, Serialize};

use super::record::now;
use super::{Engine, Record};
use crate::engine::error::Context as _;
use crate::engine::monitor::protocol::Ask;
use crate::engine::{Error, Runtime, id};

/// The machine's file in a snapshot's folder.
pub(crate) const MACHINE: &str = "machine.snapshot";
/// The description's.
const DESCRIPTION: &str = "machine.json";
/// The annotation of a container that goes on from a snapshot: its folder.
pub(crate) const ANNOTATION: &str = "lab.saved";

/// Raised with every change of what the description says.
const FORMAT: u32 = 1;

/// The longest description that is read: a configuration is some kilobytes.
const LONGEST: u64 = 4 << 20;

/// What a snapshot is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The version of this description.
    format: u32,
    /// When it was taken (RFC 3339).
    pub taken: String,
    /// The id of the machine that was written down.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image, as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Mebibytes of memory.
    pub memory_mib: u64,
    /// Its processors.
    pub vcpus: u64,
    /// A checksum over the machine's file.
    checksum: u32,
    /// Its configuration.
    body: ContainerCreateBody,
}

impl Engine {
    /// Writes a running machine down into a new folder. It is held still meanwhile, and goes on.
    ///
    /// # Errors
    /// Where it does not run, or is none; where the folder has something in it; what cannot be written. Nothing is left then.
    pub fn snapshot(&self, record: &Record, folder: &Path) -> Result<Saved, Error> {
        let report = self.machine(record)?.report;
        let folder = std::path::absolute(folder).context("find", folder.display())?;
        let made = make_empty(&folder)?;
        let file = folder.join(MACHINE);
        let write = || {
            self.ask(record, &Ask::Snapshot { file: file.clone() })?;
            let saved = Saved {
                format: FORMAT,
                taken: now(),
                id: record.id.clone(),
                name: record.name.clone(),
                image: record.image.clone(),
                image_id: record.image_id.clone(),
                memory_mib: report.memory >> 20,
                vcpus: report.vcpus as u64,
                checksum: microvm::snapshot::digest(&file)?,
                body: record.body.clone(),
            };
            // Last: a folder without it is none of a snapshot.
            saved.write(&folder)?;
            Ok(saved)
        };
        write().inspect_err(|_| {
            for name in [MACHINE, DESCRIPTION] {
                let _ = fs::remove_file(folder.join(name));
            }
            if made {
                let _ = fs::remove_dir(&folder);
            }
        })
    }

    /// Makes a machine of a snapshot, and lets it go on.
    ///
    /// # Errors
    /// Where the folder holds no whole snapshot, or one that this machine cannot use; where the image is not here, or the name is
    /// taken. Nothing is left then.
    pub fn restore(&self, saved: &Saved, folder: &Path, name: Option<&str>) -> Result<Record, Error> {
        let folder = std::path::absolute(folder).context("find", folder.display())?;
        let mut body = saved.body.clone();
        let image = self.images().resolve(&saved.image_id).map_err(|_| {
            Error::bad(format!(
                "the snapshot {} is of the image {} ({}), which is not here; pull or load it first",
                folder.display(),
                saved.image,
                saved.image_id
            ))
        })?;
        // The name may be another image's by now.
        let same = self.images().resolve(&saved.image).is_ok_and(|named| named.id() == image.id());
        body.image = Some(if same { &saved.image } else { &saved.image_id }.clone());
        own(&mut body, saved);
        let annotations = body.host_config.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), folder.to_string_lossy().into_owned());
        let record = self.create(name, body)?;
        if let Err(error) = self.start(&record) {
            // One that was to remove itself has.
            let _ = self.find(&record.id).and_then(|record| self.remove(&record, true, true));
            return Err(error);
        }
        self.find(&record.id)
    }
}

/// What a new machine must not have of the old one.
fn own(body: &mut ContainerCreateBody, saved: &Saved) {
    if body.hostname.as_deref() == Some(id::short(&saved.id)) {
        body.hostname = None;
    }
    let host = body.host_config.get_or_insert_default();
    // Limits may have been changed since its boot; its size was not.
    host.memory = i64::try_from(saved.memory_mib << 20).ok();
    host.nano_cpus = i64::try_from(saved.vcpus * 1_000_000_000).ok();
    (host.cpu_quota, host.cpu_period, host.memory_swap) = (None, None, None);
    // Where it is reached on the host the other one is reached already: any port will do.
    for binding in host.port_bindings.iter_mut().flat_map(|all| all.values_mut()).flatten().flatten() {
        binding.host_port = None;
    }
    // Sockets are files of the old one's.
    for name in ["lab.vsock", "lab.gdb"] {
        host.annotations.get_or_insert_default().remove(name);
    }
    let endpoints = body.networking_config.iter_mut().filter_map(|config| config.endpoints_config.as_mut());
    for endpoint in endpoints.flat_map(|all| all.values_mut()) {
        *endpoint = EndpointSettings { aliases: endpoint.aliases.clone(), ..EndpointSettings::default() };
    }
}

impl Saved {
    /// Reads what a folder's snapshot is of, and whether all of it is there and as it was written.
    ///
    /// # Errors
    /// Which part is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let none =
            |why: &str| Error::bad(format!("{} holds no snapshot of a machine: {why}", folder.display()));
        let path = folder.join(DESCRIPTION);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(none("it has no machine.json; `lab vm snapshot NAME FOLDER` makes one"));
            }
            other => other.context("open", path.display())?,
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, LONGEST), &mut text)
            .context("read", path.display())?;
        let damaged = |error: serde_json::Error| none(&format!("its machine.json is damaged ({error})"));
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if value["format"] != FORMAT {
            return Err(none(&format!("its format is {}, not {FORMAT}; take it again", value["format"])));
        }
        let saved: Self = serde_json::from_value(value).map_err(damaged)?;
        if saved.body.host_config.as_ref().and_then(|host| host.runtime.as_deref())
            != Some(Runtime::Vm.name())
        {
            return Err(none("its machine.json is of no machine"));
        }
        let machine = folder.join(MACHINE);
        if microvm::snapshot::digest(&machine)? != saved.checksum {
            return Err(none("the checksum of its machine.snapshot is wrong: it is damaged; take it again"));
        }
        Ok(saved)
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(DESCRIPTION);
        // The environment of a workload may hold secrets, as its memory does.
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.context("create", path.display())?;
        let text = serde_json::to_vec_pretty(self)?;
        file.write_all(&text).and_then(|()| file.sync_all()).context("write", path.display())
    }
}

/// Makes a folder, unless it is there and empty. Whether it was made.
fn make_empty(folder: &Path) -> Result<bool, Error> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_dir(folder).is_ok_and(|entries| entries.count() == 0) {
                return Ok(false);
            }
            Err(Error::bad(format!(
                "{} exists and is no empty folder; name a new one for the snapshot",
                folder.display()
            )))
        }
        Err(error) => Err(Error::io("create", folder.display(), error)),
    }
}

/// What a snapshot takes on the disk, in bytes: less than its machine's memory, as pages that were never touched take nothing.
///
/// # Errors
/// Where it cannot be looked at.
pub fn size_on_disk(folder: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let file: PathBuf = folder.join(MACHINE);
    Ok(fs::metadata(&file).context("look at", file.display())?.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let body = serde_json::json!({"Hostname": "0123456789ab", "HostConfig": {
            "Runtime": "vm", "Memory": 1, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "Annotations": {"lab.gdb": "/tmp/g"}}, "NetworkingConfig": {"EndpointsConfig": {"town": {
            "Aliases": ["web"], "MacAddress": "02:00:00:00:00:09", "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}}});
        Saved {
            format: FORMAT,
            taken: now(),
            id: "0123456789ab".repeat(5) + "0123",
            name: "web".into(),
            image: "box".into(),
            image_id: "sha256:0".into(),
            memory_mib: 64,
            vcpus: 2,
            checksum: 0,
            body: serde_json::from_value(body).unwrap(),
        }
    }

    #[test]
    fn a_new_machine_has_the_size_of_the_old_one_and_no_name_or_place_of_its() {
        let (saved, mut body) = (saved(), saved().body);
        own(&mut body, &saved);
        let text = serde_json::to_string(&body).unwrap();
        for gone in ["0123456789ab", "8080", "lab.gdb", "10.0.0.9", "02:00"] {
            assert!(!text.contains(gone), "{gone} is left in {text}");
        }
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.nano_cpus), (Some(64 << 20), Some(2_000_000_000)));
        assert!(text.contains("127.0.0.1") && text.contains("\"Aliases\":[\"web\"]"), "{text}");
    }

    #[test]
    fn a_folder_without_a_whole_snapshot_is_refused_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || Saved::read(folder.path()).unwrap_err().to_string();
        assert!(refused().contains("no machine.json"));
        fs::write(folder.path().join(DESCRIPTION), "{").unwrap();
        assert!(refused().contains("damaged"), "{}", refused());
        fs::write(folder.path().join(DESCRIPTION), "{\"format\": 9}").unwrap();
        assert!(refused().contains("format is 9, not 1"), "{}", refused());
        fs::remove_file(folder.path().join(DESCRIPTION)).unwrap();
        saved().write(folder.path()).unwrap();
        assert!(refused().contains(MACHINE), "{}", refused());
        fs::write(folder.path().join(MACHINE), "not it").unwrap();
        assert!(refused().contains("checksum"), "{}", refused());
        assert!(make_empty(folder.path()).unwrap_err().to_string().contains("no empty folder"));
    }
}
