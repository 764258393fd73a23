//! From a word to texts: quotes, variables, substitutions, splitting at blanks (POSIX, section 2.6; no patterns).

use freestanding::Text;

use super::store::Full;
use super::token::unit;
use super::{Shell, arithmetic, jobs};

/// Why a word has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Too long for the shell's memory.
    TooLong,
    /// `${…}` or `$((…))` that makes no sense.
    Substitution,
}

impl From<Full> for Bad {
    fn from(_: Full) -> Self {
        Self::TooLong
    }
}

/// Where in a word the expansion is.
#[derive(Debug, Default)]
struct State {
    /// Unquoted blanks from variables end a text.
    splits: bool,
    /// A text has begun: by a byte, or by quotes with nothing in them.
    begun: bool,
    depth: u8,
}

/// Substitutions may nest so deep: the stack is small.
const DEPTH: u8 = 16;

/// Adds the texts that a word becomes to the shell's stack: none, one or several.
///
/// # Errors
/// The word has no value.
pub fn words(shell: &mut Shell, word: &[u8]) -> Result<(), Bad> {
    let mut state = State { splits: true, ..State::default() };
    units(shell, &mut state, word, false)?;
    if state.begun {
        shell.stack.push(0)?;
    }
    Ok(())
}

/// Adds the one text that a word becomes where it is not split: an assignment, a redirection.
///
/// # Errors
/// The word has no value.
pub fn text(shell: &mut Shell, word: &[u8]) -> Result<(), Bad> {
    units(shell, &mut State::default(), word, false)?;
    shell.stack.push(0)?;
    Ok(())
}

fn units(shell: &mut Shell, state: &mut State, mut word: &[u8], quoted: bool) -> Result<(), Bad> {
    while !word.is_empty() {
        let len = match (quoted, word) {
            // Within double quotes a backslash escapes only what would be special there, and quotes are letters.
            (true, [b'\\', b'$' | b'"' | b'\\' | b'\n', ..]) | (false, [b'\\', ..]) => 2,
            (true, [b'\\' | b'\'' | b'"', ..]) => 1,
            _ => unit(word).map_err(|_| Bad::Substitution)?,
        };
        let (first, rest) = word.split_at_checked(len).ok_or(Bad::Substitution)?;
        match first {
            [b'\\', b'\n'] => word = rest,
            [b'\\', byte] => {
                word = rest;
                literal(shell, state, &[*byte])?;
            }
            [b'\'', inner @ .., b'\''] if !quoted => {
                word = rest;
                literal(shell, state, inner)?;
            }
            [b'"', inner @ .., b'"'] if !quoted => {
                word = rest;
                state.begun = true;
                units(shell, state, inner, true)?;
            }
            [b'$', b'(', b'(', inner @ .., b')', b')'] => {
                word = rest;
                sum(shell, state, inner)?;
            }
            [b'$', b'(', inner @ .., b')'] => {
                word = rest;
                command(shell, state, inner, quoted)?;
            }
            [b'$', b'{', inner @ .., b'}'] => {
                word = rest;
                braces(shell, state, inner, quoted)?;
            }
            [b'$'] => {
                let len = name_length(rest);
                let (name, rest) = rest.split_at(len);
                word = rest;
                if name.is_empty() {
                    literal(shell, state, b"$")?;
                } else {
                    variable(shell, state, name, quoted)?;
                }
            }
            byte => {
                word = rest;
                literal(shell, state, byte)?;
            }
        }
    }
    Ok(())
}

/// How long the name after a `$` is: letters, digits and `_`, or one special sign.
fn name_length(text: &[u8]) -> usize {
    match text.first() {
        Some(b'?' | b'$' | b'#' | b'@' | b'*' | b'0'..=b'9') => 1,
        _ => identifier_length(text),
    }
}

/// How long the identifier at the front is.
pub fn identifier_length(text: &[u8]) -> usize {
    if text.first().is_some_and(u8::is_ascii_digit) {
        return 0;
    }
    text.iter().position(|&byte| !byte.is_ascii_alphanumeric() && byte != b'_').unwrap_or(text.len())
}

fn literal(shell: &mut Shell, state: &mut State, bytes: &[u8]) -> Result<(), Bad> {
    state.begun = true;
    Ok(shell.stack.push_all(bytes)?)
}

/// Adds bytes that a substitution gave, split at blanks where that is due.
fn value(shell: &mut Shell, state: &mut State, bytes: &[u8], quoted: bool) -> Result<(), Bad> {
    for &byte in bytes {
        if !quoted && state.splits && matches!(byte, b' ' | b'\t' | b'\n') {
            if state.begun {
                shell.stack.push(0)?;
                state.begun = false;
            }
        } else {
            state.begun = true;
            shell.stack.push(byte)?;
        }
    }
    Ok(())
}

fn variable(shell: &mut Shell, state: &mut State, name: &[u8], quoted: bool) -> Result<(), Bad> {
    let mut number = Text::<24>::new();
    match name {
        b"?" => number.number(u64::from(shell.status)),
        b"$" => number.number(shell.pid),
        b"#" => number.number(shell.arguments.len() as u64),
        b"@" | b"*" => return all_arguments(shell, state, name == b"@", quoted),
        [digit @ b'0'..=b'9'] => {
            let argument = match usize::from(digit - b'0') {
                0 => Some(shell.name),
                index => shell.arguments.get(index - 1),
            };
            return value(shell, state, argument.unwrap_or(c"").to_bytes(), quoted);
        }
        _ => {
            // Byte by byte, because the value lies in the shell that it is added to.
            let mut index = 0;
            while let Some(&byte) = shell.variables.get(name).and_then(|value| value.get(index)) {
                value(shell, state, &[byte], quoted)?;
                index += 1;
            }
            return Ok(());
        }
    };
    value(shell, state, number.bytes(), quoted)
}

