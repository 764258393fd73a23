//! The two start-ups as waterfalls in a terminal.
//!
//! First both on one clock: there a container is a sliver beside a booting kernel, and that is the point. Then each in
//! steps, on a scale of its own that is told.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::figures;
use crate::measure::phases::{self, Group, Phase};
use crate::measure::plan::Wall;
use crate::measure::record::{Record, WallRecord};

/// The median run of one wall.
pub struct Run<'a> {
    /// Which wall.
    pub wall: &'a WallRecord,
    /// Its place in the order of all runs, by which it is found among the samples.
    pub sequence: u32,
    /// Its phases.
    pub phases: Vec<Phase>,
}

impl<'a> Run<'a> {
    /// The median run of a wall.
    pub fn median_of(wall: &'a WallRecord) -> Option<Self> {
        let sample = phases::median_run(wall.counted())?;
        Some(Self { wall, sequence: sample.sequence, phases: phases::of(sample) })
    }

    /// Milliseconds from spawning to the end.
    pub fn total(&self) -> f64 {
        self.phases.last().map_or(0.0, |phase| phase.to)
    }
}

/// The median run of each wall that has one.
pub fn runs(record: &Record) -> Vec<Run<'_>> {
    record.walls.iter().filter_map(Run::median_of).collect()
}

/// A wall's name as headings have it.
pub const fn title(wall: Wall) -> &'static str {
    match wall {
        Wall::Container => "container",
        Wall::Vm => "VM",
    }
}

/// Each group by a glyph and a colour: the glyph alone must do where there are no colours.
const fn look(group: Group) -> (char, Style) {
    match group {
        Group::SetUp => ('▒', AnsiColor::Blue.on_default()),
        Group::Kernel => ('█', AnsiColor::Magenta.on_default()),
        Group::Guest => ('▓', AnsiColor::Cyan.on_default()),
        Group::Workload => ('▚', AnsiColor::Green.on_default()),
        Group::CleanUp => ('░', AnsiColor::Yellow.on_default()),
    }
}

const TIME_WIDTH: usize = 9;
const DIM: Style = Style::new().dimmed();

/// Writes both for a terminal of this width.
pub fn render(record: &Record, width: usize) -> String {
    draw(&runs(record), width)
}

