//! `lab run -it`: the user's terminal and the program's, behind either wall.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{Lab, Wall, for_each_wall, image};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// No word of a program comes later, behind the slower wall.
const PATIENCE: Duration = Duration::from_secs(600);

/// A terminal as a terminal program makes one, with `lab` on it.
struct Session {
    master: File,
    terminal: File,
    lab: Child,
    words: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    fn start(wall: Wall, script: &str, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("a pseudo-terminal");
        unlockpt(&master).expect("a pseudo-terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal: File = rustix::fs::open(name, flags, Mode::empty()).expect("a terminal").into();
        let master = File::from(master);
        let session = |master: &File| master.try_clone().expect("a file");
        set_size(&master, rows, columns);

        let arguments = ["run", "--quiet", "-it", "--runtime", wall.name(), image::NAME, "sh", "-c", script];
        let stream = || session(&terminal);
        let mut command = Lab::shared().command(&arguments);
        let lab = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("lab starts");

        let (sender, words) = channel();
        let mut reader = session(&master);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, terminal, lab, words, seen: String::new() }
    }

    /// Waits until the screen shows this.
    fn expect(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let Ok(words) = self.words.recv_timeout(PATIENCE) else {
                let _ = self.lab.kill();
                panic!("no {text:?} in {:?}", self.seen);
            };
            self.seen += &String::from_utf8_lossy(&words);
        }
        let end = self.seen.find(text).unwrap_or(0) + text.len();
        self.seen.drain(..end);
    }

    fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).expect("a terminal");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).expect("a terminal").local_modes.contains(LocalModes::ICANON)
    }

    fn end(mut self) -> i32 {
        self.lab.wait().expect("a child of ours").code().unwrap_or(-1)
    }
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a terminal");
}

#[test]
fn keys_signals_and_size_reach_the_program_and_the_terminal_is_as_before() {
    for_each_wall("a session at a terminal", |wall| {
        let script = "trap 'echo interrupted' INT; trap 'echo now $(stty size)' WINCH; echo size $(stty size); \
                      read word; echo read $word; while :; do sleep 0.1; read word && break; done; exit 9";
        let mut session = Session::start(wall, script, 33, 101);
        session.expect("size 33 101");
        assert!(session.is_raw(), "{}: keys must pass unchanged", wall.name());

        session.press(b"hello\r");
        // Echoed by the program's terminal, then said by the program.
        session.expect("hello\r\n");
        session.expect("read hello\r\n");

        set_size(&session.master, 44, 99);
        kill_process(Pid::from_child(&session.lab), Signal::WINCH).expect("a child of ours");
        session.expect("now 44 99");

        session.press(&[3]);
        session.expect("interrupted");
        session.press(b"end\r");
        session.expect("end");
        let terminal = session.terminal.try_clone().expect("a file");
        assert_eq!(session.end(), 9, "{}", wall.name());
        let modes = tcgetattr(&terminal).expect("a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{}", wall.name());
    });
}

#[test]
fn the_terminal_is_as_before_when_the_program_cannot_start() {
    for_each_wall("a program that is not there", |wall| {
        let mut session = Session::start(wall, "exec /no/such/program", 24, 80);
        session.expect("/no/such/program");
        let terminal = session.terminal.try_clone().expect("a file");
        assert_eq!(session.end(), 127);
        assert!(tcgetattr(&terminal).expect("a terminal").local_modes.contains(LocalModes::ICANON));
    });
}

#[test]
fn it_without_a_terminal_says_so() {
    let output = Lab::empty().run(&["run", "-it", "box"], "");
    assert_eq!(output.code, 125);
    assert_eq!(
        output.stderr,
        "lab: error: the input device is not a terminal; leave out -t, or run it from a terminal\n"
    );
}
