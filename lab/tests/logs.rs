//! Logs: how much of them is kept, and how they are read.

mod common;

use std::path::Path;

use common::daemon::{Daemon, eventually};

const TALK: &str = "n=0; while [ $n -lt 100 ]; do echo line $n; n=$((n+1)); done";

#[test]
fn a_log_is_rotated_and_read_as_one() {
    let Some(daemon) = Daemon::start("container: log rotation") else { return };
    let flags = ["--log-opt", "max-size=2k", "--log-opt", "max-file=3", "--log-opt", "labels=tier"];
    let run =
        [&["run", "--name", "talker", "--network", "none", "--label", "tier=front"][..], &flags].concat();
    let all = daemon.says(&[&run[..], &["lab", "sh", "-c", TALK]].concat());
    assert_eq!(all.lines().count(), 100, "{all}");
    let kept = daemon.says(&["logs", "talker"]);
    // Three files of 2 kB hold some 60 lines of a hundred bytes.
    assert!(kept.ends_with("line 98\nline 99") && !kept.contains("line 0\n"), "{kept}");
    assert!((30..100).contains(&kept.lines().count()), "{kept}");
    assert!(all.ends_with(&kept), "{kept}");
    let path = daemon.says(&["inspect", "-f", "{{.LogPath}}", "talker"]);
    let folder = Path::new(&path).parent().expect("a folder");
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let sizes: Vec<u64> = files
        .filter(|file| file.file_name().to_string_lossy().contains("-json.log"))
        .map(|file| file.metadata().expect("a file").len())
        .collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|&size| size < 2300), "{sizes:?}");
    // The tail of two files, and what is noted of the container.
    assert_eq!(daemon.says(&["logs", "--tail", "30", "talker"]).lines().count(), 30);
    assert_eq!(daemon.says(&["logs", "--details", "-n", "1", "talker"]), "tier=front line 99");
    let timed = daemon.says(&["logs", "-t", "-n", "1", "talker"]);
    let (time, line) = timed.split_once(' ').expect("a time");
    assert!(line == "line 99" && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{timed}");
    assert_eq!(daemon.says(&["logs", "--since", time, "talker"]), "line 99");
    assert!(!daemon.says(&["logs", "--until", time, "-n", "2", "talker"]).is_empty());
}

#[test]
fn a_log_that_is_followed_goes_on_in_its_next_file() {
    let Some(daemon) = Daemon::start("container: a followed log") else { return };
    let talk = format!("sleep 1; {TALK}");
    let flags = ["--log-driver", "local", "--log-opt", "max-size=4k", "--log-opt", "compress=false"];
    let run = [&["run", "-d", "--name", "talker", "--network", "none"][..], &flags].concat();
    daemon.says(&[&run[..], &["lab", "sh", "-c", &talk]].concat());
    let followed = daemon.says(&["logs", "-f", "talker"]);
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    assert_eq!(followed.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn what_no_driver_can_do_is_refused_and_none_keeps_nothing() {
    let Some(daemon) = Daemon::start("container: log drivers") else { return };
    for (flags, why) in [
        (["--log-driver", "syslog"], "no log driver named 'syslog'"),
        (["--log-opt", "max-size=much"], "max-size"),
        (["--log-opt", "colour=red"], "unknown log opt 'colour'"),
    ] {
        let refused = daemon.docker(&[&["create"][..], &flags, &["lab", "true"]].concat());
        assert!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    }
    daemon.says(&["run", "-d", "--name", "silent", "--log-driver", "none", "lab", "echo", "lost"]);
    eventually("its end", || daemon.says(&["inspect", "-f", "{{.State.Status}}", "silent"]) == "exited");
    let refused = daemon.docker(&["logs", "silent"]);
    assert!(refused.code != 0 && refused.stderr.contains("does not support reading"), "{refused:?}");
}
