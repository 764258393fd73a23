//! The Spanish book is whole, and as new as the English one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::book;
use super::common::skip;

/// A message of a gettext file.
struct Message {
    /// The chapters that have it.
    chapters: String,
    english: String,
    spanish: String,
}

/// The messages of a gettext file.
fn messages(text: &str) -> Vec<Message> {
    let mut all = Vec::new();
    let mut current: [Option<String>; 2] = [None, None];
    let (mut chapters, mut next) = (String::new(), String::new());
    for line in text.lines().chain(["msgid \"\""]) {
        if let Some(places) = line.strip_prefix("#: ") {
            // Where a line has a number, the chapter is what matters.
            let names = places.split(' ').map(|place| place.split(':').next().unwrap_or(place));
            next.extend(names.filter_map(|name| name.strip_prefix("src/")).map(|name| format!("{name} ")));
        }
        let (field, quoted) = match line.split_once(' ') {
            Some(("msgid", quoted)) => {
                if let [Some(english), Some(spanish)] = std::mem::take(&mut current) {
                    all.push(Message { chapters: std::mem::take(&mut chapters), english, spanish });
                }
                chapters = std::mem::take(&mut next);
                (0, quoted)
            }
            Some(("msgstr", quoted)) => (1, quoted),
            _ if line.starts_with('"') => (usize::from(current[1].is_some()), line),
            _ => continue,
        };
        let piece = serde_json::from_str::<String>(quoted).expect("a quoted text, escaped as in C and JSON");
        current[field].get_or_insert_default().push_str(&piece);
    }
    all.retain(|message| !message.english.is_empty());
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
    let lacks = |own: &Message, others: &[Message], translated: bool| {
        !others.iter().any(|other| other.english == own.english && !(translated && other.spanish.is_empty()))
    };
    for own in english.iter().filter(|own| !is_code(&own.english) && lacks(own, &spanish, true)) {
        let _ = writeln!(faults, "{}: not translated: {}", own.chapters.trim_end(), own.english);
    }
    for own in spanish.iter().filter(|own| lacks(own, &english, false)) {
        let chapters = own.chapters.trim_end();
        let _ = writeln!(faults, "{chapters}: stale, its English is gone or was changed: {}", own.english);
    }
    // Sorted, so that what concerns a chapter stands together.
    let mut faults: Vec<&str> = faults.lines().collect();
    faults.sort_unstable();
    let faults = faults.join("\n");
    assert!(faults.is_empty(), "{faults}");
}