/// `$@` and `$*`: within quotes the first gives a text for each argument, the second one text.
fn all_arguments(shell: &mut Shell, state: &mut State, apart: bool, quoted: bool) -> Result<(), Bad> {
    for (index, argument) in shell.arguments.iter().enumerate() {
        if index > 0 {
            if quoted && apart && state.splits {
                shell.stack.push(0)?;
            } else {
                value(shell, state, b" ", quoted)?;
            }
        }
        value(shell, state, argument.to_bytes(), quoted)?;
    }
    if shell.arguments.is_empty() && quoted && apart {
        state.begun = false; // "$@" without arguments is no text at all
    }
    Ok(())
}

/// `${NAME}` and `${NAME:-WORD}`.
fn braces(shell: &mut Shell, state: &mut State, inner: &[u8], quoted: bool) -> Result<(), Bad> {
    let (name, rest) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Err(Bad::Substitution);
    }
    match rest {
        [] => variable(shell, state, name, quoted),
        [b':', b'-', default @ ..] => {
            if shell.variables.get(name).is_none_or(<[u8]>::is_empty) {
                nested(shell, state, |shell, state| units(shell, state, default, quoted))
            } else {
                variable(shell, state, name, quoted)
            }
        }
        _ => Err(Bad::Substitution),
    }
}

/// `$((EXPRESSION))`
fn sum(shell: &mut Shell, state: &mut State, inner: &[u8]) -> Result<(), Bad> {
    // What stands in it is expanded first, on the stack, and taken off again.
    let mark = shell.stack.mark();
    nested(shell, state, |shell, state| {
        units(shell, &mut State { depth: state.depth, ..State::default() }, inner, true)
    })?;
    let result = arithmetic::evaluate(shell.stack.since(mark), |name| shell.variables.get(name));
    shell.stack.reset(mark);
    let result = result.ok_or(Bad::Substitution)?;
    let mut number = Text::<24>::new();
    number.text(if result < 0 { "-" } else { "" }).number(result.unsigned_abs());
    value(shell, state, number.bytes(), true)
}

/// `$(COMMANDS)`: what they print, without the newlines at its end.
fn command(shell: &mut Shell, state: &mut State, inner: &[u8], quoted: bool) -> Result<(), Bad> {
    nested(shell, state, |shell, state| {
        let output = jobs::output_of(shell, inner).map_err(|_| Bad::TooLong)?;
        let kept = output.iter().rposition(|&byte| byte != b'\n' && byte != 0).map_or(0, |last| last + 1);
        value(shell, state, output.get(..kept).unwrap_or(&[]), quoted)
    })
}

fn nested(
    shell: &mut Shell,
    state: &mut State,
    work: impl FnOnce(&mut Shell, &mut State) -> Result<(), Bad>,
) -> Result<(), Bad> {
    if state.depth == DEPTH {
        return Err(Bad::TooLong);
    }
    state.depth += 1;
    let result = work(shell, state);
    state.depth -= 1;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(word: &str) -> Vec<String> {
        let mut shell = Shell::for_test(&[c"one", c"two words"]);
        shell.variables.set(b"A", b"1").unwrap();
        shell.variables.set(b"SPACED", b" x  y ").unwrap();
        shell.status = 3;
        words(&mut shell, word.as_bytes()).unwrap();
        shell.stack.texts(0).map(|text| text.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn variables_are_replaced_by_their_values() {
        assert_eq!(expand("$A-${A}b$?"), ["1-1b3"]);
        assert_eq!(expand("${NONE:-a$A}"), ["a1"]);
        assert_eq!(expand("$1/$#"), ["one/2"]);
        assert_eq!(expand("a$"), ["a$"]);
    }

    #[test]
    fn unquoted_values_are_split_at_blanks_quoted_ones_are_not() {
        assert_eq!(expand("$SPACED"), ["x", "y"]);
        assert_eq!(expand("a$SPACED"), ["a", "x", "y"]);
        assert_eq!(expand("\"$SPACED\""), [" x  y "]);
        assert_eq!(expand("$NONE"), [""; 0]);
        assert_eq!(expand("\"$NONE\"''"), [""]);
    }

    #[test]
    fn quotes_keep_what_they_hold() {
        assert_eq!(expand("'$A \"x'"), ["$A \"x"]);
        assert_eq!(expand("\"it's \\$A \\\"$A\\\" \\x\""), ["it's $A \"1\" \\x"]);
        assert_eq!(expand("a\\ b"), ["a b"]);
    }

    #[test]
    fn all_arguments_stay_apart_within_quotes() {
        assert_eq!(expand("\"$@\""), ["one", "two words"]);
        assert_eq!(expand("\"$*\""), ["one two words"]);
        assert_eq!(expand("$@"), ["one", "two", "words"]);
    }

    #[test]
    fn sums_are_reckoned() {
        assert_eq!(expand("$((A + 2 * $A))"), ["3"]);
        let mut shell = Shell::for_test(&[]);
        assert_eq!(words(&mut shell, b"$((1/0))"), Err(Bad::Substitution));
        assert_eq!(words(&mut shell, b"${A?x}"), Err(Bad::Substitution));
    }
}
