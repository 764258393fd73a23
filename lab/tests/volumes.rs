//! Directories of the host behind both walls: what `-v` and `--tmpfs` promise, the same for a container and for a machine.
//!
//! Each run does many things, but none of them often, since a machine's start takes seconds where there is no hardware virtualization.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Lab, Output, Wall, finish, for_each_wall, image};
use tempfile::TempDir;

/// A directory of the host for one wall, which all users may enter.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = folder.path().canonicalize().expect("a path");
    (folder, path)
}

/// Runs a Perl script behind a wall, and checks what it says. One process does everything, with the host's own Perl, whose
/// directories are mounted as volumes too: so its program and libraries are loaded from there.
fn says(wall: Wall, flags: &[&str], script: &str, lines: &[&str]) {
    let script = format!("$| = 1; umask 0; {script}");
    let arguments = [
        &["run", "--quiet", "--runtime", wall.name()][..],
        &["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"],
        flags,
        &[image::NAME, "/usr/bin/perl", "-e", script.as_str()],
    ]
    .concat();
    let Output { code, stdout, stderr } = Lab::shared().run(&arguments, "");
    let said: Vec<&str> = stdout.lines().collect();
    assert_eq!(said, lines, "{}: exit code {code}: {stderr}", wall.name());
    assert_eq!((code, stderr.as_str()), (0, ""), "{}", wall.name());
}

#[test]
fn what_the_workload_does_to_files_is_done_to_the_hosts() {
    for_each_wall("a writable directory of the host", |wall| {
        let (_folder, path) = folder();
        fs::write(path.join("given"), "from the host\n").unwrap();
        let script = r#"
            chdir "/data" or die; open F, "given"; print <F>; close F;
            open F, ">new"; print F "written\n"; close F; open F, ">>new"; print F "more\n"; close F;
            open F, "new"; print <F>; close F;
            link "new", "hard" or die; symlink "new", "soft" or die; open F, "soft"; print scalar <F>; close F;
            print readlink "soft", " ", (stat "new")[3], "\n";
            mkdir "folder" or die; open F, ">folder/x"; print F "x\n"; close F;
            rename "folder", "renamed" or die; opendir D, "renamed"; print join(" ", sort readdir D), "\n";
            chmod 04750, "new" or die; chown 1000, 44, "hard" or die; chmod 0640, "new" or die;
            printf "%o %d %d\n", (stat "new")[2] & 07777, (stat "new")[4], (stat "new")[5];
            $x = "fifo"; syscall(133, $x, 010600, 0) == 0 or die "mknod: $!"; print -p "fifo" ? "fifo\n" : "none\n";
            utime 1000000000, 1000000000, "given" or die; print +(stat "given")[9], "\n";
            truncate "given", 4 or die; open F, "given"; print <F>, "\n"; close F;
            open G, "+>gone"; unlink "gone" or die; syswrite G, "still\n"; sysseek G, 0, 0; sysread G, $x, 99; print $x;
            print +(stat G)[3], "\n"; close G;
            open F, ">one"; print F "a\n"; close F; open F, ">two"; print F "b\n"; close F;
            rename "one", "two" or die; open F, "two"; print <F>; close F;
            open F, "+>big"; syswrite F, "0123456789abcdef" x 20000; syscall(74, fileno F) == 0 or die "fsync: $!";
            sysseek F, 319990, 0; sysread F, $x, 99; print "$x\n"; print -s "big", "\n"; close F;
            for (0 .. 39) { open F, ">many-$_"; } close F;
            opendir D, "."; print scalar(grep /many/, readdir D), "\n"; unlink glob "many-*";
            print -e "many-7" ? "left\n" : "removed\n";
            rmdir "renamed"; print $! + 0, "\n";
            open F, ">no/such/place"; print $! + 0, "\n""#;
        let volume = format!("{}:/data", path.display());
        let lines = [
            "from the host",
            "written",
            "more",
            "written",
            "new 2",
            ". .. x",
            "640 1000 44",
            "fifo",
            "1000000000",
            "from",
            "still",
            "0",
            "a",
            "6789abcdef",
            "320000",
            "40",
            "removed",
            "39", // ENOTEMPTY
            "2",  // ENOENT
        ];
        says(wall, &["-v", &volume], script, &lines);

        let status = |name: &str| fs::symlink_metadata(path.join(name)).unwrap();
        assert_eq!(fs::read_to_string(path.join("new")).unwrap(), "written\nmore\n");
        assert_eq!(status("new").ino(), status("hard").ino());
        assert_eq!(
            (status("new").uid(), status("new").gid(), status("new").mode() & 0o7777),
            (1000, 44, 0o640)
        );
        assert_eq!(fs::read_link(path.join("soft")).unwrap().to_str(), Some("new"));
        assert!(status("fifo").file_type().is_fifo());
        assert_eq!(fs::read_to_string(path.join("renamed/x")).unwrap(), "x\n");
        assert_eq!((status("big").len(), status("given").len()), (320000, 4));
        assert!(!path.join("gone").exists() && !path.join("one").exists());
    });
}

