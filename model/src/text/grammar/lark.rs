//! Pieces of grammars in the notation of Lark.

use crate::text::chat::{CallForm, Thoughts};
use serde_json::{Map, Value, json};

/// White space between the parts of JSON: a blank, or a new line and its indent. The default has no limit, and a model may write
/// nothing else.
const WHITE_SPACE: &str = r"\x20|\x0A(\x20{0,40}|\x09{0,20})";

/// A schema with our options in place of its own.
pub(super) fn schema(schema: &Value) -> Value {
    let mut fields = match schema {
        Value::Object(fields) => fields.clone(),
        Value::Bool(true) => Map::new(),
        // The compiler says that nothing satisfies it.
        other => return other.clone(),
    };
    fields.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": WHITE_SPACE }));
    fields.into()
}

/// What is before the answer: thoughts, and white space.
pub(super) fn before(form: Option<CallForm>, thoughts: Thoughts, is_call: bool) -> String {
    let thoughts = match thoughts {
        Thoughts::None => "thoughts: \"\"\n",
        Thoughts::Possible => "thoughts: \"\" | (\"<think>\" | \"\\n<think>\") rest\n",
        Thoughts::Begun => "thoughts: rest\n",
    };
    // The first piece of an answer, and that of its first line, may have a blank that is not shown: ChatGLM3 has learnt both. A
    // text begins on the line after its role, and a call beside it.
    let space = match (form, is_call) {
        (Some(CallForm::Python | CallForm::Json), true) => r#"" "?"#,
        (Some(CallForm::Python | CallForm::Json), false) => r#"" "? "\n" " "?"#,
        _ => r#"" "? "\n"? " "?"#,
    };
    let rest = r#"rest[suffix="</think>"]: /(?s:.*)/"#;
    format!("start: thoughts space answer\n{thoughts}{rest}\nspace: {space}\n")
}

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
