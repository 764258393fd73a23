//! The session against a guest that the test plays, on the other end of a socket pair.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use guest_wire::{Field, Fields, Header, Kind, MAX_DATA, Stream, Tag, VERSION, WINDOW};
use lab_clock::{Mark, Timeline};

use super::{AgentError, Exit, Halted, RootDevice, Session, Stdio, flatten};
use crate::network::{Interface, Link, Network};
use crate::spec::{Process, Spec};

const ROOT: RootDevice<'_> = RootDevice::Disk { device: "/dev/vda", fs_type: "erofs" };

/// The guest's end. It speaks when the test says so.
struct Guest(UnixStream);

impl Guest {
    fn say(&mut self, kind: Kind, stream: Stream, process: u16, payload: &[u8]) {
        let header = Header { stream, ..Header::new(kind, process, payload.len() as u32) };
        self.0.write_all(&[&header.encode()[..], payload].concat()).unwrap();
    }

    fn ready(&mut self) {
        self.say(Kind::Ready, Stream::Input, Header::SANDBOX, &VERSION.to_le_bytes());
    }

    fn hear(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; Header::SIZE];
        self.0.read_exact(&mut header).unwrap();
        let header = Header::decode(header).unwrap();
        let mut payload = vec![0; header.len as usize];
        self.0.read_exact(&mut payload).unwrap();
        (header, payload)
    }

    fn expect(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let (header, payload) = self.hear();
        assert_eq!(header.kind, kind);
        (header, payload)
    }

    fn exit(&mut self, process: u16, status: u32) {
        self.say(Kind::Exited, Stream::Input, process, &status.to_le_bytes());
    }
}

/// The host's ends of a process's streams.
struct Ends {
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
}

fn streams() -> (Stdio, Ends) {
    let pair = || UnixStream::pair().unwrap();
    let ((stdin, a), (stdout, b), (stderr, c)) = (pair(), pair(), pair());
    let fds = Stdio::Fds { stdin: a.into(), stdout: b.into(), stderr: c.into() };
    (fds, Ends { stdin, stdout, stderr })
}

fn session() -> (Session, Guest) {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (Session::new(OwnedFd::from(host), None).unwrap(), Guest(guest))
}

fn process(args: &[&str]) -> Process {
    Process { args: args.iter().map(ToString::to_string).collect(), ..Process::default() }
}

/// A session with one process that runs.
fn running() -> (Session, Guest, Ends) {
    let (session, mut guest) = session();
    guest.ready();
    let (stdio, ends) = streams();
    let id = session.exec(&process(&["hello"]), stdio).unwrap();
    guest.expect(Kind::Exec);
    guest.0.write_all(&[]).unwrap();
    let mut started = Guest(guest.0.try_clone().unwrap());
    let answer = std::thread::spawn(move || {
        started.expect(Kind::Start);
        started.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
    });
    session.start(id).unwrap();
    answer.join().unwrap();
    (session, guest, ends)
}

/// Why the session ended, as its process learns it.
fn end(session: &Session) -> AgentError {
    session.wait(0).unwrap_err()
}

fn fields(payload: &[u8]) -> Vec<(Tag, Vec<u8>)> {
    let mut fields = Fields::new(payload);
    let list = fields.by_ref().map(|Field { tag, bytes }| (tag, bytes.to_vec())).collect();
    assert!(fields.is_done(), "every field is whole");
    list
}

#[test]
fn nothing_is_said_before_the_guest_is_ready_and_then_all_in_order() {
    let (session, mut guest) = session();
    let timeout = session.wait_ready(Duration::from_millis(1)).unwrap_err();
    assert_eq!(timeout, AgentError::Silent { seconds: 0 });
    session.set_up(&Spec::default(), &ROOT, &Network::default()).unwrap();
    session.exec(&process(&["hello"]), streams().0).unwrap();
    guest.0.set_nonblocking(true).unwrap();
    assert!(guest.0.read(&mut [0]).is_err(), "not a byte yet");
    guest.0.set_nonblocking(false).unwrap();
    guest.ready();
    session.wait_ready(Duration::from_secs(20)).unwrap();
    assert_eq!(guest.expect(Kind::Setup).0.process, Header::SANDBOX);
    assert_eq!(guest.expect(Kind::Exec).0.process, 0);
    session.signal(0, 15).unwrap();
    assert_eq!(guest.expect(Kind::Signal).1, 15u32.to_le_bytes());
    session.resize(0, 24, 80).unwrap();
    assert_eq!(guest.expect(Kind::Resize).1, [24, 0, 80, 0]);
    session.power_off().unwrap();
    guest.expect(Kind::PowerOff);
}

