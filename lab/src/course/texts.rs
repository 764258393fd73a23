//! What a lesson says, in both languages: `lesson.toml` of its folder.
//!
//! A text may name facts in braces, as `{pid}`; they are filled in from what the grader saw.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;

/// A language of the course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Spanish.
    Es,
}

impl Language {
    /// The language of the locale: the first that is set of LC_ALL, LC_MESSAGES and LANG decides (`setlocale(3)`).
    pub fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable);
        match set.into_iter().find(|value| !value.is_empty()) {
            Some(value) if value == "es" || value.starts_with("es_") || value.starts_with("es.") => Self::Es,
            _ => Self::En,
        }
    }
}

/// A text in both languages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    en: String,
    es: String,
}

impl Text {
    /// In one language.
    pub fn in_language(&self, language: Language) -> &str {
        match language {
            Language::En => self.en.trim(),
            Language::Es => self.es.trim(),
        }
    }

    /// In one language, with facts filled in.
    pub fn filled(&self, language: Language, facts: &[(&'static str, String)]) -> String {
        let mut text = self.in_language(language).to_owned();
        for (name, value) in facts {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }
}

/// Everything that a lesson says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// How long it takes, in minutes.
    pub minutes: u32,
    /// The step of the real code that it is taken from.
    pub code: String,
    /// One line.
    pub title: Text,
    /// What is to be done.
    pub task: Text,
    /// From a nudge to nearly the answer.
    pub hints: [Text; 3],
    /// The checks, each after those that it needs.
    pub checks: Vec<Check>,
    /// What can be wrong, by the name that a verdict gives it.
    #[serde(default)]
    pub causes: BTreeMap<String, Text>,
}

/// One check.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name.
    pub id: String,
    /// The checks without which it says nothing.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What is so when it passes.
    pub text: Text,
}

/// What can be wrong in any lesson.
const COMMON: &str = include_str!("../../../book/lessons/common.toml");

/// The words around the lessons, and the causes common to all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// What can be wrong in any lesson.
    pub causes: BTreeMap<String, Text>,
    /// Words of reports.
    pub words: BTreeMap<String, Text>,
}

impl Common {
    /// Reads them from this binary.
    ///
    /// # Errors
    /// Where the book is wrong.
    pub fn read() -> Result<Self, Error> {
        parse("common", COMMON)
    }

    /// A word in one language; a missing one is shown by its name.
    pub fn word<'a>(&'a self, name: &'a str, language: Language) -> &'a str {
        self.words.get(name).map_or(name, |text| text.in_language(language))
    }
}

/// Reads a text of the book.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(lesson: &str, text: &str) -> Result<T, Error> {
    toml::from_str(text)
        .map_err(|error| Error::Texts { lesson: lesson.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        let locale = |set: &[(&str, &str)]| {
            Language::of_locale(|name| {
                set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(locale(&[("LANG", "es_MX.UTF-8")]), Language::Es);
        assert_eq!(locale(&[("LANG", "es_MX.UTF-8"), ("LC_ALL", "C")]), Language::En);
        assert_eq!(locale(&[("LC_ALL", ""), ("LANG", "es")]), Language::Es);
        assert_eq!(locale(&[("LANG", "est")]), Language::En);
        assert_eq!(locale(&[]), Language::En);
    }

    #[test]
    fn facts_are_filled_in() {
        let text = Text { en: "pid {pid} of {name}".into(), es: "el {pid}".into() };
        let facts = [("pid", "7".to_owned()), ("name", "task".to_owned())];
        assert_eq!(text.filled(Language::En, &facts), "pid 7 of task");
        assert_eq!(text.filled(Language::Es, &facts), "el 7");
    }
}
