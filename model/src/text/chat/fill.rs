//! Prompts from texts with blanks, which the model fills.
//!
//! ```text
//! ChatGLM-6B     text with [MASK] or [gMASK], white space around them dropped  <sop>
//! GLM-10B        [CLS]  text with [MASK], [sMASK], [gMASK]  <|endoftext|>  <|startofpiece|>
//! GLM-130B       text with [MASK], [sMASK], [gMASK]  </s>  sop
//! ```
//!
//! In GLM-130B `</s>` is left out if the text ends with a blank, and `[gMASK]` is appended to a text without blanks.
//!
//! The blank that is filled:
//! - ChatGLM-6B: the first one. All must be of one kind, because the published code searches for `[gMASK]` before `[MASK]`.
//! - GLM-10B: the first of any kind.
//! - GLM-130B: the first `[MASK]`, else the first `[sMASK]`, else the first `[gMASK]`. Blanks of other kinds stay.

use super::prompt::SpecialNames;
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

    /// Its form in a text.
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

/// The kinds of blanks that the model of a tokenizer fills.
pub(crate) fn kinds(tokenizer: &Tokenizer) -> Result<&'static [Blank]> {
    match tokenizer.family() {
        Family::ChatGlm => Ok(&[Blank::Mask, Blank::Gmask]),
        Family::Glm10b | Family::Glm130b => Ok(&Blank::ALL),
        _ => Err(Error::Prompt(
            "this model fills no blanks: ChatGLM-6B, GLM-10B and GLM-130B do".into(),
        )),
    }
}

/// Whether a text has a blank that the model of the tokenizer fills.
pub fn has_blank(tokenizer: &Tokenizer, text: &str) -> bool {
    kinds(tokenizer).is_ok_and(|kinds| kinds.iter().any(|kind| text.contains(kind.name())))
}

/// The kind of the blank that is filled first.
///
/// # Errors
/// If the model fills no blanks, the text has none, or a text for ChatGLM-6B has both kinds.
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
/// For ChatGLM-6B, an answer becomes text, and the whole text is encoded again for the next blank. For GLM-10B and GLM-130B,
/// the ids of an answer replace the id of the blank.
#[derive(Debug, Clone)]
pub struct Fill {
    before: Vec<u32>,
    body: Vec<u32>,
    after: Vec<u32>,
    sop: u32,
    /// The ids of the kinds of blanks that are filled.
    filled: Vec<u32>,
    ends: Vec<u32>,
    /// The blanks that are filled, in order.
    blanks: Vec<Blank>,
    /// The texts between those blanks, before the first and after the last: one more than there are blanks.
    texts: Vec<String>,
    spans: Vec<String>,
    names: SpecialNames,
}

impl Fill {
    /// Encodes a text with blanks.
    ///
    /// # Errors
    /// As [`blank`] and [`Tokenizer::encode`]. For GLM-130B a text without blanks is no error: the model continues it.
    pub fn new(tokenizer: &Tokenizer, text: &str) -> Result<Self> {
        Self::with_names(tokenizer, text, SpecialNames::Ids)
    }

    /// The same, with a choice of what names of special ids other than the blanks are in the text.
    ///
    /// # Errors
    /// As [`Fill::new`].
    pub fn with_names(tokenizer: &Tokenizer, text: &str, names: SpecialNames) -> Result<Self> {
        kinds(tokenizer)?;
        let has_none = Blank::ALL.iter().all(|kind| !text.contains(kind.name()));
        if tokenizer.family() == Family::Glm130b && has_none {
            return Self::to_continue(tokenizer, text, names);
        }
        Self::build(tokenizer, text, blank(tokenizer, text)?, names)
    }

    /// Encodes a text that the model continues: `[gMASK]` is appended if the text has no blank.
    ///
    /// # Errors
    /// As [`Fill::new`].
    pub(super) fn to_continue(
        tokenizer: &Tokenizer,
        text: &str,
        names: SpecialNames,
    ) -> Result<Self> {
        match blank(tokenizer, text) {
            Ok(kind) => Self::build(tokenizer, text, kind, names),
            Err(_) => Self::build(tokenizer, &format!("{text}[gMASK]"), Blank::Gmask, names),
        }
    }

    fn build(tokenizer: &Tokenizer, text: &str, kind: Blank, names: SpecialNames) -> Result<Self> {
        let body = body(tokenizer, text, names)?;
        let id = |kind: Blank| kind.id(tokenizer);
        let Around { before, after, sop } = Around::of(tokenizer, &body)?;
        let kinds = match tokenizer.family() {
            Family::Glm10b => Blank::ALL.to_vec(),
            _ => vec![kind],
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
        let ends = tokenizer.special().ids.ends.clone();
        Ok(Fill { before, body, after, sop, filled, ends, blanks, texts, spans: Vec::new(), names })
    }

    /// The texts between the blanks that are filled, before the first and after the last.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The blanks that are filled, in order.
    pub fn blanks(&self) -> &[Blank] {
        &self.blanks
    }

    /// The answers so far.
    pub fn spans(&self) -> &[String] {
        &self.spans
    }

    /// The prompt for the next blank. `None` if all blanks are filled.
    pub fn prompt(&self) -> Option<Vec<u32>> {
        self.next()?;
        Some([&self.before[..], &self.body, &self.after, &[self.sop]].concat())
    }

    /// Puts an answer in the place of the next blank, without the id that ended it. If all blanks are filled, does nothing.
    ///
    /// # Errors
    /// If the answer has an id without text, or contains a blank and is not the last answer. The blank then stays.
    pub fn fill(&mut self, tokenizer: &Tokenizer, answer: &[u32]) -> Result<()> {
        let answer = match answer.split_last() {
            Some((last, rest)) if self.ends.contains(last) => rest,
            _ => answer,
        };
        let Some(at) = self.next() else { return Ok(()) };
        // The vocabulary of a model may be larger than that of its tokenizer.
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
            Family::ChatGlm => self.body = body(tokenizer, &self.written(), self.names)?,
            _ => drop(self.body.splice(at..=at, answer)),
        }
        Ok(())
    }