#[test]
fn output_errors_and_exit_code_reach_the_host_and_their_moments_the_timeline() {
    let timeline = Arc::new(Timeline::new().unwrap());
    let (host, guest) = UnixStream::pair().unwrap();
    let session = Session::new(host.into(), Some(timeline.clone())).unwrap();
    let mut guest = Guest(guest);
    let (stdio, mut ends) = streams();
    let id = session.exec(&process(&["hello"]), stdio).unwrap();
    guest.ready();
    let script = std::thread::spawn(move || {
        guest.expect(Kind::Exec);
        guest.expect(Kind::Start);
        guest.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
        guest.say(Kind::Data, Stream::Output, 0, b"out");
        guest.say(Kind::Data, Stream::Error, 0, b"err");
        guest.say(Kind::Closed, Stream::Output, 0, &[]);
        guest.say(Kind::Closed, Stream::Error, 0, &[]);
        guest.exit(0, 42);
        guest
    });
    session.start(id).unwrap();
    assert_eq!(session.wait(id), Ok(Exit::Code(42)));
    assert_eq!(session.exit_fd(id).unwrap().read().unwrap(), 1);
    let mut text = String::new();
    ends.stdout.read_to_string(&mut text).unwrap();
    ends.stderr.read_to_string(&mut text).unwrap();
    assert_eq!(text, "outerr");
    let marks = timeline.marks().into_iter().map(|(mark, _)| mark).collect::<Vec<_>>();
    assert_eq!(marks, [Mark::AgentReady, Mark::Executed, Mark::FirstByte, Mark::Exited]);
    script.join().unwrap();
}

#[test]
fn a_signals_death_is_told_from_an_exit_code() {
    let (session, mut guest, _ends) = running();
    guest.exit(0, 1 << 31 | (128 + 9));
    assert_eq!(session.wait(0), Ok(Exit::Signal(9)));
}

#[test]
fn input_is_sent_within_the_window_and_its_end_is_told() {
    let (_session, mut guest, mut ends) = running();
    ends.stdin.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut got = 0;
    // The host offers more than the window; the guest takes none of it, and gets the window and no more.
    while got < WINDOW as usize {
        if let Ok(bytes) = ends.stdin.write(&[7; 8192]) {
            sent += bytes;
        }
        let (header, payload) = guest.expect(Kind::Data);
        assert_eq!((header.stream, header.process), (Stream::Input, 0));
        got += payload.len();
    }
    assert_eq!(got, WINDOW as usize);
    while sent < WINDOW as usize + 100 {
        sent += ends.stdin.write(&[7; 1000]).unwrap();
    }
    drop(ends.stdin);
    guest.say(Kind::Credit, Stream::Input, 0, &WINDOW.to_le_bytes());
    while got < sent {
        got += guest.expect(Kind::Data).1.len();
    }
    assert_eq!(guest.expect(Kind::Closed).0.stream, Stream::Input);
}

#[test]
fn a_reader_that_waits_stops_the_guest_but_not_the_signals() {
    let (session, mut guest, mut ends) = running();
    for _ in 0..WINDOW / MAX_DATA {
        guest.say(Kind::Data, Stream::Output, 0, &[b'y'; MAX_DATA as usize]);
    }
    // Half the window passed on gives half the window back. (The socket to the reader takes that much by itself.)
    let mut credit = u32::from_le_bytes(guest.expect(Kind::Credit).1.try_into().unwrap());
    assert_eq!(credit, WINDOW / 2);
    session.signal(0, 2).unwrap();
    let mut signalled = false;
    let mut got = 0;
    let mut buffer = vec![0; WINDOW as usize];
    while got < WINDOW as usize {
        got += ends.stdout.read(&mut buffer).unwrap();
    }
    while !signalled || credit < WINDOW {
        let (header, payload) = guest.hear();
        match header.kind {
            Kind::Signal => signalled = true,
            _ => credit += u32::from_le_bytes(payload.try_into().unwrap()),
        }
    }
    assert_eq!(credit, WINDOW);
}

