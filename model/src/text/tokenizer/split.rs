//! Splitting a text into words before byte-pair encoding (pre-tokenization).
//!
//! The patterns of the family are regular expressions with one exception: all end with the look-ahead `\s+(?!\S)|\s+`, which
//! matches a run of white space without its last character, because that belongs to the next word. A pattern comes from an
//! untrusted file. Backtracking engines, which support look-ahead, take exponential time for some patterns; engines without
//! look-around take linear time for one match of any pattern. So the ending is a second pattern here, `\s+`. A match of it
//! that has several characters and is not at the end of the text loses its last character. Other look-around is an error.
//!
//! A pattern that searches to the end of the text for every word still takes quadratic time for a text, and one of many states takes
//! long for a single word. The published patterns do neither; for others the work is [counted], and limited in proportion to the length
//! of the text.
//!
//! [counted]: super::counted

use super::counted::{Counted, Found, Made};
use crate::limits::tokenizer::{MAX_PATTERN, MAX_SPLIT_WORK};
use regex_automata::meta::Regex;
use regex_automata::{Input, PatternID};

/// The pattern of GPT-2.
pub(super) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The pattern of GLM-4.
pub(super) const GLM4: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Each digit.
pub(super) const DIGIT: &str = r"\p{N}";

/// Runs of digits.
pub(super) const DIGITS: &str = r"\p{N}+";

const BLANKS: &str = r"|\s+(?!\S)|\s+";

/// Patterns that take linear time for a whole text, and not only for each word.
const KNOWN: [&str; 4] = [GPT2, GLM4, DIGIT, DIGITS];

/// A compiled pattern.
pub(super) struct Splitter(Engine);

enum Engine {
    /// Of a pattern that is known.
    Known(Regex),
    /// Of any other.
    Counted(Box<Counted>),
}

impl Splitter {
    /// # Errors
    /// If the pattern is too long, is not a regular expression, or has look-around before its ending.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a split pattern of {} bytes is not supported", pattern.len()));
        }
        let patterns = parts(pattern);
        let unsupported =
            |cause| format!("the split pattern {pattern:?} is not supported: {cause}");
        Ok(Self(match KNOWN.contains(&pattern) {
            true => {
                let regex = Regex::new_many(&patterns);
                Engine::Known(regex.map_err(|error| unsupported(error.to_string()))?)
            }
            false => Engine::Counted(Box::new(Counted::new(&patterns).map_err(unsupported)?)),
        }))
    }

    /// The words of `text`. Joined they are the text.
    pub(super) fn split<'s, 't>(&'s self, text: &'t str) -> Words<'s, 't> {
        let search = match &self.0 {
            Engine::Known(regex) => Search::Known(regex),
            Engine::Counted(counted) => Search::Counted(counted, counted.made()),
        };
        Words { search, text, at: 0 }
    }
}

/// The pattern without its ending, and the pattern of blanks that stands for the ending.
fn parts(pattern: &str) -> Vec<&str> {
    match pattern.strip_suffix(BLANKS) {
        Some(words) => vec![words, r"\s+"],
        None => vec![pattern],
    }
}

/// The work that split patterns from a file may do for a text of a length.
pub(super) fn work(length: usize) -> u64 {
    let [base, byte] = MAX_SPLIT_WORK;
    base.saturating_add(byte.saturating_mul(length as u64))
}

/// The words of a text, one after the other.
pub(super) struct Words<'s, 't> {
    search: Search<'s>,
    text: &'t str,
    at: usize,
}

enum Search<'s> {
    Known(&'s Regex),
    Counted(&'s Counted, Made<'s>),
}

impl<'t> Words<'_, 't> {
    /// The next word; `left` is the work that is left.
    ///
    /// # Errors
    /// If a pattern from a file needs more.
    pub(super) fn next(&mut self, left: &mut u64) -> Result<Option<&'t str>, String> {
        if self.at == self.text.len() {
            return Ok(None);
        }
        let end = self.word_end(left)?;
        let start = std::mem::replace(&mut self.at, end);
        Ok(Some(&self.text[start..end]))
    }

    /// The first match at or after the place where the next word begins.
    fn find(&mut self, left: &mut u64) -> Result<Option<Found>, String> {
        let (text, at) = (self.text, self.at);
        match &mut self.search {
            Search::Known(regex) => {
                let found = regex.search(&Input::new(text).span(at..text.len()));
                Ok(found.map(|found| Found {
                    start: found.start(),
                    end: found.end(),
                    pattern: found.pattern(),
                }))
            }
            Search::Counted(counted, made) => counted.find(made, text, at, left).map_err(|_| {
                "the split pattern of tokenizer.json takes too long for this text: it is very large, or it looks at the rest of the \
                 text for each word; use a tokenizer.json with a published pattern"
                    .into()
            }),
        }
    }

    /// The end of the next word.
    fn word_end(&mut self, left: &mut u64) -> Result<usize, String> {
        let Some(found) = self.find(left)? else { return Ok(self.text.len()) };
        let (text, at) = (self.text, self.at);
        if found.start > at {
            return Ok(found.start);
        }
        let word = &text[at..found.end];
        let last = word.chars().next_back().map_or(0, char::len_utf8);
        Ok(match word.len() - last {
            // A pattern may match the empty string.
            0 if last == 0 => at + text[at..].chars().next().map_or(1, char::len_utf8),
            rest if rest > 0 && found.pattern == BLANKS_ID && found.end < text.len() => at + rest,
            _ => found.end,
        })
    }
}

