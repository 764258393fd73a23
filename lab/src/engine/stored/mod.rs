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
//! for; `published.rs`, its ports; `share.rs`, what is the host's or another container's; `create.rs`, `life.rs`, `link.rs`, a container's life;
//! `networks`, `network_view.rs`, `linked.rs`, whom it reaches; `saved.rs`, machines written down and made anew; `inspect.rs`, `log_config.rs` and `logs.rs`, `events.rs`, `files.rs`, `transfer.rs`, `size.rs`, looking at it; `images.rs`, `prune.rs`, what goes.

mod cache;
mod commit;
mod create;
mod db;
mod events;
mod exec;
mod files;
mod image_list;
mod images;
mod import;
mod inspect;
mod life;
mod link;
mod linked;
mod list;
mod log_config;
mod logs;
pub mod network_view;
pub mod networks;
pub mod plan;
mod prune;
pub mod published;
mod record;
mod root;
pub mod saved;
mod share;
mod size;
mod transfer;
mod usage;
pub mod volumes;

pub use commit::Commit;
pub(crate) use commit::{NewLayer, Step};
pub use events::Event;
pub use exec::ExecRecord;
pub use files::Change;
pub(crate) use files::unpack;
pub use image_list::ImageEntry;
pub use import::Import;
pub use life::Stop;
pub(crate) use life::signal;
pub use link::connect;
pub(crate) use link::{probe as connect_probe, short};
pub use list::Filters;
pub(crate) use log_config::LogConfig;
pub(crate) use logs::older as older_log;
pub use logs::{Line, LogOptions, LogReader};
pub use prune::{PrunedImages, Scope};
pub use record::{Health, Probe, Record, Status};
pub(crate) use root::{Root, host_directory, mount_overlay};
pub use volumes::choices_of_run;

use super::Error;
use super::monitor::Seed;
use super::place::Roots;
use crate::image::{Store, embedded};
use db::Db;

/// A handle on this machine's containers and images.
#[derive(Debug)]
pub struct Engine {
    pub(crate) roots: Roots,
    store: Store,
    db: Db,
    /// Where monitors grow from, for a process that starts many.
    seed: Option<Seed>,
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
        Ok(Self { roots, store, db, seed: None })
    }

    /// The same, with monitors that grow from this process.
    #[must_use]
    pub fn with_seed(self, seed: Seed) -> Self {
        Self { seed: Some(seed), ..self }
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

    /// The images, with the one that needs no loading among them.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub fn images_with_embedded(&self) -> Result<&Store, Error> {
        embedded::ensure(&self.store)?;
        Ok(&self.store)
    }
}
