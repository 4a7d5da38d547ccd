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

/// The rule `start`: thoughts, and the `answer`.
pub(super) fn begin(thoughts: Thoughts) -> String {
    let thoughts = match thoughts {
        Thoughts::None => "thoughts: \"\"\n",
        Thoughts::Possible => "thoughts: \"\" | (\"<think>\" | \"\\n<think>\") rest\n",
        Thoughts::Begun => "thoughts: rest\n",
    };
    let rest = r#"rest[suffix="</think>"]: /(?s:.*)/"#;
    format!("start: thoughts answer\n{thoughts}{rest}\n")
}

/// White space before a text. It begins on the line after the role. The first piece of an answer, and that of its first line, may have
/// a blank that is not shown: ChatGLM3 has learnt both.
pub(super) fn before_text(form: Option<CallForm>) -> &'static str {
    match form {
        Some(CallForm::Python | CallForm::Json) => r#"" "? "\n" " "?"#,
        _ => AROUND,
    }
}

/// White space before calls. The name of a tool is beside the role, where a text cannot begin.
pub(super) fn before_calls(form: CallForm) -> &'static str {
    match form {
        CallForm::Python | CallForm::Json => r#"" "?"#,
        CallForm::Tags { .. } => AROUND,
    }
}

/// White space where a new line may be or not.
const AROUND: &str = r#"" "? "\n"? " "?"#;

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