const BLANKS_ID: PatternID = PatternID::new_unchecked(1);

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    fn split<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        words(&Splitter::new(pattern).expect("a sound pattern"), text)
    }

    fn words<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let (mut words, mut left) = (splitter.split(text), work(text.len()));
        std::iter::from_fn(|| words.next(&mut left).expect("enough work")).collect()
    }

    /// The pattern, searched as one that is not known.
    fn counted(pattern: &str) -> Splitter {
        let counted = Counted::new(&parts(pattern)).expect("a sound pattern");
        Splitter(Engine::Counted(Box::new(counted)))
    }

    /// The pattern, searched as one that is known.
    fn known(pattern: &str) -> Splitter {
        let regex = Regex::builder().build_many(&parts(pattern));
        Splitter(Engine::Known(regex.expect("a sound pattern")))
    }

    #[test]
    fn work_is_bounded_in_the_search_for_one_word() {
        let taken = |pattern: &str, text: &str| {
            let splitter = counted(pattern);
            let (mut words, mut left) = (splitter.split(text), 1 << 22);
            loop {
                match words.next(&mut left) {
                    Ok(None) => return Some((1 << 22) - left),
                    Ok(Some(_)) => {}
                    Err(problem) => {
                        assert!(problem.contains("takes too long"), "{problem}");
                        return None;
                    }
                }
            }
        };
        let long = "a".repeat(20_000);
        assert_eq!(taken("(?:a?){5000}", &long), None);
        assert_eq!(taken("(?s:.*Q|.)", &long), None);
        assert!(taken("a{1,3}", &long).is_some_and(|work| work < 60_000));
        // States that are there cost nothing more.
        let splitter = counted("[ab]{20}|.");
        let [first, second] = [0, 1].map(|_| {
            let (mut words, mut left) = (splitter.split(&long), 1 << 22);
            while words.next(&mut left).expect("enough work").is_some() {}
            (1 << 22) - left
        });
        assert!(second < first, "{first} {second}");
        let error = Splitter::new("(?:a?){50000}").err().expect("a large pattern");
        assert!(error.contains("is not supported"), "{error}");
    }

    #[test]
    fn words_are_cut_as_gpt2_does() {
        for (text, words) in [
            ("", &[][..]),
            ("it's  2 o'clock", &["it", "'s", " ", " 2", " o", "'", "clock"]),
            ("a  \n\n b  ", &["a", "  \n\n", " b", "  "]),
            ("a\nb", &["a", "\n", "b"]),
            ("é你好!?１２", &["é你好", "!?", "１２"]),
        ] {
            assert_eq!(split(GPT2, text), words, "{text:?}");
        }
    }

    #[test]
    fn words_are_cut_as_glm4_does() {
        for (text, words) in [
            ("IT'S  2345", &["IT", "'S", " ", " ", "234", "5"][..]),
            ("a  \n\n b  ", &["a", "  \n\n", " b", "  "]),
            ("x = (1);\n\n\ty", &["x", " =", " (", "1", ");\n\n", "\ty"]),
            ("a \u{3000} b", &["a", " \u{3000}", " b"]),
        ] {
            assert_eq!(split(GLM4, text), words, "{text:?}");
        }
    }

    #[test]
    fn what_no_pattern_matches_is_a_word_too() {
        assert_eq!(split("[0-9]", "ab1c"), ["ab", "1", "c"]);
        assert_eq!(split("", "aé"), ["a", "é"]);
        assert_eq!(split("b*", "abb"), ["a", "bb"]);
    }

    #[test]
    fn look_around_elsewhere_is_refused() {
        for pattern in
            [r"a(?=b)|\s+(?!\S)|\s+", r"\s+(?!\S)|a", r"(?<!a)b", "(", r"(\w{1000}){1000}"]
        {
            let error = Splitter::new(pattern).err().expect("a pattern that is not supported");
            assert!(error.contains("split pattern"), "{error}");
        }
    }

    /// Patterns for both engines: the published ones, and some with empty matches, and with places where nothing matches.
    static BOTH: LazyLock<Vec<(&str, Splitter, Splitter)>> = LazyLock::new(|| {
        let others = ["a*", "", "[^a]", "s|(?m:^)a", "你+|[0-9]+"];
        let all = KNOWN.into_iter().chain(others);
        all.map(|pattern| (pattern, counted(pattern), known(pattern))).collect()
    });

    proptest! {
        #[test]
        fn words_join_to_the_text(text in "([a\u{e9}1 \n!]|\\PC){0,40}") {
            for pattern in [GPT2, GLM4, "a*", "[^a]"] {
                let words = split(pattern, &text);
                prop_assert!(words.iter().all(|word| !word.is_empty()));
                prop_assert_eq!(words.concat(), text.as_str());
            }
        }

        #[test]
        fn counted_work_makes_the_same_words(text in "([a\u{e9}1 \n!'s你２]|\\PC){0,40}") {
            for (pattern, counted, known) in &*BOTH {
                prop_assert_eq!(words(counted, &text), words(known, &text), "{}", pattern);
            }
        }

        #[test]
        fn blanks_keep_their_last_for_the_word_after_them(text in "[a \n\u{3000}!1]{0,30}") {
            // The definition of `\s+(?!\S)|\s+`: a word of several blanks is the last one, or a blank follows it.
            let words = split(GPT2, &text);
            for pair in words.windows(2) {
                let blank = |word: &str| word.chars().all(char::is_whitespace);
                if blank(pair[0]) && pair[0].chars().count() > 1 {
                    prop_assert!(pair[1].starts_with(char::is_whitespace), "{:?}", words);
                }
            }
        }
    }
}
