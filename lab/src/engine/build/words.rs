//! Words of a Dockerfile: where they end, what quotes mean, and which variables stand in them (Dockerfile reference,
//! "Environment replacement").

use crate::engine::{Error, glob};

/// Reads words with the Dockerfile's escape character and the variables at some place of it.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    pub escape: char,
    pub value: &'a dyn Fn(&str) -> Option<String>,
}

impl Words<'_> {
    /// The text as one word: variables are expanded but in single quotes, quotes and escape characters go.
    pub fn word(&self, text: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = text;
        let mut quoted = false;
        while let Some(char) = rest.chars().next() {
            rest = &rest[char.len_utf8()..];
            match char {
                '\'' if !quoted => {
                    let end = rest.find('\'').unwrap_or(rest.len());
                    out.push_str(&rest[..end]);
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
                '"' => quoted = !quoted,
                '$' => rest = self.variable(rest, &mut out)?,
                char if char == self.escape => match rest.chars().next() {
                    // In double quotes it is itself before what needs no escape.
                    Some(next) if quoted && !(matches!(next, '"' | '$') || next == self.escape) => {
                        out.push(char);
                    }
                    Some(next) => {
                        out.push(next);
                        rest = &rest[next.len_utf8()..];
                    }
                    None => out.push(char),
                },
                other => out.push(other),
            }
        }
        Ok(out)
    }

    /// A here-document: variables are expanded, quotes stay.
    pub fn document(&self, text: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            rest = &rest[char.len_utf8()..];
            match char {
                '$' => rest = self.variable(rest, &mut out)?,
                char if char == self.escape && rest.starts_with(['$', char]) => {
                    out.extend(rest.chars().next());
                    rest = &rest[1..];
                }
                other => out.push(other),
            }
        }
        Ok(out)
    }

    /// Words between blanks, each as [`Words::word`] has it.
    pub fn words(&self, text: &str) -> Result<Vec<String>, Error> {
        self.split(text).iter().map(|word| self.word(word)).collect()
    }

    /// `NAME=VALUE …`, or the older `NAME VALUE`.
    pub fn pairs(&self, text: &str) -> Result<Vec<(String, String)>, Error> {
        let words = self.split(text);
        if words.first().is_some_and(|word| !word.contains('=')) {
            let (name, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
            if rest.trim().is_empty() {
                return Err(Error::bad(format!("{name}: a value is missing, NAME=VALUE is expected")));
            }
            return Ok(vec![(self.word(name)?, self.word(rest.trim())?)]);
        }
        let pair = |word: &String| {
            let missing = || {
                Error::bad(format!(
                    "Syntax error - can't find = in \"{word}\". Must be of the form: name=value"
                ))
            };
            let (name, value) = word.split_once('=').ok_or_else(missing)?;
            let name = self.word(name)?;
            if name.is_empty() { Err(missing()) } else { Ok((name, self.word(value)?)) }
        };
        words.iter().map(pair).collect()
    }

    /// Splits at blanks outside quotes. Nothing is expanded yet: what a variable holds is not split.
    pub fn split(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quote = None;
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            match (char, quote) {
                (char, None) if char.is_whitespace() => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    continue;
                }
                ('\'' | '"', None) => quote = Some(char),
                (end, Some(begin)) if end == begin => quote = None,
                (char, quote) if char == self.escape && quote != Some('\'') => {
                    word.push(char);
                    word.extend(rest.next());
                    continue;
                }
                _ => {}
            }
            word.push(char);
        }
        if !word.is_empty() {
            words.push(word);
        }
        words
    }

    /// What stands behind a `$`; returns what is behind that.
    fn variable<'t>(&self, rest: &'t str, out: &mut String) -> Result<&'t str, Error> {
        let Some(inner) = rest.strip_prefix('{') else {
            let end = name_end(rest);
            if end == 0 {
                out.push('$');
            } else {
                out.push_str(&(self.value)(&rest[..end]).unwrap_or_default());
            }
            return Ok(&rest[end..]);
        };
        let mut depth = 1;
        let end = inner.char_indices().find_map(|(at, char)| {
            depth += i32::from(char == '{') - i32::from(char == '}');
            (depth == 0).then_some(at)
        });
        let Some(end) = end else { return Err(Error::bad(format!("'${{{inner}' has no closing brace"))) };
        out.push_str(&self.braced(&inner[..end])?);
        Ok(&inner[end + 1..])
    }

    fn braced(&self, inner: &str) -> Result<String, Error> {
        let (name, modifier) = inner.split_at(name_end(inner));
        let found = (self.value)(name);
        let wrong = || Error::bad(format!("'${{{inner}}}': this form of a variable is not known"));
        if name.is_empty() {
            return Err(wrong());
        }
        // With a colon, an empty value counts as none.
        let (modifier, set) = match modifier.strip_prefix(':') {
            Some(rest) => (rest, found.clone().filter(|value| !value.is_empty())),
            None => (modifier, found.clone()),
        };
        let mut chars = modifier.chars();
        Ok(match (chars.next(), chars.as_str()) {
            (None, _) => found.unwrap_or_default(),
            (Some('-'), word) => set.map_or_else(|| self.word(word), Ok)?,
            (Some('+'), word) => set.map(|_| self.word(word)).transpose()?.unwrap_or_default(),
            (Some('?'), word) => match set {
                Some(value) => value,
                None => return Err(Error::bad(format!("{name}: {}", self.word(word)?))),
            },
            (Some('#'), word) => trim(&set.unwrap_or_default(), &self.word(word)?, true),
            (Some('%'), word) => trim(&set.unwrap_or_default(), &self.word(word)?, false),
            _ => return Err(wrong()),
        })
    }
}

