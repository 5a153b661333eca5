//! Progress of long work, on stderr, if that is a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval of drawing a bar while entries are timed. It is long, because drawing allocates and
/// takes the submitter's time.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// Whether progress is shown.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    pub(crate) fn new(json: bool) -> Self {
        Self { shown: !json && std::io::stderr().is_terminal() }
    }

    /// A spinner for work of unknown length.
    pub(crate) fn spinner(self, what: &str) -> Bar {
        let bar = self.bar_of(None, "{spinner} {msg} ({elapsed})");
        if self.shown {
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Bar { bar, drawn: Instant::now() }
    }

    /// A bar for work of `entries` steps.
    pub(crate) fn entries(self, what: &str, entries: u64) -> Bar {
        let bar = self.bar_of(Some(entries), "{msg} {wide_bar} {human_pos}/{human_len}");
        if self.shown {
            bar.set_message(what.to_owned());
        }
        Bar { bar, drawn: Instant::now() }
    }

    /// A bar for reading `bytes` bytes; `None` if their number is not known.
    pub(crate) fn bytes(self, what: &str, bytes: Option<u64>) -> Bar {
        let template = match bytes {
            Some(_) => {
                "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}"
            }
            None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        };
        let bar = self.bar_of(bytes, template);
        if self.shown {
            bar.set_message(what.to_owned());
        }
        Bar { bar, drawn: Instant::now() }
    }

    fn bar_of(self, len: Option<u64>, template: &str) -> ProgressBar {
        let target = match self.shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(len, target);
        // The template is a constant that parses. Without it the default style is shown.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }
}

/// A bar that is removed when it is dropped.
pub(crate) struct Bar {
    bar: ProgressBar,
    drawn: Instant,
}

impl Bar {
    /// Moves the bar, unless it was moved just before.
    pub(crate) fn at(&mut self, position: u64) {
        if !self.bar.is_hidden() && self.drawn.elapsed() >= DRAW_EVERY {
            self.bar.set_position(position);
            self.drawn = Instant::now();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
