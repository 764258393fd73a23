//! What a chapter must have, and that all it names is there: code, quizzes, links, files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{book, chapters, parse};

/// Chapters that are none of the two stories: an invitation, how lessons work, appendices.
const APART: [&str; 3] = ["question.md", "lessons.md", "SUMMARY.md"];

#[test]
fn every_chapter_has_a_question_a_picture_code_commands_an_exercise_and_a_quiz() {
    let mut faults = String::new();
    for path in chapters() {
        let name = path.strip_prefix(book()).expect("below the book").display().to_string();
        if APART.contains(&name.as_str()) || name.starts_with("appendix/") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a chapter");
        let (blocks, _) = parse(&text);
        // What only measures takes minutes; it is shown, and the protocol's chapter runs a small one.
        let run = |info: &str| {
            info.starts_with("console") && (!info.contains("shown") || name == "measure/claims.md")
        };
        let has = [
            ("a question below its title", text.lines().nth(2).is_some_and(|line| line.starts_with("> "))),
            ("a picture", blocks.iter().any(|block| block.info == "text")),
            ("code from the source", text.contains("{{#include ")),
            ("commands that are run", blocks.iter().any(|block| run(&block.info))),
            ("an exercise", text.lines().any(|line| line.starts_with("## Exercise"))),
            ("a quiz", text.contains("{{#quiz ")),
        ];
        for (what, _) in has.iter().filter(|(_, there)| !there) {
            let _ = writeln!(faults, "{name} lacks {what}");
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn what_is_still_to_come_is_marked_so_in_the_table_of_contents() {
    let summary = fs::read_to_string(book().join("SUMMARY.md")).expect("the summary");
    for line in summary.lines().filter(|line| line.contains("](")) {
        assert_eq!(line.contains("]()"), line.contains("(to come)"), "{line}");
    }
}

#[test]
fn every_source_file_that_the_book_names_is_there() {
    let workspace = book().parent().and_then(Path::parent).expect("the workspace").to_owned();
    let mut faults = String::new();
    for path in chapters() {
        let text = fs::read_to_string(&path).expect("a chapter");
        for name in text.split('`').filter(|name| name.contains('/')) {
            let ours = ["container/", "microvm/", "lab/"].iter().any(|start| name.starts_with(start));
            let source = Path::new(name).extension().is_some_and(|kind| kind == "rs");
            if ours && source && !workspace.join(name).is_file() {
                let _ = writeln!(faults, "{}: there is no {name}", path.display());
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
