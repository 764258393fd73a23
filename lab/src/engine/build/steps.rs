//! What each instruction does to the configuration, or which layer it makes.

use std::ops::Range;

use parse_dockerfile::{Command, HealthcheckArguments, Instruction, JsonOrStringArray, UnescapedString};
use serde_json::{Value, json};

use super::{Builder, Work, copy, run, words};
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
        Instruction::Run(step) => (step.run.span.start, command(&step.arguments)),
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
pub(super) fn command(command: &Command<'_>, shell: &[String]) -> Vec<String> {
    match command {
        Command::Exec(words) => words.value.iter().map(|word| word.value.to_string()).collect(),
        Command::Shell(text) => shell.iter().cloned().chain([joined(text.value)]).collect(),
        _ => Vec::new(),
    }
}

/// Lines that the escape character joins, and comments between them, as docker hands them to the shell.
fn joined(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| line.trim_end().strip_suffix('\\').unwrap_or(line)).collect::<Vec<_>>().concat()
}

impl Builder<'_> {
    /// Does one instruction.
    pub(super) fn instruction(
        &mut self,
        instruction: &Instruction<'_>,
        text: &str,
        work: &mut Work,
    ) -> Result<(), Error> {
        let expand = |work: &Work, text: &str| words::expand(text, &|name| work.value(name));
        match instruction {
            Instruction::Env(step) => {
                for (name, value) in words::pairs(&step.arguments.value, &|name| work.value(name)) {
                    let list = array(&mut work.config["Env"]);
                    let prefix = format!("{name}=");
                    list.retain(|variable| !variable.as_str().is_some_and(|text| text.starts_with(&prefix)));
                    list.push(format!("{name}={value}").into());
                }
            }
            Instruction::Label(step) => {
                for (name, value) in words::pairs(&step.arguments.value, &|name| work.value(name)) {
                    work.config["Labels"][name] = value.into();
                }
            }
            Instruction::Cmd(step) => work.config["Cmd"] = json!(command(&step.arguments, &work.shell)),
            Instruction::Entrypoint(step) => {
                work.config["Entrypoint"] = json!(command(&step.arguments, &work.shell));
                // The image's command was written for the entry point before.
                work.config["Cmd"] = Value::Null;
            }
            Instruction::Expose(step) => {
                let split = |port: &UnescapedString<'_>| words::split(&port.value, &|name| work.value(name));
                let ports: Vec<String> = step.arguments.iter().flat_map(split).collect();
                for port in ports {
                    let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                    work.config["ExposedPorts"][port] = json!({});
                }
            }
            Instruction::Volume(step) => {
                let list: Vec<String> = match &step.arguments {
                    JsonOrStringArray::Json(words) => {
                        words.value.iter().map(|word| word.value.to_string()).collect()
                    }
                    JsonOrStringArray::String(words) => {
                        words.iter().map(|word| word.value.to_string()).collect()
                    }
                };
                for path in list {
                    let path = expand(work, &path);
                    work.config["Volumes"][path] = json!({});
                }
            }
            Instruction::User(step) => work.config["User"] = expand(work, &step.arguments.value).into(),
            Instruction::Stopsignal(step) => {
                work.config["StopSignal"] = expand(work, &step.arguments.value).into();
            }
            Instruction::Shell(step) => {
                work.shell = step.arguments.iter().map(|word| word.value.to_string()).collect();
                work.config["Shell"] = json!(work.shell);
            }
            Instruction::Workdir(step) => return copy::workdir(self, work, &step.arguments.value, text),
            Instruction::Copy(step) => return copy::copy(self, work, &copy::Wish::of_copy(step), text),
            Instruction::Add(step) => return copy::copy(self, work, &copy::Wish::of_add(step), text),
            Instruction::Run(step) => return run::run(self, work, step, text),
            Instruction::Maintainer(step) => {
                work.config["Labels"]["maintainer"] = step.name.value.to_string().into();
            }
            Instruction::Onbuild(step) => {
                let refused = match &*step.instruction {
                    Instruction::Onbuild(_) | Instruction::From(_) | Instruction::Maintainer(_) => true,
                    Instruction::Run(run) => !run.here_docs.is_empty(),
                    _ => false,
                };
                let trigger = text.get("ONBUILD".len()..).unwrap_or_default().trim();
                if refused {
                    return Err(Error::bad(format!("ONBUILD {trigger}: this cannot be a trigger")));
                }
                array(&mut work.config["OnBuild"]).push(trigger.into());
            }
            Instruction::Healthcheck(_) => {
                let name = text.split_whitespace().next().unwrap_or_default();
                return Err(Error::bad(format!("{name} is not supported by the lab yet; leave it out")));
            }
            _ => return Err(Error::bad("an instruction that the lab does not know")),
        }
        work.pending.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
        Ok(())
    }
}

fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it has just been made one"),
    }
}
