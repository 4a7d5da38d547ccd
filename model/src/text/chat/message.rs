//! The messages of a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// One message of a conversation. Its JSON is that of OpenAI's API, with `metadata` and `tools` beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The author.
    pub role: Role,
    /// The text.
    pub content: String,
    /// The content where it was no text in a request: null, or a list of parts. [`Message::content`] is the text of the parts. Only a
    /// `chat_template` that looks into parts sees them, and they are not written to JSON.
    #[serde(skip)]
    pub parts: Option<Value>,
    /// Text after the role: the name of the tool that the assistant calls, where a call is given in the form of ChatGLM3 or
    /// GLM-4. Calls in [`Message::tool_calls`] need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// The tools that the assistant may call, as a list of objects; in a system message. Each is a function as in OpenAI's API,
    /// `{"type": "function", "function": {"name": …}}`, or `{"name": …}` alone. Every template writes them as its model expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// What the assistant thought before the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the assistant calls after the content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that this is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the author, or of the tool that this is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message of `role` with nothing but a content.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message {
            role,
            content: content.into(),
            parts: None,
            metadata: None,
            tools: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }
}

/// A call of a tool by the assistant. Its JSON is that of OpenAI's API, where the arguments are a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Call", try_from = "Call")]
pub struct ToolCall {
    /// What the result of the call refers to. May be empty.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments by name.
    pub arguments: Map<String, Value>,
}

/// A [`ToolCall`] as OpenAI's API writes it.
#[derive(Serialize, Deserialize)]
struct Call {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(rename = "type", default)]
    kind: Function,
    function: CalledFunction,
}

/// The only type of tool.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    #[default]
    Function,
}

#[derive(Serialize, Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl From<ToolCall> for Call {
    fn from(ToolCall { id, name, arguments }: ToolCall) -> Self {
        let arguments = Value::Object(arguments).to_string().into();
        Call { id, kind: Function::Function, function: CalledFunction { name, arguments } }
    }
}

impl TryFrom<Call> for ToolCall {
    type Error = String;

    fn try_from(Call { id, function, .. }: Call) -> Result<Self, String> {
        let CalledFunction { name, arguments } = function;
        let problem = || format!("the arguments of the call of {name:?} are not a JSON object");
        let arguments = match arguments {
            Value::Null => Value::Object(Map::new()),
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            Value::String(text) => serde_json::from_str(&text).map_err(|_| problem())?,
            arguments => arguments,
        };
        match arguments {
            Value::Object(arguments) => Ok(ToolCall { id, name, arguments }),
            _ => Err(problem()),
        }
    }
}
