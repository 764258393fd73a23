//! The instructor's plans add up, and their minutes are those of the chapters and lessons.

use std::collections::BTreeMap;
use std::fs;

use super::book;

/// The rows of the tables below a heading of the guide, head and rule left out, each as its cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(book().join("appendix/instructor.md")).expect("the guide");
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number of minutes"))
}

/// `a 10, b 20` as its parts.
fn parts(cell: &str) -> Vec<(String, u32)> {
    let split = |part: &str| {
        let (what, minutes) = part.rsplit_once(' ').unwrap_or_else(|| panic!("{part:?} has no minutes"));
        (what.trim_matches('`').to_owned(), number(minutes))
    };
    cell.split(", ").map(split).collect()
}

#[test]
fn a_chapter_s_minutes_and_a_lecture_s_add_up() {
    for row in rows("Minutes a section") {
        let [_, talk, live, quiz, sum] = &row[..] else { panic!("{row:?}") };
        assert_eq!(number(talk) + number(live) + number(quiz), number(sum), "{row:?}");
    }
    let lecture = rows("One lecture");
    let (last, sections) = lecture.split_last().expect("rows");
    let sum: u32 = sections.iter().map(|row| number(&row[2])).sum();
    assert_eq!((sum, number(&last[2])), (90, 90));
}

#[test]
fn a_week_s_and_a_term_s_sessions_add_up_and_hold_every_lesson_for_as_long_as_it_takes() {
    let lessons: BTreeMap<&str, u32> = lab::course::LESSONS
        .iter()
        .map(|lesson| (lesson.name, lesson.texts().expect("its texts").minutes))
        .collect();
    for (plan, sessions, minutes) in [("One week", 10, 180), ("One term", 24, 120)] {
        let rows = rows(plan);
        assert_eq!(rows.len(), sessions, "{plan}");
        let mut found = BTreeMap::new();
        for row in &rows {
            let parts = parts(&row[1]);
            let sum: u32 = parts.iter().map(|(_, minutes)| minutes).sum();
            assert_eq!((sum, number(&row[2])), (minutes, minutes), "{plan}: {row:?}");
            found.extend(parts);
        }
        for (name, minutes) in &lessons {
            assert_eq!(found.get(*name), Some(minutes), "{plan}: {name}");
        }
    }
}
