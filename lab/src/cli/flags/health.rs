//! Health checks, as `docker run` asks for them.

use anyhow::{Context as _, ensure};
use bollard_stubs::models::HealthConfig;
use jiff::SignedDuration;

/// How the lab finds out whether a container is well.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Health; needs -d, or a network")]
pub struct Checks {
    /// Run this in a shell inside to see whether it is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, such as 1m30s
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    health_interval: Option<i64>,
    /// How long a check may take
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    health_timeout: Option<i64>,
    /// How long failures do not count at its start
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    health_start_period: Option<i64>,
    /// Time between two checks during that
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    health_start_interval: Option<i64>,
    /// So many failures in a row make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<i64>,
    /// Leave out the image's own check
    #[arg(long)]
    no_healthcheck: bool,
}

impl Checks {
    /// What is asked for, if anything is.
    pub fn config(&self) -> anyhow::Result<Option<HealthConfig>> {
        let config = HealthConfig {
            test: self.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        };
        let asked = config != HealthConfig::default();
        if self.no_healthcheck {
            ensure!(!asked, "--no-healthcheck conflicts with --health-* options");
            return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
        }
        Ok(asked.then_some(config))
    }

    /// Whether a check is asked for.
    pub fn is_asked(&self) -> bool {
        self.config().is_ok_and(|config| config.is_some()) && !self.no_healthcheck
    }
}

fn nanoseconds(text: &str) -> anyhow::Result<i64> {
    let time: SignedDuration = text.parse().with_context(|| format!("'{text}' is no time such as 1m30s"))?;
    let nanos = i64::try_from(time.as_nanos()).ok().filter(|&nanos| nanos >= 0);
    nanos.with_context(|| format!("'{text}' is out of range"))
}
