//! Answers as they are generated. Ids become text here, for every kind of response.

use std::time::{Duration, Instant};

use glm_model::{Event, FinishReason, SampledToken, TextStream, Tokenizer};
use tokio::time::{timeout, timeout_at};

use super::engine::Events;
use super::error::{ApiError, Result};

/// How long an error has to become the status of the response. After that, a stream begins.
const SETTLE: Duration = Duration::from_millis(300);

/// The answers to the prompts of one request. To drop them cancels those in progress.
pub struct Answers {
    events: Events,
    tokenizer: &'static Tokenizer,
    choices: Vec<Choice>,
    /// Choices of each prompt.
    of_prompt: usize,
    deadline: Option<Instant>,
    /// The event that [`Answers::settle`] has received.
    first: Option<(usize, Event)>,
    usage: Usage,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub prompt: usize,
    pub cached: usize,
    pub answer: usize,
}

/// What a token, or the end of an answer, adds to it.
#[derive(Default)]
pub struct Step {
    pub choice: usize,
    /// Text that has become final; often none.
    pub text: String,
    pub token: Option<SampledToken>,
    pub finish: Option<FinishReason>,
}

struct Choice {
    stream: TextStream<'static>,
    is_over: bool,
}

impl Answers {
    /// Answers to `prompts` prompts of `prompt_tokens` tokens in all, with `of_prompt` choices each, decoded by clones of `stream`.
    pub fn new(
        events: Events,
        [prompts, of_prompt]: [usize; 2],
        prompt_tokens: usize,
        tokenizer: &'static Tokenizer,
        stream: &TextStream<'static>,
        deadline: Option<Instant>,
    ) -> Self {
        let choice = || Choice { stream: stream.clone(), is_over: false };
        let choices = std::iter::repeat_with(choice).take(prompts * of_prompt).collect();
        let usage = Usage { prompt: prompt_tokens, ..Usage::default() };
        Self { events, tokenizer, choices, of_prompt, deadline, first: None, usage }
    }

    pub fn len(&self) -> usize {
        self.choices.len()
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Waits a moment for the first event, so that an early error is an error of the response.
    ///
    /// # Errors
    /// If the answer has failed already.
    pub async fn settle(&mut self) -> Result<()> {
        match timeout(SETTLE, self.events.recv()).await {
            Ok(Some((_, Event::Failed(error)))) => Err(error.into()),
            Ok(None) => Err(ended_early()),
            Ok(first) => {
                self.first = first;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// The next step of any of the answers; `None` after the last.
    ///
    /// # Errors
    /// If an answer fails or takes too long, or the server ends.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        while self.choices.iter().any(|choice| !choice.is_over) {
            let (prompt, event) = self.event().await?;
            let at = |choice| prompt * self.of_prompt + choice;
            let step = match event {
                Event::Started { cached } => {
                    self.usage.cached += cached;
                    None
                }
                Event::Token { choice, token } => self.token(at(choice), token)?,
                Event::Finished { choice, reason } => self.finished(at(choice), reason),
                Event::Failed(error) => return Err(error.into()),
                _ => None,
            };
            if step.is_some() {
                return Ok(step);
            }
        }
        Ok(None)
    }

    async fn event(&mut self) -> Result<(usize, Event)> {
        if let Some(event) = self.first.take() {
            return Ok(event);
        }
        let event = match self.deadline {
            None => self.events.recv().await,
            Some(deadline) => {
                let event = timeout_at(deadline.into(), self.events.recv()).await;
                event.map_err(|_| {
                    ApiError::timed_out("the answer took longer than --request-timeout")
                })?
            }
        };
        event.ok_or_else(ended_early)
    }

    /// A stop string ends an answer whose ids go on; those are ignored.
    fn token(&mut self, choice: usize, token: SampledToken) -> Result<Option<Step>> {
        let Some(Choice { stream, is_over }) = self.choices.get_mut(choice) else {
            return Ok(None);
        };
        if *is_over {
            return Ok(None);
        }
        self.usage.answer += 1;
        let tokenizer = self.tokenizer;
        // Ids without a text, such as padding of the vocabulary, are skipped.
        let text = if tokenizer.knows(token.id) { stream.push(token.id)? } else { String::new() };
        *is_over = stream.stopped();
        let finish = is_over.then_some(FinishReason::Stop);
        Ok(Some(Step { choice, text, token: Some(token), finish }))
    }

    fn finished(&mut self, choice: usize, reason: FinishReason) -> Option<Step> {
        let Choice { stream, is_over } = self.choices.get_mut(choice)?;
        if std::mem::replace(is_over, true) {
            return None;
        }
        Some(Step { choice, text: stream.finish(), token: None, finish: Some(reason) })
    }
}

/// The engine has dropped the answer.
fn ended_early() -> ApiError {
    let problem =
        "the answer was ended: the server is shutting down, or the client does not read it";
    ApiError::unavailable(problem, 5).with_code("answer_ended")
}
