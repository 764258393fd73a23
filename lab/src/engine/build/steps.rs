//! What each instruction does to the configuration, or which layer it makes.

use std::ops::Range;

use parse_dockerfile::{Command, HealthcheckArguments, Instruction, JsonOrStringArray, UnescapedString};

use super::words::Words;
use super::{Builder, Work, copy, one_line, run};
use crate::engine::Error;

/// Where an instruction stands in the text.
pub(super) fn span(instruction: &Instruction<'_>) -> Range<usize> {
    let last = |list: &[UnescapedString<'_>], begin: usize| list.last().map_or(begin, |word| word.span.end);
    let command = |command: &Command<'_>| match command {
        Command::Exec(words) => words.span.end,
        Command::Shell(text) => text.span.end,
        _ => 0,
    };
    let (begin, end) = match instruction {
        Instruction::Add(step) => (step.add.span.start, step.dest.span.end),
        Instruction::Arg(step) => (step.arg.span.start, step.arguments.span.end),
        Instruction::Cmd(step) => (step.cmd.span.start, command(&step.arguments)),
        Instruction::Copy(step) => (step.copy.span.start, step.dest.span.end),
        Instruction::Entrypoint(step) => (step.entrypoint.span.start, command(&step.arguments)),
        Instruction::Env(step) => (step.env.span.start, step.arguments.span.end),
        Instruction::Expose(step) => (step.expose.span.start, last(&step.arguments, step.expose.span.end)),
        Instruction::From(step) => (step.from.span.start, step.image.span.end),
        Instruction::Healthcheck(step) => (
            step.healthcheck.span.start,
            match &step.arguments {
                HealthcheckArguments::Cmd { arguments, .. } => command(arguments),
                HealthcheckArguments::None { none, .. } => none.span.end,
                _ => step.healthcheck.span.end,
            },
        ),
        Instruction::Label(step) => (step.label.span.start, step.arguments.span.end),
        Instruction::Maintainer(step) => (step.maintainer.span.start, step.name.span.end),
        Instruction::Onbuild(step) => (step.onbuild.span.start, span(&step.instruction).end),
        Instruction::Run(step) => {
            let here = step.here_docs.last().map_or(0, |document| document.span.end);
            (step.run.span.start, command(&step.arguments).max(here))
        }
        Instruction::Shell(step) => (step.shell.span.start, last(&step.arguments, step.shell.span.end)),
        Instruction::Stopsignal(step) => (step.stopsignal.span.start, step.arguments.span.end),
        Instruction::User(step) => (step.user.span.start, step.arguments.span.end),
        Instruction::Volume(step) => (
            step.volume.span.start,
            match &step.arguments {
                JsonOrStringArray::Json(words) => words.span.end,
                JsonOrStringArray::String(words) => last(words, step.volume.span.end),
            },
        ),
        Instruction::Workdir(step) => (step.workdir.span.start, step.arguments.span.end),
        _ => (0, 0),
    };
    begin..end.max(begin)
}

/// A command's words: as they are, or the text for the shell.
pub(super) fn command(command: &Command<'_>, shell: &[String], escape: char) -> Vec<String> {
    match command {
        Command::Exec(words) => words.value.iter().map(|word| word.value.to_string()).collect(),
        Command::Shell(text) => shell.iter().cloned().chain([joined(text.value, escape)]).collect(),
        _ => Vec::new(),
    }
}

/// Lines that the escape character joins, and comments between them, as docker hands them to the shell.
fn joined(text: &str, escape: char) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| line.trim_end().strip_suffix(escape).unwrap_or(line)).collect::<Vec<_>>().concat()
}

impl Builder<'_> {
    /// Does one instruction.
    pub(super) fn instruction(
        &mut self,
        instruction: &Instruction<'_>,
        text: &str,
        work: &mut Work,
    ) -> Result<(), Error> {
        match instruction {
            Instruction::Workdir(step) => return copy::workdir(self, work, &step.arguments.value, text),
            Instruction::Copy(step) => return copy::copy(self, work, &copy::Wish::of_copy(step)?, text),
            Instruction::Add(step) => return copy::copy(self, work, &copy::Wish::of_add(step)?, text),
            Instruction::Run(step) => return run::run(self, work, step, text),
            _ => {}
        }
        // What an instruction sets is seen from the next one on.
        let mut settings = work.settings.clone();
        let value = |name: &str| work.value(name);
        let applied = settings.apply(instruction, text, Words { escape: self.escape, value: &value })?;
        work.settings = settings;
        if !applied {
            return Err(Error::bad("an instruction that the lab does not know"));
        }
        work.pending.push(one_line(text, self.escape));
        Ok(())
    }
}
