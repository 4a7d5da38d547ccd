//! Whole messages.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::model::response_id;
use crate::serve::answer::Usage;
use crate::serve::blocks::{Block, Blocks};

/// What all parts of a message have.
pub struct Head {
    id: String,
    model: String,
}

impl Head {
    pub fn new(model: &str) -> Self {
        Self { id: response_id("msg"), model: model.to_owned() }
    }
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageBody {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<ContentBlock>,
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
    usage: MessageUsage,
}

/// A part of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    Text { text: String },
    Thinking { thinking: String, signature: &'static str },
    ToolUse { id: String, name: String, input: Value },
}

/// Tokens of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageUsage {
    /// Tokens of the prompt that were computed.
    input_tokens: usize,
    cache_creation_input_tokens: usize,
    /// Tokens of the prompt that were not computed again.
    cache_read_input_tokens: usize,
    output_tokens: usize,
}

/// Tokens of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenCount {
    pub input_tokens: usize,
}

impl From<Usage> for MessageUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt.saturating_sub(usage.cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached,
            output_tokens: usage.answer,
        }
    }
}

impl ContentBlock {
    /// A block that begins.
    pub fn begun(block: Block) -> Self {
        match block {
            Block::Text(text) => Self::Text { text },
            Block::Reasoning(thinking) => Self::Thinking { thinking, signature: "" },
            Block::Call { id, name, .. } => Self::ToolUse { id, name, input: json!({}) },
        }
    }

    /// `None` for a call that the answer breaks off: its arguments are no JSON.
    fn ended(block: Block) -> Option<Self> {
        match block {
            Block::Call { id, name, arguments, is_complete: true } => {
                let input = serde_json::from_str(&arguments).ok()?;
                Some(Self::ToolUse { id, name, input })
            }
            Block::Call { .. } => None,
            block => Some(Self::begun(block)),
        }
    }
}

/// Why an answer has ended.
pub fn stop_reason(blocks: &Blocks) -> Option<&'static str> {
    match blocks.finish? {
        "length" => Some("max_tokens"),
        _ if blocks.stop.is_some() => Some("stop_sequence"),
        "tool_calls" => Some("tool_use"),
        _ => Some("end_turn"),
    }
}

impl MessageBody {
    /// A message that has just begun.
    pub fn begun(head: Head, usage: Usage) -> Self {
        Self {
            id: head.id,
            kind: "message",
            role: "assistant",
            model: head.model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: usage.into(),
        }
    }

    pub fn finished(head: Head, blocks: Blocks, usage: Usage) -> Self {
        Self {
            stop_reason: stop_reason(&blocks),
            content: blocks.done.into_iter().filter_map(ContentBlock::ended).collect(),
            stop_sequence: blocks.stop,
            ..Self::begun(head, usage)
        }
    }
}
