//! The commands of a container's life after it was created.

use container::{Container, Status};

use super::arguments::{self, Arguments, Word, needed};
use super::{Failure, Global, Outcome};

const KILL: &str = "\
Send a signal to a container's process.

Usage: kill [OPTIONS] ID [SIGNAL]

  SIGNAL is a signal's name, with or without SIG, or its number (default: TERM)
  -a, --all                   To every process of the container";

const DELETE: &str = "\
Remove a container and all it used.

Usage: delete [OPTIONS] ID

  -f, --force                 Kill it first if it runs; no error if there is none";

/// `start`.
pub(super) fn start(id: &str, global: &Global) -> Outcome {
    global.load(id)?.start()?;
    Ok(0)
}

/// `pause`.
pub(super) fn pause(id: &str, global: &Global) -> Outcome {
    global.load(id)?.pause()?;
    Ok(0)
}

/// `resume`.
pub(super) fn resume(id: &str, global: &Global) -> Outcome {
    global.load(id)?.resume()?;
    Ok(0)
}

/// `kill`.
pub(super) fn kill(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(KILL);
    let (mut all, mut id, mut name) = (false, None, None);
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(word) if id.is_none() => id = Some(word),
            Word::Name(word) => arguments::set(&mut name, word)?,
            Word::Option(option) if matches!(option.as_str(), "-a" | "--all") => all = arguments.flag()?,
            Word::Option(option) => return arguments::unknown(&option),
        }
    }
    let container = global.load(&needed(id)?)?;
    let signal = signal(name.as_deref().unwrap_or("TERM"))?;
    if all {
        container.kill_all(signal)?;
    } else {
        container.kill(signal)?;
    }
    Ok(0)
}

/// `delete`.
pub(super) fn delete(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(DELETE);
    let (mut force, mut id) = (false, None);
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(word) => arguments::set(&mut id, word)?,
            Word::Option(option) if matches!(option.as_str(), "-f" | "--force") => {
                force = arguments.flag()?;
            }
            Word::Option(option) => return arguments::unknown(&option),
        }
    }
    let id = needed(id)?;
    if force {
        Container::delete_forced(&global.root(), &id)?;
        return Ok(0);
    }
    let container = global.load(&id)?;
    if container.status() == Status::Creating {
        let message = format!("container {id} is being created; use --force if its runtime died");
        return Err(Failure::new(message));
    }
    container.delete(false)?;
    Ok(0)
}

/// The number of a signal (`signal(7)`).
fn signal(text: &str) -> Result<i32, Failure> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(position) = NAMES.iter().position(|known| *known == name) {
        return Ok(position as i32 + 1);
    }
    let real_time = |prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok();
    let number = match (real_time("RTMIN+"), real_time("RTMAX-"), name) {
        (Some(offset), ..) => Some(libc::SIGRTMIN() + offset),
        (_, Some(offset), _) => Some(libc::SIGRTMAX() - offset),
        (.., "RTMIN") => Some(libc::SIGRTMIN()),
        (.., "RTMAX") => Some(libc::SIGRTMAX()),
        _ => name.parse().ok(),
    };
    number.filter(|number| (0..=64).contains(number)).ok_or_else(|| {
        Failure::new(format!("signal {text:?}: use a name as TERM or SIGKILL, or a number from 1 to 64"))
    })
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sighup", 1), ("9", 9), ("SIGRTMIN+3", 37), ("SYS", 31)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        assert!(signal("SIGFLY").is_err() && signal("65").is_err());
    }
}
