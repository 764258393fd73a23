//! The book cannot drift: its commands are run and their output compared, its code and links are looked up.
//!
//! A block of commands says ```` ```console ````. Lines that begin with `$ ` are run by sh, with the programs just built first in
//! PATH, as root, in a folder that the chapter's blocks share; `> ` continues a command. The other lines are what it prints,
//! standard output and error together. `[..]` stands for anything within a line, a line of `...` for any number of lines.
//! `console,vm` needs the second wall; `console,shown` is not run. With `BOOK_UPDATE=1`, what differs is written into the chapter.

mod common;

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

/// What `{{#include PATH:ANCHOR}}` and `{{#quiz PATH}}` name.
fn inclusions(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in text.split("{{#").skip(1) {
        let Some((inside, _)) = part.split_once("}}") else { continue };
        if let Some((kind, what)) = inside.split_once(' ') {
            found.push((kind.to_owned(), what.trim().to_owned()));
        }
    }
    found
}

#[test]
fn all_code_of_the_book_is_found_by_its_anchor_and_all_quizzes_are_there() {
    let mut faults = String::new();
    for path in chapters() {
        let folder = path.parent().expect("a folder");
        for (kind, what) in inclusions(&fs::read_to_string(&path).expect("a chapter")) {
            let (file, anchor) =
                what.split_once(':').map_or((&what[..], None), |(file, anchor)| (file, Some(anchor)));
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            let good = match (kind.as_str(), anchor) {
                (_, _) if text.is_empty() => false,
                ("quiz", _) => {
                    toml::from_str::<toml::Table>(&text).is_ok_and(|quiz| quiz.contains_key("questions"))
                }
                (_, Some(anchor)) => {
                    let has = |mark: &str| {
                        let wanted = format!("{mark} {anchor}");
                        text.lines().filter(|line| line.trim().ends_with(&wanted)).count() == 1
                    };
                    has("ANCHOR:") && has("ANCHOR_END:")
                }
                (_, None) => true,
            };
            if !good {
                let _ =
                    writeln!(faults, "{}: {{{{#{kind} {what}}}}}: not there, or not once", path.display());
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// The questions of a quiz, by their ids; empty where it cannot be read.
fn questions(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let quiz = toml::from_str::<toml::Table>(&text).unwrap_or_default();
    let all = quiz.get("questions").and_then(|questions| questions.as_array()).cloned().unwrap_or_default();
    all.iter().filter_map(|question| Some(question.get("id")?.as_str()?.to_owned())).collect()
}

#[test]
fn every_quiz_asks_the_same_questions_in_spanish() {
    let folder = book().join("quiz");
    let quizzes = fs::read_dir(&folder).expect("the quizzes").flatten().map(|entry| entry.path());
    for path in quizzes.filter(|path| path.extension().is_some_and(|kind| kind == "toml")) {
        let name = path.file_name().expect("a name");
        let english = questions(&path);
        assert!(!english.is_empty(), "{}: no questions with ids", path.display());
        assert_eq!(english, questions(&folder.join("es").join(name)), "{}", path.display());
    }
}

/// The messages of a gettext file: what is translated, and the translation.
fn messages(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut current: [Option<String>; 2] = [None, None];
    for line in text.lines().chain(["msgid \"\""]) {
        let (field, quoted) = match line.split_once(' ') {
            Some(("msgid", quoted)) => {
                if let [Some(id), Some(translation)] = std::mem::take(&mut current) {
                    all.push((id, translation));
                }
                (0, quoted)
            }
            Some(("msgstr", quoted)) => (1, quoted),
            _ if line.starts_with('"') => (usize::from(current[1].is_some()), line),
            _ => continue,
        };
        let piece = serde_json::from_str::<String>(quoted).expect("a quoted text, escaped as in C and JSON");
        current[field].get_or_insert_default().push_str(&piece);
    }
    all.retain(|(id, _)| !id.is_empty());
    all
}

/// Code and its parts stay as they are: blocks, comments, texts in quotation marks, byte literals.
fn is_code(message: &str) -> bool {
    ["```", "//", "\"", "b\"", "b'"].iter().any(|start| message.starts_with(start))
}

#[test]
fn the_spanish_book_is_whole_and_no_translation_is_stale() {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !(found("mdbook") && found("mdbook-gettext")) {
        return skip("the book's translation", "no mdbook: cargo install mdbook mdbook-i18n-helpers");
    }
    // A copy without quizzes, which are translated as a whole.
    let root = tempfile::tempdir().expect("a folder");
    let workspace = book().parent().and_then(Path::parent).expect("the workspace").to_owned();
    let copy = root.path().join("book");
    fs::create_dir(&copy).expect("a folder");
    let copied = Command::new("cp").arg("-r").arg(book()).arg(copy.join("src")).status();
    assert!(copied.expect("cp").success());
    for name in ["container", "microvm", "lab"] {
        std::os::unix::fs::symlink(workspace.join(name), root.path().join(name)).expect("a link");
    }
    let settings = fs::read_to_string(workspace.join("book/book.toml")).expect("the book's settings");
    let tables = settings.split("\n[").filter(|table| !table.starts_with("preprocessor.quiz]"));
    fs::write(copy.join("book.toml"), tables.collect::<Vec<_>>().join("\n[")).expect("a file");
    let mut mdbook = Command::new("mdbook");
    mdbook.args(["build", "-d"]).arg(root.path().join("out")).arg(&copy);
    let built = mdbook.env("MDBOOK_OUTPUT", "{\"xgettext\": {}}").output().expect("mdbook runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let read = |path: PathBuf| messages(&fs::read_to_string(path).expect("a gettext file"));
    let english = read(root.path().join("out/messages.pot"));
    let spanish = read(workspace.join("book/po/es.po"));
    let mut faults = String::new();
    for (message, _) in english.iter().filter(|(message, _)| !is_code(message)) {
        if !spanish.iter().any(|(id, translation)| id == message && !translation.is_empty()) {
            let _ = writeln!(faults, "not translated: {message}");
        }
    }
    for (message, _) in spanish.iter().filter(|(message, _)| !english.iter().any(|(id, _)| id == message)) {
        let _ = writeln!(faults, "stale, its English is gone or was changed: {message}");
    }
    assert!(faults.is_empty(), "{faults}");
}

/// As mdBook makes a heading's id: lower case, spaces become hyphens, other punctuation goes.
fn heading_id(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_within_the_book_leads_somewhere_and_every_chapter_is_in_the_summary() {
    let mut faults = String::new();
    let summary = fs::read_to_string(book().join("SUMMARY.md")).expect("the summary");
    for path in chapters() {
        let name = path.strip_prefix(book()).expect("below the book").display().to_string();
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            let _ = writeln!(faults, "{name} is not in SUMMARY.md");
        }
        for (line, text) in parse(&fs::read_to_string(&path).expect("a chapter")).1 {
            for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                // Chapters that are to come have an empty link in the summary.
                // The Spanish book is built beside this one, below es/.
                let built = target.starts_with("es/");
                if built || target.contains("://") || (target.is_empty() && name == "SUMMARY.md") {
                    continue;
                }
                let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
                let aim = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
                let content = fs::read_to_string(&aim).ok();
                let heading = |line: &str| {
                    line.starts_with('#') && heading_id(line.trim_start_matches('#')) == fragment
                };
                let found = content.is_some_and(|text| fragment.is_empty() || text.lines().any(heading));
                if !found {
                    let _ = writeln!(faults, "{name}:{line}: the link to {target} leads nowhere");
                }
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
