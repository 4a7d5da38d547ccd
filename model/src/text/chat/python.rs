//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it: a blank after each colon, and after each comma that
//! does not end a line, and numbers as in Python's `repr`. And values as `repr` writes them.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value};
use std::io::{Result, Write};

/// `indent` is the number of blanks per level. `None` writes one line.
pub(crate) fn json(value: &Value, indent: Option<usize>) -> String {
    let mut out = Vec::new();
    // Writing a Value to a Vec cannot fail.
    let _ = Dumps::new(indent.map(|n| " ".repeat(n))).write(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The options of `json.dumps`.
#[derive(Debug, Clone)]
pub(super) struct Dumps {
    /// What each level is indented by. `None` writes one line.
    indent: Option<String>,
    /// What stands between items.
    pub(super) item: String,
    /// What stands between a name and its value.
    pub(super) key: String,
    /// Whether only ASCII is written.
    pub(super) ascii: bool,
}

impl Dumps {
    /// The defaults, with `ensure_ascii=False`.
    pub(super) fn new(indent: Option<String>) -> Self {
        let item = if indent.is_some() { "," } else { ", " };
        Self { indent, item: item.to_owned(), key: ": ".to_owned(), ascii: false }
    }

    /// Writes a value to `out`.
    ///
    /// # Errors
    /// The errors of `out`.
    pub(super) fn write(&self, value: &impl Serialize, out: impl Write) -> Result<()> {
        let formatter = Python { dumps: self, level: 0, has_items: false };
        let written = value.serialize(&mut Serializer::with_formatter(out, formatter));
        written.map_err(std::io::Error::from)
    }
}

struct Python<'d> {
    dumps: &'d Dumps,
    level: usize,
    /// Whether the list or object that is being written has an item already.
    has_items: bool,
}

impl Python<'_> {
    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level += 1;
        self.has_items = false;
        out.write_all(bracket)
    }

    fn item<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        if !first {
            out.write_all(self.dumps.item.as_bytes())?;
        }
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> Result<()> {
        let Some(indent) = &self.dumps.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| out.write_all(indent.as_bytes()))
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> Result<()> {
        self.level -= 1;
        if self.has_items {
            self.line(out)?;
        }
        // It is itself an item of what it is in.
        self.has_items = true;
        out.write_all(bracket)
    }
}

impl Formatter for Python<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> Result<()> {
        if !self.dumps.ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            match c {
                ' '..='~' => out.write_all(&[c as u8])?,
                _ => {
                    let units = c.encode_utf16(&mut [0; 2]).to_vec();
                    units.iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
                }
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(self.dumps.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.has_items = true;
        Ok(())
    }
}

/// A number as `repr` writes it: the shortest digits that round to it, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(value: f64) -> String {
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

pub(super) fn repr_text(text: &str, out: &mut String) {
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

    #[test]
    fn numbers_of_json_are_written_with_their_digits() {
        for digits in ["0.1", "3.943558861510043e+180", "-1.1125369292536007e-308"] {
            let value: Value = serde_json::from_str(digits).unwrap();
            assert_eq!(json(&value, None), digits);
        }
    }
}
