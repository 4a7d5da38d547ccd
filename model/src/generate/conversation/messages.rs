//! Messages ↔ JSON.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files::json::check_json_values;
use crate::limits::file::MOST_JSON_VALUES;
use crate::text::chat::{Message, Role, ToolCall};

/// Messages as JSON in the form of OpenAI's API: a list of objects with `role` and `content`, and with the other fields that a
/// message has.
pub fn messages_to_json(messages: &[Message]) -> String {
    format!("{:#}", json!(messages))
}

/// Messages from JSON, as [`messages_to_json`] writes them or in the form of OpenAI's API.
///
/// That is a list of messages, or an object whose `messages` is such a list. A `content` is a string, null, or a list of parts
/// `{"type": "text", "text": …}`; the texts of the parts are joined. The role `developer` is read as `system`. The arguments of
/// `tool_calls` are a JSON object, or a text with one. Fields that [`Message`] does not have are ignored.
///
/// # Errors
/// If the JSON has another form. The error names the message.
pub fn messages_from_json(json: &str) -> Result<Vec<Message>> {
    const FORM: &str = r#"expected a JSON list of {"role": "user", "content": "…"}"#;
    check_json_values(json.as_bytes(), MOST_JSON_VALUES)
        .map_err(|problem| Error::Prompt(format!("the conversation {problem}")))?;
    let value = serde_json::from_str(json.trim_start_matches('\u{feff}'));
    let value = match value.map_err(|error| Error::Prompt(format!("{FORM}: {error}")))? {
        Value::Object(mut object) => object.remove("messages").unwrap_or_default(),
        value => value,
    };
    let Value::Array(messages) = value else {
        return Err(Error::Prompt(format!("{FORM}, or an object with such a list as messages")));
    };
    let read = |(i, value)| {
        message(value).map_err(|problem| Error::Prompt(format!("message {i}: {problem}")))
    };
    messages.into_iter().enumerate().map(read).collect()
}

fn message(value: Value) -> Result<Message, String> {
    let Value::Object(mut fields) = value else { return Err("is not an object".to_owned()) };
    let role = role(&fields)?;
    let parts = fields.get("content").filter(|content| !content.is_string()).cloned();
    let mut message = Message::new(role, content(fields.remove("content"), role)?);
    message.parts = parts;
    message.metadata = text(&mut fields, "metadata")?;
    message.reasoning_content = text(&mut fields, "reasoning_content")?;
    message.tool_call_id = text(&mut fields, "tool_call_id")?;
    message.name = text(&mut fields, "name")?;
    message.tools = fields.remove("tools").filter(|tools| !tools.is_null());
    message.tool_calls = match fields.remove("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(calls)) => calls.into_iter().map(tool_call).collect::<Result<_, _>>()?,
        Some(_) => return Err("tool_calls is not a list".to_owned()),
    };
    Ok(message)
}

/// A field with a text, if there is one.
fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a string")),
    }
}

fn tool_call(value: Value) -> Result<ToolCall, String> {
    serde_json::from_value(value).map_err(|error| format!("a tool call is not valid: {error}"))
}

fn role(fields: &Map<String, Value>) -> Result<Role, String> {
    let name = fields.get("role").and_then(Value::as_str).ok_or("there is no role")?;
    if name == "developer" {
        return Ok(Role::System);
    }
    let roles = [Role::System, Role::User, Role::Assistant, Role::Observation, Role::Tool];
    roles.into_iter().find(|role| role.name() == name).ok_or_else(|| {
        let names = roles.map(Role::name).join(", ");
        format!("unknown role {name:?}; the roles are {names}, developer")
    })
}

fn content(value: Option<Value>, role: Role) -> Result<String, String> {
    match value {
        Some(Value::String(content)) => Ok(content),
        Some(Value::Null) => Ok(String::new()),
        // A message that only calls tools.
        None if role == Role::Assistant => Ok(String::new()),
        None => Err("there is no content".to_owned()),
        Some(Value::Array(parts)) => parts.iter().map(part).collect(),
        Some(_) => Err("content is neither a string nor a list of parts".to_owned()),
    }
}

/// The text of a part of a content.
fn part(part: &Value) -> Result<&str, String> {
    match part["type"].as_str() {
        Some("text") => part["text"].as_str().ok_or_else(|| "a text part has no text".to_owned()),
        Some(other) => Err(images_refused(other).unwrap_or_else(|| {
            format!("content of type {other:?} is not supported, only \"text\"")
        })),
        None => Err("a part of the content has no type".to_owned()),
    }
}

/// The types of a part of a content that is an image, in the APIs that there are.
const IMAGES: [&str; 3] = ["image_url", "input_image", "image"];

