//! Tools: the forms in which requests give them and models expect them.

use super::message::{Message, Role};
use serde_json::{Value, json};

/// The function in a tool: itself, or what is in `{"type": "function", "function": …}`.
pub(super) fn function(tool: &Value) -> &Value {
    match tool.get("function") {
        Some(function) if function.is_object() => function,
        _ => tool,
    }
}

/// The functions in a list of tools alone, as ChatGLM3 expects them. What is no list stays as it is.
pub(super) fn functions(tools: &Value) -> Value {
    match tools {
        Value::Array(tools) => tools.iter().map(|tool| function(tool).clone()).collect(),
        other => other.clone(),
    }
}

/// A list of tools in OpenAI's form, as a `chat_template` expects them. What has no name stays as it is.
pub(super) fn wrapped(tools: &Value) -> Value {
    let is_bare = |tool: &Value| tool.get("name").is_some() && tool.get("type").is_none();
    let wrap = |tool: &Value| match is_bare(tool) {
        true => json!({ "type": "function", "function": tool }),
        false => tool.clone(),
    };
    match tools {
        Value::Array(tools) => tools.iter().map(wrap).collect(),
        other => other.clone(),
    }
}

/// Lets the assistant call these tools: they become those of the system message that begins the conversation. Without one, an
/// empty one is put there, and every template writes it as its model expects.
pub fn offer_tools(messages: &mut Vec<Message>, tools: Value) {
    match messages.first_mut() {
        Some(first) if first.role == Role::System => first.tools = Some(tools),
        _ => {
            let carrier = Message { tools: Some(tools), ..Message::new(Role::System, "") };
            messages.insert(0, carrier);
        }
    }
}
