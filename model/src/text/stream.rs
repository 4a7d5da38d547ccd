//! Ids to text while they are generated.

use crate::error::{Error, Result};
use crate::text::postprocess::Postprocess;
use crate::text::rewrite::overlap;
use crate::text::tokenizer::{Decoder, Tokenizer};

/// Longest stop string in bytes; the cost of every id grows with it.
const MAX_STOP: usize = 1024;

/// Turns ids into text one at a time, giving out only what no later id can change: whole
/// characters, and nothing that might yet lose its blank or turn out to be the beginning of a stop
/// string.
///
/// As long as nothing is left out or polished and there are no stop strings, all pieces and [`finish`](Self::finish) joined are exactly what
/// [`Tokenizer::decode`] makes of all ids. Each id costs the same, however long the text has
/// become.
#[derive(Debug, Clone)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    decoder: Decoder,
    shows_special: bool,
    polish: Option<Postprocess>,
    stops: Stops,
}

impl<'t> TextStream<'t> {
    /// A stream of plain text.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        TextStream {
            tokenizer,
            decoder: tokenizer.decoder(),
            shows_special: true,
            polish: None,
            stops: Stops::default(),
        }
    }

    /// Leaves out ids that are no part of what is said, as if they were not there: roles, the end of the
    /// answer. Some tokenizers would show them by their names.
    #[must_use]
    pub fn without_special(mut self) -> Self {
        self.shows_special = false;
        self
    }

    /// Polishes the text, if at all.
    #[must_use]
    pub(crate) fn polished(mut self, polish: Option<Postprocess>) -> Self {
        self.polish = polish;
        self
    }

    /// Ends the text before the first of these strings to be complete, looked for in the text as it
    /// is given out.
    ///
    /// # Errors
    /// If a string is empty or longer than 1024 bytes.
    pub fn stopping_at(
        mut self,
        stops: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self> {
        self.stops.words = stops.into_iter().map(Into::into).collect();
        match self.stops.words.iter().find(|word| !(1..=MAX_STOP).contains(&word.len())) {
            None => Ok(self),
            Some(word) => Err(Error::Setting {
                setting: "a stop string",
                range: format!("1 to {MAX_STOP} bytes long"),
                found: format!("one of {}", word.len()),
            }),
        }
    }

    /// Takes the next id and returns the text that has become certain, often none. After a stop
    /// string there is none any more.
    ///
    /// # Errors
    /// If the tokenizer does not have this id; the stream then is as it was.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if !self.shows_special && self.tokenizer.names_special(id) {
            return Ok(String::new());
        }
        let mut text = String::new();
        self.tokenizer.push(&mut self.decoder, id, &mut text)?;
        if let Some(polish) = &mut self.polish {
            let decoded = std::mem::take(&mut text);
            polish.push(&decoded, &mut text);
        }
        Ok(self.stops.push(&text))
    }

    /// There are no more ids: returns the text that was held back, and the stream is at its end.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.decoder.finish(&mut text);
        if let Some(polish) = &mut self.polish {
            let decoded = std::mem::take(&mut text);
            polish.push(&decoded, &mut text);
            polish.finish(&mut text);
        }
        let mut out = self.stops.push(&text);
        out.push_str(&std::mem::take(&mut self.stops.held));
        out
    }

    /// Whether the tokenizer has this id. A model may have more rows than its tokenizer has ids.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.tokenizer.knows(id)
    }

    /// Whether a stop string has ended the text.
    pub fn stopped(&self) -> bool {
        self.stops.found
    }
}

/// Holds back what may be the beginning of a stop string.
#[derive(Debug, Clone, Default)]
struct Stops {
    words: Vec<String>,
    held: String,
    found: bool,
}

impl Stops {
    fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(text);
        // Of several, the first to be complete, so that it does not matter how the text was cut.
        let ends = self
            .words
            .iter()
            .filter_map(|word| self.held.find(word).map(|at| (at + word.len(), at)));
        let sure = match ends.min() {
            Some((_, at)) => {
                self.found = true;
                at
            }
            None => {
                self.held.len()
                    - self.words.iter().map(|word| overlap(&self.held, word)).max().unwrap_or(0)
            }
        };
        let open = self.held.split_off(sure);
        let sure = std::mem::replace(&mut self.held, open);
        if self.found {
            self.held.clear();
        }
        sure
    }
}

#[cfg(test)]
mod tests;