/// Why a part of a content with this type is refused, if it is an image.
pub fn images_refused(kind: &str) -> Option<String> {
    IMAGES.contains(&kind).then(|| {
        format!("images are not supported, text is: of models that read both, this program has the text part only, so leave out the part of type {kind:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<Vec<Message>, String> {
        messages_from_json(&json.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut system = Message::new(Role::System, "s");
        system.tools = Some(json!([{ "name": "f", "a": 1 }]));
        let mut call = Message::new(Role::Assistant, "c");
        call.metadata = Some("f".to_owned());
        let user = Message::new(Role::User, "你好\n\"");
        let mut thought = Message::new(Role::Assistant, "");
        thought.reasoning_content = Some("hm".to_owned());
        let arguments = json!({ "b": [1.5, "\"x\""], "a": null }).as_object().cloned().unwrap();
        let named = |id: &str| ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            arguments: arguments.clone(),
        };
        thought.tool_calls = vec![named("call_1"), named("")];
        let mut result = Message::new(Role::Tool, "42");
        (result.tool_call_id, result.name) = (Some("call_1".to_owned()), Some("f".to_owned()));
        let observation = Message::new(Role::Observation, "");
        let messages = vec![system, user, call, thought, result, observation];
        assert_eq!(messages_from_json(&messages_to_json(&messages)).unwrap(), messages);
        assert!(messages_from_json(&messages_to_json(&[])).unwrap().is_empty());
    }

    #[test]
    fn the_form_of_openai_is_read() {
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let json = json!({ "model": "m", "messages": [
            { "role": "developer", "content": "d", "name": "n" },
            { "role": "user", "content": parts },
            { "role": "assistant", "content": null, "tool_calls": [] },
            { "role": "tool", "content": "t", "tool_call_id": "1", "tools": null, "metadata": null },
            { "role": "assistant", "tool_calls": [] },
        ] });
        let mut expected = [
            (Role::System, "d"),
            (Role::User, "ab"),
            (Role::Assistant, ""),
            (Role::Tool, "t"),
            (Role::Assistant, ""),
        ]
        .map(|(role, text)| Message::new(role, text));
        expected[0].name = Some("n".to_owned());
        expected[1].parts =
            Some(json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]));
        expected[2].parts = Some(Value::Null);
        expected[3].tool_call_id = Some("1".to_owned());
        assert_eq!(read(json).unwrap(), expected);
    }

    #[test]
    fn calls_are_read_in_every_form_and_written_in_that_of_openai() {
        let read_call = |call: Value| {
            let json = json!([{ "role": "assistant", "content": null, "tool_calls": [call] }]);
            read(json).unwrap().remove(0)
        };
        let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } });
        let message = read_call(call.clone());
        assert_eq!(serde_json::to_value(&message.tool_calls).unwrap(), json!([call]));
        for (arguments, count) in
            [(json!({"a": 1}), 1), (json!(""), 0), (json!("{}"), 0), (json!(null), 0)]
        {
            let call = json!({ "function": { "name": "f", "arguments": arguments } });
            let message = read_call(call);
            assert_eq!(message.tool_calls[0].arguments.len(), count, "{arguments}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = |content: Value| json!([{ "role": "user", "content": content }]);
        for (json, part) in [
            (json!({}), "JSON list"),
            (json!("x"), "JSON list"),
            (json!([1]), "message 0: is not an object"),
            (json!([{ "content": "" }]), "no role"),
            (json!([{ "role": "poet", "content": "" }]), "\"poet\""),
            (json!([{ "role": "user" }]), "no content"),
            (user(json!(5)), "neither"),
            (
                user(json!([{ "type": "image_url", "image_url": {} }])),
                "images are not supported, text is",
            ),
            (user(json!([{ "type": "image" }])), "the part of type \"image\""),
            (user(json!([{ "type": "input_audio" }])), "\"input_audio\" is not supported"),
            (user(json!([{ "text": "" }])), "no type"),
            (user(json!([{ "type": "text" }])), "no text"),
            (json!([{ "role": "user", "content": "", "metadata": 1 }]), "metadata"),
            (json!([{ "role": "assistant", "tool_calls": {} }]), "tool_calls is not a list"),
            (json!([{ "role": "assistant", "tool_calls": [{}] }]), "missing field `function`"),
            (
                json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "[" } }] }]),
                "the arguments of the call of \"f\" are not a JSON object",
            ),
            (
                json!([{ "role": "assistant", "tool_calls": [{ "type": "custom", "function": { "name": "f" } }] }]),
                "custom",
            ),
        ] {
            let error = read(json.clone()).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
        assert_eq!(messages_from_json("[").unwrap_err().code(), "prompt");
    }
}
