//! The protocol, spoken with the real PID 1 on this kernel: what a VMM's agent may rely on.

mod cage;

use cage::{Guest, failure, number};
use freestanding::Errno;
use guest_wire::{Header, Kind, MAX_DATA, SPIN, Stream, Tag, WINDOW, Writer};

/// The status of a process that a signal ended.
const fn by_signal(number: u32) -> u32 {
    (128 + number) | 1 << 31
}

#[test]
fn a_run_from_ready_to_power_off() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let outcome = guest.run(0, &["hello"]);
    assert_eq!(outcome.pid, Some(1), "the workload is PID 1 of its own namespace");
    assert_eq!((outcome.stdout.as_str(), outcome.closed, outcome.status), ("hello, world\n", 2, Some(0)));
    guest.power_off();
}

#[test]
fn nothing_runs_before_start() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["hello"], |_| ());
    // A second process that runs at once answers first: the first one waits.
    guest.exec(1, &["true"], |_| ());
    guest.send(Kind::Start, 1, &[]);
    let outcome = guest.outcome(1);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.outcome(0).stdout, "hello, world\n");
}

#[test]
fn exit_codes_and_signals_come_back() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    assert_eq!(guest.run(1, &["sh", "-c", "echo out; echo err >&2; exit 7"]).status, Some(7));
    assert_eq!(guest.run(2, &["sh", "-c", "kill -KILL $$"]).status, Some(by_signal(9)));
    guest.exec(3, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 3, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    guest.send(Kind::Signal, 3, &9u32.to_le_bytes());
    assert_eq!(guest.outcome(3).status, Some(by_signal(9)));
    // The end of the first process ends the sandbox; SIGKILL is the one signal that PID 1 cannot refuse.
    guest.send(Kind::Signal, 0, &9u32.to_le_bytes());
    assert_eq!(guest.outcome(0).status, Some(by_signal(9)));
}

#[test]
fn output_is_complete_when_the_exit_code_comes() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i 0123456789012345678901234567890123456789; i=$((i+1)); done; exit 3";
    let outcome = guest.run(0, &["sh", "-c", script]);
    assert_eq!((outcome.stdout.lines().count(), outcome.status), (2000, Some(3)));
    assert!(outcome.stdout.len() > WINDOW as usize, "more than a window");
}

#[test]
fn input_arrives_within_its_window_and_ends() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["wc", "-c"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    let (mut left, mut window) = (1_000_000u32, WINDOW);
    let mut ended = false;
    loop {
        while left > 0 && window >= MAX_DATA {
            let len = left.min(MAX_DATA);
            guest.send(Kind::Data, 0, &vec![b'x'; len as usize]);
            (left, window) = (left - len, window - len);
        }
        if left == 0 && !ended {
            guest.send(Kind::Closed, 0, &[]);
            ended = true;
        }
        let (header, payload) = guest.frame();
        match header.kind {
            Kind::Credit => window += number(&payload),
            Kind::Data => assert_eq!(payload, b"1000000\n"),
            Kind::Exited => break,
            _ => {}
        }
    }
    assert!(ended);
}

#[test]
fn input_that_nobody_reads_does_not_hold_a_signal_back() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    for _ in 0..WINDOW / MAX_DATA {
        guest.send(Kind::Data, 0, &vec![0; MAX_DATA as usize]);
    }
    guest.send(Kind::Signal, 0, &9u32.to_le_bytes());
    assert_eq!(guest.outcome(0).status, Some(by_signal(9)));
}

#[test]
fn more_input_than_the_window_ends_the_conversation() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    // A pipe holds some (pipe(7)), the queue a window: four windows are too many for both.
    for _ in 0..4 * WINDOW / MAX_DATA {
        let header = Header::new(Kind::Data, 0, MAX_DATA);
        // It may hang up before all is written, which is the point.
        if !guest.try_bytes(&[&header.encode()[..], &vec![0; MAX_DATA as usize]].concat()) {
            break;
        }
    }
    guest.gone();
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let outcome = guest.run(0, &["nope"]);
    assert_eq!(outcome.failed, Some((Errno::NOENT.0, "execve nope".into())));

    let Some(mut guest) = Guest::with_sandbox() else { return };
    assert_eq!(guest.run(0, &["/etc/secret"]).failed, Some((Errno::ACCES.0, "execve /etc/secret".into())));

    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["true"], |writer| writer.text(Tag::Cwd, b"/etc/secret"));
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.outcome(0).failed, Some((Errno::NOTDIR.0, "chdir /etc/secret".into())));
}

