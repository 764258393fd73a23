//! The interpreter: it reads the script token by token and does what it says as it goes.
//!
//! There is no tree in between: a loop sets the reader back to its condition, a branch not taken is read with `run` false,
//! which parses and does nothing. A script is read so once before it runs at all: a mistake at its end does nothing either.

use freestanding::sys::file::pipe;
use freestanding::sys::process::{self, Pid};
use freestanding::{Fd, OwnedFd};

use super::expand::{self, Bad, identifier_length};
use super::jobs::{self, Saved};
use super::token::{Reader, Syntax, Token};
use super::{Flow, Shell, builtin};
use crate::output::{complain, failed};

/// Compound commands may nest so deep: the stack is small.
const DEPTH: u8 = 40;

/// Commands of a pipeline.
const PIPELINE: usize = 16;

type Step = Result<Flow, Syntax>;

/// Reads a script to its end without doing anything.
///
/// # Errors
/// What is wrong with it.
pub fn check(shell: &mut Shell, script: &[u8]) -> Result<(), Syntax> {
    let mut reader = Reader::new(script);
    list(shell, &mut reader, false)?;
    if reader.next()? == Token::End { Ok(()) } else { Err(Syntax::Unexpected) }
}

/// Runs a script that [`check`] found right.
///
/// # Errors
/// None, then.
pub fn script(shell: &mut Shell, script: &[u8]) -> Step {
    list(shell, &mut Reader::new(script), true)
}

/// Whether a word, where a command could begin, ends the list instead.
fn ends_list(word: &[u8]) -> bool {
    matches!(word, b"then" | b"else" | b"elif" | b"fi" | b"do" | b"done" | b"}")
}

fn list(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    loop {
        while reader.peek()? == Token::Separator {
            reader.next()?;
        }
        match reader.peek()? {
            Token::End | Token::Close => return Ok(Flow::Next),
            Token::Word(word) if ends_list(word) => return Ok(Flow::Next),
            _ => {}
        }
        let flow = and_or(shell, reader, run)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        match reader.peek()? {
            Token::Separator | Token::End | Token::Close => {}
            _ => return Err(Syntax::Unexpected),
        }
    }
}

fn and_or(shell: &mut Shell, reader: &mut Reader, mut run: bool) -> Step {
    let wanted = run;
    loop {
        let flow = pipeline(shell, reader, run)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        if run && let Flow::Exit = shell.act_on_signals() {
            return Ok(Flow::Exit);
        }
        match reader.peek()? {
            Token::And => run = wanted && shell.status == 0,
            Token::Or => run = wanted && shell.status != 0,
            _ => return Ok(Flow::Next),
        }
        reader.next()?;
        while reader.peek()? == Token::Separator {
            reader.next()?; // a line may end after && and ||
        }
    }
}

fn pipeline(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    let negated = reader.peek()? == Token::Word(b"!");
    if negated {
        reader.next()?;
    }
    // Read once to see whether it is one command or several: one runs in the shell itself.
    let start = reader.at;
    let mut starts = [start; PIPELINE];
    let mut count = 0;
    loop {
        *starts.get_mut(count).ok_or(Syntax::Unexpected)? = reader.at;
        count += 1;
        command(shell, reader, false)?;
        if reader.peek()? != Token::Pipe {
            break;
        }
        reader.next()?;
        while reader.peek()? == Token::Separator {
            reader.next()?;
        }
    }
    if !run {
        return Ok(Flow::Next);
    }
    let end = reader.at;
    let mut flow = Flow::Next;
    if count == 1 {
        reader.at = start;
        flow = command(shell, reader, true)?;
    } else {
        shell.status = connect(shell, *reader, starts.get(..count).unwrap_or(&[]));
    }
    reader.at = end;
    if negated {
        shell.status = u8::from(shell.status == 0);
    }
    Ok(flow)
}

