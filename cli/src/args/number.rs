//! Numbers on the command line. Errors name the range.

use std::ops::RangeInclusive;

use glm_model::{Error, GROUPS, MAX_THREADS, Sampling};

use crate::failure::chinese;
use crate::messages;

/// A whole number of at least 1.
pub fn positive(text: &str) -> Result<usize, String> {
    whole(1..=u64::MAX)(text)
}

/// A number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    whole(1..=MAX_THREADS as u64)(text)
}

/// A parser of whole numbers in `range`. An end of `u64::MAX` means that there is no limit.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            match (range.start(), range.end()) {
                (least, &u64::MAX) => messages::at_least(least),
                (least, most) => messages::between(least, most),
            }
        })
    }
}

/// An amount of memory: a number of bytes, or a number with kB, MB, GB or TB.
pub fn memory(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit.trim_start().to_ascii_uppercase().trim_end_matches('B') {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        _ => return Err(messages::not_memory()),
    };
    let whole = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    let part = || number.parse().ok().map(|number: f64| number * unit as f64);
    // Above 2^53 a number with a fraction is not exact.
    let part = || part().filter(|bytes| *bytes < 9e15).map(|bytes| bytes as u64);
    whole.or_else(part).ok_or_else(messages::not_memory)
}

/// Bits of a quantized weight.
pub fn bits(text: &str) -> Result<usize, String> {
    one_of(&[4, 8], text)
}

/// Weights that share a scale.
pub fn group(text: &str) -> Result<usize, String> {
    one_of(&GROUPS, text)
}

/// Bits of a weight on average, within what the formats of large matrices give. The library knows what those of a model give.
pub fn target_bits(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|bits| (4.25..=8.5).contains(bits));
    let range = || chinese::range("from 4.25 to 8.5".to_owned());
    number.ok_or_else(|| messages::number_must_be(range()))
}

fn one_of(choices: &[usize], text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| choices.contains(number));
    number.ok_or_else(|| {
        let choices: Vec<_> = choices.iter().map(ToString::to_string).collect();
        messages::one_of(choices.join(", "))
    })
}

/// A parser of numbers that `set` makes a sampling setting. The library knows the range.
pub fn sampling(set: fn(&mut Sampling, f32)) -> impl Fn(&str) -> Result<f32, String> + Clone {
    move |text| {
        // What is no number is outside every range.
        let number = text.parse().unwrap_or(f32::NAN);
        let mut sampling = Sampling::greedy();
        set(&mut sampling, number);
        match sampling.validate() {
            Ok(()) => Ok(number),
            Err(Error::Setting { range, .. }) => {
                Err(messages::number_must_be(chinese::range(range)))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_a_range() {
        let threads = whole::<usize>(1..=1024);
        assert_eq!((threads("1"), threads("1024")), (Ok(1), Ok(1024)));
        for wrong in ["0", "1025", "-1", "1.5", "", "x", "99999999999999999999"] {
            assert_eq!(threads(wrong).unwrap_err(), "must be a whole number from 1 to 1024");
        }
        assert_eq!(positive("0").unwrap_err(), "must be a whole number, at least 1");
        assert_eq!(whole::<u64>(0..=u64::MAX)("18446744073709551615"), Ok(u64::MAX));
        assert!(whole::<u8>(0..=u64::MAX)("256").is_err());
    }

    #[test]
    fn memory_has_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("2GB", 2_000_000_000),
            ("1.5 gb", 1_500_000_000),
            ("300M", 300_000_000),
            ("7kB", 7_000),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GB", "-1", "1.5.5MB", "2 bits", "99999999999TB", "1e9", "inf"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn formats_are_those_of_the_library() {
        assert_eq!((bits("4"), bits("8"), group("128")), (Ok(4), Ok(8), Ok(128)));
        assert_eq!(bits("5").unwrap_err(), "must be one of 4, 8");
        assert_eq!(group("x").unwrap_err(), "must be one of 32, 64, 128");
    }

    #[test]
    fn settings_have_the_range_of_the_library() {
        let temperature = sampling(|sampling, number| sampling.temperature = number);
        assert_eq!(temperature("0.5"), Ok(0.5));
        assert_eq!(temperature("-1").unwrap_err(), "must be a number from 0 to 100");
        assert_eq!(temperature("warm").unwrap_err(), "must be a number from 0 to 100");
        assert!(temperature("nan").is_err());
    }
}
