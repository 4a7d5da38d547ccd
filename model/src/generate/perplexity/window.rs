//! Text → windows of ids.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::files::config::MaskKind;
use crate::network::model::Model;
use crate::text::chat::{Blank, blank_kinds, prompt_between};
use crate::text::tokenizer::Tokenizer;

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowOptions {
    /// Tokens of the text in a window.
    pub tokens: usize,
    /// Tokens from the beginning of a window to that of the next.
    pub stride: usize,
    /// Tokens of a blank in the middle of the window, which are predicted from both sides. `None`: the end of the window is
    /// predicted from its beginning.
    pub blank: Option<usize>,
    /// Most windows, from the beginning of the text on; by default all.
    pub most: usize,
}

impl WindowOptions {
    /// Windows of `tokens`, each of which begins in the middle of the one before.
    pub fn new(tokens: usize) -> Self {
        Self { tokens, stride: (tokens / 2).max(1), blank: None, most: usize::MAX }
    }

    fn validate(&self) -> Result<()> {
        let wrong = |setting, range: String, found: usize| {
            Err(Error::Setting { setting, range, found: found.to_string() })
        };
        if self.tokens < 2 {
            return wrong("window", "at least 2".to_owned(), self.tokens);
        }
        if self.stride == 0 || self.stride > self.tokens {
            return wrong("stride", format!("from 1 to {}", self.tokens), self.stride);
        }
        match self.blank {
            Some(blank) if blank == 0 || blank >= self.tokens => {
                wrong("blank", format!("from 1 to {}", self.tokens - 1), blank)
            }
            _ => Ok(()),
        }
    }
}

/// A prompt and the tokens after it that are predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    ids: Vec<u32>,
    counted: Range<usize>,
}

impl Window {
    fn new(mut prompt: Vec<u32>, counted: &[u32]) -> Self {
        let start = prompt.len();
        prompt.extend_from_slice(counted);
        Self { counted: start..prompt.len(), ids: prompt }
    }

    /// A part of a text, the last `counted` tokens of which are predicted.
    ///
    /// # Errors
    /// If the model lacks the ids that it needs around a text.
    pub(crate) fn ending(
        mask: MaskKind,
        tokenizer: &Tokenizer,
        ids: &[u32],
        counted: usize,
    ) -> Result<Self> {
        let (left, right) = ids.split_at(ids.len() - counted.min(ids.len()));
        let prompt = match mask {
            MaskKind::Prefix(_) => prompt_between(tokenizer, left, Blank::Gmask, &[])?,
            MaskKind::Causal => [&tokenizer.special().before, left].concat(),
        };
        Ok(Self::new(prompt, right))
    }

    /// The ids with those that the model needs around a text.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Which of the ids are predicted and counted.
    pub fn counted(&self) -> Range<usize> {
        self.counted.clone()
    }

    /// The place in the ids of a part of the counted ones.
    pub(super) fn part(&self, part: &Range<usize>) -> Range<usize> {
        self.counted.start + part.start..self.counted.start + part.end
    }
}

/// Cuts a text into windows.
///
/// The last tokens of a window are predicted: as many as a stride, at most half of the window (rounded down). So with a stride of
/// up to half a window, every token after the first window is counted once, and has at least `tokens - stride` tokens before it. The
/// last window may count fewer. A text shorter than a window is one window.
///
/// A causal model reads the ids that begin every text of its family, and then the window. A model that fills blanks reads the tokens
/// before the counted ones as its bidirectional context, then `[gMASK]` and `sop`; the counted tokens are the answer. With
/// [`WindowOptions::blank`] the tokens in the middle of the window are the answer, and `[MASK]` is in their place. The end of the
/// blank is not counted.
///
/// # Errors
/// If an option is outside its range, the text has fewer than two tokens (or is shorter than a window with a blank), or has a blank
/// itself; if windows with a blank are asked of a model that fills none.
pub fn windows(
    model: &Model,
    tokenizer: &Tokenizer,
    text: &str,
    options: &WindowOptions,
) -> Result<Vec<Window>> {
    options.validate()?;
    let mask = model.config().mask;
    let ids = text_ids(mask, tokenizer, text)?;
    if ids.len() < 2 {
        return Err(Error::Prompt("a text of at least 2 tokens is needed".to_owned()));
    }
    if let Some(blank) = options.blank {
        return blanks(tokenizer, &ids, blank, options);
    }
    let tokens = options.tokens.min(ids.len());
    let counted = options.stride.min(tokens / 2);
    let ends = (tokens..=ids.len()).step_by(options.stride);
    let last = ids.len() - (ids.len() - tokens) % options.stride;
    let window =
        |end: usize, counted| Window::ending(mask, tokenizer, &ids[end - tokens..end], counted);
    let ends = ends.take(options.most);
    let mut all = ends.map(|end| window(end, counted)).collect::<Result<Vec<_>>>()?;
    let rest = (ids.len() - last).min(counted);
    if rest > 0 && all.len() < options.most {
        all.push(window(ids.len(), rest)?);
    }
    Ok(all)
}

/// The ids of a text that is read as it is.
///
/// # Errors
/// If it cannot be encoded, or has names of blanks and the model fills blanks.
pub(crate) fn text_ids(mask: MaskKind, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let ids = tokenizer.encode_as_text(text)?;
    if let MaskKind::Prefix(_) = mask {
        let special = &tokenizer.special().ids;
        let [mask, smask, gmask] = special.blanks().map(|(_, id)| id);
        let own = [special.sop, mask, smask, gmask];
        if let Some(&id) = ids.iter().find(|&&id| own.contains(&Some(id))) {
            let name = tokenizer.special_name(id).unwrap_or("a blank");
            return Err(Error::Prompt(format!(
                "the text contains {name}, which this model does not read as text: remove it"
            )));
        }
    }
    Ok(ids)
}

/// Windows with a blank of `blank` tokens in the middle.
fn blanks(
    tokenizer: &Tokenizer,
    ids: &[u32],
    blank: usize,
    options: &WindowOptions,
) -> Result<Vec<Window>> {
    let tokens = options.tokens;
    if ids.len() < tokens {
        let (found, needed) = (ids.len(), tokens);
        let problem = format!("the text has {found} tokens: a window with a blank needs {needed}");
        return Err(Error::Prompt(problem));
    }
    let kind = blank_kinds(tokenizer)?[0];
    (0..=ids.len() - tokens)
        .step_by(options.stride)
        .take(options.most)
        .map(|start| {
            let window = &ids[start..start + tokens];
            let (left, rest) = window.split_at((tokens - blank) / 2);
            let (counted, right) = rest.split_at(blank);
            Ok(Window::new(prompt_between(tokenizer, left, kind, right)?, counted))
        })
        .collect()
}
