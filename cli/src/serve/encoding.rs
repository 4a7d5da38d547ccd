//! Work before an answer: texts are encoded, and grammars compiled. It may take long and cannot be interrupted, even if the client leaves.
//!
//! A grammar can take seconds, and a text takes milliseconds. So each kind has turns of its own: no text waits for a grammar.

use super::turns::Turns;

/// Texts that are encoded at the same time.
const TEXTS: usize = 2;
/// Grammars that are compiled at the same time.
const GRAMMARS: usize = 2;
/// Threads that work at the same time.
pub const AT_ONCE: usize = TEXTS + GRAMMARS;

/// Who works, and who waits for it.
pub struct Encoding {
    pub texts: Turns,
    pub grammars: Turns,
}

impl Encoding {
    /// At most `waiting` requests wait for each kind of work; each holds its body.
    pub fn new(waiting: usize) -> Self {
        Self { texts: Turns::new(TEXTS, waiting), grammars: Turns::new(GRAMMARS, waiting) }
    }
}
