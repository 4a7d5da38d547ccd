//! A conversation without a terminal: each line is a question.

use std::io;

use anyhow::Result;
use glm_model::Conversation;

use super::print;
use crate::input;

/// Answers the lines of stdin. Empty lines are skipped.
pub fn talk(conversation: &mut Conversation, stats: bool) -> Result<()> {
    let mut stdin = io::stdin().lock();
    while let Some(question) = input::line(&mut stdin)? {
        if question.trim().is_empty() {
            continue;
        }
        print(conversation.ask(question)?, stats)?;
    }
    Ok(())
}
