//! kill, mount, ps, sleep.

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::sys::memory::Array;
use freestanding::sys::process::{self, Pid};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::time::Duration;
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Text};

use crate::output::{complain, failed, say};

/// Sends a signal to processes.
pub fn kill(args: Args) -> u8 {
    let named = args.get(1).and_then(|text| text.to_bytes().strip_prefix(b"-"));
    let (signal, pids) = match named {
        None => (Some(Signal::TERM), args.skip(1)),
        Some(b"s") => (args.get(2).and_then(|name| Signal::from_name(name.to_bytes())), args.skip(3)),
        Some(name) => (Signal::from_name(name), args.skip(2)),
    };
    let Some(signal) = signal else { return complain("kill", named.unwrap_or(b""), "no such signal", 2) };
    if pids.is_empty() {
        return complain("kill", b"PID", "which process?", 2);
    }
    let mut code = 0;
    for text in pids.iter().map(CStr::to_bytes) {
        code |= match parse_number(text).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0) {
            None => complain("kill", text, "no process number", 1),
            Some(pid) => {
                process::kill(Pid(pid), signal).map_or_else(|errno| failed("kill", text, errno), |()| 0)
            }
        };
    }
    code
}

/// More mounts than fit so many bytes are cut off.
const MOUNTS: usize = 256 * 1024;

/// Lists mounts: proc_pid_mounts(5), shown as mount(8) does.
pub fn mount(args: Args) -> u8 {
    if args.len() > 1 {
        return complain("mount", b"arguments", "it only lists mounts", 2);
    }
    let Ok(mut buffer) = Array::<u8>::new(MOUNTS) else { return failed("mount", b"mmap", Errno::NOMEM) };
    let len = match read_whole(c"/proc/self/mounts", &mut buffer) {
        Ok(len) => len,
        Err(errno) => return failed("mount", b"/proc/self/mounts", errno),
    };
    for line in buffer.get(..len).unwrap_or(&[]).split(|&byte| byte == b'\n') {
        let mut words = line.split(|&byte| byte == b' ');
        if let (Some(source), Some(target), Some(kind), Some(how)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            say(&[source, b" on ", target, b" type ", kind, b" (", how, b")\n"]);
        }
    }
    0
}

fn read_whole(path: &CStr, buffer: &mut [u8]) -> freestanding::sys::Result<usize> {
    let file = file::open(path, flags::READ, 0)?;
    let mut len = 0;
    loop {
        match file.read(buffer.get_mut(len..).unwrap_or(&mut []))? {
            0 => return Ok(len),
            count => len += count,
        }
    }
}

/// Lists processes.
pub fn ps(_args: Args) -> u8 {
    let folder = match file::open(c"/proc", flags::READ | flags::DIRECTORY, 0) {
        Ok(folder) => folder,
        Err(errno) => return failed("ps", b"/proc", errno),
    };
    say(&[b"    PID  PPID S    RSS-KB COMMAND\n"]);
    let mut buffer = [0; 4096];
    loop {
        match folder.directory(&mut buffer) {
            Ok([]) => return 0,
            Ok(part) => file::entries(part).filter_map(|name| parse_number(name.to_bytes())).for_each(show),
            Err(errno) => return failed("ps", b"/proc", errno),
        }
    }
}

/// Prints one process; what is gone by now is left out.
fn show(pid: u64) {
    let (mut path, mut status) = (Text::<64>::new(), [0; 4096]);
    let file = path.text("/proc/").number(pid).text("/status").c_str();
    let Some(Ok(len)) = file.map(|file| read_whole(file, &mut status)) else { return };
    let status = status.get(..len).unwrap_or(&[]);
    let mut line = Text::<512>::new();
    line.padded(pid, 7).padded(number_in(status, b"PPid:"), 6).text(" ");
    line.text(field(status, b"State:").get(..1).unwrap_or(b"?"))
        .padded(number_in(status, b"VmRSS:"), 10)
        .text(" ");

    let (mut path, mut command) = (Text::<64>::new(), [0; 256]);
    let file = path.text("/proc/").number(pid).text("/cmdline").c_str();
    let len = file.map_or(Ok(0), |file| read_whole(file, &mut command)).unwrap_or(0);
    let command = command.get_mut(..len).unwrap_or(&mut []);
    for byte in command.iter_mut().filter(|byte| **byte == 0) {
        *byte = b' ';
    }
    if command.is_empty() {
        line.text("[").text(field(status, b"Name:")).text("]"); // a kernel thread
    } else {
        line.text(command.trim_ascii_end());
    }
    say(&[line.text("\n").bytes()]);
}

/// The value of a line of /proc/PID/status: proc_pid_status(5).
fn field<'a>(status: &'a [u8], name: &[u8]) -> &'a [u8] {
    let mut lines = status.split(|&byte| byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name)).unwrap_or(&[]).trim_ascii()
}

fn number_in(status: &[u8], name: &[u8]) -> u64 {
    field(status, name).split(|&byte| byte == b' ').next().and_then(parse_number).unwrap_or(0)
}

/// Waits, unless it is told to end.
pub fn sleep(args: Args) -> u8 {
    let Some(time) = args.get(1).and_then(|text| seconds(text.to_bytes())) else {
        return complain("sleep", b"SECONDS", "must be a number such as 2 or 0.5", 2);
    };
    let ends = Set::of(&[Signal::TERM, Signal::INT]);
    let _ = signal::set_blocked(ends);
    match signal::wait_for(ends, Some(time)) {
        Ok(Some(signal)) => 128 + signal.number() as u8,
        _ => 0,
    }
}

/// A decimal number of seconds, with at most nine digits after the point.
fn seconds(text: &[u8]) -> Option<Duration> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = parts.next().filter(|whole| !whole.is_empty()).map_or(Some(0), parse_number)?;
    let fraction = match parts.next() {
        None => 0,
        Some(digits) if digits.len() <= 9 => parse_number(digits)? * 10u64.pow(9 - digits.len() as u32),
        Some(_) => return None,
    };
    Some(Duration::from_nanos(whole.saturating_mul(1_000_000_000).saturating_add(fraction)))
        .filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(seconds(b"2"), Some(Duration::from_millis(2000)));
        assert_eq!(seconds(b"0.25"), Some(Duration::from_millis(250)));
        assert_eq!(seconds(b".5"), Some(Duration::from_millis(500)));
        for wrong in [&b""[..], b"x", b"1.x", b"-1", b"1.", b"1.0000000001"] {
            assert_eq!(seconds(wrong), None);
        }
    }

    #[test]
    fn a_status_file_is_read_by_the_name_of_its_lines() {
        let status = b"Name:\tsh\nState:\tS (sleeping)\nPPid:\t12\nVmRSS:\t     40 kB\n";
        assert_eq!(field(status, b"Name:"), b"sh");
        assert_eq!((number_in(status, b"PPid:"), number_in(status, b"VmRSS:")), (12, 40));
        assert_eq!(number_in(status, b"None:"), 0);
    }
}
