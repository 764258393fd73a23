//! Limits of disks: weights against others, bytes and operations a second.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::limits::{Limit, limit, only_v1};
use crate::error::Result;

fn throttle<'a>(
    devices: Option<&'a Vec<LinuxThrottleDevice>>,
    key: &'a str,
    none: &'a str,
) -> impl Iterator<Item = String> + 'a {
    devices.into_iter().flatten().map(move |device| {
        let rate = if device.rate() == 0 { none.to_owned() } else { device.rate().to_string() };
        format!("{}:{} {key}{rate}", device.major(), device.minor())
    })
}

pub(super) fn version_1(limits: &mut Vec<Limit>, io: &LinuxBlockIo) {
    // The scheduler that knows weights is BFQ since Linux 5.0; before, it was CFQ, whose files had no name in theirs.
    let mut weigh = |file: &str, instead: &'static str, value: String, field: &str| {
        let limit = limit("blkio", file, &value, &format!("blockIO.{field}"));
        limits.push(Limit { instead: Some((instead, value)), ..limit });
    };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        weigh("blkio.bfq.weight", "blkio.weight", weight.to_string(), "weight");
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            weigh("blkio.bfq.weight_device", "blkio.weight_device", value, "weightDevice");
        }
    }
    let mut add = |file: &str, value: String, field: &str| {
        limits.push(limit("blkio", file, value, &format!("blockIO.{field}")));
    };
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        add("blkio.leaf_weight", weight.to_string(), "leafWeight");
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.leaf_weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            add("blkio.leaf_weight_device", value, "weightDevice");
        }
    }
    for (file, devices, field) in [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device(), "throttleReadBpsDevice"),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device(), "throttleWriteBpsDevice"),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device(), "throttleReadIOPSDevice"),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device(), "throttleWriteIOPSDevice"),
    ] {
        throttle(devices.as_ref(), "", "0").for_each(|value| add(file, value, field));
    }
}

pub(super) fn version_2(limits: &mut Vec<Limit>, io: &LinuxBlockIo) -> Result<()> {
    only_v1(false, io.leaf_weight().is_some_and(|weight| weight != 0), "blockIO.leafWeight")?;
    // 10 to 1000 in the specification, 1 to 10000 for the controller that has costs (CONFIG_BLK_CGROUP_IOCOST). Without it
    // BFQ has the weights, and counts them as the specification does.
    let mut weigh = |device: &str, weight: u16, field: &str| {
        let converted = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
        let limit = limit("io", "io.weight", format!("{device}{converted}"), &format!("blockIO.{field}"));
        limits.push(Limit { instead: Some(("io.bfq.weight", format!("{device}{weight}"))), ..limit });
    };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        weigh("", weight, "weight");
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            weigh(&format!("{}:{} ", device.major(), device.minor()), weight, "weightDevice");
        }
    }
    for (key, devices, field) in [
        ("rbps=", io.throttle_read_bps_device(), "throttleReadBpsDevice"),
        ("wbps=", io.throttle_write_bps_device(), "throttleWriteBpsDevice"),
        ("riops=", io.throttle_read_iops_device(), "throttleReadIOPSDevice"),
        ("wiops=", io.throttle_write_iops_device(), "throttleWriteIOPSDevice"),
    ] {
        throttle(devices.as_ref(), key, "max").for_each(|value| {
            limits.push(limit("io", "io.max", value, &format!("blockIO.{field}")));
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::limits;

    #[test]
    fn weights_of_disks_are_those_of_the_file_that_is_there() {
        let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0},{"major":8,"minor":16,"rate":7}]}}"#;
        let resources = serde_json::from_str(json).unwrap();
        let all: Vec<_> =
            limits::all(&resources, false).unwrap().into_iter().map(|l| (l.value, l.instead)).collect();
        let bfq = |value: &str| Some(("io.bfq.weight", value.to_owned()));
        assert_eq!(all[..2], [("4950".to_owned(), bfq("500")), ("8:0 1".to_owned(), bfq("8:0 10"))]);
        assert_eq!(all[2..], [("8:0 rbps=max".to_owned(), None), ("8:16 rbps=7".to_owned(), None)]);
    }
}
