//! What this machine offers and what it lacks: each prerequisite found by using it where that is possible, and the one
//! command that fixes what is missing.
//!
//! It changes nothing, needs no rights, and works before anything is installed. The checks: `container` (the first wall),
//! `machine` (the second), `kernel` (what boots in it, and room for it).

mod container;
mod kernel;
mod machine;

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// One prerequisite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A name that programs can match.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What was found.
    pub found: String,
    /// The one command that fixes it, or what to do where no command can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Whether a prerequisite is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Found,
    /// It is there but limited, or missing but not needed for the comparison.
    Limited,
    /// It is missing, and the comparison of both walls needs it.
    Missing,
}

impl Check {
    fn found(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Found, found: found.into(), fix: None }
    }

    fn limited(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Limited, found: found.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Missing, found: found.into(), fix: Some(fix.into()) }
    }
}

/// All checks of this machine, in the order in which they are to be fixed.
pub fn examine() -> Vec<Check> {
    let mut checks = container::checks();
    let machine = machine::examine();
    checks.extend(machine.checks);
    checks.extend(kernel::checks(machine.needs_patched_kernel));
    checks
}

/// Whether the comparison of both walls can run as things are.
pub fn is_ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Missing)
}

/// The list for a terminal. Escapes for colours are in it: print it through `anstream`.
pub fn render(checks: &[Check]) -> String {
    const DIM: Style = Style::new().dimmed();
    const COMMAND: Style = AnsiColor::Cyan.on_default();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (mark, style) = match check.state {
            State::Found => ("found  ", AnsiColor::Green.on_default()),
            State::Limited => ("limited", AnsiColor::Yellow.on_default()),
            State::Missing => ("MISSING", AnsiColor::Red.on_default().bold()),
        };
        let name = check.name;
        let _ = writeln!(text, "{style}{mark}{style:#}  {name:width$}  {}", check.found);
        if let Some(fix) = &check.fix {
            let indent = "       ".len() + 2 + width + 2;
            let _ = writeln!(text, "{:indent$}{DIM}fix:{DIM:#} {COMMAND}{fix}{COMMAND:#}", "");
        }
    }
    let missing = checks.iter().filter(|check| check.state == State::Missing).count();
    if missing == 0 {
        text.push_str("\nBoth walls can be compared here: lab compare\n");
    } else {
        let _ = writeln!(
            text,
            "\n{missing} missing. Fix them one by one as above, or let `lab demo` set up what it can."
        );
    }
    text
}

/// A program on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// A command as this user must type it.
fn as_root(command: &str) -> String {
    if nix::unistd::geteuid().is_root() { command.into() } else { format!("sudo {command}") }
}

/// The command that installs a package, where the package manager is Debian's or Ubuntu's.
fn install(packages: &str) -> String {
    as_root(&format!("apt-get install --no-install-recommends {packages}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_examined_without_rights_and_without_leaving_anything() {
        let checks = examine();
        assert!(checks.len() >= 8);
        let mut names: Vec<_> = checks.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), checks.len(), "each check has a name of its own");
    }

    #[test]
    fn whatever_is_not_found_says_what_to_do() {
        for check in examine() {
            assert_eq!(check.state == State::Found, check.fix.is_none(), "{check:?}");
        }
    }

    #[test]
    fn only_what_the_comparison_needs_makes_a_machine_unready() {
        let limited = Check::limited("a", "", "x");
        assert!(is_ready(&[Check::found("b", ""), limited.clone()]));
        assert!(!is_ready(&[limited, Check::missing("c", "", "y")]));
    }

    #[test]
    fn the_list_names_the_command_under_what_is_missing() {
        let text = render(&[Check::found("one", "there"), Check::missing("two", "not there", "do this")]);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(
            text.starts_with("found    one  there\nMISSING  two  not there\n              fix: do this\n"),
            "{text}"
        );
        assert!(text.contains("1 missing"));
    }
}
