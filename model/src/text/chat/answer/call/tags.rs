//! GLM-4.5's calls: the name of a tool and its arguments, each between tags.
//!
//! Models forget tags. A value whose `</arg_value>` does not come before a second `<arg_value>`, or not at all, ends before the next
//! argument or before the end of the call:
//!
//! ```text
//! <arg_value>北京 \n <arg_key>days</arg_key> \n <arg_value>3</arg_value>
//! <arg_value>北京</tool_call>
//! ```
//!
//! Until that is certain, such a tag may be a part of the value, so it and what follows it are held back.

use super::cursor::{Cursor, Problem};
use super::{Object, Step, tag_value};
use crate::text::chat::tools::{Kinds, Offered};

pub(super) const CALL: &str = "<tool_call>";
pub(super) const CALL_END: &str = "</tool_call>";
pub(super) const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
pub(super) const VALUE: &str = "<arg_value>";
pub(super) const VALUE_END: &str = "</arg_value>";

/// `<tool_call>name`, and then an argument or the end.
pub(super) fn begin(cursor: &mut Cursor) -> Result<String, Problem> {
    cursor.expect(CALL)?;
    cursor.space()?;
    let name = cursor.word(&['\n', '<'])?.trim_end().to_owned();
    if name.is_empty() || name.contains(['{', '}', '>', '"']) {
        return Err(Problem::Other);
    }
    let after = cursor.at;
    cursor.space()?;
    let argument = cursor.expect(KEY);
    if let Err(Problem::Other) = argument {
        cursor.expect(CALL_END)?;
    } else {
        argument?;
    }
    cursor.at = after;
    Ok(name)
}

/// The arguments between tags.
#[derive(Debug, Clone)]
pub(in crate::text::chat::answer) struct Arguments {
    /// Those that the tool has.
    known: Vec<(String, Kinds)>,
    object: Object,
    /// The value that has begun.
    value: Option<tag_value::Value>,
}

impl Arguments {
    pub(super) fn new(offered: &Offered, tool: &str) -> Self {
        Arguments { known: offered.arguments(tool), object: Object::default(), value: None }
    }

    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> Step {
        loop {
            if let Some(value) = &mut self.value {
                if !value.read(held, at_end, out) {
                    return Step::More;
                }
                self.value = None;
            }
            match next(held) {
                Err(Problem::Short) => return Step::More,
                Err(Problem::Other) => return Step::Broken,
                Ok((None, taken)) => {
                    held.drain(..taken);
                    self.object.end(out);
                    return Step::End;
                }
                Ok((Some(name), taken)) => {
                    self.object.name(name, out);
                    let kinds = self.known.iter().find(|(known, _)| known == name);
                    let kinds = kinds.map_or(Kinds::ANY, |(_, kinds)| *kinds);
                    self.value = Some(tag_value::Value::new(kinds, out));
                    held.drain(..taken);
                }
            }
        }
    }
}

/// The name of the next argument, or that there is none, and the bytes up to its value. A call also ends where the next one begins.
pub(super) fn next(held: &str) -> Result<(Option<&str>, usize), Problem> {
    let mut cursor = Cursor::new(held);
    cursor.space()?;
    match cursor.expect(KEY) {
        Ok(()) => {
            let name = cursor.word(&['<'])?.trim();
            cursor.expect(KEY_END)?;
            cursor.space()?;
            cursor.expect(VALUE)?;
            Ok((Some(name), cursor.at))
        }
        Err(Problem::Short) => Err(Problem::Short),
        Err(Problem::Other) => match cursor.expect(CALL_END) {
            Err(Problem::Other) => {
                let at = cursor.at;
                cursor.expect(CALL).map(|()| (None, at))
            }
            end => end.map(|()| (None, cursor.at)),
        },
    }
}
