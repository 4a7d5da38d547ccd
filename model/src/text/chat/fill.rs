//! Texts with blanks to fill.
//!
//! ```text
//! ChatGLM-6B     text with [MASK] or [gMASK], white space around them dropped  <sop>
//! GLM-10B        [CLS]  text with [MASK], [sMASK], [gMASK]  <|endoftext|>  <|startofpiece|>
//! GLM-130B       text with [MASK], [sMASK], [gMASK]  </s>  sop
//! ```
//!
//! In GLM-130B `</s>` is left out if the text ends with a blank, and a text without blanks gets `[gMASK]`
//! at its end. Which blank is filled: in ChatGLM-6B all are of one kind, for the published code looks for
//! `[gMASK]` first wherever it stands; in GLM-10B the first of any kind; in GLM-130B the first `[MASK]`,
//! or if there is none the first `[sMASK]`, or else `[gMASK]`, and those of other kinds stay.

use crate::error::{Error, Result};
use crate::text::stream::TextStream;
use crate::text::tokenizer::{Family, Tokenizer, is_space};

/// A kind of blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blank {
    /// `[MASK]`: a few words.
    Mask,
    /// `[sMASK]`: a sentence.
    Smask,
    /// `[gMASK]`: a text of any length.
    Gmask,
}

impl Blank {
    const ALL: [Blank; 3] = [Blank::Mask, Blank::Smask, Blank::Gmask];

    /// How it is written in a text.
    pub fn name(self) -> &'static str {
        match self {
            Blank::Mask => "[MASK]",
            Blank::Smask => "[sMASK]",
            Blank::Gmask => "[gMASK]",
        }
    }

    fn id(self, tokenizer: &Tokenizer) -> Option<u32> {
        let [(_, mask), (_, smask), (_, gmask)] = tokenizer.special().ids.blanks();
        match self {
            Blank::Mask => mask,
            Blank::Smask => smask,
            Blank::Gmask => gmask,
        }
    }
}

/// The kinds of blanks that a tokenizer's model fills.
fn kinds(tokenizer: &Tokenizer) -> Result<&'static [Blank]> {
    match tokenizer.family() {
        Family::ChatGlm => Ok(&[Blank::Mask, Blank::Gmask]),
        Family::Glm10b | Family::Glm130b => Ok(&Blank::ALL),
        _ => Err(Error::Prompt(
            "this model fills no blanks: ChatGLM-6B, GLM-10B and GLM-130B do".into(),
        )),
    }
}

/// Whether a text has a blank that the tokenizer's model fills.
pub fn has_blank(tokenizer: &Tokenizer, text: &str) -> bool {
    kinds(tokenizer).is_ok_and(|kinds| kinds.iter().any(|kind| text.contains(kind.name())))
}

/// The kind of blank in a text that is filled first.
///
/// # Errors
/// If the model fills none, the text has none, or for ChatGLM-6B some of each kind.
pub fn blank(tokenizer: &Tokenizer, text: &str) -> Result<Blank> {
    let kinds = kinds(tokenizer)?;
    let mut found = kinds.iter().copied().filter(|blank| text.contains(blank.name()));
    let names = || kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>();
    match (found.next(), found.next(), tokenizer.family()) {
        (Some(_), Some(_), Family::ChatGlm) => Err(Error::Prompt(
            "the text has both [MASK] and [gMASK]: ChatGLM-6B fills those of one kind".into(),
        )),
        (Some(_), Some(_), Family::Glm10b) => {
            let place = |blank: &Blank| text.find(blank.name()).unwrap_or(usize::MAX);
            Ok(kinds.iter().copied().min_by_key(place).unwrap_or(Blank::Mask))
        }
        (Some(blank), _, _) => Ok(blank),
        (None, _, _) => {
            Err(Error::Prompt(format!("the text has no {} to fill", names().join(" or "))))
        }
    }
}

/// A text with blanks that are filled one after the other.
///
/// To ChatGLM-6B, what was put in a blank is text for those after it; in GLM-10B and GLM-130B it takes the blank's place as ids,
/// and nothing is encoded anew.
#[derive(Debug, Clone)]
pub struct Fill {
    before: Vec<u32>,
    body: Vec<u32>,
    after: Vec<u32>,
    sop: u32,
    /// The ids of the kinds that are filled.
    filled: Vec<u32>,
    ends: Vec<u32>,
    /// The blanks that are filled, one after the other.
    blanks: Vec<Blank>,
    /// What is between those blanks: one more than there are of them.
    texts: Vec<String>,
    spans: Vec<String>,
}