#[test]
fn the_process_is_what_exec_says() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let script = "pwd; echo $GREETING; hostname; touch /tmp/f; ls -l /tmp; tty; read X || echo eof; cat /proc/self/limits";
    guest.exec(0, &["sh", "-c", script], |writer| {
        writer.text(Tag::Env, b"GREETING=hi there");
        writer.text(Tag::Cwd, b"/made/for it");
        writer.field(Tag::Umask, &[&0o027u32.to_le_bytes()]);
        writer.field(Tag::NoInput, &[]);
        writer.field(Tag::NoNewPrivileges, &[]);
        writer.field(Tag::Rlimit, &[&7u32.to_le_bytes(), &100u64.to_le_bytes(), &200u64.to_le_bytes()]);
        writer.field(Tag::OomScoreAdj, &[&500u32.to_le_bytes()]);
        let one = (1u64 << 7).to_le_bytes(); // CAP_SETUID alone
        writer.field(Tag::Capabilities, &[&one, &one, &[0; 8], &one, &[0; 8]]);
    });
    guest.send(Kind::Start, 0, &[]);
    let outcome = guest.outcome(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(&lines[..3], ["/made/for it", "hi there", "sandbox"], "{outcome:?}");
    assert!(lines[3].starts_with("-rw-r-----"), "{outcome:?}");
    assert_eq!(&lines[4..6], ["not a tty", "eof"]);
    let limit = lines.iter().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>()[3..5], ["100", "200"]);
    assert_eq!(outcome.status, Some(0));
}

#[test]
fn privileges_are_gone_when_the_workload_begins() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["cat", "/proc/self/status", "/proc/self/oom_score_adj"], |writer| {
        writer.field(Tag::NoNewPrivileges, &[]);
        writer.field(Tag::OomScoreAdj, &[&500u32.to_le_bytes()]);
        let one = (1u64 << 7).to_le_bytes(); // CAP_SETUID alone
        writer.field(Tag::Capabilities, &[&one, &one, &[0; 8], &one, &[0; 8]]);
    });
    guest.send(Kind::Start, 0, &[]);
    let outcome = guest.outcome(0);
    for line in [
        "NoNewPrivs:\t1",
        "CapBnd:\t0000000000000080",
        "CapEff:\t0000000000000080",
        "CapInh:\t0000000000000000",
        "500",
    ] {
        assert!(outcome.stdout.lines().any(|found| found == line), "{line}: {outcome:?}");
    }
}

#[test]
fn the_workload_runs_as_the_user_it_is_given() {
    if freestanding::sys::identity::uid() != 0 {
        println!("SKIPPED (a user namespace of one user has no other to change to; run as root)");
        assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        return;
    }
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sh", "-c", "id; echo again > /dev/stdout; cat /etc/secret"], |writer| {
        writer.field(Tag::User, &[&1000u32.to_le_bytes(), &1001u32.to_le_bytes()]);
        writer.field(Tag::Group, &[&1002u32.to_le_bytes()]);
    });
    guest.send(Kind::Start, 0, &[]);
    let outcome = guest.outcome(0);
    assert_eq!(outcome.stdout, "uid=1000 gid=1001 groups=1002\nagain\nsecret\n", "{outcome:?}");
}

#[test]
fn the_sandbox_sees_its_own_processes_and_devices() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let outcome = guest
        .run(0, &["sh", "-c", "ls /dev; ps; echo x > /dev/null; cat /dev/zero | true; ls /scratch /init"]);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin"] {
        assert!(lines.contains(&device), "{device}: {outcome:?}");
    }
    assert!(lines.iter().any(|line| line.trim_start().starts_with("1     0 S")), "{outcome:?}");
    assert_eq!(
        outcome.stderr.matches("No such file").count(),
        2,
        "nothing of PID 1's world is left: {outcome:?}"
    );
}

#[test]
fn a_writable_root_does_not_change_the_image() {
    for _ in 0..2 {
        let Some(mut guest) = Guest::with_sandbox() else { return };
        let outcome = guest.run(0, &["sh", "-c", "ls /etc; echo mine > /etc/new && cat /etc/new"]);
        assert_eq!((outcome.stdout.as_str(), outcome.status), ("secret\nmine\n", Some(0)), "{outcome:?}");
    }
}

