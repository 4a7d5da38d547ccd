//! Whole answers.

use glm_model::{AnswerEvent, Tokenizer};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answer::{Step, Usage};
use crate::api::logprobs::{ChatLogprobs, Logprobs, TokenLogprob};
use crate::api::model::{now, response_id};
use crate::api::usage::UsageBody;

pub const ASSISTANT: &str = "assistant";

/// What all parts of a response have.
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    logprobs: Option<Logprobs>,
}

impl Head {
    pub fn new(model: &str, tokenizer: &'static Tokenizer, has_logprobs: bool) -> Self {
        let (id, model) = (response_id("chatcmpl"), model.to_owned());
        let logprobs = has_logprobs.then(|| Logprobs::new(tokenizer));
        Self { id, created: now(), model, logprobs }
    }

    /// The probabilities of the token of a step, if they are asked for.
    pub fn logprob(&mut self, step: &Step) -> Option<TokenLogprob> {
        self.logprobs.as_mut()?.token(step.choice, step.token.as_ref()?)
    }
}

/// The answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: UsageBody,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: ChatMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// The message of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatMessage {
    role: &'static str,
    /// Null if there are only calls.
    content: Option<String>,
    /// What the model thought before.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallBody>,
}

/// A call of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallBody {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionBody,
}

/// The function that is called.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionBody {
    name: String,
    /// A JSON object as text.
    arguments: String,
}

impl ChatMessage {
    fn add(&mut self, part: AnswerEvent) {
        match part {
            AnswerEvent::Text(text) => *self.content.get_or_insert_default() += &text,
            AnswerEvent::Reasoning(text) => {
                *self.reasoning_content.get_or_insert_default() += &text;
            }
            AnswerEvent::CallStart { id, name, .. } => {
                let function = FunctionBody { name, arguments: String::new() };
                self.tool_calls.push(CallBody { id, kind: "function", function });
            }
            AnswerEvent::CallArguments { piece, .. } => {
                if let Some(call) = self.tool_calls.last_mut() {
                    call.function.arguments += &piece;
                }
            }
            _ => {}
        }
    }
}

/// Whole answers that are being made of steps.
pub struct Chat {
    head: Head,
    choices: Vec<ChatChoice>,
}

impl Chat {
    /// So many empty answers.
    pub fn new(head: Head, choices: usize) -> Self {
        let choice = |index| ChatChoice {
            index,
            message: ChatMessage { role: ASSISTANT, ..ChatMessage::default() },
            logprobs: head.logprobs.is_some().then(ChatLogprobs::default),
            finish_reason: None,
        };
        let choices = (0..choices).map(choice).collect();
        Self { head, choices }
    }

    pub fn add(&mut self, step: Step) {
        let ChatChoice { message, logprobs, finish_reason, .. } = &mut self.choices[step.choice];
        if let Some(logprobs) = logprobs {
            logprobs.content.extend(self.head.logprob(&step));
        }
        *finish_reason = step.finish_name().or(*finish_reason);
        step.parts.into_iter().for_each(|part| message.add(part));
    }

    pub fn finish(self, usage: Usage) -> ChatCompletion {
        let Self { head: Head { id, created, model, .. }, mut choices } = self;
        for ChatChoice { message, .. } in &mut choices {
            if message.tool_calls.is_empty() {
                message.content.get_or_insert_default();
            }
        }
        let usage = usage.into();
        ChatCompletion { id, object: "chat.completion", created, model, choices, usage }
    }
}
