//! Events: what happened, in order, for whoever asks now or later.

use rusqlite::params;
use serde_json::{Map, Value};

use super::{Engine, Record};
use crate::engine::Error;

/// So many are kept.
const KEPT: i64 = 1000;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// They are numbered in the order in which they happened.
    pub number: i64,
    /// When, in nanoseconds since 1970.
    pub nanos: i64,
    /// The kind of object: container, image, volume, network.
    pub kind: String,
    /// What happened to it.
    pub action: String,
    /// Its id or name.
    pub object: String,
    /// What else is known of it.
    pub attributes: Map<String, Value>,
}

impl Engine {
    /// Notes an event.
    ///
    /// # Errors
    /// Where the state cannot be written.
    pub fn tell(
        &self,
        kind: &str,
        action: &str,
        object: &str,
        attributes: &[(&str, &str)],
    ) -> Result<(), Error> {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
        let attributes = serde_json::to_string(&attributes.collect::<Map<_, _>>())?;
        let nanos = jiff::Timestamp::now().as_nanosecond() as i64;
        self.db.with(|db| {
            let sql =
                "INSERT INTO events (nanos, kind, action, object, attributes) VALUES (?1, ?2, ?3, ?4, ?5)";
            db.prepare(sql)?.execute(params![nanos, kind, action, object, attributes])?;
            let last = db.last_insert_rowid();
            if last % 100 == 0 {
                db.execute("DELETE FROM events WHERE number <= ?1", [last - KEPT])?;
            }
            Ok(())
        })
    }

    /// Notes an event of a container, with what docker tells of one: image, name, labels.
    ///
    /// # Errors
    /// Where the state cannot be written.
    pub fn tell_container(&self, record: &Record, action: &str, more: &[(&str, &str)]) -> Result<(), Error> {
        let labels = record.body.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut attributes: Vec<(&str, &str)> = labels.collect();
        attributes.extend([("image", record.image.as_str()), ("name", record.name.as_str())]);
        attributes.extend(more);
        self.tell("container", action, &record.id, &attributes)
    }

    /// The events after this number.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn events_after(&self, number: i64) -> Result<Vec<Event>, Error> {
        self.db.with(|db| {
            let sql = "SELECT number, nanos, kind, action, object, attributes FROM events WHERE number > ?1 ORDER BY number";
            db.prepare(sql)?
                .query_map([number], |row| {
                    let attributes: String = row.get(5)?;
                    Ok(Event {
                        number: row.get(0)?,
                        nanos: row.get(1)?,
                        kind: row.get(2)?,
                        action: row.get(3)?,
                        object: row.get(4)?,
                        attributes: serde_json::from_str(&attributes).unwrap_or_default(),
                    })
                })?
                .collect()
        })
    }

    /// The number of the last event.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn last_event(&self) -> Result<i64, Error> {
        self.db.with(|db| db.query_row("SELECT coalesce(max(number), 0) FROM events", [], |row| row.get(0)))
    }
}
