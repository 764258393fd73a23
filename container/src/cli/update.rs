//! `update`: new limits for a container that runs.

use std::io::Read;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::{Value, json};

use super::arguments::{self, Arguments, Word, needed};
use super::{Failure, Global, Outcome};

const HELP: &str = "\
Change a container's limits.

Usage: update [OPTIONS] ID

  -r, --resources FILE        A file with linux.resources as JSON; - is standard input. Alone, without the others:
      --memory BYTES          Memory; here and below k, m or g behind the number means 1024 of the one before
      --memory-swap BYTES     Memory and swap together
      --memory-reservation BYTES
                              Memory below which it is left alone
      --cpu-quota US          Microseconds of CPU in each period
      --cpu-period US         The period, in microseconds
      --cpu-burst US          Microseconds that may be saved up
      --cpu-share SHARES      Weight against others
      --cpu-rt-period US      The period of real-time processes, in microseconds
      --cpu-rt-runtime US     How long these may run in it
      --cpu-idle N            1: only when nobody else wants the CPU
      --cpuset-cpus LIST      CPUs it may run on, as 0-2,7
      --cpuset-mems LIST      Memory nodes it may use
      --blkio-weight N        Weight of its input and output against others
      --pids-limit N          How many processes
      --l3-cache-schema TEXT  Share of the processor's cache (Intel RDT)
      --mem-bw-schema TEXT    Share of the memory's bandwidth
      --kernel-memory BYTES, --kernel-memory-tcp BYTES
                              Of version 1; the first is passed over, as the specification wants";

/// Options that are numbers, and the field of `linux.resources` that each sets.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("--memory", "memory", "limit"),
    ("--memory-swap", "memory", "swap"),
    ("--memory-reservation", "memory", "reservation"),
    ("--kernel-memory", "memory", "kernel"),
    ("--kernel-memory-tcp", "memory", "kernelTCP"),
    ("--cpu-quota", "cpu", "quota"),
    ("--cpu-period", "cpu", "period"),
    ("--cpu-burst", "cpu", "burst"),
    ("--cpu-share", "cpu", "shares"),
    ("--cpu-shares", "cpu", "shares"),
    ("--cpu-rt-period", "cpu", "realtimePeriod"),
    ("--cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("--cpu-idle", "cpu", "idle"),
    ("--blkio-weight", "blockIO", "weight"),
    ("--pids-limit", "pids", "limit"),
];

/// `update`.
pub(super) fn update(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(HELP);
    let (mut id, mut file, mut fields, mut rdt) = (None, None, json!({}), json!({}));
    while let Some(word) = arguments.next()? {
        let option = match word {
            Word::Name(name) => {
                arguments::set(&mut id, name)?;
                continue;
            }
            Word::Option(option) => option,
        };
        match option.as_str() {
            "-r" | "--resources" => file = Some(arguments.text()?),
            "--cpuset-cpus" => fields["cpu"]["cpus"] = arguments.text()?.into(),
            "--cpuset-mems" => fields["cpu"]["mems"] = arguments.text()?.into(),
            "--l3-cache-schema" => rdt["l3CacheSchema"] = arguments.text()?.into(),
            "--mem-bw-schema" => rdt["memBwSchema"] = arguments.text()?.into(),
            option => {
                let Some((_, object, field)) = NUMBERS.iter().find(|(name, ..)| *name == option) else {
                    return arguments::unknown(option);
                };
                let text = arguments.text()?;
                let number = if *object == "memory" { bytes(&text) } else { text.parse().ok() };
                let number =
                    number.ok_or_else(|| Failure::new(format!("{option} {text}: give a whole number")))?;
                fields[*object][*field] = number.into();
            }
        }
    }
    let container = global.load(&needed(id)?)?;
    let (text, from) = match file {
        Some(file) => (read(&file)?, format!("--resources {file}")),
        None => (fields_text(&fields), "the options".to_owned()),
    };
    let resources: LinuxResources =
        serde_json::from_slice(&text).map_err(|error| Failure::new(format!("{from}: {error}")))?;
    container.update(&resources)?;
    if rdt != json!({}) {
        let rdt: LinuxIntelRdt =
            serde_json::from_value(rdt).map_err(|error| Failure::new(format!("the options: {error}")))?;
        container.update_rdt(&rdt)?;
    }
    Ok(0)
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

fn fields_text(fields: &Value) -> Vec<u8> {
    fields.to_string().into_bytes()
}

fn read(file: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read =
        if file == "-" { std::io::stdin().read_to_end(&mut text).map(|_| text) } else { std::fs::read(file) };
    read.map_err(|error| Failure::new(format!("read {file}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_may_have_a_unit() {
        for (text, number) in [("-1", -1), ("64", 64), ("32M", 32 << 20), ("1gb", 1 << 30), ("2KiB", 2048)] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        assert!(bytes("x").is_none() && bytes("").is_none() && bytes("99999999999g").is_none());
    }
}
