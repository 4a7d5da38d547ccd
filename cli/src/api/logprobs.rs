//! Probabilities of tokens, in the two forms of OpenAI's API.

use std::collections::BTreeMap;

use glm_model::{SampledToken, Tokenizer};
use serde::Serialize;
use utoipa::ToSchema;

/// A token of a chat and its alternatives.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenLogprob {
    /// The text. A token may be a part of a character: then its bytes tell more.
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Alternative {
    /// The text, or the name if the token is special.
    token: String,
    logprob: f32,
    /// Null for a special token.
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

/// Makes the probabilities of the tokens of answers.
pub struct Logprobs {
    tokenizer: &'static Tokenizer,
    /// By choice.
    begins: Vec<Begin>,
}

/// How the text of an answer begins. Some tokenizers drop blanks there, so that the first tokens may have no text.
#[derive(Clone, Copy, Default)]
enum Begin {
    #[default]
    Nothing,
    /// There is no text yet after this first token.
    Blank(u32),
    Text,
}

impl Logprobs {
    pub fn new(tokenizer: &'static Tokenizer) -> Self {
        Self { tokenizer, begins: Vec::new() }
    }

    /// The next token of an answer. `None` for tokens without a probability, and for those that are no part of the text: the end of an
    /// answer, and a blank before its first word. The texts of all tokens of an answer are its text, before it is cleaned up.
    pub fn token(&mut self, choice: usize, token: &SampledToken) -> Option<TokenLogprob> {
        let logprob = token.logprob?;
        if self.begins.len() <= choice {
            self.begins.resize(choice + 1, Begin::default());
        }
        let begin = self.begins[choice];
        let bytes = self.bytes(begin, token.id)?;
        self.begins[choice] = match (begin, bytes.is_empty()) {
            (Begin::Nothing, true) => Begin::Blank(token.id),
            (begin, true) => begin,
            (_, false) => Begin::Text,
        };
        if bytes.is_empty() {
            return None;
        }
        let top = token.top.iter().filter_map(|&(id, logprob)| {
            let (token, bytes) = match self.bytes(begin, id) {
                Some(bytes) => (text(&bytes), Some(bytes)),
                None => (self.tokenizer.special_name(id)?.to_owned(), None),
            };
            Some(Alternative { token, logprob, bytes })
        });
        Some(TokenLogprob { token: text(&bytes), logprob, top_logprobs: top.collect(), bytes })
    }

    /// The bytes of an id where the text of an answer begins, or in it.
    fn bytes(&self, begin: Begin, id: u32) -> Option<Vec<u8>> {
        let bytes = self.tokenizer.bytes(id)?;
        let ids = match begin {
            Begin::Nothing => &[id][..],
            Begin::Blank(first) => &[first, id],
            Begin::Text => return Some(bytes.into_owned()),
        };
        let blanks = bytes.iter().take_while(|&&byte| byte == b' ').count();
        let decoded = self.tokenizer.decode(ids).ok()?;
        let kept = decoded.bytes().take_while(|&byte| byte == b' ').count();
        Some(bytes[blanks.saturating_sub(kept)..].to_vec())
    }
}

/// The text of bytes. What is a part of a character becomes a replacement.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl TokenLogprob {
    /// Characters that begin in the token.
    pub fn length(&self) -> usize {
        self.bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
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
