//! Answers as they are generated.

use std::time::{Duration, Instant};

use glm_model::Event;
use tokio::time::timeout;

use super::deadline::within;
use super::engine::Events;
use super::error::{ApiError, Result};

use crate::api::answer::token_of;
pub use crate::api::answer::{Reader, Reading, Step, Usage};

/// How long an error has to become the status of the response. After that, a stream begins.
const SETTLE: Duration = Duration::from_millis(300);

/// The answers to the prompts of one request. To drop them cancels those in progress.
pub struct Answers {
    events: Events,
    reading: Reading,
    deadline: Option<Instant>,
    /// The event that [`Answers::settle`] has received.
    first: Option<(usize, Event)>,
}

impl Answers {
    pub fn new(events: Events, reading: Reading, deadline: Option<Instant>) -> Self {
        Self { events, reading, deadline, first: None }
    }

    pub fn len(&self) -> usize {
        self.reading.len()
    }

    pub fn usage(&self) -> Usage {
        self.reading.usage()
    }

    /// Waits a moment for the first event, so that an early error is an error of the response, and the usage tells what was cached if
    /// the prompt took no longer.
    ///
    /// # Errors
    /// If the answer has failed or lost its place already.
    pub async fn settle(&mut self) -> Result<()> {
        match timeout(SETTLE, self.events.recv()).await {
            Ok(first) => match first?.ok_or_else(ended_early)? {
                (prompt, event @ (Event::Failed(_) | Event::Started { .. })) => {
                    self.reading.step(prompt, event).map(drop)
                }
                first => {
                    self.first = Some(first);
                    Ok(())
                }
            },
            Err(_) => Ok(()),
        }
    }

    /// The next step of any of the answers; `None` after the last.
    ///
    /// # Errors
    /// If an answer fails, loses its place before it begins, or takes too long, or the server ends.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        while !self.reading.is_over() {
            let (prompt, event) = self.event().await?;
            let choice = token_of(&event);
            let Some(step) = self.reading.step(prompt, event)? else { continue };
            if let Some(choice) = choice.filter(|_| step.finish.is_some()) {
                // A stop string has ended it.
                self.events.stop(prompt, choice);
            }
            return Ok(Some(step));
        }
        Ok(None)
    }

    async fn event(&mut self) -> Result<(usize, Event)> {
        if let Some(event) = self.first.take() {
            return Ok(event);
        }
        let event = within(self.deadline, self.events.recv()).await;
        let late = || ApiError::timed_out("the answer took longer than --request-timeout");
        event.ok_or_else(late)??.ok_or_else(ended_early)
    }
}

/// The engine has dropped the answer.
fn ended_early() -> ApiError {
    let problem =
        "the answer was ended: the server is shutting down, or the client does not read it";
    ApiError::unavailable(problem, 5).with_code("answer_ended")
}
