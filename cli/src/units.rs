//! Numbers in readable form, and columns.

use std::time::Duration;

pub use glm_model::{readable_bytes as bytes, readable_parameters as parameters};
use unicode_width::UnicodeWidthStr;

/// `3.1 s`
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// `1 token`, `2 tokens`
pub fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// `text` at the left of a column of `width`. Chinese characters are two wide.
pub fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// `text` at the right of a column of `width`.
pub fn right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "token"), "1 token");
        assert_eq!(count(0, "token"), "0 tokens");
    }

    #[test]
    fn columns_have_the_width_of_the_screen() {
        assert_eq!((left("层数", 6), right("层数", 6)), ("层数  ".into(), "  层数".into()));
        assert_eq!(left("layers", 4), "layers");
    }
}
