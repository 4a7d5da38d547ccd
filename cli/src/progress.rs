//! Progress bars, if stderr is a terminal.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::messages;
use crate::tty;

/// Progress is shown of work that takes longer.
pub const NOTICEABLE: Duration = Duration::from_millis(300);

const BYTES: &str = "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {eta} left";
const DOWNLOAD: &str = "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
const REQUESTS: &str = "{wide_bar} {pos} of {len}, {msg}, {eta} left";
const PER_CENT: &str = "{msg} {pos} %";
const STEP: &str = "{wide_msg}";

/// A bar for work that is measured in bytes.
pub fn bytes() -> ProgressBar {
    styled(BYTES)
}

/// A bar for downloads.
pub fn download() -> ProgressBar {
    styled(DOWNLOAD)
}

/// A bar for requests.
pub fn requests(total: u64) -> ProgressBar {
    let bar = styled(REQUESTS);
    bar.set_length(total);
    bar
}

/// Shows how much of a prompt was read, once that has taken a noticeable time.
pub struct Reading {
    started: Instant,
    tokens: usize,
    bar: OnceLock<ProgressBar>,
}

/// A bar for reading a prompt.
pub fn reading(tokens: usize) -> Reading {
    Reading { started: Instant::now(), tokens, bar: OnceLock::new() }
}

/// A line that says what is being done.
pub fn step() -> ProgressBar {
    styled(STEP)
}

/// Sets a bar of [`reading`] to a fraction.
pub fn set(reading: &Reading, fraction: f32) {
    if reading.started.elapsed() > NOTICEABLE {
        let bar = reading.bar.get_or_init(|| {
            let bar = styled(PER_CENT);
            bar.set_length(100);
            bar.set_message(messages::reading_prompt(reading.tokens));
            bar
        });
        bar.set_position((fraction * 100.0) as u64);
    }
}

impl Reading {
    pub fn finish_and_clear(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// A bar on stderr. It is not drawn if that is not a terminal, or one that cannot move its cursor.
fn styled(template: &str) -> ProgressBar {
    if tty::is_dumb() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [BYTES, DOWNLOAD, REQUESTS, PER_CENT, STEP] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
