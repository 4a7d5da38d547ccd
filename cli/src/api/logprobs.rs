//! Probabilities of tokens, in the two forms of OpenAI's API.

use std::collections::BTreeMap;

use glm_model::{SampledToken, Tokenizer};
use serde::Serialize;
use utoipa::ToSchema;

/// A token of a chat and its alternatives.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenLogprob {
    token: String,
    logprob: f32,
    /// The bytes of the text; null for a token that is a part of a character.
    bytes: Option<Vec<u8>>,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Alternative {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

/// The tokens of a chat.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    pub content: Vec<TokenLogprob>,
}

/// The tokens of a completion.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where the text of each token begins in the text of the answer, in characters.
    text_offset: Vec<usize>,
}

impl TokenLogprob {
    /// `None` for tokens without a probability, and for those that are no part of the text, such as the end of an answer.
    pub fn new(tokenizer: &Tokenizer, token: &SampledToken) -> Option<Self> {
        let logprob = token.logprob?;
        let name =
            name(tokenizer, token.id).filter(|_| tokenizer.special_name(token.id).is_none())?;
        let top = token.top.iter().filter_map(|&(id, logprob)| {
            let token = self::name(tokenizer, id)?;
            Some(Alternative { bytes: bytes(&token), token, logprob })
        });
        Some(Self { bytes: bytes(&name), token: name, logprob, top_logprobs: top.collect() })
    }

    /// Characters of the token.
    pub fn length(&self) -> usize {
        self.token.chars().count()
    }
}

impl CompletionLogprobs {
    /// Adds a token whose text begins `offset` characters after the beginning of the answer.
    pub fn push(&mut self, token: TokenLogprob, offset: usize) {
        self.text_offset.push(offset);
        self.tokens.push(token.token);
        self.token_logprobs.push(token.logprob);
        self.top_logprobs
            .push(token.top_logprobs.into_iter().map(|top| (top.token, top.logprob)).collect());
    }

    pub fn append(&mut self, mut other: Self) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.top_logprobs.append(&mut other.top_logprobs);
        self.text_offset.append(&mut other.text_offset);
    }
}

/// The text of a token, or its name if it is special.
pub fn name(tokenizer: &Tokenizer, id: u32) -> Option<String> {
    match tokenizer.special_name(id) {
        Some(name) => Some(name.to_owned()),
        None if tokenizer.knows(id) => tokenizer.decode(&[id]).ok(),
        None => None,
    }
}

/// The bytes of a text. A token that is a part of a character decodes to a replacement.
fn bytes(text: &str) -> Option<Vec<u8>> {
    (!text.contains('\u{fffd}')).then(|| text.as_bytes().to_vec())
}
