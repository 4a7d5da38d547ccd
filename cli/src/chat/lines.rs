//! A conversation without a terminal: each line is a question.

use std::io;

use anyhow::Result;

use super::conversation::Conversation;
use crate::input;
use crate::output::{self, say};

/// Answers the lines of stdin in turn. Empty ones ask nothing.
pub fn talk(conversation: &mut Conversation<'_>, stats: bool) -> Result<()> {
    let mut stdin = io::stdin().lock();
    while let Some(question) = input::line(&mut stdin)? {
        if question.trim().is_empty() {
            continue;
        }
        let reply = conversation.ask(question, &mut say)?;
        output::line("")?;
        reply.close(stats)?;
    }
    Ok(())
}