fn name_end(text: &str) -> usize {
    if text.starts_with(|char: char| char.is_ascii_digit()) {
        return 1;
    }
    text.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_')).unwrap_or(text.len())
}

/// `${NAME#PATTERN}` and `${NAME%PATTERN}`: the shortest beginning or end that fits goes; the longest for a doubled sign.
fn trim(value: &str, pattern: &str, front: bool) -> String {
    let sign = if front { '#' } else { '%' };
    let (pattern, longest) = pattern.strip_prefix(sign).map_or((pattern, false), |pattern| (pattern, true));
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    // From the shortest to the longest part that goes.
    if !front {
        cuts.reverse();
    }
    if longest {
        cuts.reverse();
    }
    let parts = |at: usize| if front { (&value[..at], &value[at..]) } else { (&value[at..], &value[..at]) };
    let fitting =
        cuts.into_iter().map(parts).find(|(goes, _)| glob::matches(goes.as_bytes(), pattern.as_bytes()));
    fitting.map_or(value, |(_, stays)| stays).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "F" => Some("app.tar.gz".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    const WORDS: Words<'static> = Words { escape: '\\', value: &known };

    #[test]
    fn variables_are_expanded_as_docker_does() {
        for (text, expanded) in [
            ("$A-${A}", "one-one"),
            ("${B:-two}${EMPTY:-three}", "twothree"),
            ("${B-two}${EMPTY-three}", "two"),
            ("${A:+set}${B:+set}${EMPTY:+set}${EMPTY+there}", "setthere"),
            ("${B:-${A}}", "one"),
            ("${A:?must}", "one"),
            ("${F%.*}, ${F%%.*}, ${F#*.}, ${F##*.}", "app.tar, app, tar.gz, gz"),
            ("\\$A $", "$A $"),
            ("\"$A b\" '$A'", "one b $A"),
            ("\"a\\b\\\"\"", "a\\b\""),
            ("a\\ b", "a b"),
        ] {
            assert_eq!(WORDS.word(text).unwrap(), expanded, "{text}");
        }
        assert_eq!(Words { escape: '`', ..WORDS }.word("c:\\$A`$A").unwrap(), "c:\\one$A");
        for text in ["${A", "${B:?no B}", "${A@Q}", "${}"] {
            assert!(WORDS.word(text).is_err(), "{text}");
        }
        assert!(WORDS.word("${B:?is missing}").unwrap_err().to_string().contains("B: is missing"));
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(WORDS.words("a \"b c\" 'd $A' e\\ f \"$A\"").unwrap(), ["a", "b c", "d $A", "e f", "one"]);
        let pairs = |text| WORDS.pairs(text).unwrap();
        assert_eq!(
            pairs("X=1 Y=\"2 3\" Z="),
            [("X".into(), "1".into()), ("Y".into(), "2 3".into()), ("Z".into(), String::new())]
        );
        assert_eq!(pairs("X some words"), [("X".into(), "some words".into())]);
        for text in ["X", "X=1 Y", "=1"] {
            assert!(WORDS.pairs(text).is_err(), "{text}");
        }
    }
}
