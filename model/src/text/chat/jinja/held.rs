//! What a namespace holds. Only a namespace outlives an iteration, so only there values can nest without end: `set n.s = [n.s]`.
//! Dropping a value takes stack for each level, so levels are counted where something is assigned to a namespace.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::weight::{MAX_DEPTH, MAX_VALUES, refused};

/// The value as it is held: lists and objects are copied, because one that is lazy hides how deep it is.
pub(super) fn held(state: &State, value: Value) -> Result<Value, Error> {
    let mut left = MAX_VALUES;
    let copied = copy(&value, MAX_DEPTH, &mut left)?;
    // The engine counts a filter as one step.
    state.consume_fuel((MAX_VALUES - left) as u64)?;
    Ok(copied)
}

fn copy(value: &Value, depth: usize, left: &mut usize) -> Result<Value, Error> {
    let refuse = |problem: String| Err(refused(problem));
    *left = match (left.checked_sub(1), depth.checked_sub(1)) {
        (Some(left), Some(_)) => left,
        (None, _) => return refuse(format!("a namespace holds at most {MAX_VALUES} values")),
        (_, None) => return refuse(format!("values are nested more than {MAX_DEPTH} deep")),
    };
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(copy(&item, depth - 1, left)?);
            }
            Ok(if value.is_tuple() { Tuple::from(items).into() } else { items.into() })
        }
        // A namespace can change after it was looked at.
        ValueKind::Map
            if value.as_object().is_some_and(|map| map.type_name().ends_with("::Namespace")) =>
        {
            refuse("a namespace cannot hold another".to_owned())
        }
        ValueKind::Map => {
            let mut fields = Vec::new();
            for key in value.try_iter()? {
                fields.push((key.clone(), copy(&value.get_item(&key)?, depth - 1, left)?));
            }
            Ok(Value::from_pairs(fields))
        }
        ValueKind::Undefined
        | ValueKind::None
        | ValueKind::Bool
        | ValueKind::Number
        | ValueKind::String
        | ValueKind::Bytes => Ok(value.clone()),
        other => refuse(format!("a namespace cannot hold a value of type {other}")),
    }
}
