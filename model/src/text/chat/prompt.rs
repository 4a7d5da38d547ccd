//! What the caller of a template chooses.

use super::thinking::{CLEAR_THINKING, ENABLE_THINKING};
use crate::error::Result;
use crate::text::tokenizer::Tokenizer;
use serde_json::{Map, Value};

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
    /// the template. What the model cannot do is an error; see [`Template::check_prompt_options`](super::Template::check_prompt_options).
    pub thinking: Option<bool>,
    /// Whether thoughts before the last question are left out: the variable `clear_thinking` of a `chat_template`. `None` leaves
    /// it to the template.
    pub clear_thinking: Option<bool>,
}

impl PromptOptions {
    /// The variables of a `chat_template`, beside the conversation.
    pub(super) fn variables(&self) -> Map<String, Value> {
        let given =
            [(ENABLE_THINKING, self.thinking), (CLEAR_THINKING, self.clear_thinking)].into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
        given.chain([("add_generation_prompt".to_owned(), true.into())]).collect()
    }
}
