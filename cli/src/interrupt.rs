//! Ctrl-C.

use anyhow::{Context, Result};
use glm_model::CancelToken;

use crate::failure::INTERRUPTED;
use crate::tty;

/// What a second Ctrl-C does before the first has taken effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nothing: the program continues after the first.
    Waits,
    /// It ends the program at once.
    Exits,
}

/// A token that Ctrl-C cancels. Can be called once.
pub fn token(again: Again) -> Result<CancelToken> {
    let token = CancelToken::default();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if tty::is_lent() {
            return;
        }
        if again == Again::Exits && cancelled.is_cancelled() {
            tty::restore();
            std::process::exit(INTERRUPTED.into());
        }
        cancelled.cancel();
    })
    .context("Ctrl-C cannot be caught")?;
    Ok(token)
}
