//! A place in a text of which more may follow.

use super::super::MAX_SPACE;
use crate::limits::answer::MAX_NAME;
use crate::text::chat::tools::Offered;

/// Why a text does not begin as expected.
pub(super) enum Problem {
    /// It ends before.
    Short,
    Other,
}

/// A place in a text.
pub(super) struct Cursor<'t> {
    text: &'t str,
    pub(super) at: usize,
}

impl<'t> Cursor<'t> {
    /// The beginning of a text.
    pub(super) fn new(text: &'t str) -> Self {
        Cursor { text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(super) fn expect(&mut self, expected: &str) -> Result<(), Problem> {
        let rest = self.rest();
        if rest.starts_with(expected) {
            self.at += expected.len();
            return Ok(());
        }
        Err(if expected.starts_with(rest) { Problem::Short } else { Problem::Other })
    }

    pub(super) fn space(&mut self) -> Result<(), Problem> {
        let rest = self.rest();
        let space = rest.len() - rest.trim_start().len();
        self.at += space;
        match space {
            0..=MAX_SPACE => Ok(()),
            _ => Err(Problem::Other),
        }
    }

    pub(super) fn next(&self) -> Result<char, Problem> {
        self.rest().chars().next().ok_or(Problem::Short)
    }

    /// A word up to one of the characters `ends`, which stays.
    pub(super) fn word(&mut self, ends: &[char]) -> Result<&'t str, Problem> {
        let rest = self.rest();
        match rest.find(ends) {
            Some(0) => Err(Problem::Other),
            Some(end) if end <= MAX_NAME => {
                self.at += end;
                Ok(&rest[..end])
            }
            None if rest.len() <= MAX_NAME => Err(Problem::Short),
            _ => Err(Problem::Other),
        }
    }

    /// The line with the name of a tool.
    pub(super) fn tool(&mut self, offered: &Offered) -> Result<&'t str, Problem> {
        // The first piece of an answer may begin with a blank.
        let rest = self.rest();
        let Some((line, _)) = rest.split_once('\n') else {
            let may_be = |name: &str| name.starts_with(rest.trim());
            let may_be = rest.len() <= MAX_NAME && offered.names().any(may_be);
            return Err(if may_be { Problem::Short } else { Problem::Other });
        };
        let name = line.trim();
        if !offered.names().any(|offered| offered == name) {
            return Err(Problem::Other);
        }
        self.at += line.len() + 1;
        Ok(name)
    }
}
