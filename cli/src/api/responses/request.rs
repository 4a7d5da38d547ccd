//! A request becomes that of a chat.

use glm_model::images_refused;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::response::Head;
use crate::api::chat::{ChatRequest, TemplateArguments};
use crate::api::error::{ApiError, Result};
use crate::api::fields::{Fields, Read};
use crate::api::model::{ApiModel, Question};

/// A conversation that is to be answered.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ResponsesRequest {
    /// A text, or a list of items: objects with the `type` message, function_call, function_call_output or reasoning.
    pub input: Input,
    /// The system message.
    pub instructions: Option<String>,
    /// The name of the model. Without it, the model that the server has.
    pub model: Option<String>,
    /// The tools that may be called: objects with `type` (function), `name` and `parameters`.
    pub tools: Option<Vec<Value>>,
    /// Whether tools are called: `auto`, the default with tools, `none`, `required`, or an object that names a function.
    pub tool_choice: Option<Value>,
    /// With false, the answer ends after its first call.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer: `format` is an object whose `type` is `text`, `json_object` or `json_schema`. With tools, the
    /// answer has this form or calls them.
    pub text: Option<TextOptions>,
    /// Send the answer in pieces, as events.
    pub stream: Option<bool>,
    /// Most tokens of the answer.
    pub max_output_tokens: Option<usize>,
    /// Higher is more varied, 0 is greedy. The default of each sampling field is the model's own.
    pub temperature: Option<f32>,
    /// The likeliest tokens whose probabilities reach this sum.
    pub top_p: Option<f32>,
    /// The same seed gives the same answer. Without it, a random one.
    pub seed: Option<i64>,
    /// With the `effort` none, a model that can think does not.
    pub reasoning: Option<Reasoning>,
    /// Not supported: the server keeps no responses.
    pub previous_response_id: Option<String>,
    /// Not supported: the server keeps no conversations.
    pub conversation: Option<Value>,
    /// Not supported: it must be false.
    pub background: Option<bool>,
    /// Ignored: nothing is stored, and the response says so.
    #[expect(dead_code, reason = "it is described, and the log does not name it as unknown")]
    pub store: Option<bool>,
    /// Returned as it is.
    pub metadata: Option<serde_json::Map<String, Value>>,
    /// A name of the user. Requests take turns between the users of an address.
    pub user: Option<String>,
}

/// What is to be answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of items")]
pub enum Input {
    Text(String),
    Items(Vec<Value>),
}

impl Fields for ResponsesRequest {
    const READ: Read = &[
        // Items of all types. What a response says of its own items, such as `id` and `status`, comes back as it is.
        (
            "input",
            &[
                "type",
                "role",
                "content",
                "summary",
                "call_id",
                "name",
                "arguments",
                "output",
                "id",
                "status",
            ],
        ),
        ("input.content", &["type", "text", "refusal", "annotations", "logprobs"]),
        ("input.summary", &["type", "text"]),
        ("input.output", &["type", "text"]),
        ("tools", &["type", "name", "description", "parameters"]),
        ("tool_choice", &["type", "name"]),
        ("text.format", &["type", "name", "description", "schema", "strict"]),
    ];

    fn values(&self) -> Vec<(&'static str, &[Value])> {
        let items = match &self.input {
            Input::Text(_) => &[][..],
            Input::Items(items) => items,
        };
        vec![
            ("input", items),
            ("tools", self.tools.as_deref().unwrap_or_default()),
            ("tool_choice", self.tool_choice.as_slice()),
            ("text.format", self.text.as_ref().map_or(&[], |text| text.format.as_slice())),
        ]
    }
}

/// What the text of the answer is like.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TextOptions {
    pub format: Option<Value>,
}

/// How the model thinks.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Reasoning {
    pub effort: Option<String>,
}

impl ResponsesRequest {
    /// What is asked of the model, and the form of the response.
    ///
    /// # Errors
    /// If a field is wrong, not supported, or needs what the server does not keep.
    pub fn question(self, model: &ApiModel) -> Result<(Question, Head)> {
        let mut chat = self.chat()?;
        let effort = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        chat.chat_template_kwargs =
            TemplateArguments::hinted(effort.map(|effort| effort != "none"), model);
        let (question, _) = chat.question(model).map_err(renamed)?;
        let name = model.answering_name(self.model.as_deref());
        Ok((question, Head::new(name, self)))
    }

