//! Whole responses.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::request::ResponsesRequest;
use crate::api::answer::Usage;
use crate::api::blocks::{Block, Blocks};
use crate::api::model::{now, response_id};

/// What all states of a response have.
pub struct Head {
    id: String,
    created: u64,
    model: String,
    request: ResponsesRequest,
}

impl Head {
    pub fn new(model: &str, request: ResponsesRequest) -> Self {
        Self { id: response_id("resp"), created: now(), model: model.to_owned(), request }
    }

    /// The item of the block with this index.
    pub fn item(&self, index: usize, block: &Block, status: &'static str) -> Item {
        let id = |kind: &str| self.id.replacen("resp", kind, 1) + &format!("-{index}");
        let parts = || Part::of(block).into_iter().collect();
        match block {
            Block::Reasoning(_) => {
                Item::Reasoning { id: id("rs"), summary: Vec::new(), content: parts(), status }
            }
            Block::Text(_) => {
                Item::Message { id: id("msg"), role: "assistant", content: parts(), status }
            }
            Block::Call { id: call_id, name, arguments, .. } => Item::FunctionCall {
                id: id("fc"),
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
                status,
            },
        }
    }

    /// The item of the block with this index, once it has ended.
    pub fn done(&self, index: usize, blocks: &Blocks) -> Item {
        let is_last = index + 1 == blocks.done.len();
        let block = &blocks.done[index];
        let is_broken = matches!(block, Block::Call { is_complete: false, .. })
            || is_last && blocks.finish == Some("length");
        self.item(index, block, if is_broken { INCOMPLETE } else { COMPLETED })
    }
}

pub const IN_PROGRESS: &str = "in_progress";
pub const COMPLETED: &str = "completed";
pub const INCOMPLETE: &str = "incomplete";

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResponseBody {
    id: String,
    object: &'static str,
    created_at: u64,
    pub status: &'static str,
    error: Option<Value>,
    incomplete_details: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    metadata: Map<String, Value>,
    model: String,
    output: Vec<Item>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    /// Always false.
    store: bool,
    temperature: Option<f32>,
    text: Value,
    tool_choice: Value,
    tools: Vec<Value>,
    top_p: Option<f32>,
    truncation: &'static str,
    usage: Option<ResponseUsage>,
    user: Option<String>,
}

/// A part of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    Reasoning {
        id: String,
        summary: Vec<Part>,
        content: Vec<Part>,
        status: &'static str,
    },
    Message {
        id: String,
        role: &'static str,
        content: Vec<Part>,
        status: &'static str,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        arguments: String,
        status: &'static str,
    },
}

/// A text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    OutputText { text: String, annotations: Vec<Value>, logprobs: Vec<Value> },
    ReasoningText { text: String },
}

/// Tokens of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct InputDetails {
    /// Tokens of the input that were not computed again.
    cached_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OutputDetails {
    /// Tokens of the answer that are thoughts, with the tags around them.
    reasoning_tokens: usize,
}

impl Item {
    pub fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. }
            | Self::Message { id, .. }
            | Self::FunctionCall { id, .. } => id,
        }
    }

    /// Without its texts: an item that has just begun.
    pub fn empty(mut self) -> Self {
        if let Self::Reasoning { content, .. } | Self::Message { content, .. } = &mut self {
            content.clear();
        }
        self
    }
}

impl Part {
    /// `None` for a call.
    pub fn of(block: &Block) -> Option<Self> {
        match block {
            Block::Reasoning(text) => Some(Self::ReasoningText { text: text.clone() }),
            Block::Text(text) => {
                let (annotations, logprobs) = (Vec::new(), Vec::new());
                Some(Self::OutputText { text: text.clone(), annotations, logprobs })
            }
            Block::Call { .. } => None,
        }
    }
}

impl ResponseBody {
    /// A response that has just begun.
    pub fn begun(head: &Head) -> Self {
        let request = &head.request;
        let format = request.text.as_ref().and_then(|text| text.format.clone());
        Self {
            id: head.id.clone(),
            object: "response",
            created_at: head.created,
            status: IN_PROGRESS,
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            metadata: request.metadata.clone().unwrap_or_default(),
            model: head.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            previous_response_id: None,
            store: false,
            temperature: request.temperature,
            text: json!({ "format": format.unwrap_or_else(|| json!({ "type": "text" })) }),
            tool_choice: request.tool_choice.clone().unwrap_or_else(|| json!("auto")),
            tools: request.tools.clone().unwrap_or_default(),
            top_p: request.top_p,
            truncation: "disabled",
            usage: None,
            user: request.user.clone(),
        }
    }

    pub fn finished(head: &Head, blocks: &Blocks, usage: Usage) -> Self {
        let is_cut = blocks.finish == Some("length");
        let output = (0..blocks.done.len()).map(|index| head.done(index, blocks)).collect();
        let usage = ResponseUsage {
            input_tokens: usage.prompt,
            input_tokens_details: InputDetails { cached_tokens: usage.cached },
            output_tokens: usage.answer,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning },
            total_tokens: usage.prompt + usage.answer,
        };
        Self {
            status: if is_cut { INCOMPLETE } else { COMPLETED },
            incomplete_details: is_cut.then(|| json!({ "reason": "max_output_tokens" })),
            output,
            usage: Some(usage),
            ..Self::begun(head)
        }
    }

    pub fn failed(head: &Head, code: &str, message: &str) -> Self {
        let error = Some(json!({ "code": code, "message": message }));
        Self { status: "failed", error, ..Self::begun(head) }
    }
}
