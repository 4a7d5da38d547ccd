//! Tools: the forms in which requests give them and models expect them.

use super::message::{Message, Role};
use crate::limits::answer::{MAX_CHOICES, MAX_DEPTH};
use crate::text::nesting::is_deeper;
use serde_json::{Value, json};

/// The function in a tool: itself, or what is in `{"type": "function", "function": …}`.
pub(crate) fn function(tool: &Value) -> &Value {
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

/// The kinds of values that an argument may have by its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(super) const TEXT: Kinds = Kinds(1);
    pub(super) const ANY: Kinds = Kinds(0xff);

    /// The kinds that a schema allows. What it does not say is allowed.
    pub(crate) fn of(schema: &Value) -> Kinds {
        Kinds::nested(schema, MAX_CHOICES)
    }

    /// Whether a text is among them.
    #[cfg(feature = "grammar")]
    pub(crate) fn has_text(self) -> bool {
        self.0 & Kinds::TEXT.0 != 0
    }

    fn nested(schema: &Value, depth: usize) -> Kinds {
        let of_all = |values: &[Value], of: &dyn Fn(&Value) -> Kinds| {
            Kinds(values.iter().map(|value| of(value).0).fold(0, |a, b| a | b))
        };
        let nested = |schema: &Value| Kinds::nested(schema, depth - 1);
        if let Some(values) = schema["enum"].as_array() {
            return of_all(values, &Kinds::of_value);
        }
        if let Some(value) = schema.get("const") {
            return Kinds::of_value(value);
        }
        match &schema["type"] {
            Value::String(name) => return Kinds::named(name),
            Value::Array(names) => {
                return of_all(names, &|name| name.as_str().map_or(Kinds::ANY, Kinds::named));
            }
            _ => {}
        }
        let choices = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
        match choices {
            Some(choices) if depth > 0 => of_all(choices, &nested),
            _ => Kinds::ANY,
        }
    }

    fn named(name: &str) -> Kinds {
        match name {
            "string" => Kinds::TEXT,
            "number" | "integer" => Kinds(2),
            "boolean" => Kinds(4),
            "null" => Kinds(8),
            "array" => Kinds(16),
            "object" => Kinds(32),
            _ => Kinds::ANY,
        }
    }

    fn of_value(value: &Value) -> Kinds {
        Kinds::named(match value {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "boolean",
            Value::Null => "null",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
    }

    /// A value that is written as JSON, or as a bare text, as JSON. It is JSON if it can be, if the schema allows this kind, and if it is
    /// not nested deeper than [`MAX_DEPTH`].
    pub(super) fn read(self, text: &str) -> String {
        let json = serde_json::from_str::<Value>(text).ok();
        let fits =
            |value: &Value| self.0 & Kinds::of_value(value).0 != 0 && !is_deeper(value, MAX_DEPTH);
        match json.filter(fits) {
            // Its digits stay: a large one would lose some.
            Some(Value::Number(_)) => text.trim().to_owned(),
            Some(value) => value.to_string(),
            // A text in a place where none is allowed is better than nothing.
            None => Value::from(text).to_string(),
        }
    }
}

/// The tools that may be called, by name, and the kinds of their arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered(Vec<(String, Vec<(String, Kinds)>)>);

impl Offered {
    /// The tools in a list as requests give it. What has no name is left out.
    pub(super) fn new(tools: &Value) -> Self {
        let tools = tools.as_array().map_or(&[][..], Vec::as_slice).iter();
        let read = |tool: &Value| {
            let function = function(tool);
            let properties = function["parameters"]["properties"].as_object();
            let kinds = properties.into_iter().flatten();
            let kinds = kinds.map(|(name, schema)| (name.clone(), Kinds::of(schema)));
            Some((function["name"].as_str()?.to_owned(), kinds.collect()))
        };
        Offered(tools.filter_map(read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The arguments of a tool.
    pub(super) fn arguments(&self, tool: &str) -> Vec<(String, Kinds)> {
        let known = self.0.iter().find(|(name, _)| name == tool);
        known.map_or(Vec::new(), |(_, arguments)| arguments.clone())
    }
}
