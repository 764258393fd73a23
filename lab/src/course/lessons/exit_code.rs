//! Three machines that end in three ways, served by the student's program.

use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::machine::{Exit, Machine};
use super::super::sandbox::Ended;
use super::{Answer, Cause, Seen, room, secret, tell};

const CODE: u64 = 0x1000;
const PORT: u8 = 0xf4;
/// What a machine that failed ends with.
const FAILED: u8 = 255;
/// So often may a program say "go on" to a guest that has halted for good.
const PATIENCE: u32 = 3;

/// Runs three guests.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let code = secret(1..200) as u8;
    // Two other ports first: not every write is the end.
    let says = [0xb0, 7, 0xe6, 0x80, 0xe6, 0xf5, 0xb0, code, 0xe6, PORT, 0xf4];
    // An interrupt table of no length, then an instruction that does not exist: fault, double fault, triple fault.
    let faults = [0x0f, 0x01, 0x1e, 0x00, 0x20, 0x0f, 0x0b];
    let halts = [0xfa, 0xf4]; // cli; hlt
    let mut judge = |check, guest: &[u8], wanted: u8, name| -> Result<(), Error> {
        let (answer, ended) = run(program, guest)?;
        let right = answer == Some(Answer::Stop(wanted)) && ended.code == wanted;
        let cause = || {
            let answer = answer.map_or("–".to_owned(), |answer| format!("{answer:?}"));
            let cause = Cause::new(name).fact("expected", wanted).fact("answer", answer);
            cause.fact("code", ended.code).fact("output", &ended.output)
        };
        seen.judge(check, (!right).then(cause));
        Ok(())
    };
    judge("code", &says, code, "code-wrong")?;
    judge("triple-fault", &faults, FAILED, "fault-as-success")?;
    judge("halt", &halts, FAILED, "halt-forever")?;
    Ok(seen)
}

/// Runs one guest to its end; returns the program's last answer.
fn run(program: &Path, guest: &[u8]) -> Result<(Option<Answer>, Ended), Error> {
    let mut live = room(program)?.start()?;
    live.say("\n");
    live.listen();
    let mut machine = Machine::new(None)?;
    machine.write(CODE, guest)?;
    let mut answer = machine.set_real_mode(CODE).is_ok().then_some(Answer::Go);
    let mut ends = 0;
    while ends < PATIENCE && matches!(answer, Some(Answer::Go | Answer::Value(_))) {
        let exit = machine.run(|_| 0xff);
        answer = match exit {
            Exit::Out(port, byte) => tell(&mut live, &format!("out {port} {byte}")),
            Exit::In(port) => tell(&mut live, &format!("in {port}")),
            Exit::Halt => {
                ends += 1;
                tell(&mut live, "halt")
            }
            // It cannot go on, whatever the program says. (Where KVM interprets, a triple fault is seen as running on and on.)
            _ => {
                ends = PATIENCE;
                tell(&mut live, "shutdown")
            }
        };
    }
    Ok((answer, live.finish()?))
}