impl Fill {
    /// The ids of a text with blanks.
    ///
    /// # Errors
    /// As [`blank`] and [`Tokenizer::encode`]; but to GLM-130B a text without blanks is one to be
    /// continued.
    pub fn new(tokenizer: &Tokenizer, text: &str) -> Result<Self> {
        kinds(tokenizer)?;
        let has_none = Blank::ALL.iter().all(|kind| !text.contains(kind.name()));
        if tokenizer.family() == Family::Glm130b && has_none {
            return Self::to_continue(tokenizer, text);
        }
        Self::build(tokenizer, text, blank(tokenizer, text)?)
    }

    /// The ids of a text whose end is a `[gMASK]`, whether it is written there or not.
    ///
    /// # Errors
    /// As [`Fill::new`].
    pub(super) fn to_continue(tokenizer: &Tokenizer, text: &str) -> Result<Self> {
        match blank(tokenizer, text) {
            Ok(kind) => Self::build(tokenizer, text, kind),
            Err(_) => Self::build(tokenizer, &format!("{text}[gMASK]"), Blank::Gmask),
        }
    }

    fn build(tokenizer: &Tokenizer, text: &str, kind: Blank) -> Result<Self> {
        let missing = || Error::Prompt("the tokenizer lacks the ids that blanks need".into());
        let special = tokenizer.special();
        let sop = special.ids.sop.ok_or_else(missing)?;
        let body = body(tokenizer, text)?;
        let id = |kind: Blank| kind.id(tokenizer);
        let all: Vec<_> = Blank::ALL.into_iter().filter_map(id).collect();
        let (before, after, kinds) = match tokenizer.family() {
            Family::Glm10b => (special.before.clone(), special.after.clone(), Blank::ALL.to_vec()),
            Family::Glm130b => {
                let ends_blank = body.last().is_some_and(|id| all.contains(id));
                let eos = tokenizer.id("</s>").filter(|_| !ends_blank);
                (Vec::new(), eos.into_iter().collect(), vec![kind])
            }
            _ => (Vec::new(), Vec::new(), vec![kind]),
        };
        let (mut texts, mut blanks, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((at, kind)) = first(rest, &kinds) {
            let before = &rest[..at];
            texts.push(
                if takes_blank(tokenizer, kind)? {
                    before.trim_end_matches(is_space)
                } else {
                    before
                }
                .to_owned(),
            );
            blanks.push(kind);
            rest = &rest[at + kind.name().len()..];
        }
        texts.push(rest.to_owned());
        let filled = kinds.into_iter().filter_map(id).collect();
        let ends = special.ids.ends.clone();
        Ok(Fill { before, body, after, sop, filled, ends, blanks, texts, spans: Vec::new() })
    }

    /// What is written between the blanks that are filled, one after the other, before the first and after the last.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The kinds of those blanks.
    pub fn blanks(&self) -> &[Blank] {
        &self.blanks
    }

    /// What the blanks were filled with, as far as they are.
    pub fn spans(&self) -> &[String] {
        &self.spans
    }

    /// The ids to be read before the next blank is filled; `None` if all are.
    pub fn prompt(&self) -> Option<Vec<u32>> {
        self.next()?;
        Some([&self.before[..], &self.body, &self.after, &[self.sop]].concat())
    }

    /// Puts an answer in the place of the next blank, without the id that ended it. Where all are filled this changes
    /// nothing.
    ///
    /// # Errors
    /// If the answer has an id without text, or a blank of its own and is not the last; the blank then stays.
    pub fn fill(&mut self, tokenizer: &Tokenizer, answer: &[u32]) -> Result<()> {
        let answer = match answer.split_last() {
            Some((last, rest)) if self.ends.contains(last) => rest,
            _ => answer,
        };
        let Some(at) = self.next() else { return Ok(()) };
        // A model may have more rows than its tokenizer has ids.
        let answer: Vec<_> = answer.iter().copied().filter(|&id| tokenizer.knows(id)).collect();
        let text = said(tokenizer, &answer)?;
        let has_blank = |kind: &Blank| {
            kind.id(tokenizer).is_some_and(|id| answer.contains(&id)) || text.contains(kind.name())
        };
        let is_last = self.spans.len() + 1 >= self.blanks.len();
        if !is_last && kinds(tokenizer)?.iter().any(has_blank) {
            let problem = "the answer has a blank of its own, and those after it stay as they are";
            return Err(Error::Prompt(problem.into()));
        }
        self.spans.push(text);
        match tokenizer.family() {
            Family::ChatGlm => self.body = body(tokenizer, &self.written())?,
            _ => drop(self.body.splice(at..=at, answer)),
        }
        Ok(())
    }

    /// The text as it was written, with what the blanks were filled with; those that were not stay.
    pub fn written(&self) -> String {
        let Some((last, texts)) = self.texts.split_last() else { return String::new() };
        let mut written = String::new();
        for (index, (text, blank)) in texts.iter().zip(&self.blanks).enumerate() {
            written += text;
            written += self.spans.get(index).map_or(blank.name(), String::as_str);
        }
        written + last
    }

    /// The text as the ids have it, as far as it is filled.
    ///
    /// # Errors
    /// If an answer has an id without text.
    pub fn text(&self, tokenizer: &Tokenizer) -> Result<String> {
        tokenizer.decode(&self.body)
    }

    fn next(&self) -> Option<usize> {
        // What is filled could make new ones of what is left of them.
        if self.spans.len() >= self.blanks.len() {
            return None;
        }
        self.body.iter().position(|id| self.filled.contains(id))
    }
}

/// The text of an answer, without special ids.
fn said(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
    let mut stream = TextStream::new(tokenizer).without_special();
    let mut text = String::new();
    for &id in ids {
        text += &stream.push(id)?;
    }
    Ok(text + &stream.finish())
}

/// Whether a blank takes the white space before it, so that what fills it brings its own.
fn takes_blank(tokenizer: &Tokenizer, kind: Blank) -> Result<bool> {
    if tokenizer.family() != Family::Glm10b {
        return Ok(false);
    }
    let [with, without] = [format!("a {}", kind.name()), format!("a{}", kind.name())];
    Ok(tokenizer.encode(&with)? == tokenizer.encode(&without)?)
}

/// The ids of what somebody else puts in the first blank of a text, as the model would write it.
///
/// # Errors
/// As [`blank`] and [`Tokenizer::encode`].
pub fn answer_ids(tokenizer: &Tokenizer, text: &str, answer: &str) -> Result<Vec<u32>> {
    let kind = blank(tokenizer, text)?;
    let before = text.split_once(kind.name()).map_or("", |(before, _)| before);
    let is_apart = before.ends_with(is_space) && takes_blank(tokenizer, kind)?;
    let blank = if is_apart && !answer.starts_with(is_space) { " " } else { "" };
    tokenizer.encode(&format!("{blank}{answer}"))
}

/// The ids of a text with those of its blanks in their places. GLM-10B's tokenizer finds them itself, and
/// what lies between them is encoded piece by piece in the others.
fn body(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    if tokenizer.family() == Family::Glm10b {
        return tokenizer.encode(text);
    }
    let strips = tokenizer.family() == Family::ChatGlm;
    let mut ids = Vec::new();
    let mut rest = text;
    while let Some((at, kind)) = first(rest, kinds(tokenizer)?) {
        let [before, after] = [&rest[..at], &rest[at + kind.name().len()..]];
        let [before, after] = match strips {
            true => [before.trim_end_matches(is_space), after.trim_start_matches(is_space)],
            false => [before, after],
        };
        ids.extend(tokenizer.encode(before)?);
        ids.extend(kind.id(tokenizer));
        rest = after;
    }
    ids.extend(tokenizer.encode(rest)?);
    Ok(ids)
}

/// The first blank in a text.
fn first(text: &str, kinds: &[Blank]) -> Option<(usize, Blank)> {
    kinds.iter().filter_map(|&kind| Some((text.find(kind.name())?, kind))).min_by_key(|(at, _)| *at)
}

/// The ids of a text with blanks, the first of which the model is to fill.
///
/// # Errors
/// As [`Fill::new`].
pub fn fill_prompt(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let prompt = Fill::new(tokenizer, text)?.prompt();
    prompt.ok_or_else(|| Error::Prompt("the text has no blank to fill".into()))
}
