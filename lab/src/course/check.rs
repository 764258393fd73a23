//! One check: from the student's file to a report.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::compile::{self, Refused, Tools};
use super::lessons::{Cause, Seen, Verdict};
use super::report::{Outcome, Report};
use super::texts::Common;
use super::{Error, Language, Lesson};

/// The check that every lesson begins with.
const COMPILES: &str = "compiles";

/// Checks a program. What is wrong with it is in the report.
///
/// # Errors
/// Where it could not be checked.
pub fn check(lesson: &Lesson, program: &Path, language: Language) -> Result<Report, Error> {
    let begun = Instant::now();
    let tools = Tools::ready()?;
    let folder = compile::place()?.join("build");
    compile::make(&folder)?;
    let binary = folder.join(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    let compiled = tools.compile(program, &binary);
    let seen = match compiled {
        Ok(Ok(())) => {
            let mut seen = (lesson.grade)(&tools, &binary);
            if let Ok(seen) = &mut seen {
                seen.pass(COMPILES);
            }
            seen
        }
        Ok(Err(refused)) => Ok(refuse(refused)),
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_file(&binary);
    let seen = seen?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Ok(Report {
        lesson: lesson.name.to_owned(),
        wall: lesson.wall.name().to_owned(),
        time: now,
        seconds: begun.elapsed().as_secs_f64(),
        checks: outcomes(lesson, &seen, language)?,
        output: seen.output,
        hints: 0,
        tries: 0,
    })
}

fn refuse(refused: Refused) -> Seen {
    let mut seen = Seen::default();
    match refused {
        Refused::Wrong(errors) => seen.fail(COMPILES, Cause::new("compile").fact("errors", errors)),
        Refused::Endless => seen.fail(COMPILES, Cause::new("compile-endless")),
    }
    seen
}

/// Walks the graph: a check whose needs have not all passed says nothing.
fn outcomes(lesson: &Lesson, seen: &Seen, language: Language) -> Result<Vec<Outcome>, Error> {
    let (texts, common) = (lesson.texts()?, Common::read()?);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for check in &texts.checks {
        let held = |needed: &String| {
            outcomes.iter().any(|earlier| earlier.id == *needed && earlier.passed == Some(true))
        };
        let verdict = check.needs.iter().all(held).then(|| seen.verdicts.get(check.id.as_str()));
        let cause = match verdict {
            Some(Some(Verdict::Fail(cause))) => Some(cause),
            _ => None,
        };
        let text = |cause: &Cause| {
            let text = texts.causes.get(cause.name).or_else(|| common.causes.get(cause.name));
            text.map(|text| text.filled(language, &cause.facts)).ok_or_else(|| Error::Texts {
                lesson: lesson.name.to_owned(),
                reason: format!("no text for the cause '{}'", cause.name),
            })
        };
        outcomes.push(Outcome {
            id: check.id.clone(),
            // No verdict means that the grader could not come so far, which another check has told.
            passed: verdict.flatten().map(|verdict| matches!(verdict, Verdict::Pass)),
            text: check.text.in_language(language).to_owned(),
            cause: cause.map(|cause| cause.name.to_owned()),
            hint: cause.map(text).transpose()?,
        });
    }
    Ok(outcomes)
}
