//! What `lab run` cannot do ends in one line that names the thing and the fix, with docker's exit code, and leaves no
//! mount, control group, process or file behind.

mod common;

use std::process::Stdio;

use common::leftovers::Traces;
use common::{Lab, Wall, finish, image, skip};

/// Flags, image and command; the exit code; what the line says.
type Case = (&'static [&'static str], i32, &'static [&'static str]);

/// Refused the same way by both walls, before or behind them.
const BOTH: &[Case] = &[
    (&["no-such-image", "true"], 125, &["no-such-image", "lab image load"]),
    (&["box", "/etc"], 126, &["/etc"]),
    (&["-m", "1k", "box", "true"], 125, &["1024 bytes", "minimum memory limit is 6 MiB", "-m 64m"]),
    (&["-m", "many", "box", "true"], 125, &["many", "64m"]),
    (&["--cpus", "1000", "box", "true"], 125, &["--cpus", "0.01"]),
    (&["-w", "relative", "box", "true"], 125, &["relative", "absolute"]),
    (&["-u", "nobody-knows", "box", "true"], 125, &["nobody-knows", "/etc/passwd"]),
    (&["-e", "=x", "box", "true"], 125, &["=x"]),
    (&["--env-file", "/no/such/file", "box", "true"], 125, &["/no/such/file"]),
    (&["--name", "no/name", "box", "true"], 125, &["no/name"]),
    (&["--hostname", "two words", "box", "true"], 125, &["two words"]),
    (&["--mount", "type=sideways,target=/x", "box", "true"], 125, &["type=sideways", "tmpfs"]),
    (&["--pid", "sideways", "box", "true"], 125, &["sideways"]),
    (&["--volumes-from", "nobody", "box", "true"], 125, &["nobody"]),
    (&["--log-driver", "sideways", "box", "true"], 125, &["sideways"]),
    (&["-v", "/tmp:b", "box", "true"], 125, &["absolute path"]),
    (&["-v", "/tmp:/b:sideways", "box", "true"], 125, &["sideways"]),
    (&["--cap-add", "FLY", "box", "true"], 125, &["CAP_FLY"]),
    (&["--ulimit", "nofile", "box", "true"], 125, &["--ulimit nofile"]),
    (&["--restart", "always", "box", "true"], 125, &["--restart", "-d"]),
    (&["--no-such-flag", "box", "true"], 125, &["--no-such-flag", "lab run --help"]),
    (&["--entrypoint", "", "box"], 125, &["no command"]),
];

/// Refused by the virtual machine alone.
const VM: &[Case] = &[
    (&["-m", "16m", "box", "true"], 125, &["16 MiB", "32 MiB"]),
    (&["--pid", "host", "box", "true"], 125, &["--pid", "its own kernel"]),
    (&["--network", "host", "box", "true"], 125, &["--network host", "of its own"]),
    (&["--device", "/dev/null", "box", "true"], 125, &["--device"]),
    (&["--kernel", "/etc/passwd", "box", "true"], 125, &["/etc/passwd"]),
    (&["--kernel", "no-such-kernel", "box", "true"], 125, &["no-such-kernel", "lab kernel"]),
];

fn check(wall: Wall, cases: &[Case]) {
    if let Some(why) = wall.missing().or_else(image::missing) {
        skip(&format!("{}: bad input", wall.name()), why);
        return;
    }
    let lab = Lab::shared();
    for (arguments, code, parts) in cases {
        let before = Traces::of(lab.home());
        let mut all = vec!["run", "--quiet", "--runtime", wall.name()];
        all.extend(*arguments);
        let output = lab.run(&all, "");
        let line = &output.stderr;
        assert_eq!(output.code, *code, "{all:?}: {output:?}");
        assert!(line.starts_with("lab: error: ") && line.lines().count() == 1, "{all:?}: {line:?}");
        for part in *parts {
            assert!(line.contains(part), "{all:?}: no {part:?} in {line:?}");
        }
        before.assert_unchanged();
    }
}

#[test]
fn container_refuses_bad_input_in_one_line_and_leaves_nothing() {
    check(Wall::Container, BOTH);
}

#[test]
fn vm_refuses_bad_input_in_one_line_and_leaves_nothing() {
    check(Wall::Vm, BOTH);
    check(Wall::Vm, VM);
}

#[test]
fn vm_without_permission_on_dev_kvm_names_it() {
    if let Some(why) = Wall::Vm.missing().or_else(image::missing).or_else(|| Wall::Container.missing()) {
        skip("vm: no permission on /dev/kvm", why);
        return;
    }
    // Root may open any file, but no device on a file system mounted nodev (mount(2)).
    let script = "mount -t tmpfs -o nodev none /mnt && mknod /mnt/kvm c 10 232 && mount --bind /mnt/kvm /dev/kvm && \
                  exec \"$0\" \"$@\"";
    let lab = Lab::shared();
    let before = Traces::of(lab.home());
    let inner = lab.command(&["run", "--quiet", "--runtime", "vm", "--accel", "kvm", image::NAME, "true"]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare");
    let output = finish(child);
    assert_eq!(output.code, 125, "{output:?}");
    assert!(output.stderr.contains("/dev/kvm") && output.stderr.lines().count() == 1, "{output:?}");
    before.assert_unchanged();
}
