//! Device nodes: the few that every program expects, and those the configuration adds.

use std::ffi::CString;

use oci_spec::runtime::{Linux, LinuxDeviceType};
use rustix::fs::{Dev, FileType, makedev};

use super::{MountPlan, inside};
use crate::error::{Error, Result};
use crate::spec::c_path;

/// One node below the container's root.
#[derive(Debug)]
pub(crate) struct DevicePlan {
    pub(crate) target: CString,
    /// The host's node, bound instead where `mknod(2)` is not allowed (in a user namespace).
    pub(crate) host: CString,
    pub(crate) typ: FileType,
    pub(crate) number: Dev,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) bind: bool,
}

/// The specification's default devices (config-linux.md, "Default Devices") with their numbers
/// (Documentation/admin-guide/devices.txt). /dev/ptmx is a link; /dev/console comes with a terminal.
const DEFAULT: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The nodes to make; none where the host's own /dev is bound.
pub(crate) fn device_plan(linux: &Linux, mounts: &[MountPlan], bind: bool) -> Result<Vec<DevicePlan>> {
    let mut plan = Vec::new();
    if mounts.iter().any(|mount| mount.binds(c"dev")) {
        return Ok(plan);
    }
    let listed = linux.devices().iter().flatten();
    for &(name, major, minor) in DEFAULT {
        let path = format!("/dev/{name}");
        if listed.clone().any(|device| device.path().as_os_str() == path.as_str()) {
            continue;
        }
        plan.push(DevicePlan {
            target: inside("linux.devices", path.as_ref())?,
            host: c_path("linux.devices", &path)?,
            typ: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            owner: (0, 0),
            bind,
        });
    }
    for (index, device) in listed.enumerate() {
        let field = format!("linux.devices[{index}]");
        let number = |value: i64, what| {
            u32::try_from(value)
                .map_err(|_| Error::config(format!("{field}.{what}"), format!("{value} is no device number")))
        };
        plan.push(DevicePlan {
            target: inside(&field, device.path())?,
            host: c_path(&field, device.path())?,
            typ: match device.typ() {
                LinuxDeviceType::B => FileType::BlockDevice,
                LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
                LinuxDeviceType::P => FileType::Fifo,
                LinuxDeviceType::A => {
                    return Err(Error::config(field, "type \"a\" is for access rules, not for a node"));
                }
            },
            number: makedev(number(device.major(), "major")?, number(device.minor(), "minor")?),
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            bind,
        });
    }
    Ok(plan)
}
