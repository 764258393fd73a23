//! Processes that are added to a container: what is stored of them, so that any process can ask how one ended.

use std::os::unix::net::UnixStream;

use bollard_stubs::models::ExecConfig;
use rusqlite::{OptionalExtension as _, params};

use super::{Engine, Record};
use crate::engine::error::Context as _;
use crate::engine::monitor::protocol::{Ask, Attach};
use crate::engine::{Error, id};

/// A process that is or was added.
#[derive(Clone, Debug)]
pub struct ExecRecord {
    /// Its id.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// What it runs, and how.
    pub config: ExecConfig,
    /// Whether it runs.
    pub running: bool,
    /// Its process, 0 for none.
    pub pid: i64,
    /// How it ended, if it has.
    pub exit_code: Option<i64>,
}

impl ExecRecord {
    /// One that nobody will ask for.
    pub(crate) fn unstored(container: &str, config: ExecConfig) -> Self {
        let id = id::new().unwrap_or_default();
        Self { id, container: container.to_owned(), config, running: false, pid: 0, exit_code: None }
    }

    /// Whether it has a terminal.
    pub fn terminal(&self) -> bool {
        self.config.tty.unwrap_or(false)
    }
}

impl Engine {
    /// Notes a process that is to be added to a container.
    ///
    /// # Errors
    /// Where the container does not run, or there is no command.
    pub fn create_exec(&self, record: &Record, config: &ExecConfig) -> Result<String, Error> {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::bad("No exec command specified"));
        }
        match record.status {
            super::Status::Running => {}
            super::Status::Paused => {
                return Err(Error::conflict(format!(
                    "Container {} is paused, unpause the container before exec",
                    record.name
                )));
            }
            _ => return Err(Error::conflict(format!("container {} is not running", record.id))),
        }
        let id = id::new().context("read", "/dev/urandom")?;
        let event = format!("exec_create: {}", config.cmd.as_deref().unwrap_or_default().join(" "));
        self.tell_container(record, &event, &[("execID", &id)])?;
        let text = serde_json::to_string(config)?;
        self.db.with(|db| {
            db.execute(
                "INSERT INTO execs (id, container, config) VALUES (?1, ?2, ?3)",
                [&id, &record.id, &text],
            )
        })?;
        Ok(id)
    }

    /// What is stored of a process that was added.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn exec_record(&self, id: &str) -> Result<ExecRecord, Error> {
        let row = self.db.with(|db| {
            let sql = "SELECT container, config, running, pid, exit_code FROM execs WHERE id = ?1";
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            db.query_row(sql, [id], read).optional()
        })?;
        let Some((container, config, running, pid, exit_code)) = row else {
            return Err(Error::Missing { kind: "exec instance", name: id.to_owned() });
        };
        Ok(ExecRecord {
            id: id.to_owned(),
            container,
            config: serde_json::from_str(&config)?,
            running,
            pid,
            exit_code,
        })
    }

    /// The processes that were added to a container and run.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn execs_of(&self, record: &Record) -> Result<Vec<String>, Error> {
        self.db.with(|db| {
            let sql = "SELECT id FROM execs WHERE container = ?1 AND running";
            db.prepare(sql)?.query_map([&record.id], |row| row.get(0))?.collect()
        })
    }

    /// Starts a process that was noted; its streams follow on the connection.
    ///
    /// # Errors
    /// Where the container does not run any more, or the command cannot be executed.
    pub fn start_exec(&self, exec: &ExecRecord, attach: Option<Attach>) -> Result<UnixStream, Error> {
        if exec.running || exec.exit_code.is_some() {
            return Err(Error::conflict(format!("exec {} has already been started", exec.id)));
        }
        let record = self.find(&exec.container)?;
        Ok(self.ask(&record, &Ask::Exec { id: exec.id.clone(), attach })?.0)
    }

    pub(crate) fn note_exec(
        &self,
        id: &str,
        running: bool,
        pid: i64,
        code: Option<i64>,
    ) -> Result<(), Error> {
        self.db.with(|db| {
            let sql = "UPDATE execs SET running = ?2, pid = ?3, exit_code = ?4 WHERE id = ?1";
            db.execute(sql, params![id, running, pid, code]).map(drop)
        })
    }
}
