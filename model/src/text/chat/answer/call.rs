//! One call in an answer: how it begins, and its arguments as JSON. Each form has a file.

mod cursor;
mod json;
mod python;
mod tag_value;
mod tags;

use super::CallForm;
use super::literal::{Literal, Step as Value, write};
use crate::text::chat::tools::Offered;
use crate::text::rewrite::overlap;
use cursor::{Cursor, Problem};

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
            let partial = overlap(rest, tags::CALL);
            let partial = (partial > 0).then(|| rest.len() - partial);
            return rest.find(tags::CALL).or(partial).map(|at| from + at);
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
        let mut cursor = Cursor::new(text);
        let found = match self {
            CallForm::Tags { .. } => tags::begin(&mut cursor),
            CallForm::Json => json::begin(&mut cursor, offered),
            CallForm::Python => python::begin(&mut cursor, offered),
        };
        match found {
            Err(Problem::Short) if !at_end => Match::Maybe,
            Err(_) => Match::No,
            Ok(name) => Match::Yes { name, length: cursor.at },
        }
    }
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

/// The arguments of a call that has begun.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Json(json::Arguments),
    Python(python::Arguments),
    Tags(tags::Arguments),
}

impl Call {
    pub(super) fn new(form: CallForm, offered: &Offered, name: &str) -> Self {
        match form {
            CallForm::Json => Call::Json(json::Arguments::new()),
            CallForm::Python => Call::Python(python::Arguments::new()),
            CallForm::Tags { .. } => Call::Tags(tags::Arguments::new(offered, name)),
        }
    }

    /// Takes what it can of `held`, and appends to `out` the JSON that it makes certain. At the end of the answer nothing follows:
    /// what a value has so far is given out, and what is left in `held` is no part of the arguments.
    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> Step {
        match self {
            Call::Json(arguments) => arguments.read(held, at_end, out),
            Call::Python(arguments) => arguments.read(held, at_end, out),
            Call::Tags(arguments) => arguments.read(held, at_end, out),
        }
    }
}

/// Writes the object of the arguments.
#[derive(Debug, Clone, Default)]
struct Object {
    /// Arguments so far.
    count: usize,
}

impl Object {
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
}

/// Gives text to a literal, which may be complete then.
fn feed(literal: &mut Literal, held: &mut String, at_end: bool, out: &mut String) -> Step {
    let mut taken = held.len();
    let mut step = Step::More;
    for (at, c) in held.char_indices() {
        (taken, step) = match literal.push(c, out) {
            Value::Taken => continue,
            Value::Last => (at + c.len_utf8(), Step::End),
            Value::After => (at, Step::End),
            Value::Wrong => (at, Step::Broken),
        };
        break;
    }
    held.drain(..taken);
    let is_cut = at_end && step == Step::More;
    if is_cut {
        literal.finish(out);
    }
    if is_cut || step == Step::Broken {
        // A word that is no value stays text.
        held.insert_str(0, &literal.untaken().unwrap_or_default());
    }
    step
}
