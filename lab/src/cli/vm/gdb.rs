//! `lab vm gdb`: GDB before the guest of a machine that runs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use lab::engine::stored::Engine;
use serde_json::json;

use super::print;

/// Stop a machine's guest and look at it with GDB; where GDB is not installed, print how to. The guest goes on when GDB leaves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab vm gdb web                               an interactive GDB, with the symbols of the lean kernel
  lab vm gdb web -- --batch -ex 'info threads' its vCPUs, and where they are
  lab vm gdb --print web                       the command, to be used elsewhere")]
pub struct Args {
    /// Name or id
    container: String,
    /// Only print the command that would be executed
    #[arg(long)]
    print: bool,
    /// As JSON, for other programs: the socket, the symbols, the command
    #[arg(long)]
    json: bool,
    /// Further arguments of gdb
    #[arg(last = true, value_name = "ARG")]
    more: Vec<OsString>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let debugged = engine.debug(&engine.find(&args.container)?)?;
    let target = format!("target remote {}", debugged.socket.display());
    let mut words: Vec<OsString> = ["gdb", "-q"].map(OsString::from).to_vec();
    words.extend(debugged.symbols.as_ref().map(|path| path.clone().into_os_string()));
    // A guest that was not started by it cannot be: so the architecture is told where there are no symbols.
    words.extend(["-ex", "set architecture i386:x86-64", "-ex", &target].map(OsString::from));
    words.extend(args.more.iter().cloned());
    let texts: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if args.json {
        let told = json!({"socket": debugged.socket, "symbols": debugged.symbols, "command": texts});
        print(&format!("{told:#}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let installed = Command::new("gdb").arg("--version").output().is_ok();
    if args.print || !installed {
        if !args.print {
            eprintln!("gdb is not installed (package gdb); this is the command for where it is:");
        }
        let quoted: Vec<String> = texts.iter().map(|word| quote(word)).collect();
        print(&format!("{}\n", quoted.join(" ")))?;
        return Ok(ExitCode::SUCCESS);
    }
    // It becomes GDB: what is typed, and Ctrl-C, is GDB's.
    Err(Command::new(&words[0]).args(&words[1..]).exec()).context("execute gdb")
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_word_reaches_the_shell_s_program_whole() {
        assert_eq!(quote("/run/lab/a.gdb"), "/run/lab/a.gdb");
        assert_eq!(quote("target remote x"), "'target remote x'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
