//! Added tokens: how they are found in a text, and how they are decoded.

use super::MAX_ID;
use super::trie::Trie;
use std::collections::HashMap;

/// When the name of a token in a text becomes its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Always,
    /// Only if the caller says that the text is a rendered conversation.
    OnRequest,
    Never,
}

/// Which names in a text become ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Those of [`Found::Always`].
    Always,
    /// Those of [`Found::OnRequest`] as well.
    OnRequest,
    /// Those of [`Found::Always`] that are no markup.
    NoMarkup,
}

/// Names that a person writes into a text for their meaning: the blanks, and the switch of GLM-4.5 that stops thinking.
const KEPT: [&str; 4] = ["[MASK]", "[sMASK]", "[gMASK]", "/nothink"];

/// How an id is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// The id is skipped.
    Ignored,
    /// No text, but bytes before and after the id are not joined to one character.
    Hidden,
    /// Text that is joined to that of its neighbours.
    Within(String),
    /// Separate text: what follows is decoded as at the start of a text.
    Apart(String),
}

/// An id that the model of the tokenizer does not have, or that has a special meaning.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) found: Found,
    pub(super) shown: Shown,
    /// Whether it is not part of the text of an answer.
    pub(super) special: bool,
    /// Whether white space before it, and after it, is dropped when it is found in a text.
    pub(super) strips: [bool; 2],
}

impl Token {
    /// A special token that is always found, and decoded to its name.
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

    /// Whether the name structures a prompt, and is no part of what somebody says: special ids, and tags such as `<think>`.
    pub(super) fn is_markup(&self) -> bool {
        let is_tag = self.name.starts_with('<') && self.name.ends_with('>');
        (self.special || is_tag) && !KEPT.contains(&self.name.as_str())
    }
}

/// All added tokens of a tokenizer.
pub(super) struct Added {
    tokens: Vec<Token>,
    by_id: HashMap<u32, usize>,
    always: Trie,
    on_request: Trie,
    no_markup: Trie,
    is_space: fn(char) -> bool,
}

/// A segment of a text: an added token, or text between two of them.
pub(super) enum Segment<'t> {
    Text(&'t str),
    Id(u32),
}

impl Added {
    /// `is_space` says which characters are white space that is dropped around a token. Of several tokens with the same id,
    /// the first is used.
    ///
    /// # Errors
    /// If an id is too high; or, among the tokens that are found in a text, if a name is empty or belongs to two ids.
    pub(super) fn new(tokens: Vec<Token>, is_space: fn(char) -> bool) -> Result<Self, String> {
        if let Some(Token { id, name, .. }) = tokens.iter().find(|token| token.id >= MAX_ID) {
            return Err(format!("the id {id} of {name:?} is not below {MAX_ID}"));
        }
        let always = trie(&tokens, |token| token.found == Found::Always)?;
        let on_request = trie(&tokens, |token| token.found != Found::Never)?;
        let no_markup = |token: &Token| token.found == Found::Always && !token.is_markup();
        let no_markup = trie(&tokens, no_markup)?;
        let by_id =
            tokens.iter().enumerate().rev().map(|(place, token)| (token.id, place)).collect();
        Ok(Added { tokens, by_id, always, on_request, no_markup, is_space })
    }

    pub(super) fn get(&self, id: u32) -> Option<&Token> {
        self.by_id.get(&id).map(|&place| &self.tokens[place])
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.tokens.iter().find(|token| token.name == name).map(|token| token.id)
    }

    /// The names of markup that are found in a rendered conversation.
    pub(super) fn markup(&self) -> impl Iterator<Item = &str> {
        let found = self.tokens.iter().filter(|token| token.found != Found::Never);
        found.filter(|token| token.is_markup()).map(|token| token.name.as_str())
    }

    /// The highest id plus one.
    pub(super) fn len(&self) -> u32 {
        self.tokens.iter().map(|token| token.id + 1).max().unwrap_or(0)
    }

    /// Calls `each` with the segments of `text`: the added tokens in it, and the text between them.
    pub(super) fn split(&self, text: &str, names: Names, mut each: impl FnMut(Segment)) {
        let trie = match names {
            Names::Always => &self.always,
            Names::OnRequest => &self.on_request,
            Names::NoMarkup => &self.no_markup,
        };
        let mut rest = text;
        while let Some((at, length, token)) = self.first(trie, rest) {
            let [before, after] = [&rest[..at], &rest[at + length..]];
            let [strips_before, strips_after] = token.strips;
            each(Segment::Text(if strips_before {
                before.trim_end_matches(self.is_space)
            } else {
                before
            }));
            each(Segment::Id(token.id));
            rest = if strips_after { after.trim_start_matches(self.is_space) } else { after };
        }
        each(Segment::Text(rest));
    }

    /// The first token in a text: its position, its length and the token. Of several at one position, the longest is used.
    fn first(&self, trie: &Trie, text: &str) -> Option<(usize, usize, &Token)> {
        text.char_indices().find_map(|(at, _)| {
            let (length, place) = trie.prefixes(&text.as_bytes()[at..]).last()?;
            Some((at, length, &self.tokens[place as usize]))
        })
    }
}

/// A trie of the names of the tokens that are `wanted`. The values are indices into `tokens`.
fn trie(tokens: &[Token], wanted: impl Fn(&Token) -> bool) -> Result<Trie, String> {
    let mut names: Vec<_> = (0..)
        .zip(tokens)
        .filter(|(_, token)| wanted(token))
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
    Trie::new(&names)
}
