//! systemd as the maker of cgroups: where it runs, the tree is its own, and who wants a part of it asks for a *scope*, a
//! unit of processes that systemd did not start, and has it delegated (systemd.io, "Control Group APIs and Delegation").
//!
//! A scope needs a process to begin with, and the container's first process is only born in its cgroup. So a child of the
//! runtime holds the place until then. From there on everything is as without systemd; limits that systemd has a property
//! for are told to it too, or it would put its own in their place when it reloads.

mod dbus;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::Limit;
use crate::error::{Error, Result};
use crate::init::Link;
use crate::{process, sys};
use dbus::{Connection, Value, Writer};

/// Where systemd itself listens, for root: `sd_bus_open_system(3)` with the bus left out.
const SOCKET: &str = "/run/systemd/private";

/// A container's unit. It is written to the state file, so that whoever deletes the container can stop it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    unit: String,
    slice: String,
}

/// A process that keeps a scope from being empty. Killed when dropped; it ends too when the runtime is gone.
#[derive(Debug)]
pub(crate) struct Holder {
    child: sys::Cloned,
    _link: Link,
}

impl Holder {
    fn new() -> sys::Result<Self> {
        let (link, theirs) = Link::pair()?;
        let child = sys::clone_child(0, None, move || hold(&theirs))?;
        Ok(Self { child, _link: link })
    }
}

/// Waits for the runtime's end of the link to close.
fn hold(link: &Link) -> Infallible {
    let _ = sys::close_all_but(&[link.as_fd().as_raw_fd()]).and_then(|()| link.wait_for_go());
    sys::exit(0)
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = sys::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
        let _ = process::reap(&self.child.pidfd);
    }
}

fn is_slice(unit: &str) -> bool {
    unit.strip_suffix(".slice").is_some()
}

fn connect() -> Result<Connection> {
    Connection::open(Path::new(SOCKET)).map_err(|source| {
        let hint = "; without systemd, leave --systemd-cgroup out";
        Error::Step { step: "speak to systemd over", object: SOCKET.to_owned(), source, hint }
    })
}

impl Scope {
    /// The unit that `slice:prefix:name` means, as engines write linux.cgroupsPath for systemd.
    pub(super) fn new(configured: Option<&Path>, id: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            let reason = "systemd is asked for cgroups by root only; an ordinary user's engine must do without \
                          (podman: --cgroup-manager cgroupfs)";
            return Err(Error::config("--systemd-cgroup", reason));
        }
        let wrong = |reason: String| Error::config("linux.cgroupsPath", reason);
        let text = configured.map_or_else(|| format!(":lab:{id}"), |path| path.display().to_string());
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(wrong(format!("{text:?} must be slice:prefix:name with --systemd-cgroup")));
        };
        let slice = match slice {
            "" => "system.slice",
            "-" => "-.slice",
            slice => slice,
        };
        let unit = match prefix {
            _ if is_slice(name) => name.to_owned(),
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        // What systemd takes for a unit's name (systemd.unit(5)).
        let odd = |name: &str| {
            name.len() > 255
                || name.starts_with('.')
                || !name.bytes().all(|c| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c))
        };
        if !is_slice(slice) || odd(slice) || odd(&unit) || name.is_empty() {
            return Err(wrong(format!("{text:?} makes no names of a slice and a unit (systemd.unit(5))")));
        }
        Ok(Self { unit, slice: slice.to_owned() })
    }

    /// Its directory in every tree, below where it is mounted.
    pub(super) fn path(&self) -> Result<PathBuf> {
        let root =
            connect()?.manager_property("ControlGroup").map_err(|error| self.failed("place", error))?;
        let mut path = PathBuf::from(root.trim_matches('/'));
        // a-b.slice is a-b.slice in a.slice (systemd.slice(5)).
        let name = self.slice.trim_end_matches(".slice");
        if name != "-" {
            let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
            path.extend(ends.map(|end| format!("{}.slice", &name[..end])));
        }
        Ok(path.join(&self.unit))
    }

    /// Has systemd make the unit, and returns once it has.
    pub(super) fn start(&self, limits: &[Limit], v1: bool) -> Result<Holder> {
        let holder =
            Holder::new().map_err(|errno| Error::step("make", "a process for systemd's scope", errno))?;
        let mut properties = vec![
            ("Description", Value::Text(format!("lab-container {}", self.unit))),
            ("DefaultDependencies", Value::Flag(false)),
            ("CPUAccounting", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            (if v1 { "BlockIOAccounting" } else { "IOAccounting" }, Value::Flag(true)),
        ];
        if !is_slice(&self.unit) {
            properties.push(("Slice", Value::Text(self.slice.clone())));
            properties.push(("Delegate", Value::Flag(true)));
            properties.push(("CollectMode", Value::Text("inactive-or-failed".to_owned())));
            properties.push(("PIDs", Value::Numbers(vec![holder.child.pid as u32])));
        }
        properties.extend(self::properties(limits));
        let mut body = Writer::default();
        body.text(&self.unit);
        body.text("replace");
        body.properties(&properties);
        body.no_units();
        let mut systemd = connect()?;
        let result = systemd
            .call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
            .and_then(|()| systemd.job(&self.unit))
            .map_err(|error| self.failed("start", error))?;
        if result != "done" {
            return Err(self.failed("start", io::Error::other(format!("its job ended as {result:?}"))));
        }
        Ok(holder)
    }

    /// Tells systemd of other limits, until the next boot.
    pub(super) fn change(&self, limits: &[Limit]) -> Result<()> {
        let properties = properties(limits);
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.text(&self.unit);
        body.flag(true);
        body.properties(&properties);
        let change = connect()?.call("SetUnitProperties", "sba(sv)", body);
        change.map_err(|error| self.failed("change", error))
    }

    /// Stops the unit, if it is still there: systemd may not have seen yet that it is empty.
    pub(super) fn stop(&self) {
        let mut body = Writer::default();
        body.text(&self.unit);
        body.text("replace");
        let _ = connect().map(|mut systemd| systemd.call("StopUnit", "ss", body));
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        let object = format!("{what} unit {}", self.unit);
        Error::Step { step: "have systemd", object, source, hint: "" }
    }
}