/// Runs the commands at these places, each in a child, the output of one the input of the next; the last one's exit code.
fn connect(shell: &mut Shell, mut reader: Reader, starts: &[usize]) -> u8 {
    let mut children = [None::<Pid>; PIPELINE];
    let mut input: Option<OwnedFd> = None;
    for (index, &start) in starts.iter().enumerate() {
        let is_last = index + 1 == starts.len();
        let (next, output) = match if is_last { Ok(None) } else { pipe().map(Some) } {
            Ok(Some((from, to))) => (Some(from), Some(to)),
            Ok(None) => (None, None),
            Err(errno) => return failed("sh", b"pipe", errno),
        };
        match jobs::fork(shell) {
            Err(errno) => return failed("sh", b"fork", errno),
            Ok(Some(pid)) => children[index] = Some(pid),
            Ok(None) => {
                drop(next);
                let moved = input.map_or(Ok(()), |from| from.duplicate_to(Fd::INPUT));
                let moved = moved.and_then(|()| output.map_or(Ok(()), |to| to.duplicate_to(Fd::OUTPUT)));
                reader.at = start;
                if moved.is_err() || command(shell, &mut reader, true).is_err() {
                    process::exit(2);
                }
                process::exit(shell.status)
            }
        }
        input = next;
    }
    drop(input);
    children.into_iter().flatten().fold(0, |_, child| jobs::wait(shell, child).code())
}

fn command(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    match reader.peek()? {
        Token::Open | Token::Word(b"if" | b"while" | b"until" | b"for" | b"{") => {
            compound(shell, reader, run)
        }
        Token::Word(word) if ends_list(word) => Err(Syntax::Unexpected),
        Token::Word(_) | Token::Redirect(..) => simple(shell, reader, run),
        Token::End => Err(Syntax::Incomplete),
        _ => Err(Syntax::Unexpected),
    }
}

/// A compound command with its redirections, which stand behind it and are done before it.
fn compound(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    if shell.depth == DEPTH {
        return Err(Syntax::Unexpected);
    }
    shell.depth += 1;
    let result = compound_inner(shell, reader, run);
    shell.depth -= 1;
    result
}

fn compound_inner(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    let start = reader.at;
    body(shell, reader, false)?;
    let behind = reader.at;
    while let Token::Redirect(..) = reader.peek()? {
        reader.next()?;
        let Token::Word(_) = reader.next()? else { return Err(Syntax::Unexpected) };
    }
    let end = reader.at;
    if !run {
        return Ok(Flow::Next);
    }
    let mut saved = Saved::default();
    reader.at = behind;
    let mut flow = Flow::Next;
    if redirect(shell, reader, end, &mut saved)? {
        reader.at = start;
        flow = body(shell, reader, true)?;
    }
    saved.restore();
    reader.at = end;
    Ok(flow)
}

fn body(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    match reader.next()? {
        Token::Open => {
            if run {
                shell.status = match jobs::fork(shell) {
                    Err(errno) => failed("sh", b"fork", errno),
                    Ok(Some(child)) => jobs::wait(shell, child).code(),
                    Ok(None) => {
                        let _ = list(shell, reader, true);
                        process::exit(shell.status)
                    }
                };
            } else {
                list(shell, reader, false)?;
                expect(reader, Token::Close)?;
            }
            Ok(Flow::Next)
        }
        Token::Word(b"{") => {
            let flow = list(shell, reader, run)?;
            if flow == Flow::Next {
                expect(reader, Token::Word(b"}"))?;
            }
            Ok(flow)
        }
        Token::Word(b"if") => branches(shell, reader, run),
        Token::Word(b"for") => each(shell, reader, run),
        Token::Word(word) => repeat(shell, reader, run, word == b"while"),
        _ => Err(Syntax::Unexpected),
    }
}

fn expect(reader: &mut Reader, token: Token) -> Result<(), Syntax> {
    match reader.next()? {
        found if found == token => Ok(()),
        Token::End => Err(Syntax::Incomplete),
        _ => Err(Syntax::Unexpected),
    }
}

