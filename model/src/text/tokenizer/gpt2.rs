//! GPT-2's notation of byte-level BPE, where every byte is a printable character, and the boundary to the crate
//! [`tokenizers`], which applies the merges.
//!
//! The crate panics for some merges. Its own pre-tokenizer uses a backtracking regex engine, and if that gives up, the crate
//! leaves the rest of the text unsplit without an error. So the crate gets only a vocabulary and merges that were checked here,
//! and words that were split by [`super::split`].

use super::{MAX_ID, shortened};
use crate::limits::tokenizer::{MAX_MERGES, MAX_TOKEN, MAX_TOKENS};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Model;
use tokenizers::models::bpe::BPE;
/// Tokens in GPT-2's notation, and their ids.
pub(super) use tokenizers::models::bpe::Vocab;

/// The byte that a character stands for: itself if it is printable Latin-1, otherwise the next of
/// the characters from U+0100 on.
pub(super) fn byte(c: char) -> Option<u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(c) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => {
            let place = (c as usize).checked_sub(0x100)?;
            (0..=255).filter(|&byte| !is_printable(byte)).nth(place)
        }
    }
}

/// The characters that stand for bytes, in both directions.
pub(super) struct Alphabet {
    chars: Box<[char; 256]>,
    bytes: HashMap<char, u8>,
}

impl Alphabet {
    pub(super) fn new() -> Self {
        let bytes: HashMap<_, _> = ('\0'..'\u{200}').filter_map(|c| Some((c, byte(c)?))).collect();
        let mut chars = Box::new(['\0'; 256]);
        bytes.iter().for_each(|(&c, &byte)| chars[usize::from(byte)] = c);
        Alphabet { chars, bytes }
    }

    pub(super) fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        token.chars().map(|c| self.bytes.get(&c).copied()).collect()
    }

    fn spell<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = char> + use<'b, '_> {
        bytes.iter().map(|&byte| self.chars[usize::from(byte)])
    }
}

/// A merge: two tokens, written as one string with a blank between them or as a list of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merge(String, String);

