//! Who is who: the names of a network's containers in the `/etc/hosts` of each.

use std::fs;

use super::{Endpoint, Network};
use crate::engine::error::Context as _;
use crate::engine::stored::{Engine, Record};
use crate::engine::{Error, Runtime};

/// What follows it in `/etc/hosts` is the network's.
const MARK: &str = "# containers of the same networks\n";

impl Engine {
    /// Tells the containers of a container's networks who is there, after one has come or gone.
    pub(crate) fn write_all_names(&self, record: &Record) -> Result<(), Error> {
        self.endpoints_of(&record.id)?.iter().try_for_each(|endpoint| self.write_names(&endpoint.network))
    }

    /// Writes the names of a network's containers into `/etc/hosts` of each that runs.
    pub(super) fn write_names(&self, network: &Network) -> Result<(), Error> {
        if !network.has_names() {
            return Ok(());
        }
        for endpoint in self.endpoints_in(network)? {
            if let Some(record) = self.live(&endpoint) {
                self.write_own_names(&record)?;
            }
        }
        Ok(())
    }

    /// Writes the names that a container may know into its `/etc/hosts`. In place: the file is mounted.
    pub(super) fn write_own_names(&self, record: &Record) -> Result<(), Error> {
        // A machine has its files inside, and asks the network's DNS server.
        if record.runtime() != Runtime::Container {
            return Ok(());
        }
        let mut lines = Vec::new();
        for own in self.endpoints_of(&record.id)?.into_iter().filter(|own| own.network.has_names()) {
            for other in self.endpoints_in(&own.network)? {
                let Some(peer) = self.live(&other) else { continue };
                // An alias may be several containers': those are the DNS server's to tell, in turn.
                lines.push(format!("{}\t{} {}", other.address, peer.name, peer.short_id()));
            }
        }
        let path = self.roots.stored(&record.id).join("hosts");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let own = text.split(MARK).next().unwrap_or_default();
        let names = if lines.is_empty() { String::new() } else { format!("{MARK}{}\n", lines.join("\n")) };
        fs::write(&path, format!("{own}{names}")).context("write", path.display())
    }

    fn live(&self, endpoint: &Endpoint) -> Option<Record> {
        self.find(&endpoint.container).ok().filter(|record| record.status.is_live())
    }
}
