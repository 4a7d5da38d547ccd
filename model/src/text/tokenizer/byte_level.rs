//! Byte-level BPE: words of a text, whose bytes are joined to tokens. As a rule the tokens of all 256 bytes
//! exist, so any text has ids; a `tokenizer.json` may do without some, and then such bytes are lost.
//!
//! tiktoken ranks (GLM-4), `vocab.json` with `merges.txt` (GPT-2, GLM-10B) and `tokenizer.json` (the
//! models as transformers has them) are three ways to write the same thing down. One implementation
//! reads them all: it is smaller than the dependency that reads the last of them, and the first is not
//! that one's business anyway.

use super::MAX_ID;
use super::bpe::{self, Joined, Part};
use super::split::Splitter;
use super::trie::Trie;
use std::collections::HashMap;

/// Longest token in bytes; 128 in GLM-4.
const MAX_TOKEN: usize = 1024;

/// Which pairs can be joined, and which first.
pub(super) enum Merges {
    /// Those that make a token; the lowest id first.
    Ids,
    /// Those listed: two ids, and when and to what they are joined.
    Pairs(HashMap<(u32, u32), Joined>),
}

/// What the three kinds of files have in common.
pub(super) struct ByteLevel {
    tokens: HashMap<u32, Vec<u8>>,
    trie: Trie,
    /// A byte without a token is left out of a text.
    bytes: Box<[Option<u32>; 256]>,
    merges: Merges,
    /// Whether a word that is a token stays whole, whatever the merges would make of it.
    whole_words: bool,
    /// Each cuts what the one before it left whole.
    splitters: Vec<Splitter>,
}

impl ByteLevel {
    /// # Errors
    /// If two tokens are the same, one is empty or too long, an id too high, or where ids say the order a byte has none.
    pub(super) fn new(
        tokens: HashMap<u32, Vec<u8>>,
        merges: Merges,
        whole_words: bool,
        splitters: Vec<Splitter>,
    ) -> Result<Self, String> {
        if let Some(id) = tokens.keys().find(|id| **id >= MAX_ID) {
            return Err(format!("the id {id} is unreasonable"));
        }
        let mut sorted: Vec<_> = tokens.iter().map(|(&id, token)| (token.as_slice(), id)).collect();
        sorted.sort_unstable();
        if let Some((token, id)) = sorted.iter().find(|(t, _)| !(1..=MAX_TOKEN).contains(&t.len()))
        {
            return Err(format!("token {id} has {} bytes", token.len()));
        }
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let text = String::from_utf8_lossy(twice[0].0);
            return Err(format!("the tokens {} and {} are both {text:?}", twice[0].1, twice[1].1));
        }
        let trie = Trie::new(&sorted);
        let bytes = std::array::from_fn(|byte| trie.get(&[byte as u8]));
        if let (Merges::Ids, Some(byte)) = (&merges, bytes.iter().position(Option::is_none)) {
            return Err(format!("no token stands for the byte {byte}"));
        }
        let bytes = Box::new(bytes);
        Ok(ByteLevel { tokens, trie, bytes, merges, whole_words, splitters })
    }

    /// The bytes of a token.
    pub(super) fn token(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(&id).map(Vec::as_slice)
    }

    /// The highest id, and one more.
    pub(super) fn len(&self) -> u32 {
        self.tokens.keys().max().map_or(0, |id| id + 1)
    }

    pub(super) fn find(&self, token: &str) -> Option<u32> {
        self.trie.get(token.as_bytes())
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        self.encode_words(&self.splitters, text, ids);
    }

    fn encode_words(&self, splitters: &[Splitter], text: &str, ids: &mut Vec<u32>) {
        if let [splitter, finer @ ..] = splitters {
            return splitter.split(text).for_each(|word| self.encode_words(finer, word, ids));
        }
        match self.trie.get(text.as_bytes()) {
            Some(id) if self.whole_words => ids.push(id),
            _ => self.encode_word(text.as_bytes(), ids),
        }
    }

    fn encode_word(&self, word: &[u8], ids: &mut Vec<u32>) {
        let parts = (0..).zip(word).filter_map(|(start, &byte)| {
            let id = self.bytes[usize::from(byte)]?;
            Some(Part { start, end: start + 1, id })
        });
        let merged = bpe::merge(parts.collect(), |left, right| match &self.merges {
            Merges::Ids => {
                let id = self.trie.get(&word[left.start..right.end])?;
                Some(Joined { rank: id, id })
            }
            Merges::Pairs(pairs) => pairs.get(&(left.id, right.id)).copied(),
        });
        ids.extend(merged.iter().map(|part| part.id));
    }
}
