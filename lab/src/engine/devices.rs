//! Devices of the host that a container is given: `--device`, and all of them with `--privileged`.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::Error;
use super::request::Device;

/// Parts of /dev that every container has of its own, or that are no devices.
const OWN: [&str; 12] = [
    "pts",
    "shm",
    "mqueue",
    "fd",
    "core",
    "stdin",
    "stdout",
    "stderr",
    "console",
    "ptmx",
    "tty",
    "hugepages",
];

/// How deep a folder of devices is looked through.
const DEPTH: usize = 8;

/// The nodes to be made and the rules to allow them; a folder stands for all devices below it.
///
/// # Errors
/// A path that is no device, rights that are none.
pub fn grant(devices: &[Device]) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for device in devices {
        if device.rights.is_empty() || !device.rights.chars().all(|right| "rwm".contains(right)) {
            return Err(Error::bad(format!("invalid mode for device: {}: letters of rwm", device.rights)));
        }
        let before = nodes.len();
        collect(&device.source, &device.target, DEPTH, &mut nodes)?;
        if nodes.len() == before {
            return Err(Error::bad(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                device.source.display()
            )));
        }
        for node in &nodes[before..] {
            rules.push(
                LinuxDeviceCgroupBuilder::default()
                    .allow(true)
                    .typ(node.typ())
                    .major(node.major())
                    .minor(node.minor())
                    .access(&device.rights)
                    .build()?,
            );
        }
    }
    Ok((nodes, rules))
}

/// Every device of the host but those that a container has of its own. The rules allow all of them already.
///
/// # Errors
/// Where they cannot be put together.
pub fn all() -> Result<Vec<LinuxDevice>, Error> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let own = entry.file_name().to_str().is_some_and(|name| OWN.contains(&name));
        if !own && !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            collect(&entry.path(), &entry.path(), DEPTH, &mut nodes)?;
        }
    }
    Ok(nodes)
}

/// A rule of the device control group as docker writes it: `c 42:* rmw`.
///
/// # Errors
/// What is none.
pub fn rule(text: &str) -> Result<LinuxDeviceCgroup, Error> {
    let wrong = || Error::bad(format!("invalid device cgroup rule format: '{text}': such as 'c 42:* rwm'"));
    let mut words = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| wrong()),
    };
    if access.is_empty() || !access.chars().all(|right| "rwm".contains(right)) {
        return Err(wrong());
    }
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    if let Some(major) = number(major)? {
        builder = builder.major(major);
    }
    if let Some(minor) = number(minor)? {
        builder = builder.minor(minor);
    }
    Ok(builder.build()?)
}

fn collect(
    source: &Path,
    target: &Path,
    depth: usize,
    nodes: &mut Vec<LinuxDevice>,
) -> Result<(), OciSpecError> {
    // A link that was named is followed; those that are found are not.
    let Ok(metadata) = (if depth == DEPTH { fs::metadata(source) } else { fs::symlink_metadata(source) })
    else {
        return Ok(());
    };
    let kind = metadata.file_type();
    if kind.is_dir() && depth > 0 {
        for entry in fs::read_dir(source).into_iter().flatten().flatten() {
            collect(&entry.path(), &target.join(entry.file_name()), depth - 1, nodes)?;
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        nodes.push(
            LinuxDeviceBuilder::default()
                .path(target)
                .typ(if kind.is_block_device() { LinuxDeviceType::B } else { LinuxDeviceType::C })
                .major(i64::from(major))
                .minor(i64::from(minor))
                .file_mode(metadata.mode() & 0o7777)
                .uid(metadata.uid())
                .gid(metadata.gid())
                .build()?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_docker_s() {
        let rule = rule("c 42:* rmw").unwrap();
        assert_eq!((rule.typ(), rule.major(), rule.minor()), (Some(LinuxDeviceType::C), Some(42), None));
        for text in ["", "c 42 r", "x 1:1 r", "c 1:1 z", "c a:1 r", "c 1:1 r more"] {
            assert!(super::rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_is_known_by_its_numbers_and_another_file_is_refused() {
        let device = |source: &str| {
            grant(&[Device { source: source.into(), target: "/dev/x".into(), rights: "rw".into() }])
        };
        let (nodes, rules) = device("/dev/null").unwrap();
        assert_eq!((nodes[0].major(), nodes[0].minor(), rules.len()), (1, 3, 1));
        assert_eq!(nodes[0].path(), Path::new("/dev/x"));
        assert!(device("/etc/passwd").is_err() && device("/dev/nothing").is_err());
    }
}
