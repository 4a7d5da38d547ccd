//! Answers while they are generated, in parts: thoughts, text, and calls of tools.

use crate::error::{Error, Result};
use crate::generate::generation::TextGeneration;
use crate::network::hook::Progress;
use crate::network::sequence::Sequence;
use crate::text::chat::{AnswerEvent, AnswerParser};
use std::collections::VecDeque;

/// An answer that is being generated: an iterator over its parts. [`TextGeneration::answer`] makes it.
pub struct AnswerGeneration<'t> {
    text: TextGeneration<'t>,
    parser: AnswerParser,
    events: VecDeque<AnswerEvent>,
    is_over: bool,
    /// Why the text ended, once what came before is given out.
    error: Option<Error>,
}

impl<'t> AnswerGeneration<'t> {
    pub(super) fn new(text: TextGeneration<'t>, parser: AnswerParser) -> Self {
        AnswerGeneration { text, parser, events: VecDeque::new(), is_over: false, error: None }
    }
}

impl AnswerGeneration<'_> {
    /// The generation of the text of which these are the parts.
    pub fn text(&self) -> &TextGeneration<'_> {
        &self.text
    }

    /// See [`Generation::read_prompt`](crate::Generation::read_prompt).
    ///
    /// # Errors
    /// As there.
    pub fn read_prompt(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        self.text.read_prompt(progress)
    }

    /// See [`Generation::into_sequence`](crate::Generation::into_sequence).
    pub fn into_sequence(self) -> Sequence {
        self.text.into_sequence()
    }
}

impl Iterator for AnswerGeneration<'_> {
    type Item = Result<AnswerEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.is_over {
                return self.error.take().map(Err);
            }
            match self.text.next() {
                Some(Ok(piece)) => self.events.extend(self.parser.push(&piece)),
                ended => {
                    self.is_over = true;
                    self.error = ended.and_then(Result::err);
                    self.events.extend(self.parser.finish());
                }
            }
        }
    }
}
