//! Fields inside of the JSON values of a request: those of messages, tools and formats, which no type has.

use std::collections::BTreeSet;

use serde_json::Value;

/// Paths of objects, without the numbers of lists, and the fields that are read of each. Objects that are not here are free.
pub type Read = &'static [(&'static str, &'static [&'static str])];

/// A request.
pub trait Fields {
    /// The objects in its JSON values.
    const READ: Read = &[];

    /// Its JSON values, each under the name of its field.
    fn values(&self) -> Vec<(&'static str, &[Value])> {
        Vec::new()
    }
}

/// The paths of fields in the JSON values of a request that are not read. Those that are null say nothing.
pub fn unread<T: Fields>(request: &T) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, values) in request.values() {
        values.iter().for_each(|value| walk(T::READ, path, value, &mut names));
    }
    names
}

fn walk(read: Read, path: &str, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(read, path, value, names)),
        Value::Object(fields) => {
            let Some((_, known)) = read.iter().find(|(object, _)| *object == path) else { return };
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{name}");
                match known.contains(&name.as_str()) {
                    true => walk(read, &path, value, names),
                    false => {
                        names.insert(path);
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::chat::ChatRequest;

    #[test]
    fn fields_of_messages_tools_and_formats_are_known() {
        let text = json!({ "type": "text", "text": "a", "cache_control": {} });
        let call = json!({ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}", "x": 1 } });
        let schema = json!({ "type": "object", "anything": { "of": "the schema" } });
        let request: ChatRequest = serde_json::from_value(json!({
            "messages": [
                { "role": "user", "content": [text], "weight": 1, "refusal": null },
                { "role": "assistant", "tool_calls": [call], "weight": 1 },
            ],
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": schema }, "y": 1 }],
            "tool_choice": { "type": "function", "function": { "name": "f", "z": 1 } },
            "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema, "u": 1 } },
        }))
        .unwrap();
        assert_eq!(
            unread(&request).into_iter().collect::<Vec<_>>(),
            [
                "messages.content.cache_control",
                "messages.tool_calls.function.x",
                "messages.weight",
                "response_format.json_schema.u",
                "tool_choice.function.z",
                "tools.y",
            ]
        );
    }
}
