//! The operators that look at whole values, as filters that pay for it; see [`super::guard`].

use crate::limits::template::MAX_UNPACKED;
use crate::limits::template::{MAX_TEXT, MAX_VALUES};
use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::guard::names;
use super::held::{held, namespace, stored};
use super::percent::percent;
use super::pieces::pay_for_filter;
use super::text::text;
use super::weight::{pay, pay_for_pair, refused, spend};

/// Filters that compare what is inside of a value, a few times each.
const SORTING: [&str; 6] = ["sort", "unique", "groupby", "dictsort", "min", "max"];

/// Comparisons of a value with another, where there are many.
const COMPARISONS: usize = 16;

/// Adds the filters to an environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    macro_rules! comparison {
        ($name:expr, $operator:tt) => {
            environment.add_filter($name, |state: &State, a: &Value, b: &Value| {
                pay_for_pair(state, a, b).map(|()| a $operator b)
            });
        };
    }
    comparison!(names::EQ, ==);
    comparison!(names::NE, !=);
    comparison!(names::LT, <);
    comparison!(names::LE, <=);
    comparison!(names::GT, >);
    comparison!(names::GE, >=);
    environment.add_filter(names::IN, contains);
    environment.add_filter(names::CONCAT, concat);
    environment.add_filter(names::PERCENT, remainder);
    environment.add_filter(names::MAP, map);
    environment.add_filter(names::FILTER, filter);
    environment.add_filter(names::TEST, test);
    environment
        .add_filter(names::PAID, |state: &State, value: Value| pay(state, &value).map(|_| value));
    environment.add_filter(names::HELD, held);
    environment.add_filter(names::STORED, stored);
    environment.add_function("namespace", namespace);
    environment.add_filter(names::ITEM, item);
    environment.add_filter(names::SLICE, slice);
    // The engine pays for a text that is the first argument of a filter.
    environment.add_filter(names::ITERATED, |value: ValueOrKwargs| Value::from(value));
    environment.add_filter(names::ADDED, added);
    environment.add_filter(names::LISTED, listed);
    environment.add_filter(names::UNPACKED, unpacked);
}

/// `value in container`.
fn contains(state: &mut State, value: Value, container: Value) -> Result<bool, Error> {
    pay(state, &value)?;
    match container.kind() {
        ValueKind::Seq | ValueKind::Iterable => drop(pay(state, &container)?),
        ValueKind::String | ValueKind::Map | ValueKind::Undefined => {}
        other => return Err(refused(format!("a value of type {other} contains no others"))),
    }
    state.perform_test("in", &[value, container])
}

/// `one ~ other`.
fn concat(state: &State, one: &Value, other: &Value) -> Result<String, Error> {
    let length =
        [one, other].iter().filter_map(|value| value.as_str()).map(str::len).sum::<usize>();
    if length > MAX_TEXT {
        return Err(refused("a text is too long"));
    }
    let mut joined = text(state, one)?;
    match other.as_str() {
        Some(other) => joined.push_str(other),
        None => joined.push_str(&text(state, other)?),
    }
    Ok(joined)
}

/// `one % other`, of a text or of numbers.
fn remainder(state: &State, one: &Value, other: &Value) -> Result<Value, Error> {
    if let Some(template) = one.as_str() {
        return percent(state, template, other).map(Value::from);
    }
    let bad = || refused(format!("no remainder of {} and {}", one.kind(), other.kind()));
    let is_whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole(one) && is_whole(other) {
        let whole = |value: &Value| i128::try_from(value.clone()).map_err(|_| bad());
        let (one, other) = (whole(one)?, whole(other)?);
        let remainder = one.checked_rem(other).ok_or_else(bad)?;
        let is_below = remainder != 0 && (remainder < 0) != (other < 0);
        return Ok(Value::from(if is_below { remainder + other } else { remainder }));
    }
    let float = |value: &Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool => f64::try_from(value.clone()).map_err(|_| bad()),
        _ => Err(bad()),
    };
    let (one, other) = (float(one)?, float(other)?);
    let remainder = one % other;
    match remainder {
        _ if other == 0.0 => Err(bad()),
        _ if remainder != 0.0 && (remainder < 0.0) != (other < 0.0) => {
            Ok(Value::from(remainder + other))
        }
        _ => Ok(Value::from(remainder)),
    }
}

/// An object. In Python its keys can be hashed, which a list cannot.
fn map(state: &State, fields: Rest<Value>) -> Result<Value, Error> {
    let is_flat = |key: &Value| match key.is_tuple() {
        true => key.try_iter().is_ok_and(|mut items| items.all(|item| item.as_object().is_none())),
        false => key.as_object().is_none(),
    };
    if !fields.iter().step_by(2).all(is_flat) {
        return Err(refused("a key is a text, a number or a tuple of those"));
    }
    for key in fields.iter().step_by(2) {
        pay(state, key)?;
    }
    Ok(Value::from_pairs(fields.chunks_exact(2).map(|field| (field[0].clone(), field[1].clone()))))
}

