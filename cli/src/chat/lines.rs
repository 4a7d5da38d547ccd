//! A conversation without a terminal: each line is a question.

use std::io;

use anyhow::{Result, anyhow};

use super::session::Session;
use super::style::note;
use crate::failure::message;
use crate::{input, messages};

/// Answers the lines of stdin and returns how many there were. Empty lines are skipped. Bytes that are not UTF-8 are replaced, which is noted once.
pub fn talk(session: &mut Session) -> Result<usize> {
    session.answer_open_question()?;
    let mut stdin = io::stdin().lock();
    let mut is_noted = false;
    let (mut number, mut questions) = (0_usize, 0);
    while let Some(line) = input::lossy_line(&mut stdin)? {
        number += 1;
        if !line.is_utf8 && !is_noted {
            note(&messages::line_is_repaired(number));
            is_noted = true;
        }
        if !line.text.trim().is_empty() {
            questions += 1;
            session.ask(&line.text).map_err(|error| match session.advice(&error) {
                Some(advice) => anyhow!("{}. {advice}", message(&error)),
                None => error,
            })?;
        }
    }
    Ok(questions)
}
