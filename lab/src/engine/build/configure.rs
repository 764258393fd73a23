//! What instructions do to an image's configuration alone.

use jiff::SignedDuration;
use parse_dockerfile::{
    Command, Flag, HealthcheckArguments, Instruction, JsonOrStringArray, UnescapedString,
};
use serde_json::{Value, json};

use super::steps::command;
use super::words::Words;
use crate::engine::Error;

/// The configuration in the making.
#[derive(Clone)]
pub(super) struct Settings {
    /// What the image's configuration has under `config`.
    pub config: Value,
    /// What text commands are handed to.
    pub shell: Vec<String>,
    /// Who made it.
    pub author: String,
    /// Whether this Dockerfile has set a command: then another entry point does not take it away.
    has_command: bool,
}

/// Instructions that no ONBUILD may have.
const NEVER: [&str; 3] = ["ONBUILD", "FROM", "MAINTAINER"];

impl Settings {
    pub fn new(config: Value) -> Self {
        let config = if config.is_object() { config } else { json!({}) };
        let shell = serde_json::from_value(config["Shell"].clone())
            .unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into()]);
        Self { config, shell, author: String::new(), has_command: false }
    }

    /// The environment's value of a name.
    pub fn variable(&self, name: &str) -> Option<String> {
        let mut env = self.config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        env.rfind(|text| text.split_once('=').is_some_and(|(own, _)| own == name))
            .and_then(|text| text.split_once('='))
            .map(|(_, value)| value.to_owned())
    }

    /// Does an instruction; false where it is not about the configuration alone.
    pub fn apply(
        &mut self,
        instruction: &Instruction<'_>,
        text: &str,
        words: Words<'_>,
    ) -> Result<bool, Error> {
        match instruction {
            Instruction::Env(step) => {
                for (name, value) in words.pairs(&step.arguments.value)? {
                    let list = array(&mut self.config["Env"]);
                    let own = |text: &str| text.split_once('=').is_some_and(|(own, _)| own == name);
                    let variable = Value::from(format!("{name}={value}"));
                    match list.iter_mut().find(|variable| variable.as_str().is_some_and(own)) {
                        Some(known) => *known = variable,
                        None => list.push(variable),
                    }
                }
            }
            Instruction::Label(step) => {
                for (name, value) in words.pairs(&step.arguments.value)? {
                    self.config["Labels"][name] = value.into();
                }
            }
            Instruction::Cmd(step) => {
                self.config["Cmd"] = json!(command(&step.arguments, &self.shell, words.escape));
                self.has_command = true;
            }
            Instruction::Entrypoint(step) => {
                self.config["Entrypoint"] = json!(command(&step.arguments, &self.shell, words.escape));
                if !self.has_command {
                    // The image's command was written for the entry point before.
                    self.config["Cmd"] = Value::Null;
                }
            }
            Instruction::Expose(step) => {
                for argument in &step.arguments {
                    for port in words.words(&argument.value)? {
                        for port in ports(&port)? {
                            self.config["ExposedPorts"][port] = json!({});
                        }
                    }
                }
            }
            Instruction::Volume(step) => {
                for path in strings(&step.arguments) {
                    let path = words.word(&path)?;
                    if path.trim().is_empty() {
                        return Err(Error::bad("VOLUME specified can not be an empty string"));
                    }
                    self.config["Volumes"][path] = json!({});
                }
            }
            Instruction::User(step) => self.config["User"] = words.word(&step.arguments.value)?.into(),
            Instruction::Stopsignal(step) => {
                let signal = words.word(&step.arguments.value)?;
                let known = signal.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-".contains(&byte));
                if signal.is_empty() || !known {
                    return Err(Error::bad(format!("Invalid signal: {signal}")));
                }
                self.config["StopSignal"] = signal.into();
            }
            Instruction::Shell(step) => {
                self.shell = step.arguments.iter().map(|word| word.value.to_string()).collect();
                self.config["Shell"] = json!(self.shell);
            }
            Instruction::Maintainer(step) => self.author = step.name.value.to_string(),
            Instruction::Healthcheck(step) => {
                self.config["Healthcheck"] = health(&step.options, &step.arguments, words)?;
            }
            Instruction::Onbuild(step) => {
                let trigger = text.get("ONBUILD".len()..).unwrap_or_default().trim();
                let keyword = trigger.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
                let here = matches!(&*step.instruction, Instruction::Run(run) if !run.here_docs.is_empty());
                if here || NEVER.contains(&keyword.as_str()) {
                    return Err(Error::bad(format!("{keyword} isn't allowed as an ONBUILD trigger")));
                }
                array(&mut self.config["OnBuild"]).push(trigger.into());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `HEALTHCHECK`, as a configuration has it.
fn health(
    options: &[Flag<'_>],
    arguments: &HealthcheckArguments<'_>,
    words: Words<'_>,
) -> Result<Value, Error> {
    let HealthcheckArguments::Cmd { arguments, .. } = arguments else {
        return Ok(json!({"Test": ["NONE"]}));
    };
    let test: Vec<String> = match arguments {
        Command::Shell(_) => {
            let text = command(arguments, &[], words.escape).concat();
            vec!["CMD-SHELL".to_owned(), text]
        }
        _ => ["CMD".to_owned()].into_iter().chain(command(arguments, &[], words.escape)).collect(),
    };
    if test.iter().skip(1).all(|word| word.trim().is_empty()) {
        return Err(Error::bad("Missing command after HEALTHCHECK CMD"));
    }
    let mut check = json!({"Test": test});
    for option in options {
        let name = &*option.name.value;
        let value =
            option.value.as_ref().map(|value| words.word(&value.value)).transpose()?.unwrap_or_default();
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => {
                let wrong = || Error::bad(format!("--retries={value}: a number of 1 or more is expected"));
                let retries: u32 = value.parse().map_err(|_| wrong())?;
                check["Retries"] = retries.into();
                continue;
            }
            other => return Err(unknown_flag("HEALTHCHECK", other, &HEALTH)),
        };
        let wrong =
            || Error::bad(format!("--{name}={value}: a duration such as 30s is expected, of 1ms or more"));
        let duration: SignedDuration = value.parse().map_err(|_| wrong())?;
        let nanos = i64::try_from(duration.as_nanos()).map_err(|_| wrong())?;
        if nanos != 0 && nanos < 1_000_000 {
            return Err(wrong());
        }
        check[key] = nanos.into();
    }
    Ok(check)
}

const HEALTH: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];

/// A flag that an instruction does not have, with the likely one.
pub(super) fn unknown_flag(instruction: &str, flag: &str, known: &[&str]) -> Error {
    let likely = super::suggest::nearest(flag, known).map(|near| format!("; did you mean --{near}?"));
    Error::bad(format!("{instruction}: unknown flag: {flag}{}", likely.unwrap_or_default()))
}

/// `80`, `80/udp`, `8000-8010`.
fn ports(text: &str) -> Result<Vec<String>, Error> {
    let wrong = || Error::bad(format!("invalid containerPort: {text}; PORT[-PORT][/PROTOCOL] is expected"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn strings(list: &JsonOrStringArray<'_, 1>) -> Vec<String> {
    let text = |word: &UnescapedString<'_>| word.value.to_string();
    match list {
        JsonOrStringArray::Json(words) => words.value.iter().map(text).collect(),
        JsonOrStringArray::String(words) => words.iter().map(text).collect(),
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

/// Applies instructions to a configuration, as `import --change` and `commit --change` have it.
pub(crate) fn apply_changes(config: Value, changes: &[String]) -> Result<Value, Error> {
    let mut settings = Settings::new(config);
    for change in changes {
        let text = format!("FROM scratch\n{change}\n");
        let parsed = parse_dockerfile::parse(&text)
            .map_err(|error| Error::bad(format!("'{change}' is no instruction of a Dockerfile: {error}")))?;
        for instruction in parsed.stages().flat_map(|stage| stage.instructions) {
            let span = super::steps::span(instruction);
            let known = settings.config.clone();
            let known = Settings::new(known);
            let words = Words { escape: '\\', value: &|name| known.variable(name) };
            if let Instruction::Workdir(step) = instruction {
                settings.config["WorkingDir"] = words.word(&step.arguments.value)?.into();
            } else if !settings.apply(instruction, &text[span], words)? {
                return Err(Error::bad(format!(
                    "'{change}' is not allowed here: it is not about the configuration"
                )));
            }
        }
    }
    Ok(settings.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(lines: &[&str]) -> Result<Value, Error> {
        apply_changes(json!({}), &lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_instruction_of_the_configuration_is_kept_as_docker_has_it() {
        let config = configured(&[
            "ENV A=1 B=\"two words\"",
            "ENV A=$B",
            "ENV C three words",
            "CMD echo $A",
            "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
            "EXPOSE 80 8000-8002/udp",
            "VOLUME [\"/data\", \"/more\"]",
            "VOLUME /a /b",
            "USER eva:users",
            "WORKDIR /srv",
            "LABEL a=1 b='x y'",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN echo hello",
        ])
        .unwrap();
        assert_eq!(config["Env"], json!(["A=two words", "B=two words", "C=three words"]));
        assert_eq!(
            config["Cmd"],
            json!(["/bin/sh", "-c", "echo $A"]),
            "set before the entry point, so it stays"
        );
        assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c"]));
        assert_eq!(
            config["ExposedPorts"],
            json!({"80/tcp": {}, "8000/udp": {}, "8001/udp": {}, "8002/udp": {}})
        );
        assert_eq!(config["Volumes"], json!({"/data": {}, "/more": {}, "/a": {}, "/b": {}}));
        assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("eva:users"), &json!("/srv")));
        assert_eq!(config["Labels"], json!({"a": "1", "b": "x y"}));
        assert_eq!(
            (&config["StopSignal"], &config["OnBuild"]),
            (&json!("SIGINT"), &json!(["RUN echo hello"]))
        );
    }

    #[test]
    fn health_checks_have_all_forms() {
        let check = |line| configured(&[line]).map(|config| config["Healthcheck"].clone());
        assert_eq!(check("HEALTHCHECK NONE").unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(
            check("HEALTHCHECK --interval=1m30s --timeout=3s --retries=5 CMD curl -f http://localhost/ || exit 1").unwrap(),
            json!({"Test": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"], "Interval": 90_000_000_000_i64,
                   "Timeout": 3_000_000_000_i64, "Retries": 5})
        );
        assert_eq!(
            check("HEALTHCHECK CMD [\"true\", \"x\"]").unwrap(),
            json!({"Test": ["CMD", "true", "x"]})
        );
        assert_eq!(
            check("HEALTHCHECK --start-period=0s CMD [\"true\"]").unwrap(),
            json!({"Test": ["CMD", "true"], "StartPeriod": 0})
        );
        for line in [
            "HEALTHCHECK --interval=1 CMD x",
            "HEALTHCHECK --retries=x CMD x",
            "HEALTHCHECK --intervall=1s CMD x",
        ] {
            assert!(check(line).is_err(), "{line}");
        }
        assert!(
            check("HEALTHCHECK --intervall=1s CMD x")
                .unwrap_err()
                .to_string()
                .contains("did you mean --interval")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "ENV A",
            "EXPOSE x",
            "EXPOSE 9-8",
            "EXPOSE 80/fly",
            "ONBUILD FROM x",
            "RUN true",
            "NONSENSE",
            "STOPSIGNAL a b",
        ] {
            assert!(configured(&[line]).is_err(), "{line}");
        }
    }
}
