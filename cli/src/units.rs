//! Numbers in readable form, and columns.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// `12.3 GB`: three digits, in powers of a thousand.
pub fn bytes(bytes: u64) -> String {
    three_digits(bytes, ["B", "kB", "MB", "GB", "TB"])
}

/// `6.17 B`: as [`bytes`], in thousands, millions, billions.
pub fn parameters(parameters: u64) -> String {
    three_digits(parameters, ["", "k", "M", "B", "T"]).trim_end().to_owned()
}

fn three_digits(number: u64, units: [&str; 5]) -> String {
    let mut amount = number as f64;
    let [smallest, larger @ ..] = units;
    let mut unit = smallest;
    for larger in larger {
        if amount < 999.5 {
            break;
        }
        (amount, unit) = (amount / 1000.0, larger);
    }
    let digits = match amount {
        _ if unit == smallest => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{amount:.digits$} {unit}")
}

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
    fn three_digits() {
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_995, "10.0 kB"),
            (12_345_678_901, "12.3 GB"),
            (123_400_000, "123 MB"),
            (999_600_000, "1.00 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn parameters_are_counted_in_billions() {
        for (number, expected) in [(12, "12"), (6_290_000, "6.29 M"), (6_174_015_488, "6.17 B")] {
            assert_eq!(parameters(number), expected);
        }
    }

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
