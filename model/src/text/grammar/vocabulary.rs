//! The tokens of a model as [`llguidance`] knows them: a trie of their bytes.

use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// The tokens of a model.
pub(super) struct Vocabulary(TokTrie);

impl Vocabulary {
    /// # Errors
    /// If there are no `ends`, or the tokenizer does not have one of them.
    pub(super) fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self> {
        let size = tokenizer.vocab_size() as u32;
        let [first, ..] = ends else {
            return Err(Error::Grammar("no id ends an answer of this model".to_owned()));
        };
        if let Some(end) = ends.iter().find(|&&end| end >= size) {
            let problem = format!("the tokenizer has no id {end}, which ends an answer");
            return Err(Error::Grammar(problem));
        }
        let bytes = |id: u32| match tokenizer.bytes(id) {
            Some(bytes) => bytes.into_owned(),
            // Only a grammar that names a special id allows it.
            None => match tokenizer.special_name(id) {
                Some(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
                None => Vec::new(),
            },
        };
        let words: Vec<_> = (0..size).map(bytes).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, *first), &words);
        Ok(Vocabulary(trie.with_eos_tokens(ends)))
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
