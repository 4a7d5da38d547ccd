//! The messages of a conversation.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call, as ChatGLM3 and GLM-4 name it.
    Observation,
    /// The result of a tool call, as most other models name it. A `chat_template` sees which of the two names was used; the
    /// built-in templates treat both the same.
    Tool,
}

impl Role {
    /// The name of the role.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Observation => "observation",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// The text.
    pub content: String,
    /// Text after the role: the name of the tool that the assistant calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// The tools that the assistant may call, as a list of objects; in a system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
}

impl Message {
    /// A message of `role` without metadata and tools.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into(), metadata: None, tools: None }
    }
}
