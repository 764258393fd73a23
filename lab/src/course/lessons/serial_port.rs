//! A guest that talks to a serial port, which is the student's program.

use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::machine::{Exit, Machine};
use super::{Answer, Cause, Seen, room, secret, tell, unseen};

const LINE_STATUS: u16 = 0x3fd;

/// Where the guest's program and its text lie.
const CODE: u64 = 0x1000;
const TEXT: u64 = 0x1100;

/// The port on which the guest reports what it read from the scratch register.
const REPORT: u16 = 0x80;

/// A driver that has read the status so often has given up.
const PATIENCE: u32 = 500;

/// Writes the scratch register, reports what it reads back, then sends the text up to its NUL, each byte once the line is ready.
fn guest(scratch: u8) -> Vec<u8> {
    let mut code = vec![
        0xba,
        0xff,
        0x03, // mov dx, 0x3ff
        0xb0,
        scratch,
        0xee, // mov al, scratch; out dx, al
        0x30,
        0xc0,
        0xec, // xor al, al; in al, dx
        0xe6,
        REPORT as u8, // out REPORT, al
    ];
    code.extend([
        0xbe, 0x00, 0x11, // mov si, TEXT
        0x8a, 0x04, 0x46, // next: mov al, [si]; inc si
        0x84, 0xc0, 0x74, 0x12, // test al, al; jz done
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, LINE_STATUS
        0xec, 0xa8, 0x20, 0x74, 0xfb, // wait: in al, dx; test al, 0x20; jz wait
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x88, 0xe0, 0xee, // mov al, ah; out dx, al
        0xeb, 0xe7, // jmp next
        0xf4, // done: hlt
    ]);
    code
}

/// Runs the guest; its exits are the student's to serve.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let mut live = room(program)?.start()?;
    live.say("\n");
    live.listen();
    let scratch = secret(1..255) as u8;
    let text = format!("guest {} says hello", secret(1_000_000..10_000_000));
    let mut machine = Machine::new(None)?;
    machine.write(CODE, &guest(scratch))?;
    machine.write(TEXT, text.as_bytes())?;
    let mut seen = Seen::default();
    let mut exit = match machine.set_real_mode(CODE) {
        Ok(()) => Exit::In(0),
        Err(refused) => Exit::Other(refused),
    };
    let (mut read_back, mut waits, mut answer) = (None, 0, Some(Answer::Go));
    while waits < PATIENCE && answer == Some(Answer::Go) && !matches!(exit, Exit::Other(_) | Exit::Endless) {
        let mut value = None;
        exit = machine.run(|port| {
            value = tell(&mut live, &format!("in {port}"));
            match value {
                Some(Answer::Value(byte)) => byte,
                _ => 0xff,
            }
        });
        answer = match exit {
            Exit::In(port) => {
                waits = if port == LINE_STATUS { waits + 1 } else { 0 };
                value.map(|_| Answer::Go)
            }
            Exit::Out(port, byte) => {
                waits = 0;
                if port == REPORT {
                    read_back = Some(byte);
                }
                tell(&mut live, &format!("out {port} {byte}")).map(|_| Answer::Go)
            }
            Exit::Halt => tell(&mut live, "halt"),
            _ => tell(&mut live, "shutdown"),
        };
        if exit == Exit::Halt {
            break;
        }
    }
    let ended = live.finish()?;
    seen.judge(
        "serves",
        answer.is_none().then(|| unseen(&ended, "no-answer").fact("exit", format!("{exit:?}"))),
    );
    if let Some(read) = read_back {
        let cause =
            Cause::new("scratch-lost").address("written", scratch.into()).address("read", read.into());
        seen.judge("scratch", (read != scratch).then_some(cause));
    }
    let stuck = waits >= PATIENCE;
    seen.judge("ready", stuck.then(|| Cause::new("never-ready").fact("reads", waits)));
    let cause = Cause::new("text-lost").fact("text", &text).fact("output", &ended.output);
    seen.judge("console", (!ended.output.contains(&text)).then_some(cause));
    let stopped = exit == Exit::Halt && answer == Some(Answer::Stop(0));
    let cause = Cause::new("not-stopped").fact("answer", answer.map_or("–".to_owned(), |a| format!("{a:?}")));
    seen.judge("stops", (!stopped).then_some(cause));
    seen.output = ended.output;
    Ok(seen)
}
