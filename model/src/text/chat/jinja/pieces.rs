//! Texts that become lists.
//!
//! A list takes many times the memory of the text that it is made of, and the engine counts its values when they are there. So they are
//! counted and paid for before.

use minijinja::{Error, State, Value};

use super::weight::{refused, spend};
use crate::limits::template::MAX_VALUES;

/// Filters that make a list of the characters of a text.
const OF_CHARACTERS: [&str; 17] = [
    "list",
    "batch",
    "slice",
    "sort",
    "unique",
    "min",
    "max",
    "sum",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "groupby",
    "chain",
    "zip",
    "dictsort",
];

/// Pays for the values that a filter makes of a text, and are not there yet.
///
/// # Errors
/// If there are too many, or takes more fuel than there is.
pub(super) fn pay_for_filter(state: &State, name: &str, args: &[Value]) -> Result<(), Error> {
    let Some((value, args)) = args.split_first() else { return Ok(()) };
    let Some(text) = value.as_str() else {
        // A filter for each item, with its name before its arguments.
        if let ("map", Some((inner, args))) = (name, args.split_first())
            && let Some(inner) = inner.as_str()
            && value.as_object().is_some()
        {
            for item in value.try_iter()? {
                pay_for_filter(state, inner, &[&[item], args].concat())?;
            }
        }
        return Ok(());
    };
    match name {
        "split" => pay_for_pieces(state, split(text, args)),
        "lines" => pay_for_pieces(state, text.lines()),
        name if OF_CHARACTERS.contains(&name) => pay_for_pieces(state, text.chars()),
        _ => Ok(()),
    }
}

/// Pays for as many values as there are pieces.
///
/// # Errors
/// As [`pay_for_filter`].
pub(super) fn pay_for_pieces<T>(
    state: &State,
    pieces: impl Iterator<Item = T>,
) -> Result<(), Error> {
    let count = pieces.take(MAX_VALUES + 1).count();
    if count > MAX_VALUES {
        return Err(refused(format!("a text is split into more than {MAX_VALUES} pieces")));
    }
    spend(state, count)
}

/// As many as the pieces that `split` makes of a text, give or take one, with these arguments: a separator, and how often the text is
/// split.
pub(super) fn split<'t>(text: &'t str, args: &[Value]) -> impl Iterator<Item = ()> + use<'t> {
    let given = |at: usize| args.get(at).filter(|arg| !arg.is_none() && !arg.is_undefined());
    let most = given(1).and_then(Value::as_i64).and_then(|most| usize::try_from(most).ok());
    let separator = given(0).map(Value::to_string);
    let mut rest = Some(text);
    let pieces = std::iter::from_fn(move || {
        let text = rest?;
        rest = match &separator {
            None => text.trim_start().split_once(char::is_whitespace).map(|(_, rest)| rest),
            Some(separator) if separator.is_empty() => {
                let mut chars = text.chars();
                chars.next().map(|_| chars.as_str())
            }
            Some(separator) => text.split_once(separator.as_str()).map(|(_, rest)| rest),
        };
        Some(())
    });
    pieces.take(most.map_or(usize::MAX, |most| most.saturating_add(1)))
}