#[test]
fn when_the_reader_goes_away_the_guest_is_told_and_what_it_still_sends_is_dropped() {
    let (session, mut guest, ends) = running();
    drop(ends.stdout);
    guest.say(Kind::Data, Stream::Output, 0, b"y\n");
    let (header, _) = guest.expect(Kind::Closed);
    assert_eq!(header.stream, Stream::Output);
    for _ in 0..3 {
        guest.say(Kind::Data, Stream::Output, 0, &[b'y'; MAX_DATA as usize]);
    }
    guest.exit(0, 1 << 31 | (128 + 13));
    assert_eq!(session.wait(0), Ok(Exit::Signal(13)));
}

#[test]
fn several_processes_run_side_by_side() {
    let (session, mut guest, mut first) = running();
    let (stdio, mut second) = streams();
    let id = session.exec(&process(&["date"]), stdio).unwrap();
    assert_eq!(guest.expect(Kind::Exec).0.process, id);
    let mut answer = Guest(guest.0.try_clone().unwrap());
    let script = std::thread::spawn(move || {
        assert_eq!(answer.expect(Kind::Start).0.process, 1);
        answer.say(Kind::Started, Stream::Input, 1, &2u32.to_le_bytes());
        answer.say(Kind::Data, Stream::Output, 0, b"one");
        answer.say(Kind::Data, Stream::Output, 1, b"two");
        answer.exit(1, 0);
    });
    session.start(id).unwrap();
    assert_eq!(session.wait(id), Ok(Exit::Code(0)));
    script.join().unwrap();
    assert_eq!(session.try_wait(0), None);
    let mut text = String::new();
    second.stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two");
    let mut bytes = [0; 3];
    first.stdout.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
}

#[test]
fn a_command_that_cannot_be_executed_has_the_exit_code_that_docker_gives() {
    for (errno, step, code, text) in [
        (
            2i32,
            "execve hello",
            127,
            "exec \"hello\": executable file not found in $PATH or root file system (no such file or directory)",
        ),
        (
            13,
            "execve hello",
            126,
            "exec \"hello\": permission denied; is it a file, executable for process.user, and its mount not noexec?",
        ),
        (
            8,
            "execve hello",
            126,
            "exec \"hello\": exec format error; it is no program for this machine, or a script without #! line",
        ),
        (2, "chdir /nowhere", 125, "chdir /nowhere"),
    ] {
        let (session, mut guest) = session();
        guest.ready();
        let id = session.exec(&process(&["hello"]), streams().0).unwrap();
        guest.expect(Kind::Exec);
        guest.say(Kind::Failed, Stream::Input, id, &[&errno.to_le_bytes(), step.as_bytes()].concat());
        let error = session.start(id).unwrap_err();
        assert_eq!(error.exit_code(), code);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(session.wait(id), Err(error));
    }
}

#[test]
fn a_sandbox_that_cannot_be_set_up_ends_the_session_and_its_processes() {
    let (session, mut guest, _ends) = running();
    let payload = [&19i32.to_le_bytes()[..], b"mount /dev/vda (squashfs)\x1b[31m"].concat();
    guest.say(Kind::Failed, Stream::Input, Header::SANDBOX, &payload);
    let text = end(&session).to_string();
    assert!(text.contains("mount /dev/vda (squashfs)[31m: No such device"), "{text}");
    assert!(session.signal(0, 9).is_err());
    assert!(session.exit_fd(0).unwrap().read().is_ok());
}

#[test]
fn a_guest_that_hangs_up_ends_its_processes_after_their_last_output() {
    let (session, mut guest, mut ends) = running();
    guest.say(Kind::Data, Stream::Output, 0, b"last words");
    drop(guest);
    assert_eq!(end(&session), AgentError::HungUp);
    let mut text = String::new();
    ends.stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
}

