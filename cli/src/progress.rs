//! Progress bars, if stderr is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {eta} left";
const PER_CENT: &str = "{msg} {pos} %";
const STEP: &str = "{wide_msg}";

/// A bar for work that is measured in bytes.
pub fn bytes() -> ProgressBar {
    styled(BYTES)
}

/// A bar for reading a prompt. Its position is in per cent.
pub fn reading(tokens: usize) -> ProgressBar {
    let bar = styled(PER_CENT);
    bar.set_length(100);
    bar.set_message(format!("reading the prompt of {tokens} tokens"));
    bar
}

/// A line that says what is being done.
pub fn step() -> ProgressBar {
    styled(STEP)
}

/// Sets a bar of [`reading`] to a fraction.
pub fn set(bar: &ProgressBar, fraction: f32) {
    bar.set_position((fraction * 100.0) as u64);
}

/// A bar on stderr. It is not drawn if that is not a terminal.
fn styled(template: &str) -> ProgressBar {
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
        for template in [BYTES, PER_CENT, STEP] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
