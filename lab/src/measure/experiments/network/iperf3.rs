//! iperf3, where it is installed: its server behind the wall, its client on the host.

use std::process::Stdio;
use std::time::Duration;

use super::{IPERF3, carried, free_port, serve};
use crate::measure::bench::session::{Site, seen_of, told};
use crate::measure::bench::subjects::{HOST, command_line};
use crate::measure::bench::{Case, Seen};
use crate::measure::child::Call;
use crate::measure::experiments::LIMIT;

/// Where the sandbox finds it.
const INSIDE: &str = "/tools";
/// iperf3's own.
const PORT: &str = "5201";
/// How often the client tries until the server listens, and how long it waits in between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn run(site: &Site<'_>, case: &Case) -> Result<Seen, String> {
    let program = crate::doctor::find_program(IPERF3).ok_or("not installed: iperf3")?;
    let (server, address, port, mut seen) = if case.subject == HOST {
        let port = free_port()?.to_string();
        let words = ["-s", "-B", "127.0.0.1", "-p", &port].map(Into::into);
        let call = Call { program: program.clone(), before: words.into(), marks: false, after: Vec::new() };
        let running = call.spawn(Stdio::null()).map_err(|error| told(&call, &error))?;
        (running, "127.0.0.1".to_owned(), port, seen_of(&call))
    } else {
        let folder = site.scratch.join("tools");
        let loader = carried(&program, &folder)?;
        let loader = loader.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let script = format!(
            "bench address {PORT}; exec {INSIDE}/{loader} --library-path {INSIDE} {INSIDE}/iperf3 -s -p {PORT}"
        );
        let volume = format!("{}:{INSIDE}:ro", folder.display());
        let (server, call) = serve(site, case, &["-v", &volume], &["sh", "-c", &script])?;
        (server.running, server.address, PORT.to_owned(), seen_of(&call))
    };
    let client = |more: &[&str]| {
        let words = ["-c", &address, "-p", &port, "-t", if site.quick { "1" } else { "5" }, "-J"];
        let before = words.iter().chain(more).map(Into::into).collect();
        Call { program: program.clone(), before, marks: false, after: Vec::new() }
    };
    seen.command = format!("{}; on the host: {}", seen.command, command_line(&client(&[])));
    seen.value("in-rate", stream(site, &client(&[]))?);
    seen.value("out-rate", stream(site, &client(&["-R"]))?);
    drop(server);
    Ok(seen)
}

/// MiB a second; the server may not listen yet, or not be done with the stream before: some versions say so in JSON, and exit
/// with 0.
fn stream(site: &Site<'_>, client: &Call) -> Result<f64, String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match site.put_load(client, LIMIT).and_then(|finished| rate(&finished.printed)) {
            Ok(rate) => return Ok(rate),
            Err(_) if site.interrupted.load(std::sync::atomic::Ordering::Relaxed) => break,
            Err(error) => last = error,
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!("iperf3 measured nothing: {last}"))
}

/// Of what arrived, from iperf3's JSON.
fn rate(printed: &[u8]) -> Result<f64, String> {
    let value: serde_json::Value =
        serde_json::from_slice(printed).map_err(|error| format!("read what iperf3 printed: {error}"))?;
    let bits = value.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    let why = || value.pointer("/error").and_then(serde_json::Value::as_str).unwrap_or("it gave no rate");
    bits.map(|bits| bits / 8.0 / f64::from(1 << 20)).ok_or_else(|| why().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_what_arrived() {
        let printed = br#"{"end": {"sum_received": {"bits_per_second": 8388608.0}}}"#;
        assert_eq!(rate(printed), Ok(1.0));
        assert!(rate(b"{}").is_err() && rate(b"iperf3: error").is_err());
        assert_eq!(rate(br#"{"error": "the server is busy"}"#), Err("the server is busy".into()));
    }
}