impl Merge {
    /// A merge from a line of `merges.txt`. Without a blank its right token is empty, which [`Merges::new`] refuses.
    fn of_line(line: &str) -> Self {
        let (left, right) = line.split_once(' ').unwrap_or((line, ""));
        Merge(left.into(), right.into())
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
                Ok(Merge::of_line(line))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge, A::Error> {
                match (pair.next_element()?, pair.next_element()?) {
                    (Some(left), Some(right)) => Ok(Merge(left, right)),
                    _ => Err(A::Error::invalid_length(1, &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The merges of `merges.txt`: two tokens a line, the first line first.
///
/// # Errors
/// If the file is not UTF-8, or has too many merges.
pub(super) fn merges_of_lines(file: &[u8]) -> Result<Vec<Merge>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "is not UTF-8")?;
    let is_merge = |line: &&str| !line.starts_with("#version") && !line.trim().is_empty();
    let lines = || text.lines().filter(is_merge);
    if lines().nth(MAX_MERGES).is_some() {
        return Err(format!("has more than {MAX_MERGES} merges"));
    }
    Ok(lines().map(Merge::of_line).collect())
}

/// A list of merges, which the crate `tokenizers` applies to a word.
pub(super) struct Merges {
    bpe: Box<BPE>,
    alphabet: Alphabet,
}

impl Merges {
    /// Takes the vocabulary and the merges, the first to be applied first. `whole_words` says whether a word that is a token
    /// stays whole, whatever the merges would make of it.
    ///
    /// # Errors
    /// If a merge is not two tokens that together are one.
    pub(super) fn new(vocab: Vocab, merges: Vec<Merge>, whole_words: bool) -> Result<Self, String> {
        // The crate copies both tokens of a merge into a buffer as long as the longest token, and panics if they do not fit.
        let longest = vocab.keys().map(String::len).max().unwrap_or(0);
        let is_too_long = |Merge(left, right): &Merge| left.len() + right.len() > longest;
        if let Some(rank) = merges.iter().position(is_too_long) {
            let Merge(left, right) = &merges[rank];
            let problem = format!("merge {rank}: {left:?} and {right:?} do not make a token");
            return Err(shortened(&problem));
        }
        let merges = merges.into_iter().map(|Merge(left, right)| (left, right)).collect();
        let bpe = caught(|| {
            BPE::builder()
                .vocab_and_merges(vocab, merges)
                .ignore_merges(whole_words)
                // A cache would be one per thread, and would outlive the tokenizer.
                .cache_capacity(0)
                .build()
        });
        let bpe = bpe.map_err(|problem| format!("a merge is not valid: {problem}"))?;
        Ok(Merges { bpe: Box::new(bpe), alphabet: Alphabet::new() })
    }

    /// The id of a token.
    pub(super) fn find(&self, token: &str) -> Option<u32> {
        self.bpe.token_to_id(&self.alphabet.spell(token.as_bytes()).collect::<String>())
    }

    /// Appends the ids of a word. A byte without a token has none.
    ///
    /// # Errors
    /// If the crate `tokenizers` fails.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let spelled: String = self.alphabet.spell(word.as_bytes()).collect();
        let tokens = caught(|| self.bpe.tokenize(&spelled))?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// The bytes of all tokens by their ids.
///
/// # Errors
/// If there are too many, a token contains a character that stands for no byte, is empty or too long, or has the id of another or one that is
/// too high.
pub(super) fn tokens(vocab: &Vocab) -> Result<HashMap<u32, Vec<u8>>, String> {
    let alphabet = Alphabet::new();
    if vocab.len() > MAX_TOKENS {
        return Err(format!("has more than {MAX_TOKENS} tokens"));
    }
    let mut tokens = HashMap::new();
    tokens
        .try_reserve(vocab.len())
        .map_err(|_| format!("the memory for {} tokens cannot be allocated", vocab.len()))?;
    for (token, &id) in vocab {
        if id >= MAX_ID {
            return Err(format!("the id {id} is not below {MAX_ID}"));
        }
        let bytes = alphabet.bytes(token).ok_or_else(|| {
            shortened(&format!("token {id} is not in GPT-2's notation: {token:?}"))
        })?;
        if !(1..=MAX_TOKEN).contains(&bytes.len()) {
            return Err(format!("token {id} has {} bytes", bytes.len()));
        }
        if tokens.insert(id, bytes).is_some() {
            return Err(format!("two tokens have the same id {id}"));
        }
    }
    Ok(tokens)
}

/// Calls the crate `tokenizers`; a panic in it becomes an error.
fn caught<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| shortened(&e.to_string())),
        Err(_) => Err("the crate tokenizers panicked".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocab(tokens: &[&str]) -> Vocab {
        tokens.iter().zip(0..).map(|(&token, id)| (token.into(), id)).collect()
    }

    fn merges(lines: &str) -> Vec<Merge> {
        merges_of_lines(lines.as_bytes()).expect("UTF-8")
    }

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let alphabet = Alphabet::new();
        assert_eq!(alphabet.bytes.len(), 256);
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(alphabet.bytes(&alphabet.spell(&bytes).collect::<String>()), Some(bytes));
        assert_eq!((byte('Ġ'), byte(' '), byte('é')), (Some(b' '), None, Some(0xe9)));
    }

    #[test]
    fn a_merge_is_a_line_or_a_list_of_two() {
        let expected = [Merge("a".into(), "b".into()), Merge("ab".into(), "c".into())];
        let read: Vec<Merge> = serde_json::from_str(r#"["a b", ["ab", "c"]]"#).expect("merges");
        assert_eq!(read, expected);
        assert_eq!(merges("#version: 0.2\na b\r\n\nab c\n"), expected);
        for bad in ["[5]", "[[]]", r#"[["a"]]"#, r#"[["a", "b", "c"]]"#, r#"[["a", 5]]"#] {
            assert!(serde_json::from_str::<Vec<Merge>>(bad).is_err(), "{bad}");
        }
    }

    /// Without the check before it, the first merge would make the crate panic.
    #[test]
    fn merges_that_make_no_token_are_refused() {
        for lines in ["ab ab", "a c", "a a", "ab", " a", "a b b"] {
            let merged = Merges::new(vocab(&["a", "b", "ab"]), merges(lines), false);
            assert!(merged.err().expect(lines).contains("merge"), "{lines}");
        }
    }

    #[test]
    fn so_many_merges_are_read_and_no_more() {
        let lines = "a b\n".repeat(MAX_MERGES + 1);
        assert_eq!(merges_of_lines(&lines.as_bytes()[4..]).expect("merges").len(), MAX_MERGES);
        let error = merges_of_lines(lines.as_bytes()).expect_err("a merge too many");
        assert_eq!(error, "has more than 1048576 merges");
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let outcome = caught::<()>(|| std::panic::resume_unwind(Box::new("for a test")));
        assert_eq!(outcome, Err("the crate tokenizers panicked".to_owned()));
    }

    #[test]
    fn a_byte_without_a_token_is_left_out() {
        let model =
            Merges::new(vocab(&["a", "b", "ab"]), merges("a b"), false).expect("sound merges");
        let mut ids = Vec::new();
        model.encode("xabxa b?", &mut ids).expect("ids");
        assert_eq!(ids, [2, 2]);
        assert_eq!((model.find("ab"), model.find("x")), (Some(2), None));
    }
}
