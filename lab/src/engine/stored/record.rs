//! What is kept about a container, and how it is found.

use std::borrow::Cow;

use bollard_stubs::models::{ContainerCreateBody, HostConfig, PortMap};
use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::{Db, Engine};
use crate::engine::{Error, Runtime, id};

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its workload runs.
    Running,
    /// Its workload is held still.
    Paused,
    /// Its workload ended and will be started again.
    Restarting,
    /// Its workload ended.
    Exited,
}

impl Status {
    /// As docker names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    fn from_name(name: &str) -> Self {
        [Self::Created, Self::Running, Self::Paused, Self::Restarting]
            .into_iter()
            .find(|status| status.name() == name)
            .unwrap_or(Self::Exited)
    }

    /// Whether there is a workload, held or not.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// A container as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The configuration: docker's create request with the image's defaults filled in.
    pub body: ContainerCreateBody,
    /// How it stands.
    pub status: Status,
    /// The workload's process, 0 for none.
    pub pid: i64,
    /// How the last run ended.
    pub exit_code: i64,
    /// Why the last run failed to start.
    pub error: String,
    /// When the last run began (RFC 3339).
    pub started: String,
    /// When the last run ended.
    pub finished: String,
    /// How often it was started again by its policy.
    pub restarts: i64,
    /// Whether a user ended it.
    pub stopped: bool,
    /// The ports that are published, while it runs.
    pub ports: PortMap,
    /// How it is, where that is checked.
    pub health: Option<Health>,
}

/// What its health checks say of a container; serialised as docker tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: Cow<'static, str>,
    /// How many checks in a row failed.
    pub failing_streak: i64,
    /// The last results, the oldest first.
    pub log: Vec<Probe>,
}

/// The result of one health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it began (RFC 3339).
    pub start: String,
    /// When it ended.
    pub end: String,
    /// How; -1 where it took too long.
    pub exit_code: i64,
    /// The beginning of what it printed.
    pub output: String,
}

impl Health {
    pub(crate) const STARTING: Cow<'static, str> = Cow::Borrowed("starting");
    pub(crate) const HEALTHY: Cow<'static, str> = Cow::Borrowed("healthy");
    pub(crate) const UNHEALTHY: Cow<'static, str> = Cow::Borrowed("unhealthy");
}

impl Default for Health {
    fn default() -> Self {
        Self { status: Self::STARTING, failing_streak: 0, log: Vec::new() }
    }
}

const COLUMNS: &str = "id, name, created, image, image_id, body, status, pid, exit_code, error, started, finished, restarts, stopped, ports, health";

impl Record {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let body: String = row.get(5)?;
        let status: String = row.get(6)?;
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            created: row.get(2)?,
            image: row.get(3)?,
            image_id: row.get(4)?,
            body: serde_json::from_str(&body).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, error.into())
            })?,
            status: Status::from_name(&status),
            pid: row.get(7)?,
            exit_code: row.get(8)?,
            error: row.get(9)?,
            started: row.get(10)?,
            finished: row.get(11)?,
            restarts: row.get(12)?,
            stopped: row.get(13)?,
            ports: serde_json::from_str(&row.get::<_, String>(14)?).unwrap_or_default(),
            health: serde_json::from_str(&row.get::<_, String>(15)?).ok(),
        })
    }

    /// The first digits of the id.
    pub fn short_id(&self) -> &str {
        id::short(&self.id)
    }

    /// The host's side of the configuration.
    pub fn host(&self) -> HostConfig {
        self.body.host_config.clone().unwrap_or_default()
    }

    /// Which wall it runs behind.
    pub fn runtime(&self) -> Runtime {
        match self.body.host_config.as_ref().and_then(|host| host.runtime.as_deref()) {
            Some("vm") => Runtime::Vm,
            _ => Runtime::Container,
        }
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.body.tty.unwrap_or(false)
    }

    /// Whether it is removed when it has ended.
    pub fn auto_remove(&self) -> bool {
        self.body.host_config.as_ref().and_then(|host| host.auto_remove).unwrap_or(false)
    }
}