fn branches(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    let mut open = run; // no branch was taken so far
    loop {
        let flow = list(shell, reader, open)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        expect(reader, Token::Word(b"then"))?;
        let taken = open && shell.status == 0;
        let flow = list(shell, reader, taken)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        open &= !taken;
        match reader.next()? {
            Token::Word(b"elif") => {}
            Token::Word(b"fi") => break,
            Token::Word(b"else") => {
                let flow = list(shell, reader, open)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                expect(reader, Token::Word(b"fi"))?;
                return Ok(Flow::Next);
            }
            Token::End => return Err(Syntax::Incomplete),
            _ => return Err(Syntax::Unexpected),
        }
    }
    if open {
        shell.status = 0;
    }
    Ok(Flow::Next)
}

/// `while` and `until`.
fn repeat(shell: &mut Shell, reader: &mut Reader, run: bool, is_while: bool) -> Step {
    let top = reader.at;
    let mut last = 0;
    loop {
        reader.at = top;
        let flow = list(shell, reader, run)?;
        if flow != Flow::Next {
            return Ok(flow);
        }
        let goes_on = run && (shell.status == 0) == is_while;
        expect(reader, Token::Word(b"do"))?;
        match list(shell, reader, goes_on)? {
            Flow::Break => return Ok(Flow::Next),
            flow @ (Flow::Exit | Flow::Keep) => return Ok(flow),
            Flow::Continue => continue,
            Flow::Next => expect(reader, Token::Word(b"done"))?,
        }
        if !goes_on {
            if run {
                shell.status = last;
            }
            return Ok(Flow::Next);
        }
        last = shell.status;
    }
}

/// `for NAME in WORDS; do … done`, and `for NAME; do … done` over the arguments.
fn each(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    let Token::Word(name) = reader.next()? else { return Err(Syntax::Unexpected) };
    if name.is_empty() || identifier_length(name) != name.len() {
        return Err(Syntax::Unexpected);
    }
    let mark = shell.stack.mark();
    let mut words = Ok(());
    if reader.peek()? == Token::Word(b"in") {
        reader.next()?;
        while let Token::Word(word) = reader.peek()? {
            reader.next()?;
            if run {
                words = words.and_then(|()| expand::words(shell, word));
            }
        }
    } else if run {
        words = expand::words(shell, b"\"$@\"");
    }
    while reader.peek()? == Token::Separator {
        reader.next()?;
    }
    expect(reader, Token::Word(b"do"))?;
    let top = reader.at;
    if !run {
        list(shell, reader, false)?;
        return expect(reader, Token::Word(b"done")).map(|()| Flow::Next);
    }
    shell.status = 0;
    let mut flow = words.map_or_else(|bad| refuse(shell, name, bad), |()| Flow::Next);
    let mut place = mark;
    let end = shell.stack.mark();
    while place < end && !matches!(flow, Flow::Break | Flow::Exit | Flow::Keep) {
        let word = shell.stack.text(place);
        place += word.count_bytes() + 1;
        if shell.variables.set(name, word.to_bytes()).is_err() {
            flow = refuse(shell, name, Bad::TooLong);
            break;
        }
        reader.at = top;
        flow = list(shell, reader, true)?;
    }
    shell.stack.reset(mark);
    Ok(if matches!(flow, Flow::Exit | Flow::Keep) { flow } else { Flow::Next })
}

/// Says what is wrong with a word.
fn refuse(shell: &mut Shell, word: &[u8], bad: Bad) -> Flow {
    let message = match bad {
        Bad::TooLong => "too long",
        Bad::Substitution => "bad substitution",
    };
    shell.status = complain("sh", word, message, 2);
    if shell.is_interactive { Flow::Next } else { Flow::Exit }
}

/// Does the redirections up to `end`; false if one failed, which the shell has said then.
fn redirect(shell: &mut Shell, reader: &mut Reader, end: usize, saved: &mut Saved) -> Result<bool, Syntax> {
    while reader.at < end {
        let Token::Redirect(fd, how) = reader.next()? else { continue };
        let Token::Word(word) = reader.next()? else { return Err(Syntax::Unexpected) };
        let mark = shell.stack.mark();
        let result = match expand::text(shell, word) {
            Ok(()) => saved.redirect(Fd(fd), how, shell.stack.text(mark)),
            Err(bad) => {
                refuse(shell, word, bad);
                return Ok(false);
            }
        };
        if let Err(errno) = result {
            shell.status = failed("sh", shell.stack.text(mark).to_bytes(), errno);
            shell.stack.reset(mark);
            return Ok(false);
        }
        shell.stack.reset(mark);
    }
    Ok(true)
}

