//! Stored containers: those that live on their own, from `create` to `rm`, whoever asks for it.
//!
//! ```text
//!   lab create, start, …  ─┐                                   ┌─ state.db  (SQLite: who there is, how it stands)
//!   lab daemon (docker)   ─┴─►  Engine  (this module)  ────────┤
//!                                  │ one line of JSON each     └─ containers/ID/  (writable layer, log, hosts)
//!                                  ▼
//!                               monitor of each running container  ──►  trait Sandbox
//! ```
//!
//! There is no server here: an [`Engine`] is a handle on files, and any number of processes have one at once. What must
//! go on when all of them have ended, the streams, the log and the exit status of a container, is its monitor's
//! ([`super::monitor`]), one small process for each container that runs.
//!
//! Reading order: `db.rs` and `record.rs`, what is kept; `plan.rs`, from docker's configuration to what a wall is asked
//! for; `create.rs`, `life.rs`, `link.rs`, a container's life; `inspect.rs`, `logs.rs`, `events.rs`, `files.rs`,
//! `transfer.rs`, looking at it.

mod commit;
mod create;
mod db;
mod events;
mod exec;
mod files;
mod inspect;
mod life;
mod link;
mod list;
mod logs;
pub mod networks;
pub mod plan;
mod record;
mod root;
mod transfer;
mod usage;
pub mod volumes;

pub use commit::Commit;
pub(crate) use commit::{NewLayer, Step};
pub use events::Event;
pub use exec::ExecRecord;
pub use files::Change;
pub(crate) use files::unpack;
pub use life::Stop;
pub use link::connect;
pub(crate) use link::{probe as connect_probe, short};
pub use list::Filters;
pub use logs::{LogOptions, LogReader};
pub use record::{Record, Status};
pub(crate) use root::{Root, host_directory, mount_overlay};
pub use volumes::choices_of_run;

use super::Error;
use super::place::Roots;
use crate::image::{Digest, Reference, Removed, Store, embedded};
use db::Db;

/// A handle on this machine's containers and images.
#[derive(Debug)]
pub struct Engine {
    pub(crate) roots: Roots,
    store: Store,
    db: Db,
}

impl Engine {
    /// Opens the engine's state at its usual place, and makes it where there is none.
    ///
    /// # Errors
    /// Where it cannot be made or read.
    pub fn open() -> Result<Self, Error> {
        let roots = Roots::of_process()?;
        let store = Store::open(&roots.images())?;
        let db = Db::open(&roots.database())?;
        Ok(Self { roots, store, db })
    }

    /// The images.
    pub fn images(&self) -> &Store {
        &self.store
    }

    /// Brings the state in line with what runs, after a start of the machine or of a daemon, and starts those whose policy
    /// wants them to run.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn revive(&self) -> Result<(), Error> {
        use bollard_stubs::models::RestartPolicyNameEnum as Policy;
        for record in self.records()? {
            self.reconcile(&record)?;
            let record = self.find(&record.id)?;
            let policy = record.host().restart_policy.and_then(|policy| policy.name);
            let wanted = match policy {
                Some(Policy::ALWAYS) => true,
                Some(Policy::UNLESS_STOPPED) => !record.stopped,
                _ => false,
            };
            if wanted && record.status == Status::Exited {
                // One that cannot start must not keep the others from it; its record says why.
                let _ = self.start(&record);
            }
        }
        Ok(())
    }

    /// Removes a name of an image, or the image. One that a container was made from stays.
    ///
    /// # Errors
    /// [`Error::Conflict`] where a container needs it.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, Error> {
        let image = self.store.resolve(name)?;
        let id = image.id().to_string();
        let names = self.store.list()?.into_iter().filter(|other| other.id == image.id()).count();
        let by_id = image.name().is_none_or(|found| name.parse::<Reference>().ok().as_ref() != Some(found));
        if names == 1 || by_id {
            let short = image.id().hex()[..12].to_owned();
            if let Some(user) = self.records()?.into_iter().find(|record| record.image_id == id) {
                let state = if user.status.is_live() { "running" } else { "stopped" };
                return Err(Error::conflict(format!(
                    "conflict: unable to delete {name} (must be forced) - image {short} is being used by {state} container {}; \
                     remove the container first",
                    user.short_id()
                )));
            }
        }
        drop(image);
        let removed = self.store.remove(name, force)?;
        for name in &removed.untagged {
            self.tell("image", "untag", &id, &[("name", &name.familiar())])?;
        }
        if removed.deleted.is_some() {
            self.tell("image", "delete", &id, &[])?;
        }
        Ok(removed)
    }

    /// Removes the containers that do not run and fit the filters; tells their ids.
    ///
    /// # Errors
    /// A filter that there is not; where one cannot be removed.
    pub fn prune_containers(&self, filters: &Filters) -> Result<Vec<String>, Error> {
        filters.check(&["label", "until"])?;
        let mut removed = Vec::new();
        for record in self.records()?.into_iter().filter(|record| !record.status.is_live()) {
            if filters.fits_labels(&record.body.labels.clone().unwrap_or_default()) {
                self.remove(&record, false, false)?;
                removed.push(record.id);
            }
        }
        Ok(removed)
    }

    /// Removes the images without a name that no container needs; tells their ids.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn prune_images(&self) -> Result<Vec<Digest>, Error> {
        let mut removed = Vec::new();
        for image in self.images().list()?.into_iter().filter(|image| image.name.is_none()) {
            if self.remove_image(&image.id.to_string(), false).is_ok() {
                removed.push(image.id);
            }
        }
        Ok(removed)
    }

    /// The images, with the one that needs no loading among them.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub fn images_with_embedded(&self) -> Result<&Store, Error> {
        embedded::ensure(&self.store)?;
        Ok(&self.store)
    }
}
