//! Colours: only on a terminal, never where NO_COLOR is set (no-color.org). `anstream` decides, clap uses it too.

use anstyle::{AnsiColor, Style};
use clap::builder::Styles;

/// Headings of help texts and tables.
pub const HEADING: Style = Style::new().bold();
/// What went wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is to be typed.
pub const LITERAL: Style = AnsiColor::Cyan.on_default();

/// How clap paints its help.
pub const HELP: Styles =
    Styles::styled().header(HEADING).usage(HEADING).literal(LITERAL).error(BAD).invalid(BAD);

/// Prints the one line by which a failed command ends.
pub fn print_error(message: &str) {
    anstream::eprintln!("lab: {BAD}error:{BAD:#} {message}");
}
