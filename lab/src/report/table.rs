//! Columns that line up in a terminal, go below their row's name where that helps, and fall apart into blocks where the
//! terminal is too narrow for that as well.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// Rows of the same number of cells; the first cell of a row names it.
#[derive(Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    /// A second line of headings, such as by what a column was obtained.
    notes: Vec<String>,
    rows: Vec<(Style, Vec<String>)>,
}

const GAP: usize = 2;
/// How far cells stand in below their row's name.
const NAMES_ABOVE: usize = 6;

impl Table {
    /// With these headings; the first is that of the names.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        let headings: Vec<_> = headings.into_iter().map(Into::into).collect();
        Self { notes: vec![String::new(); headings.len()], headings, rows: Vec::new() }
    }

    /// With a note under each heading; it stays with its column however narrow the terminal is.
    #[must_use]
    pub fn with_notes<S: Into<String>>(mut self, notes: impl IntoIterator<Item = S>) -> Self {
        self.notes = notes.into_iter().map(Into::into).collect();
        self.notes.resize(self.headings.len(), String::new());
        self
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: Into<String>>(&mut self, style: Style, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<_> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.headings.len(), String::new());
        self.rows.push((style, cells));
    }

    /// Writes it for a terminal of this width.
    pub fn render(&self, width: usize) -> String {
        let columns: Vec<_> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().map(|(_, row)| row[column].width());
                cells.chain([self.headings[column].width(), self.notes[column].width()]).max().unwrap_or(0)
            })
            .collect();
        let total = columns.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
        let without_names = total - columns.first().map_or(0, |names| names + GAP) + NAMES_ABOVE;
        if total <= width {
            self.aligned(&columns)
        } else if without_names <= width && columns.len() > 3 {
            self.below_names(&columns)
        } else {
            self.stacked()
        }
    }

    /// Each row's name on a line of its own, its cells lined up below.
    fn below_names(&self, columns: &[usize]) -> String {
        let cells = |row: &[String]| {
            let cells = row.iter().zip(columns).skip(1);
            let line = cells.fold(" ".repeat(NAMES_ABOVE), |line, (cell, column)| {
                line + cell + &" ".repeat(column + GAP - cell.width())
            });
            line.trim_end().to_owned()
        };
        let bold = Style::new().bold();
        let mut text =
            format!("{bold}{}{bold:#}\n{bold}{}{bold:#}\n", self.headings[0], cells(&self.headings));
        if self.notes.iter().any(|note| !note.is_empty()) {
            let _ = writeln!(text, "{}", cells(&self.notes));
        }
        for (style, row) in &self.rows {
            let _ = writeln!(text, "{style}{}{style:#}\n{style}{}{style:#}", row[0], cells(row));
        }
        text
    }

    fn aligned(&self, columns: &[usize]) -> String {
        let mut text = String::new();
        let heading = (Style::new().bold(), &self.headings);
        let notes = self.notes.iter().any(|note| !note.is_empty()).then_some((Style::new(), &self.notes));
        let rows = self.rows.iter().map(|(style, row)| (*style, row));
        for (style, row) in std::iter::once(heading).chain(notes).chain(rows) {
            let mut line = String::new();
            for (cell, column) in row.iter().zip(columns) {
                let _ = write!(line, "{cell}{}", " ".repeat(column + GAP - cell.width()));
            }
            let _ = writeln!(text, "{style}{}{style:#}", line.trim_end());
        }
        text
    }

    /// One block a row: its name, then a line a cell.
    fn stacked(&self) -> String {
        let mut text = String::new();
        for (style, row) in &self.rows {
            let _ = writeln!(text, "{style}{}{style:#}", row[0].trim());
            let columns = self.headings.iter().zip(&self.notes).zip(row);
            for ((heading, note), cell) in columns.skip(1).filter(|(_, cell)| !cell.is_empty()) {
                let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
                let _ = writeln!(text, "  {style}{heading}{note}: {cell}{style:#}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["", "container", "VM"]).with_notes(["", "", "KVM"]);
        table.row(Style::new(), ["start → exit", "9.1 ms", "5.8 s"]);
        table.row(Style::new(), ["µ", "only one"]);
        table
    }

    #[test]
    fn columns_line_up_by_what_is_seen_and_not_by_bytes() {
        let text = anstream::adapter::strip_str(&table().render(80)).to_string();
        assert_eq!(
            text,
            "              container  VM\n                         KVM\nstart → exit  9.1 ms     5.8 s\nµ             only one\n"
        );
    }

    #[test]
    fn cells_go_below_long_names_where_that_makes_them_fit() {
        let mut table = Table::new(["what", "a", "b", "c"]);
        table.row(Style::new(), ["a name that is far too long", "1", "22", "3"]);
        let text = anstream::adapter::strip_str(&table.render(20)).to_string();
        assert_eq!(text, "what\n      a  b   c\na name that is far too long\n      1  22  3\n");
    }

    #[test]
    fn a_narrow_terminal_gets_blocks_and_loses_nothing() {
        let text = anstream::adapter::strip_str(&table().render(20)).to_string();
        assert_eq!(text, "start → exit\n  container: 9.1 ms\n  VM (KVM): 5.8 s\nµ\n  container: only one\n");
    }
}
