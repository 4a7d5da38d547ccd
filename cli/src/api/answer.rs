//! Answers become text and calls of tools here, for every kind of response.

use glm_model::{
    AnswerEvent, AnswerParser, Event, FinishReason, SampledToken, TextStream, Tokenizer,
};

use super::error::Result;
use super::model::Question;

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub prompt: usize,
    pub cached: usize,
    pub answer: usize,
    /// Those of the answer that are thoughts, with the tags around them.
    pub reasoning: usize,
}

/// What a token, or the end of an answer, adds to it.
#[derive(Default)]
pub struct Step {
    pub choice: usize,
    /// What has become final; often nothing.
    pub parts: Vec<AnswerEvent>,
    /// Complete calls of tools so far.
    pub calls: usize,
    pub token: Option<SampledToken>,
    pub finish: Option<FinishReason>,
    /// The stop string that has ended it.
    pub stop: Option<String>,
}

/// How an answer becomes text, and the text its parts.
#[derive(Clone)]
pub struct Reader {
    stream: TextStream<'static>,
    /// `None` if all is text.
    parser: Option<AnswerParser>,
    /// Whether the first complete call ends the answer.
    has_one_call: bool,
}

impl Reader {
    pub fn new(stream: TextStream<'static>, parser: Option<AnswerParser>) -> Self {
        Self { stream, parser, has_one_call: false }
    }

    /// Ends the answer after its first call if `has_one_call`.
    pub fn with_one_call(self, has_one_call: bool) -> Self {
        Self { has_one_call, ..self }
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
        Ok(self.up_to_one_call(parts))
    }

    fn finish(&mut self) -> Vec<AnswerEvent> {
        let text = self.stream.finish();
        let mut parts = self.parse(text);
        parts.extend(self.end());
        self.up_to_one_call(parts)
    }

    /// What comes after the call that ends the answer is dropped.
    fn up_to_one_call(&self, mut parts: Vec<AnswerEvent>) -> Vec<AnswerEvent> {
        let end = parts.iter().position(|part| matches!(part, AnswerEvent::CallEnd { .. }));
        if let Some(end) = end.filter(|_| self.has_one_call) {
            parts.truncate(end + 1);
        }
        parts
    }

    /// Whether a stop string or a call has ended the answer.
    fn is_over(&self) -> bool {
        self.stream.stopped() || self.has_one_call && self.calls() > 0
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
        self.parser.as_ref().map_or(0, AnswerParser::complete_calls)
    }

    fn is_thinking(&self) -> bool {
        self.parser.as_ref().is_some_and(AnswerParser::is_thinking)
    }
}

/// The choice to which an event adds a token. If the answer is finished after such an event, a stop string has ended it, and the batch
/// must be told.
pub fn token_of(event: &Event) -> Option<usize> {
    match event {
        Event::Token { choice, .. } => Some(*choice),
        _ => None,
    }
}

struct Choice {
    reader: Reader,
    is_over: bool,
}

/// Reads the answers to the prompts of one request.
pub struct Reading {
    tokenizer: &'static Tokenizer,
    choices: Vec<Choice>,
    /// Choices of each prompt.
    of_prompt: usize,
    usage: Usage,
}

impl Reading {
    /// Reads the answers to a question.
    pub fn new(question: &mut Question, tokenizer: &'static Tokenizer) -> Self {
        let readers = std::mem::take(&mut question.readers).into_iter();
        let usage =
            Usage { prompt: question.prompts.iter().map(Vec::len).sum(), ..Usage::default() };
        let choices = readers.map(|reader| Choice { reader, is_over: false }).collect();
        Self { tokenizer, choices, of_prompt: question.choices, usage }
    }

    pub fn len(&self) -> usize {
        self.choices.len()
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether all answers have ended. A stop string or a call ends an answer before the batch does, see [`token_of`].
    pub fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| choice.is_over)
    }

    /// What an event of the prompt with this number adds to an answer, if anything.
    ///
    /// # Errors
    /// If the answer fails.
    pub fn step(&mut self, prompt: usize, event: Event) -> Result<Option<Step>> {
        let at = |choice| prompt * self.of_prompt + choice;
        match event {
            Event::Started { cached } => {
                self.usage.cached += cached;
                Ok(None)
            }
            Event::Token { choice, token } => self.token(at(choice), token),
            Event::Finished { choice, reason } => Ok(self.finished(at(choice), reason)),
            Event::Failed(error) => Err(error.into()),
            _ => Ok(None),
        }
    }

    /// A stop string or a call ends an answer whose ids go on; those are ignored.
    fn token(&mut self, choice: usize, token: SampledToken) -> Result<Option<Step>> {
        let Some(Choice { reader, is_over }) = self.choices.get_mut(choice) else {
            return Ok(None);
        };
        if *is_over {
            return Ok(None);
        }
        self.usage.answer += 1;
        let was_thinking = reader.is_thinking();
        let parts = reader.push(self.tokenizer, token.id)?;
        self.usage.reasoning += usize::from(was_thinking || reader.is_thinking());
        *is_over = reader.is_over();
        let finish = is_over.then_some(FinishReason::Stop);
        let stop = reader.stream.stopped_by().map(str::to_owned);
        let calls = reader.calls();
        Ok(Some(Step { choice, parts, calls, token: Some(token), finish, stop }))
    }

    fn finished(&mut self, choice: usize, reason: FinishReason) -> Option<Step> {
        let Choice { reader, is_over } = self.choices.get_mut(choice)?;
        if std::mem::replace(is_over, true) {
            return None;
        }
        let parts = reader.finish();
        let calls = reader.calls();
        // A stop string may be complete only now.
        let stop = reader.stream.stopped_by().map(str::to_owned);
        Some(Step { choice, parts, calls, token: None, finish: Some(reason), stop })
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
