//! What does the network cost behind each wall?

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{LIMIT, read_samples};
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, HOST, VM, command_line};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::{Call, Running};

mod iperf3;

/// The experiment.
pub struct Network;

static ABOUT: About = About {
    name: "network",
    question: "How fast, how soon and how often can a workload be reached over the network?",
    method: "A server runs behind the wall, plugged into the lab's own network (a bridge; a veth pair for a container, a TAP device \
             and virtio-net for a VM), and its client on the host, which alone reads a clock: a byte there and back on one connection; \
             transfers both ways that take 40 ms or more; connections one after the other, each opened, answered and closed. For the host, both \
             are on its loopback. Where wrk and iperf3 are installed, they are clients as well: wrk on one connection for the requests of HTTP, iperf3 for \
             a stream each way, its server carried into the sandbox in a shared folder.",
    blind_spot: "No cable is in it, only the way between host and sandbox: on a real network its latency comes on top, and its rate may be the limit for all. \
                 One connection at a time says nothing of many. The host's loopback has no bridge, and a larger frame (64 KiB to 1,500 bytes). \
                 With fewer processors than ends, client and server take them from each other.",
    papers: &[
        Paper {
            source: "Felter and others, ISPASS 2015",
            says: "one stream of TCP fills 10 Gbit/s with Docker and KVM alike; a request and its answer: Docker's NAT doubles the \
                   native latency, KVM adds 30 µs, which is 80 %",
            line: None,
        },
        Paper {
            source: "Agache and others, Firecracker, NSDI 2020",
            says: "iperf3, one stream: 44 Gbit/s on the host's loopback, 15 Gbit/s into and out of a Firecracker guest",
            line: None,
        },
        Paper {
            source: "Firecracker's documentation, docs/network-performance.md",
            says: "virtualisation adds 0.06 ms to a round trip on average",
            line: None,
        },
    ],
};

const WRK: &str = "wrk";
const IPERF3: &str = "iperf3";

impl Experiment for Network {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("round-trip", "a byte there and back", Unit::Nanoseconds),
                Metric::more("in-rate", "into the sandbox", Unit::MibPerSecond),
                Metric::more("out-rate", "out of the sandbox", Unit::MibPerSecond),
                Metric::more("connections", "connections a second", Unit::PerSecond),
                Metric::more("requests", "requests of HTTP a second", Unit::PerSecond),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let own = site.cases(&[HOST, CONTAINER, VM]);
        let tools = [WRK, IPERF3].into_iter().filter(|tool| crate::doctor::find_program(tool).is_some());
        // In the short form a VM boots once for this.
        let with = tools.flat_map(|tool| {
            let subjects = own.iter().filter(|case| !site.quick || case.subject != VM);
            subjects.map(|case| Case::with(&case.subject, tool)).collect::<Vec<_>>()
        });
        own.iter().cloned().chain(with).collect()
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 5 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        if case.variant == IPERF3 {
            return iperf3::run(site, case);
        }
        let (server, client_of) = serve(site, case, &[], &["bench", "serve"])?;
        let Server { running, address, port } = server;
        let client = if case.variant == WRK {
            wrk(site, &address, &port)?
        } else {
            let repeats = if site.quick { "5" } else { "20" };
            site.subject(HOST)?.call(&[], &["bench", "net", repeats, &address, &port])?
        };
        let mut seen = seen_of(&client_of);
        seen.command = format!("{}; on the host: {}", seen.command, command_line(&client));
        let finished = site.put_load(&client, LIMIT)?;
        if case.variant == WRK {
            seen.value("requests", requests(&finished.printed).ok_or("wrk printed no rate")?);
        } else {
            read_samples(&finished.printed, &mut seen);
        }
        drop(running);
        if seen.values.is_empty() {
            return Err("the client printed no samples".into());
        }
        Ok(seen)
    }
}

/// A server that listens; it is asked to end when dropped.
struct Server {
    running: Running,
    address: String,
    port: String,
}

/// Starts a program that says `listening ADDRESS PORT`.
fn serve(site: &Site<'_>, case: &Case, options: &[&str], command: &[&str]) -> Result<(Server, Call), String> {
    let all: Vec<&str> = ["--network", "bridge"].iter().chain(options).copied().collect();
    let call = site.subject(&case.subject)?.call(&all, command)?;
    let mut running = call.spawn(Stdio::null()).map_err(|error| told(&call, &error))?;
    let told = |error: std::io::Error| error.to_string();
    let listens = running.says(b"\n", LIMIT, site.interrupted).map_err(told)?;
    let said = running.said();
    let words: Vec<&str> = said.split_whitespace().collect();
    if let (true, [.., "listening", address, port]) = (listens, &words[..]) {
        // On the host, another card may have the name that a sandbox's has.
        let address = if case.subject == HOST { "127.0.0.1" } else { address };
        let (address, port) = (address.to_owned(), (*port).to_owned());
        return Ok((Server { running, address, port }, call));
    }
    let finished = running.finish(Duration::from_secs(5), site.interrupted);
    Err(finished.map_or_else(told, |it| format!("the server did not begin: {}", it.last_words())))
}

/// wrk with one connection.
fn wrk(site: &Site<'_>, address: &str, port: &str) -> Result<Call, String> {
    let program = crate::doctor::find_program(WRK).ok_or("not installed: wrk")?;
    let seconds = if site.quick { "-d1s" } else { "-d5s" };
    let url = format!("http://{address}:{port}/");
    let before = ["-t1", "-c1", seconds, &url].map(Into::into).into();
    Ok(Call { program, before, marks: false, after: Vec::new() })
}

/// From `Requests/sec:  12345.67`.
fn requests(printed: &[u8]) -> Option<f64> {
    let text = String::from_utf8_lossy(printed);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    rate.trim().parse().ok().filter(|rate: &f64| rate.is_finite())
}

/// A port of the host that nobody has now.
fn free_port() -> Result<u16, String> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    port.map(|address| address.port()).map_err(|error| format!("find a free port: {error}"))
}

/// A program and what its loader loads, copied into a folder that a sandbox can be shown: a static image has no loader.
fn carried(program: &Path, folder: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let told = |error: std::io::Error| format!("copy {} and its libraries: {error}", program.display());
    std::fs::create_dir_all(folder).map_err(told)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
    let output = std::process::Command::new("ldd").arg(program).output().map_err(told)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut loader = None;
    for path in libraries(&text).chain([program]) {
        let name = path.file_name().unwrap_or_default();
        let there = folder.join(name);
        std::fs::copy(path, &there).map_err(told)?;
        if name.to_string_lossy().starts_with("ld-") {
            loader = Some(there);
        }
    }
    loader.ok_or_else(|| format!("{} names no loader (ldd)", program.display()))
}

/// The files in what ldd(1) prints: `NAME => PATH (ADDRESS)`, the loader without a name.
fn libraries(text: &str) -> impl Iterator<Item = &Path> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(Path::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_output_is_read() {
        let wrk = b"Running 1s test\n  Latency 1ms\nRequests/sec:   1234.50\nTransfer/sec: 1MB\n";
        assert_eq!(requests(wrk), Some(1234.5));
        assert_eq!(requests(b"unable to connect"), None);
        let ldd = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found: Vec<_> = libraries(ldd).collect();
        assert_eq!(found, [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }
}