#[test]
fn what_belongs_to_whom_is_the_same_on_both_sides() {
    for_each_wall("owners of files", |wall| {
        let (_folder, path) = folder();
        fs::write(path.join("roots"), "secret\n").unwrap();
        fs::set_permissions(path.join("roots"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(path.join("evas")).unwrap();
        std::os::unix::fs::chown(path.join("evas"), Some(1000), Some(1000)).unwrap();
        fs::create_dir(path.join("team")).unwrap();
        std::os::unix::fs::chown(path.join("team"), Some(0), Some(44)).unwrap();
        fs::set_permissions(path.join("team"), fs::Permissions::from_mode(0o2775)).unwrap();
        let script = r#"
            chdir "/data" or die; print open(F, "roots") ? "mine\n" : "not mine\n";
            print open(F, ">new") ? "here\n" : "not here\n";
            umask 027; open F, ">evas/file" or die; mkdir "evas/folder" or die;
            printf "%o %d\n", (stat "evas/file")[2, 4];
            open F, ">team/file" or die; print +(stat "team/file")[5], "\n"#;
        let volume = format!("{}:/data", path.display());
        let lines = ["not mine", "not here", "100640 1000", "44"];
        says(wall, &["-v", &volume, "-u", "eva"], &format!("{script}\""), &lines);
        let status = |name: &str| fs::metadata(path.join(name)).unwrap();
        for (name, mode) in [("evas/file", 0o640), ("evas/folder", 0o750)] {
            let status = status(name);
            assert_eq!((status.uid(), status.gid(), status.mode() & 0o777), (1000, 1000, mode), "{name}");
        }
        assert_eq!((status("team/file").uid(), status("team/file").gid()), (1000, 44));
    });
}

#[test]
fn what_is_read_only_stays_as_it_is_and_what_is_in_memory_goes() {
    for_each_wall("read-only directories and tmpfs", |wall| {
        let (_folder, path) = folder();
        fs::write(path.join("file"), "fixed\n").unwrap();
        let script = r#"
            for ("/data/file", "/etc/one", "/deep/new/place/file") { open F, $_ or die "$_: $!"; print <F>; close F; }
            sub try { print $_[0] ? "done\n" : ($! + 0) . "\n"; }
            try(open F, ">/data/new"); try(open F, ">>/data/file"); try(unlink "/data/file"); try(mkdir "/data/folder");
            try(link "/data/file", "/data/hard"); try(chmod 0777, "/data/file"); try(truncate "/etc/one", 0);
            try(rename "/data/file", "/data/other"); try(utime 0, 0, "/data/file"); try(open F, ">/new");
            open F, ">/memory/file" or die; print F "x\n"; close F; open F, "/memory/file"; print <F>; close F;
            open F, "/proc/mounts"; print scalar(grep m{^\S+ /memory tmpfs }, <F>), "\n"; close F;
            open F, ">/named/file" or die; print F "kept\n""#;
        let flags = [
            format!("{}:/data:ro", path.display()),
            format!("{}:/etc/one:ro", path.join("file").display()),
            format!("{}-volume:/named", wall.name()),
            format!("{}:/deep/new/place", path.display()),
        ];
        let mut all = vec!["--read-only", "--tmpfs", "/memory:size=64k"];
        for flag in &flags {
            all.extend(["-v", flag.as_str()]);
        }
        let erofs = ["30"; 10];
        let lines = [&["fixed", "fixed", "fixed"], &erofs[..], &["x", "1"]].concat();
        says(wall, &all, script, &lines);
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "fixed\n");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "{}", wall.name());
        let kept = Lab::shared().home().join(format!("data/volumes/{}-volume/_data/file", wall.name()));
        assert_eq!(fs::read_to_string(kept).unwrap(), "kept\n", "{}", wall.name());
    });
}

#[test]
fn what_the_host_changes_while_the_workload_runs_is_seen_at_once() {
    for_each_wall("changes by the host", |wall| {
        let (_folder, path) = folder();
        fs::write(path.join("file"), "before\n").unwrap();
        // Read before, so that all caches are warm; each line is a step, each answer what the host did before it.
        let script = "cd /data; cat file; ls; exec 5< file; echo .; while read step; do eval \"$step\"; done";
        let volume = format!("{}:/data", path.display());
        let arguments = [
            "run",
            "-i",
            "--quiet",
            "--runtime",
            wall.name(),
            "-v",
            &volume,
            image::NAME,
            "sh",
            "-c",
            script,
        ];
        let mut command = Lab::shared().command(&arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("lab starts");
        let mut steps = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut answer = |what: &str| {
            let mut line = String::new();
            answers.read_line(&mut line).expect("a pipe reads");
            assert_eq!(line.trim_end(), what, "{}", wall.name());
        };
        answer("before");
        answer("file");
        answer(".");
        // Its answer ends with a line of its own: only then nothing of the step goes on any more.
        let mut step = |text: &str| writeln!(steps, "{text}; echo .").expect("the workload runs");
        fs::write(path.join("file"), "behind\n").unwrap();
        step("cat file");
        answer("behind");
        answer(".");
        // The open file too.
        fs::write(path.join("file"), "and longer\n").unwrap();
        step("cat <&5");
        answer("and longer");
        answer(".");
        fs::create_dir(path.join("folder")).unwrap();
        fs::rename(path.join("file"), path.join("folder/moved")).unwrap();
        step("ls; cat folder/moved; cat file 2> /dev/null || echo gone");
        answer("folder");
        answer("and longer");
        answer("gone");
        answer(".");
        fs::set_permissions(path.join("folder"), fs::Permissions::from_mode(0o751)).unwrap();
        step("/bin/busybox stat -c %a folder");
        answer("751");
        answer(".");
        step("exit 3");
        drop(steps);
        child.stdout = Some(answers.into_inner());
        assert_eq!(finish(child).code, 3, "{}", wall.name());
    });
}
