//! A request becomes that of a chat.

use glm_model::images_refused;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::chat::{ChatRequest, TemplateArguments};
use crate::api::fields::{Fields, Read};
use crate::api::model::{ApiModel, Question};
use crate::api::sampling::Strings;
use crate::serve::error::{ApiError, Result};

/// A conversation that is to be answered.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MessagesRequest {
    /// The messages: objects with `role` (user, assistant) and `content`, a text or a list of blocks: text, tool_use, tool_result, thinking.
    pub messages: Vec<Value>,
    /// Most tokens of the answer. Needed for an answer.
    pub max_tokens: Option<usize>,
    /// The name of the model. Without it, the model that the server has.
    pub model: Option<String>,
    /// The system message: a text, or a list of text blocks.
    pub system: Option<Value>,
    /// The tools that may be called: objects with `name` and `input_schema`.
    pub tools: Option<Vec<Value>>,
    /// Whether tools are called: an object whose `type` is `auto`, `any`, `tool` (with a `name`) or `none`. With
    /// `disable_parallel_tool_use`, the answer ends after its first call.
    pub tool_choice: Option<Value>,
    /// Texts before which the answer ends; up to 16.
    pub stop_sequences: Option<Vec<String>>,
    /// Higher is more varied, 0 is greedy. The default of each sampling field is the model's own.
    pub temperature: Option<f32>,
    /// The likeliest tokens whose probabilities reach this sum.
    pub top_p: Option<f32>,
    /// The N likeliest tokens.
    pub top_k: Option<i64>,
    /// The same seed gives the same answer. Without it, a random one.
    pub seed: Option<i64>,
    /// Send the answer in pieces, as events.
    pub stream: Option<bool>,
    /// Whether a model that can think does so: an object whose `type` is `disabled` or another.
    pub thinking: Option<Value>,
    pub metadata: Option<Metadata>,
}

impl Fields for MessagesRequest {
    const READ: Read = &[
        ("messages", &["role", "content"]),
        (
            "messages.content",
            &[
                "type",
                "text",
                "thinking",
                "signature",
                "data",
                "id",
                "name",
                "input",
                "tool_use_id",
                "content",
                "is_error",
            ],
        ),
        ("messages.content.content", &["type", "text"]),
        ("system", &["type", "text"]),
        ("tools", &["type", "name", "description", "input_schema"]),
        ("tool_choice", &["type", "name", "disable_parallel_tool_use"]),
        ("thinking", &["type"]),
    ];

    fn values(&self) -> Vec<(&'static str, &[Value])> {
        vec![
            ("messages", &self.messages),
            ("system", self.system.as_slice()),
            ("tools", self.tools.as_deref().unwrap_or_default()),
            ("tool_choice", self.tool_choice.as_slice()),
            ("thinking", self.thinking.as_slice()),
        ]
    }
}

/// Who asks.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Metadata {
    /// A name of the user. Requests take turns between the users of an address.
    pub user_id: Option<String>,
}

impl MessagesRequest {
    pub fn user(&self) -> Option<&str> {
        self.metadata.as_ref()?.user_id.as_deref()
    }

    /// Checks what an answer needs, and a count of tokens does not.
    ///
    /// # Errors
    /// If it is missing.
    pub fn check(&self) -> Result<()> {
        if self.max_tokens.is_none() {
            return Err(ApiError::field("max_tokens", "max_tokens is missing"));
        }
        match self.messages.last() {
            Some(last) if last["role"] == "assistant" => Err(ApiError::field(
                "messages",
                "messages ends with one of the assistant: an answer that has begun cannot be continued here",
            )),
            _ => Ok(()),
        }
    }

    /// What is asked of the model.
    ///
    /// # Errors
    /// If a field is wrong or not supported.
    pub fn question(&self, model: &ApiModel) -> Result<Question> {
        let mut chat = self.chat()?;
        let thinking = self.thinking.as_ref().and_then(|thinking| thinking["type"].as_str());
        chat.chat_template_kwargs =
            TemplateArguments::hinted(thinking.map(|kind| kind != "disabled"), model);
        let (question, _) = chat.question(model)?;
        Ok(question)
    }

