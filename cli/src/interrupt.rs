//! Ctrl-C, and the signals that end a program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    cancel_by_ctrl_c(&token, again)?;
    Ok(token)
}

/// A token that Ctrl-C cancels, and the signals of [`Termination`] as well: of a command whose passes are long. Can be called once.
pub fn token_of_all(again: Again) -> Result<CancelToken> {
    let token = CancelToken::from(Termination::catch()?.0);
    cancel_by_ctrl_c(&token, again)?;
    Ok(token)
}

fn cancel_by_ctrl_c(token: &CancelToken, again: Again) -> Result<()> {
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if tty::is_lent() {
            return;
        }
        if again == Again::Exits && cancelled.is_cancelled() {
            tty::leave();
            std::process::exit(INTERRUPTED.into());
        }
        cancelled.cancel();
    })
    .context("Ctrl-C cannot be caught")
}

/// Whether the system has asked the program to end: SIGTERM, or SIGHUP when its terminal was closed. SIGINT is Ctrl-C.
#[derive(Clone, Default)]
pub struct Termination(Arc<AtomicBool>);

impl Termination {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// If the system refuses.
    #[cfg(unix)]
    pub fn catch() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGTERM};
        let termination = Self::default();
        let catch = |signal| signal_hook::flag::register(signal, Arc::clone(&termination.0));
        catch(SIGTERM).context("SIGTERM cannot be caught")?;
        // `nohup` has the signal ignored, and it must stay so.
        if !is_ignored(SIGHUP) {
            catch(SIGHUP).context("SIGHUP cannot be caught")?;
        }
        Ok(termination)
    }

    /// Other systems have no such signals.
    #[cfg(not(unix))]
    pub fn catch() -> Result<Self> {
        Ok(Self::default())
    }

    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the process ignores a signal. Where the system does not say, it is left alone.
#[cfg(unix)]
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}
