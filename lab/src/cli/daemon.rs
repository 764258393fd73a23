//! `lab daemon`: the engine behind docker's API.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::daemon;

/// Serve the engine over Docker's API, for the docker client and everything that speaks to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab daemon --socket /tmp/lab.sock &
  docker -H unix:///tmp/lab.sock run --rm lab hello            the default image, as a container
  docker -H unix:///tmp/lab.sock run --rm --runtime vm lab hello    and as a virtual machine")]
pub struct Args {
    /// The Unix socket to listen on [default: docker.sock in the lab's run directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The group that may use the socket, by number; whoever may use it is root on this machine
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
    /// Print each request and what was answered
    #[arg(long)]
    trace: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let socket = match args.socket {
        Some(socket) => socket,
        None => lab::paths::run()?.join("docker.sock"),
    };
    let listening =
        |path: &std::path::Path| anstream::eprintln!("lab: listening on unix://{}", path.display());
    daemon::serve(&daemon::Options { socket, group: args.group, trace: args.trace }, listening)?;
    Ok(ExitCode::SUCCESS)
}