impl Engine {
    /// Finds a container by its id, its name, or the beginning of its id, in this order, as docker does.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Bad`] where several ids begin like this.
    pub fn find(&self, asked: &str) -> Result<Record, Error> {
        let name = asked.strip_prefix('/').unwrap_or(asked);
        let exact = self.db.with(|db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1"
            );
            db.prepare(&sql)?.query_row([name], Record::from_row).optional()
        })?;
        if let Some(record) = exact {
            return Ok(record);
        }
        let hexadecimal = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hexadecimal {
            return Err(Error::no_container(asked));
        }
        let mut found = self.db.with(|db| {
            let sql = format!("SELECT {COLUMNS} FROM containers WHERE id LIKE ?1 || '%' LIMIT 2");
            db.prepare(&sql)?.query_map([name], Record::from_row)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        match (found.pop(), found.pop()) {
            (None, _) => Err(Error::no_container(asked)),
            (Some(record), None) => Ok(record),
            _ => Err(Error::bad(format!("Multiple IDs found with provided prefix: {asked}"))),
        }
    }

    /// All containers, the youngest first.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        self.db.with(|db| {
            let sql = format!("SELECT {COLUMNS} FROM containers ORDER BY created DESC, id");
            db.prepare(&sql)?.query_map([], Record::from_row)?.collect()
        })
    }

    /// Notes that a run began.
    pub(crate) fn note_started(&self, id: &str, pid: i64, ports: &PortMap) -> Result<(), Error> {
        let ports = serde_json::to_string(ports)?;
        self.db.with(|db| {
            let sql =
                "UPDATE containers SET status = 'running', pid = ?2, error = '', exit_code = 0, started = ?3,
                       ports = ?4, stopped = 0, health = '' WHERE id = ?1";
            db.execute(sql, params![id, pid, now(), ports]).map(drop)
        })
    }

    /// Notes that a run ended, and whether another follows.
    pub(crate) fn note_ended(&self, id: &str, code: i64, error: &str, again: bool) -> Result<(), Error> {
        self.db.with(|db| {
            let sql = "UPDATE containers SET status = ?2, pid = 0, ports = '{}', exit_code = ?3, error = ?4, finished = ?5,
                       restarts = restarts + ?6 WHERE id = ?1";
            let status = if again { Status::Restarting } else { Status::Exited };
            db.execute(sql, params![id, status.name(), code, error, now(), again])?;
            db.execute("UPDATE execs SET running = 0, exit_code = 137 WHERE container = ?1 AND running", [id])
                .map(drop)
        })
    }

    /// Notes how a run that could not begin failed.
    pub(crate) fn note_failed(&self, id: &str, code: i64, error: &str) -> Result<(), Error> {
        self.db.with(|db| {
            let sql = "UPDATE containers SET status = CASE started WHEN '0001-01-01T00:00:00Z' THEN 'created' ELSE 'exited' END,
                       pid = 0, exit_code = ?2, error = ?3 WHERE id = ?1";
            db.execute(sql, params![id, code, error]).map(drop)
        })
    }

    pub(crate) fn note_health(&self, id: &str, health: &Health) -> Result<(), Error> {
        let text = serde_json::to_string(health)?;
        self.db
            .with(|db| db.execute("UPDATE containers SET health = ?2 WHERE id = ?1", [id, &text]).map(drop))
    }

    pub(crate) fn note_status(&self, id: &str, status: Status) -> Result<(), Error> {
        self.db.with(|db| {
            db.execute("UPDATE containers SET status = ?2 WHERE id = ?1", [id, status.name()]).map(drop)
        })
    }

    pub(crate) fn note_stopped(&self, id: &str) -> Result<(), Error> {
        self.db.with(|db| db.execute("UPDATE containers SET stopped = 1 WHERE id = ?1", [id]).map(drop))
    }

    pub(crate) fn note_body(&self, id: &str, body: &ContainerCreateBody) -> Result<(), Error> {
        let text = serde_json::to_string(body)?;
        self.db.with(|db| db.execute("UPDATE containers SET body = ?2 WHERE id = ?1", [id, &text]).map(drop))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// Where the name breaks the rules or is taken.
    pub fn rename(&self, record: &Record, name: &str) -> Result<(), Error> {
        let name = name.strip_prefix('/').unwrap_or(name);
        id::check_name(name)?;
        self.db.change(|db| {
            check_free(&self.db, db, name)?;
            let sql = "UPDATE containers SET name = ?2 WHERE id = ?1";
            db.execute(sql, [record.id.as_str(), name]).map(drop).map_err(self.db.failed())
        })?;
        self.tell_container(record, "rename", &[("oldName", &record.name), ("name", name)])
    }
}

/// Refuses a name that another container has.
pub(super) fn check_free(state: &Db, db: &rusqlite::Connection, name: &str) -> Result<(), Error> {
    let owner: Option<String> = db
        .query_row("SELECT id FROM containers WHERE name = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(state.failed())?;
    match owner {
        None => Ok(()),
        // Docker's wording, which scripts read.
        Some(owner) => Err(Error::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
             rename) that container to be able to reuse that name."
        ))),
    }
}

/// This moment (RFC 3339).
pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
