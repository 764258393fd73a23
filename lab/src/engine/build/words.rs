//! Words of a Dockerfile: where they end, what quotes mean, and which variables stand in them.

/// Expands `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`; a backslash takes the next character as it is.
pub(super) fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\\' => out.extend(rest.next()),
            '$' if rest.peek() == Some(&'{') => {
                rest.next();
                let mut depth = 1;
                let inner: String = rest
                    .by_ref()
                    .take_while(|&char| {
                        depth += i32::from(char == '{') - i32::from(char == '}');
                        depth > 0
                    })
                    .collect();
                out.push_str(&braced(&inner, value));
            }
            '$' => {
                let mut name = String::new();
                while let Some(&char) =
                    rest.peek().filter(|char| char.is_ascii_alphanumeric() || **char == '_')
                {
                    name.push(char);
                    rest.next();
                }
                if name.is_empty() {
                    out.push('$');
                } else {
                    out.push_str(&value(&name).unwrap_or_default());
                }
            }
            other => out.push(other),
        }
    }
    out
}

fn braced(inner: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let end = inner.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_')).unwrap_or(inner.len());
    let (name, modifier) = inner.split_at(end);
    let found = value(name).filter(|value| !value.is_empty());
    if let Some(word) = modifier.strip_prefix(":-") {
        return found.unwrap_or_else(|| expand(word, value));
    }
    if let Some(word) = modifier.strip_prefix(":+") {
        return found.map(|_| expand(word, value)).unwrap_or_default();
    }
    found.unwrap_or_default()
}

/// Splits at blanks outside quotes, and expands: not in single quotes. Quotes themselves go.
pub(super) fn split(text: &str, value: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    // What is expanded at once: variables may not span quotes.
    let mut part = String::new();
    let mut quote = None;
    let mut rest = text.chars();
    let flush = |part: &mut String, word: &mut Option<String>| {
        if !part.is_empty() {
            word.get_or_insert_default().push_str(&expand(part, value));
            part.clear();
        }
    };
    while let Some(char) = rest.next() {
        match (char, quote) {
            ('\'' | '"', None) => {
                flush(&mut part, &mut word);
                word.get_or_insert_default();
                quote = Some(char);
            }
            (end, Some(begin)) if end == begin => {
                flush(&mut part, &mut word);
                quote = None;
            }
            (char, Some('\'')) => word.get_or_insert_default().push(char),
            ('\\', _) => {
                part.push('\\');
                part.extend(rest.next());
            }
            (char, None) if char.is_whitespace() => {
                flush(&mut part, &mut word);
                words.extend(word.take());
            }
            (char, _) => part.push(char),
        }
    }
    flush(&mut part, &mut word);
    words.extend(word);
    words
}

/// `NAME=VALUE …`, or the older `NAME VALUE`.
pub(super) fn pairs(text: &str, value: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let words = split(text, value);
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (name, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        return vec![(name.to_owned(), expand(rest.trim(), value))];
    }
    let pair = |word: &String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    words.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_expanded_as_docker_does() {
        for (text, expanded) in [
            ("$A-${A}", "one-one"),
            ("${B:-two}${EMPTY:-three}", "twothree"),
            ("${A:+set}${B:+set}", "set"),
            ("${B:-${A}}", "one"),
            ("\\$A $", "$A $"),
        ] {
            assert_eq!(expand(text, &known), expanded, "{text}");
        }
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(split("a \"b c\" 'd $A' e\\ f \"$A\"", &known), ["a", "b c", "d $A", "e f", "one"]);
        assert_eq!(pairs("X=1 Y=\"2 3\"", &known), [("X".into(), "1".into()), ("Y".into(), "2 3".into())]);
        assert_eq!(pairs("X some words", &known), [("X".into(), "some words".into())]);
    }
}