/// A filter of the engine or of ours.
fn filter(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (name, args) = named(&args)?;
    let times = if SORTING.contains(&name) { COMPARISONS } else { 1 };
    for arg in args {
        let text = pay(state, arg)?.text();
        spend(state, (times - 1) * text / 64)?;
    }
    if let ("trim", [text, characters]) = (name, args) {
        let length = |value: &Value| value.as_str().map_or(0, str::len);
        spend(state, length(text).saturating_mul(length(characters)) / 64)?;
    }
    pay_for_filter(state, name, args)?;
    state.apply_filter(name, args).map_err(|error| match error.kind() {
        ErrorKind::UnknownFilter if error.detail().is_none() => {
            Error::new(ErrorKind::UnknownFilter, format!("filter {name} is unknown"))
        }
        _ => error,
    })
}

/// A test of the engine.
fn test(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<bool, Error> {
    let args = args.into_values();
    let (name, args) = named(&args)?;
    for arg in args {
        pay(state, arg)?;
    }
    state.perform_test(name, args).map_err(|error| match error.kind() {
        ErrorKind::UnknownTest if error.detail().is_none() => {
            Error::new(ErrorKind::UnknownTest, format!("test {name} is unknown"))
        }
        _ => error,
    })
}

fn named(args: &[Value]) -> Result<(&str, &[Value]), Error> {
    let split = args.split_last().and_then(|(name, args)| Some((name.as_str()?, args)));
    split.ok_or_else(|| refused("a filter without a name"))
}

/// `container[key]`. The engine pays for a text that is the first argument of a filter.
fn item(state: &State, container: &Value, key: &Value) -> Result<Value, Error> {
    pay(state, key)?;
    if let (ValueKind::Iterable, Some(at)) = (container.kind(), key.as_i64()) {
        // What has no items yet makes all before the one that is asked for.
        let before = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
        spend(state, container.len().map_or(before, |count| count.min(before)) / 2)?;
    }
    container.get_item(key)
}

/// `value[start:stop:step]`, as in Python.
fn slice(
    state: &State,
    value: &Value,
    start: Option<i64>,
    stop: Option<i64>,
    step: Option<i64>,
) -> Result<Value, Error> {
    let ends = (start, stop, step.unwrap_or(1));
    if ends.2 == 0 {
        return Err(refused("the step of a slice cannot be 0"));
    }
    if let Some(text) = value.as_str() {
        // The engine pays for a copy of the text.
        spend(state, text.len() / 16)?;
        let characters: Vec<_> = text.chars().collect();
        return Ok(Value::from(sliced(&characters, ends).into_iter().collect::<String>()));
    }
    let items: Vec<_> = match value.kind() {
        ValueKind::Undefined | ValueKind::None => Vec::new(),
        ValueKind::Seq | ValueKind::Iterable => {
            added(state, value.clone())?;
            value.try_iter()?.collect()
        }
        other => return Err(refused(format!("a value of type {other} cannot be sliced"))),
    };
    let items = sliced(&items, ends);
    Ok(if value.is_tuple() { Tuple::from(items).into() } else { items.into() })
}

fn sliced<T: Clone>(items: &[T], (start, stop, step): (Option<i64>, Option<i64>, i64)) -> Vec<T> {
    let count = items.len() as i64;
    // Backwards, the place before the first one is an end, too.
    let (least, most) = if step > 0 { (0, count) } else { (-1, count - 1) };
    let place = |at: i64| (if at < 0 { at.saturating_add(count) } else { at }).clamp(least, most);
    let (first, last) = if step > 0 { (least, most) } else { (most, least) };
    let (mut at, stop) = (start.map_or(first, place), stop.map_or(last, place));
    let mut taken = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        taken.extend(items.get(at as usize).cloned());
        at = at.saturating_add(step);
    }
    taken
}

/// Lists are joined without being copied, so that `a + a` is as long as one likes.
fn added(state: &State, value: Value) -> Result<Value, Error> {
    if value.as_object().is_some() {
        let count = match value.len() {
            Some(count) => count,
            None => value.try_iter()?.take(MAX_VALUES + 1).count(),
        };
        spend(state, count / 2)?;
        if count > MAX_VALUES {
            return Err(refused(format!("a list holds more than {MAX_VALUES} values")));
        }
    }
    Ok(value)
}

/// A value that is copied to a list. The engine pays for each, and what it has paid for would fill the memory.
fn listed(state: &State, value: ValueOrKwargs) -> Result<Value, Error> {
    let value = Value::from(value);
    pay_for_filter(state, "list", std::slice::from_ref(&value))?;
    added(state, value)
}

/// The engine puts all values on its stack before it counts them.
fn unpacked(value: Value) -> Result<Value, Error> {
    if value.as_object().is_none() {
        return Ok(value);
    }
    let items: Vec<_> = value.try_iter()?.take(MAX_UNPACKED + 1).collect();
    match items.len() > MAX_UNPACKED {
        true => Err(refused(format!("more than {MAX_UNPACKED} values are assigned at once"))),
        false => Ok(Tuple::from(items).into()),
    }
}
