//! Answers while they are generated: thoughts, text, and calls of tools.
//!
//! Models write calls in three forms. A call is data: nothing of it is evaluated.
//!
//! ```text
//! ChatGLM3    a line with the name of a tool, then  ```python \n tool_call(city='北京', days=3) \n ```
//! GLM-4       a line with the name of a tool, then  {"city": "北京", "days": 3}
//! GLM-4.5     <tool_call>name \n <arg_key>city</arg_key> \n <arg_value>北京</arg_value> … </tool_call>
//! ```
//!
//! A text of which the parser cannot yet say what it is is held back. That is at most a name, a run of white space or, of an
//! argument that is not a text, the value; between tags also a text value from what may be its end on.

mod call;
mod literal;

use super::tools::Offered;
use crate::limits::answer::MAX_SPACE;
use crate::text::rewrite::overlap;
use call::{Call, Match};

/// How a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallForm {
    /// ChatGLM3's.
    Python,
    /// GLM-4's.
    Json,
    /// GLM-4.5's; in GLM-4.7 without new lines between the tags.
    Tags {
        /// Whether there are none.
        compact: bool,
    },
}

/// What an answer consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerEvent {
    /// A piece of what the model thinks before it answers.
    Reasoning(String),
    /// A piece of the text.
    Text(String),
    /// A call begins.
    CallStart {
        /// The number of the call in the answer, from 0.
        index: usize,
        /// An identifier for the result to refer to.
        id: String,
        /// The name of the tool.
        name: String,
    },
    /// A piece of the arguments of a call, which are a JSON object.
    CallArguments {
        /// The number of the call.
        index: usize,
        /// The piece.
        piece: String,
    },
    /// The call is complete. A call that the answer breaks off, or whose arguments are damaged, never is; its arguments are then
    /// not complete either.
    CallEnd {
        /// The number of the call.
        index: usize,
    },
}

/// What kind of answer to expect; see [`Template::answer_parser`](super::Template::answer_parser).
#[derive(Debug, Clone)]
pub(super) struct Expects {
    /// How calls are written, and the tools that may be called. Without any there are no calls.
    pub(super) calls: Option<(CallForm, Offered)>,
    pub(super) thoughts: Thoughts,
}

/// Whether thoughts come before the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoughts {
    None,
    Possible,
    /// The prompt ends within them.
    Begun,
}

/// The tags around thoughts.
pub(crate) const THINK: &str = "<think>";
pub(crate) const END: &str = "</think>";

/// Reads an answer in pieces.
///
/// The events of the same kind joined do not depend on how the text was cut into pieces. White space around thoughts, and
/// before and after calls, is dropped. What only looks like a call is text.
#[derive(Debug, Clone)]
pub struct AnswerParser {
    calls: Option<(CallForm, Offered)>,
    /// Whether calls may follow a text.
    has_calls_after_text: bool,
    /// The beginning of the identifiers of calls.
    id: String,
    /// Calls so far.
    count: usize,
    /// Those of them that are complete.
    complete: usize,
    state: State,
    /// What is not decided yet.
    held: String,
    events: Vec<AnswerEvent>,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// In thoughts, which have `begun` with more than white space or not.
    Thoughts {
        begun: bool,
    },
    /// In the text. At the start of a `line`; white space is dropped if it is `fresh` after thoughts or a call.
    Text {
        line: bool,
        fresh: bool,
    },
    Call(Box<Call>),
}

impl AnswerParser {
    pub(super) fn new(expects: Expects, id: String) -> Self {
        let state = match expects.thoughts {
            Thoughts::Begun => State::Thoughts { begun: false },
            Thoughts::Possible => State::Start,
            Thoughts::None => State::Text { line: true, fresh: false },
        };
        let calls = expects.calls.filter(|(_, offered)| !offered.is_empty());
        let (held, events) = (String::new(), Vec::new());
        let has_calls_after_text = true;
        AnswerParser { calls, has_calls_after_text, id, count: 0, complete: 0, state, held, events }
    }

    /// Expects either calls or a text: after the first text, what looks like a call is text as well. So a call in the strings of
    /// JSON is none.
    #[must_use]
    pub fn without_calls_after_text(self) -> Self {
        AnswerParser { has_calls_after_text: false, ..self }
    }

    /// Takes the next piece of the text, and returns what has become certain.
    pub fn push(&mut self, piece: &str) -> Vec<AnswerEvent> {
        // One character at a time, so that no decision depends on how the text was cut.
        for c in piece.chars() {
            self.held.push(c);
            while self.step(false) {}
        }
        std::mem::take(&mut self.events)
    }

    /// Ends the answer, and returns what was held back.
    pub fn finish(&mut self) -> Vec<AnswerEvent> {
        while self.step(true) {}
        std::mem::take(&mut self.events)
    }

    /// Calls that are complete. Those that have begun only are not counted.
    pub fn complete_calls(&self) -> usize {
        self.complete
    }

    /// Whether what comes next is part of the thoughts, as far as is known.
    pub fn is_thinking(&self) -> bool {
        matches!(self.state, State::Thoughts { .. })
    }

