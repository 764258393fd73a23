//! Volumes: folders of the host that outlive containers.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use bollard_stubs::models::{ContainerCreateBody, MountType};
use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::{Map, Value};

use super::plan::{self, Wish};
use super::record::now;
use super::{Engine, Record};
use crate::engine::place::{make_all, remove_tree};
use crate::engine::request::{Choices, Extra};
use crate::engine::{Error, id};

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Labels.
    pub labels: Map<String, Value>,
    /// Options of its driver.
    pub options: Map<String, Value>,
    /// Whether it has no name of a user's.
    pub anonymous: bool,
    /// How many containers use it.
    pub used: i64,
}

const SELECT: &str = "SELECT name, created, labels, options, anonymous,
    (SELECT count(*) FROM volumes_used WHERE volume = name) FROM volumes";

impl Volume {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let map = |column| -> rusqlite::Result<Map<String, Value>> {
            let text: String = row.get(column)?;
            Ok(serde_json::from_str(&text).unwrap_or_default())
        };
        Ok(Self {
            name: row.get(0)?,
            created: row.get(1)?,
            labels: map(2)?,
            options: map(3)?,
            anonymous: row.get(4)?,
            used: row.get(5)?,
        })
    }
}

/// What a configuration changes about the isolation of a run that is not stored. Its volumes are the engine's; new ones
/// without a name would have no owner, so they are a tmpfs.
///
/// # Errors
/// Flags that make no sense.
pub fn choices_of_run(body: &ContainerCreateBody) -> Result<Choices, Error> {
    let mut wishes = plan::wishes(body)?;
    for wish in wishes.iter_mut().filter(|wish| wish.source.is_none()) {
        wish.kind = MountType::TMPFS;
    }
    let mut mounts = Vec::new();
    if !wishes.is_empty() {
        let engine = Engine::open()?;
        engine.settle_volumes(&mut wishes)?;
        mounts = engine.mounts(&wishes)?;
    }
    let host = body.host_config.clone().unwrap_or_default();
    let mut choices = plan::choices(&host, body, mounts)?;
    if [host.pid_mode, host.ipc_mode, host.uts_mode].iter().any(Option::is_some) || host.init == Some(true) {
        let mut body = body.clone();
        // Nobody can join what is not stored.
        let host = body.host_config.get_or_insert_default();
        host.ipc_mode = host.ipc_mode.take().filter(|mode| mode != "shareable");
        Engine::open()?.share(&body, Some(""), &mut choices)?;
    }
    Ok(choices)
}

impl Engine {
    /// The folder of a volume.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.roots.volumes().join(name).join("_data")
    }

    /// Makes a volume; one that is there already is left as it is. Without a name it gets one, and is anonymous.
    ///
    /// # Errors
    /// Where the name breaks the rules, or the folder cannot be made.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: &Map<String, Value>,
        options: &Map<String, Value>,
    ) -> Result<Volume, Error> {
        let (name, anonymous) = match name.filter(|name| !name.is_empty()) {
            Some(name) => {
                id::check_name(name)?;
                (name.to_owned(), false)
            }
            None => (id::new().map_err(|error| Error::io("read", "/dev/urandom", error))?, true),
        };
        if !options.is_empty() {
            return Err(Error::bad(
                "options of a volume's driver are not supported; bind-mount a folder instead",
            ));
        }
        make_all(&self.roots.volumes())?;
        let path = self.volume_path(&name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
        made.map_err(|error| Error::io("create", path.display(), error))?;
        let text = serde_json::to_string(labels)?;
        let new = self.db.with(|db| {
            let sql = "INSERT INTO volumes (name, created, labels, anonymous) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            db.execute(sql, params![name, now(), text, anonymous])
        })?;
        if new == 1 {
            self.tell("volume", "create", &name, &[("driver", "local")])?;
        }
        self.volume(&name)
    }

    /// A volume by its name.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn volume(&self, name: &str) -> Result<Volume, Error> {
        let found = self.db.with(|db| {
            db.query_row(&format!("{SELECT} WHERE name = ?1"), [name], Volume::from_row).optional()
        })?;
        found.ok_or_else(|| Error::Missing { kind: "volume", name: name.to_owned() })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.db.with(|db| {
            db.prepare(&format!("{SELECT} ORDER BY name"))?.query_map([], Volume::from_row)?.collect()
        })
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`Error::Conflict`] where one does.
    pub fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let volume = self.volume(name)?;
        self.db.change(|db| {
            let sql = "SELECT container FROM volumes_used WHERE volume = ?1 LIMIT 1";
            let user: Option<String> =
                db.query_row(sql, [name], |row| row.get(0)).optional().map_err(self.db.failed())?;
            if let Some(user) = user {
                return Err(Error::conflict(format!("remove {name}: volume is in use - [{user}]")));
            }
            db.execute("DELETE FROM volumes WHERE name = ?1", [name]).map(drop).map_err(self.db.failed())
        })?;
        remove_tree(&self.roots.volumes().join(&volume.name))?;
        self.tell("volume", "destroy", name, &[("driver", "local")])
    }

    /// Makes the volumes that a new container wishes for, and notes that it uses them. A name is given to each that
    /// has none, so that the container finds the same one at its next start.
    pub(super) fn settle_volumes(&self, wishes: &mut [Wish]) -> Result<Vec<String>, Error> {
        let mut used = Vec::new();
        for wish in wishes.iter_mut().filter(|wish| wish.kind == MountType::VOLUME) {
            let volume = self.create_volume(wish.source.as_deref(), &Map::new(), &Map::new())?;
            wish.source = Some(volume.name.clone());
            used.push(volume.name);
        }
        Ok(used)
    }

    /// Where on the host that lies which a wish names; nowhere for a tmpfs.
    pub(super) fn source(&self, wish: &Wish) -> Option<PathBuf> {
        match (&wish.source, wish.kind) {
            (_, MountType::TMPFS) | (None, _) => None,
            (Some(name), MountType::VOLUME) => Some(self.volume_path(name)),
            (Some(path), _) => Some(PathBuf::from(path)),
        }
    }

    /// The mounts of a container, their sources found. A folder that `-v` names is made, as docker does.
    pub(crate) fn mounts(&self, wishes: &[Wish]) -> Result<Vec<Extra>, Error> {
        let mut mounts = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let source = self.source(wish);
            if let Some(path) = source.as_ref().filter(|path| !path.exists()) {
                if wish.must_exist && wish.kind == MountType::BIND {
                    let message = "invalid mount config for type \"bind\": bind source path does not exist";
                    return Err(Error::bad(format!("{message}: {}", path.display())));
                }
                fs::create_dir_all(path).map_err(|error| Error::io("create", path.display(), error))?;
            }
            mounts.push(plan::extra(wish, source));
        }
        Ok(mounts)
    }

    /// The anonymous volumes of a container, which go with it where the user says so.
    pub(super) fn anonymous_volumes(&self, record: &Record) -> Result<Vec<String>, Error> {
        self.db.with(|db| {
            let sql = "SELECT name FROM volumes JOIN volumes_used ON volume = name WHERE container = ?1 AND anonymous";
            db.prepare(sql)?.query_map([&record.id], |row| row.get(0))?.collect()
        })
    }
}
