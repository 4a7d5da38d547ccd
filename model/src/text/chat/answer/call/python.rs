//! ChatGLM3's calls: a line with the name of a tool, and a call in a block of code.

use super::super::literal::Literal;
use super::cursor::{Cursor, Problem};
use super::{Object, Step, feed};
use crate::text::chat::tools::Offered;

/// A line with the name of a tool, and then the beginning of a call in a block of code.
pub(super) fn begin(cursor: &mut Cursor, offered: &Offered) -> Result<String, Problem> {
    let name = cursor.tool(offered)?.to_owned();
    cursor.space()?;
    cursor.expect("```python")?;
    cursor.space()?;
    let function = cursor.word(&['('])?.trim_end();
    if function != "tool_call" && function != name {
        return Err(Problem::Other);
    }
    cursor.expect("(")?;
    cursor.space()?;
    let after = cursor.at;
    if cursor.next()? != ')' {
        keyword(cursor)?;
    }
    cursor.at = after;
    Ok(name)
}

/// `name=`.
fn keyword<'t>(cursor: &mut Cursor<'t>) -> Result<&'t str, Problem> {
    let name = cursor.word(&['=', ',', ')', '(', '\'', '"', '\n'])?.trim_end();
    cursor.expect("=")?;
    if name.is_empty() { Err(Problem::Other) } else { Ok(name) }
}

/// The arguments as keywords.
#[derive(Debug, Clone)]
pub(in crate::text::chat::answer) struct Arguments {
    state: State,
    object: Object,
}

#[derive(Debug, Clone)]
enum State {
    /// Before the name of an argument or the end, after a comma or not.
    Keyword { follows: bool },
    /// In the value of an argument.
    Value(Literal),
    /// After the call, before the end of the block of code.
    Fence,
}

impl Arguments {
    pub(super) fn new() -> Self {
        Arguments { state: State::Keyword { follows: false }, object: Object::default() }
    }

    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> Step {
        loop {
            match &mut self.state {
                State::Keyword { follows } => match next(held, *follows) {
                    Err(Problem::Short) => return Step::More,
                    Err(Problem::Other) => return Step::Broken,
                    Ok((None, taken)) => {
                        held.drain(..taken);
                        self.object.end(out);
                        self.state = State::Fence;
                    }
                    Ok((Some(name), taken)) => {
                        self.object.name(name, out);
                        held.drain(..taken);
                        self.state = State::Value(Literal::new());
                    }
                },
                State::Value(literal) => match feed(literal, held, at_end, out) {
                    Step::End => self.state = State::Keyword { follows: true },
                    other => return other,
                },
                State::Fence => return fence(held, at_end),
            }
        }
    }
}

/// The name of the next argument, or that there is none, and the bytes up to its value. `follows` says that there was one before.
fn next(held: &str, follows: bool) -> Result<(Option<&str>, usize), Problem> {
    let mut cursor = Cursor::new(held);
    cursor.space()?;
    if follows && cursor.next()? == ',' {
        cursor.at += 1;
        cursor.space()?;
    } else if follows && cursor.next()? != ')' {
        return Err(Problem::Other);
    }
    if cursor.next()? == ')' {
        return Ok((None, cursor.at + 1));
    }
    let name = keyword(&mut cursor)?;
    Ok((Some(name), cursor.at))
}

/// Drops the end of a block of code.
fn fence(held: &mut String, at_end: bool) -> Step {
    let mut cursor = Cursor::new(held);
    match cursor.space().and_then(|()| cursor.expect("```")) {
        Ok(()) => {
            let taken = cursor.at;
            held.drain(..taken);
            Step::End
        }
        Err(Problem::Short) if !at_end => Step::More,
        Err(_) => Step::End,
    }
}