/// The limits that systemd has properties for (systemd.resource-control(5), and its D-Bus interface's names).
fn properties(limits: &[Limit]) -> Vec<(&'static str, Value)> {
    let number = |text: &str| match text {
        "max" | "-1" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    let mut properties = Vec::new();
    let (mut quota, mut period) = (None, None);
    for limit in limits {
        let name = match limit.file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "memory.limit_in_bytes" => "MemoryLimit",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpu.shares" => "CPUShares",
            "io.weight" => "IOWeight",
            "cpuset.cpus" | "cpuset.mems" => {
                let name = if limit.file.ends_with("cpus") { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                properties.extend(bits(&limit.value).map(|bits| (name, Value::Bytes(bits))));
                continue;
            }
            "cpu.max" => {
                let (first, second) = limit.value.split_once(' ').unwrap_or((&limit.value, "100000"));
                (quota, period) = (number(first), number(second));
                continue;
            }
            "cpu.cfs_quota_us" => {
                quota = number(&limit.value);
                continue;
            }
            "cpu.cfs_period_us" => {
                period = number(&limit.value);
                continue;
            }
            _ => continue,
        };
        properties.extend(number(&limit.value).map(|value| (name, Value::Number(value))));
    }
    if let Some(quota) = quota {
        let period = period.filter(|period| *period > 0).unwrap_or(100_000);
        // In microseconds of each second; systemd counts in steps of 10 ms.
        let of_second = quota.checked_mul(1_000_000).map(|quota| (quota / period).next_multiple_of(10_000));
        properties.push(("CPUQuotaPerSecUSec", Value::Number(of_second.unwrap_or(u64::MAX))));
        properties.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    properties
}

/// A list of numbers and ranges as a mask, the lowest bits in the first byte; none where it is no such list.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<usize>().ok()?, to.trim().parse::<usize>().ok()?);
        for bit in (from..=to).take_while(|bit| *bit < 8192) {
            mask.resize(mask.len().max(bit / 8 + 1), 0);
            mask[bit / 8] |= 1u8 << (bit % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_for_systemd_names_a_slice_and_a_unit() {
        let scope =
            |path: &str| Scope::new(Some(Path::new(path)), "id").map(|scope| (scope.slice, scope.unit));
        if !rustix::process::geteuid().is_root() {
            assert!(scope("a.slice:b:c").unwrap_err().to_string().starts_with("--systemd-cgroup: "));
            return;
        }
        let names = |slice: &str, unit: &str| (slice.to_owned(), unit.to_owned());
        assert_eq!(scope("a-b.slice:docker:x1").unwrap(), names("a-b.slice", "docker-x1.scope"));
        assert_eq!(scope(":cri:x").unwrap(), names("system.slice", "cri-x.scope"));
        assert_eq!(scope("-::x.slice").unwrap(), names("-.slice", "x.slice"));
        for path in ["/a/b", "a:b:c", "a.slice:b:", "a.slice:b:c/d", "a/b.slice:c:d", "a.slice:b:c:d"] {
            assert!(scope(path).unwrap_err().to_string().starts_with("linux.cgroupsPath: "), "{path}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let limit = |file: &str, value: &str| Limit {
            controller: "",
            file: file.to_owned(),
            value: value.to_owned(),
            field: String::new(),
            optional: false,
            instead: None,
        };
        let limits = [
            limit("memory.max", "max"),
            limit("cpu.max", "50000 100000"),
            limit("cpuset.cpus", "0-1,9"),
            limit("rdma.max", "x"),
        ];
        let expected = [
            ("MemoryMax", Value::Number(u64::MAX)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("CPUQuotaPerSecUSec", Value::Number(500_000)),
            ("CPUQuotaPeriodUSec", Value::Number(100_000)),
        ];
        assert_eq!(properties(&limits), expected);
    }
}