    /// The chat that is asked for.
    fn chat(&self) -> Result<ChatRequest> {
        let mut messages = Vec::new();
        if let Some(system) = self.system.as_ref().filter(|system| !system.is_null()) {
            let text = text(system).map_err(|problem| wrong("system", &problem))?;
            messages.push(json!({ "role": "system", "content": text }));
        }
        for (index, message) in self.messages.iter().enumerate() {
            let added = match message["role"].as_str() {
                Some("user") => add_user(&mut messages, &message["content"]),
                Some("assistant") => {
                    assistant(&message["content"]).map(|message| messages.push(message))
                }
                _ => Err("the role must be user or assistant".to_owned()),
            };
            added.map_err(|problem| wrong(&format!("messages.{index}"), &problem))?;
        }
        let tools = self.tools.iter().flatten().enumerate().map(tool).collect::<Result<_>>()?;
        Ok(ChatRequest {
            messages,
            model: self.model.clone(),
            tools: Some(tools),
            tool_choice: self.tool_choice.as_ref().map(tool_choice).transpose()?,
            parallel_tool_calls: self.tool_choice.as_ref().and_then(|choice| {
                choice["disable_parallel_tool_use"].as_bool().map(|is_disabled| !is_disabled)
            }),
            stop: self.stop_sequences.clone().map(Strings::Many),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
            ..ChatRequest::default()
        })
    }
}

fn wrong(path: &str, problem: &str) -> ApiError {
    ApiError::field(path, format!("{path}: {problem}"))
}

/// The blocks of a content. A string is one block.
fn blocks(content: &Value) -> Result<Vec<Value>, String> {
    match content {
        Value::String(text) => Ok(vec![json!({ "type": "text", "text": text })]),
        Value::Array(blocks) => Ok(blocks.clone()),
        _ => Err("the content is neither a string nor a list of blocks".to_owned()),
    }
}

fn field<'b>(block: &'b Value, name: &str) -> Result<&'b str, String> {
    block[name].as_str().ok_or_else(|| format!("a block has no {name} that is a string"))
}

fn unsupported(block: &Value) -> String {
    match block["type"].as_str() {
        Some(kind) => images_refused(kind)
            .unwrap_or_else(|| format!("blocks of type {kind:?} are not supported here")),
        None => "a block has no type".to_owned(),
    }
}

/// The text of a content that has only text.
fn text(content: &Value) -> Result<String, String> {
    let text = |block: &Value| match block["type"].as_str() {
        Some("text") => field(block, "text").map(str::to_owned),
        _ => Err(unsupported(block)),
    };
    blocks(content)?.iter().map(text).collect()
}

/// Adds a message of the user: results of tools, and the text after them.
fn add_user(messages: &mut Vec<Value>, content: &Value) -> Result<(), String> {
    let (mut said, mut has_results) = (String::new(), false);
    for block in blocks(content)? {
        match block["type"].as_str() {
            Some("text") => said += field(&block, "text")?,
            Some("tool_result") => {
                let mut result = match &block["content"] {
                    Value::Null => String::new(),
                    content => text(content)?,
                };
                if block["is_error"] == true {
                    // The models know no other way to say it.
                    result.insert_str(0, "Error: ");
                }
                let id = field(&block, "tool_use_id")?;
                messages.push(json!({ "role": "tool", "tool_call_id": id, "content": result }));
                has_results = true;
            }
            _ => return Err(unsupported(&block)),
        }
    }
    if !has_results || !said.is_empty() {
        messages.push(json!({ "role": "user", "content": said }));
    }
    Ok(())
}

