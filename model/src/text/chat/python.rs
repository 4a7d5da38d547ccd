//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it: a blank after each colon, and after each comma that
//! does not end a line, and numbers as in Python's `repr`. And values as `repr` writes them.

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};
use std::io::{Result, Write};

/// `indent` is the number of blanks per level. `None` writes one line.
pub(crate) fn json(value: &Value, indent: Option<usize>) -> String {
    let mut out = Vec::new();
    // Writing a Value to a Vec cannot fail.
    let _ = write_json(value, indent, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes the same to `out`.
///
/// # Errors
/// The errors of `out`.
pub(super) fn write_json(
    value: &impl Serialize,
    indent: Option<usize>,
    out: impl Write,
) -> Result<()> {
    let blanks = indent.map(|n| " ".repeat(n));
    let pretty = blanks.as_ref().map(|blanks| PrettyFormatter::with_indent(blanks.as_bytes()));
    let written = value.serialize(&mut Serializer::with_formatter(out, Python { pretty }));
    written.map_err(std::io::Error::from)
}

struct Python<'a> {
    pretty: Option<PrettyFormatter<'a>>,
}

impl Formatter for Python<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_array(out),
            None => out.write_all(b"["),
        }
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.end_array(out),
            None => out.write_all(b"]"),
        }
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_array_value(out, first),
            None => out.write_all(if first { b"" } else { b", " }),
        }
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.pretty.as_mut().map_or(Ok(()), |p| p.end_array_value(out))
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_object(out),
            None => out.write_all(b"{"),
        }
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.end_object(out),
            None => out.write_all(b"}"),
        }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        match &mut self.pretty {
            Some(pretty) => pretty.begin_object_key(out, first),
            None => out.write_all(if first { b"" } else { b", " }),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.pretty.as_mut().map_or(Ok(()), |p| p.end_object_value(out))
    }
}

/// A number as `repr` writes it: the shortest digits that round to it, with an exponent below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    let shortest = format!("{value:e}");
    let Some((digits, exponent)) = shortest.split_once('e') else { return shortest };
    match exponent.parse::<i32>() {
        Ok(-4..16) | Err(_) => format!("{value:?}"),
        Ok(exponent) if exponent < 0 => format!("{digits}e-{:02}", -exponent),
        Ok(exponent) => format!("{digits}e+{exponent:02}"),
    }
}

/// The arguments of a call by keywords, `city='北京', days=3`.
pub(super) fn keywords(arguments: &Map<String, Value>) -> String {
    let mut out = String::new();
    for (i, (name, value)) in arguments.iter().enumerate() {
        out += if i > 0 { ", " } else { "" };
        out.extend([name, "="]);
        repr(value, &mut out);
    }
    out
}

/// Appends a value as Python's `repr` writes it.
pub(crate) fn repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(_) => out.push_str(&json(value, None)),
        Value::String(text) => repr_text(text, out),
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(value, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr_text(name, out);
                out.push_str(": ");
                repr(value, out);
            }
            out.push('}');
        }
    }
}

fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_written_as_repr_does() {
        let arguments =
            json!({"city": "北京", "n": [1, 2.0, null], "o": {"it's": true, "\"'": "\n\\\u{1}"}});
        let expected = r#"city='北京', n=[1, 2.0, None], o={"it's": True, '"\'': '\n\\\x01'}"#;
        assert_eq!(keywords(arguments.as_object().expect("an object")), expected);
    }

    #[test]
    fn values_are_written_as_python_does() {
        let value =
            json!({"名": [1, 2.5, null, true, {}], "a": [], "b": {"c\n\u{7f}\u{1}/<": "\"\\"}});
        let line = r#"{"名": [1, 2.5, null, true, {}], "a": [], "b": {"c\nX\u0001/<": "\"\\"}}"#;
        assert_eq!(json(&value, None), line.replace('X', "\u{7f}"));
        let lines = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}";
        assert_eq!(json(&json!({"a": [1, {}], "b": []}), Some(2)), lines);
    }

    #[test]
    fn numbers_are_written_as_repr_does() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (123456789012345.6, "123456789012345.6"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e100, "-2.5e+100"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(value), expected);
        }
    }
}
