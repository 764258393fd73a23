//! Network devices of the host that a container takes over (config-linux.md, "Network Devices"): moved into its network
//! namespace with their lasting addresses, named as it wants them, and switched on.
//!
//! They stay there. When the namespace ends the kernel moves physical ones back and removes virtual ones
//! (`network_namespaces(7)`); only where `create` fails does the runtime give back what it had moved.

mod netlink;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Context, Error, Result};
use crate::sys;
use netlink::{Address, Netlink};

/// The longest name of a device (IFNAMSIZ without its NUL, `netdevice(7)`).
const LONGEST: usize = 15;

/// A device to move.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its name outside.
    name: String,
    /// Its name inside.
    inside: String,
}

/// What the configuration asks for, in the order of the names.
pub(crate) fn devices(linux: &Linux, own_network: bool) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name.clone());
        for (name, template) in [(name, false), (&inside, true)] {
            check_name(name, template)
                .map_err(|reason| Error::config(format!("linux.netDevices[{name:?}]"), reason))?;
        }
        devices.push(Device { name: name.clone(), inside });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let mut names = HashSet::new();
    if let Some(twice) = devices.iter().find(|d| !d.inside.contains('%') && !names.insert(&d.inside)) {
        let reason = format!("another device is to be called {:?} in the container too", twice.inside);
        return Err(Error::config(format!("linux.netDevices[{:?}]", twice.name), reason));
    }
    if !devices.is_empty() && !own_network {
        let reason = "needs a namespace of type \"network\" in linux.namespaces to move devices to";
        return Err(Error::config("linux.netDevices", reason));
    }
    Ok(devices)
}

/// As `dev_valid_name` (net/core/dev.c) has it; with `%d` where the kernel is to choose a number.
fn check_name(name: &str, template: bool) -> std::result::Result<(), &'static str> {
    let plain = if template { name.replacen("%d", "", 1) } else { name.to_owned() };
    let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > LONGEST || matches!(name, "." | "..") || plain.contains(odd) {
        return Err("is no name of a network device: 1 to 15 characters without / : % and blanks");
    }
    Ok(())
}

/// The devices that are in the container's network namespace by now. Dropped before [`keep`](Self::keep), they go back.
#[derive(Debug)]
pub(crate) struct Moved {
    outside: (Netlink, OwnedFd),
    inside: (Netlink, OwnedFd),
    /// Number inside, name outside.
    devices: Vec<(u32, String)>,
}

impl Moved {
    /// Moves devices into the network namespace behind a link of /proc. `tag` makes names that nobody else uses.
    pub(crate) fn into(namespace: OwnedFd, devices: &[Device], tag: i32) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let own = open("/proc/thread-self/ns/net", flags, Mode::empty())
            .context("open", "this thread's network namespace")?;
        let outside = Netlink::open().context("open", "a netlink socket")?;
        let enter = |link: BorrowedFd<'_>| move_into_link_name_space(link, Some(LinkNameSpaceType::Network));
        enter(namespace.as_fd()).context("join", "the container's network namespace")?;
        let inside = Netlink::open();
        enter(own.as_fd()).context("return to", "this thread's network namespace")?;
        let inside = inside.context("open", "a netlink socket")?;
        let mut this = Self { outside: (outside, own), inside: (inside, namespace), devices: Vec::new() };
        for (number, device) in devices.iter().enumerate() {
            let field = format!("linux.netDevices[{:?}]", device.name);
            let passing = format!("lab{tag:x}-{number}");
            this.take(device, &passing).map_err(|errno| Error::config(field, explain(errno, device)))?;
        }
        Ok(this)
    }

    fn take(&mut self, device: &Device, passing: &str) -> sys::Result<()> {
        let index = self.outside.0.index_of(&device.name)?;
        let addresses = self.outside.0.addresses(index)?;
        self.outside.0.move_link(index, self.inside.1.as_fd(), passing)?;
        let index = self.inside.0.index_of(passing)?;
        self.devices.push((index, device.name.clone()));
        settle(&self.inside.0, index, &device.inside, &addresses)
    }

    /// Leaves the devices where they are.
    pub(crate) fn keep(mut self) {
        self.devices.clear();
    }
}

/// Names a device that has just arrived, gives it its addresses again, which it lost on the way, and switches it on.
fn settle(here: &Netlink, index: u32, name: &str, addresses: &[Address]) -> sys::Result<()> {
    here.rename(index, name)?;
    for address in addresses {
        match here.add_address(index, address) {
            Err(Errno::EXIST) => {} // one of the namespace's defaults
            result => result?,
        }
    }
    here.up(index)
}

impl Drop for Moved {
    fn drop(&mut self) {
        let ((outside, own), (inside, _)) = (&self.outside, &self.inside);
        for (index, name) in &self.devices {
            let addresses = inside.addresses(*index).unwrap_or_default();
            // The name has become free when the device left.
            let back = inside.move_link(*index, own.as_fd(), name).and_then(|()| outside.index_of(name));
            let _ = back.and_then(|index| settle(outside, index, name, &addresses));
        }
    }
}

fn explain(errno: Errno, device: &Device) -> String {
    match errno {
        Errno::NODEV => "there is no such device in the runtime's network namespace (ip link)".to_owned(),
        Errno::EXIST => format!("the container's network namespace has a device {:?} already", device.inside),
        Errno::PERM => format!("{errno}; it needs CAP_NET_ADMIN in both network namespaces"),
        Errno::INVAL | Errno::OPNOTSUPP => {
            format!("{errno}; a device as lo belongs to one namespace for ever")
        }
        errno => errno.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Vec<Device>> {
        devices(&serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap(), true)
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let device = |name: &str, inside: &str| Device { name: name.into(), inside: inside.into() };
        let list = parsed(r#"{"eth1":{"name":"net%d"},"eth0":{},"eth2":{"name":"net%d"}}"#).unwrap();
        assert_eq!(list, [device("eth0", "eth0"), device("eth1", "net%d"), device("eth2", "net%d")]);
    }

    #[test]
    fn a_name_that_cannot_be_is_refused() {
        for json in [
            r#"{"a/b":{}}"#,
            r#"{"":{}}"#,
            r#"{"sixteencharacter":{}}"#,
            r#"{"a":{"name":"x y"}}"#,
            r#"{"a":{"name":"x%d%d"}}"#,
            r#"{"a%d":{}}"#,
            r#"{"a":{"name":"x"},"b":{"name":"x"}}"#,
        ] {
            assert!(parsed(json).unwrap_err().to_string().starts_with("linux.netDevices["), "{json}");
        }
        let linux = serde_json::from_str(r#"{"netDevices":{"a":{}}}"#).unwrap();
        assert!(devices(&linux, false).unwrap_err().to_string().starts_with("linux.netDevices: needs"));
    }
}
