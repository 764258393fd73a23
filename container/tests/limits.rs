//! Every limit of version 2, as the kernel has it then. A controller that the machine gives to version 1 cannot be tried
//! there; the nested rig has all of them, and runs this too (`lab/tests/rig.rs`).

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Bundle, traces};
use serde_json::{Value, json};

/// A disk, as "major:minor".
fn disk() -> Option<String> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    disks
        .filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok())
        .map(|dev| dev.trim().to_owned())
        .min()
}

/// What is asked for, and the files with what they must hold then; the first word of a file is its controller.
fn cases(disk: &str) -> Vec<(Value, Vec<(&'static str, String)>)> {
    let (major, minor) = disk.split_once(':').unwrap();
    let device = |rate: u64| json!([{"major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": rate}]);
    let text = |files: &[(&'static str, &str)]| {
        files.iter().map(|&(file, value)| (file, value.to_owned())).collect()
    };
    vec![
        (
            json!({"memory": {"limit": 67_108_864, "swap": 100_663_296, "reservation": 1_048_576}}),
            text(&[("memory.max", "67108864"), ("memory.swap.max", "33554432"), ("memory.low", "1048576")]),
        ),
        (
            json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}),
            text(&[("memory.max", "67108864"), ("memory.swap.max", "0")]),
        ),
        (
            json!({"memory": {"limit": 67_108_864, "swap": -1, "reservation": -1}}),
            text(&[("memory.swap.max", "max"), ("memory.low", "max")]),
        ),
        (json!({"memory": {"limit": -1}}), text(&[("memory.max", "max"), ("memory.swap.max", "max")])),
        (
            json!({"unified": {"memory.high": "33554432", "memory.oom.group": "1", "memory.min": "4096"}}),
            text(&[("memory.high", "33554432"), ("memory.oom.group", "1"), ("memory.min", "4096")]),
        ),
        (
            json!({"cpu": {"shares": 2048, "quota": 50_000, "period": 100_000, "burst": 20_000}}),
            text(&[("cpu.weight", "174"), ("cpu.max", "50000 100000"), ("cpu.max.burst", "20000")]),
        ),
        (json!({"cpu": {"quota": -1, "period": 20_000}}), text(&[("cpu.max", "max 20000")])),
        (json!({"cpu": {"quota": 7_000}}), text(&[("cpu.max", "7000 100000")])),
        (json!({"cpu": {"idle": 1}}), text(&[("cpu.idle", "1")])),
        (json!({"cpu": {"cpus": "0", "mems": "0"}}), text(&[("cpuset.cpus", "0"), ("cpuset.mems", "0")])),
        (json!({"pids": {"limit": 20}}), text(&[("pids.max", "20")])),
        (json!({"pids": {"limit": -1}}), text(&[("pids.max", "max")])),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            text(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]),
        ),
        (
            json!({"blockIO": {"throttleReadBpsDevice": device(1_048_576), "throttleWriteIOPSDevice": device(50),
                "throttleWriteBpsDevice": device(0)}}),
            vec![("io.max", format!("{disk} rbps=1048576 wbps=max riops=max wiops=50"))],
        ),
        (json!({"blockIO": {"weight": 500}}), text(&[("io.weight", "default 4950")])),
    ]
}

/// What of the files is not there, or does not hold what it must.
fn wrong(own: &Path, files: &[(&str, String)]) -> Vec<String> {
    let found = |file: &str| fs::read_to_string(own.join(file)).unwrap_or_default().trim().to_owned();
    let wrong =
        |(file, value): &(&str, String)| (found(file) != *value).then(|| format!("{file}: {}", found(file)));
    files.iter().filter_map(wrong).collect()
}

#[test]
fn limits_are_what_the_kernel_has_then() {
    needs_root!();
    let controllers = match common::version2::only_version_2() {
        Ok(controllers) => controllers,
        Err(reason) => return common::skip(&reason),
    };
    let disk = disk().unwrap_or_else(|| "7:0".to_owned());
    let (mut tried, mut not_tried) = (0, Vec::new());
    for (resources, mut files) in cases(&disk) {
        let there =
            |file: &str| controllers.split_whitespace().any(|name| Some(name) == file.split('.').next());
        if !files.iter().all(|(file, _)| there(file)) {
            not_tried.push(resources.to_string());
            continue;
        }
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.config["linux"]["resources"] = resources.clone();
        let own = PathBuf::from(format!("/sys/fs/cgroup/lab-{}", bundle.id));
        let (container, _output) = match bundle.create() {
            // A kernel without weights for disks, or without swap, says so by the file's name.
            Err(error) if resources["blockIO"]["weight"].is_u64() => {
                assert!(error.to_string().contains("bfq.weight: No such file"), "{error}");
                continue;
            }
            created => created.unwrap(),
        };
        files.retain(|(file, _)| !file.contains("swap") || own.join(file).exists());
        assert_eq!(wrong(&own, &files), [""; 0], "create with {resources}");
        container.delete(true).unwrap();

        // The same by an update of one that runs without.
        bundle.config["linux"]["resources"] = json!({});
        let (container, _output) = bundle.create().unwrap();
        container.update(&serde_json::from_value(resources.clone()).unwrap()).unwrap();
        assert_eq!(wrong(&own, &files), [""; 0], "update with {resources}");
        container.delete(true).unwrap();
        assert_eq!(traces(&bundle), [].into());
        tried += 1;
    }
    println!("limits tried: {tried}, not tried: {not_tried:?}");
    assert!(tried > 0, "a machine without any controller in version 2");
}
