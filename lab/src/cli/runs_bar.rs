//! How far a comparison is: a bar with the time left, on standard error, and nothing where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lab::measure::plan::Wall;
use lab::measure::session::{self, Step};
use terminal_size::{Width, terminal_size};

/// How wide reports are: as the terminal, but no wider than what a line's eye can follow; 100 into a pipe.
pub fn width() -> usize {
    terminal_size().map_or(100, |(Width(width), _)| usize::from(width).min(140))
}

/// The bar.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:22} {wide_bar} {pos}/{len}  {prefix}");
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    pub fn show(&mut self, progress: session::Progress) {
        let wall = |wall| match wall {
            Wall::Container => "container",
            Wall::Vm => "VM",
        };
        self.0.set_length(progress.total as u64);
        self.0.set_position(progress.done as u64);
        // Drawn only at the steps between the runs, so that no run shares the processor with a turning wheel.
        self.0.set_prefix(progress.left.map_or_else(String::new, left));
        self.0.set_message(match progress.step {
            Step::WarmUp(of) => format!("warming up, {}", wall(of)),
            Step::Run(of) => format!("timing, {}", wall(of)),
            Step::Memory(of) => format!("idle memory, {}", wall(of)),
            Step::Done => "done".into(),
        });
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// The time left, in words.
pub fn left(left: Duration) -> String {
    let seconds = left.as_secs_f64().ceil() as u64;
    if seconds < 60 {
        format!("{seconds} s left")
    } else {
        format!("{} min {} s left", seconds / 60, seconds % 60)
    }
}
