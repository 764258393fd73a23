//! Which layers build steps made: a step that depends on the same is not done again.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::prune::Scope;
use super::{Engine, Filters, NewLayer};
use crate::engine::Error;

impl Engine {
    /// The layer that a build step of this key made, as it is remembered, if the store still has it.
    pub(crate) fn known_layer(&self, key: &str) -> Result<Option<NewLayer>, Error> {
        let row = self.db.with(|db| {
            let sql = "UPDATE build_cache SET used = ?2 WHERE key = ?1 RETURNING digest, size";
            let now = Timestamp::now().as_second();
            db.query_row(sql, params![key, now], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
                .optional()
        })?;
        let Some((digest, size)) = row else { return Ok(None) };
        let layer = NewLayer { digest: digest.parse()?, size: size as u64 };
        // It may have been collected since.
        Ok(Some(layer).filter(|layer| self.images().has_blob(layer.digest, layer.size)))
    }

    /// Remembers the layer that a build step of this key made.
    pub(crate) fn remember_layer(&self, key: &str, layer: NewLayer) -> Result<(), Error> {
        self.db.with(|db| {
            let sql = "INSERT OR REPLACE INTO build_cache (key, digest, size, used) VALUES (?1, ?2, ?3, ?4)";
            let now = Timestamp::now().as_second();
            db.execute(sql, params![key, layer.digest.to_string(), layer.size as i64, now]).map(drop)
        })
    }

    /// When a build's step of this key was first done (RFC 3339); with `anew`, it is done now.
    pub(crate) fn time_of_step(&self, key: &str, anew: bool) -> Result<String, Error> {
        self.db.with(|db| {
            let sql = "INSERT INTO build_times (key, created, used) VALUES (?1, ?2, ?3)
                ON CONFLICT (key) DO UPDATE SET used = ?3, created = iif(?4, ?2, created) RETURNING created";
            let now = Timestamp::now();
            db.query_row(sql, params![key, now.to_string(), now.as_second(), anew], |row| row.get(0))
        })
    }

    /// Forgets which layers build steps made; with the filter `until`, those not needed since. Tells the keys, and the
    /// bytes of layers that went with them.
    ///
    /// # Errors
    /// A filter that there is not; where the state cannot be written.
    pub fn forget_builds(&self, filters: &Filters) -> Result<(Vec<String>, u64), Error> {
        // A label is an image's, not a step's.
        filters.check(&["until", "unused-for"])?;
        let until = match filters.get("unused-for") {
            Some([only]) => Some(crate::engine::moment::parse(only, Timestamp::now())?),
            Some(_) => return Err(Error::bad("more than one unused-for filter specified")),
            None => Scope::of(filters, &[])?.until(),
        };
        let until = until.map_or(i64::MAX, Timestamp::as_second);
        let forgotten = self.db.with(|db| {
            let sql = "DELETE FROM build_cache WHERE used <= ?1 RETURNING key";
            db.prepare(sql)?.query_map([until], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        self.db.with(|db| db.execute("DELETE FROM build_times WHERE used <= ?1", [until]))?;
        if until == i64::MAX {
            crate::engine::place::remove_tree(&self.roots.build_caches())?;
        }
        let freed = self.images().collect_garbage()?.unwrap_or(0);
        Ok((forgotten, freed))
    }
}