    /// Decides about the next part of what is held. Returns whether there may be more to decide.
    fn step(&mut self, at_end: bool) -> bool {
        match self.state {
            State::Start => self.start(at_end),
            State::Thoughts { begun } => self.thoughts(begun, at_end),
            State::Text { line, fresh } => self.text(line, fresh, at_end),
            State::Call(_) => self.call(at_end),
        }
    }

    fn start(&mut self, at_end: bool) -> bool {
        let said = self.held.trim_start();
        let space = self.held.len() - said.len();
        if said.starts_with(THINK) {
            self.held.drain(..space + THINK.len());
            self.state = State::Thoughts { begun: false };
            return true;
        }
        if THINK.starts_with(said) && space <= MAX_SPACE && !at_end {
            return false;
        }
        self.state = State::Text { line: true, fresh: false };
        true
    }

    fn thoughts(&mut self, begun: bool, at_end: bool) -> bool {
        if !begun {
            let space = self.held.len() - self.held.trim_start().len();
            self.held.drain(..space);
        }
        let (end, next) = match self.held.find(END) {
            Some(at) => (at, at + END.len()),
            None if at_end => (self.held.len(), self.held.len()),
            None => {
                let open = self.held.len() - overlap(&self.held, END);
                let said = self.held[..open].trim_end().len();
                // A long run of white space is not held.
                let sure = if open - said > MAX_SPACE { open } else { said };
                let piece: String = self.held.drain(..sure).collect();
                self.state = State::Thoughts { begun: begun || sure > 0 };
                self.emit(AnswerEvent::Reasoning(piece));
                return false;
            }
        };
        let is_closed = next > end;
        let piece = self.held[..end].trim_end().to_owned();
        self.held.drain(..next);
        self.emit(AnswerEvent::Reasoning(piece));
        if is_closed {
            self.state = State::Text { line: true, fresh: true };
        }
        is_closed
    }

    fn text(&mut self, line: bool, fresh: bool, at_end: bool) -> bool {
        if fresh {
            let space = self.held.len() - self.held.trim_start().len();
            self.held.drain(..space);
        }
        if self.held.is_empty() {
            return false;
        }
        let Some((form, offered)) = &self.calls else {
            let piece = std::mem::take(&mut self.held);
            self.say(piece);
            return false;
        };
        // Where a call may begin.
        let mut from = 0;
        while let Some(at) = form.begins(&self.held, from, line) {
            match form.matches(offered, &self.held[at..], at_end) {
                Match::No => from = at + 1,
                Match::Maybe => {
                    self.hold(at);
                    return false;
                }
                Match::Yes { name, length } => {
                    let call = Call::new(*form, offered, &name);
                    let piece = self.held[..at].trim_end().to_owned();
                    self.held.drain(..at + length);
                    self.say(piece);
                    let (index, id) = (self.count, format!("{}{}", self.id, self.count));
                    self.count += 1;
                    self.emit(AnswerEvent::CallStart { index, id, name });
                    self.state = State::Call(Box::new(call));
                    return true;
                }
            }
        }
        if at_end {
            let piece = std::mem::take(&mut self.held);
            self.say(piece);
        } else {
            self.hold(self.held.len());
        }
        false
    }

    /// Says what is held up to `at`, without the white space before it, which a call would drop.
    fn hold(&mut self, at: usize) {
        let said = self.held[..at].trim_end().len();
        let sure = if at - said > MAX_SPACE { at } else { said };
        let piece: String = self.held.drain(..sure).collect();
        self.say(piece);
    }

    /// Text is given out.
    fn say(&mut self, piece: String) {
        if !piece.is_empty() {
            self.state = State::Text { line: piece.ends_with('\n'), fresh: false };
        }
        if !self.has_calls_after_text && !piece.trim_start().is_empty() {
            self.calls = None;
        }
        self.emit(AnswerEvent::Text(piece));
    }

    fn call(&mut self, at_end: bool) -> bool {
        let State::Call(call) = &mut self.state else { return false };
        let mut piece = String::new();
        let step = call.read(&mut self.held, at_end, &mut piece);
        let index = self.count - 1;
        self.emit(AnswerEvent::CallArguments { index, piece });
        match step {
            call::Step::More if at_end && !self.held.trim().is_empty() => {
                // The answer breaks off between arguments.
                self.state = State::Text { line: false, fresh: true };
            }
            call::Step::More => return false,
            call::Step::End => {
                self.complete += 1;
                self.emit(AnswerEvent::CallEnd { index });
                self.state = State::Text { line: true, fresh: true };
            }
            call::Step::Broken => self.state = State::Text { line: false, fresh: false },
        }
        true
    }

    /// Adds an event, and joins pieces.
    fn emit(&mut self, event: AnswerEvent) {
        use AnswerEvent::{CallArguments, Reasoning, Text};
        match (self.events.last_mut(), event) {
            (Some(Text(all)), Text(piece)) | (Some(Reasoning(all)), Reasoning(piece)) => {
                all.push_str(&piece);
            }
            (Some(CallArguments { piece: all, index: i }), CallArguments { piece, index })
                if *i == index =>
            {
                all.push_str(&piece);
            }
            (_, Text(piece) | Reasoning(piece) | CallArguments { piece, .. })
                if piece.is_empty() => {}
            (_, event) => self.events.push(event),
        }
    }
}

#[cfg(test)]
mod tests;
