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

/// Bits of a quantized weight.
pub fn bits(text: &str) -> Result<usize, String> {
    one_of(&[4, 8], text)
}

/// Weights that share a scale.
pub fn group(text: &str) -> Result<usize, String> {
    one_of(&GROUPS, text)
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
