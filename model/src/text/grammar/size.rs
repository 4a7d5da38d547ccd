//! How large a JSON schema may be. Where schemas are combined, the compiler multiplies out their alternatives and copies what they refer
//! to.

use crate::error::{Error, Result};
use crate::limits::grammar::{MAX_COPIES, MAX_SCHEMA};
use serde_json::Value;
use std::collections::HashMap;
use std::iter::Sum;

/// Checks the schemas of one grammar.
///
/// # Errors
/// If a schema is too long, or if together they combine too many alternatives.
pub(super) fn check<'s>(schemas: impl Iterator<Item = &'s Value>) -> Result<()> {
    let mut all = 0_usize;
    for schema in schemas {
        let length = schema.to_string().len();
        if length > MAX_SCHEMA {
            let problem =
                format!("a JSON schema has {length} bytes, and {MAX_SCHEMA} are the most");
            return Err(Error::Grammar(problem));
        }
        let whole = Size::of(schema);
        let copied = Copied { root: schema, whole, known: HashMap::new() }.combined(schema);
        all = all.saturating_add(copies(schema, whole)).saturating_add(copied);
        if all > MAX_COPIES {
            let problem = "the JSON schema combines too many alternatives: write them out, or have fewer in what allOf, anyOf, oneOf and \
                           $ref join";
            return Err(Error::Grammar(problem.to_owned()));
        }
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

/// Counts the values that the compiler copies in place of references.
struct Copied<'s> {
    root: &'s Value,
    whole: Size,
    /// The values of what a reference stands for; `None` while they are counted.
    known: HashMap<&'s str, Option<usize>>,
}

impl<'s> Copied<'s> {
    /// The values of all parts that are combined with others. Elsewhere a reference is a rule of the grammar, without a copy.
    fn combined(&mut self, schema: &'s Value) -> usize {
        let nested = match schema {
            Value::Array(values) => return self.sum(values.iter(), Self::combined),
            Value::Object(fields) => self.sum(fields.values(), Self::combined),
            _ => return 0,
        };
        let is_combined = schema.get("allOf").is_some()
            || schema.get("$ref").is_some() && schema.as_object().is_some_and(|all| all.len() > 1);
        if is_combined { nested.saturating_add(self.values(schema)) } else { nested }
    }

    /// The values of a schema with those of all references in it.
    fn values(&mut self, schema: &'s Value) -> usize {
        let nested = match schema {
            Value::Array(values) => self.sum(values.iter(), Self::values),
            Value::Object(fields) => self.sum(fields.values(), Self::values),
            _ => 0,
        };
        let reference = schema.get("$ref").and_then(Value::as_str);
        let referred = reference.map_or(0, |reference| self.referred(reference));
        nested.saturating_add(referred).saturating_add(1)
    }

    /// The values of what a reference stands for. One that leads back to itself stands for the whole schema.
    fn referred(&mut self, reference: &'s str) -> usize {
        if let Some(&known) = self.known.get(reference) {
            return known.unwrap_or(self.whole.values);
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let Some(target) = target else { return self.whole.values };
        self.known.insert(reference, None);
        let values = self.values(target);
        self.known.insert(reference, Some(values));
        values
    }

    fn sum(
        &mut self,
        values: impl Iterator<Item = &'s Value>,
        of: fn(&mut Self, &'s Value) -> usize,
    ) -> usize {
        values.fold(0, |all, value| all.saturating_add(of(self, value)))
    }
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
            assert_eq!(
                check(std::iter::once(&schema)).is_ok(),
                is_fine,
                "{:.200}",
                schema.to_string()
            );
        }
    }
    /// Each definition refers twice to the next.
    fn chain(count: usize, refer: fn(Value) -> Value) -> Value {
        let mut definitions: serde_json::Map<_, _> = (0..count)
            .map(|i| (format!("d{i}"), refer(json!({ "$ref": format!("#/$defs/d{}", i + 1) }))))
            .collect();
        definitions.insert(format!("d{count}"), json!({ "type": "string", "pattern": "a" }));
        json!({ "$defs": definitions, "$ref": "#/$defs/d0" })
    }

    #[test]
    fn copies_of_references_are_counted() {
        let all: fn(Value) -> Value = |next| json!({ "allOf": [next.clone(), next] });
        let fields: fn(Value) -> Value =
            |next| json!({ "allOf": [{ "properties": { "a": next, "b": next } }, {}] });
        for refer in [all, fields] {
            assert!(check(std::iter::once(&chain(5, refer))).is_ok());
            assert!(check(std::iter::once(&chain(30, refer))).is_err());
        }
        // The last reference of a cycle is not followed.
        let cycle =
            json!({ "$defs": { "d": all(json!({ "$ref": "#/$defs/d" })) }, "$ref": "#/$defs/d" });
        assert!(check(std::iter::once(&cycle)).is_ok());
        let tree = json!({ "properties": { "next": { "$ref": "#" } } });
        assert!(check(std::iter::once(&tree)).is_ok());
    }

    #[test]
    fn schemas_of_one_grammar_are_counted_together() {
        let options: Vec<_> = (0..300).map(|i| json!({ "const": i })).collect();
        let fields: serde_json::Map<_, _> =
            (0..300).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
        let one = json!({ "allOf": [{ "properties": fields }, { "anyOf": options }] });
        assert!(check([&one; 2].into_iter()).is_ok());
        assert!(check([&one; 20].into_iter()).is_err());
    }
}
