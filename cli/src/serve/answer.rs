//! Answers as they are generated. Ids become text here, for every kind of response.

use std::time::{Duration, Instant};

use glm_model::{
    AnswerEvent, AnswerParser, Event, FinishReason, SampledToken, TextStream, Tokenizer,
};
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
    /// What has become final; often nothing.
    pub parts: Vec<AnswerEvent>,
    /// Calls of tools so far.
    pub calls: usize,
    pub token: Option<SampledToken>,
    pub finish: Option<FinishReason>,
}

/// How an answer becomes text, and the text its parts.
#[derive(Clone)]
pub struct Reader {
    stream: TextStream<'static>,
    /// `None` if all is text.
    parser: Option<AnswerParser>,
}

impl Reader {
    pub fn new(stream: TextStream<'static>, parser: Option<AnswerParser>) -> Self {
        Self { stream, parser }
    }

    fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<Vec<AnswerEvent>> {
        // Ids without a text, such as padding of the vocabulary, are skipped.
        if !tokenizer.knows(id) {
            return Ok(Vec::new());
        }
        let text = self.stream.push(id)?;
        let mut parts = self.parse(text);
        if self.stream.stopped() {
            parts.extend(self.end());
        }
        Ok(parts)
    }

    fn finish(&mut self) -> Vec<AnswerEvent> {
        let text = self.stream.finish();
        let mut parts = self.parse(text);
        parts.extend(self.end());
        parts
    }

    fn parse(&mut self, text: String) -> Vec<AnswerEvent> {
        match &mut self.parser {
            _ if text.is_empty() => Vec::new(),
            Some(parser) => parser.push(&text),
            None => vec![AnswerEvent::Text(text)],
        }
    }

    fn end(&mut self) -> Vec<AnswerEvent> {
        self.parser.as_mut().map(AnswerParser::finish).unwrap_or_default()
    }

    fn calls(&self) -> usize {
        self.parser.as_ref().map_or(0, AnswerParser::calls)
    }
}

struct Choice {
    reader: Reader,
    is_over: bool,
}

impl Answers {
    /// The answers to prompts of `prompt_tokens` tokens in all. Each prompt has `of_prompt` of the readers.
    pub fn new(
        events: Events,
        of_prompt: usize,
        readers: Vec<Reader>,
        prompt_tokens: usize,
        tokenizer: &'static Tokenizer,
        deadline: Option<Instant>,
    ) -> Self {
        let choices = readers.into_iter().map(|reader| Choice { reader, is_over: false }).collect();
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
        let Some(Choice { reader, is_over }) = self.choices.get_mut(choice) else {
            return Ok(None);
        };
        if *is_over {
            return Ok(None);
        }
        self.usage.answer += 1;
        let parts = reader.push(self.tokenizer, token.id)?;
        *is_over = reader.stream.stopped();
        let finish = is_over.then_some(FinishReason::Stop);
        let calls = reader.calls();
        Ok(Some(Step { choice, parts, calls, token: Some(token), finish }))
    }

    fn finished(&mut self, choice: usize, reason: FinishReason) -> Option<Step> {
        let Choice { reader, is_over } = self.choices.get_mut(choice)?;
        if std::mem::replace(is_over, true) {
            return None;
        }
        let parts = reader.finish();
        let calls = reader.calls();
        Some(Step { choice, parts, calls, token: None, finish: Some(reason) })
    }
}

impl Step {
    /// The text in it.
    pub fn text(&self) -> String {
        let text = |part: &AnswerEvent| match part {
            AnswerEvent::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.parts.iter().filter_map(text).collect()
    }

    /// Why the answer has ended, as OpenAI's API names it.
    pub fn finish_name(&self) -> Option<&'static str> {
        self.finish.map(|finish| match finish {
            FinishReason::Stop if self.calls > 0 => "tool_calls",
            FinishReason::Stop => "stop",
            _ => "length",
        })
    }
}

/// The engine has dropped the answer.
fn ended_early() -> ApiError {
    let problem =
        "the answer was ended: the server is shutting down, or the client does not read it";
    ApiError::unavailable(problem, 5).with_code("answer_ended")
}
