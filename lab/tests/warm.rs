//! `lab run --runtime vm --warm`: a machine that starts from a snapshot is not told from one that was booted, but by the clock.

mod common;

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

#[test]
fn machines_of_one_snapshot_have_names_times_and_random_numbers_of_their_own() {
    let what = "machines_of_one_snapshot_have_names_times_and_random_numbers_of_their_own";
    if let Some(why) = Wall::Vm.missing().or_else(image::missing) {
        return skip(what, why);
    }
    let lab = Lab::shared();
    let all: Vec<_> =
        ["one", "two", "three"].into_iter().map(|name| lines(lab, name, &format!("of-{name}"))).collect();
    let snapshots = std::fs::read_dir(lab.home().join("data/snapshots")).unwrap().count();
    assert_eq!(snapshots, 1, "one snapshot serves all of them");
    for (lines, name) in all.iter().zip(["one", "two", "three"]) {
        let [host, random, word, time] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((host.as_str(), word.as_str()), (name, format!("of-{name}").as_str()));
        assert_eq!(random.len(), "0123456789abcdef0123456789abcdef  -".len());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let time: u64 = time.parse().unwrap();
        assert!((now - 900..=now).contains(&time), "the guest's clock says {time}, the host's {now}");
    }
    assert!(all[0][1] != all[1][1] && all[1][1] != all[2][1] && all[0][1] != all[2][1], "{all:?}");

    // Another command, another code: the snapshot holds neither.
    let other = warm(lab, &[], &["sh", "-c", "echo err >&2; exit 7"]);
    assert_eq!((other.code, other.stderr.as_str()), (7, "err\n"));
    assert_eq!(warm(lab, &[], &["nope"]).code, 127);

    // A damaged snapshot is no reason to fail: the machine is booted, and the snapshot taken anew.
    let folder = lab.home().join("data/snapshots");
    let path = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&path, "damaged").unwrap();
    assert_eq!(lines(lab, "four", "x")[0], "four");
    assert!(std::fs::metadata(&path).unwrap().len() > 64 << 20);
}
