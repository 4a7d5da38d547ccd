//! Thoughts of a model in a terminal: dimmed while they come, and folded into one line when they end.
//!
//! They are no part of the answer, so they go to stderr, and only where a person sees both stdout and stderr.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Instant;

use anyhow::Result;
use glm_model::AnswerEvent;

use super::style::{DIM, PLAIN, note};
use super::wrap::{NARROWEST, Wrap};
use crate::output::harmless;
use crate::units::seconds;
use crate::{messages, tty};

/// Shows thoughts.
pub struct Thoughts {
    /// Whether a person sees them.
    is_seen: bool,
    /// Whether they are folded when they end.
    folds: bool,
    /// Those that have begun and not ended.
    open: Option<Open>,
}

/// Thoughts that are being shown.
struct Open {
    started: Instant,
    wrap: Wrap,
    /// The size of the terminal when they began, less the last column, in which terminals differ.
    columns: Option<usize>,
    /// New lines that were written.
    breaks: usize,
    /// How often the program had been stopped when they began. Then the shell writes below them.
    stops: usize,
}

impl Thoughts {
    /// With `folds`, there is a command that shows them again.
    pub fn new(folds: bool) -> Self {
        let is_seen = stdout().is_terminal() && stderr().is_terminal();
        Self { is_seen, folds, open: None }
    }

    /// Takes the next piece of an answer. A piece of the text ends the thoughts.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn show(&mut self, event: &AnswerEvent) -> Result<()> {
        match event {
            AnswerEvent::Reasoning(piece) if self.is_seen => {
                let open = self.open.get_or_insert_with(Open::new);
                let shown = open.wrap.push(piece, open.columns);
                open.write(&shown)
            }
            AnswerEvent::Reasoning(_) => Ok(()),
            _ => self.end(),
        }
    }

    /// Ends the thoughts, if there are any.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let rest = open.wrap.end();
        open.write(&rest)?;
        let time = seconds(open.started.elapsed());
        let is_folded = self.folds && open.fold()?;
        if !is_folded {
            writeln!(stderr())?;
        }
        note(&match self.folds {
            true => messages::thought_and_folded(time),
            false => messages::thought_for(time),
        });
        Ok(())
    }
}

impl Open {
    fn new() -> Self {
        let wrap = Wrap::breaking_code();
        Self { started: Instant::now(), wrap, columns: columns(), breaks: 0, stops: tty::stops() }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.breaks += text.matches('\n').count();
        let (begin, end) = if tty::has_colours() { (DIM, PLAIN) } else { ("", "") };
        let mut stderr = stderr().lock();
        write!(stderr, "{begin}{}{end}", harmless(text))?;
        Ok(stderr.flush()?)
    }

    /// Erases what was shown and returns whether that was possible: not if the terminal obeys no escape sequences, or has changed its
    /// width, or the program was stopped meanwhile. What has left the screen stays above it.
    fn fold(&self) -> Result<bool> {
        let is_same = self.columns == columns() && self.stops == tty::stops();
        let can_fold = !tty::is_dumb() && is_same;
        let (Some(_), Some(rows), true) = (self.columns, tty::rows(), can_fold) else {
            return Ok(false);
        };
        let up = self.breaks.min(rows.saturating_sub(1));
        let up = if up > 0 { format!("\x1b[{up}A") } else { String::new() };
        write!(stderr(), "\r{up}\x1b[J")?;
        Ok(true)
    }
}

/// The width in which lines are broken, if the terminal does not break them itself.
fn columns() -> Option<usize> {
    tty::columns().map(|columns| columns - 1).filter(|&columns| columns >= NARROWEST)
}
