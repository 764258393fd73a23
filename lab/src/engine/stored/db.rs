//! The database: one SQLite file, written by many processes at once.
//!
//! In write-ahead mode readers never wait, and writers wait for each other (`busy_timeout`). `synchronous=NORMAL` risks,
//! at a loss of power, the last changes but never the file (SQLite, "PRAGMA synchronous"): a machine that lost power has
//! lost its running containers anyway.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::engine::Error;
use crate::engine::place::make_all;

/// How long a writer waits for others. Each holds the lock for a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before another try, where SQLite does not wait itself.
const PAUSE: Duration = Duration::from_millis(5);

/// Each step brings a database from its number to the next; `user_version` says how many were done.
const MIGRATIONS: [&str; 9] = ["
    CREATE TABLE containers (
        id         TEXT PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE,
        created    TEXT NOT NULL,
        image      TEXT NOT NULL,
        image_id   TEXT NOT NULL,
        body       TEXT NOT NULL,             -- docker's create request with the image's defaults filled in, JSON
        status     TEXT NOT NULL DEFAULT 'created',
        pid        INTEGER NOT NULL DEFAULT 0,
        exit_code  INTEGER NOT NULL DEFAULT 0,
        error      TEXT NOT NULL DEFAULT '',
        started    TEXT NOT NULL DEFAULT '0001-01-01T00:00:00Z',
        finished   TEXT NOT NULL DEFAULT '0001-01-01T00:00:00Z',
        restarts   INTEGER NOT NULL DEFAULT 0,
        stopped    INTEGER NOT NULL DEFAULT 0 -- whether a user ended it: then it is not restarted
    ) STRICT;
    CREATE TABLE execs (
        id         TEXT PRIMARY KEY,
        container  TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
        config     TEXT NOT NULL,
        running    INTEGER NOT NULL DEFAULT 0,
        pid        INTEGER NOT NULL DEFAULT 0,
        exit_code  INTEGER
    ) STRICT;
    CREATE INDEX execs_of ON execs (container);
    CREATE TABLE volumes (
        name       TEXT PRIMARY KEY,
        created    TEXT NOT NULL,
        labels     TEXT NOT NULL DEFAULT '{}',
        options    TEXT NOT NULL DEFAULT '{}',
        anonymous  INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE volumes_used (
        volume     TEXT NOT NULL REFERENCES volumes,
        container  TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
        PRIMARY KEY (volume, container)
    ) STRICT;
    CREATE TABLE events (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        nanos      INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        action     TEXT NOT NULL,
        object     TEXT NOT NULL,
        attributes TEXT NOT NULL
    ) STRICT;
",
    "ALTER TABLE containers ADD COLUMN ports TEXT NOT NULL DEFAULT '{}'",
    "CREATE TABLE build_cache (key TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL) STRICT",
    "
    CREATE TABLE networks (
        id        TEXT PRIMARY KEY,
        name      TEXT NOT NULL UNIQUE,
        created   TEXT NOT NULL,
        subnet    INTEGER NOT NULL UNIQUE,
        labels    TEXT NOT NULL DEFAULT '{}'
    ) STRICT;
    CREATE TABLE endpoints (
        network   TEXT NOT NULL REFERENCES networks ON DELETE CASCADE,
        container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
        host      INTEGER NOT NULL,
        aliases   TEXT NOT NULL DEFAULT '[]',
        UNIQUE (network, host),
        UNIQUE (network, container)
    ) STRICT;
",
    // When a step was last made or taken from memory, in seconds since 1970.
    "ALTER TABLE build_cache ADD COLUMN used INTEGER NOT NULL DEFAULT 0",
    // When a build's step was first done: done again from memory, it makes the same image.
    "CREATE TABLE build_times (key TEXT PRIMARY KEY, created TEXT NOT NULL, used INTEGER NOT NULL) STRICT",
    // What health checks say.
    "ALTER TABLE containers ADD COLUMN health TEXT NOT NULL DEFAULT ''",
    // Whether nothing may leave it.
    "ALTER TABLE networks ADD COLUMN internal INTEGER NOT NULL DEFAULT 0",
    // Subnets of the user's choice, addresses of both families, and what an endpoint was asked for. To drop a table that others
    // refer to would remove their rows: the new ones refer to each other, and renaming keeps that (ALTER TABLE, SQLite).
    "
    CREATE TABLE new_networks (
        id        TEXT PRIMARY KEY,
        name      TEXT NOT NULL,
        created   TEXT NOT NULL,
        config    TEXT NOT NULL            -- JSON: how it is, its subnets among that
    ) STRICT;
    CREATE TABLE new_endpoints (
        network   TEXT NOT NULL REFERENCES new_networks ON DELETE CASCADE,
        container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
        address   TEXT NOT NULL,
        address6  TEXT NOT NULL DEFAULT '',
        settings  TEXT NOT NULL DEFAULT '{}', -- docker's EndpointSettings, JSON
        UNIQUE (network, container)
    ) STRICT;
    INSERT INTO new_networks SELECT id, name, created, json_object(
        'labels', json(labels), 'internal', json(iif(internal, 'true', 'false')),
        'pools', json_array(json_object(
            'subnet', '10.213.' || subnet || '.0/24', 'gateway', '10.213.' || subnet || '.1'))) FROM networks;
    INSERT INTO new_endpoints SELECT network, container, '10.213.' || subnet || '.' || host, '',
        json_object('Aliases', json(aliases)) FROM endpoints JOIN networks ON id = network ORDER BY endpoints.rowid;
    DROP TABLE endpoints;
    DROP TABLE networks;
    ALTER TABLE new_networks RENAME TO networks;
    ALTER TABLE new_endpoints RENAME TO endpoints;
    CREATE INDEX endpoints_of ON endpoints (container);
",
];

/// The database, as this process has it open.
#[derive(Debug)]
pub(super) struct Db {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if let Some(parent) = path.parent() {
            make_all(parent)?;
        }
        let open = || -> rusqlite::Result<Connection> {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(PATIENCE)?;
            write_ahead(&connection)?;
            connection.execute_batch(
                "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -256;",
            )?;
            migrate(&mut connection)?;
            Ok(connection)
        };
        let connection = open().map_err(|source| Error::State { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, or changes by one statement.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(&self.lock()).map_err(|source| Error::State { path: self.path.clone(), source })
    }

    /// Changes by several statements, all or none. The lock is taken at the beginning: what is read stays true.
    pub(super) fn change<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let failed = |source| Error::State { path: self.path.clone(), source };
        let mut connection = self.lock();
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
        let result = work(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(result)
    }

    /// For `map_err` inside [`Db::change`].
    pub(super) fn failed(&self) -> impl Fn(rusqlite::Error) -> Error + '_ {
        |source| Error::State { path: self.path.clone(), source }
    }
}

/// Switches to write-ahead logging, in which readers do not wait for a writer. Where another process is just making the
/// database or switching it, SQLite says so at once, whatever the time-out: two that waited for each other would wait for ever.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.execute_batch("PRAGMA journal_mode = WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version = |connection: &Connection| -> rusqlite::Result<u32> {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    };
    let all = MIGRATIONS.len() as u32;
    if version(connection)? == all {
        return Ok(());
    }
    // Two processes may find an old database at once: the second one waits here, and finds it new.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done = version(&transaction)?;
    for step in MIGRATIONS.iter().skip(done as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", all.max(done))?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_may_open_a_new_database_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |round: u32| directory.path().join(format!("deep-{round}/state.db"));
        for round in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| Db::open(&path(round)).unwrap());
                }
            });
        }
        let db = Db::open(&path(0)).unwrap();
        let tables: i64 = db
            .with(|db| {
                db.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))
            })
            .unwrap();
        assert!(tables >= 5, "{tables}");
    }

    #[test]
    fn networks_of_an_old_database_keep_their_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let old = Connection::open(&path).unwrap();
        MIGRATIONS[..8].iter().for_each(|step| old.execute_batch(step).unwrap());
        old.execute_batch(
            r#"PRAGMA user_version = 8;
            INSERT INTO containers (id, name, created, image, image_id, body) VALUES ('c', 'web', '', '', '', '{}');
            INSERT INTO networks (id, name, created, subnet, labels, internal) VALUES ('n', 'net', '', 7, '{"a":"b"}', 1);
            INSERT INTO endpoints VALUES ('n', 'c', 9, '["other"]');"#,
        )
        .unwrap();
        drop(old);
        let db = Db::open(&path).unwrap();
        let sql = "SELECT address, settings, config FROM endpoints JOIN networks ON id = network";
        let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<[String; 3]> {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?])
        };
        let [address, settings, config] = db.with(|db| db.query_row(sql, [], row)).unwrap();
        assert_eq!((&*address, &*settings), ("10.213.7.9", r#"{"Aliases":["other"]}"#));
        assert!(
            config.contains(r#""subnet":"10.213.7.0/24""#) && config.contains(r#""internal":true"#),
            "{config}"
        );
        db.with(|db| db.execute("DELETE FROM networks", [])).unwrap();
        let left: i64 =
            db.with(|db| db.query_row("SELECT count(*) FROM endpoints", [], |row| row.get(0))).unwrap();
        assert_eq!(left, 0, "a network takes its endpoints along");
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("state.db")).unwrap();
        let result: Result<(), Error> = db.change(|connection| {
            connection
                .execute("INSERT INTO volumes (name, created) VALUES ('v', '')", [])
                .map_err(db.failed())?;
            Err(Error::bad("no"))
        });
        assert!(result.is_err());
        let count: i64 =
            db.with(|db| db.query_row("SELECT count(*) FROM volumes", [], |row| row.get(0))).unwrap();
        assert_eq!(count, 0);
    }
}
