//! Pieces of answers, as OpenAI's API sends them.

use axum::response::sse::Event;
use glm_model::AnswerEvent;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::chat::response::{ASSISTANT, Head};
use crate::api::logprobs::ChatLogprobs;
use crate::api::usage::UsageBody;
use crate::serve::answer::{Step, Usage};
use crate::serve::sse;

/// A piece of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk<'h> {
    id: &'h str,
    object: &'static str,
    created: u64,
    model: &'h str,
    choices: Vec<ChunkChoice>,
    /// Null in all pieces but the last; absent if it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
}

/// A piece of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What a piece adds to the message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// What a piece adds to a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

/// What a piece adds to the function of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl Delta {
    /// `None` for a part that adds nothing.
    fn new(part: AnswerEvent) -> Option<Self> {
        let call = |call| Some(Self { tool_calls: vec![call], ..Self::default() });
        match part {
            AnswerEvent::Text(text) => Some(Self { content: Some(text), ..Self::default() }),
            AnswerEvent::Reasoning(text) => {
                Some(Self { reasoning_content: Some(text), ..Self::default() })
            }
            AnswerEvent::CallStart { index, id, name } => {
                let function = FunctionDelta { name: Some(name), arguments: String::new() };
                call(CallDelta { index, id: Some(id), kind: Some("function"), function })
            }
            AnswerEvent::CallArguments { index, piece } => {
                let function = FunctionDelta { name: None, arguments: piece };
                call(CallDelta { index, id: None, kind: None, function })
            }
            _ => None,
        }
    }
}

/// Makes the pieces.
pub struct Chunks {
    head: Head,
    choices: usize,
    with_usage: bool,
}

impl Chunks {
    pub fn new(head: Head, choices: usize, with_usage: bool) -> Self {
        Self { head, choices, with_usage }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<UsageBody>) -> Event {
        let Head { id, created, model, .. } = &self.head;
        sse::data(&ChatChunk {
            id,
            object: "chat.completion.chunk",
            created: *created,
            model,
            choices,
            usage: self.with_usage.then_some(usage),
        })
    }

    fn piece(&self, choice: ChunkChoice) -> Event {
        self.chunk(vec![choice], None)
    }
}

impl sse::Events for Chunks {
    fn begin(&mut self) -> Vec<Event> {
        let begin = |index| {
            let content = Some(String::new());
            let delta = Delta { role: Some(ASSISTANT), content, ..Delta::default() };
            self.piece(ChunkChoice { index, delta, ..ChunkChoice::default() })
        };
        (0..self.choices).map(begin).collect()
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let (index, finish_reason) = (step.choice, step.finish_name());
        let logprob = self.head.logprob(&step);
        let mut logprobs = logprob.map(|logprob| ChatLogprobs { content: vec![logprob] });
        let mut deltas: Vec<_> = step.parts.into_iter().filter_map(Delta::new).collect();
        if deltas.is_empty() && logprobs.is_some() {
            // A token whose text is held back.
            deltas.push(Delta { content: Some(String::new()), ..Delta::default() });
        }
        let mut choices: Vec<_> = deltas
            .into_iter()
            .map(|delta| ChunkChoice {
                index,
                delta,
                logprobs: logprobs.take(),
                finish_reason: None,
            })
            .collect();
        if finish_reason.is_some() {
            choices.push(ChunkChoice { index, finish_reason, ..ChunkChoice::default() });
        }
        choices.into_iter().map(|choice| self.piece(choice)).collect()
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.with_usage.then(|| self.chunk(Vec::new(), Some(usage.into())));
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }
}
