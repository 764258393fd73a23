//! Reading the command line. Options stand before or after names, as `--option value` or `--option=value`.
//!
//! `lexopt` splits words into options and values and leaves the rest to a `match` in each command, beside that command's
//! help. `clap`, which the rest of the lab uses, would be a fifth of this program and a tenth of its start.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use super::Failure;

/// One word of the command line.
#[derive(Debug)]
pub(super) enum Word {
    /// "--name" or "-n".
    Option(String),
    /// Anything else.
    Name(String),
}

/// The words that are left.
#[derive(Debug)]
pub(super) struct Arguments {
    parser: lexopt::Parser,
    /// The option that was read last, for messages.
    option: String,
    help: &'static str,
}

impl Arguments {
    pub(super) fn new(parser: lexopt::Parser, help: &'static str) -> Self {
        Self { parser, option: String::new(), help }
    }

    /// From here on another command's help is the right one.
    pub(super) fn for_command(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// The next word; none at the end. `--help` is answered here and ends the program.
    pub(super) fn next(&mut self) -> Result<Option<Word>, Failure> {
        use lexopt::Arg::{Long, Short, Value};
        let option = match self.parser.next().map_err(|error| usage(&error))? {
            None => return Ok(None),
            Some(Value(value)) => return text(value).map(Word::Name).map(Some),
            Some(Long("help") | Short('h')) => {
                println!("{}", self.help);
                std::process::exit(0);
            }
            Some(Long(name)) => format!("--{name}"),
            Some(Short(name)) => format!("-{name}"),
        };
        self.option.clone_from(&option);
        Ok(Some(Word::Option(option)))
    }

    /// An option that is on when it is there: alone, or with `=true` or `=false` as Go's programs take it.
    pub(super) fn flag(&mut self) -> Result<bool, Failure> {
        match self.parser.optional_value().map(text).transpose()?.as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => {
                Err(Failure::new(format!("{} {other}: give true or false, or nothing", self.option)))
            }
        }
    }

    /// The option's value, as text.
    pub(super) fn text(&mut self) -> Result<String, Failure> {
        text(self.parser.value().map_err(|error| usage(&error))?)
    }

    /// The option's value, as a path.
    pub(super) fn path(&mut self) -> Result<PathBuf, Failure> {
        Ok(self.parser.value().map_err(|error| usage(&error))?.into())
    }

    /// The option's value, as a number.
    pub(super) fn number<T: FromStr>(&mut self) -> Result<T, Failure> {
        let text = self.text()?;
        text.parse().map_err(|_| Failure::new(format!("{} {text}: give a whole number", self.option)))
    }

    /// The value of an option that may stand without one.
    pub(super) fn optional(&mut self, values: &[&str]) -> Result<Option<String>, Failure> {
        if let Some(value) = self.parser.optional_value() {
            return text(value).map(Some);
        }
        let Ok(mut words) = self.parser.raw_args() else { return Ok(None) };
        let known = words.peek().and_then(|word| word.to_str()).filter(|word| values.contains(word));
        Ok(known.map(str::to_owned).inspect(|_| drop(words.next())))
    }

    /// All words that are left, as they are: another program's.
    pub(super) fn rest(&mut self) -> Result<Vec<String>, Failure> {
        self.parser.raw_args().map_err(|error| usage(&error))?.map(text).collect()
    }
}

/// No such option.
pub(super) fn unknown<T>(option: &str) -> Result<T, Failure> {
    Err(Failure::new(format!("there is no option {option} here; --help lists those there are")))
}

/// A name where there was none.
pub(super) fn set(name: &mut Option<String>, value: String) -> Result<(), Failure> {
    if name.is_some() {
        return Err(Failure::new(format!("one word too many: {value:?}; see --help")));
    }
    *name = Some(value);
    Ok(())
}

/// What must be there.
pub(super) fn needed(name: Option<String>) -> Result<String, Failure> {
    name.ok_or_else(|| Failure::new("the container's id is missing; see --help"))
}

/// The words of a command that takes nothing but a container's id.
pub(super) fn only_id(mut arguments: Arguments) -> Result<String, Failure> {
    let mut id = None;
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(name) => set(&mut id, name)?,
            Word::Option(option) => return unknown(&option),
        }
    }
    needed(id)
}

fn text(value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|value| Failure::new(format!("{} is not UTF-8", value.display())))
}

fn usage(error: &lexopt::Error) -> Failure {
    Failure::new(format!("{error}; see --help"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::new(lexopt::Parser::from_args(words), "")
    }

    #[test]
    fn an_option_may_stand_with_or_without_its_value() {
        for (words, value) in [
            (&["--rootless=false", "x"][..], Some("false")),
            (&["--rootless", "true", "x"], Some("true")),
            (&["--rootless", "x"], None),
        ] {
            let mut arguments = arguments(words);
            assert!(matches!(arguments.next(), Ok(Some(Word::Option(_)))));
            assert_eq!(arguments.optional(&["true", "false"]).unwrap().as_deref(), value);
            assert!(matches!(arguments.next(), Ok(Some(Word::Name(name))) if name == "x"));
        }
    }

    #[test]
    fn a_flag_may_have_a_value() {
        for (word, value) in [("--all", Some(true)), ("--all=false", Some(false)), ("--all=x", None)] {
            let mut arguments = arguments(&[word]);
            arguments.next().unwrap();
            assert_eq!(arguments.flag().ok(), value, "{word}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_minus() {
        let mut arguments = arguments(&["--memory", "-1"]);
        arguments.next().unwrap();
        assert_eq!(arguments.number::<i64>().unwrap(), -1);
    }

    #[test]
    fn one_word_too_many_is_an_error() {
        assert!(only_id(arguments(&["a", "b"])).is_err() && only_id(arguments(&[])).is_err());
    }
}
