//! Colours of a chat: of its prompt and of its notes. They are written to terminals only.

use std::io::{IsTerminal, stderr};

use crate::output;
use crate::tty;

pub const DIM: &str = "\x1b[2m";
const PROMPT: &str = "\x1b[1;36m";
pub const PLAIN: &str = "\x1b[0m";

/// The prompt without and with colours. The editor counts the width of the first.
pub fn prompt(text: &str) -> (String, String) {
    let styled = match tty::has_colours() {
        true => format!("{PROMPT}{}{PLAIN}{}", text.trim_end(), &text[text.trim_end().len()..]),
        false => text.to_owned(),
    };
    (text.to_owned(), styled)
}

/// A remark on stderr that is no part of the conversation. It may quote one.
pub fn note(text: &str) {
    match stderr().is_terminal() && tty::has_colours() {
        true => output::styled_note(DIM, text, PLAIN),
        false => output::note(text),
    }
}
