//! How deep JSON is nested.

use serde_json::Value;

/// Whether lists and objects are nested in more than `depth` levels.
pub(crate) fn is_deeper(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(values) => depth == 0 || values.iter().any(|v| is_deeper(v, depth - 1)),
        Value::Object(fields) => depth == 0 || fields.values().any(|v| is_deeper(v, depth - 1)),
        _ => false,
    }
}
