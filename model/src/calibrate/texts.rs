//! The texts that a model is calibrated with.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind};
use crate::generate::perplexity::{Window, text_ids};
use crate::text::chat::{Message, Role, Template};
use crate::text::tokenizer::Tokenizer;

/// English and Chinese prose, conversations and code, written for this purpose.
const TEXT: &str = include_str!("text.txt");

/// Tokens of a text that are read together.
const TOKENS: usize = 512;

/// Most tokens, unless another number is asked for.
const MOST: usize = 128 * TOKENS;

/// Texts, as ids, whose inputs the matrices of a model are quantized for.
#[derive(Debug, Clone)]
pub struct Calibration {
    texts: Vec<Vec<u32>>,
    method: Method,
    digest: String,
}

/// What a matrix is rounded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The second moments of its inputs, with error feedback.
    Gptq,
    /// The mean squares of its inputs: the importance of its columns.
    Importance,
}

impl Method {
    /// Its name and version in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gptq => "gptq-1",
            Self::Importance => "importance-1",
        }
    }
}

impl Calibration {
    /// Tokens that are read of a text by default, at most.
    pub const DEFAULT_TOKENS: usize = MOST;

    /// Parts of a text of 512 tokens each, spread evenly, with at most `tokens` together. Without a text, one that is part of the
    /// library, in English and Chinese. A model that fills blanks reads half of each part as its bidirectional context.
    ///
    /// # Errors
    /// If the text cannot be encoded, or has fewer than two tokens.
    pub fn of_text(
        config: &Config,
        tokenizer: &Tokenizer,
        text: Option<&str>,
        tokens: usize,
    ) -> Result<Self> {
        Self::of_parts(config, tokenizer, text.unwrap_or(TEXT), TOKENS, tokens, Method::Gptq)
    }

    /// A little of the text that is part of the library, to measure with.
    ///
    /// # Errors
    /// As [`Self::of_text`].
    pub(crate) fn of_own_text(config: &Config, tokenizer: &Tokenizer) -> Result<Self> {
        Self::of_parts(config, tokenizer, TEXT, OWN_PART, OWN_TOKENS, Method::Importance)
    }

    /// Parts of a text of `part` tokens each, with at most `tokens` together.
    fn of_parts(
        config: &Config,
        tokenizer: &Tokenizer,
        text: &str,
        part: usize,
        tokens: usize,
        method: Method,
    ) -> Result<Self> {
        let ids = text_ids(config.mask, tokenizer, text)?;
        let room = config.max_context.saturating_sub(AROUND);
        let part = part.min(room).min(ids.len()).min(tokens);
        if part < 2 {
            return Err(Error::Prompt("a text of at least 2 tokens is needed".to_owned()));
        }
        let count = (ids.len() / part).min(tokens / part).max(1);
        let window = |index: usize| {
            let start = if count == 1 { 0 } else { index * (ids.len() - part) / (count - 1) };
            let window =
                Window::ending(config.mask, tokenizer, &ids[start..start + part], part / 2)?;
            Ok(window.ids().to_vec())
        };
        Ok(Self::new((0..count).map(window).collect::<Result<_>>()?, method))
    }

    /// Conversations in the form of `template`, up to `tokens` in all; each up to its last answer, at most 2048 tokens of it.
    ///
    /// # Errors
    /// If a conversation cannot be written in this form, or none has an answer.
    pub fn of_conversations(
        config: &Config,
        tokenizer: &Tokenizer,
        template: &Template,
        conversations: &[Vec<Message>],
        tokens: usize,
    ) -> Result<Self> {
        let (mut texts, mut total, mut longest) = (Vec::new(), 0, 0);
        for conversation in conversations {
            if total >= tokens {
                break;
            }
            let answered = conversation.iter().rposition(|message| message.role == Role::Assistant);
            let Some(last) = answered.filter(|&last| last > 0) else { continue };
            let (before, answer) = (&conversation[..last], &conversation[last].content);
            let (mut ids, answers) = template.with_answers(tokenizer, before, &[answer])?;
            let prompt = ids.len();
            answers.into_iter().for_each(|answer| ids.extend(answer));
            ids.truncate(config.max_context.min(MOST_OF_A_CONVERSATION));
            longest = longest.max(prompt);
            // A bidirectional context must be whole.
            if ids.len() < prompt || total + ids.len() > tokens.max(ids.len()) {
                continue;
            }
            total += ids.len();
            texts.push(ids);
        }
        if texts.is_empty() {
            let most = config.max_context.min(MOST_OF_A_CONVERSATION);
            let problem = match longest {
                0 => "no conversation has an answer to calibrate with".to_owned(),
                _ => format!(
                    "every conversation is too long to calibrate with: at most {most} tokens before its last answer"
                ),
            };
            return Err(Error::Prompt(problem));
        }
        Ok(Self::new(texts, Method::Gptq))
    }

