//! `lab daemon`: the engine behind docker's API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use lab::daemon::{self, Host, Tls};

/// Serve the engine over Docker's API, for the docker client and everything that speaks to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab daemon --socket /tmp/lab.sock &
  docker -H unix:///tmp/lab.sock run --rm lab hello            the default image, as a container
  docker -H unix:///tmp/lab.sock run --rm --runtime vm lab hello    and as a virtual machine")]
pub struct Args {
    /// The Unix socket to listen on [default: docker.sock in the lab's run directory]
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    socket: Option<PathBuf>,
    /// Where to listen: unix://PATH, tcp://ADDRESS:PORT, or fd:// for what systemd hands over; may be given several times
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Vec<Host>,
    /// The group that may use the socket, by name or number; whoever may use it is root on this machine
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Over TCP, take only clients whose certificate is signed by that of --tlscacert
    #[arg(long, requires_all = ["tlscacert", "tlscert", "tlskey"])]
    tlsverify: bool,
    /// The certificate that signs those of clients (PEM)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscacert: Option<PathBuf>,
    /// The daemon's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlscert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tlsverify")]
    tlskey: Option<PathBuf>,
    /// Serve TCP without TLS: whoever reaches the port is root on this machine
    #[arg(long, conflicts_with = "tlsverify")]
    insecure_tcp: bool,
    /// Print each request and what was answered
    #[arg(long)]
    trace: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let hosts = match (args.socket, args.host) {
        (Some(socket), _) => vec![Host::Unix(socket)],
        (None, hosts) if hosts.is_empty() => vec![Host::Unix(lab::paths::run()?.join("docker.sock"))],
        (None, hosts) => hosts,
    };
    let tls = match (args.tlscacert, args.tlscert, args.tlskey) {
        (Some(ca), Some(certificate), Some(key)) => Some(Tls { ca, certificate, key }),
        _ => None,
    };
    let group = args.group.as_deref().map(group).transpose()?;
    let options = daemon::Options { hosts, tls, insecure: args.insecure_tcp, group, trace: args.trace };
    daemon::serve(&options, |names| {
        for name in names {
            anstream::eprintln!("lab: listening on {name}");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A group's number, which may be given by its name.
fn group(text: &str) -> anyhow::Result<u32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let found = nix::unistd::Group::from_name(text).with_context(|| format!("--group {text}"))?;
    Ok(found.with_context(|| format!("--group {text}: there is no such group"))?.gid.as_raw())
}
