//! Byte-level BPE: a text is split into words, and the bytes of each word are joined to tokens. As a rule all 256 bytes
//! are tokens, so any text has ids. A `tokenizer.json` may lack some, and such bytes are dropped.
//!
//! Three kinds of files describe it: tiktoken ranks (GLM-4), `vocab.json` with `merges.txt` (GPT-2, GLM-10B), and
//! `tokenizer.json` (the models as transformers stores them). They have the splitting in common. The last two list their
//! merges, and the crate `tokenizers` applies them; see [`super::gpt2`]. tiktoken ranks imply the merges. Listing them for
//! the crate makes 318 000 pairs out of GLM-4's 151 000 tokens: the crate alone takes 290 ms for them, and ranks load in 73 ms.

use super::MAX_ID;
use super::bpe::{self, Joined, Symbol};
use super::gpt2::Merges;
use super::split::Splitter;
use super::trie::Trie;
use crate::limits::tokenizer::MAX_TOKEN;
use std::collections::HashMap;

/// A byte-level BPE model with its splitters.
pub(super) struct ByteLevel {
    tokens: HashMap<u32, Vec<u8>>,
    joining: Joining,
    /// Each splits what the one before it left whole.
    splitters: Vec<Splitter>,
}

/// How the bytes of a word become tokens.
enum Joining {
    Ranks(Ranks),
    Merges(Merges),
}

impl ByteLevel {
    /// A model with tiktoken ranks: two neighbours are joined if they make a token, the one with the lowest id first. A word
    /// that is a token stays whole.
    ///
    /// # Errors
    /// If two tokens are the same, one is empty or too long, an id is too high, or a byte has no token.
    pub(super) fn of_ranks(
        tokens: HashMap<u32, Vec<u8>>,
        splitter: Splitter,
    ) -> Result<Self, String> {
        let joining = Joining::Ranks(Ranks::new(&tokens)?);
        Ok(ByteLevel { tokens, joining, splitters: vec![splitter] })
    }

    /// A model with the bytes of its tokens, and its merges.
    pub(super) fn of_merges(
        tokens: HashMap<u32, Vec<u8>>,
        merges: Merges,
        splitters: Vec<Splitter>,
    ) -> Self {
        ByteLevel { tokens, joining: Joining::Merges(merges), splitters }
    }

    /// The bytes of a token.
    pub(super) fn token(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(&id).map(Vec::as_slice)
    }

    /// The highest id plus one.
    pub(super) fn len(&self) -> u32 {
        self.tokens.keys().max().map_or(0, |id| id + 1)
    }

    pub(super) fn find(&self, token: &str) -> Option<u32> {
        match &self.joining {
            Joining::Ranks(ranks) => ranks.trie.get(token.as_bytes()),
            Joining::Merges(merges) => merges.find(token),
        }
    }

    /// Appends the ids of `text`. `left` is the work that is left for split patterns.
    ///
    /// # Errors
    /// If a split pattern takes too long, or the crate `tokenizers` fails.
    pub(super) fn encode(
        &self,
        text: &str,
        left: &mut u64,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        self.encode_words(&self.splitters, text, left, ids)
    }

    fn encode_words(
        &self,
        splitters: &[Splitter],
        text: &str,
        left: &mut u64,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        let Some((splitter, finer)) = splitters.split_first() else {
            return match &self.joining {
                Joining::Ranks(ranks) => {
                    ranks.encode(text.as_bytes(), ids);
                    Ok(())
                }
                Joining::Merges(merges) => merges.encode(text, ids),
            };
        };
        let mut words = splitter.split(text);
        while let Some(word) = words.next(left)? {
            self.encode_words(finer, word, left, ids)?;
        }
        Ok(())
    }
}

/// tiktoken ranks: the id of a token is its priority.
struct Ranks {
    trie: Trie,
    bytes: Box<[u32; 256]>,
}

impl Ranks {
    fn new(tokens: &HashMap<u32, Vec<u8>>) -> Result<Self, String> {
        if let Some(id) = tokens.keys().find(|id| **id >= MAX_ID) {
            return Err(format!("the id {id} is not below {MAX_ID}"));
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
        let trie = Trie::new(&sorted)?;
        let mut bytes = Box::new([0; 256]);
        for (byte, id) in (0..=255).zip(bytes.iter_mut()) {
            let found = trie.get(&[byte]);
            *id = found.ok_or_else(|| format!("no token stands for the byte {byte}"))?;
        }
        Ok(Ranks { trie, bytes })
    }

    fn encode(&self, word: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.trie.get(word) {
            return ids.push(id);
        }
        let parts = (0..).zip(word).map(|(start, &byte)| {
            let id = self.bytes[usize::from(byte)];
            Symbol { start, end: start + 1, id }
        });
        let merged = bpe::merge(parts.collect(), |left, right| {
            let id = self.trie.get(&word[left.start..right.end])?;
            Some(Joined { rank: id, id })
        });
        ids.extend(merged.iter().map(|part| part.id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::gpt2::{Merge, Vocab};
    use super::super::split::{GPT2, work};
    use super::*;

    #[test]
    fn the_work_of_an_unknown_pattern_is_limited() {
        let vocab: Vocab = [("a".to_owned(), 0)].into_iter().collect();
        // For each word, the first pattern searches the rest of the text for a `Q`.
        for (pattern, is_known) in [("(?s:.*Q|.)", false), (GPT2, true)] {
            let splitters = vec![Splitter::new(pattern).expect("a valid pattern")];
            let merges = Merges::new(vocab.clone(), Vec::<Merge>::new(), false).expect("no merges");
            let model = ByteLevel::of_merges([(0, vec![b'a'])].into(), merges, splitters);
            let mut ids = Vec::new();
            assert_eq!(model.encode("aaaa", &mut work(4), &mut ids), Ok(()));
            assert_eq!(ids, [0; 4]);
            let tired = model.encode("aaaa", &mut 3, &mut ids);
            assert_eq!(tired.is_ok(), is_known, "{pattern}");
            let long = "a".repeat(60_000);
            let tired = model.encode(&long, &mut work(long.len()), &mut ids);
            assert_eq!(tired.is_ok(), is_known, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_for_words_of_another_is_cheap() {
        let vocab: Vocab = [("1".to_owned(), 0)].into_iter().collect();
        // Not a known one, but as large.
        let large = format!("Q|{GPT2}");
        let splitters = [r"\d", &large].map(|pattern| Splitter::new(pattern).expect("valid"));
        let merges = Merges::new(vocab, Vec::<Merge>::new(), false).expect("no merges");
        let model = ByteLevel::of_merges([(0, vec![b'1'])].into(), merges, splitters.into());
        let (long, mut ids) = ("1".repeat(300_000), Vec::new());
        let mut left = work(long.len());
        model.encode(&long, &mut left, &mut ids).expect("enough work");
        assert_eq!(ids.len(), long.len());
        assert!(left > work(long.len()) / 2, "{left}");
    }
}
