//! `update`: new limits for a machine that runs. Its memory and vCPUs were fixed at its boot, its share of the host's
//! processors was not.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use microvm::spec::Resources;
use serde_json::json;

use super::Global;

/// Change a machine's share of the host's processors; other limits are fixed at its boot, and accepted for engines
#[derive(clap::Args)]
pub(super) struct Update {
    /// The machine's name
    id: String,
    /// A file with linux.resources as JSON; - is standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Microseconds of CPU in each period
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// The period, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Weight against others
    #[arg(long, value_name = "SHARES", alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// Fixed at the boot
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Fixed at the boot
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Fixed at the boot
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// The guest's kernel counts its own
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
}

impl Update {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let machine = global.load(&self.id)?;
        let resources: Resources = if let Some(path) = &self.resources {
            serde_json::from_slice(&read(path)?)
                .map_err(|error| anyhow!("--resources {}: {error}", path.display()))?
        } else {
            let cpu = json!({"quota": self.cpu_quota, "period": self.cpu_period, "shares": self.cpu_share});
            serde_json::from_value(json!({ "cpu": cpu }))?
        };
        Ok(machine.update(&resources)?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