    /// The chat that is asked for.
    fn chat(&self) -> Result<ChatRequest> {
        for (name, is_given) in [
            ("previous_response_id", self.previous_response_id.is_some()),
            ("conversation", self.conversation.as_ref().is_some_and(|id| !id.is_null())),
            ("background", self.background == Some(true)),
        ] {
            if is_given {
                let problem = format!(
                    "{name} is not supported: the server stores nothing; send the whole conversation as input"
                );
                return Err(ApiError::field(name, problem));
            }
        }
        let tools = self.tools.iter().flatten().enumerate().map(tool).collect::<Result<_>>()?;
        let format = self.text.as_ref().and_then(|text| text.format.as_ref());
        Ok(ChatRequest {
            messages: self.messages()?,
            model: self.model.clone(),
            tools: Some(tools),
            tool_choice: self.tool_choice.as_ref().map(tool_choice),
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: format.map(response_format),
            max_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            ..ChatRequest::default()
        })
    }

    fn messages(&self) -> Result<Vec<Value>> {
        let mut messages = Vec::new();
        if let Some(instructions) = &self.instructions {
            messages.push(json!({ "role": "system", "content": instructions }));
        }
        match &self.input {
            Input::Text(text) => messages.push(json!({ "role": "user", "content": text })),
            Input::Items(items) => {
                for (index, item) in items.iter().enumerate() {
                    add(&mut messages, item).map_err(|problem| {
                        let path = format!("input[{index}]");
                        ApiError::field(&path, format!("{path}: {problem}"))
                    })?;
                }
            }
        }
        Ok(messages)
    }
}

/// Adds an item. Thoughts, text and calls of the assistant that follow each other are one message.
fn add(messages: &mut Vec<Value>, item: &Value) -> Result<(), String> {
    let text = |name: &str| {
        item[name].as_str().ok_or_else(|| format!("it has no {name} that is a string"))
    };
    match item["type"].as_str() {
        None | Some("message") => {
            let content = content(&item["content"])?;
            match text("role")? {
                "assistant" => {
                    let last = assistant(messages, |last| {
                        last["content"].is_null() && last["tool_calls"].is_null()
                    });
                    last["content"] = content.into();
                }
                role => messages.push(json!({ "role": role, "content": content })),
            }
        }
        Some("reasoning") => {
            let parts = [&item["summary"], &item["content"]];
            let parts = parts.iter().rev().find(|parts| parts[0].is_object());
            let thoughts = parts.map_or_else(|| Ok(String::new()), |parts| content(parts))?;
            assistant(messages, |_| false)["reasoning_content"] = thoughts.into();
        }
        Some("function_call") => {
            let function = json!({ "name": text("name")?, "arguments": text("arguments")? });
            let call = json!({ "id": text("call_id")?, "type": "function", "function": function });
            let last = assistant(messages, |_| true);
            match last["tool_calls"].as_array_mut() {
                Some(calls) => calls.push(call),
                None => last["tool_calls"] = json!([call]),
            }
        }
        Some("function_call_output") => {
            let output = content(&item["output"])?;
            messages.push(
                json!({ "role": "tool", "tool_call_id": text("call_id")?, "content": output }),
            );
        }
        Some("item_reference") => {
            return Err("item_reference is not supported: the server stores nothing".to_owned());
        }
        Some(other) => {
            return Err(format!(
                "the type {other:?} is not supported, only message, function_call, function_call_output and reasoning"
            ));
        }
    }
    Ok(())
}