#[test]
fn a_guest_of_another_version_is_refused() {
    let (session, mut guest) = session();
    guest.say(Kind::Ready, Stream::Input, Header::SANDBOX, &(VERSION + 1).to_le_bytes());
    let error = session.wait_ready(Duration::from_secs(20)).unwrap_err();
    assert_eq!(error, AgentError::Version { theirs: VERSION + 1, ours: VERSION });
}

#[test]
fn what_the_protocol_forbids_ends_the_session() {
    type Violation = fn(&mut Guest);
    let violations: &[(&str, Violation)] = &[
        ("no frame at all", |guest| guest.0.write_all(&[0xff; 64]).unwrap()),
        ("a second Ready", |guest| guest.ready()),
        ("a host's words", |guest| guest.say(Kind::Signal, Stream::Input, 0, &[9, 0, 0, 0])),
        ("a process there is not", |guest| guest.exit(7, 0)),
        ("Started twice", |guest| guest.say(Kind::Started, Stream::Input, 0, &[1, 0, 0, 0])),
        ("input", |guest| guest.say(Kind::Data, Stream::Input, 0, b"x")),
        ("more credit than was used", |guest| guest.say(Kind::Credit, Stream::Input, 0, &[1, 0, 0, 0])),
        ("an exit status without its bytes", |guest| guest.say(Kind::Exited, Stream::Input, 0, &[1])),
        ("an exit code of 256", |guest| guest.exit(0, 256)),
        ("a signal 0", |guest| guest.exit(0, 1 << 31 | 128)),
        ("a failure without errno", |guest| guest.say(Kind::Failed, Stream::Input, Header::SANDBOX, &[1])),
        ("a report of a megabyte", |guest| {
            let header = Header::new(Kind::Failed, Header::SANDBOX, 1 << 20);
            guest.0.write_all(&header.encode()).unwrap();
        }),
        ("more output than the window", |guest| {
            // Whatever the reader has taken, the credit for it was not waited for.
            for _ in 0..64 {
                let header = Header { stream: Stream::Output, ..Header::new(Kind::Data, 0, MAX_DATA) };
                let frame = [&header.encode()[..], &[0; MAX_DATA as usize]].concat();
                if guest.0.write_all(&frame).is_err() {
                    break;
                }
            }
        }),
        ("output after its end", |guest| {
            guest.say(Kind::Closed, Stream::Output, 0, &[]);
            guest.say(Kind::Data, Stream::Output, 0, b"x");
        }),
    ];
    for (what, violate) in violations {
        let (session, mut guest, ends) = running();
        violate(&mut guest);
        drop(ends);
        let reason = end(&session);
        assert!(matches!(reason, AgentError::Protocol { .. }), "{what}: {reason}");
    }
}

#[test]
fn setup_says_what_a_guest_needs_of_a_configuration() {
    let spec: Spec = serde_json::from_str(
        r#"{
            "ociVersion": "1.0.2", "hostname": "box", "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
            ],
            "linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
                      "sysctl": {"net.ipv4.ip_forward": "1"}}
        }"#,
    )
    .unwrap();
    let fields = fields(&flatten::setup(&spec, &ROOT, &Network::default()).unwrap());
    let of =
        |tag: Tag| fields.iter().filter(|field| field.0 == tag).map(|field| &field.1[..]).collect::<Vec<_>>();
    assert_eq!(of(Tag::RootDevice), [b"/dev/vda\0"]);
    assert_eq!(of(Tag::RootType), [b"erofs\0"]);
    assert_eq!(of(Tag::RootReadOnly), [b""]);
    assert_eq!(of(Tag::HostName), [b"box\0"]);
    assert_eq!(of(Tag::MaskedPath), [b"/proc/kcore\0"]);
    assert_eq!(of(Tag::ReadOnlyPath), [b"/proc/sys\0"]);
    assert_eq!(of(Tag::Sysctl), [b"net/ipv4/ip_forward\x001\0"]);
    let mounts = of(Tag::Mount);
    assert_eq!(mounts.len(), 2, "a guest has no control groups");
    assert_eq!(&mounts[0][8..], b"proc\0/proc\0proc\0\0");
    assert_eq!(mounts[1][..8], (2u64 | 4 | 8).to_le_bytes());
    assert_eq!(&mounts[1][8..], b"shm\0/dev/shm\0tmpfs\0mode=1777,size=65536k\0");
}

