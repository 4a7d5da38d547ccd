//! Ids beside the model's own: how they are found in a text, and how they look in one.

use super::trie::Trie;
use super::{MAX_ID, is_space};
use std::collections::HashMap;

/// Whether a name that is written in a text becomes its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Always,
    /// Only where the text is known to be a conversation's.
    OnRequest,
    Never,
}

/// What an id is in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// As if it were not there.
    Ignored,
    /// Nothing, but it parts the bytes of a character.
    Hidden,
    /// Text among that of its neighbours.
    Within(String),
    /// Text of its own: what follows begins anew.
    Apart(String),
}

/// An id beside the model's own, or one of the model's with a meaning of its own.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) found: Found,
    pub(super) shown: Shown,
    /// Whether it is no part of what is said.
    pub(super) special: bool,
    /// Whether white space before it and after it belongs to it.
    pub(super) strips: [bool; 2],
}

impl Token {
    /// A special token that is found wherever it is written, and shown by its name.
    pub(super) fn new(id: u32, name: &str) -> Self {
        let shown = Shown::Within(name.into());
        Token {
            id,
            name: name.into(),
            found: Found::Always,
            shown,
            special: true,
            strips: [false; 2],
        }
    }
}

/// All of a tokenizer's.
pub(super) struct Added {
    tokens: Vec<Token>,
    by_id: HashMap<u32, usize>,
    always: Trie,
    on_request: Trie,
}

/// A stretch of a text.
pub(super) enum Stretch<'t> {
    Text(&'t str),
    Id(u32),
}

impl Added {
    /// Of several with one id, the first counts.
    ///
    /// # Errors
    /// If a name is empty, two different ids that are found in a text have the same, or an id is too
    /// high.
    pub(super) fn new(tokens: Vec<Token>) -> Result<Self, String> {
        if let Some(Token { id, name, .. }) = tokens.iter().find(|token| token.id >= MAX_ID) {
            return Err(format!("the id {id} of {name:?} is unreasonable"));
        }
        let always = trie(&tokens, |found| found == Found::Always)?;
        let on_request = trie(&tokens, |found| found != Found::Never)?;
        let by_id =
            tokens.iter().enumerate().rev().map(|(place, token)| (token.id, place)).collect();
        Ok(Added { tokens, by_id, always, on_request })
    }

    pub(super) fn get(&self, id: u32) -> Option<&Token> {
        self.by_id.get(&id).map(|&place| &self.tokens[place])
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.tokens.iter().find(|token| token.name == name).map(|token| token.id)
    }

    /// The highest id, and one more.
    pub(super) fn len(&self) -> u32 {
        self.tokens.iter().map(|token| token.id + 1).max().unwrap_or(0)
    }

    /// Hands `each` the stretches of `text`: tokens that are written in it, and what lies between.
    pub(super) fn split(&self, text: &str, on_request: bool, mut each: impl FnMut(Stretch)) {
        let trie = if on_request { &self.on_request } else { &self.always };
        let mut rest = text;
        while let Some((at, length, token)) = self.first(trie, rest) {
            let [before, after] = [&rest[..at], &rest[at + length..]];
            let [strips_before, strips_after] = token.strips;
            each(Stretch::Text(if strips_before {
                before.trim_end_matches(is_space)
            } else {
                before
            }));
            each(Stretch::Id(token.id));
            rest = if strips_after { after.trim_start_matches(is_space) } else { after };
        }
        each(Stretch::Text(rest));
    }

    /// The first token in a text, of several the longest: its place, its length and itself.
    fn first(&self, trie: &Trie, text: &str) -> Option<(usize, usize, &Token)> {
        text.char_indices().find_map(|(at, _)| {
            let (length, place) = trie.prefixes(&text.as_bytes()[at..]).last()?;
            Some((at, length, &self.tokens[place as usize]))
        })
    }
}

/// The names of tokens that are found as `wanted`, each with its place in `tokens`.
fn trie(tokens: &[Token], wanted: impl Fn(Found) -> bool) -> Result<Trie, String> {
    let mut names: Vec<_> = (0..)
        .zip(tokens)
        .filter(|(_, token)| wanted(token.found))
        .map(|(place, token)| (token.name.as_str(), place))
        .collect();
    names.sort_unstable();
    if names.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err("a special token has no name".into());
    }
    for pair in names.windows(2) {
        let [a, b] = [0, 1].map(|i| &tokens[pair[i].1 as usize]);
        if a.name == b.name && a.id != b.id {
            return Err(format!("{:?} is both {} and {}", a.name, a.id, b.id));
        }
    }
    names.dedup_by_key(|(name, _)| *name);
    Ok(Trie::new(&names))
}
