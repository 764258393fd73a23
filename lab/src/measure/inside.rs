//! What a workload sees of the machine around it: the same look from behind each wall, and from the host.
//!
//! The boot id (random(4), `/proc/sys/kernel/random/boot_id`) is drawn once by each boot of a kernel and belongs to no
//! namespace: who reads the host's boot id runs on the host's kernel, whatever `uname` says.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::child::Call;
use super::session::{RUN_LIMIT, WallCall};

/// `$1` is the number of a process of the host. NULs separate the words of a command line.
const SCRIPT: &str = "uname -r; cat /proc/sys/kernel/random/boot_id; hostname; cat /proc/$1/cmdline 2>/dev/null; \
                      echo; ls /proc";

/// What is seen from one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// `uname -r`.
    pub release: String,
    /// The boot id of the kernel.
    pub boot_id: String,
    /// The host name.
    pub hostname: String,
    /// How many processes `/proc` lists.
    pub processes: usize,
    /// Whether the process that measures, which runs on the host, is among them.
    pub sees_host_process: bool,
}

/// The host's own view.
///
/// # Errors
/// What cannot be read.
pub fn host() -> Result<View, String> {
    let read = |path: &str| match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("read {path}: {error}")),
    };
    let processes = fs::read_dir("/proc").map_err(|error| format!("read /proc: {error}"))?.flatten();
    Ok(View {
        release: read("/proc/sys/kernel/osrelease")?,
        boot_id: read("/proc/sys/kernel/random/boot_id")?,
        hostname: read("/proc/sys/kernel/hostname")?,
        processes: processes.filter(|entry| is_pid(&entry.file_name().to_string_lossy())).count(),
        sees_host_process: true,
    })
}

/// The view of a workload behind this wall.
///
/// # Errors
/// What the run said last, where it did not print what was asked for.
pub fn look(wall: &WallCall, interrupted: &AtomicBool) -> Result<View, String> {
    let told = |error: std::io::Error| error.to_string();
    let own = fs::read("/proc/self/cmdline").map_err(told)?;
    let pid = std::process::id().to_string();
    let after = ["sh", "-c", SCRIPT, "sh", pid.as_str()].map(Into::into);
    let call = Call {
        program: wall.program.clone(),
        before: wall.options.clone(),
        marks: true,
        after: std::iter::once(wall.image.clone()).chain(after).collect(),
    };
    let finished =
        call.spawn(Stdio::null()).and_then(|run| run.finish(RUN_LIMIT, interrupted)).map_err(told)?;
    parse(&finished.printed, &own).ok_or_else(|| match finished.last_words() {
        "" => "the look around did not print what it should".to_owned(),
        said => said.to_owned(),
    })
}

/// Reads what [`SCRIPT`] printed; `own` is the command line of the host's process.
fn parse(printed: &[u8], own: &[u8]) -> Option<View> {
    let mut lines = printed.split(|&byte| byte == b'\n');
    let mut word = || {
        let line = String::from_utf8_lossy(lines.next()?).trim().to_owned();
        (!line.is_empty() && line.len() < 100).then_some(line)
    };
    let (release, boot_id, hostname) = (word()?, word()?, word()?);
    // The command line, empty where the number is no process's; then the names in /proc.
    let rest: Vec<_> = lines.map(String::from_utf8_lossy).collect();
    let processes = rest.iter().filter(|name| is_pid(name.trim())).count();
    let own = String::from_utf8_lossy(own);
    let first = own.lines().next().unwrap_or_default();
    (processes > 0).then(|| View {
        release,
        boot_id,
        hostname,
        processes,
        sees_host_process: !first.is_empty() && rest.first().is_some_and(|line| line.starts_with(first)),
    })
}

fn is_pid(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_own_view_is_whole() {
        let view = host().unwrap();
        assert!(view.processes > 0 && view.boot_id.len() == 36, "{view:?}");
    }

    #[test]
    fn a_look_gives_the_kernel_the_name_and_the_processes() {
        let printed = b"6.1.0\nabc-def\nbox\n\nuptime\nself\n1\n5\n";
        let view = parse(printed, b"lab\0claims\0").unwrap();
        assert_eq!((view.release.as_str(), view.boot_id.as_str()), ("6.1.0", "abc-def"));
        assert_eq!((view.hostname.as_str(), view.processes, view.sees_host_process), ("box", 2, false));
    }

    #[test]
    fn a_host_process_is_known_by_its_command_line_and_not_by_its_number_alone() {
        let see = |line: &[u8]| {
            let printed = [b"6.1.0\nabc\nbox\n", line, b"\nself\n7\n"].concat();
            parse(&printed, b"lab\0claims\0").unwrap().sees_host_process
        };
        assert!(see(b"lab\0claims\0"));
        assert!(!see(b"init\0"));
        assert!(!see(b""), "a kernel thread has none");
    }

    #[test]
    fn what_is_cut_off_is_no_view() {
        for printed in [&b""[..], b"6.1.0\nabc\n", b"6.1.0\nabc\nbox\n\nself\n", b"\n\n\n\n1\n"] {
            assert_eq!(parse(printed, b"lab\0"), None);
        }
    }
}
