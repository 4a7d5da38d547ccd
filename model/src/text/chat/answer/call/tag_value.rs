//! The value of an argument between tags: a bare text, or JSON where the schema of the tool allows it.

use super::super::MAX_SPACE;
use super::super::literal::write;
use super::cursor::Problem;
use super::tags::{CALL, CALL_END, KEY, VALUE, VALUE_END, next};
use crate::limits::answer::MAX_VALUE;
use crate::text::chat::tools::Kinds;
use crate::text::rewrite::overlap;

/// A value that has begun.
#[derive(Debug, Clone)]
pub(super) struct Value {
    kinds: Kinds,
    /// Whether it can be nothing but a text. Its opening quote is written then.
    is_text: bool,
    /// Bytes of what is held that were looked at.
    seen: usize,
    /// Where a tag is held before which the value ends if its own end is missing.
    suspect: Option<usize>,
    /// Whether its own end is trusted to come, because too much would be held.
    is_trusted: bool,
}

impl Value {
    pub(super) fn new(kinds: Kinds, out: &mut String) -> Self {
        let is_text = kinds == Kinds::TEXT;
        if is_text {
            out.push('"');
        }
        Value { kinds, is_text, seen: 0, suspect: None, is_trusted: false }
    }

    /// Takes what it can of `held`, and appends to `out` the JSON that it makes certain. Returns whether the value is complete.
    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> bool {
        let end = match self.end(held) {
            None if at_end && self.suspect.is_some() => end_before_end(held).map(|at| (at, at)),
            end => end,
        };
        if let Some((end, taken)) = end {
            let is_open = end == taken;
            // New lines between tags are no part of a value.
            let value = if is_open { held[..end].trim_end() } else { &held[..end] };
            if self.is_text {
                value.chars().for_each(|c| write(c, out));
                out.push('"');
            } else {
                out.push_str(&self.kinds.read(value));
            }
            held.drain(..taken);
            return true;
        }
        self.take(held, at_end, out);
        false
    }

    /// The end of the value, and the end of its tag: the same if the tag is missing.
    fn end(&mut self, held: &str) -> Option<(usize, usize)> {
        while let Some(at) = held[self.seen..].find('>') {
            self.seen += at + 1;
            let seen = &held[..self.seen];
            if let Some(value) = seen.strip_suffix(VALUE_END) {
                return Some((value.len(), self.seen));
            }
            if self.is_trusted {
                continue;
            }
            match self.suspect {
                Some(_) if seen.ends_with(VALUE) => {
                    if let Some(at) = end_before_value(seen) {
                        return Some((at, at));
                    }
                }
                Some(_) => {}
                None => {
                    let before = seen.strip_suffix(CALL_END).or(seen.strip_suffix(KEY));
                    self.suspect = before.map(str::len);
                }
            }
        }
        self.seen = held.len();
        None
    }

    /// Gives out what belongs to the value in any case.
    fn take(&mut self, held: &mut String, at_end: bool, out: &mut String) {
        let suspicious = self.suspect.map_or(0, |at| held.len() - at);
        if suspicious > MAX_VALUE || !self.is_text && held.len() > MAX_VALUE {
            (self.is_trusted, self.suspect) = (self.suspect.is_some(), None);
            if !std::mem::replace(&mut self.is_text, true) {
                out.push('"');
            }
        }
        if !self.is_text {
            if at_end && !held.is_empty() {
                out.push_str(&self.kinds.read(held));
                held.clear();
                (self.seen, self.suspect) = (0, None);
            }
            return;
        }
        let open = match self.suspect {
            _ if at_end => held.len(),
            Some(at) => at,
            None => {
                let tags = [VALUE_END, CALL_END, KEY];
                held.len() - tags.map(|tag| overlap(held, tag)).into_iter().max().unwrap_or(0)
            }
        };
        // White space before a tag may be no part of the value. A long run of it is not held.
        let said = held[..open].trim_end().len();
        let sure = if at_end || open - said > MAX_SPACE { open } else { said };
        held[..sure].chars().for_each(|c| write(c, out));
        held.drain(..sure);
        self.seen = self.seen.saturating_sub(sure);
        self.suspect = self.suspect.and_then(|at| at.checked_sub(sure));
    }
}

/// Where a value ends that has no end of its own before this second `<arg_value>`: before the `<arg_key>` that belongs to it, or before
/// the end of the call, if that is of another.
fn end_before_value(seen: &str) -> Option<usize> {
    let key = seen.rfind(KEY)?;
    let (name, length) = next(&seen[key..]).ok()?;
    name.filter(|_| key + length == seen.len())?;
    let end = seen[..key].find(CALL_END).filter(|&end| seen[end..key].contains(CALL));
    Some(end.unwrap_or(key))
}

/// Where a value ends that has no end of its own in the whole answer: before the end of the call, or before an argument that is broken off.
fn end_before_end(held: &str) -> Option<usize> {
    let is_cut = |&at: &usize| matches!(next(&held[at..]), Err(Problem::Short));
    held.find(CALL_END).or_else(|| held.rfind(KEY).filter(is_cut))
}
