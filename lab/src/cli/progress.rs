//! Progress bars, on a terminal only, and only for what takes long enough to wonder.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lab::image::{Progress, Step};

/// What is over before this needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// One bar for each step, on standard error. Where that is no terminal, nothing is drawn.
#[derive(Default)]
pub struct Bars(MultiProgress);

impl Progress for Bars {
    fn begin(&self, label: &str, total: Option<u64>) -> Box<dyn Step> {
        Box::new(Bar {
            all: self.0.clone(),
            label: label.to_owned(),
            total,
            begun: Instant::now(),
            done: AtomicU64::new(0),
            shown: OnceLock::new(),
        })
    }
}

struct Bar {
    all: MultiProgress,
    label: String,
    total: Option<u64>,
    begun: Instant,
    done: AtomicU64,
    shown: OnceLock<ProgressBar>,
}

impl Bar {
    fn show(&self) -> ProgressBar {
        let (bar, template) = match self.total {
            Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"),
            None => (ProgressBar::no_length(), "{msg} {spinner} {bytes} {bytes_per_sec}"),
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        self.all.add(bar.with_style(style).with_message(self.label.clone()))
    }
}

impl Step for Bar {
    fn advance(&self, bytes: u64) {
        // Several threads may count at once; each draws what it last knew.
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.begun.elapsed() >= PATIENCE {
            self.shown.get_or_init(|| self.show()).set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.shown.get() {
            bar.finish_and_clear();
        }
    }
}
