//! JSON of any shape with words that mean something to the program.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use serde_json::{Value, json};

/// A text.
#[derive(Debug, Arbitrary)]
pub enum Word<'a> {
    Known(u8),
    Any(&'a str),
}

/// A value.
#[derive(Debug, Arbitrary)]
pub enum Json<'a> {
    Null,
    Flag(bool),
    Integer(i64),
    Number(f64),
    Text(Word<'a>),
    Part(Word<'a>),
    List(Vec<Json<'a>>),
    Object(Vec<(Word<'a>, Json<'a>)>),
    /// A tool as OpenAI's API writes it.
    Tool(Word<'a>, Box<Json<'a>>),
}

/// Names of fields, ids and tags that templates look for.
const WORDS: [&str; 26] = [
    "type",
    "text",
    "function",
    "name",
    "parameters",
    "properties",
    "description",
    "string",
    "integer",
    "required",
    "arguments",
    "<|user|>",
    "<|assistant|>\n",
    "<|observation|>",
    "[gMASK]",
    "<sop>",
    "[MASK]",
    "</think>",
    "<think>",
    "<tool_call>",
    "<arg_key>",
    "[Round 1]\n\n问：",
    "答：",
    "/nothink",
    "\u{10ffff}\0",
    "{{ x }}{% if",
];

impl Word<'_> {
    /// The text itself.
    pub fn text(&self) -> &str {
        match self {
            Word::Known(at) => WORDS[usize::from(*at) % WORDS.len()],
            Word::Any(text) => text,
        }
    }
}

impl Json<'_> {
    /// The value itself.
    pub fn value(&self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::Flag(x) => json!(x),
            Json::Integer(x) => json!(x),
            Json::Number(x) => json!(x),
            Json::Text(x) => json!(x.text()),
            Json::Part(x) => json!({ "type": "text", "text": x.text() }),
            Json::List(all) => all.iter().map(Json::value).collect(),
            Json::Object(all) => {
                all.iter().map(|(name, x)| (name.text().to_owned(), x.value())).collect()
            }
            Json::Tool(name, parameters) => {
                json!({ "type": "function", "function": { "name": name.text(), "parameters": parameters.value() } })
            }
        }
    }
}