    /// The original text with the answers in it. Blanks without an answer stay.
    pub fn written(&self) -> String {
        let Some((last, texts)) = self.texts.split_last() else { return String::new() };
        let mut written = String::new();
        for (index, (text, blank)) in texts.iter().zip(&self.blanks).enumerate() {
            written += text;
            written += self.spans.get(index).map_or(blank.name(), String::as_str);
        }
        written + last
    }

    /// The decoded ids of the text with the answers so far.
    ///
    /// # Errors
    /// If an answer has an id without text.
    pub fn text(&self, tokenizer: &Tokenizer) -> Result<String> {
        tokenizer.decode(&self.body)
    }

    fn next(&self) -> Option<usize> {
        // An answer and the text around it may together spell a new blank.
        if self.spans.len() >= self.blanks.len() {
            return None;
        }
        self.body.iter().position(|id| self.filled.contains(id))
    }
}

/// The ids around a text with blanks.
struct Around {
    before: Vec<u32>,
    after: Vec<u32>,
    sop: u32,
}

impl Around {
    fn of(tokenizer: &Tokenizer, body: &[u32]) -> Result<Self> {
        let missing = || Error::Prompt("the tokenizer lacks the ids that blanks need".into());
        let special = tokenizer.special();
        let sop = special.ids.sop.ok_or_else(missing)?;
        let (before, after) = match tokenizer.family() {
            Family::Glm10b => (special.before.clone(), special.after.clone()),
            Family::Glm130b => {
                let all: Vec<_> = Blank::ALL.iter().filter_map(|kind| kind.id(tokenizer)).collect();
                let ends_blank = body.last().is_some_and(|id| all.contains(id));
                let eos = tokenizer.id("</s>").filter(|_| !ends_blank);
                (Vec::new(), eos.into_iter().collect())
            }
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Self { before, after, sop })
    }
}

/// The prompt for a blank between two texts that are given as ids. They must not contain ids of blanks.
///
/// # Errors
/// If the model fills no blanks of this kind, or the tokenizer lacks the ids that it needs.
pub(crate) fn prompt_between(
    tokenizer: &Tokenizer,
    left: &[u32],
    kind: Blank,
    right: &[u32],
) -> Result<Vec<u32>> {
    let has_kind = kinds(tokenizer)?.contains(&kind);
    let Some(blank) = kind.id(tokenizer).filter(|_| has_kind) else {
        return Err(Error::Prompt(format!("this model fills no {}", kind.name())));
    };
    let body = [left, &[blank], right].concat();
    let Around { before, after, sop } = Around::of(tokenizer, &body)?;
    Ok([&before[..], &body, &after, &[sop]].concat())
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

/// Whether the tokenizer strips white space before a blank of this kind. The answer must then begin with a blank.
fn takes_blank(tokenizer: &Tokenizer, kind: Blank) -> Result<bool> {
    if tokenizer.family() != Family::Glm10b {
        return Ok(false);
    }
    let [with, without] = [format!("a {}", kind.name()), format!("a{}", kind.name())];
    Ok(tokenizer.encode(&with)? == tokenizer.encode(&without)?)
}

/// The ids of a given answer for the first blank of a text, as the model would generate it, for scoring.
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

/// The ids of a text and of its blanks. The tokenizer of GLM-10B finds the blanks itself. For the others, each text between
/// two blanks is encoded separately.
fn body(tokenizer: &Tokenizer, text: &str, names: SpecialNames) -> Result<Vec<u32>> {
    if tokenizer.family() == Family::Glm10b {
        return names.encode(tokenizer, text);
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
        ids.extend(names.encode(tokenizer, before)?);
        ids.extend(kind.id(tokenizer));
        rest = after;
    }
    ids.extend(names.encode(tokenizer, rest)?);
    Ok(ids)
}

/// The first blank in a text: its position and its kind.
fn first(text: &str, kinds: &[Blank]) -> Option<(usize, Blank)> {
    kinds.iter().filter_map(|&kind| Some((text.find(kind.name())?, kind))).min_by_key(|(at, _)| *at)
}

/// The prompt for the first blank of a text.
///
/// # Errors
/// As [`Fill::new`].
pub fn fill_prompt(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let prompt = Fill::new(tokenizer, text)?.prompt();
    prompt.ok_or_else(|| Error::Prompt("the text has no blank to fill".into()))
}