/// The last message if it is one of the assistant that `goes_on`, or a new one.
fn assistant(messages: &mut Vec<Value>, goes_on: impl Fn(&Value) -> bool) -> &mut Value {
    let is_open = messages.last().is_some_and(|last| last["role"] == "assistant" && goes_on(last));
    if !is_open {
        messages.push(json!({ "role": "assistant" }));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

/// The text of a content, which is a string or a list of parts.
fn content(content: &Value) -> Result<String, String> {
    const TEXTS: [&str; 5] =
        ["input_text", "output_text", "reasoning_text", "summary_text", "text"];
    let part = |part: &Value| match part["type"].as_str() {
        Some(kind) if TEXTS.contains(&kind) => {
            part["text"].as_str().map(str::to_owned).ok_or_else(|| "a part has no text".to_owned())
        }
        Some("refusal") => Ok(part["refusal"].as_str().unwrap_or_default().to_owned()),
        Some(kind) => Err(images_refused(kind)
            .unwrap_or_else(|| format!("content of type {kind:?} is not supported, only text"))),
        None => Err("a part of the content has no type".to_owned()),
    };
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        _ => Err("the content is neither a string nor a list of parts".to_owned()),
    }
}

/// A tool as in a chat, where its function is an object of its own.
fn tool((index, tool): (usize, &Value)) -> Result<Value> {
    match tool["type"].as_str() {
        Some("function") if tool["name"].is_string() => {
            let mut function = tool.clone();
            if let Some(fields) = function.as_object_mut() {
                fields.remove("type");
            }
            Ok(json!({ "type": "function", "function": function }))
        }
        _ => {
            let path = format!("tools[{index}]");
            let problem = format!("{path} is no tool with the type \"function\" and a name");
            Err(ApiError::field(path, problem))
        }
    }
}

fn tool_choice(choice: &Value) -> Value {
    match choice["type"].as_str() {
        Some("function") => {
            json!({ "type": "function", "function": { "name": choice["name"] } })
        }
        _ => choice.clone(),
    }
}

/// A format as in a chat, where the schema is in an object of its own.
fn response_format(format: &Value) -> Value {
    match format["type"].as_str() {
        Some("json_schema") => json!({ "type": "json_schema", "json_schema": format }),
        _ => format.clone(),
    }
}

/// An error of the chat with the name that the field has here.
pub fn renamed(error: ApiError) -> ApiError {
    let name = match error.body().error.param.as_deref() {
        Some("messages") => "input",
        Some("max_tokens") => "max_output_tokens",
        Some("response_format") => "text.format",
        _ => return error,
    };
    error.with_param(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(fields: Value) -> Result<ChatRequest, Option<String>> {
        let request: ResponsesRequest = serde_json::from_value(fields).unwrap();
        request.chat().map_err(|error| error.body().error.param)
    }

    #[test]
    fn items_become_messages() {
        let call = |id: &str| json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": "{}" });
        let request = chat(json!({ "instructions": "s", "input": [
            { "role": "user", "content": [{ "type": "input_text", "text": "q" }] },
            { "type": "reasoning", "id": "r", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "a" }] },
            call("1"),
            call("2"),
            { "type": "function_call_output", "call_id": "1", "output": "5" },
        ] }));
        let function = json!({ "name": "f", "arguments": "{}" });
        let calls =
            ["1", "2"].map(|id| json!({ "id": id, "type": "function", "function": function }));
        assert_eq!(
            Value::from(request.unwrap().messages),
            json!([
                { "role": "system", "content": "s" },
                { "role": "user", "content": "q" },
                { "role": "assistant", "reasoning_content": "hm", "content": "a", "tool_calls": calls },
                { "role": "tool", "tool_call_id": "1", "content": "5" },
            ])
        );
    }

    #[test]
    fn tools_and_formats_are_those_of_a_chat() {
        let request = chat(json!({
            "input": "q",
            "tools": [{ "type": "function", "name": "f", "parameters": {} }],
            "tool_choice": { "type": "function", "name": "f" },
            "text": { "format": { "type": "json_schema", "name": "n", "schema": { "type": "null" } } },
        }))
        .unwrap();
        assert_eq!(
            Value::from(request.tools),
            json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }])
        );
        assert_eq!(request.tool_choice.unwrap()["function"]["name"], "f");
        assert_eq!(request.response_format.unwrap()["json_schema"]["schema"]["type"], "null");
    }

    #[test]
    fn what_needs_a_store_is_refused() {
        for (fields, param) in [
            (json!({ "input": "q", "previous_response_id": "r" }), "previous_response_id"),
            (json!({ "input": "q", "conversation": "c" }), "conversation"),
            (json!({ "input": "q", "background": true }), "background"),
            (json!({ "input": [{ "type": "item_reference", "id": "i" }] }), "input[0]"),
            (
                json!({ "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }),
                "input[0]",
            ),
            (json!({ "input": "q", "tools": [{ "type": "web_search" }] }), "tools[0]"),
        ] {
            assert_eq!(chat(fields.clone()).unwrap_err().as_deref(), Some(param), "{fields}");
        }
    }
}
