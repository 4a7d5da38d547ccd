//! Streaming decoding: ids to text while they are generated.

use crate::error::{Error, Result};
use crate::limits::text::MAX_STOP;
use crate::text::postprocess::Postprocess;
use crate::text::rewrite::overlap;
use crate::text::tokenizer::{Decoder, Tokenizer};

/// Decodes ids one at a time and returns only text that no later id can change: whole characters, no blank that the clean-up
/// may still remove, and no text that may be the beginning of a stop string.
///
/// Without stop strings, without postprocessing and with special ids, the pieces and the result of [`finish`](Self::finish)
/// joined equal [`Tokenizer::decode`] of all ids. The cost of an id does not depend on the length of the text before it.
#[derive(Debug, Clone)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    decoder: Decoder,
    shows_special: bool,
    postprocess: Option<Postprocess>,
    stops: Stops,
}

impl<'t> TextStream<'t> {
    /// A stream of plain text.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        TextStream {
            tokenizer,
            decoder: tokenizer.decoder(),
            shows_special: true,
            postprocess: None,
            stops: Stops::default(),
        }
    }

    /// Skips special ids, such as roles and the end of the answer. Without this, some tokenizers decode them to their names.
    #[must_use]
    pub fn without_special(mut self) -> Self {
        self.shows_special = false;
        self
    }

    /// Postprocesses the text if `postprocess` is given.
    #[must_use]
    pub(crate) fn postprocessed(mut self, postprocess: Option<Postprocess>) -> Self {
        self.postprocess = postprocess;
        self
    }

    /// Ends the text before the first stop string that becomes complete. Stop strings are searched for in the text as it is
    /// returned, after postprocessing.
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

    /// Takes the next id and returns the text that has become final, which is often empty. After a stop string it is always
    /// empty.
    ///
    /// # Errors
    /// If the tokenizer does not have this id. The stream is then unchanged.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if !self.shows_special && self.tokenizer.names_special(id) {
            return Ok(String::new());
        }
        let mut text = String::new();
        self.tokenizer.push(&mut self.decoder, id, &mut text)?;
        if let Some(postprocess) = &mut self.postprocess {
            let decoded = std::mem::take(&mut text);
            postprocess.push(&decoded, &mut text);
        }
        Ok(self.stops.push(&text))
    }

    /// Ends the stream and returns the text that was held back.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.decoder.finish(&mut text);
        if let Some(postprocess) = &mut self.postprocess {
            let decoded = std::mem::take(&mut text);
            postprocess.push(&decoded, &mut text);
            postprocess.finish(&mut text);
        }
        let mut out = self.stops.push(&text);
        out.push_str(&std::mem::take(&mut self.stops.held));
        out
    }

    /// Whether the tokenizer has this id. The vocabulary of a model may be larger than that of its tokenizer.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.tokenizer.knows(id)
    }

    /// Whether a stop string has ended the text.
    pub fn stopped(&self) -> bool {
        self.stops.found.is_some()
    }

    /// The stop string that has ended the text.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stops.found.map(|index| self.stops.words[index].as_str())
    }
}

/// Searches for stop strings, and holds back text that may be the beginning of one.
#[derive(Debug, Clone, Default)]
struct Stops {
    words: Vec<String>,
    held: String,
    /// The index of the word that was found.
    found: Option<usize>,
}

impl Stops {
    fn push(&mut self, text: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        // Of several, the one that is complete first: the result must not depend on how the text was cut into parts.
        let ends = self
            .words
            .iter()
            .enumerate()
            .filter_map(|(i, word)| self.held.find(word).map(|at| (at + word.len(), at, i)));
        let sure = match ends.min() {
            Some((_, at, index)) => {
                self.found = Some(index);
                at
            }
            None => {
                self.held.len()
                    - self.words.iter().map(|word| overlap(&self.held, word)).max().unwrap_or(0)
            }
        };
        let open = self.held.split_off(sure);
        let sure = std::mem::replace(&mut self.held, open);
        if self.found.is_some() {
            self.held.clear();
        }
        sure
    }
}

#[cfg(test)]
mod tests;
