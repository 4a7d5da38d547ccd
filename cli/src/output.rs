//! stdout for answers, stderr for everything else.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use serde_json::Value;

use crate::help::wrap;
use crate::tty;

/// Shows a piece of an answer at once.
pub fn say(piece: &str) -> Result<()> {
    if !piece.is_empty() {
        let mut stdout = io::stdout().lock();
        let shown = if stdout.is_terminal() { harmless(piece) } else { piece.into() };
        stdout.write_all(shown.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

/// Replaces control characters, which a model can generate and a terminal obeys.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.contains(is_control) {
        true => text.replace(is_control, "\u{fffd}").into(),
        false => text.into(),
    }
}

/// A line of an answer.
pub fn line(text: &str) -> Result<()> {
    say(&format!("{text}\n"))
}

/// An answer as one line of JSON.
pub fn json(value: &Value) -> Result<()> {
    line(&value.to_string())
}

/// A note on stderr. It may quote a file or a server. Errors are ignored.
pub fn note(text: &str) {
    styled_note("", text, "");
}

/// A note on stderr between two escape sequences. In a terminal, its control characters are replaced, and its lines are broken
/// between words.
pub fn styled_note(begin: &str, text: &str, end: &str) {
    let mut stderr = io::stderr().lock();
    let shown = match stderr.is_terminal() {
        true => {
            let text = harmless(text);
            tty::columns().map_or_else(|| text.clone(), |columns| wrap::text(&text, columns).into())
        }
        false => text.into(),
    };
    let _ = writeln!(stderr, "{begin}{shown}{end}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_can_move_the_cursor() {
        assert_eq!(harmless("a\tb\n"), "a\tb\n");
        assert_eq!(harmless("\x1b[2J\r\u{9b}1m"), "\u{fffd}[2J\u{fffd}\u{fffd}1m");
    }
}