#[test]
fn setup_binds_what_the_host_shares_by_its_number() {
    let spec: Spec = serde_json::from_str(
        r#"{
            "ociVersion": "1.0.2",
            "mounts": [
                {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rprivate", "ro"]},
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/etc/hosts", "source": "hosts", "options": ["bind", "nosuid"]}
            ]
        }"#,
    )
    .unwrap();
    let of = |root: &RootDevice<'_>, tag: Tag| {
        let fields = fields(&flatten::setup(&spec, root, &Network::default()).unwrap());
        fields.into_iter().filter(|field| field.0 == tag).map(|field| field.1).collect::<Vec<_>>()
    };
    let mounts = of(&ROOT, Tag::Mount);
    assert_eq!(mounts[0], [&(1u64 | 4096).to_le_bytes()[..], b"0\0/data\0bind\0\0"].concat());
    assert_eq!(mounts[2], [&(2u64 | 4096).to_le_bytes()[..], b"1\0/etc/hosts\0bind\0\0"].concat());
    assert_eq!(of(&ROOT, Tag::Shares), [b"lab\0"]);
    assert_eq!(of(&ROOT, Tag::RootWritable), [b""; 0]);
    let shared = RootDevice::Shared;
    assert_eq!(of(&shared, Tag::RootDevice), [b"root\0"]);
    assert_eq!(
        (of(&shared, Tag::RootType), of(&shared, Tag::RootWritable)),
        (vec![b"bind\0".to_vec()], vec![vec![]])
    );
}

#[test]
fn exec_says_how_the_process_runs() {
    let process: Process = serde_json::from_str(
        r#"{
            "args": ["sh", "-c", "id"], "env": ["A=b"], "cwd": "/tmp", "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1000, "gid": 100, "umask": 18, "additionalGids": [5]},
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHECKPOINT_RESTORE"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
            "noNewPrivileges": true, "oomScoreAdj": -5
        }"#,
    )
    .unwrap();
    let fields = fields(&flatten::exec(&process).unwrap());
    let of =
        |tag: Tag| fields.iter().filter(|field| field.0 == tag).map(|field| &field.1[..]).collect::<Vec<_>>();
    assert_eq!(of(Tag::Arg), [&b"sh\0"[..], b"-c\0", b"id\0"]);
    assert_eq!((of(Tag::Env), of(Tag::Cwd)), (vec![&b"A=b\0"[..]], vec![&b"/tmp\0"[..]]));
    assert_eq!(of(Tag::User), [[&1000u32.to_le_bytes()[..], &100u32.to_le_bytes()].concat()]);
    assert_eq!((of(Tag::Group), of(Tag::Umask)), (vec![&[5, 0, 0, 0][..]], vec![&[18, 0, 0, 0][..]]));
    assert_eq!(of(Tag::Terminal), [[24, 0, 80, 0]]);
    let limit = [&7u32.to_le_bytes()[..], &10u64.to_le_bytes(), &20u64.to_le_bytes()].concat();
    assert_eq!(of(Tag::Rlimit), [limit]);
    let sets = [1u64 | 1 << 5, 1 << 40, 0, 0, 0].map(u64::to_le_bytes).concat();
    assert_eq!(of(Tag::Capabilities), [sets]);
    assert_eq!(
        (of(Tag::NoNewPrivileges), of(Tag::OomScoreAdj)),
        (vec![&b""[..]], vec![&(-5i32).to_le_bytes()[..]])
    );
}

#[test]
fn what_a_guest_cannot_have_is_refused_by_name() {
    let refused = |json: &str| {
        let spec: Spec = serde_json::from_str(json).unwrap();
        flatten::setup(&spec, &ROOT, &Network::default()).unwrap_err().to_string()
    };
    let sysctl = r#"{"ociVersion": "1.0.2", "linux": {"sysctl": {"../../etc/passwd": "x"}}}"#;
    assert!(refused(sysctl).contains("../../etc/passwd"));
    let huge = process(&["x", &"y".repeat(1 << 20)]);
    assert!(flatten::exec(&huge).unwrap_err().to_string().contains("1048576"));
    assert!(flatten::exec(&process(&[])).is_err());
    assert!(flatten::exec(&process(&["a\0b"])).is_err());
}

