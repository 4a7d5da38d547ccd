//! Ctrl-C.

use anyhow::{Context, Result};
use glm_model::CancelToken;

use crate::failure::INTERRUPTED;

/// What a second Ctrl-C does while the first is still being heeded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nothing; where a program is to go on, an impatient finger must not end it.
    Waits,
    /// It ends the program on the spot.
    Exits,
}

/// A token that Ctrl-C cancels from now on. To be asked for once.
pub fn token(again: Again) -> Result<CancelToken> {
    let token = CancelToken::default();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if again == Again::Exits && cancelled.is_cancelled() {
            std::process::exit(INTERRUPTED.into());
        }
        cancelled.cancel();
    })
    .context("Ctrl-C cannot be caught")?;
    Ok(token)
}