#[test]
fn a_read_only_root_and_hidden_paths_stay_so() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.setup(|writer| {
        writer.field(Tag::RootReadOnly, &[]);
        writer.text(Tag::MaskedPath, b"/etc/secret");
        writer.text(Tag::MaskedPath, b"/tmp");
        writer.text(Tag::MaskedPath, b"/not/there");
        writer.text(Tag::ReadOnlyPath, b"/proc/sys");
        writer.text(Tag::ReadOnlyPath, b"/not/there");
    });
    let script = "touch /etc/x; touch /tmp/x; cat /etc/secret; echo x > /proc/sys/kernel/hostname; echo $?";
    let outcome = guest.run(0, &["sh", "-c", script]);
    assert_eq!(outcome.stdout, "1\n", "{outcome:?}");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 3, "{outcome:?}");
}

#[test]
fn a_terminal_has_a_size_and_an_end() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sh", "-c", "stty size; tty; cat; stty size"], |writer| {
        writer.field(Tag::Terminal, &[&24u16.to_le_bytes(), &80u16.to_le_bytes()]);
    });
    guest.send(Kind::Start, 0, &[]);
    let mut shown = String::new();
    let mut is_resized = false;
    let status = loop {
        let (header, payload) = guest.frame();
        match header.kind {
            Kind::Data => {
                assert_eq!(header.stream, Stream::Output, "a terminal has one output");
                shown.push_str(std::str::from_utf8(&payload).unwrap());
                if shown.contains("/dev/pts/0\r\n") && !is_resized {
                    guest.send(Kind::Resize, 0, &[50, 0, 132, 0]);
                    guest.send(Kind::Data, 0, b"typed\n");
                    guest.send(Kind::Closed, 0, &[]);
                    is_resized = true;
                }
            }
            Kind::Exited => break number(&payload),
            Kind::Failed => panic!("{:?}", failure(&payload)),
            _ => {}
        }
    };
    // What is typed is echoed, then cat repeats it.
    assert_eq!(shown, "24 80\r\n/dev/pts/0\r\ntyped\r\ntyped\r\n50 132\r\n");
    assert_eq!(status, 0);
}

#[test]
fn a_second_process_joins_the_first_ones_world() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sh", "-c", "echo here > /tmp/file; sleep 1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    let outcome = guest.run(
        1,
        &[
            "sh",
            "-c",
            "while ! [ -s /tmp/file ] && ! cat /tmp/file; do true; done 2> /dev/null; ps; hostname",
        ],
    );
    assert!(outcome.stdout.starts_with("here\n") && outcome.stdout.contains("sleep 1000"), "{outcome:?}");
    assert!(outcome.pid.is_some_and(|pid| pid > 1), "{outcome:?}");
    assert_eq!(outcome.status, Some(0));
    // A terminal of its own, in the same sandbox.
    guest.exec(2, &["tty"], |writer| writer.field(Tag::Terminal, &[&[0; 4]]));
    guest.send(Kind::Start, 2, &[]);
    assert_eq!(guest.outcome(2).stdout, "/dev/pts/0\r\n");
    guest.send(Kind::Signal, 0, &15u32.to_le_bytes());
    assert_eq!(guest.outcome(0).status, Some(143), "the shell hands SIGTERM on and ends by it");
    assert_eq!(
        guest.run(3, &["true"]).failed.map(|(errno, _)| errno),
        Some(Errno::NOMEM.0),
        "pid_namespaces(7)"
    );
}

#[test]
fn many_processes_at_a_time() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    for id in 1..40 {
        guest.exec(id, &["cat"], |_| ());
    }
    // There is room for 32: the rest are refused, and say so.
    for _ in 32..40 {
        let (header, payload) = guest.frame();
        assert_eq!((header.kind, failure(&payload).0), (Kind::Failed, Errno::AGAIN.0), "{header:?}");
    }
    for id in 1..32 {
        guest.send(Kind::Start, id, &[]);
        guest.send(Kind::Data, id, b"x");
        guest.send(Kind::Closed, id, &[]);
    }
    let mut exited = 0;
    while exited < 31 {
        exited += u32::from(guest.frame().0.kind == Kind::Exited);
    }
    guest.power_off();
}

#[test]
fn a_large_environment_fits() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sh", "-c", "env | wc -l"], |writer| {
        for index in 0..100 {
            writer.text(Tag::Env, format!("V{index}={}", "x".repeat(900)).as_bytes());
        }
        writer.text(Tag::Env, format!("UNSEEN-BY-SH={}", "x".repeat(100_000)).as_bytes());
    });
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.outcome(0).stdout, "101\n");
}

