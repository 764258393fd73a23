//! The book cannot drift: its commands are run and their output compared, its code and links are looked up.
//!
//! A block of commands says ```` ```console ````. Lines that begin with `$ ` are run by sh, with the programs just built first in
//! PATH, as root, in a folder that the chapter's blocks share; `> ` continues a command. The other lines are what it prints,
//! standard output and error together. `[..]` stands for anything within a line, a line of `...` for any number of lines.
//! `console,vm` needs the second wall; `console,shown` is not run. With `BOOK_UPDATE=1`, what differs is written into the chapter.

#[path = "../common/mod.rs"]
mod common;
mod guide;
mod structure;
mod translation;

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Lab, Wall, skip};

/// No command of the book takes longer, behind the slower wall either.
const PATIENCE: Duration = Duration::from_secs(300);

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("book/src")
}

/// Every chapter, by its path.
fn chapters() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![book()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the book").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A fenced block: its first line's number, what stands behind the fence, its lines.
struct Block {
    line: usize,
    info: String,
    lines: Vec<String>,
}

/// The fenced blocks of a chapter, and its other lines.
fn parse(text: &str) -> (Vec<Block>, Vec<(usize, String)>) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                open = Some(Block { line: number + 1, info: info.trim().to_owned(), lines: Vec::new() });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.lines.push(line.to_owned()),
            (None, None) => prose.push((number + 1, line.to_owned())),
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    (blocks, prose)
}

/// The commands of a block, each with the output that the book prints.
fn commands(block: &Block) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in &block.lines {
        let last = commands.last_mut();
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), Vec::new()));
        } else if let (Some(more), Some((command, output))) = (line.strip_prefix("> "), last)
            && output.is_empty()
        {
            *command += "\n";
            *command += more;
        } else {
            let (_, output) = commands.last_mut().expect("a block of commands begins with one");
            output.push(line.clone());
        }
    }
    commands
}

/// Whether lines are as expected, with wildcards.
fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..]))
        }
        Some((line, rest)) => actual
            .split_first()
            .is_some_and(|(first, others)| line_matches(line, first) && matches(rest, others)),
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern.trim_end() == line.trim_end(),
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| line_matches(after, &rest[at..]))
        }),
    }
}

/// Runs a command as a reader would type it; returns what it prints.
fn run(lab: &Lab, folder: &Path, command: &str) -> Vec<String> {
    let programs = Path::new(env!("CARGO_BIN_EXE_lab")).parent().expect("the folder of programs");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let (mut output, theirs) = std::io::pipe().expect("a pipe");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).current_dir(folder).env("PATH", path).process_group(0);
    shell.env("LAB_HOME", lab.home().join("data")).env("XDG_RUNTIME_DIR", lab.home().join("run"));
    shell.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8").env("COLUMNS", "100").stdin(Stdio::null());
    shell.stdout(theirs.try_clone().expect("a pipe")).stderr(theirs);
    let mut child = shell.spawn().expect("sh starts");
    drop(shell);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).expect("a pipe reads");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begun = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        if begun.elapsed() > PATIENCE {
            let group = nix::unistd::Pid::from_raw(child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(2));
    }
    reader.join().expect("the output").lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A command's output ends where the block does or another command begins; blank lines at its end are the author's.
fn trimmed(lines: &[String]) -> &[String] {
    let length = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    &lines[..length]
}

#[test]
fn the_book_s_commands_print_on_both_walls_container_and_vm_what_it_says() {
    if let Some(why) = Wall::Container.missing() {
        return skip("the book's commands", why);
    }
    let lab = Lab::empty();
    // The lessons' sandboxes have ids that are nobody's, which must be able to pass.
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(lab.home(), passable).expect("a directory of ours");
    let only = std::env::var("BOOK_ONLY").unwrap_or_default();
    let mut faults = String::new();
    let mut skipped = None;
    for path in chapters().iter().filter(|path| path.to_string_lossy().contains(&only)) {
        let text = fs::read_to_string(path).expect("a chapter");
        let name = path.strip_prefix(book()).expect("below the book").display().to_string();
        let folder = lab.home().join(name.replace('/', "-"));
        fs::create_dir(&folder).expect("a folder");
        let mut updated = text.clone();
        for block in parse(&text).0 {
            let words: Vec<&str> = block.info.split(',').collect();
            if words[0] != "console" || words.contains(&"shown") {
                continue;
            }
            if let (true, Some(why)) = (words.contains(&"vm"), Wall::Vm.missing()) {
                skipped = Some(why);
                continue;
            }
            let mut fresh = String::new();
            for (command, expected) in commands(&block) {
                let actual = run(&lab, &folder, &command);
                let good = matches(trimmed(&expected), trimmed(&actual));
                if !good {
                    let (expected, actual) = (expected.join("\n"), actual.join("\n"));
                    let _ = writeln!(
                        faults,
                        "{name}:{}: $ {command}\n---- the book says\n{expected}\n---- it prints\n{actual}\n",
                        block.line
                    );
                }
                let output = if good { trimmed(&expected) } else { trimmed(&actual) };
                let typed = command.replace('\n', "\n> ");
                let _ = writeln!(fresh, "$ {typed}");
                for line in output {
                    let _ = writeln!(fresh, "{line}");
                }
            }
            updated = updated.replace(&(block.lines.join("\n") + "\n```"), &(fresh + "```"));
        }
        if std::env::var_os("BOOK_UPDATE").is_some() && updated != text {
            fs::write(path, updated).expect("a chapter");
        }
    }
    assert!(faults.is_empty(), "{faults}");
    if let Some(why) = skipped {
        skip("the book's commands behind the vm wall", why);
    }
}

#[test]
fn every_block_of_commands_in_the_book_is_one_that_is_run() {
    let mut faults = String::new();
    for path in chapters() {
        for block in parse(&fs::read_to_string(&path).expect("a chapter")).0 {
            let words: Vec<&str> = block.info.split(',').collect();
            let known = match words[0] {
                "console" => words[1..].iter().all(|word| ["vm", "shown"].contains(word)),
                "sh" | "bash" | "shell" | "" => false,
                _ => true,
            };
            if !known {
                let (path, line, info) = (path.display(), block.line, &block.info);
                let _ =
                    writeln!(faults, "{path}:{line}: ```{info}: say console, or text where it is a picture");
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn wildcards_stand_for_parts_of_lines_and_for_whole_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&lines("a[..]c\n...\nz"), &lines("abbbc\n1\n2\nz")));
    assert!(matches(&lines("...\nz"), &lines("z")));
    assert!(matches(&lines("[..] of [..]"), &lines("1 of 2")));
    assert!(!matches(&lines("a[..]c"), &lines("abbb")));
    assert!(!matches(&lines("a"), &lines("a\nb")));
}
