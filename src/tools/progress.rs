//! A progress bar for whoever watches: on standard error, and only when that is a terminal.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Pieces below this size are not worth a redraw.
const TICK: u64 = 1 << 16;

/// How far one step of a tool is.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Counted and not yet shown.
    pending: u64,
}

impl Progress {
    /// Begins a step of `total` bytes.
    pub(super) fn bytes(label: &'static str, total: u64) -> Self {
        Self::begin(label, total, "{prefix:14} {wide_bar} {bytes}/{total_bytes} {eta}")
    }

    /// Begins a step of `total` conversations.
    pub(super) fn conversations(label: &'static str, total: u64) -> Self {
        Self::begin(label, total, "{prefix:14} {wide_bar} {pos}/{len} {eta}")
    }

    /// Begins a step that takes so long.
    pub(super) fn moments(label: &'static str, total: Duration) -> Self {
        Self::begin(label, millis(total), "{prefix:14} {wide_bar} {msg} {eta}")
    }

    /// A step that takes its time is so far, and has this to say.
    pub(super) fn reach(&self, spent: Duration, message: impl Into<Cow<'static, str>>) {
        if !self.bar.is_hidden() {
            self.bar.set_message(message);
            self.bar.set_position(millis(spent));
        }
    }

    fn begin(label: &'static str, total: u64, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), pending: 0 };
        }
        let style = ProgressStyle::with_template(template).expect("the templates above are valid");
        let bar = ProgressBar::new(total).with_style(style).with_prefix(label);
        Self { bar, pending: 0 }
    }

    /// So much more is done.
    pub(super) fn add(&mut self, done: u64) {
        self.pending += done;
        if self.pending >= TICK {
            self.bar.inc(std::mem::take(&mut self.pending));
        }
    }

    /// So many more are done.
    pub(super) fn many(&self, done: u64) {
        self.bar.inc(done);
    }

    /// Lets something else write a line for each of these, if there are any.
    pub(super) fn aside_if<T>(&self, lines: Vec<T>, write: impl FnMut(T)) {
        if !lines.is_empty() {
            self.aside(|| lines.into_iter().for_each(write));
        }
    }

    /// Lets something else write lines.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
