//! The small tools that a class needs to look around. Each does what its manual page's first paragraph says, no more.

mod boot;
mod content;
mod folders;
mod identity;
mod init;
mod processes;

pub use boot::boot;
pub use content::{cat, head, wc};
pub use folders::{ls, mkdir, rm, touch};
pub use identity::{env, hostname, id, pwd, stty, tty, uname};
pub use init::init;
pub use processes::{kill, mount, ps, sleep};

use freestanding::{Args, Fd};

use crate::output::say;

/// Prints its arguments.
pub fn echo(args: Args) -> u8 {
    let mut rest = args.iter().skip(1).peekable();
    let newline = rest.next_if(|&first| first == c"-n").is_none();
    let mut line = freestanding::Text::<4096>::new();
    let mut first = true;
    for text in rest {
        let space: &[u8] = if first { b"" } else { b" " };
        first = false;
        if line.bytes().len() + text.count_bytes() + 2 > 4096 {
            // Too long for one write: what there is goes first.
            if Fd::OUTPUT.write_all(line.bytes()).is_err() || Fd::OUTPUT.write_all(space).is_err() {
                return 1;
            }
            line.clear();
            if Fd::OUTPUT.write_all(text.to_bytes()).is_err() {
                return 1;
            }
        } else {
            line.text(space).text(text.to_bytes());
        }
    }
    say(&[line.bytes(), if newline { b"\n" } else { b"" }])
}
