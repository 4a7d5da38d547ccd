//! One call in an answer: how it begins, and its arguments as JSON.

use super::literal::{Literal, Step as Value, write};
use super::{CallForm, MAX_SPACE};
use crate::limits::answer::{MAX_NAME, MAX_VALUE};
use crate::text::chat::tools::{Kinds, Offered};
use crate::text::rewrite::overlap;

const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

/// Whether a text begins with a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// It does if the right text follows.
    Maybe,
    /// The call of `name`; its first `length` bytes are before the arguments.
    Yes {
        name: String,
        length: usize,
    },
}

impl CallForm {
    /// Where in `text`, from `from` on, a call may begin; `line` says whether the text begins with a line.
    pub(super) fn begins(self, text: &str, from: usize, line: bool) -> Option<usize> {
        if matches!(self, CallForm::Tags { .. }) {
            let rest = text.get(from..)?;
            let partial = overlap(rest, CALL);
            let partial = (partial > 0).then(|| rest.len() - partial);
            return rest.find(CALL).or(partial).map(|at| from + at);
        }
        if from == 0 && line {
            return Some(0);
        }
        let newline =
            text.as_bytes().get(from.saturating_sub(1)..)?.iter().position(|&b| b == b'\n');
        newline.map(|at| from.saturating_sub(1) + at + 1).filter(|&at| at < text.len())
    }

    /// Whether `text` begins with a call of a tool. At the end of the answer nothing follows.
    pub(super) fn matches(self, offered: &Offered, text: &str, at_end: bool) -> Match {
        let mut cursor = Cursor { text, at: 0 };
        let found = match self {
            CallForm::Tags { .. } => tags(&mut cursor),
            CallForm::Json => json(&mut cursor, offered),
            CallForm::Python => python(&mut cursor, offered),
        };
        match found {
            Err(Problem::Short) if !at_end => Match::Maybe,
            Err(_) => Match::No,
            Ok(name) => Match::Yes { name, length: cursor.at },
        }
    }
}

/// Why a text does not begin as expected.
enum Problem {
    /// It ends before.
    Short,
    Other,
}

/// A place in a text.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn expect(&mut self, expected: &str) -> Result<(), Problem> {
        let rest = self.rest();
        if rest.starts_with(expected) {
            self.at += expected.len();
            return Ok(());
        }
        Err(if expected.starts_with(rest) { Problem::Short } else { Problem::Other })
    }

    fn space(&mut self) -> Result<(), Problem> {
        let rest = self.rest();
        let space = rest.len() - rest.trim_start().len();
        self.at += space;
        match space {
            0..=MAX_SPACE => Ok(()),
            _ => Err(Problem::Other),
        }
    }

    fn next(&self) -> Result<char, Problem> {
        self.rest().chars().next().ok_or(Problem::Short)
    }

    /// A word up to one of the characters `ends`, which stays.
    fn word(&mut self, ends: &[char]) -> Result<&'t str, Problem> {
        let rest = self.rest();
        match rest.find(ends) {
            Some(0) => Err(Problem::Other),
            Some(end) if end <= MAX_NAME => {
                self.at += end;
                Ok(&rest[..end])
            }
            None if rest.len() <= MAX_NAME => Err(Problem::Short),
            _ => Err(Problem::Other),
        }
    }

    /// The line with the name of a tool.
    fn tool(&mut self, offered: &Offered) -> Result<&'t str, Problem> {
        // The first piece of an answer may begin with a blank.
        let rest = self.rest();
        let Some((line, _)) = rest.split_once('\n') else {
            let may_be = |name: &str| name.starts_with(rest.trim());
            let may_be = rest.len() <= MAX_NAME && offered.names().any(may_be);
            return Err(if may_be { Problem::Short } else { Problem::Other });
        };
        let name = line.trim();
        if !offered.names().any(|offered| offered == name) {
            return Err(Problem::Other);
        }
        self.at += line.len() + 1;
        Ok(name)
    }
}

