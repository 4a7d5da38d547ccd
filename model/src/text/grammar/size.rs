//! How large a JSON schema may be. Where schemas are combined, the compiler multiplies out their alternatives.

use crate::error::{Error, Result};
use serde_json::Value;
use std::iter::Sum;

/// Longest schema in bytes.
const MAX_SCHEMA: usize = 64 << 10;

/// Most copies of parts that the compiler may make: some seconds, and some hundred megabytes.
const MAX_COPIES: usize = 1 << 20;

/// # Errors
/// If the schema is too long, or combines too many alternatives.
pub(super) fn check(schema: &Value) -> Result<()> {
    let length = schema.to_string().len();
    if length > MAX_SCHEMA {
        let problem = format!("a JSON schema has {length} bytes, and {MAX_SCHEMA} are the most");
        return Err(Error::Grammar(problem));
    }
    if copies(schema, Size::of(schema)) > MAX_COPIES {
        let problem = "the JSON schema combines too many alternatives: write them out, or have fewer in what allOf, anyOf, oneOf and \
                       $ref join";
        return Err(Error::Grammar(problem.to_owned()));
    }
    Ok(())
}

/// The values in a schema, and the alternatives among them.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    choices: usize,
}

impl Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Size::default(), |all, one| Size {
            values: all.values + one.values,
            choices: all.choices + one.choices,
        })
    }
}

impl Size {
    fn of(schema: &Value) -> Self {
        let one = Size { values: 1, choices: 0 };
        match schema {
            Value::Array(values) => values.iter().map(Size::of).chain([one]).sum(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| Size::of_field(name, value)).chain([one]).sum()
            }
            _ => one,
        }
    }

    fn of_field(name: &str, value: &Value) -> Self {
        let mut size = Size::of(value);
        if ["anyOf", "oneOf", "enum"].contains(&name) {
            size.choices += value.as_array().map_or(0, Vec::len);
        }
        size
    }
}

/// How many copies the compiler makes at most: every alternative of a part meets all values of the others. A reference may stand for
/// anything in the `whole` schema.
fn copies(schema: &Value, whole: Size) -> usize {
    let nested = |values: &mut dyn Iterator<Item = &Value>| {
        values.map(|value| copies(value, whole)).fold(0, usize::saturating_add)
    };
    let fields = match schema {
        Value::Array(values) => return nested(&mut values.iter()),
        Value::Object(fields) => fields,
        _ => return 0,
    };
    let part = |part: &Value| match part.get("$ref") {
        Some(_) => whole,
        None => Size::of(part),
    };
    let (mut parts, mut rest) = (Vec::new(), Size::default());
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("allOf", Value::Array(all)) => parts.extend(all.iter().map(part)),
            ("anyOf" | "oneOf" | "enum", Value::Array(any)) => {
                let options: Size = any.iter().map(part).sum();
                parts.push(Size { choices: options.choices + any.len(), ..options });
            }
            ("$ref", _) => parts.push(whole),
            ("$defs" | "definitions", _) => {}
            _ => rest = [rest, Size::of_field(name, value)].into_iter().sum(),
        }
    }
    parts.push(rest);
    let values: usize = parts.iter().map(|part| part.values).sum();
    let here = parts.iter().map(|part| part.choices.saturating_mul(values - part.values));
    here.fold(nested(&mut fields.values()), usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn alternatives_are_multiplied_only_where_schemas_are_combined() {
        let properties = |count: u32| -> Value {
            let fields =
                (0..count).map(|i| (format!("p{i}"), json!({ "type": ["string", "null"] })));
            json!({ "type": "object", "properties": fields.collect::<serde_json::Map<_, _>>() })
        };
        let options = |count: u32| -> Value {
            (0..count).map(|i| json!({ "properties": { "a": { "const": i } } })).collect()
        };
        for (schema, is_fine) in [
            (json!({ "type": "string", "enum": (0..5000).collect::<Vec<_>>() }), true),
            (json!({ "anyOf": options(1000) }), true),
            (properties(1000), true),
            (json!({ "allOf": [properties(300), { "anyOf": options(20) }] }), true),
            (json!({ "allOf": [properties(600), { "anyOf": options(700) }] }), false),
            (json!({ "properties": properties(600)["properties"], "anyOf": options(700) }), false),
            (
                json!({ "$defs": { "d": properties(600) }, "allOf": [{ "$ref": "#/$defs/d" }, { "oneOf": options(700) }] }),
                false,
            ),
            (properties(5000), false),
        ] {
            assert_eq!(check(&schema).is_ok(), is_fine, "{:.200}", schema.to_string());
        }
    }
}