/// Assignments, words, redirections, in any order.
fn simple(shell: &mut Shell, reader: &mut Reader, run: bool) -> Step {
    let (mark, start) = (shell.stack.mark(), reader.at);
    let mut words = 0;
    let mut bad = None;
    loop {
        match reader.peek()? {
            Token::Word(word) => {
                reader.next()?;
                if words == 0 && assignment(word).is_some() {
                    continue;
                }
                words += 1;
                if run && bad.is_none() {
                    bad = expand::words(shell, word).err().map(|bad| (word, bad));
                }
            }
            Token::Redirect(..) => {
                reader.next()?;
                let Token::Word(_) = reader.next()? else { return Err(Syntax::Unexpected) };
            }
            _ => break,
        }
    }
    let end = reader.at;
    if !run {
        return Ok(Flow::Next);
    }
    let flow = match bad {
        Some((word, bad)) => refuse(shell, word, bad),
        None => execute(shell, *reader, start, end, mark)?,
    };
    shell.stack.reset(mark);
    reader.at = end;
    Ok(flow)
}

/// Splits `NAME=VALUE`.
fn assignment(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = word.split_at(identifier_length(word));
    Some((name, value.strip_prefix(b"=")?)).filter(|(name, _)| !name.is_empty())
}

/// Does a simple command whose words are on the stack from `mark` on.
fn execute(shell: &mut Shell, mut reader: Reader, start: usize, end: usize, mark: usize) -> Step {
    let is_empty = shell.stack.since(mark).is_empty();
    let is_own = is_empty || builtin::is_builtin(shell.stack.text(mark).to_bytes());
    if !is_own {
        match jobs::fork(shell) {
            Err(errno) => {
                shell.status = failed("sh", b"fork", errno);
                return Ok(Flow::Next);
            }
            Ok(Some(child)) => {
                shell.status = jobs::wait(shell, child).code();
                return Ok(Flow::Next);
            }
            Ok(None) => {}
        }
    }
    reader.at = start;
    let assigned = assign(shell, &mut reader, end, !is_own)?;
    let mut saved = Saved::default();
    reader.at = start;
    if !assigned || !redirect(shell, &mut reader, end, &mut saved)? {
        saved.restore();
        if !is_own {
            process::exit(shell.status);
        }
        return Ok(Flow::Next);
    }
    if !is_own {
        process::exit(jobs::execute(shell, mark));
    }
    let mut flow = Flow::Next;
    if !is_empty {
        flow = builtin::run(shell, mark);
    }
    if flow == Flow::Keep {
        return Ok(Flow::Next); // `exec` with redirections only: they stay
    }
    saved.restore();
    Ok(flow)
}

/// Does the assignments before a command; for a program, exported to it (this is its own process then).
fn assign(shell: &mut Shell, reader: &mut Reader, end: usize, export: bool) -> Result<bool, Syntax> {
    // $(…) in an assignment decides the exit code of a command that is nothing else.
    shell.status = if export { shell.status } else { 0 };
    while reader.at < end {
        let word = match reader.next()? {
            Token::Word(word) => word,
            Token::Redirect(..) => {
                reader.next()?;
                continue;
            }
            _ => break,
        };
        let Some((name, value)) = assignment(word) else { break };
        let mark = shell.stack.mark();
        let result = expand::text(shell, value);
        let result =
            result.and_then(|()| Ok(shell.variables.set(name, shell.stack.text(mark).to_bytes())?));
        shell.stack.reset(mark);
        if let Err(bad) = result {
            refuse(shell, word, bad);
            return Ok(false);
        }
        if export {
            shell.variables.export(name);
        }
    }
    Ok(true)
}
