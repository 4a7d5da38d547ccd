//! What variables and namespaces hold. Values nest by assignments: `{% set a = [a] %}`, and `{% set n.a = [n.a] %}` in a loop without end.
//! Dropping a value takes stack for each level, and so does a list that is made when it is asked for, such as `a|reverse`, for each that
//! it is made of. So levels are counted where something is assigned, and lists are made.

use crate::limits::template::{MAX_DEPTH, MAX_VALUES};
use minijinja::value::{Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};

use super::weight::{refused, spend};

/// What a namespace holds, as a copy: it may contain no namespace, and so not itself.
pub(super) fn held(state: &State, value: Value) -> Result<Value, Error> {
    copied(state, &value, Namespaces::Refused)
}

/// What a variable holds.
pub(super) fn stored(state: &State, value: ValueOrKwargs) -> Result<Value, Error> {
    let value = Value::from(value);
    if value.as_object().is_none() {
        return Ok(value);
    }
    let (mut left, mut is_made) = (most(state), true);
    walk(&value, MAX_DEPTH, &mut left, &mut is_made)?;
    spend(state, most(state) - left - 1)?;
    if is_made { Ok(value) } else { copied(state, &value, Namespaces::Kept) }
}

/// The function `namespace`.
pub(super) fn namespace(state: &State, values: Option<ValueOrKwargs>) -> Result<Value, Error> {
    let values =
        values.map(|values| copied(state, &values.into(), Namespaces::Kept)).transpose()?;
    minijinja::functions::namespace(values.map(ValueOrKwargs::from))
}

/// Whether namespaces may be in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespaces {
    Kept,
    Refused,
}

/// How many values there is fuel for.
fn most(state: &State) -> usize {
    let left =
        state.fuel_levels().map_or(0, |(_, left)| usize::try_from(left).unwrap_or(usize::MAX));
    MAX_VALUES.min(left)
}

/// Counts the values in one, and finds out whether all its lists are made.
fn walk(value: &Value, depth: usize, left: &mut usize, is_made: &mut bool) -> Result<(), Error> {
    let depth = count(depth, left)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            *is_made &= value.kind() == ValueKind::Seq;
            value.try_iter()?.try_for_each(|item| walk(&item, depth, left, is_made))
        }
        ValueKind::Map => {
            value.try_iter()?.try_for_each(|key| walk(&value.get_item(&key)?, depth, left, is_made))
        }
        _ => Ok(()),
    }
}

/// Counts a value, and returns how deep others may be in it.
fn count(depth: usize, left: &mut usize) -> Result<usize, Error> {
    *left = left.checked_sub(1).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
    depth
        .checked_sub(1)
        .ok_or_else(|| refused(format!("values are nested more than {MAX_DEPTH} deep")))
}

fn copied(state: &State, value: &Value, namespaces: Namespaces) -> Result<Value, Error> {
    let most = most(state);
    let mut left = most;
    let copied = copy(value, MAX_DEPTH, &mut left, namespaces)?;
    // The engine counts a filter as one step.
    spend(state, most - left)?;
    Ok(copied)
}

fn copy(
    value: &Value,
    depth: usize,
    left: &mut usize,
    namespaces: Namespaces,
) -> Result<Value, Error> {
    let depth = count(depth, left)?;
    let is_namespace =
        value.as_object().is_some_and(|map| map.type_name().ends_with("::Namespace"));
    match (value.kind(), namespaces) {
        (ValueKind::Seq | ValueKind::Iterable, _) => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(copy(&item, depth, left, namespaces)?);
            }
            Ok(if value.is_tuple() { Tuple::from(items).into() } else { items.into() })
        }
        // A namespace can change after it was looked at.
        (ValueKind::Map, Namespaces::Refused) if is_namespace => {
            Err(refused("a namespace cannot hold another"))
        }
        (ValueKind::Map, _) if !is_namespace => {
            let mut fields = Vec::new();
            for key in value.try_iter()? {
                fields.push((key.clone(), copy(&value.get_item(&key)?, depth, left, namespaces)?));
            }
            Ok(Value::from_pairs(fields))
        }
        (ValueKind::Plain, Namespaces::Refused) => {
            Err(refused("a namespace cannot hold a value of this type"))
        }
        _ => Ok(value.clone()),
    }
}