/// A message of the assistant: thoughts, text and calls.
fn assistant(content: &Value) -> Result<Value, String> {
    let (mut said, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for block in blocks(content)? {
        match block["type"].as_str() {
            Some("text") => said += field(&block, "text")?,
            Some("thinking") => thoughts += field(&block, "thinking")?,
            // Thoughts of another server, which only it can read.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let function =
                    json!({ "name": field(&block, "name")?, "arguments": block["input"] });
                let id = field(&block, "id")?;
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            _ => return Err(unsupported(&block)),
        }
    }
    let mut message = json!({ "role": "assistant", "content": said });
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

fn tool((index, tool): (usize, &Value)) -> Result<Value> {
    let path = format!("tools.{index}");
    let is_custom = tool["type"].is_null() || tool["type"] == "custom";
    match tool["name"].as_str() {
        Some(name) if is_custom => {
            let mut function = json!({ "name": name, "parameters": tool["input_schema"] });
            if let Some(description) = tool.get("description") {
                function["description"] = description.clone();
            }
            Ok(json!({ "type": "function", "function": function }))
        }
        Some(_) => Err(wrong(&path, "tools that the server itself would run are not supported")),
        None => Err(wrong(&path, "the tool has no name")),
    }
}

fn tool_choice(choice: &Value) -> Result<Value> {
    match choice["type"].as_str() {
        Some(kind @ ("auto" | "none")) => Ok(json!(kind)),
        Some("any") => Ok(json!("required")),
        Some("tool") if choice["name"].is_string() => {
            Ok(json!({ "type": "function", "function": { "name": choice["name"] } }))
        }
        Some("tool") => Err(wrong("tool_choice", "the tool has no name")),
        _ => Err(wrong("tool_choice", "the type must be auto, any, tool or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fields: Value) -> Result<ChatRequest, Option<String>> {
        let request: MessagesRequest = serde_json::from_value(fields).unwrap();
        request.chat().map_err(|error| error.body().error.param)
    }

    #[test]
    fn blocks_become_messages() {
        let request = chat(json!({
            "system": [{ "type": "text", "text": "s" }],
            "messages": [
                { "role": "user", "content": "q" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "" },
                    { "type": "text", "text": "a" },
                    { "type": "tool_use", "id": "1", "name": "f", "input": { "x": 1 } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "1", "content": [{ "type": "text", "text": "5" }] },
                    { "type": "text", "text": "and?" },
                ] },
            ],
        }));
        let function = json!({ "name": "f", "arguments": { "x": 1 } });
        let call = json!({ "id": "1", "type": "function", "function": function });
        assert_eq!(
            Value::from(request.unwrap().messages),
            json!([
                { "role": "system", "content": "s" },
                { "role": "user", "content": "q" },
                { "role": "assistant", "content": "a", "reasoning_content": "hm", "tool_calls": [call] },
                { "role": "tool", "tool_call_id": "1", "content": "5" },
                { "role": "user", "content": "and?" },
            ])
        );
    }

    #[test]
    fn choices_of_tools_are_those_of_a_chat() {
        let choice = |choice: Value| chat(json!({ "messages": [], "tool_choice": choice }));
        assert_eq!(choice(json!({ "type": "any" })).unwrap().tool_choice, Some(json!("required")));
        let named = choice(json!({ "type": "tool", "name": "f" })).unwrap().tool_choice.unwrap();
        assert_eq!(named["function"]["name"], "f");
        assert_eq!(choice(json!("auto")).unwrap_err().as_deref(), Some("tool_choice"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let image = json!([{ "type": "image", "source": {} }]);
        for (fields, param) in [
            (json!({ "messages": [{ "role": "system", "content": "" }] }), "messages.0"),
            (json!({ "messages": [{ "role": "user", "content": image }] }), "messages.0"),
            (json!({ "messages": [], "system": 5 }), "system"),
            (
                json!({ "messages": [], "tools": [{ "type": "bash_20250124", "name": "bash" }] }),
                "tools.0",
            ),
        ] {
            assert_eq!(chat(fields.clone()).unwrap_err().as_deref(), Some(param), "{fields}");
        }
    }
}