/// The same of any runs.
pub fn draw(runs: &[Run<'_>], width: usize) -> String {
    let mut text = String::new();
    let Some(longest) = runs.iter().map(Run::total).reduce(f64::max).filter(|&total| total > 0.0) else {
        return text;
    };
    if runs.len() > 1 {
        one_clock(&mut text, runs, longest, width);
    }
    for run in runs {
        steps(&mut text, run, longest, width);
    }
    legend(&mut text, runs);
    text
}

fn heading(text: &mut String, title: &str) {
    let style = Style::new().bold();
    let _ = writeln!(text, "{style}{title}{style:#}");
}

/// Both runs, one bar each, on the scale of the longer one.
fn one_clock(text: &mut String, runs: &[Run<'_>], longest: f64, width: usize) {
    heading(text, "Median runs on one clock");
    let name_width = runs.iter().map(|run| title(run.wall.wall).width()).max().unwrap_or(0);
    let columns = width.saturating_sub(name_width + TIME_WIDTH + 3).max(10);
    for run in runs {
        let mut bar = String::new();
        let mut used = 0;
        for phase in &run.phases {
            let end = column(phase.to, longest, columns).max(used);
            let (glyph, style) = look(phase.group);
            let _ = write!(bar, "{style}{}{style:#}", glyph.to_string().repeat(end - used));
            used = end;
        }
        if used == 0 {
            // Too short for a cell: still something that can be seen.
            bar = "▏".into();
            used = 1;
        }
        let name = title(run.wall.wall);
        let _ = writeln!(
            text,
            "{name}{} {bar}{} {:>TIME_WIDTH$}",
            " ".repeat(name_width - name.width()),
            " ".repeat(columns.saturating_sub(used)),
            figures::time(run.total()),
        );
    }
    text.push('\n');
}

/// One run, a line a step.
fn steps(text: &mut String, run: &Run<'_>, longest: f64, width: usize) {
    let total = run.total();
    let magnified = longest / total;
    let scale = if magnified >= 1.5 {
        format!("; magnified {}×", figures::digits(magnified))
    } else {
        String::new()
    };
    let obtained = run.wall.obtained.label();
    heading(text, &format!("{} ({obtained}), step by step{scale}", title(run.wall.wall)));
    let name_width = run.phases.iter().map(|phase| phase.end.step().width()).max().unwrap_or(0);
    // Beside this run's time, the median of the step over all runs: whether this run is typical in each of its steps.
    let medians = phases::medians(run.wall.counted());
    let of_all = |phase: &Phase| {
        let median = medians.iter().find(|row| row.mark == phase.end.name());
        median.map_or_else(String::new, |row| figures::time(row.median))
    };
    let columns = width.saturating_sub(name_width + 2 * TIME_WIDTH + 4);
    let _ = writeln!(
        text,
        "{:1$}{DIM}{2:>TIME_WIDTH$} {3:>TIME_WIDTH$}{DIM:#}",
        "",
        name_width + 3 + if columns < 8 { 0 } else { columns },
        "this run",
        "median"
    );
    for phase in &run.phases {
        let name = phase.end.step();
        let pad = " ".repeat(name_width - name.width());
        let time = format!(
            "{:>TIME_WIDTH$} {DIM}{:>TIME_WIDTH$}{DIM:#}",
            figures::time(phase.duration()),
            of_all(phase)
        );
        if columns < 8 {
            let _ = writeln!(text, "  {name}{pad} {time}");
            continue;
        }
        let from = column(phase.from, total, columns).min(columns - 1);
        let to = column(phase.to, total, columns);
        let (glyph, style) = look(phase.group);
        let bar = if to > from { glyph.to_string().repeat(to - from) } else { "▏".into() };
        let rest = " ".repeat(columns.saturating_sub(from + (to - from.min(to)).max(1)));
        let _ = writeln!(text, "  {name}{pad} {}{style}{bar}{style:#}{rest}{time}", " ".repeat(from));
    }
    text.push('\n');
}

fn legend(text: &mut String, runs: &[Run<'_>]) {
    let seen = |group: &Group| runs.iter().any(|run| run.phases.iter().any(|phase| phase.group == *group));
    let entries = Group::ALL.into_iter().filter(seen).map(|group| {
        let (glyph, style) = look(group);
        format!("{style}{glyph}{glyph}{style:#} {}", group.label())
    });
    let _ = writeln!(text, "{}", entries.collect::<Vec<_>>().join("   "));
}

/// The column at which a moment lies.
fn column(at: f64, whole: f64, columns: usize) -> usize {
    // A mark before the spawn (a clock that lies) must not leave the picture.
    ((at / whole * columns as f64).round().max(0.0) as usize).min(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixtures;

    fn plain(record: &Record, width: usize) -> String {
        anstream::adapter::strip_str(&render(record, width)).to_string()
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let record = fixtures::record(7);
        for width in [60, 80, 100, 200] {
            let text = plain(&record, width);
            let steps =
                text.lines().filter(|line| !line.contains("set-up by") && !line.contains("step by step"));
            for line in steps {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn on_one_clock_the_bars_are_as_long_as_the_runs() {
        let text = plain(&fixtures::record(7), 100);
        let filled = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name) && !line.contains("step")).unwrap();
            line.chars().filter(|c| "▒█▓▚░".contains(*c)).count() as f64
        };
        let ratio = filled("VM") / filled("container");
        assert!((9.0..16.0).contains(&ratio), "12.6 by the fixture, {ratio} drawn");
    }

    #[test]
    fn every_step_of_a_run_has_a_line_and_each_starts_where_the_one_before_ended() {
        let record = fixtures::record(7);
        let text = plain(&record, 120);
        for run in runs(&record) {
            assert!(run.phases.iter().all(|phase| text.contains(phase.end.step())));
        }
        let start = |step: &str| {
            let line = text.lines().find(|line| line.contains(step)).unwrap();
            line.chars().position(|c| "▒█▓▚░▏".contains(c)).unwrap()
        };
        assert!(start("kernel: core set-up") < start("kernel: initcalls"));
        assert!(start("kernel: initcalls") < start("PID 1: mount root"));
    }

    #[test]
    fn one_wall_alone_is_drawn_and_none_is_nothing() {
        let record = fixtures::without(fixtures::record(7), Wall::Vm);
        let text = plain(&record, 80);
        assert!(text.contains("container (host kernel)") && !text.contains("one clock"));
        assert_eq!(render(&fixtures::without(record, Wall::Container), 80), "");
    }

    #[test]
    fn a_terminal_too_narrow_for_bars_still_lists_the_steps() {
        assert!(plain(&fixtures::record(7), 30).contains("clone into namespaces"));
    }
}