    /// Prompts and answers as ids. Those for a model that fills blanks need a blank and `sop`.
    ///
    /// # Errors
    /// If there is none, or one is empty.
    pub fn of_ids(texts: Vec<Vec<u32>>) -> Result<Self> {
        if texts.is_empty() || texts.iter().any(Vec::is_empty) {
            return Err(Error::Ids("there are no ids to calibrate with".to_owned()));
        }
        Ok(Self::new(texts, Method::Gptq))
    }

    /// Random ids. They show which inputs of a matrix are large, which depends on the weights before it more than on the text, but
    /// not which are large together.
    pub(crate) fn without_texts(config: &Config) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let part = RANDOM_PART.min(config.max_context.saturating_sub(AROUND)).max(2);
        let id = |bits: u32| ((u64::from(bits) * config.vocab as u64) >> 32) as u32;
        let texts = (0..RANDOM_TOKENS.div_ceil(part)).map(|_| {
            let mut ids: Vec<_> = (0..part).map(|_| id(random.next_u32())).collect();
            // Half of it is an answer: a blank, and the start of what fills it.
            if let (MaskKind::Prefix(_), Some(sop)) = (config.mask, config.special.sop) {
                let special = &config.special;
                let blank = special.gmask.or(special.mask).or(special.smask);
                ids.retain(|&id| id != sop);
                ids.splice(ids.len() / 2..ids.len() / 2, blank.into_iter().chain([sop]));
            }
            ids
        });
        Self::new(texts.collect(), Method::Importance)
    }

    /// Some of the texts, spread evenly: at least one, and no more than are needed for `tokens`.
    pub(crate) fn part(&self, tokens: usize) -> Self {
        let mean = self.tokens().div_ceil(self.texts.len()).max(1);
        let count = (tokens / mean).clamp(1, self.texts.len());
        let texts = (0..count).map(|index| self.texts[index * self.texts.len() / count].clone());
        Self::new(texts.collect(), self.method)
    }

    fn new(texts: Vec<Vec<u32>>, method: Method) -> Self {
        let mut hash = Sha256::new();
        for text in &texts {
            hash.update((text.len() as u64).to_le_bytes());
            text.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { texts, method, digest }
    }

    /// Checks that a model can read the texts.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a text is longer than the context.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        if let Some(id) = self.texts.iter().flatten().find(|&&id| id as usize >= config.vocab) {
            let problem = format!("id {id} is outside the vocabulary of {} ids", config.vocab);
            return Err(Error::Ids(problem));
        }
        config.check_capacity(self.longest())
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// SHA-256 of the ids, in hexadecimal. It is recorded in the file of weights.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn method(&self) -> Method {
        self.method
    }

    pub(super) fn texts(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Tokens of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.texts.iter().map(Vec::len).max().unwrap_or(1)
    }
}

/// Random tokens, and those of a sequence.
const RANDOM_TOKENS: usize = 256;
const RANDOM_PART: usize = 128;

/// Tokens of the text of the library that are measured with, and those of a part of it.
const OWN_TOKENS: usize = 512;
const OWN_PART: usize = 256;

/// Most ids that a model needs around a text.
const AROUND: usize = 8;

/// Most tokens of a conversation.
const MOST_OF_A_CONVERSATION: usize = 2048;