/// `<tool_call>name`, and then an argument or the end.
fn tags(cursor: &mut Cursor) -> Result<String, Problem> {
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

/// A line with the name of a tool, and then the beginning of an object.
fn json(cursor: &mut Cursor, offered: &Offered) -> Result<String, Problem> {
    let name = cursor.tool(offered)?.to_owned();
    cursor.space()?;
    let after = cursor.at;
    cursor.expect("{")?;
    cursor.space()?;
    let is_object = matches!(cursor.next()?, '"' | '\'' | '}');
    cursor.at = after;
    if is_object { Ok(name) } else { Err(Problem::Other) }
}

/// A line with the name of a tool, and then the beginning of a call in a block of code.
fn python(cursor: &mut Cursor, offered: &Offered) -> Result<String, Problem> {
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

/// What a call needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More text.
    More,
    /// Nothing: it is complete.
    End,
    /// What follows is no part of a call.
    Broken,
}

/// A call that has begun.
#[derive(Debug, Clone)]
pub(super) struct Call {
    state: State,
    arguments: Vec<(String, Kinds)>,
    /// Arguments so far.
    count: usize,
}

#[derive(Debug, Clone)]
enum State {
    /// GLM-4: the object of the arguments.
    Object(Literal),
    /// ChatGLM3: before the name of an argument or the end, after a comma or not.
    Keyword { follows: bool },
    /// ChatGLM3: the value of an argument.
    Value(Literal),
    /// ChatGLM3: after the call, before the end of the block of code.
    Fence,
    /// GLM-4.5: before a tag.
    Tag,
    /// GLM-4.5: in a value that is a text; `begun` says whether its quote is written.
    Text,
    /// GLM-4.5: in another value.
    Other(Kinds),
}

impl Call {
    pub(super) fn new(form: CallForm, offered: &Offered, name: &str) -> Self {
        let state = match form {
            CallForm::Json => State::Object(Literal::new()),
            CallForm::Python => State::Keyword { follows: false },
            CallForm::Tags { .. } => State::Tag,
        };
        Call { state, arguments: offered.arguments(name), count: 0 }
    }

    /// Takes what it can of `held`, and appends to `out` the JSON that it makes certain.
    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> Step {
        loop {
            let (taken, next) = match &mut self.state {
                State::Object(literal) | State::Value(literal) => feed(literal, held, out),
                State::Keyword { .. } => self.keyword(held, out),
                State::Fence => fence(held, at_end),
                State::Tag => self.tag(held, out),
                State::Text => text(held, out),
                State::Other(kinds) => other(held, kinds, out),
            };
            held.drain(..taken);
            self.state = match (next, &self.state) {
                (Next::More, _) => return Step::More,
                (Next::Broken, _) => return Step::Broken,
                (Next::End, _) | (Next::Value, State::Object(_)) => return Step::End,
                (Next::State(state), _) => state,
                (Next::Value, State::Value(_)) => State::Keyword { follows: true },
                (Next::Value, _) => State::Tag,
            };
        }
    }

    /// The separator before an argument, and its name.
    fn name(&mut self, name: &str, out: &mut String) {
        out.push(if self.count == 0 { '{' } else { ',' });
        out.push('"');
        name.chars().for_each(|c| write(c, out));
        out.push_str("\":");
        self.count += 1;
    }

    /// The end of the arguments.
    fn end(&self, out: &mut String) {
        out.push_str(if self.count == 0 { "{}" } else { "}" });
    }

    fn keyword(&mut self, held: &str, out: &mut String) -> (usize, Next) {
        let State::Keyword { follows } = self.state else { return (0, Next::Broken) };
        let mut cursor = Cursor { text: held, at: 0 };
        let found = (|| {
            cursor.space()?;
            if follows && cursor.next()? == ',' {
                cursor.at += 1;
                cursor.space()?;
            } else if follows && cursor.next()? != ')' {
                return Err(Problem::Other);
            }
            if cursor.next()? == ')' {
                cursor.at += 1;
                return Ok(None);
            }
            keyword(&mut cursor).map(Some)
        })();
        match found {
            Err(Problem::Short) => (0, Next::More),
            Err(Problem::Other) => (0, Next::Broken),
            Ok(None) => {
                self.end(out);
                (cursor.at, Next::State(State::Fence))
            }
            Ok(Some(name)) => {
                self.name(name, out);
                (cursor.at, Next::State(State::Value(Literal::new())))
            }
        }
    }

    fn tag(&mut self, held: &str, out: &mut String) -> (usize, Next) {
        let mut cursor = Cursor { text: held, at: 0 };
        let found = (|| {
            cursor.space()?;
            match cursor.expect(KEY) {
                Ok(()) => {}
                Err(Problem::Short) => return Err(Problem::Short),
                Err(Problem::Other) => return cursor.expect(CALL_END).map(|()| None),
            }
            let name = cursor.word(&['<'])?.trim();
            cursor.expect(KEY_END)?;
            cursor.space()?;
            cursor.expect(VALUE)?;
            Ok(Some(name))
        })();
        match found {
            Err(Problem::Short) => (0, Next::More),
            Err(Problem::Other) => (0, Next::Broken),
            Ok(None) => {
                self.end(out);
                (cursor.at, Next::End)
            }
            Ok(Some(name)) => {
                self.name(name, out);
                let kinds = self.arguments.iter().find(|(known, _)| known == name);
                let kinds = kinds.map_or(Kinds::ANY, |(_, kinds)| *kinds);
                if kinds == Kinds::TEXT {
                    out.push('"');
                    return (cursor.at, Next::State(State::Text));
                }
                (cursor.at, Next::State(State::Other(kinds)))
            }
        }
    }
}

/// What follows in a call.
enum Next {
    More,
    /// The value is complete.
    Value,
    State(State),
    End,
    Broken,
}

/// Gives text to a literal. Returns how many bytes it took.
fn feed(literal: &mut Literal, held: &str, out: &mut String) -> (usize, Next) {
    for (at, c) in held.char_indices() {
        match literal.push(c, out) {
            Value::Taken => {}
            Value::Last => return (at + c.len_utf8(), Next::Value),
            Value::After => return (at, Next::Value),
            Value::Wrong => return (at, Next::Broken),
        }
    }
    (held.len(), Next::More)
}

/// Drops the end of a block of code.
fn fence(held: &str, at_end: bool) -> (usize, Next) {
    let mut cursor = Cursor { text: held, at: 0 };
    match cursor.space().and_then(|()| cursor.expect("```")) {
        Ok(()) => (cursor.at, Next::End),
        Err(Problem::Short) if !at_end => (0, Next::More),
        Err(_) => (0, Next::End),
    }
}

/// A value that is a text, up to its tag.
fn text(held: &str, out: &mut String) -> (usize, Next) {
    let (end, taken, next) = match held.find(VALUE_END) {
        Some(at) => (at, at + VALUE_END.len(), Next::Value),
        None => {
            let sure = held.len() - overlap(held, VALUE_END);
            (sure, sure, Next::More)
        }
    };
    held[..end].chars().for_each(|c| write(c, out));
    if matches!(next, Next::Value) {
        out.push('"');
    }
    (taken, next)
}

/// A value that may be a text or not. It is held until it is complete.
fn other(held: &str, kinds: &Kinds, out: &mut String) -> (usize, Next) {
    match held.strip_suffix(VALUE_END) {
        Some(value) => {
            out.push_str(&kinds.read(value).to_string());
            (held.len(), Next::Value)
        }
        None if held.len() > MAX_VALUE => {
            out.push('"');
            (0, Next::State(State::Text))
        }
        None => (0, Next::More),
    }
}