#[test]
fn frames_out_of_order_are_refused_and_change_nothing() {
    let Some(mut guest) = Guest::boot() else { return };
    let failed = |guest: &mut Guest| {
        let (header, payload) = guest.frame();
        assert_eq!(header.kind, Kind::Failed);
        (header.process, failure(&payload).0)
    };
    guest.exec(0, &["true"], |_| ());
    assert_eq!(failed(&mut guest), (0, Errno::PROTO.0), "exec before setup");
    guest.send(Kind::Setup, Header::SANDBOX, b"nonsense");
    assert_eq!(failed(&mut guest), (Header::SANDBOX, Errno::PROTO.0));
    guest.setup(|_| ());
    guest.setup(|_| ());
    assert_eq!(failed(&mut guest), (Header::SANDBOX, Errno::BUSY.0), "set up twice");
    guest.send(Kind::Exec, 0, &[]);
    assert_eq!(failed(&mut guest), (0, Errno::PROTO.0), "no argument");
    guest.exec(1, &["true"], |_| ());
    assert_eq!(failed(&mut guest), (1, Errno::SRCH.0), "a second process before the first");
    guest.send(Kind::Start, 9, &[]);
    guest.send(Kind::Data, 9, b"for nobody");
    guest.send(Kind::Signal, 9, &15u32.to_le_bytes());
    assert_eq!(guest.run(0, &["hello"]).stdout, "hello, world\n");
}

#[test]
fn a_root_that_cannot_be_mounted_is_named() {
    let Some(mut guest) = Guest::boot() else { return };
    let mut writer = Writer::new(Vec::new());
    writer.text(Tag::RootDevice, b"/dev/nope");
    writer.text(Tag::RootType, b"erofs");
    guest.send(Kind::Setup, Header::SANDBOX, &writer.finish());
    let (header, payload) = guest.frame();
    assert_eq!(header.process, Header::SANDBOX);
    assert_eq!(failure(&payload).1, "mount /dev/nope");
}

#[test]
fn a_mount_that_fails_is_named() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.setup(|writer| writer.field(Tag::Mount, &[&[0; 8], b"none\0/mnt\0nofs\0\0"]));
    guest.exec(0, &["true"], |_| ());
    assert_eq!(guest.outcome(0).failed, Some((Errno::NODEV.0, "mount /mnt".into())));
}

#[test]
fn the_guest_goes_down_with_its_host() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["sleep", "1000"], |_| ());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Started);
    guest.hang_up();
    guest.gone();
}

#[test]
fn bytes_that_are_no_frame_take_the_guest_down() {
    for bytes in [
        &[0u8; 8][..],
        &[255; 64],
        &Header::new(Kind::Ready, 0, 0).encode(),
        &Header::new(Kind::Signal, 0, 0).encode(),
    ] {
        let Some(mut guest) = Guest::boot() else { return };
        guest.bytes(bytes);
        guest.gone();
    }
}

#[test]
fn it_refuses_to_be_anything_but_pid_1() {
    let elf = freestanding::build::for_test(
        "guest-init",
        "guest-init",
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")),
    );
    let elf = elf.unwrap();
    assert!(std::fs::metadata(&elf).unwrap().len() < 64 * 1024);
    let output = std::process::Command::new(elf).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"guest-init: runs as PID 1 of a guest only\n");
}

#[test]
fn a_process_that_is_awaited_says_when_it_is_prepared_and_runs_what_start_says() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["hello"], |writer| writer.text(Tag::Cwd, b"/tmp"));
    guest.send(Kind::Await, 0, &[]);
    let (header, _) = guest.frame();
    assert_eq!((header.kind, header.process), (Kind::Prepared, 0));
    // As much as makes the payload more than a pipe holds: it comes in parts.
    let long = format!("LONG={}", "x".repeat(100_000));
    let mut writer = Writer::new(Vec::new());
    for arg in [&b"sh"[..], b"-c", b"pwd; echo $GREETING; echo $LONG | wc -c"] {
        writer.text(Tag::Arg, arg);
    }
    writer.text(Tag::Env, long.as_bytes());
    writer.text(Tag::Env, b"GREETING=hi");
    writer.text(Tag::Env, b"PATH=/bin");
    guest.send(Kind::Start, 0, &writer.finish());
    let outcome = guest.outcome(0);
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("/tmp\nhi\n100001\n", Some(0)), "{outcome:?}");
}

#[test]
fn a_renewed_guest_has_another_name() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    let mut writer = Writer::new(Vec::new());
    writer.field(Tag::Seed, &[&[7; 64]]);
    writer.text(Tag::HostName, b"another");
    guest.send(Kind::Renew, Header::SANDBOX, &writer.finish());
    assert_eq!(guest.run(0, &["hostname"]).stdout, "another\n");
}

