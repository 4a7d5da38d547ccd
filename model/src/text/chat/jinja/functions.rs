//! Functions and filters of templates, as in Python and in transformers.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{Local, NaiveDateTime};
use minijinja::value::{Kwargs, Rest, Tuple, ValueOrKwargs};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value as Json};

use super::percent::percent;
use super::pieces::{pay_for_pieces, split};
use super::text::text;
use super::weight::{pay, refused, spend};
use crate::limits::template::MAX_TEXT;
use crate::limits::template::{MAX_FORMAT, MAX_TIME_FORMAT};
use crate::text::chat::python::Dumps;

/// Python's string methods, and those of lists and objects.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let looks_inside = !matches!(method, "get" | "keys" | "values" | "items");
    let mut length = 0;
    for value in args.iter().chain(looks_inside.then_some(value)) {
        length += pay(state, value)?.text();
    }
    match (method, value.as_str()) {
        ("format", Some(text)) => check_format(state, text, length)?,
        // Each character is compared with each that is stripped.
        ("strip" | "lstrip" | "rstrip", Some(text)) => {
            let stripped = args.first().and_then(Value::as_str).map_or(0, str::len);
            spend(state, text.len().saturating_mul(stripped) / 64)?;
        }
        ("split", Some(text)) => pay_for_pieces(state, split(text, args))?,
        ("splitlines", Some(text)) => pay_for_pieces(state, text.lines())?,
        _ => {}
    }
    unknown_method_callback(state, value, method, args)
}

/// Pays for `format`, which writes any of its arguments as often as its text says. `length` is that of the text and of all arguments.
fn check_format(state: &State, text: &str, length: usize) -> Result<(), Error> {
    if text.len() > MAX_FORMAT {
        return Err(refused(format!(
            "format of a text of more than {MAX_FORMAT} bytes is not supported"
        )));
    }
    let mut fields = text.match_indices('{').map(|(at, _)| &text[at + 1..]);
    let count = fields.clone().count();
    if fields.any(is_wide_field) {
        return Err(refused("format with a width of more than three digits is not supported"));
    }
    let longest = length.saturating_add(1000).saturating_mul(count);
    if longest > MAX_TEXT {
        return Err(refused("format may make a text that is too long"));
    }
    spend(state, longest / 1024)
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

/// `json.dumps` with the options that transformers gives to templates; by default characters outside of ASCII stay.
pub(super) fn to_json(
    state: &State,
    value: Value,
    positional: Rest<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > NAMES.len() {
        return Err(refused("tojson has at most four options"));
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
        return Err(refused("tojson with an indent of more than 16 bytes is not supported"));
    }
    let mut dumps = Dumps::new(indent);
    if let Some(separators) = separators {
        let texts: Vec<Value> = separators.try_iter()?.take(3).collect();
        let [Some(item), Some(key)] = [0, 1].map(|at| texts.get(at).and_then(Value::as_str)) else {
            return Err(refused("separators must be two texts"));
        };
        if texts.len() != 2 || item.len() > 16 || key.len() > 16 {
            return Err(refused("separators must be two texts of at most 16 bytes"));
        }
        (dumps.item, dumps.key) = (item.to_owned(), key.to_owned());
    }
    dumps.ascii = is_set(ensure_ascii);
    pay(state, &value)?;
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

/// Writes a value into the output as Python's `str` does. `left` is how many bytes more a rendering may write.
pub(super) fn write(
    out: &mut Output,
    state: &mut State,
    value: &Value,
    left: &AtomicUsize,
) -> Result<(), Error> {
    let text = match value.as_str() {
        Some(_) => value.clone(),
        None => text(state, value)?.into(),
    };
    let length = text.as_str().map_or(0, str::len);
    let rest = |left: usize| left.checked_sub(length);
    let rest = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    rest.map_err(|_| refused("the output is too long"))?;
    escape_formatter(out, state, &text)
}

/// The filter `string`.
pub(super) fn string(state: &State, value: &Value) -> Result<String, Error> {
    text(state, value)
}

/// The filter `format`.
pub(super) fn format(
    state: &State,
    template: &str,
    args: Rest<ValueOrKwargs>,
) -> Result<String, Error> {
    let args = args.into_values();
    match &args[..] {
        [keyed] if keyed.is_kwargs() => percent(state, template, keyed),
        _ => percent(state, template, &Tuple::from(args).into()),
    }
}

/// The time, in a format of C. `now` stands for the clock in tests.
pub(super) fn strftime(format: &str, now: Option<NaiveDateTime>) -> Result<String, Error> {
    use std::fmt::Write;

    if format.len() > MAX_TIME_FORMAT {
        return Err(refused(format!("a format of time has at most {MAX_TIME_FORMAT} bytes")));
    }
    let now = now.unwrap_or_else(|| Local::now().naive_local());
    let mut text = String::new();
    let written = write!(text, "{}", now.format(format));
    written.map_err(|_| refused(format!("{format:?} is not a format of time")))?;
    Ok(text)
}

/// What the error of a template that rejects a conversation begins with.
pub(super) const REJECTED: &str = "the chat template of the model rejects the conversation: ";

pub(super) fn raise_exception(state: &State, message: &Value) -> Result<Value, Error> {
    Err(refused(format!("{REJECTED}{}", text(state, message)?)))
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
