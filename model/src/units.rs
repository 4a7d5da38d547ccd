//! Sizes as people read them.

/// Bytes: `12.3 GB`, with three digits, in powers of a thousand.
pub fn readable_bytes(bytes: u64) -> String {
    three_digits(bytes, ["B", "kB", "MB", "GB", "TB"])
}

/// Parameters of a model: `6.17 B`, as [`readable_bytes`], in thousands, millions, billions.
pub fn readable_parameters(parameters: u64) -> String {
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
            assert_eq!(readable_bytes(number), expected);
        }
    }

    #[test]
    fn parameters_are_counted_in_billions() {
        for (number, expected) in [(12, "12"), (6_290_000, "6.29 M"), (6_174_015_488, "6.17 B")] {
            assert_eq!(readable_parameters(number), expected);
        }
    }
}