#[test]
fn a_start_or_a_renewal_that_makes_no_sense_is_told() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["hello"], |_| ());
    guest.send(Kind::Start, 0, &[1, 2, 3]);
    assert_eq!(guest.outcome(0).failed, Some((Errno::PROTO.0, "read Exec".into())));
    guest.send(Kind::Renew, Header::SANDBOX, &[Tag::Arg as u8, 0, 0, 0, 0]);
    let (header, payload) = guest.frame();
    assert_eq!((header.kind, header.process), (Kind::Failed, Header::SANDBOX));
    assert_eq!(failure(&payload), (Errno::PROTO.0, "read Renew".into()));
}

#[test]
fn a_sandbox_has_a_loopback_and_files_of_its_own() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.setup(|writer| {
        writer.field(Tag::File, &[b"/etc/hosts\0", b"10.213.0.2\tweb\n"]);
        writer.field(Tag::File, &[b"/etc/resolv.conf\0", b"nameserver 10.213.0.1\n"]);
    });
    let outcome =
        guest.run(0, &["cat", "/etc/hosts", "/etc/resolv.conf", "/proc/net/route", "/proc/net/if_inet6"]);
    assert!(outcome.stdout.starts_with("10.213.0.2\tweb\nnameserver 10.213.0.1\n"), "{outcome:?}");
}

#[test]
fn a_card_that_is_not_there_is_told() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.setup(|writer| {
        writer.field(Tag::Interface, &[&[2, 0, 0, 0, 0, 7, 10, 213, 0, 2, 24, 10, 213, 0, 1]]);
    });
    let (header, payload) = guest.frame();
    assert_eq!((header.kind, header.process), (Kind::Failed, Header::SANDBOX));
    assert_eq!(failure(&payload), (Errno::NODEV.0, "find network card eth".into()));
}

#[test]
fn the_files_of_a_renewed_guest_are_others_while_its_process_waits() {
    let Some(mut guest) = Guest::boot() else { return };
    guest.setup(|writer| writer.field(Tag::File, &[b"/etc/hosts\0old and longer"]));
    guest.exec(0, &["cat", "/etc/hosts"], |_| ());
    guest.send(Kind::Await, 0, &[]);
    assert_eq!(guest.frame().0.kind, Kind::Prepared);
    let mut writer = Writer::new(Vec::new());
    writer.field(Tag::File, &[b"/etc/hosts\0new"]);
    guest.send(Kind::Renew, Header::SANDBOX, &writer.finish());
    guest.send(Kind::Start, 0, &[]);
    assert_eq!(guest.outcome(0).stdout, "new");
}

#[test]
fn a_process_is_held_at_its_programs_first_instruction() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["hello"], |_| ());
    guest.send(Kind::Halt, 0, &[]);
    guest.send(Kind::Start, 0, &[]);
    let mut frames = [guest.frame(), guest.frame()];
    frames.sort_by_key(|(header, _)| header.kind as u8);
    let [(started, _), (halted, told)] = frames;
    assert_eq!((started.kind, halted.kind), (Kind::Started, Kind::Halted));
    let (address, instruction) = told.split_first_chunk().expect("an address");
    assert!(u64::from_le_bytes(*address) > 0);
    let (clock, instruction) = instruction.split_first_chunk().expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!((now - 60_000_000_000..=now).contains(&u64::from_le_bytes(*clock)));
    assert!(instruction.len() == SPIN.len() && instruction != SPIN, "what belongs there");
    // It does nothing, while another process does.
    let outcome = guest.run(1, &["sh", "-c", "read x < /proc/1/stat; echo $x"]);
    assert!(outcome.stdout.contains("(hello) R"), "{outcome:?}");
    guest.send(Kind::Signal, 0, &9u32.to_le_bytes());
    let outcome = guest.outcome(0);
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("", Some(by_signal(9))));
}

#[test]
fn a_process_that_is_to_be_held_and_does_not_exist_is_told() {
    let Some(mut guest) = Guest::with_sandbox() else { return };
    guest.exec(0, &["nope"], |_| ());
    guest.send(Kind::Halt, 0, &[]);
    guest.send(Kind::Start, 0, &[]);
    let (header, payload) = guest.frame();
    assert_eq!(header.kind, Kind::Failed);
    assert_eq!(failure(&payload).0, Errno::NOENT.0);
}
