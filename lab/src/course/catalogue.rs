//! The lessons, in the order of the book. Each is a folder of `book/lessons`, carried in this binary.

use super::Error;
use super::lessons::{self, Grade};
use super::texts::{Texts, parse};
use crate::engine::Runtime;

/// One lesson.
#[derive(Debug)]
pub struct Lesson {
    /// Its name: the folder's.
    pub name: &'static str,
    /// The wall that it is about.
    pub wall: Runtime,
    texts: &'static str,
    /// What the student begins with.
    pub skeleton: &'static str,
    /// One way to do it.
    pub solution: &'static str,
    /// Typical mistakes: the cause that the grader must find, and the program.
    pub mistakes: &'static [(&'static str, &'static str)],
    /// From what is seen to verdicts.
    pub(super) grade: Grade,
}

impl Lesson {
    /// What it says.
    ///
    /// # Errors
    /// Where the book is wrong.
    pub fn texts(&self) -> Result<Texts, Error> {
        parse(self.name, self.texts)
    }
}

/// The lesson of that name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Lesson, Error> {
    LESSONS.iter().find(|lesson| lesson.name == name).ok_or_else(|| Error::Unknown { name: name.to_owned() })
}

macro_rules! lesson {
    ($name:literal, $wall:ident, $grade:path, [$($mistake:literal),*]) => {
        Lesson {
            name: $name,
            wall: Runtime::$wall,
            texts: include_str!(concat!("../../../book/lessons/", $name, "/lesson.toml")),
            skeleton: include_str!(concat!("../../../book/lessons/", $name, "/skeleton.rs")),
            solution: include_str!(concat!("../../../book/lessons/", $name, "/solution.rs")),
            mistakes: &[$((
                $mistake,
                include_str!(concat!("../../../book/lessons/", $name, "/mistakes/", $mistake, ".rs")),
            )),*],
            grade: $grade,
        }
    };
}

/// All of them.
pub const LESSONS: &[Lesson] = &[
    lesson!(
        "pid-namespace",
        Container,
        lessons::pid_namespace,
        ["not-forked", "mounts-shared", "old-proc", "code-lost"]
    ),
    lesson!(
        "pivot-root",
        Container,
        lessons::pivot_root,
        ["only-chroot", "old-root-left", "descriptor-left"]
    ),
    lesson!("cgroup-limit", Container, lessons::cgroup_limit, ["not-moved", "no-limit"]),
    lesson!(
        "drop-capabilities",
        Container,
        lessons::drop_capabilities,
        ["regained", "nothing-left", "privileges-open"]
    ),
    lesson!(
        "reap-zombies",
        Container,
        lessons::reap_zombies,
        ["zombies", "term-lost", "mask-inherited", "code-lost"]
    ),
    lesson!(
        "predict-then-measure",
        Container,
        lessons::predict_then_measure,
        ["not-predicted", "in-blocks", "not-median", "surprised"]
    ),
    lesson!("first-exit", Vm, lessons::first_exit, ["no-memory", "code-elsewhere", "reset-vector"]),
    lesson!("long-mode", Vm, lessons::long_mode, ["no-pae", "entry-not-present", "not-huge"]),
    lesson!(
        "serial-port",
        Vm,
        lessons::serial_port,
        ["never-ready", "scratch-lost", "text-lost", "not-stopped"]
    ),
    lesson!("zero-page", Vm, lessons::zero_page, ["hole-claimed", "unterminated", "not-zeroed"]),
    lesson!(
        "virtqueue-walk",
        Vm,
        lessons::virtqueue_walk,
        ["circle-followed", "not-wrapped", "length-wrong", "used-index"]
    ),
    lesson!("exit-code", Vm, lessons::exit_code, ["code-wrong", "fault-as-success", "halt-forever"]),
];

#[cfg(test)]
mod tests {
    use super::super::texts;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_lesson_s_texts_are_whole() {
        for lesson in LESSONS {
            let texts = lesson.texts().unwrap();
            let mut earlier = BTreeSet::new();
            for check in &texts.checks {
                for needed in &check.needs {
                    assert!(earlier.contains(needed), "{}: {} needs {needed}", lesson.name, check.id);
                }
                assert!(earlier.insert(check.id.clone()), "{}: {} is there twice", lesson.name, check.id);
            }
            let common = texts::Common::read().unwrap();
            for (cause, _) in lesson.mistakes {
                let known = texts.causes.contains_key(*cause) || common.causes.contains_key(*cause);
                assert!(known, "{}: no text for the mistake {cause}", lesson.name);
            }
        }
    }
}
