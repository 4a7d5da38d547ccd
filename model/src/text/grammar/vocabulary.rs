//! The tokens of a model as [`llguidance`] knows them: a trie of their bytes.

use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// The tokens of a model.
pub(super) struct Vocabulary(TokTrie);

impl Vocabulary {
    /// # Errors
    /// If the tokenizer has none of the `ends`.
    pub(super) fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self> {
        let size = tokenizer.vocab_size() as u32;
        // The vocabulary of a model may be larger than that of its tokenizer.
        let ends: Vec<_> = ends.iter().copied().filter(|&end| end < size).collect();
        let [first, ..] = ends[..] else {
            return Err(Error::Grammar("no id ends an answer of this model".to_owned()));
        };
        let bytes = |id: u32| match tokenizer.bytes(id) {
            Some(bytes) => bytes.into_owned(),
            // Only a grammar that names a special id allows it.
            None => match tokenizer.special_name(id) {
                Some(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
                None => Vec::new(),
            },
        };
        let words: Vec<_> = (0..size).map(bytes).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words);
        Ok(Vocabulary(trie.with_eos_tokens(&ends)))
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }

    /// Ours are the longest tokens, not those that the model was trained with.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
