//! The student's folder: a small cargo package that an editor understands, with the helper in it and nothing to download.

use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};

use super::error::Context as _;
use super::{Error, Language, Lesson, texts};

/// The helper's files, by their paths in its package.
pub const HELPER: [(&str, &str); 5] = [
    ("lib.rs", include_str!("../../../book/lessons/helper/lesson.rs")),
    ("vm.rs", include_str!("../../../book/lessons/helper/vm.rs")),
    ("measure.rs", include_str!("../../../book/lessons/helper/measure.rs")),
    ("cgroup.rs", include_str!("../../../book/lessons/helper/cgroup.rs")),
    ("kvm.rs", include_str!("../../../book/lessons/helper/kvm.rs")),
];

/// The file that is checked.
pub const PROGRAM: &str = "src/main.rs";

/// Makes the folder; returns it.
///
/// # Errors
/// Where it is there already, or cannot be written.
pub fn start(lesson: &Lesson, folder: Option<&Path>, language: Language) -> Result<PathBuf, Error> {
    let folder = folder.map_or_else(|| PathBuf::from(lesson.name), Path::to_owned);
    let taken = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if taken || folder.is_file() {
        return Err(Error::Exists { path: folder.display().to_string(), lesson: lesson.name.to_owned() });
    }
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).create(parent).at("create", parent)?;
        }
        fs::write(&path, content).at("write", &path)
    };
    write(PROGRAM, lesson.skeleton)?;
    for (name, content) in HELPER {
        write(&format!("helper/src/{name}"), content)?;
    }
    write("helper/Cargo.toml", &manifest("lesson", ""))?;
    write("Cargo.toml", &manifest(lesson.name, "\n[dependencies]\nlesson = { path = \"helper\" }\n"))?;
    write("README.md", &readme(lesson, &lesson.texts()?, language))?;
    Ok(folder)
}

/// A package that is its own workspace, wherever the folder lies.
fn manifest(name: &str, rest: &str) -> String {
    let workspace = if rest.is_empty() { "" } else { "\n[workspace]\n" };
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n{rest}{workspace}"
    )
}

fn readme(lesson: &Lesson, texts: &texts::Texts, language: Language) -> String {
    let title = texts.title.in_language(language);
    let task = texts.task.in_language(language);
    format!(
        "# {title}\n\n{task}\n\n```sh\nlab lesson check {0}\nlab lesson watch {0}\nlab lesson hint {0}\n```\n",
        lesson.name
    )
}

/// The student's program.
///
/// # Errors
/// Where there is none.
pub fn program(lesson: &Lesson, folder: Option<&Path>) -> Result<PathBuf, Error> {
    let candidates = match folder {
        Some(path) if path.is_file() => return Ok(path.to_owned()),
        Some(path) => vec![path.join(PROGRAM)],
        // From above the folder, or from within.
        None => vec![Path::new(lesson.name).join(PROGRAM), PROGRAM.into()],
    };
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| Error::NoProgram {
        path: candidates[0].display().to_string(),
        lesson: lesson.name.to_owned(),
    })
}
