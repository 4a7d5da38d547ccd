//! What the caller of a template chooses.

use crate::error::Result;
use crate::text::tokenizer::Tokenizer;

/// What names of special ids are inside of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialNames {
    /// The ids, wherever the published code of the model recognises them.
    #[default]
    Ids,
    /// Text, so that nobody speaks in the role of another: roles, `<sop>`, `<eop>`, `<|endoftext|>`, and tags of tools and of
    /// thoughts such as `<tool_response>` and `<think>`.
    ///
    /// Three kinds keep their meaning: the blanks `[MASK]`, `[sMASK]` and `[gMASK]`; `/nothink`, by which users of GLM-4.5 stop
    /// its thinking; and `<think>` and `</think>` in what the assistant said, because templates look for its thoughts there. In
    /// ChatGLM-6B and ChatGLM2 the roles are lines such as `答：`, which have no ids; in a message such a line is indented by a
    /// blank.
    Text,
}

impl SpecialNames {
    /// The ids of a text that somebody says.
    pub(super) fn encode(self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        match self {
            SpecialNames::Ids => tokenizer.encode(text),
            SpecialNames::Text => tokenizer.encode_as_text(text),
        }
    }
}

/// How a conversation becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PromptOptions {
    /// What names of special ids are inside of messages.
    pub special_names: SpecialNames,
    /// Whether the model is to think before it answers: the variable `enable_thinking` of a `chat_template`. `None` leaves it to
    /// the template. Models that cannot think ignore it.
    pub thinking: Option<bool>,
}
