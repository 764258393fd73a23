//! Where in a JSON text an error is: from the line and column that the parser gives to the path of the field,
//! `process.capabilities.bounding[3]`, that people look for.
//!
//! The text is walked once more, up to that place, with a stack of the objects and arrays that are open there. Only after
//! an error; a parser that keeps the path all the time (`serde_path_to_error`) costs half a megabyte of program.

/// An object or array that is open.
enum Open {
    Object { key: String },
    Array { index: usize },
}

/// The path of the value that is being read at a byte of the text; of the object that ends there, if `whole`.
pub(super) fn path_at(text: &[u8], offset: usize, whole: bool) -> String {
    let text = &text[..offset.min(text.len())];
    let (mut open, mut last, mut at) = (Vec::new(), String::new(), 0);
    while let Some(&byte) = text.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' => {
                last = path(&open);
                open.push(Open::Object { key: String::new() });
            }
            b'[' => {
                last = path(&open);
                open.push(Open::Array { index: 0 });
            }
            b'}' | b']' => {
                open.pop();
                if whole {
                    last = path(&open);
                }
            }
            b',' => {
                if let Some(Open::Array { index }) = open.last_mut() {
                    *index += 1;
                }
            }
            b'"' => {
                at = end_of_string(text, at);
                let is_key = text[at..].trim_ascii_start().first() == Some(&b':');
                if let (true, Some(Open::Object { key })) = (is_key, open.last_mut()) {
                    *key = serde_json::from_slice(&text[start..at]).unwrap_or_default();
                }
                last = path(&open);
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                let rest = text[at..].iter();
                at += rest.take_while(|byte| !b",]} \t\r\n".contains(byte)).count();
                last = path(&open);
            }
        }
    }
    last
}

/// The place behind a string's closing quote.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

fn path(open: &[Open]) -> String {
    use std::fmt::Write;
    let mut path = String::new();
    for open in open {
        match open {
            Open::Array { index } => {
                let _ = write!(path, "[{index}]");
            }
            Open::Object { key } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
        }
    }
    path
}

/// The byte that a line and column (from 1) mean.
pub(super) fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before = text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
    before.map(<[u8]>::len).sum::<usize>() + column
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_value_before_the_place() {
        let text = br#"{"a": [1, {"b\"": "x"}, true], "c": {"d": null}}"#;
        let at = |word: &str, whole| {
            let start = text.windows(word.len()).position(|part| part == word.as_bytes()).unwrap();
            path_at(text, start + word.len(), whole)
        };
        assert_eq!(at("1", false), "a[0]");
        assert_eq!(at(r#""x""#, false), "a[1].b\"");
        assert_eq!(at("true", false), "a[2]");
        assert_eq!(at("null", false), "c.d");
        assert_eq!(at("null}", true), "c");
        assert_eq!(path_at(text, usize::MAX, true), "");
    }
}
