//! `lab run --runtime vm --warm`: a machine that starts from a snapshot is not told from one that was booted, but by the clock.

mod common;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Lab, Output, Wall, image, skip};

/// What a clone must not share with another: random numbers, of the kernel and of the process.
const SCRIPT: &str = "hostname; head -c 16 /dev/urandom | md5sum; echo $WORD; date +%s";

/// A warm run with these flags and this command.
fn warm(lab: &Lab, flags: &[&str], command: &[&str]) -> Output {
    let always = ["run", "--runtime", "vm", "--warm", "-m", "64m"];
    lab.run(&[&always, flags, &["box"], command].concat(), "")
}

fn lines(lab: &Lab, name: &str, word: &str) -> Vec<String> {
    let environment = format!("WORD={word}");
    let output = warm(lab, &["--hostname", name, "-e", &environment], &["sh", "-c", SCRIPT]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

/// The snapshots of a sort: "snapshot" for those of kinds of machines, "command".
fn snapshots(lab: &Lab, sort: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(lab.home().join("data/snapshots")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == sort)).collect()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn machines_of_one_snapshot_have_names_times_and_random_numbers_of_their_own() {
    let what = "machines_of_one_snapshot_have_names_times_and_random_numbers_of_their_own";
    if let Some(why) = Wall::Vm.missing().or_else(image::missing) {
        return skip(what, why);
    }
    let lab = Lab::shared();
    let all: Vec<_> =
        ["one", "two", "three"].into_iter().map(|name| lines(lab, name, &format!("of-{name}"))).collect();
    assert_eq!(snapshots(lab, "snapshot").len(), 1, "one snapshot serves all of them");
    for (lines, name) in all.iter().zip(["one", "two", "three"]) {
        let [host, random, word, time] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((host.as_str(), word.as_str()), (name, format!("of-{name}").as_str()));
        assert_eq!(random.len(), "0123456789abcdef0123456789abcdef  -".len());
        let (time, now): (u64, _) = (time.parse().unwrap(), now());
        assert!((now - 900..=now).contains(&time), "the guest's clock says {time}, the host's {now}");
    }
    assert!(all[0][1] != all[1][1] && all[1][1] != all[2][1] && all[0][1] != all[2][1], "{all:?}");

    // Another command, another code: the snapshot holds neither.
    let other = warm(lab, &[], &["sh", "-c", "echo err >&2; exit 7"]);
    assert_eq!((other.code, other.stderr.as_str()), (7, "err\n"));
    assert_eq!(warm(lab, &[], &["nope"]).code, 127);

    // A damaged snapshot is no reason to fail: the machine is booted, and the snapshot taken anew.
    let path = snapshots(lab, "snapshot").remove(0);
    for path in snapshots(lab, "command").iter().chain([&path]) {
        std::fs::write(path, "damaged").unwrap();
    }
    assert_eq!(lines(lab, "four", "x")[0], "four");
    assert!(std::fs::metadata(&path).unwrap().len() > 64 << 20);
}

/// A kernel that lists what is to be renewed in memory: ours, with all its patches.
fn kernel_lists_renewals() -> bool {
    let kernel = lab::kernel::resolve(None).ok().flatten();
    kernel.is_some_and(|kernel| kernel.is_current() && kernel.meta.patches_left_out.is_empty())
}

#[test]
fn a_command_goes_on_from_its_first_instruction_with_a_name_a_time_and_random_numbers_of_its_own() {
    let what =
        "a_command_goes_on_from_its_first_instruction_with_a_name_a_time_and_random_numbers_of_its_own";
    let missing = || (!kernel_lists_renewals()).then_some("the kernel is not this version's lean one");
    if let Some(why) = Wall::Vm.missing().or_else(image::missing).or_else(missing) {
        return skip(what, why);
    }
    let lab = Lab::own();
    let script =
        "date +%s; hostname; echo $HOSTNAME; head -c 16 /dev/urandom | md5sum; cat; cat /proc/uptime";
    let always = ["run", "-i", "--runtime", "vm", "--warm", "-m", "72m", "box", "sh", "-c", script];
    let mut seen = Vec::new();
    let mut taken = Vec::new();
    for number in 0..4 {
        // Each run has an id of its own, which is its host name; and an input of its own.
        let began = now();
        let output = lab.run(&always, &format!("input {number}\n"));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        let lines: Vec<_> = output.stdout.lines().map(str::to_owned).collect();
        let [time, host, variable, random, input, uptime] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(host, variable);
        assert_eq!(input, &format!("input {number}"));
        let time: u64 = time.parse().unwrap();
        // A machine that is booted gets the time when it is set up, and loses what its kernel takes for that.
        let late = if number == 0 { 900 } else { 1 };
        assert!(
            (began - late..=now()).contains(&time),
            "run {number}: the guest says {time}, not {began} or later"
        );
        assert!(uptime.split(' ').next().unwrap().parse::<f64>().unwrap() < 900.0);
        seen.push((host.clone(), random.clone()));
        let files = snapshots(&lab, "command");
        let times = files.iter().map(|path| std::fs::metadata(path).unwrap().created().unwrap());
        taken.push(times.collect::<Vec<_>>());
    }
    assert!(
        taken.iter().all(|times| times.len() == taken[0].len() && times == &taken[0]),
        "taken once: {taken:?}"
    );
    for (number, one) in seen.iter().enumerate() {
        let others = &seen[number + 1..];
        assert!(others.iter().all(|other| other.0 != one.0 && other.1 != one.1), "{seen:?}");
    }
}