#[test]
fn a_terminal_is_sent_over_the_console_socket_and_its_bytes_go_through_raw() {
    let (session, mut guest) = session();
    guest.ready();
    let (host, console) = UnixStream::pair().unwrap();
    let mut terminal = process(&["sh"]);
    terminal.terminal = true;
    let id = session.exec(&terminal, Stdio::Console(host)).unwrap();
    let mut master = std::fs::File::from(receive_fd(&console));
    guest.expect(Kind::Exec);
    let mut answer = Guest(guest.0.try_clone().unwrap());
    let script = std::thread::spawn(move || {
        answer.expect(Kind::Start);
        answer.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
        answer.say(Kind::Data, Stream::Output, 0, b"$ \n");
    });
    session.start(id).unwrap();
    script.join().unwrap();
    let mut bytes = [0; 3];
    master.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"$ \n", "no carriage return added");
    master.write_all(b"\x03").unwrap();
    assert_eq!(guest.expect(Kind::Data).1, b"\x03", "Ctrl-C is the guest's terminal's to read");
}

fn receive_fd(socket: &UnixStream) -> OwnedFd {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::{AsRawFd, FromRawFd};
    let mut name = [0; 64];
    let mut slices = [std::io::IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
        panic!("a descriptor comes with the message");
    };
    // SAFETY: the kernel has just installed this descriptor in this process, and nobody else knows it (unix(7)).
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

#[test]
fn a_process_is_prepared_when_the_guest_says_so() {
    let (session, mut guest) = session();
    guest.ready();
    let (stdio, _ends) = streams();
    let id = session.exec(&process(&["hello"]), stdio).unwrap();
    let answer = std::thread::spawn(move || {
        guest.expect(Kind::Exec);
        guest.expect(Kind::Await);
        guest.say(Kind::Prepared, Stream::Input, 0, &[]);
        guest
    });
    session.wait_prepared(id).unwrap();
    answer.join().unwrap();
}

#[test]
fn a_restored_guest_is_renewed_before_its_process_is_told_its_arguments() {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut guest = Guest(guest);
    let spec = Spec { hostname: Some("clone".into()), ..Spec::default() };
    let (stdio, _ends) = streams();
    let mut other = process(&["other", "words"]);
    other.env = vec!["A=1".into()];
    let (session, id) =
        Session::resume(OwnedFd::from(host), None, &spec, &Network::default(), &other, stdio).unwrap();
    let started = std::thread::spawn(move || session.start(id).map(|()| session));

    let (_, renew) = guest.expect(Kind::Renew);
    let fields: Vec<_> = Fields::new(&renew).collect();
    assert_eq!(fields[0].tag, Tag::Seed);
    assert!(fields[0].bytes.len() == 64 && fields[0].bytes != [0; 64]);
    assert_eq!(fields[1].text(), Some(c"clone"));
    assert_eq!(fields[2].tag, Tag::Time);

    let (_, start) = guest.expect(Kind::Start);
    let texts: Vec<_> = Fields::new(&start)
        .filter(|field| matches!(field.tag, Tag::Arg | Tag::Env))
        .filter_map(|field| field.text())
        .collect();
    assert_eq!(texts, [c"other", c"words", c"A=1"]);
    guest.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
    let session = started.join().unwrap().unwrap();
    guest.exit(0, 3);
    assert_eq!(session.wait(id), Ok(Exit::Code(3)));
}

#[test]
fn what_lasts_is_all_but_what_each_run_says_anew() {
    let mut spec = Spec::default();
    let mut one = process(&["one"]);
    let (setup, exec) =
        (flatten::setup(&spec, &ROOT, &Network::default()).unwrap(), flatten::exec(&one).unwrap());
    spec.hostname = Some("other".into());
    one.args = vec!["two".into(), "three".into()];
    one.env = vec!["X=y".into()];
    assert_eq!(
        flatten::lasting(&setup),
        flatten::lasting(&flatten::setup(&spec, &ROOT, &Network::default()).unwrap())
    );
    assert_eq!(flatten::lasting(&exec), flatten::lasting(&flatten::exec(&one).unwrap()));
    one.cwd = "/elsewhere".into();
    assert_ne!(flatten::lasting(&exec), flatten::lasting(&flatten::exec(&one).unwrap()));
    // Machines of one snapshot have as many cards and files, but other addresses and names.
    let networks = [7, 8].map(|last| {
        let link = Link::Stream(UnixStream::pair().unwrap().0);
        let address = Ipv4Addr::new(10, 213, 0, last);
        let mac = [2, 0, 0, 0, 0, last];
        let interfaces = vec![Interface { link, mac, mtu: 1500, address, prefix: 24, gateway: None }];
        Network { interfaces, files: vec![("/etc/hosts".into(), vec![last])] }
    });
    let [seven, eight] = networks.map(|network| flatten::setup(&spec, &ROOT, &network).unwrap());
    assert_eq!(flatten::lasting(&seven), flatten::lasting(&eight));
    assert_ne!(flatten::lasting(&seven), flatten::lasting(&setup));
    let squash = RootDevice::Disk { device: "/dev/vda", fs_type: "squashfs" };
    assert_ne!(
        flatten::lasting(&setup),
        flatten::lasting(&flatten::setup(&spec, &squash, &Network::default()).unwrap())
    );
}

#[test]
fn a_process_that_is_held_takes_no_input_until_it_goes() {
    let (session, mut guest) = session();
    guest.ready();
    let (stdio, mut ends) = streams();
    let id = session.exec(&process(&["hello"]), stdio).unwrap();
    guest.expect(Kind::Exec);
    ends.stdin.write_all(b"early").unwrap();
    let mut inside = Guest(guest.0.try_clone().unwrap());
    let answer = std::thread::spawn(move || {
        inside.expect(Kind::Halt);
        inside.expect(Kind::Start);
        let told = [&0x40_1000u64.to_le_bytes()[..], &[9, 0, 0, 0, 0, 0, 0, 0, 0x31, 0xed]].concat();
        inside.say(Kind::Halted, Stream::Input, 0, &told);
        inside.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
    });
    let halted = session.start_halted(id).unwrap();
    assert_eq!(halted, Some(Halted { address: 0x40_1000, clock: 9, instruction: [0x31, 0xed] }));
    answer.join().unwrap();
    guest.0.set_nonblocking(true).unwrap();
    assert!(guest.0.read(&mut [0]).is_err(), "not a byte yet");
    guest.0.set_nonblocking(false).unwrap();
    session.go(id).unwrap();
    assert_eq!(guest.expect(Kind::Data).1, b"early");
    guest.exit(0, 3);
    assert_eq!(session.wait(id), Ok(Exit::Code(3)));
}

#[test]
fn a_process_that_the_guest_cannot_hold_runs() {
    let (session, mut guest) = session();
    guest.ready();
    let id = session.exec(&process(&["hello"]), streams().0).unwrap();
    guest.expect(Kind::Exec);
    let answer = std::thread::spawn(move || {
        guest.expect(Kind::Halt);
        guest.expect(Kind::Start);
        guest.say(Kind::Started, Stream::Input, 0, &1u32.to_le_bytes());
        guest.say(Kind::Halted, Stream::Input, 0, &[]);
        guest.exit(0, 0);
        guest
    });
    assert_eq!(session.start_halted(id), Ok(None));
    assert_eq!(session.wait(id), Ok(Exit::Code(0)));
    drop(answer.join().unwrap());
}

#[test]
fn a_restored_command_runs_without_a_word_to_its_guest() {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut guest = Guest(guest);
    let (stdio, mut ends) = streams();
    let (session, id) = Session::resume_command(host.into(), None, &process(&["hello"]), stdio).unwrap();
    session.go(id).unwrap();
    guest.say(Kind::Data, Stream::Output, 0, b"out");
    guest.exit(0, 0);
    assert_eq!(session.wait(id), Ok(Exit::Code(0)));
    drop(session);
    let mut out = String::new();
    ends.stdout.read_to_string(&mut out).unwrap();
    assert_eq!(out, "out");
}
