//! How much there is to a value, and what looking at all of it costs.
//!
//! Lists share what is in them: thirty lines of `{% set a = [a, a] %}` make a value that takes no memory and 2^30 steps to write, compare
//! or hash. So all that looks at a whole value is paid for before it begins, with what is shared counted each time.

use crate::limits::template::{MAX_DEPTH, MAX_TEXT, MAX_VALUES};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Bytes of text for a unit of fuel, as the engine counts them.
const BYTES: usize = 64;

/// The size of a value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Values, with the value itself.
    values: usize,
    /// Bytes of texts.
    bytes: usize,
}

impl Weight {
    fn add(&mut self, value: &Value, depth: usize, most: (usize, usize)) -> Result<(), Error> {
        self.values += 1;
        self.bytes += size(value);
        if self.values > most.0 || self.bytes > most.1 {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err(refused(format!("values are nested more than {MAX_DEPTH} deep")));
        };
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter()?.try_for_each(|item| self.add(&item, depth, most))
            }
            ValueKind::Map => value.try_iter()?.try_for_each(|key| {
                self.add(&key, depth, most)?;
                self.add(&value.get_item(&key)?, depth, most)
            }),
            _ => Ok(()),
        }
    }

    /// Bytes of its text, about.
    pub(super) fn text(self) -> usize {
        self.bytes.saturating_add(self.values.saturating_mul(16))
    }
}

/// Bytes of a text.
fn size(value: &Value) -> usize {
    value.as_str().map(str::len).or_else(|| value.as_bytes().map(<[u8]>::len)).unwrap_or(0)
}

/// Pays for a walk through a value.
///
/// # Errors
/// If it is nested too deeply, holds too many values or too much text, or takes more fuel than there is.
pub(super) fn pay(state: &State, value: &Value) -> Result<Weight, Error> {
    let left =
        state.fuel_levels().map_or(0, |(_, left)| usize::try_from(left).unwrap_or(usize::MAX));
    let most = (MAX_VALUES.min(left), MAX_TEXT.min(left.saturating_mul(BYTES)));
    let mut weight = Weight::default();
    weight.add(value, MAX_DEPTH, most)?;
    // The step itself is paid for.
    spend(state, weight.values - 1 + weight.bytes / BYTES)?;
    Ok(weight)
}

/// Pays for a walk through two values that ends where one of them does.
///
/// # Errors
/// If neither can be paid for.
pub(super) fn pay_for_pair(state: &State, one: &Value, other: &Value) -> Result<(), Error> {
    match (one.as_object(), other.as_object()) {
        (Some(_), Some(_)) => pay(state, one).or_else(|_| pay(state, other)).map(drop),
        _ => spend(state, size(one).min(size(other)) / BYTES),
    }
}

/// Takes fuel for work.
///
/// # Errors
/// If there is not enough.
pub(super) fn spend(state: &State, fuel: usize) -> Result<(), Error> {
    if fuel == 0 { Ok(()) } else { state.consume_fuel(fuel as u64) }
}

pub(super) fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
