//! Functions and filters of templates, as in Python and in transformers.

use std::io::{self, Write};

use chrono::{Local, NaiveDateTime};
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value as Json};

use super::MAX_TEXT;
use crate::text::chat::python::{self, Dumps};

/// Longest text before `%`. Each of its keys is compared with each bracket behind it.
const MAX_FORMAT: usize = 4096;

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// Python's string methods. The padding of `format` costs no fuel, so large widths are rejected.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let is_wide =
        |text: &str| text.match_indices('{').any(|(at, _)| is_wide_field(&text[at + 1..]));
    if method == "format" && value.as_str().is_some_and(is_wide) {
        return Err(wrong("format with a width of more than three digits is not supported"));
    }
    unknown_method_callback(state, value, method, args)
}

/// Whether a field of `format`, behind its brace, has a large width or precision. A name may have any bracket in a subscript, and the
/// fill may be any character.
fn is_wide_field(field: &str) -> bool {
    let mut in_subscript = false;
    let colon = field.find(|c| {
        in_subscript = c == '[' || in_subscript && c != ']';
        !in_subscript && matches!(c, ':' | '}')
    });
    let Some(spec) = colon.and_then(|at| field[at..].strip_prefix(':')) else { return false };
    let is_align = |c: char| matches!(c, '<' | '>' | '^' | '=');
    let mut chars = spec.char_indices().skip(1);
    let filled = chars.next().filter(|(_, c)| is_align(*c));
    let spec = filled.map_or(spec, |(at, _)| &spec[at..]);
    let end = spec.find(|c: char| !is_align(c) && !c.is_ascii_digit() && !"+- #0,_.".contains(c));
    has_long_number(&spec[..end.unwrap_or(spec.len())])
}

fn has_long_number(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|number| number.len() > 3)
}

/// Python's `text % value`: a tuple is a list of arguments.
pub(super) fn percent(text: &str, value: Value) -> Result<String, Error> {
    // A key, as in `%(key)s`, may have any character.
    let starts = text.match_indices('%').flat_map(|(at, _)| {
        let rest = &text[at + 1..];
        let keyed = if rest.starts_with('(') { rest } else { "" };
        [rest].into_iter().chain(keyed.match_indices(')').map(move |(at, _)| &keyed[at + 1..]))
    });
    let mut specs =
        starts.map(|spec| spec.split(|c: char| c.is_ascii_alphabetic()).next().unwrap_or_default());
    if text.len() > MAX_FORMAT || specs.any(|spec| has_long_number(spec) || spec.contains('*')) {
        return Err(wrong("% with a width of more than three digits is not supported"));
    }
    let args = if value.is_tuple() { value.try_iter()?.collect() } else { vec![value] };
    format(FormatStyle::Printf, text, &args)
}

/// `json.dumps` with the options that transformers gives to templates; by default characters outside of ASCII stay.
pub(super) fn to_json(
    value: Value,
    positional: Rest<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > NAMES.len() {
        return Err(wrong("tojson has at most four options"));
    }
    let option = |index: usize| -> Result<Option<Value>, Error> {
        let named = options.get::<Option<Value>>(NAMES[index])?;
        let given = named.or_else(|| positional.get(index).cloned());
        Ok(given.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let [ensure_ascii, indent, separators, sort_keys] =
        [option(0)?, option(1)?, option(2)?, option(3)?];
    options.assert_all_used()?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match &indent {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        // The output grows with the indent, and no template needs a larger one.
        Some(number) => Some(
            " ".repeat(usize::try_from(i64::try_from(number.clone())?.max(0)).unwrap_or(0).min(16)),
        ),
    };
    if indent.as_ref().is_some_and(|indent| indent.len() > 16) {
        return Err(wrong("tojson with an indent of more than 16 bytes is not supported"));
    }
    let mut dumps = Dumps::new(indent);
    if let Some(separators) = separators {
        let texts: Vec<Value> = separators.try_iter()?.collect();
        let [Some(item), Some(key)] = [0, 1].map(|at| texts.get(at).and_then(Value::as_str)) else {
            return Err(wrong("separators must be two texts"));
        };
        if texts.len() != 2 || item.len() > 16 || key.len() > 16 {
            return Err(wrong("separators must be two texts of at most 16 bytes"));
        }
        (dumps.item, dumps.key) = (item.to_owned(), key.to_owned());
    }
    dumps.ascii = is_set(ensure_ascii);
    let bad = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    let mut text = Limited(Vec::new());
    let written = match is_set(sort_keys) {
        true => {
            let json = serde_json::to_value(&value).map_err(|error| bad(error.to_string()))?;
            dumps.write(&sorted(json), &mut text)
        }
        false => dumps.write(&value, &mut text),
    };
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(text.0).map_err(|error| bad(error.to_string()))
}

/// The same with the fields of all objects in order. Values are not nested deeply, see `held.rs`.
fn sorted(json: Json) -> Json {
    match json {
        Json::Array(values) => values.into_iter().map(sorted).collect(),
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            fields
                .into_iter()
                .map(|(name, value)| (name, sorted(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        other => other,
    }
}

/// Writes a value into the output as Python's `str` does.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match text_of(value)? {
        Some(text) => out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure)),
        None => escape_formatter(out, state, value),
    }
}

/// The filter `string`.
pub(super) fn string(value: Value) -> Result<String, Error> {
    Ok(text_of(&value)?.unwrap_or_else(|| value.to_string()))
}

/// The text of what Python writes in another way than the engine.
fn text_of(value: &Value) -> Result<Option<String>, Error> {
    let is_float = value.is_number() && !value.is_integer();
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {}
        ValueKind::Number if is_float => {}
        _ => return Ok(None),
    }
    let json = serde_json::to_value(value);
    let json = json.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut text = String::new();
    python::repr(&json, &mut text);
    Ok((text.len() <= MAX_TEXT).then_some(text))
}

/// The time, in a format of C. `now` stands for the clock in tests.
pub(super) fn strftime(format: &str, now: Option<NaiveDateTime>) -> Result<String, Error> {
    use std::fmt::Write;
    const LONGEST: usize = 256;
    if format.len() > LONGEST {
        return Err(wrong(format!("a format of time has at most {LONGEST} bytes")));
    }
    let now = now.unwrap_or_else(|| Local::now().naive_local());
    let mut text = String::new();
    let written = write!(text, "{}", now.format(format));
    written.map_err(|_| wrong(format!("{format:?} is not a format of time")))?;
    Ok(text)
}

/// What the error of a template that rejects a conversation begins with.
pub(super) const REJECTED: &str = "the chat template of the model rejects the conversation: ";

pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(wrong(format!("{REJECTED}{message}")))
}

/// A buffer of at most [`MAX_TEXT`] bytes.
pub(super) struct Limited(pub(super) Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other("the output is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
