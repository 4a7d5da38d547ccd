//! The progress of downloads: one bar over all files.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::output::note;
use crate::progress;

/// How often the bar is drawn at least.
const TICK: Duration = Duration::from_millis(250);

/// How many bytes of all files are there. Threads share it.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of `total` bytes, if stderr is a terminal.
    pub fn new(total: u64) -> Self {
        let bar = progress::download();
        bar.set_length(total);
        // Also while nothing arrives.
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// No bar: for files that are too small to wait for.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Bytes that were here before: they do not count as speed.
    pub fn found(&self, bytes: u64) {
        self.0.inc(bytes);
        self.0.reset_eta();
    }

    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Bytes that were counted and are lost.
    pub fn lost(&self, bytes: u64) {
        self.0.dec(bytes);
    }

    /// A line on stderr, above the bar.
    pub fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }

    /// What is being done.
    pub fn message(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
