//! Values as Python's `str` and `repr` write them.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::weight::{pay, refused};
use crate::limits::template::MAX_TEXT;
use crate::text::chat::python;

/// The text of a value, as `str` writes it.
///
/// # Errors
/// If the value is too large, see [`pay`].
pub(super) fn text(state: &State, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => repr(state, value),
    }
}

/// The same as `repr` writes it.
///
/// # Errors
/// As [`text`].
pub(super) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    pay(state, value)?;
    let mut out = String::new();
    write(value, &mut out)?;
    if out.len() > MAX_TEXT { Err(refused("a text is too long")) } else { Ok(out) }
}

/// Writes a value that was paid for.
fn write(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => python::repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => {
            out.push_str(
                &f64::try_from(value.clone()).map_or_else(|_| value.to_string(), python::float),
            );
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.push_str(open);
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count > 0 { ", " } else { "" });
                write(&item, out)?;
                count += 1;
            }
            out.push_str(if value.is_tuple() && count == 1 { "," } else { "" });
            out.push_str(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (count, key) in value.try_iter()?.enumerate() {
                out.push_str(if count > 0 { ", " } else { "" });
                write(&key, out)?;
                out.push_str(": ");
                write(&value.get_item(&key)?, out)?;
            }
            out.push('}');
        }
        _ => {
            // Writing to a text cannot fail.
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}
