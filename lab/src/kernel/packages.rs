//! The distribution's packages: which are missing, and installing them.
//!
//! Debian's and Ubuntu's package managers are the same two programs; on other systems the packages must be there
//! already, and the error says which.

use std::process::{Command, Stdio};

use super::{Error, Event, Listener, source};

/// What a kernel build runs: compiler, make, the two parser generators, `bc`, `patch`; and libelf, with which objtool
/// reads what the compiler made.
const FOR_BUILD: &[&str] =
    &["gcc", "make", "flex", "bison", "bc", "libelf-dev", "libc6-dev", "patch", "tar", "xz-utils"];

/// Packages that are to be installed, with what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    /// Their names.
    pub names: Vec<String>,
}

impl Packages {
    /// Whether there is nothing to install.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The command that installs them, as the user would type it.
    pub fn command(&self) -> String {
        let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
        format!("{sudo}apt-get install --no-install-recommends {}", self.names.join(" "))
    }
}

/// The packages that a kernel build lacks on this machine. Where there is no dpkg to ask, none: the build itself will
/// name the program that it misses.
pub fn missing_for_build() -> Packages {
    let mut names: Vec<String> =
        FOR_BUILD.iter().filter(|package| !installed(package)).map(|&package| package.to_owned()).collect();
    if source::find().is_none() {
        names.push("linux-source".to_owned());
    }
    if output("dpkg-query", &["--version"]).is_none() {
        names.clear();
    }
    Packages { names }
}

/// Installs packages, as root or through sudo, which may ask for a password on the terminal.
///
/// # Errors
/// The package manager is missing or fails.
pub fn install(packages: &Packages, listener: Listener<'_>) -> Result<(), Error> {
    if packages.is_empty() {
        return Ok(());
    }
    let joined = packages.names.join(" ");
    let fail = |reason: String| Error::Install { packages: joined.clone(), reason };
    listener(Event::Step(&format!("installing {joined}")));
    let arguments: Vec<&str> = ["install", "--yes", "--no-install-recommends"]
        .into_iter()
        .chain(packages.names.iter().map(String::as_str))
        .collect();
    let first = apt_get(&arguments).map_err(&fail)?;
    if first.is_none() {
        return Ok(());
    }
    // A fresh machine has no package lists, an old one stale ones.
    listener(Event::Step("refreshing the package lists"));
    apt_get(&["update"]).map_err(&fail)?;
    match apt_get(&arguments).map_err(&fail)? {
        None => Ok(()),
        Some(reason) => Err(fail(reason)),
    }
}

/// Runs apt-get with root's rights. `Some(reason)` where it ran and failed.
fn apt_get(arguments: &[&str]) -> Result<Option<String>, String> {
    let root = nix::unistd::geteuid().is_root();
    let mut command = if root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    let output = command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", if root { "apt-get" } else { "sudo" }))?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason =
        text.lines().find(|line| line.starts_with("E: ")).or(text.lines().last()).unwrap_or("apt-get failed");
    Ok(Some(reason.trim_start_matches("E: ").to_owned()))
}

/// Whether dpkg has the package installed.
pub(super) fn installed(package: &str) -> bool {
    output("dpkg-query", &["-W", "-f=${db:Status-Status}", package])
        .is_some_and(|status| status == "installed")
}

/// The installed version of a package.
pub(super) fn version(package: &str) -> Option<String> {
    output("dpkg-query", &["-W", "-f=${Version}", package]).filter(|version| !version.is_empty())
}

/// What a program prints, if it starts and succeeds.
pub(super) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
