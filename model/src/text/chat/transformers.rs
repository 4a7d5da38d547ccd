//! Conversations as transformers hands them to a `chat_template`: messages as objects in which arguments of calls are objects,
//! and the tools beside them.

use super::marks::{Marks, texts};
use super::message::{Message, Role, ToolCall};
use super::{python, tools};
use crate::error::Result;
use crate::text::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// What a template looks for in messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    /// The results of tools have the role `observation`.
    pub(super) observations: bool,
    /// Calls are messages with the name of the tool as metadata, and the arguments as content.
    pub(super) metadata: bool,
    /// Tools are in a message. Else they are beside the messages only.
    pub(super) tools_in_messages: bool,
    /// A content with several parts is a list of them. Else it is their text.
    pub(super) parts: bool,
    /// A content that is null is none. Else it is empty.
    pub(super) null: bool,
}

/// The variables of a template.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) messages: Vec<Value>,
    pub(super) tools: Option<Value>,
    /// Bytes of the messages, about.
    pub(super) bytes: u64,
}

/// A conversation as a template wants it.
pub(super) fn conversation(
    messages: &[Message],
    wants: Wants,
    marks: Option<&Marks>,
) -> Conversation {
    let writer = Writer { wants, marks };
    let messages: Vec<_> = messages.iter().flat_map(|message| writer.message(message)).collect();
    let tools = messages.iter().find_map(|message| message.get("tools")).cloned();
    let is_carrier = |message: &Value| {
        message.get("tools").is_some() && message["content"] == "" && !wants.tools_in_messages
    };
    let bytes = messages.iter().map(|message| message.to_string().len() as u64).sum();
    let messages = messages.into_iter().filter(|message| !is_carrier(message)).collect();
    Conversation { messages, tools, bytes }
}

/// Marks for all that is said in the messages.
///
/// # Errors
/// As [`Marks::new`].
pub(super) fn marks(tokenizer: &Tokenizer, messages: &[Message], source: &str) -> Result<Marks> {
    let mut found = vec![source];
    for message in messages {
        found.push(&message.content);
        let others =
            [&message.metadata, &message.reasoning_content, &message.tool_call_id, &message.name];
        found.extend(others.into_iter().flatten().map(String::as_str));
        let parts = message.tools.iter().chain(&message.parts);
        parts.for_each(|value| texts(value, &mut found));
        for ToolCall { id, name, arguments } in &message.tool_calls {
            found.extend([id.as_str(), name]);
            for (name, value) in arguments {
                found.push(name);
                texts(value, &mut found);
            }
        }
    }
    Marks::new(tokenizer, found.into_iter())
}

struct Writer<'m> {
    wants: Wants,
    marks: Option<&'m Marks>,
}

impl Writer<'_> {
    /// A message; or where calls are messages, one for the content and one for each call.
    fn message(&self, message: &Message) -> Vec<Value> {
        let mut fields = Map::new();
        let role = match message.role {
            Role::Tool if self.wants.observations => Role::Observation,
            role => role,
        };
        fields.insert("role".into(), role.name().into());
        let content = match (message.role, self.marks) {
            (Role::Assistant, Some(marks)) => marks.answer(&message.content),
            _ => self.text(&message.content),
        };
        let content = match &message.parts {
            Some(Value::Null) if self.wants.null && message.content.is_empty() => Value::Null,
            Some(parts @ Value::Array(_)) if self.wants.parts => {
                self.marks.map_or_else(|| parts.clone(), |marks| marks.value(parts))
            }
            _ => content.into(),
        };
        fields.insert("content".into(), content);
        for (name, value) in [
            ("metadata", &message.metadata),
            ("reasoning_content", &message.reasoning_content),
            ("tool_call_id", &message.tool_call_id),
            ("name", &message.name),
        ] {
            if let Some(value) = value {
                fields.insert(name.into(), self.text(value).into());
            }
        }
        if let Some(offered) = &message.tools {
            let offered = tools::wrapped(offered);
            let offered = self.marks.map_or_else(|| offered.clone(), |marks| marks.value(&offered));
            fields.insert("tools".into(), offered);
        }
        if message.tool_calls.is_empty() {
            return vec![fields.into()];
        }
        let calls = message.tool_calls.iter();
        if !self.wants.metadata {
            fields.insert("tool_calls".into(), calls.map(|call| self.call(call)).collect());
            return vec![fields.into()];
        }
        let is_said = !message.content.is_empty();
        let said = is_said.then(|| fields.into());
        said.into_iter().chain(calls.map(|call| self.as_metadata(call))).collect()
    }

    fn call(&self, ToolCall { id, name, arguments }: &ToolCall) -> Value {
        let arguments = self.arguments(arguments);
        let function = json!({ "name": self.text(name), "arguments": arguments });
        match id.is_empty() {
            true => json!({ "type": "function", "function": function }),
            false => json!({ "id": self.text(id), "type": "function", "function": function }),
        }
    }

    fn as_metadata(&self, ToolCall { name, arguments, .. }: &ToolCall) -> Value {
        let arguments = python::json(&self.arguments(arguments).into(), None);
        json!({ "role": "assistant", "metadata": self.text(name), "content": arguments })
    }

    fn arguments(&self, arguments: &Map<String, Value>) -> Map<String, Value> {
        self.marks.map_or_else(|| arguments.clone(), |marks| marks.object(arguments))
    }

    fn text(&self, text: &str) -> String {
        self.marks.map_or_else(|| text.to_owned(), |marks| marks.text(text))
    }
}
