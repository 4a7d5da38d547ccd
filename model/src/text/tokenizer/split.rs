//! Splitting a text into words before byte-pair encoding (pre-tokenization).
//!
//! The patterns of the family are regular expressions with one exception: all end with the look-ahead `\s+(?!\S)|\s+`, which
//! matches a run of white space without its last character, because that belongs to the next word. A pattern comes from an
//! untrusted file. Backtracking engines, which support look-ahead, take exponential time for some patterns; engines without
//! look-around take linear time for one match of any pattern. So the ending is a second pattern here, `\s+`. A match of it
//! that has several characters and is not at the end of the text loses its last character. Other look-around is an error.
//!
//! A pattern that searches to the end of the text for every word still takes quadratic time for a text. The published
//! patterns do not; for others [`super::byte_level`] limits the time, in proportion to the length of the text.

use crate::limits::tokenizer::{MAX_PATTERN, MAX_PATTERN_SIZE};
use regex_automata::meta::{Config, Regex};
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
pub(super) struct Splitter {
    regex: Regex,
    known: bool,
}

impl Splitter {
    /// # Errors
    /// If the pattern is too long, is not a regular expression, or has look-around before its ending.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a split pattern of {} bytes is not supported", pattern.len()));
        }
        let patterns = match pattern.strip_suffix(BLANKS) {
            Some(words) => vec![words, r"\s+"],
            None => vec![pattern],
        };
        let config = Config::new().nfa_size_limit(Some(MAX_PATTERN_SIZE));
        let regex = Regex::builder().configure(config).build_many(&patterns);
        let known = KNOWN.contains(&pattern);
        regex.map(|regex| Splitter { regex, known }).map_err(|error| {
            let cause = error.syntax_error().map_or_else(|| error.to_string(), |e| e.to_string());
            format!("the split pattern {pattern:?} is not supported: {cause}")
        })
    }

    /// Whether the pattern is known to take linear time for a whole text.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// The words of `text`. Joined they are the text.
    pub(super) fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let end = self.word_end(text, at)?;
            Some(&text[std::mem::replace(&mut at, end)..end])
        })
    }

    /// The end of the word that begins at `at`.
    fn word_end(&self, text: &str, at: usize) -> Option<usize> {
        if at == text.len() {
            return None;
        }
        let Some(found) = self.regex.search(&Input::new(text).span(at..text.len())) else {
            return Some(text.len());
        };
        if found.start() > at {
            return Some(found.start());
        }
        let word = &text[at..found.end()];
        let last = word.chars().next_back().map_or(0, char::len_utf8);
        Some(match word.len() - last {
            // A pattern may match the empty string.
            0 if last == 0 => at + text[at..].chars().next().map_or(1, char::len_utf8),
            rest if rest > 0 && found.pattern() == BLANKS_ID && found.end() < text.len() => {
                at + rest
            }
            _ => found.end(),
        })
    }
}

const BLANKS_ID: PatternID = PatternID::new_unchecked(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        Splitter::new(pattern).expect("a sound pattern").split(text).collect()
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
