//! How GPT-2 writes down tokens and merges: every byte is a printable character.

use super::bpe::Joined;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Tokens as bytes, and their ids.
pub(super) type Vocab = HashMap<Vec<u8>, u32>;

pub(super) type Pairs = HashMap<(u32, u32), Joined>;

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

/// All characters that stand for bytes.
pub(super) struct Alphabet(HashMap<char, u8>);

impl Alphabet {
    pub(super) fn new() -> Self {
        Alphabet(('\0'..'\u{200}').filter_map(|c| Some((c, byte(c)?))).collect())
    }

    pub(super) fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        token.chars().map(|c| self.0.get(&c).copied()).collect()
    }
}

/// # Errors
/// If a token has no id, or characters that stand for no byte.
pub(super) fn vocab(json: &Map<String, Value>) -> Result<Vocab, String> {
    let alphabet = Alphabet::new();
    let token = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let bytes = alphabet
            .bytes(token)
            .ok_or_else(|| format!("{token:?} is not written in GPT-2's bytes"))?;
        Ok((bytes, id.ok_or_else(|| format!("the token {token:?} has no id"))?))
    };
    json.iter().map(token).collect()
}

/// Tokens by their ids.
///
/// # Errors
/// If two have the same.
pub(super) fn tokens(vocab: Vocab) -> Result<HashMap<u32, Vec<u8>>, String> {
    let count = vocab.len();
    let tokens: HashMap<_, _> = vocab.into_iter().map(|(token, id)| (id, token)).collect();
    if tokens.len() == count { Ok(tokens) } else { Err("two tokens have the same id".into()) }
}

/// The merges of `merges.txt`: two tokens a line, the first line first.
///
/// # Errors
/// If a line is not two tokens that together are one.
pub(super) fn merges_of_lines(file: &[u8], vocab: &Vocab) -> Result<Pairs, String> {
    let text = std::str::from_utf8(file).map_err(|_| "is not UTF-8")?;
    let lines =
        text.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
    merges(lines.map(|line| line.split_once(' ').unwrap_or((line, ""))), vocab)
}

/// # Errors
/// If a pair is not two tokens that together are one.
pub(super) fn merges<'p>(
    pairs: impl Iterator<Item = (&'p str, &'p str)>,
    vocab: &Vocab,
) -> Result<Pairs, String> {
    let alphabet = Alphabet::new();
    let mut merges = Pairs::new();
    for (rank, (left, right)) in (0..).zip(pairs) {
        let joined = || {
            let [left, right] = [alphabet.bytes(left)?, alphabet.bytes(right)?];
            let id = *vocab.get(&[left.as_slice(), &right].concat())?;
            Some(((*vocab.get(&left)?, *vocab.get(&right)?), Joined { rank, id }))
        };
        let (pair, joined) = joined().ok_or_else(|| {
            format!("merge {rank}: {left:?} and {right:?} are not two tokens that make a third")
        })?;
        merges.entry(pair).or_insert(joined);
    }
    Ok(merges)
}
