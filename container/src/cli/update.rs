//! `update`: new limits for a container that runs.

use std::io::Read;

use clap::Args;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::{Failure, Global, Outcome};

/// `update`.
#[derive(Debug, Args)]
pub(super) struct Update {
    /// A file with linux.resources as JSON; "-" is standard input.
    #[arg(long, short, value_name = "FILE")]
    resources: Option<String>,
    /// Memory in bytes.
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Memory and swap together, in bytes.
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Memory below which it is left alone, in bytes.
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Microseconds of CPU in each period.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// The period, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Weight against others.
    #[arg(long, value_name = "SHARES", visible_alias = "cpu-share")]
    cpu_shares: Option<u64>,
    /// CPUs it may run on, as 0-2,7.
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// How many processes.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The container's name.
    id: String,
}

impl Update {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let container = global.load(&self.id)?;
        let resources = match &self.resources {
            Some(file) => read(file)?,
            None => self.resources_of_options().map_err(|error| Failure::new(error.to_string()))?,
        };
        container.update(&resources)?;
        Ok(0)
    }

    fn resources_of_options(self) -> Result<LinuxResources, oci_spec::OciSpecError> {
        let mut memory = LinuxMemoryBuilder::default();
        for (value, set) in [
            (self.memory, LinuxMemoryBuilder::limit as fn(LinuxMemoryBuilder, i64) -> LinuxMemoryBuilder),
            (self.memory_swap, LinuxMemoryBuilder::swap),
            (self.memory_reservation, LinuxMemoryBuilder::reservation),
        ] {
            if let Some(value) = value {
                memory = set(memory, value);
            }
        }
        let mut cpu = LinuxCpuBuilder::default();
        if let Some(quota) = self.cpu_quota {
            cpu = cpu.quota(quota);
        }
        if let Some(period) = self.cpu_period {
            cpu = cpu.period(period);
        }
        if let Some(shares) = self.cpu_shares {
            cpu = cpu.shares(shares);
        }
        if let Some(cpus) = self.cpuset_cpus {
            cpu = cpu.cpus(cpus);
        }
        if let Some(mems) = self.cpuset_mems {
            cpu = cpu.mems(mems);
        }
        let mut resources = LinuxResourcesBuilder::default().memory(memory.build()?).cpu(cpu.build()?);
        if let Some(limit) = self.pids_limit {
            resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
        }
        resources.build()
    }
}

fn read(file: &str) -> Result<LinuxResources, Failure> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::new(format!("read {file}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("--resources {file}: {error}")))
}
