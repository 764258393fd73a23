//! The promises of `lab run`, the same for both walls: what an image's program sees, says, and how its end is told.
//!
//! Each line of the table is tried as a container and as a virtual machine. `cargo test --test run vm` tries one wall.

mod common;

use common::{Lab, Output, Wall, image, skip};
use libtest_mimic::{Arguments, Failed, Trial};

/// One promise.
struct Case {
    promise: &'static str,
    flags: &'static [&'static str],
    command: &'static [&'static str],
    stdin: &'static str,
    stdout: Said,
    stderr: Said,
    code: i32,
}

/// What is said on a stream.
enum Said {
    Nothing,
    Just(&'static str),
    With(&'static str),
}
use Said::{Just, Nothing, With};

impl Said {
    fn is(&self, text: &str) -> bool {
        match self {
            Nothing => text.is_empty(),
            Just(all) => text == *all,
            With(part) => text.contains(part),
        }
    }

    fn describe(&self) -> String {
        match self {
            Nothing => "nothing".to_owned(),
            Just(all) => format!("{all:?}"),
            With(part) => format!("something with {part:?}"),
        }
    }
}

const CASE: Case =
    Case { promise: "", flags: &[], command: &[], stdin: "", stdout: Nothing, stderr: Nothing, code: 0 };

const CASES: &[Case] = &[
    Case { promise: "without a command the image's own runs", stdout: Just("the image's command\n"), ..CASE },
    Case {
        promise: "output and errors come out where they were written, and the exit code is the program's",
        command: &["sh", "-c", "echo out; echo err >&2; exit 7"],
        stdout: Just("out\n"),
        stderr: Just("err\n"),
        code: 7,
        ..CASE
    },
    Case {
        promise: "with -i standard input reaches the program, to its end",
        flags: &["-i"],
        command: &["wc", "-c"],
        stdin: "twelve bytes",
        stdout: Just("12\n"),
        ..CASE
    },
    Case {
        promise: "without -i standard input is empty",
        command: &["wc", "-c"],
        stdin: "not for the program",
        stdout: Just("0\n"),
        ..CASE
    },
    Case {
        promise: "environment, directory, user, groups and host name are the image's overridden by the flags, as docker's",
        flags: &["-e", "GIVEN=1", "-e", "FROM_IMAGE", "-w", "/home/eva", "-u", "eva", "--hostname", "box-1"],
        command: &[
            "sh",
            "-c",
            "tr '\\0' '\\n' < /proc/1/environ; pwd; id -un; grep Groups /proc/self/status; hostname; \
             touch /home/file 2>/dev/null || echo not root",
        ],
        stdout: Just(
            "PATH=/bin\nHOSTNAME=box-1\nGIVEN=1\nHOME=/home/eva\n\
             /home/eva\neva\nGroups:\t44 1000 \nbox-1\nnot root\n",
        ),
        ..CASE
    },
    Case {
        promise: "a directory that is not there is made",
        flags: &["-w", "/made/for/it"],
        command: &["pwd"],
        stdout: Just("/made/for/it\n"),
        ..CASE
    },
    Case {
        promise: "the program is process 1 of its own world, whose root is the image, writable and new for each run",
        command: &["sh", "-c", "echo $$ /proc/[0-9]* /*; echo written > /mark; cat /mark"],
        stdout: Just("1 /proc/1 /bin /dev /etc /home /proc /root /sys /tmp\nwritten\n"),
        ..CASE
    },
    Case {
        promise: "with --read-only the root cannot be written",
        flags: &["--read-only"],
        command: &["sh", "-c", "echo x 2>/dev/null > /tmp/mark || echo refused"],
        stdout: Just("refused\n"),
        ..CASE
    },
    Case {
        promise: "a terminal with -t: it is one, of the type xterm",
        flags: &["-t"],
        command: &["sh", "-c", "tty; echo $TERM"],
        stdout: Just("/dev/pts/0\r\nxterm\r\n"),
        ..CASE
    },
    Case {
        promise: "a command that does not exist is 127",
        command: &["no-such-command"],
        stderr: With("no-such-command"),
        code: 127,
        ..CASE
    },
    Case {
        promise: "a file that cannot be executed is 126",
        command: &["/etc/not-a-program"],
        stderr: With("/etc/not-a-program"),
        code: 126,
        ..CASE
    },
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for wall in Wall::ALL {
        let missing = wall.missing().or_else(image::missing);
        if let Some(why) = missing {
            skip(&format!("{}: all {} promises", wall.name(), CASES.len()), why);
        }
        for case in CASES {
            let name = format!("{}: {}", wall.name(), case.promise);
            trials.push(Trial::test(name, move || try_case(wall, case)).with_ignored_flag(missing.is_some()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn try_case(wall: Wall, case: &Case) -> Result<(), Failed> {
    let lab = Lab::shared();
    let mut arguments = vec!["run", "--quiet", "--runtime", wall.name()];
    arguments.extend(case.flags);
    arguments.push(image::NAME);
    arguments.extend(case.command);
    let Output { code, stdout, stderr } = lab.run(&arguments, case.stdin);

    let mut wrong = Vec::new();
    if code != case.code {
        wrong.push(format!("exit code {code}, not {}", case.code));
    }
    if !case.stdout.is(&stdout) {
        wrong.push(format!("standard output {stdout:?}, not {}", case.stdout.describe()));
    }
    if !case.stderr.is(&stderr) {
        wrong.push(format!("standard error {stderr:?}, not {}", case.stderr.describe()));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("lab {}\n{}\nstandard error: {stderr}", arguments.join(" "), wrong.join("\n")).into())
}
