//! Names of special ids that stay text where somebody says them.
//!
//! A `chat_template` mixes its own names with what the messages say, so the tokenizer cannot tell them apart in the rendered
//! text. Before rendering, every character of a message that may begin a name gets a mark behind it, a character that occurs
//! in no message. No name is then complete, even if the template joins two messages. The tokenizer finds the names that the
//! template itself wrote and removes the marks from the text between them.

use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Characters that no text should have. Of those that some text has, one of the private ones is left.
const CANDIDATES: [std::ops::RangeInclusive<char>; 2] =
    ['\u{fdd0}'..='\u{fdef}', '\u{f0000}'..='\u{ffffd}'];

/// In what an assistant said, these are not marked: templates look for its thoughts there.
const THOUGHTS: [&str; 2] = ["<think>", "</think>"];

/// Puts marks into texts.
#[derive(Debug)]
pub(super) struct Marks {
    mark: char,
    /// The first characters of the names that stay text.
    firsts: BTreeSet<char>,
}

impl Marks {
    /// Marks for the names of this tokenizer. None of the `texts` has the mark.
    ///
    /// # Errors
    /// If the texts have all characters that could be one.
    pub(super) fn new<'t>(
        tokenizer: &Tokenizer,
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<Self> {
        let is_candidate = |c: &char| CANDIDATES.iter().any(|range| range.contains(c));
        let used: BTreeSet<char> = texts.flat_map(str::chars).filter(is_candidate).collect();
        let mut free = CANDIDATES.into_iter().flatten().filter(|c| !used.contains(c));
        let problem =
            || Error::Prompt("the messages use every private character of Unicode".into());
        let mark = free.next().ok_or_else(problem)?;
        let firsts = tokenizer.markup().filter_map(|name| name.chars().next()).collect();
        Ok(Marks { mark, firsts })
    }

    /// The character that the tokenizer removes.
    pub(super) fn mark(&self) -> char {
        self.mark
    }

    /// A text with marks.
    pub(super) fn text(&self, text: &str) -> String {
        self.sparing(text, &[])
    }

    /// What an assistant said, with marks except in the tags of thoughts.
    pub(super) fn answer(&self, text: &str) -> String {
        self.sparing(text, &THOUGHTS)
    }

    fn sparing(&self, text: &str, spared: &[&str]) -> String {
        let mut marked = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            marked.push(c);
            let is_spared = || spared.iter().any(|name| text[at..].starts_with(name));
            if self.firsts.contains(&c) && !is_spared() {
                marked.push(self.mark);
            }
        }
        marked
    }

    /// JSON with marks in all its texts.
    pub(super) fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(values) => values.iter().map(|value| self.value(value)).collect(),
            Value::Object(fields) => self.object(fields).into(),
            _ => value.clone(),
        }
    }

    /// An object with marks in all its texts and names.
    pub(super) fn object(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        fields.iter().map(|(name, value)| (self.text(name), self.value(value))).collect()
    }
}

/// All texts in JSON, and the names in its objects.
pub(super) fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.push(name);
            texts(value, found);
        }),
        _ => {}
    }
}
