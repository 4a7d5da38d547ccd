//! Python's `text % values`.

use crate::limits::template::MAX_TEXT;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::text::{repr, text};
use super::weight::{refused, spend};

/// Fuel for each value that is written.
const FUEL: usize = 4;

/// A part of a text that stands for a value, such as `%(name)-5.2s`.
struct Spec<'t> {
    /// The key of the value in an object.
    key: Option<&'t str>,
    flags: &'t str,
    width: &'t str,
    /// With its dot.
    precision: &'t str,
    conversion: char,
}

/// `text % value`: a tuple is a list of arguments, and an object has those with keys.
///
/// # Errors
/// If the values are not those that the text asks for, or the result is too long.
pub(super) fn percent(state: &State, template: &str, value: &Value) -> Result<String, Error> {
    let mut given = match value.is_tuple() {
        true => value.try_iter()?.collect::<Vec<_>>(),
        false => vec![value.clone()],
    }
    .into_iter();
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (spec, behind) = spec(&rest[at + 1..])?;
        rest = behind;
        if spec.conversion == '%' {
            out.push('%');
            continue;
        }
        spend(state, FUEL)?;
        let argument = match spec.key {
            Some(key) if value.kind() == ValueKind::Map => {
                let found = value.get_item(&Value::from(key))?;
                Some(found).filter(|found| !found.is_undefined())
            }
            Some(_) => return Err(refused("% with keys needs an object")),
            None => given.next(),
        };
        let argument = argument.ok_or_else(|| refused("% has not enough arguments"))?;
        out.push_str(&written(state, &spec, &argument)?);
        if out.len() > MAX_TEXT {
            return Err(refused("a text is too long"));
        }
    }
    out.push_str(rest);
    // Python lets what has subscripts be left over.
    let is_keyed =
        value.kind() == ValueKind::Map || value.kind() == ValueKind::Seq && !value.is_tuple();
    if !is_keyed && given.next().is_some() {
        return Err(refused("% has more arguments than it writes"));
    }
    Ok(out)
}

/// The specification behind a `%`, and what is behind it.
fn spec(text: &str) -> Result<(Spec<'_>, &str), Error> {
    let (key, rest) = match text.strip_prefix('(').map(|keyed| keyed.split_once(')')) {
        None => (None, text),
        Some(Some((key, rest))) => (Some(key), rest),
        Some(None) => return Err(refused("% with a key that does not end")),
    };
    let (flags, rest) = split(rest, |c| "#0- +".contains(c));
    let (width, rest) = split(rest, |c| c.is_ascii_digit());
    let (digits, behind) = match rest.strip_prefix('.') {
        Some(digits) => split(digits, |c| c.is_ascii_digit()),
        None => ("", rest),
    };
    if width.len() > 3 || digits.len() > 3 {
        return Err(refused("% with a width of more than three digits is not supported"));
    }
    let precision = &rest[..rest.len() - behind.len()];
    let mut behind = behind.chars();
    let conversion = behind.next().ok_or_else(|| refused("% with nothing behind it"))?;
    Ok((Spec { key, flags, width, precision, conversion }, behind.as_str()))
}

/// The characters at the beginning that are such, and the others.
fn split(text: &str, is_such: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_such(c)).unwrap_or(text.len()))
}

fn written(state: &State, spec: &Spec<'_>, value: &Value) -> Result<String, Error> {
    let Spec { flags, width, precision, .. } = spec;
    let text = match spec.conversion {
        's' => text(state, value)?,
        'r' => repr(state, value)?,
        conversion @ ('d' | 'i' | 'u') => {
            // Python cuts off what is behind the point.
            let whole = match f64::try_from(value.clone()) {
                Ok(number) if !value.is_integer() && value.is_number() => {
                    Value::from(number.trunc() as i128)
                }
                _ => value.clone(),
            };
            let conversion = if conversion == 'u' { 'd' } else { conversion };
            return format(
                FormatStyle::Printf,
                &format!("%{flags}{width}{precision}{conversion}"),
                &[whole],
            );
        }
        conversion @ ('x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'c') => {
            let spec = format!("%{flags}{width}{precision}{conversion}");
            return format(FormatStyle::Printf, &spec, std::slice::from_ref(value));
        }
        other => return Err(refused(format!("%{other} is not supported"))),
    };
    let text = match precision.strip_prefix('.') {
        Some(digits) => text.chars().take(digits.parse().unwrap_or(0)).collect(),
        None => text,
    };
    let width = width.parse().unwrap_or(0);
    Ok(if flags.contains('-') { format!("{text:<width$}") } else { format!("{text:>width$}") })
}
